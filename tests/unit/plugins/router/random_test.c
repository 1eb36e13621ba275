/* SPDX-License-Identifier: MIT */
/* Random: each ready replica alike, and n single queues. */
#include "fixture.h"

static void each_ready_replica_alike(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("random", 100, NULL);
    for (uint32_t few = 0; few < 2; few++) { /* few ready: the draw is by counting them, and as even */
        for (uint32_t i = 0; i < 100; i++)
            f->r[i].ready = few ? i % 50 == 7 : i % 2, f->r[i].waiting = 0;
        for (int i = 0; i < 50000; i++)
            fleet_route(f, (struct lathe_request){ 0 });
        for (uint32_t i = 0; i < 100; i++)
            if (f->r[i].ready)
                near(f->r[i].waiting, few ? 25000 : 1000, few ? 0.03 : 0.15, "requests of a replica");
    }
    fleet_close(f);
}

static void a_request_goes_where_it_goes(void **state)
{
    (void)state;
    struct fleet *a = fleet_open("random", 100, NULL), *b = fleet_open("random", 100, NULL);
    for (uint64_t id = 1; id <= 1000; id++)
        fleet_route(a, (struct lathe_request){ .id = id });
    for (uint64_t id = 1; id <= 1000; id += 10) { /* whatever came before it */
        uint32_t where = fleet_route(b, (struct lathe_request){ .id = id });
        assert_int_equal(fleet_route(a, (struct lathe_request){ .id = id }), where);
    }
    fleet_close(a);
    fleet_close(b);
}

static void its_replicas_are_single_queues(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("random", 500, NULL);
    near(fleet_mean_time(f, 0.7, 600), 1 / (1 - 0.7), 0.04, "mean time at load 0.7");
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_ready_replica_alike),
        cmocka_unit_test(a_request_goes_where_it_goes),
        cmocka_unit_test(its_replicas_are_single_queues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

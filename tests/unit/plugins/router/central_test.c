/* SPDX-License-Identifier: MIT */
/* Central: one queue in front, so Erlang's C formula holds; and places are neither lost nor made. */
#include "fixture.h"

/* Probability of waiting in M/M/n at `load` a server, by Erlang B's recursion. */
static double erlang_c(int n, double load)
{
    double b = 1, offered = n * load;
    for (int i = 1; i <= n; i++)
        b = offered * b / (i + offered * b);
    return b / (1 - load * (1 - b));
}

/* Share of the arrivals that are held; *mean_wait in service times, by Little's law. */
static double held_share(uint32_t n, double load, uint32_t arrivals, double *mean_wait)
{
    struct fleet *f = fleet_open("central", n, NULL);
    double came = 0, held = 0, sum = 0, events = 0;
    uint32_t queue = 0, i;
    for (i = 0; came < arrivals; i++, events++, sum += queue) {
        if (fleet_unit(1, i) * (1 + load) < load) {
            came++;
            if (queue == 0 && fleet_route(f, (struct lathe_request){ 0 }) != LATHE_ROUTER_HOLD)
                continue;
            held++;
            queue++;
            continue;
        }
        uint32_t at = (uint32_t)(fleet_unit(2, i) * n);
        assert_true(f->r[at].waiting <= 1); /* places = 1 */
        if (f->r[at].waiting == 0)
            continue;
        fleet_end(f, at);
        if (queue > 0) { /* the oldest is offered again, and goes to the one that has a place */
            assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), at);
            queue--;
        }
    }
    fleet_close(f);
    *mean_wait = sum / events / (load * n);
    return held / came;
}

static void waiting_is_as_erlang_says(void **state)
{
    (void)state;
    double mean_wait;
    near(erlang_c(10, 0.9), 0.6687, 0.001, "the formula, 10 servers");
    near(erlang_c(100, 0.9), 0.2169, 0.001, "the formula, 100 servers");
    near(held_share(10, 0.9, 400000, &mean_wait), 0.6687, 0.03, "10 replicas, held");
    near(mean_wait, 0.6687, 0.08, "10 replicas, mean wait");
    near(held_share(100, 0.9, 1000000, &mean_wait), 0.2169, 0.12, "100 replicas, held");
}

static void a_replica_has_no_more_than_its_places(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("central", 3, (const char *const[]){ "places", "4", NULL });
    for (int i = 0; i < 12; i++)
        assert_int_not_equal(fleet_route(f, (struct lathe_request){ 0 }), LATHE_ROUTER_HOLD);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(f->r[i].waiting, 4);
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), LATHE_ROUTER_HOLD);
    fleet_end(f, 1);
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), 1);
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), LATHE_ROUTER_HOLD);
    fleet_close(f);
}

static void one_that_is_not_ready_gets_none_and_keeps_its_place(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("central", 3, NULL);
    f->r[0].ready = 0;
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), 1);
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), 2);
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), LATHE_ROUTER_HOLD);
    f->r[0].ready = 1;
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), 0);
    fleet_close(f);
}

/* Refused on its way, so never finished: the replica says that it has nothing. */
static void a_lost_place_comes_back(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("central", 3, NULL);
    for (int i = 0; i < 3; i++)
        fleet_route(f, (struct lathe_request){ 0 });
    f->r[1].waiting = 0;
    uint32_t at = LATHE_ROUTER_HOLD;
    for (int i = 0; i < 3 && at == LATHE_ROUTER_HOLD; i++)
        at = fleet_route(f, (struct lathe_request){ 0 });
    assert_int_equal(at, 1);
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), LATHE_ROUTER_HOLD);
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_is_as_erlang_says),
        cmocka_unit_test(a_replica_has_no_more_than_its_places),
        cmocka_unit_test(one_that_is_not_ready_gets_none_and_keeps_its_place),
        cmocka_unit_test(a_lost_place_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

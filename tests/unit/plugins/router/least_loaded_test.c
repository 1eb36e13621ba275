/* SPDX-License-Identifier: MIT */
/* Least loaded: the smallest by the measure that was asked for, ties in turn. */
#include "fixture.h"

static void the_smallest_of_all(void **state)
{
    (void)state;
    for (int tokens = 0; tokens < 2; tokens++) {
        struct fleet *f = fleet_open("least_loaded", 300, (const char *const[]){ "load", tokens ? "tokens" : "requests", NULL });
        for (uint32_t i = 0; i < 300; i++)
            f->r[i].running = 3, f->r[i].pending_tokens = 100;
        f->r[200].running = 2, f->r[200].pending_tokens = 900;
        f->r[201].running = 4, f->r[201].pending_tokens = 50;
        assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), tokens ? 201 : 200);
        fleet_close(f);
    }
}

static void equals_share_a_trickle(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("least_loaded", 4, NULL);
    for (uint32_t i = 0; i < 12; i++) {
        uint32_t at = fleet_route(f, (struct lathe_request){ 0 });
        assert_int_equal(at, i % 4);
        fleet_end(f, at);
    }
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_of_all),
        cmocka_unit_test(equals_share_a_trickle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

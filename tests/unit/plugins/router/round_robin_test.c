/* SPDX-License-Identifier: MIT */
/* Round robin: in turn, and nobody twice before all had one. */
#include "fixture.h"

static void in_turn(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("round_robin", 5, NULL);
    for (uint32_t i = 0; i < 23; i++)
        assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), i % 5);
    fleet_close(f);
}

static void passes_over_those_that_are_not_ready(void **state)
{
    (void)state;
    static const uint32_t turns[] = { 0, 3, 4, 0, 3, 4, 0 };
    struct fleet *f = fleet_open("round_robin", 5, NULL);
    f->r[1].ready = f->r[2].ready = 0;
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), turns[i]);
    f->count = 2; /* scaled down: its turn is another's */
    assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), 0);
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_turn),
        cmocka_unit_test(passes_over_those_that_are_not_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

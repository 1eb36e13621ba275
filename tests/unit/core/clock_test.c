/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"

static void a_virtual_clock_stands_until_it_is_moved(void **state)
{
    struct clock clock;
    (void)state;
    clock_start(&clock, CLOCK_KIND_VIRTUAL);
    assert_int_equal(clock_now(&clock), 0);
    clock_wait_until(&clock, 3600000000000); /* an hour, at once */
    assert_int_equal(clock_now(&clock), 3600000000000);
    assert_int_equal(clock_now(&clock), 3600000000000);
}

static void a_virtual_clock_never_goes_back(void **state)
{
    struct clock clock;
    (void)state;
    clock_start(&clock, CLOCK_KIND_VIRTUAL);
    clock_wait_until(&clock, 50);
    clock_wait_until(&clock, 20);
    clock_wait_until(&clock, -1);
    assert_int_equal(clock_now(&clock), 50);
}

static void a_real_clock_starts_at_zero_and_only_grows(void **state)
{
    struct clock clock;
    int64_t before = 0;
    (void)state;
    clock_start(&clock, CLOCK_KIND_REAL);
    for (int i = 0; i < 1000; i++) {
        int64_t now = clock_now(&clock);
        assert_true(now >= before);
        before = now;
    }
}

static void a_real_clock_waits_until_then_and_not_for_the_past(void **state)
{
    struct clock clock;
    (void)state;
    clock_start(&clock, CLOCK_KIND_REAL);
    clock_wait_until(&clock, 5000000);
    assert_true(clock_now(&clock) >= 5000000);
    clock_wait_until(&clock, 1);
    clock_wait_until(&clock, -1000000000);
    clock_wait_until(&clock, INT64_MIN / 2);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_virtual_clock_stands_until_it_is_moved),
        cmocka_unit_test(a_virtual_clock_never_goes_back),
        cmocka_unit_test(a_real_clock_starts_at_zero_and_only_grows),
        cmocka_unit_test(a_real_clock_waits_until_then_and_not_for_the_past),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The clock for measuring: its arithmetic, and that it measures the same time as the system's,
 * within bounds so wide that only a wrong scale leaves them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <bus/ticks.h>

static uint64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void differences_are_scaled_and_never_negative(void **state)
{
    (void)state;
    static const struct {
        uint64_t scale, from, to;
        int64_t ns;
    } cases[] = {
        { 0, 100, 350, 250 },
        { 0, 350, 100, 0 },
        { UINT64_C(1) << 32, 100, 350, 250 },
        { UINT64_C(1) << 31, 100, 350, 125 },           /* 2 GHz */
        { UINT64_C(1) << 31, 350, 100, 0 },             /* another core's counter is behind */
        { UINT64_C(1) << 31, UINT64_MAX - 9, 10, 10 },  /* it wrapped */
        { UINT64_C(1) << 31, 0, UINT64_C(1) << 62, INT64_C(1) << 61 }, /* 70 years: no overflow */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ticks ticks = { .scale = cases[i].scale };
        assert_int_equal(ticks_ns(&ticks, cases[i].from, cases[i].to), cases[i].ns);
    }
}

static void measures_the_system_clocks_time(void **state)
{
    struct ticks ticks;
    (void)state;
    ticks_open(&ticks);
    /* Inner and outer brackets: whatever interrupts, inner ≤ ticks ≤ outer but for the scale's error. */
    uint64_t outer_from = monotonic(), from = ticks_read(&ticks), inner_from = monotonic(), inner_to;
    while ((inner_to = monotonic()) - inner_from < 20000000)
        ;
    uint64_t to = ticks_read(&ticks), outer_to = monotonic();
    double ns = (double)ticks_ns(&ticks, from, to);
    assert_true(ns >= 0.98 * (double)(inner_to - inner_from));
    assert_true(ns <= 1.02 * (double)(outer_to - outer_from));
}

static void is_calibrated_once(void **state)
{
    struct ticks a, b;
    (void)state;
    ticks_open(&a);
    ticks_open(&b);
    assert_int_equal(a.scale, b.scale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences_are_scaled_and_never_negative),
        cmocka_unit_test(measures_the_system_clocks_time),
        cmocka_unit_test(is_calibrated_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

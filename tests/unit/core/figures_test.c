/* SPDX-License-Identifier: MIT */
/* Percentiles of the histograms against sorted arrays: the rank is exact, the value off by no more
 * than half a cell. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "figures.h"
#include <lathe/random.h>

enum { MANY = 20000 };

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void check(const struct figure *f, int64_t *values, int count)
{
    static const double shares[] = { 0.0001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.99999, 1.0 };
    double sum = 0;
    qsort(values, (size_t)count, sizeof *values, ascending);
    for (int i = 0; i < count; i++)
        sum += (double)values[i];
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        int rank = (int)ceil(shares[i] * count);
        double exact = (double)values[(rank < 1 ? 1 : rank) - 1], is = figure_percentile(f, shares[i]);
        assert_true(fabs(is - exact) <= exact * 0.0005 + (exact < 1024 ? 0 : 0.5));
        assert_true(is <= (double)f->max);
    }
    assert_int_equal(f->count, count);
    assert_int_equal(f->max, values[count - 1]);
    assert_true(fabs(f->sum - sum) <= 1e-12 * sum);
    assert_true(figure_percentile(f, 0) == figure_percentile(f, 1.0 / count));
}

static void percentiles_are_those_of_the_sorted_values(void **state)
{
    static int64_t values[MANY];
    struct figures figures;
    struct lathe_error err;
    (void)state;
    for (int shape = 0; shape < 4; shape++) {
        assert_int_equal(figures_open(&figures, &err), LATHE_OK);
        struct figure *f = &figures.of[FIGURE_RESPONSE];
        for (int i = 0; i < MANY; i++) {
            double u = lathe_random_unit(7, LATHE_RANDOM_USER, (uint64_t)shape, (uint32_t)i);
            values[i] = shape == 0   ? (int64_t)(u * 2000)                     /* around where cells get wider */
                        : shape == 1 ? (int64_t)(-log1p(-u) * 50e6)            /* exponential, mean 50 ms */
                        : shape == 2 ? (int64_t)ldexp(1.0, (int)(u * 62))      /* powers of two */
                                     : (int64_t)(1e9 / pow(1 - u, 0.9));       /* a heavy tail */
            figure_add(f, values[i]);
        }
        check(f, values, MANY);
        figures_close(&figures);
    }
}

static void each_value_alone_is_found_within_half_a_cell(void **state)
{
    (void)state;
    for (int bit = 0; bit < 63; bit++)
        for (int near = -1; near <= 1; near++) {
            struct figures figures;
            struct lathe_error err;
            int64_t value = (int64_t)((uint64_t)1 << bit) + near;
            assert_int_equal(figures_open(&figures, &err), LATHE_OK);
            struct figure *f = &figures.of[FIGURE_TTFT];
            figure_add(f, value);
            figure_add(f, INT64_MAX); /* else the maximum would say it */
            double is = figure_percentile(f, 0.5);
            assert_true(fabs(is - (double)value) <= (double)value * 0.0005 + (value < 1024 ? 0 : 0.5));
            figures_close(&figures);
        }
}

static void nothing_has_no_percentile_and_negative_times_are_none(void **state)
{
    struct figures figures;
    struct lathe_error err;
    (void)state;
    assert_int_equal(figures_open(&figures, &err), LATHE_OK);
    assert_true(isnan(figure_percentile(&figures.of[0], 0.5)));
    figure_add(&figures.of[0], -5);
    assert_true(figure_percentile(&figures.of[0], 0.5) == 0);
    assert_int_equal(figures.of[0].max, 0);
    figures_close(&figures);
}

static void a_request_counts_by_what_it_had(void **state)
{
    struct figures f;
    struct lathe_error err;
    struct lathe_request r = { .planned_ns = 1000, .admitted_ns = 1500, .first_token_ns = 3000, .output_tokens = 5,
                               .slo_ttft_ns = 2000, .slo_tpot_ns = 100 };
    (void)state;
    assert_int_equal(figures_open(&f, &err), LATHE_OK);
    figures_count(&f, &r, 3400); /* a gap of 100: just met */
    figures_count(&f, &r, 3404); /* 101 */
    r.slo_tpot_ns = 0, r.output_tokens = 1;
    figures_count(&f, &r, 3000); /* no gap at all */
    r.slo_ttft_ns = 0;
    figures_count(&f, &r, 3000);
    assert_int_equal(f.with_slo, 3);
    assert_int_equal(f.met_slo, 2);
    assert_int_equal(f.of[FIGURE_TPOT].count, 2);
    assert_int_equal(f.of[FIGURE_TPOT].max, 101);
    assert_int_equal(f.of[FIGURE_QUEUE].max, 500);
    assert_int_equal(f.of[FIGURE_TTFT].max, 2000);
    assert_int_equal(f.of[FIGURE_RESPONSE].max, 2404);
    assert_int_equal(f.of[FIGURE_RESPONSE].count, 4);
    figures_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_those_of_the_sorted_values),
        cmocka_unit_test(each_value_alone_is_found_within_half_a_cell),
        cmocka_unit_test(nothing_has_no_percentile_and_negative_times_are_none),
        cmocka_unit_test(a_request_counts_by_what_it_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

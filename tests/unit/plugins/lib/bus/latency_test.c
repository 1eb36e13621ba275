/* SPDX-License-Identifier: MIT */
/* The histogram of latencies: every bucket's bounds, its quantiles against a sorted array and
 * against HdrHistogram's, and additions from several threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bus/latency.h>
#include <lathe/random.h>

static struct latency l;

static int clear(void **state)
{
    (void)state;
    memset(&l, 0, sizeof l);
    return 0;
}

static void nothing_added_is_zero(void **state)
{
    (void)state;
    assert_int_equal(latency_count(&l), 0);
    assert_int_equal(latency_quantile(&l, 0.5), 0);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    for (int64_t v = 0; v < 64; v++) {
        clear(NULL);
        latency_add(&l, v);
        assert_int_equal(latency_quantile(&l, 0.5), v);
    }
}

/* Buckets are in order, without a gap, and each value is within 1/32 of its bucket's middle. */
static void every_bucket_is_in_order_and_narrow(void **state)
{
    (void)state;
    uint32_t before = 0;
    assert_int_equal(latency_bucket(0), 0);
    for (int64_t v = 1; v < INT64_C(1) << LATENCY_TOP_BITS; v += v < 4096 ? 1 : v / 97) {
        uint32_t bucket = latency_bucket(v);
        assert_true(bucket == before || bucket == before + 1);
        before = bucket;
        clear(NULL);
        latency_add(&l, v);
        assert_true(fabs((double)(latency_quantile(&l, 0.5) - v)) <= (double)v / 32);
    }
    assert_int_equal(before, LATENCY_BUCKETS - 1);
}

/* At a power of two, the lower neighbour is in the bucket below. */
static void bounds_are_at_powers_of_two(void **state)
{
    (void)state;
    for (int power = 1; power < LATENCY_TOP_BITS; power++) {
        int64_t v = INT64_C(1) << power;
        assert_int_equal(latency_bucket(v), latency_bucket(v - 1) + 1);
        if (power >= LATENCY_SUB_BITS)
            assert_int_equal(latency_bucket(v) % (1u << LATENCY_SUB_BITS), 0);
    }
}

static void extremes_count_as_the_first_and_last_bucket(void **state)
{
    (void)state;
    assert_int_equal(latency_bucket(-1), 0);
    assert_int_equal(latency_bucket(INT64_MIN), 0);
    assert_int_equal(latency_bucket(INT64_C(1) << LATENCY_TOP_BITS), LATENCY_BUCKETS - 1);
    assert_int_equal(latency_bucket((INT64_C(1) << LATENCY_TOP_BITS) - 1), LATENCY_BUCKETS - 1);
    assert_int_equal(latency_bucket(INT64_MAX), LATENCY_BUCKETS - 1);
    latency_add(&l, INT64_MAX);
    latency_add(&l, INT64_MIN);
    assert_int_equal(latency_count(&l), 2);
    assert_int_equal(latency_quantile(&l, 0), 0);
    assert_true(latency_quantile(&l, 1) > INT64_C(1) << (LATENCY_TOP_BITS - 1));
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Of n sorted values the q-quantile is number ceil (q n), from 1: as the bucket's bounds allow. */
static void quantiles_are_those_of_a_sorted_array(void **state)
{
    enum { MOST = 5000 };
    static const double qs[] = { 0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1 };
    static int64_t values[MOST];
    (void)state;
    for (uint32_t round = 0; round < 60; round++) {
        uint32_t n = 1 + (uint32_t)(lathe_random_u64(7, LATHE_RANDOM_USER, round, 0) % MOST);
        clear(NULL);
        for (uint32_t i = 0; i < n; i++) { /* log-uniform, over the whole range */
            double unit = lathe_random_unit(7, LATHE_RANDOM_USER, round, 1 + i);
            values[i] = round % 3 == 0 ? (int64_t)(unit * 40) : (int64_t)exp2(unit * (LATENCY_TOP_BITS - 0.01));
            latency_add(&l, values[i]);
        }
        qsort(values, n, sizeof *values, ascending);
        assert_int_equal(latency_count(&l), n);
        for (size_t k = 0; k < sizeof qs / sizeof *qs; k++) {
            double rank = ceil(qs[k] * n - 1e-6);
            int64_t exact = values[rank < 1 ? 0 : (uint32_t)rank - 1], found = latency_quantile(&l, qs[k]);
            assert_int_equal(latency_bucket(found), latency_bucket(exact));
            assert_true(fabs((double)(found - exact)) <= (double)exact / 32);
        }
    }
}

/* tests/data/make_latency_golden.py. Two histograms: each may be off by its buckets' width, 1/32 and 1/1000. */
static void quantiles_are_those_of_hdrhistogram(void **state)
{
    FILE *file = fopen(TEST_DATA "/golden_latency.txt", "r");
    unsigned long long seed, count, base, spread, tail;
    int percentiles, series = 0;
    (void)state;
    assert_non_null(file);
    while (fscanf(file, "%llu %llu %llu %llu %llu %d", &seed, &count, &base, &spread, &tail, &percentiles) == 6) {
        uint64_t v = 1 + seed;
        clear(NULL);
        for (uint64_t i = 0; i < count; i++) {
            v = (v * 1103515245 + 12345) % (UINT64_C(1) << 31);
            latency_add(&l, (int64_t)((base + v % spread) * (i % tail == tail - 1 ? 100 : 1)));
        }
        for (int i = 0; i < percentiles; i++) {
            double percentile, value;
            assert_int_equal(fscanf(file, "%lf %lf", &percentile, &value), 2);
            double found = (double)latency_quantile(&l, percentile / 100);
            if (fabs(found - value) > value * (1.0 / 32 + 1.0 / 1000))
                fail_msg("series %d: percentile %g is %g, HdrHistogram's %g", series, percentile, found, value);
        }
        series++;
    }
    fclose(file);
    assert_int_equal(series, 7);
}

enum { THREADS = 4, EACH = 20000 };

static void *add_many(void *seed)
{
    for (uint32_t i = 0; i < EACH; i++)
        latency_add(&l, (int64_t)(lathe_random_u64((uintptr_t)seed, LATHE_RANDOM_USER, 1, i) % 1000));
    return NULL;
}

static void no_addition_of_several_threads_is_lost(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(latency_count(&l), THREADS * EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_added_is_zero, clear),
        cmocka_unit_test_setup(small_values_are_exact, clear),
        cmocka_unit_test_setup(every_bucket_is_in_order_and_narrow, clear),
        cmocka_unit_test_setup(bounds_are_at_powers_of_two, clear),
        cmocka_unit_test_setup(extremes_count_as_the_first_and_last_bucket, clear),
        cmocka_unit_test_setup(quantiles_are_those_of_a_sorted_array, clear),
        cmocka_unit_test_setup(quantiles_are_those_of_hdrhistogram, clear),
        cmocka_unit_test_setup(no_addition_of_several_threads_is_lost, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

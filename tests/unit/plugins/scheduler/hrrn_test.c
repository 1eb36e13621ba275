/* SPDX-License-Identifier: MIT */
/* scheduler/hrrn: the ratio, to within its classes of length. */
#include "tiny_engine.h"

#include <lathe/random.h>

enum { MS = 1000000 };

static void waiting_brings_a_long_one_before_a_short_one(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "hrrn", NULL, 1);
    tiny_add(&t, sized(50, 50)); /* length 100 */
    t.now_ns = 19 * MS;
    tiny_add(&t, sized(5, 5)); /* length 10 */
    t.now_ns = 20 * MS; /* 0.2 and 0.1 ms a token */
    assert_string_equal(tiny_order(&t), "1 2");
    t.now_ns = 23 * MS; /* 0.23 and 0.4 */
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_close(&t);
}

static double ratio(const struct tiny *t, const struct lathe_request *r)
{
    double length = r->prompt_tokens + (r->predicted_output_tokens ? r->predicted_output_tokens : r->max_output_tokens);
    return (double)(t->now_ns - r->planned_ns) / length;
}

static void the_order_is_that_of_the_ratios_within_a_class(void **state)
{
    struct tiny t;
    uint32_t n = 0;
    (void)state;
    tiny_open(&t, "hrrn", NULL, 1);
    for (int i = 0; i < 100; i++) {
        uint64_t dice = lathe_random_u64(4, LATHE_RANDOM_USER, 0, n++);
        t.now_ns += MS * (int64_t)(dice % 7);
        struct lathe_request r = sized(1 + (uint32_t)(dice >> 8 & 1023), 1 + (uint32_t)(dice >> 20 & 255));
        if (i % 5 == 0)
            r.predicted_output_tokens = 0;
        tiny_add(&t, r);
    }
    for (int look = 0; look < 20; look++) {
        t.now_ns += look * look * MS;
        tiny_rank(&t);
        assert_int_equal(t.ranking.count, 100);
        for (uint32_t i = 1; i < t.ranking.count; i++)
            assert_true(ratio(&t, t.ranked[i - 1]) * 1.1 >= ratio(&t, t.ranked[i]));
    }
    tiny_close(&t);
}

static void whoever_runs_goes_on(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "hrrn", NULL, 1);
    tiny_add(&t, sized(50, 50));
    tiny_step(&t);
    tiny_add(&t, sized(1, 1));
    t.now_ns += 100 * MS;
    assert_string_equal(tiny_order(&t), "1 2");
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_brings_a_long_one_before_a_short_one),
        cmocka_unit_test(the_order_is_that_of_the_ratios_within_a_class),
        cmocka_unit_test(whoever_runs_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

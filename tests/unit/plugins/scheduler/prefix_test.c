/* SPDX-License-Identifier: MIT */
/* scheduler/prefix: the order by what is cached, and how often it looks. */
#include "tiny_engine.h"

static void add(struct tiny *t, uint32_t cached)
{
    struct lathe_request *r = tiny_add(t, sized(100, 10));
    t->cached[r->index] = cached;
}

static void the_longest_cached_prefix_goes_first_and_equals_by_arrival(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "prefix", NULL, 1);
    add(&t, 0);
    add(&t, 48);
    add(&t, 96);
    add(&t, 48);
    assert_string_equal(tiny_order(&t), "3 2 4 1");
    assert_string_equal(tiny_why(&t, &t.requests[2]),
                        "prefix: 3 of 4 that wait by arrival, 96 of 100 prompt tokens were in the cache");
    tiny_close(&t);
}

static void whoever_is_beyond_the_window_stays_behind(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "prefix", "window=2", 1);
    add(&t, 0);
    add(&t, 48);
    add(&t, 96);
    assert_string_equal(tiny_order(&t), "2 1 3");
    tiny_close(&t);
}

static void it_looks_no_more_than_its_budget_and_then_again(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "prefix", "window=6,looks=4", 1);
    for (uint32_t i = 1; i <= 8; i++)
        add(&t, i);
    assert_string_equal(tiny_order(&t), "4 3 2 1 5 6 7 8");
    assert_int_equal(t.looks, 4);
    tiny_rank(&t); /* the same step: no more looks */
    assert_int_equal(t.looks, 4);
    t.view.step++;
    assert_string_equal(tiny_order(&t), "6 5 4 3 2 1 7 8"); /* the other two, and the first two again */
    assert_int_equal(t.looks, 8);
    t.cached[2] = 50;
    t.view.step++;
    assert_string_equal(tiny_order(&t), "3 6 5 4 2 1 7 8");
    tiny_close(&t);
}

static void a_newcomer_is_looked_at_before_others_again(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "prefix", "looks=2", 1);
    for (uint32_t i = 1; i <= 4; i++)
        add(&t, i);
    for (int i = 0; i < 3; i++, t.view.step++) /* 1 2, 3 4, and 1 2 again */
        tiny_rank(&t);
    add(&t, 99);
    assert_string_equal(tiny_order(&t), "5 4 3 2 1");
    tiny_close(&t);
}

static void whoever_waited_long_goes_first(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "prefix", "aging_s=1", 1);
    add(&t, 0);
    t.now_ns = 500000000;
    add(&t, 40);
    add(&t, 50);
    assert_string_equal(tiny_order(&t), "3 2 1");
    t.now_ns = 1100000000;
    assert_string_equal(tiny_order(&t), "1 3 2");
    tiny_close(&t);
}

static void it_refuses_a_cache_that_can_not_tell(void **state)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = 4 };
    struct tiny t;
    void *self;
    (void)state;
    tiny_open(&t, "prefix", NULL, 1);
    assert_int_equal(policy_create(&t.policy, &t.host.host, NULL, &self, &t.err), LATHE_OK);
    assert_int_equal(t.api->bind(self, &limits, &t.err), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(t.err.message, "kvcache"));
    t.api->destroy(self);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_cached_prefix_goes_first_and_equals_by_arrival),
        cmocka_unit_test(whoever_is_beyond_the_window_stays_behind),
        cmocka_unit_test(it_looks_no_more_than_its_budget_and_then_again),
        cmocka_unit_test(a_newcomer_is_looked_at_before_others_again),
        cmocka_unit_test(whoever_waited_long_goes_first),
        cmocka_unit_test(it_refuses_a_cache_that_can_not_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* scheduler/priority: classes, and the raise that waiting gives. */
#include "tiny_engine.h"

static struct lathe_request of(int32_t priority)
{
    struct lathe_request r = sized(4, 50);
    r.priority = priority;
    return r;
}

static void larger_goes_first_and_equals_by_arrival(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "priority", NULL, 1);
    tiny_add(&t, of(0));
    tiny_add(&t, of(-2));
    tiny_add(&t, of(7));
    tiny_add(&t, of(0));
    assert_string_equal(tiny_order(&t), "3 1 4 2");
    assert_string_equal(tiny_why(&t, &t.requests[2]), "priority: 1 of 4 that wait, priority 7");
    tiny_close(&t);
}

static void waiting_raises_by_a_level_each_aging_s(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "priority", "aging_s=2", 1);
    tiny_add(&t, of(0));
    t.now_ns = 3900000000; /* 1.95 levels later */
    tiny_add(&t, of(2));
    assert_string_equal(tiny_order(&t), "2 1");
    t.now_ns = 4100000000; /* 2.05 */
    tiny_add(&t, of(2));
    assert_string_equal(tiny_order(&t), "2 1 3");
    assert_true(t.api->promises(t.self) & LATHE_PROMISE_NO_STARVATION);
    tiny_close(&t);
}

static void a_running_one_is_overtaken_by_choice(void **state)
{
    static const char *const options[] = { NULL, "preemptive=true", "preemptive=true,preempt=recompute" };
    struct tiny t;
    (void)state;
    for (int i = 0; i < 3; i++) {
        tiny_open(&t, "priority", options[i], 1);
        tiny_add(&t, of(0));
        tiny_step(&t);
        tiny_add(&t, of(1));
        assert_string_equal(tiny_order(&t), i == 0 ? "1 2" : "2 1");
        assert_int_equal(t.ranking.preempt_count, i == 2);
        tiny_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(larger_goes_first_and_equals_by_arrival),
        cmocka_unit_test(waiting_raises_by_a_level_each_aging_s),
        cmocka_unit_test(a_running_one_is_overtaken_by_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

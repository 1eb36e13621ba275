/* SPDX-License-Identifier: MIT */
/* scheduler/sjf: the length of the whole job, and its aging. */
#include "tiny_engine.h"

static void lengths_are_what_the_option_says(void **state)
{
    static const char *const options[] = { "key=total", "key=output", "key=prompt" };
    static const char *const orders[] = { "2 1 3", "2 3 1", "1 2 3" };
    struct tiny t;
    (void)state;
    for (int i = 0; i < 3; i++) {
        tiny_open(&t, "sjf", options[i], 1);
        tiny_add(&t, sized(5, 60));  /* 65 */
        tiny_add(&t, sized(20, 10)); /* 30 */
        tiny_add(&t, sized(90, 20)); /* 110 */
        assert_string_equal(tiny_order(&t), orders[i]);
        tiny_close(&t);
    }
}

static void a_job_does_not_climb_as_it_runs(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "sjf", "preemptive=true", 1);
    tiny_add(&t, sized(10, 20));
    tiny_steps(&t, 18); /* 2 remain */
    tiny_add(&t, sized(5, 5));
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_close(&t);
}

static void an_unknown_length_is_last_or_its_prompt(void **state)
{
    struct tiny t;
    (void)state;
    for (int prompt = 0; prompt < 2; prompt++) {
        tiny_open(&t, "sjf", prompt ? "unknown=prompt" : NULL, 1);
        tiny_add(&t, (struct lathe_request){ .prompt_tokens = 10, .max_output_tokens = 5 });
        tiny_add(&t, sized(20, 20));
        assert_string_equal(tiny_order(&t), prompt ? "1 2" : "2 1");
        tiny_close(&t);
    }
}

/* 64 tokens wait for 3 · aging_s: as a newcomer of 8. Unknown ones age as the longest known. */
static void waiting_halves_a_length(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "sjf", "aging_s=1", 1);
    tiny_add(&t, sized(32, 32));
    tiny_add(&t, (struct lathe_request){ .prompt_tokens = 1, .max_output_tokens = 5 });
    t.now_ns = 3000000000;
    tiny_add(&t, sized(4, 3));
    tiny_add(&t, sized(5, 5));
    assert_string_equal(tiny_order(&t), "3 1 2 4");
    tiny_close(&t);
}

static void running_ones_go_first_in_the_order_of_their_start(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "sjf", NULL, 1);
    tiny_add(&t, sized(50, 50));
    tiny_step(&t);
    t.places = 2;
    tiny_add(&t, sized(5, 50));
    tiny_step(&t);
    tiny_add(&t, sized(1, 1));
    assert_string_equal(tiny_order(&t), "1 2 3");
    assert_int_equal(t.api->promises(t.self), LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_PREEMPTION);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_what_the_option_says),
        cmocka_unit_test(a_job_does_not_climb_as_it_runs),
        cmocka_unit_test(an_unknown_length_is_last_or_its_prompt),
        cmocka_unit_test(waiting_halves_a_length),
        cmocka_unit_test(running_ones_go_first_in_the_order_of_their_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

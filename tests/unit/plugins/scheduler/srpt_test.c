/* SPDX-License-Identifier: MIT */
/* scheduler/srpt: what remains decides, as it shrinks. */
#include "tiny_engine.h"

static void ranks_by_what_remains_not_by_the_whole(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "srpt", NULL, 1);
    tiny_add(&t, sized(100, 20)); /* 119 remain */
    tiny_steps(&t, 11);           /* 9 remain */
    tiny_add(&t, sized(5, 10));   /* 14 */
    tiny_add(&t, sized(2, 4));    /* 5 */
    assert_string_equal(tiny_order(&t), "3 1 2");
    assert_string_equal(tiny_why(&t, &t.requests[0]), "srpt: 1 of 1 that run, 9 tokens remain");
    tiny_steps(&t, 4); /* 3 is done */
    assert_string_equal(tiny_order(&t), "1 2");
    tiny_close(&t);
}

static void without_preemption_whoever_runs_goes_on(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "srpt", "preemptive=false,preempt=recompute", 1);
    tiny_add(&t, sized(100, 20));
    tiny_step(&t);
    tiny_add(&t, sized(5, 10));
    tiny_add(&t, sized(2, 4));
    assert_string_equal(tiny_order(&t), "1 3 2");
    assert_int_equal(t.ranking.preempt_count, 0);
    assert_int_equal(t.api->promises(t.self), LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_PREEMPTION);
    tiny_close(&t);
}

static void an_overtaken_one_keeps_its_kv_or_loses_it(void **state)
{
    struct tiny t;
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        tiny_open(&t, "srpt", recompute ? "preempt=recompute" : "preempt=keep", 2);
        tiny_add(&t, sized(100, 20));
        tiny_add(&t, sized(100, 30));
        tiny_step(&t);
        tiny_add(&t, sized(2, 4));
        assert_string_equal(tiny_order(&t), "3 1 2");
        assert_int_equal(t.ranking.preempt_count, recompute);
        if (recompute) { /* beyond the two that a batch holds */
            assert_int_equal(t.preempt[0]->id, 2);
            tiny_step(&t);
            assert_int_equal(t.requests[1].state, LATHE_REQUEST_PREEMPTED);
            assert_string_equal(tiny_order(&t), "3 1 2"); /* it has its prompt to do again */
        }
        tiny_close(&t);
    }
}

static void an_unknown_length_is_last_or_its_prompt(void **state)
{
    struct tiny t;
    (void)state;
    for (int prompt = 0; prompt < 2; prompt++) {
        tiny_open(&t, "srpt", prompt ? "unknown=prompt" : "unknown=last", 1);
        tiny_add(&t, (struct lathe_request){ .prompt_tokens = 10, .max_output_tokens = 5 });
        tiny_add(&t, sized(20, 20));
        assert_string_equal(tiny_order(&t), prompt ? "1 2" : "2 1");
        tiny_close(&t);
    }
}

/* Predicted 4, in truth 40: the known weakness, and its remedy. */
static void output_beyond_its_prediction_stays_in_front_or_is_predicted_anew(void **state)
{
    struct tiny t;
    (void)state;
    for (int twice = 0; twice < 2; twice++) {
        tiny_open(&t, "srpt", twice ? "outrun=double" : "outrun=stay", 1);
        struct lathe_request liar = sized(2, 40);
        liar.predicted_output_tokens = 4;
        tiny_add(&t, liar);
        tiny_steps(&t, 9);          /* 9 tokens: 1 remains, or 16 − 9 = 7 */
        tiny_add(&t, sized(1, 3)); /* 3 remain */
        assert_string_equal(tiny_order(&t), twice ? "2 1" : "1 2");
        tiny_close(&t);
    }
}

static void the_output_alone_can_be_the_length(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "srpt", "key=output", 1);
    tiny_add(&t, sized(1, 20));
    tiny_add(&t, sized(500, 10));
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_by_what_remains_not_by_the_whole),
        cmocka_unit_test(without_preemption_whoever_runs_goes_on),
        cmocka_unit_test(an_overtaken_one_keeps_its_kv_or_loses_it),
        cmocka_unit_test(an_unknown_length_is_last_or_its_prompt),
        cmocka_unit_test(output_beyond_its_prediction_stays_in_front_or_is_predicted_anew),
        cmocka_unit_test(the_output_alone_can_be_the_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

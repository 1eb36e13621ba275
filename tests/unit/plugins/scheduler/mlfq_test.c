/* SPDX-License-Identifier: MIT */
/* scheduler/mlfq: joining below, sinking, and coming back. */
#include "tiny_engine.h"

#define SMALL "levels=3,quantum=4,factor=2,prompt_weight=1"

static void a_long_prompt_skips_the_levels_that_it_would_use_up(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "mlfq", SMALL, 1);
    struct lathe_request *low = tiny_add(&t, sized(100, 5)), *middle = tiny_add(&t, sized(7, 5)),
                         *high = tiny_add(&t, sized(4, 5));
    assert_string_equal(tiny_order(&t), "3 2 1");
    assert_string_equal(tiny_why(&t, high), "mlfq: 1 of 3 that wait, in level 0, where it used 0.0 of 4 tokens");
    assert_string_equal(tiny_why(&t, middle), "mlfq: 2 of 3 that wait, in level 1, where it used 0.0 of 8 tokens");
    assert_string_equal(tiny_why(&t, low), "mlfq: 3 of 3 that wait, in the lowest level, 2");
    tiny_close(&t);
}

static void prompts_count_as_much_as_their_weight(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "mlfq", "levels=3,quantum=4,factor=2,prompt_weight=0.1", 1);
    struct lathe_request *r = tiny_add(&t, sized(30, 5));
    tiny_step(&t);
    assert_string_equal(tiny_why(&t, r), "mlfq: 1 of 1 that run, in level 0, where it used 3.0 of 4 tokens");
    tiny_close(&t);
}

static void whoever_used_its_quantum_sinks(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "mlfq", SMALL, 1);
    tiny_add(&t, sized(1, 50));
    tiny_steps(&t, 3); /* a prompt token and two of output: 3 of 4 */
    tiny_add(&t, sized(1, 50));
    assert_string_equal(tiny_order(&t), "1 2");
    tiny_step(&t);
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_steps(&t, 4); /* 2 sinks as well, behind 1 */
    assert_string_equal(tiny_order(&t), "1 2");
    tiny_steps(&t, 7); /* 7 of 8 */
    assert_string_equal(tiny_order(&t), "1 2");
    tiny_step(&t);
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_steps(&t, 20);
    assert_string_equal(tiny_order(&t), "1 2"); /* both in the lowest level, in the order in which they fell there */
    tiny_close(&t);
}

static void what_is_computed_again_uses_nothing(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "mlfq", SMALL, 1);
    struct lathe_request *r = tiny_add(&t, sized(2, 50));
    tiny_steps(&t, 2);
    assert_string_equal(tiny_why(&t, r), "mlfq: 1 of 1 that run, in level 0, where it used 3.0 of 4 tokens");
    tiny_preempt(r);
    r->output_tokens = 1; /* the second one isn't back yet */
    tiny_step(&t);
    assert_string_equal(tiny_why(&t, r), "mlfq: 1 of 1 that run, in level 0, where it used 3.0 of 4 tokens");
    tiny_close(&t);
}

static void whoever_got_nothing_for_long_comes_back_to_the_top(void **state)
{
    struct tiny t;
    int steps = 0;
    (void)state;
    for (int ever = 0; ever < 2; ever++) {
        tiny_open(&t, "mlfq", ever ? SMALL ",starve_s=0.01" : SMALL ",starve_s=0", 1);
        struct lathe_request *r = tiny_add(&t, sized(100, 1));
        for (steps = 0; steps < 50 && r->id == 1 && r->state != LATHE_REQUEST_FINISHED; steps++) {
            if (steps % 2 == 0)
                tiny_add(&t, sized(2, 2)); /* two steps each */
            tiny_step(&t);
        }
        assert_int_equal(steps < 50, ever);
        assert_true(steps >= 10);
        assert_int_equal(t.api->promises(t.self) & LATHE_PROMISE_NO_STARVATION, ever ? LATHE_PROMISE_NO_STARVATION : 0);
        tiny_close(&t);
    }
}

static void an_overtaken_one_can_lose_its_kv(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "mlfq", SMALL ",preempt=recompute", 1);
    tiny_add(&t, sized(4, 50));
    tiny_step(&t);
    tiny_add(&t, sized(1, 3));
    tiny_rank(&t);
    assert_int_equal(t.ranking.preempt_count, 1);
    assert_int_equal(t.preempt[0]->id, 1);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_prompt_skips_the_levels_that_it_would_use_up),
        cmocka_unit_test(prompts_count_as_much_as_their_weight),
        cmocka_unit_test(whoever_used_its_quantum_sinks),
        cmocka_unit_test(what_is_computed_again_uses_nothing),
        cmocka_unit_test(whoever_got_nothing_for_long_comes_back_to_the_top),
        cmocka_unit_test(an_overtaken_one_can_lose_its_kv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

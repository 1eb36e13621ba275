/* SPDX-License-Identifier: MIT */
/* batching/prefill_first: prompts before decodes, never both; decodes stall and go on. */
#include "fixture.h"

static struct fake f;

static void prompts_stall_the_decodes(void **state)
{
    (void)state;
    fake_open(&f, "prefill_first", 512, 32, 1000);
    fake_running(&f, 10, 1, 20);
    fake_running(&f, 10, 1, 20);
    fake_arrive(&f, 300, 5);
    fake_arrive(&f, 150, 5);
    fake_arrive(&f, 200, 5);
    EXPECT_STEP(&f, "c 300  d 150");
    EXPECT_STEP(&f, "e 200");
    EXPECT_STEP(&f, "a 1  b 1  c 1  d 1  e 1");
    fake_close(&f);
}

static void a_decode_stalls_as_long_as_prompts_come_and_places_are_left(void **state)
{
    (void)state;
    fake_open(&f, "prefill_first", 512, 8, 1000);
    struct lathe_request *r = fake_running(&f, 10, 1, 50);
    for (int step = 0; step < 7; step++) { /* a prompt a step: seven places are free */
        fake_arrive(&f, 30, 50);
        fake_step(&f);
        assert_int_equal(r->output_tokens, 1);
    }
    fake_arrive(&f, 30, 50); /* no place: all decode */
    EXPECT_STEP(&f, "a 1  b 1  c 1  d 1  e 1  f 1  g 1  h 1");
    assert_int_equal(r->output_tokens, 2);
    fake_close(&f);
}

static void a_prompt_beyond_the_budget_is_cut_and_goes_alone(void **state)
{
    (void)state;
    fake_open(&f, "prefill_first", 512, 32, 1000, "max_tokens", "100");
    fake_arrive(&f, 60, 5);
    fake_arrive(&f, 250, 5);
    fake_arrive(&f, 10, 5);
    EXPECT_STEP(&f, "a 60");          /* b doesn't fit beside it, and c doesn't pass b */
    EXPECT_STEP(&f, "b 100");
    EXPECT_STEP(&f, "b 100");
    EXPECT_STEP(&f, "b 50  c 10");
    EXPECT_STEP(&f, "a 1  b 1  c 1");
    fake_close(&f);
}

static void the_watermark_stays_free_for_those_who_run(void **state)
{
    (void)state;
    fake_open(&f, "prefill_first", 512, 32, 10, "watermark", "0.2");
    fake_running(&f, 16 * 4 + 2, 1, 50); /* 5 of 10 blocks */
    struct lathe_request *b = fake_arrive(&f, 16 * 4, 5); /* would leave 1, and 2 are to stay free */
    EXPECT_STEP(&f, "a 1");
    b->prompt_tokens = 16 * 3;
    EXPECT_STEP(&f, "b 48");
    fake_close(&f);
}

static void after_a_preemption_the_decodes_go_first(void **state)
{
    (void)state;
    fake_open(&f, "prefill_first", 512, 32, 4, "watermark", "0");
    fake_running(&f, 32, 1, 50);                          /* 2 blocks, and a third is needed now */
    struct lathe_request *b = fake_running(&f, 31, 2, 50); /* 2 blocks, likewise */
    fake_fill(&f);
    assert_int_equal(f.plan.count, 0);
    fake_retire(&f, b, LATHE_REQUEST_PREEMPTED); /* its prompt would fit at once, and take the room again */
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_stall_the_decodes),
        cmocka_unit_test(a_decode_stalls_as_long_as_prompts_come_and_places_are_left),
        cmocka_unit_test(a_prompt_beyond_the_budget_is_cut_and_goes_alone),
        cmocka_unit_test(the_watermark_stays_free_for_those_who_run),
        cmocka_unit_test(after_a_preemption_the_decodes_go_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* batching/chunked: decodes never wait for prompts, and the budget is filled exactly. */
#include "fixture.h"

static struct fake f;

static void decodes_go_first_and_chunks_fill_the_budget_exactly(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 1000, "budget", "64");
    fake_running(&f, 10, 1, 20);
    fake_running(&f, 10, 1, 20);
    fake_arrive(&f, 100, 5);
    fake_arrive(&f, 20, 5);
    EXPECT_STEP(&f, "a 1  b 1  c 62");
    EXPECT_STEP(&f, "a 1  b 1  c 38  d 20");
    EXPECT_STEP(&f, "a 1  b 1  c 1  d 1");
    fake_close(&f);
}

static void a_decode_is_in_every_step_whatever_arrives(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 4000, "budget", "48");
    struct lathe_request *r = fake_running(&f, 10, 1, 101);
    for (int step = 1; step <= 100; step++) {
        if (step % 3 == 0)
            fake_arrive(&f, 200, 3);
        fake_step(&f);
        assert_int_equal(r->output_tokens, 1 + step);
        assert_true(f.rows <= 48);
        if (f.view.waiting > 0)
            assert_int_equal(f.rows, 48);
    }
    fake_close(&f);
}

static void a_request_that_ranks_first_does_not_stall_decodes(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 1000, "budget", "32");
    fake_running(&f, 10, 1, 20);
    struct lathe_request *urgent = fake_arrive(&f, 100, 5);
    fake_fill_first(&f, urgent);
    assert_string_equal(fake_text(&f), "a 1  b 31");
    fake_close(&f);
}

static void only_so_many_prompts_are_in_the_middle(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 1000, "budget", "64", "max_partial", "1");
    struct lathe_request *a = fake_arrive(&f, 200, 5);
    a->state = LATHE_REQUEST_RUNNING; /* in the middle, and held back: not ranked first, no budget */
    a->computed_tokens = 100;
    fake_arrive(&f, 70, 5);
    EXPECT_STEP(&f, "a 64");
    EXPECT_STEP(&f, "a 36  b 28");
    fake_close(&f);

    for (int partial = 1; partial <= 2; partial++) { /* decodes leave a none: b may begin beside it or not */
        fake_open(&f, "chunked", 512, 32, 1000, "budget", "8", "max_partial", partial == 1 ? "1" : "2");
        fake_arrive(&f, 20, 5);
        fake_arrive(&f, 20, 5);
        EXPECT_STEP(&f, "a 8");
        EXPECT_STEP(&f, "a 8");
        EXPECT_STEP(&f, "a 4  b 4");
        fake_close(&f);
    }
}

static void keeps_the_watermark_free_unless_nobody_else_goes(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 10, "watermark", "0.5"); /* 5 of 10 blocks stay free */
    fake_arrive(&f, 16 * 6, 5);
    fake_arrive(&f, 10, 5);
    EXPECT_STEP(&f, "a 96"); /* alone: let in; b would leave 3 */
    EXPECT_STEP(&f, "a 1");
    assert_false(fake_promises(&f) & LATHE_PROMISE_WORK_CONSERVING);
    fake_close(&f);
}

static void a_prompt_comes_in_only_when_all_of_it_has_room(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 10, "budget", "32");
    fake_running(&f, 16 * 4 + 2, 1, 20); /* 5 blocks */
    fake_arrive(&f, 16 * 6, 5);          /* 6: one too many, though its first chunk would fit */
    fake_arrive(&f, 10, 5);              /* nobody passes it */
    EXPECT_STEP(&f, "a 1");
    assert_true(fake_promises(&f) & LATHE_PROMISE_WORK_CONSERVING);
    fake_close(&f);
}

static void stops_looking_when_places_or_budget_are_used_up(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 300, 10000, "max_requests", "260");
    for (int i = 0; i < 256; i++)
        fake_running(&f, 16, 1, 20);
    for (int i = 0; i < 64; i++)
        fake_arrive(&f, 8, 5);
    fake_fill(&f);
    assert_int_equal(f.plan.count, 260);
    assert_int_equal(f.questions, 260);
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_go_first_and_chunks_fill_the_budget_exactly),
        cmocka_unit_test(a_decode_is_in_every_step_whatever_arrives),
        cmocka_unit_test(a_request_that_ranks_first_does_not_stall_decodes),
        cmocka_unit_test(only_so_many_prompts_are_in_the_middle),
        cmocka_unit_test(keeps_the_watermark_free_unless_nobody_else_goes),
        cmocka_unit_test(a_prompt_comes_in_only_when_all_of_it_has_room),
        cmocka_unit_test(stops_looking_when_places_or_budget_are_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

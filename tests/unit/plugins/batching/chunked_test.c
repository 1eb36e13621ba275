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

static void prompts_are_served_to_their_end_or_share_the_budget(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 1000, "budget", "64", "max_partial", "1");
    fake_arrive(&f, 150, 5);
    fake_arrive(&f, 100, 5);
    EXPECT_STEP(&f, "a 64");
    EXPECT_STEP(&f, "a 64");
    EXPECT_STEP(&f, "a 22  b 42");
    fake_close(&f);

    fake_open(&f, "chunked", 512, 32, 1000, "budget", "64", "max_partial", "2");
    fake_arrive(&f, 150, 5);
    fake_arrive(&f, 40, 5);
    fake_arrive(&f, 100, 5);
    EXPECT_STEP(&f, "a 32  b 32");
    EXPECT_STEP(&f, "a 32  b 8  c 24");
    EXPECT_STEP(&f, "b 1  a 31  c 32");
    fake_close(&f);

    fake_open(&f, "chunked", 512, 32, 1000, "budget", "64", "max_partial", "2");
    fake_arrive(&f, 150, 5);
    fake_arrive(&f, 10, 5);
    EXPECT_STEP(&f, "a 54  b 10"); /* what b doesn't need */
    fake_close(&f);
}

static void no_more_prompts_are_in_the_middle_than_allowed(void **state)
{
    (void)state;
    for (uint32_t partial = 1; partial <= 4; partial++) {
        char text[] = { (char)('0' + partial), '\0' };
        fake_open(&f, "chunked", 512, 32, 1000, "budget", "48", "max_partial", text);
        for (uint32_t i = 0; i < 10; i++)
            fake_arrive(&f, 30 + 17 * i, 4);
        uint32_t most = 0;
        for (int step = 0; step < 60; step++) {
            uint32_t middle = 0;
            fake_step(&f);
            for (uint32_t i = 0; i < f.count; i++)
                middle += f.requests[i].state == LATHE_REQUEST_RUNNING && f.requests[i].output_tokens == 0;
            most = middle > most ? middle : most;
        }
        assert_int_equal(most, partial);
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

static void nobody_comes_in_beside_a_running_one_that_found_no_room(void **state)
{
    (void)state;
    fake_open(&f, "chunked", 512, 32, 10);
    struct lathe_request *a = fake_arrive(&f, 16 * 11, 5); /* in the middle: 5 blocks, and 6 are missing */
    a->state = LATHE_REQUEST_RUNNING;
    a->computed_tokens = 16 * 5;
    f.held[0] = 5;
    fake_arrive(&f, 10, 5);
    EXPECT_STEP(&f, ""); /* the engine asks for a victim */
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_go_first_and_chunks_fill_the_budget_exactly),
        cmocka_unit_test(a_decode_is_in_every_step_whatever_arrives),
        cmocka_unit_test(a_request_that_ranks_first_does_not_stall_decodes),
        cmocka_unit_test(prompts_are_served_to_their_end_or_share_the_budget),
        cmocka_unit_test(no_more_prompts_are_in_the_middle_than_allowed),
        cmocka_unit_test(keeps_the_watermark_free_unless_nobody_else_goes),
        cmocka_unit_test(a_prompt_comes_in_only_when_all_of_it_has_room),
        cmocka_unit_test(stops_looking_when_places_or_budget_are_used_up),
        cmocka_unit_test(nobody_comes_in_beside_a_running_one_that_found_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

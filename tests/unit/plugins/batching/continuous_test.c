/* SPDX-License-Identifier: MIT */
/* batching/continuous: the ranking in order, prompts cut at the budget or whole, no passing. */
#include "fixture.h"

static struct fake f;

static void cuts_a_prompt_at_the_budget_or_takes_it_whole(void **state)
{
    (void)state;
    fake_open(&f, "continuous", 512, 32, 1000);
    fake_running(&f, 10, 1, 20);
    fake_arrive(&f, 512, 5);
    fake_arrive(&f, 20, 5);
    EXPECT_STEP(&f, "a 1  b 511");
    assert_true(fake_promises(&f) & LATHE_PROMISE_NO_STARVATION);
    fake_close(&f);
    fake_open(&f, "continuous", 512, 32, 1000, "split_prompts", "false");
    fake_running(&f, 10, 1, 20);
    fake_arrive(&f, 512, 5);
    fake_arrive(&f, 20, 5);
    EXPECT_STEP(&f, "a 1  c 20"); /* b waits for a step of its own, and may wait for ever */
    assert_int_equal(fake_promises(&f), LATHE_PROMISE_WORK_CONSERVING);
    fake_close(&f);
}

static void follows_the_ranking_even_before_decodes(void **state)
{
    (void)state;
    fake_open(&f, "continuous", 100, 32, 1000);
    fake_running(&f, 10, 1, 20);
    struct lathe_request *b = fake_arrive(&f, 100, 5);
    fake_fill_first(&f, b);
    assert_string_equal(fake_text(&f), "b 100"); /* the decode stalls */
    fake_close(&f);
}

static void nobody_passes_one_that_found_no_room_unless_allowed(void **state)
{
    (void)state;
    for (int overtake = 0; overtake < 2; overtake++) {
        fake_open(&f, "continuous", 512, 32, 10, "overtake", overtake ? "true" : "false");
        fake_running(&f, 16 * 7, 1, 20);
        fake_arrive(&f, 16 * 5, 5);
        fake_arrive(&f, 10, 5);
        EXPECT_STEP(&f, overtake ? "a 1  c 10" : "a 1");
        fake_close(&f);
    }
}

static void stops_looking_when_places_are_used_up(void **state)
{
    (void)state;
    fake_open(&f, "continuous", 512, 256, 10000);
    for (int i = 0; i < 256; i++)
        fake_running(&f, 16, 1, 20);
    for (int i = 0; i < 64; i++)
        fake_arrive(&f, 8, 5);
    fake_fill(&f);
    assert_int_equal(f.plan.count, 256);
    assert_int_equal(f.questions, 256);
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_a_prompt_at_the_budget_or_takes_it_whole),
        cmocka_unit_test(follows_the_ranking_even_before_decodes),
        cmocka_unit_test(nobody_passes_one_that_found_no_room_unless_allowed),
        cmocka_unit_test(stops_looking_when_places_are_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

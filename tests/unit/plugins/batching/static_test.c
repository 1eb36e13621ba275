/* SPDX-License-Identifier: MIT */
/* batching/static: a batch lasts as long as its longest, E[max] and not the mean; nobody joins. */
#include "fixture.h"

#include <lathe/random.h>

static struct fake f;

/* Steps until all that arrived have ended. */
static uint32_t steps_to_the_end(void)
{
    uint32_t steps = 0, left;
    do {
        fake_step(&f);
        steps++;
        left = 0;
        for (uint32_t i = 0; i < f.count; i++)
            left += f.requests[i].state != LATHE_REQUEST_FINISHED;
        assert_true(steps < 100000);
    } while (left > 0);
    return steps;
}

static void a_batch_lasts_as_long_as_its_longest(void **state)
{
    static const uint32_t lengths[] = { 3, 17, 5, 9 };
    (void)state;
    fake_open(&f, "static", 512, 32, 1000, "batch", "4", "window_ms", "0");
    for (int i = 0; i < 4; i++)
        fake_arrive(&f, 10, lengths[i]);
    assert_int_equal(steps_to_the_end(), 17); /* the prefill gives the first token */
    fake_close(&f);
}

/* Of n exponential lengths with mean m the longest is m (1 + 1/2 + … + 1/n) on average. */
static void its_time_is_the_expected_maximum(void **state)
{
    enum { BATCH = 8, BATCHES = 40 };
    double harmonic = 0, mean = 50;
    uint32_t steps = 0;
    (void)state;
    for (int i = 1; i <= BATCH; i++)
        harmonic += 1.0 / i;
    fake_open(&f, "static", 512, 32, 100000, "batch", "8", "window_ms", "0");
    for (uint32_t i = 0; i < BATCH * BATCHES; i++) {
        double u = lathe_random_unit(7, LATHE_RANDOM_USER, 0, i);
        uint32_t tokens = 1;
        for (double p = 1.0 - 1.0 / mean, q = p; u < q && tokens < 2000; q *= p) /* geometric, on 1, 2, … */
            tokens++;
        fake_arrive(&f, 10, tokens);
    }
    steps = steps_to_the_end();
    assert_true((double)steps / BATCHES > 0.85 * mean * harmonic && (double)steps / BATCHES < 1.15 * mean * harmonic);
    fake_close(&f);
}

static void ended_rows_are_computed_on_and_nobody_joins(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 1000, "batch", "2", "window_ms", "0");
    fake_arrive(&f, 10, 1);
    fake_arrive(&f, 4, 3);
    fake_fill(&f);
    assert_int_equal(f.padding, 6);
    fake_happen(&f);
    fake_arrive(&f, 10, 1);
    for (int i = 0; i < 2; i++) {
        EXPECT_STEP(&f, "b 1");
        assert_int_equal(f.padding, 1);
    }
    EXPECT_STEP(&f, "c 10");
    fake_close(&f);
}

static void one_that_vanishes_leaves_its_place_as_padding(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 1000, "batch", "2", "window_ms", "0");
    struct lathe_request *a = fake_arrive(&f, 10, 9);
    struct lathe_request *b = fake_arrive(&f, 10, 9);
    fake_step(&f);
    fake_retire(&f, a, LATHE_REQUEST_FINISHED);
    EXPECT_STEP(&f, "b 1");
    assert_int_equal(f.padding, 1);
    fake_retire(&f, b, LATHE_REQUEST_PREEMPTED);
    EXPECT_STEP(&f, "b 12"); /* a batch of its own */
    assert_int_equal(f.padding, 0);
    fake_close(&f);
}

static void prompts_beyond_the_budget_make_no_smaller_batch(void **state)
{
    (void)state;
    fake_open(&f, "static", 64, 32, 1000, "batch", "4", "window_ms", "0");
    for (int i = 0; i < 4; i++)
        fake_arrive(&f, i == 2 ? 1000 : 20, 5);
    uint32_t steps = 0;
    while (f.requests[2].output_tokens == 0) { /* four places, sixteen columns a step */
        fake_step(&f);
        assert_int_equal(f.rows, steps < 62 ? 64 : 32); /* the last step has the 8 columns that are left */
        steps++;
    }
    assert_int_equal(steps, 63);
    for (int i = 0; i < 4; i++)
        assert_int_equal(f.requests[i].output_tokens, 1); /* all first tokens at once */
    fake_close(&f);
}

static void a_bound_on_padded_tokens_makes_smaller_batches(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 1000, "batch", "4", "window_ms", "1000", "padded_tokens", "100");
    fake_arrive(&f, 30, 1);
    fake_arrive(&f, 50, 1);
    fake_arrive(&f, 40, 1);  /* 3 × 50 would be too much */
    fake_arrive(&f, 400, 1); /* alone too much: goes alone */
    EXPECT_STEP(&f, "a 30  b 50");
    EXPECT_STEP(&f, "c 40"); /* more would not help: the next doesn't fit beside it */
    f.now_ns = 1000000000;
    EXPECT_STEP(&f, "d 400");
    fake_close(&f);
}

static void reserves_to_the_end_or_as_it_grows(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 10, "batch", "2", "window_ms", "0", "reserve", "end");
    fake_arrive(&f, 16, 16 * 5);
    fake_arrive(&f, 16, 16 * 5);
    EXPECT_STEP(&f, "a 16"); /* 6 + 6 of 10 blocks */
    fake_close(&f);
    fake_open(&f, "static", 512, 32, 10, "batch", "2", "window_ms", "0", "reserve", "grow");
    fake_arrive(&f, 16, 16 * 5);
    fake_arrive(&f, 16, 16 * 5);
    EXPECT_STEP(&f, "a 16  b 16");
    while (f.plan.count == 2)
        fake_step(&f);
    assert_int_equal(f.requests[0].computed_tokens, 16 * 5); /* the pool is short: the engine asks for a victim */
    fake_retire(&f, &f.requests[1], LATHE_REQUEST_PREEMPTED);
    EXPECT_STEP(&f, "a 1");
    assert_int_equal(f.padding, 1);
    fake_close(&f);
}

static void waits_for_others_no_longer_than_its_window(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 1000, "batch", "4", "window_ms", "50");
    fake_arrive(&f, 10, 1);
    fake_fill(&f);
    assert_int_equal(f.plan.count, 0);
    assert_int_equal(f.plan.wake_ns, 50000000);
    assert_false(fake_promises(&f) & LATHE_PROMISE_WORK_CONSERVING);
    f.now_ns = f.plan.wake_ns;
    EXPECT_STEP(&f, "a 10");
    fake_close(&f);
}

static void nobody_passes_one_that_found_no_room(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 10, "batch", "3", "window_ms", "0");
    fake_arrive(&f, 16, 16 * 5);
    fake_arrive(&f, 16, 16 * 5); /* no room up to its end */
    fake_arrive(&f, 10, 5);      /* would have */
    EXPECT_STEP(&f, "a 16");
    fake_close(&f);
}

static void a_member_without_room_does_not_hold_up_those_who_have_it(void **state)
{
    (void)state;
    fake_open(&f, "static", 12, 32, 10, "batch", "2", "window_ms", "0");
    struct lathe_request *a = fake_arrive(&f, 5, 10), *b = fake_arrive(&f, 40, 10);
    fake_fill(&f);
    assert_string_equal(fake_text(&f), "b 6");
    a->state = b->state = LATHE_REQUEST_RUNNING; /* a decodes already, b is in the middle, and the pool is full */
    a->computed_tokens = 5;
    a->output_tokens = 1;
    b->computed_tokens = 16;
    f.held[0] = 9;
    f.held[1] = 1;
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
}

static void a_batch_that_never_began_gives_way_to_whoever_holds_its_room(void **state)
{
    (void)state;
    fake_open(&f, "static", 512, 32, 4, "batch", "2", "window_ms", "0");
    fake_arrive(&f, 20, 10);
    fake_fill(&f);
    assert_string_equal(fake_text(&f), "a 20"); /* and the step is lost */
    fake_running(&f, 16 * 3 + 4, 1, 10);        /* held back until now, with all of the pool */
    EXPECT_STEP(&f, "b 1");
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_lasts_as_long_as_its_longest),
        cmocka_unit_test(its_time_is_the_expected_maximum),
        cmocka_unit_test(ended_rows_are_computed_on_and_nobody_joins),
        cmocka_unit_test(one_that_vanishes_leaves_its_place_as_padding),
        cmocka_unit_test(prompts_beyond_the_budget_make_no_smaller_batch),
        cmocka_unit_test(a_bound_on_padded_tokens_makes_smaller_batches),
        cmocka_unit_test(reserves_to_the_end_or_as_it_grows),
        cmocka_unit_test(waits_for_others_no_longer_than_its_window),
        cmocka_unit_test(nobody_passes_one_that_found_no_room),
        cmocka_unit_test(a_member_without_room_does_not_hold_up_those_who_have_it),
        cmocka_unit_test(a_batch_that_never_began_gives_way_to_whoever_holds_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* batching/memory_aware: who comes in is decided by what all will hold at their ends. */
#include "fixture.h"

static struct fake f;

/* A pool of 100 blocks; one runs that will hold 50 at its end, another wants 48 in the end. */
static void two(const char *assume, const char *trust, const char *watermark, uint32_t predicted)
{
    fake_open(&f, "memory_aware", 512, 32, 100, "assume", assume, "trust", trust, "watermark", watermark);
    struct lathe_request *a = fake_running(&f, 16 * 10, 1, 16 * 40);
    struct lathe_request *b = fake_arrive(&f, 16 * 8, 16 * 40);
    a->predicted_output_tokens = predicted;
    b->predicted_output_tokens = predicted;
}

static void refuses_by_prediction_what_has_room_now(void **state)
{
    (void)state;
    two("predicted", "1", "0.95", 0); /* nothing known: 50 + 48 of at most 95 */
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
    two("predicted", "1", "1", 0);
    EXPECT_STEP(&f, "a 1  b 128");
    fake_close(&f);
    two("predicted", "1", "0.95", 16 * 20); /* 30 + 28 */
    EXPECT_STEP(&f, "a 1  b 128");
    fake_close(&f);
    two("predicted", "1", "0.5", 16 * 20);
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
}

static void trust_is_a_margin_but_no_longer_than_may_be(void **state)
{
    (void)state;
    two("predicted", "1.8", "0.95", 16 * 20); /* 46 + 44 */
    EXPECT_STEP(&f, "a 1  b 128");
    fake_close(&f);
    two("predicted", "1.95", "0.95", 16 * 20); /* 49 + 47 */
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
    two("predicted", "100", "0.98", 16 * 20); /* 50 + 48, the longest that they may be */
    EXPECT_STEP(&f, "a 1  b 128");
    fake_close(&f);
}

static void pessimism_looks_at_the_longest_and_optimism_at_now(void **state)
{
    (void)state;
    two("pessimistic", "1", "0.95", 16);
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
    two("optimistic", "1", "0.95", 0);
    EXPECT_STEP(&f, "a 1  b 128");
    fake_close(&f);
    two("optimistic", "1", "1", 0);
    assert_true(fake_promises(&f) & LATHE_PROMISE_WORK_CONSERVING);
    fake_close(&f);
    two("predicted", "1", "1", 0);
    assert_false(fake_promises(&f) & LATHE_PROMISE_WORK_CONSERVING);
    fake_close(&f);
}

static void one_that_outgrew_its_prediction_counts_as_it_is(void **state)
{
    (void)state;
    fake_open(&f, "memory_aware", 512, 32, 100, "watermark", "0.5");
    struct lathe_request *a = fake_running(&f, 16 * 10, 16 * 25, 16 * 60); /* 35 blocks, 11 were predicted */
    a->predicted_output_tokens = 16;
    struct lathe_request *b = fake_arrive(&f, 16 * 10, 16 * 40);
    b->predicted_output_tokens = 16 * 10; /* 20 */
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
}

static void nobody_passes_one_that_waits_for_room(void **state)
{
    (void)state;
    two("predicted", "1", "0.95", 0);
    fake_arrive(&f, 10, 10); /* would fit */
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
}

static void whoever_is_alone_comes_in(void **state)
{
    (void)state;
    fake_open(&f, "memory_aware", 512, 32, 100, "watermark", "0.1");
    fake_arrive(&f, 100, 1000);
    fake_arrive(&f, 10, 10);
    EXPECT_STEP(&f, "a 100");
    fake_close(&f);
}

static void those_held_back_count_too(void **state)
{
    (void)state;
    two("predicted", "1", "0.95", 0);
    fake_arrive(&f, 10, 10);
    f.requests[1].state = LATHE_REQUEST_FINISHED;
    fake_fill(&f); /* 50 + 2 */
    assert_string_equal(fake_text(&f), "a 1  c 10");
    struct lathe_request *d = fake_running(&f, 16 * 10, 1, 16 * 40); /* another 50, then left out of the ranking */
    fake_fill(&f);
    const struct lathe_request *ranked[] = { &f.requests[0], &f.requests[2] };
    f.ranking.requests = ranked;
    f.ranking.count = 2;
    f.promised = 0;
    assert_int_equal(f.api->fill(f.self, &f.view, &f.ranking, &f.plan, &f.err), LATHE_OK);
    assert_string_equal(fake_text(&f), "a 1");
    d->state = LATHE_REQUEST_FINISHED;
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_by_prediction_what_has_room_now),
        cmocka_unit_test(trust_is_a_margin_but_no_longer_than_may_be),
        cmocka_unit_test(pessimism_looks_at_the_longest_and_optimism_at_now),
        cmocka_unit_test(one_that_outgrew_its_prediction_counts_as_it_is),
        cmocka_unit_test(nobody_passes_one_that_waits_for_room),
        cmocka_unit_test(whoever_is_alone_comes_in),
        cmocka_unit_test(those_held_back_count_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

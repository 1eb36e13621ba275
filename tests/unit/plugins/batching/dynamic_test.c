/* SPDX-License-Identifier: MIT */
/* batching/dynamic: the window, the buckets, and how much padding they leave. */
#include "fixture.h"

static struct fake f;

static void a_full_batch_goes_at_once_and_a_smaller_one_after_the_window(void **state)
{
    (void)state;
    fake_open(&f, "dynamic", 512, 32, 1000, "batch", "3", "window_ms", "20");
    fake_arrive(&f, 10, 1);
    f.now_ns += 5000000;
    fake_arrive(&f, 10, 1);
    fake_fill(&f);
    assert_int_equal(f.plan.count, 0);
    assert_int_equal(f.plan.wake_ns, 20000000); /* the first has waited so long then */
    f.now_ns = 20000000;
    EXPECT_STEP(&f, "a 10  b 10");
    for (int i = 0; i < 4; i++)
        fake_arrive(&f, 10, 1);
    EXPECT_STEP(&f, "c 10  d 10  e 10");
    fake_fill(&f);
    assert_int_equal(f.plan.count, 0);
    fake_close(&f);
}

static void only_prompts_of_a_bucket_go_together(void **state)
{
    (void)state;
    fake_open(&f, "dynamic", 2000, 32, 1000, "batch", "3", "window_ms", "20", "buckets", "64,256");
    fake_arrive(&f, 30, 1);
    fake_arrive(&f, 500, 1);
    fake_arrive(&f, 50, 1);
    fake_arrive(&f, 64, 1);
    fake_arrive(&f, 200, 1);
    EXPECT_STEP(&f, "a 30  c 50  d 64"); /* full */
    fake_fill(&f);
    assert_int_equal(f.plan.count, 0);
    f.now_ns = 20000000;
    EXPECT_STEP(&f, "b 500"); /* both have waited: the ranking's first */
    EXPECT_STEP(&f, "e 200");
    fake_close(&f);
}

static void who_has_waited_goes_before_a_full_bucket(void **state)
{
    (void)state;
    fake_open(&f, "dynamic", 2000, 32, 1000, "batch", "2", "window_ms", "20", "buckets", "64");
    fake_arrive(&f, 100, 1);
    f.now_ns = 20000000;
    fake_arrive(&f, 10, 1);
    fake_arrive(&f, 10, 1);
    EXPECT_STEP(&f, "a 100");
    EXPECT_STEP(&f, "b 10  c 10");
    fake_close(&f);
}

/* Prompts 10, 40 and 64 padded to 64; answers 1, 2 and 3: rows of padding in each step. */
static void padding(const char *pad, const char *shrink, const uint32_t expected[3])
{
    fake_open(&f, "dynamic", 512, 32, 1000, "batch", "3", "pad", pad, "shrink", shrink);
    fake_arrive(&f, 10, 1);
    fake_arrive(&f, 40, 2);
    fake_arrive(&f, 64, 3);
    for (int step = 0; step < 3; step++) {
        fake_step(&f);
        assert_int_equal(f.padding, expected[step]);
    }
    assert_int_equal(f.requests[2].state, LATHE_REQUEST_FINISHED);
    fake_close(&f);
}

static void padding_is_counted_as_it_is_computed(void **state)
{
    (void)state;
    padding("true", "false", (uint32_t[]){ 54 + 24, 1, 2 });
    padding("true", "true", (uint32_t[]){ 54 + 24, 0, 0 });
    padding("false", "false", (uint32_t[]){ 0, 1, 2 });
    padding("false", "true", (uint32_t[]){ 0, 0, 0 });
}

static void a_prefill_beyond_the_budget_takes_several_steps_and_ends_for_all_at_once(void **state)
{
    (void)state;
    fake_open(&f, "dynamic", 12, 32, 1000, "batch", "3", "pad", "true");
    fake_arrive(&f, 9, 2);
    fake_arrive(&f, 5, 2);
    fake_arrive(&f, 2, 2);
    EXPECT_STEP(&f, "a 4");
    assert_int_equal(f.padding, 8);
    EXPECT_STEP(&f, "a 4  b 4  c 1");
    assert_int_equal(f.padding, 3);
    EXPECT_STEP(&f, "a 1  b 1  c 1");
    EXPECT_STEP(&f, "a 1  b 1  c 1");
    fake_close(&f);

    fake_open(&f, "dynamic", 12, 32, 1000, "batch", "3", "pad", "false"); /* 16 tokens in 12 + 4 */
    fake_arrive(&f, 9, 2);
    fake_arrive(&f, 5, 2);
    fake_arrive(&f, 2, 2);
    fake_fill(&f);
    assert_true(f.rows <= 12 && f.rows >= 10); /* whole columns */
    assert_int_equal(f.padding, 0);
    fake_happen(&f);
    fake_step(&f);
    for (int i = 0; i < 3; i++)
        assert_int_equal(f.requests[i].output_tokens, 1);
    fake_close(&f);
}

static void nobody_joins_before_all_ended(void **state)
{
    (void)state;
    fake_open(&f, "dynamic", 512, 32, 1000, "batch", "2", "shrink", "true");
    fake_arrive(&f, 10, 1);
    fake_arrive(&f, 10, 4);
    fake_step(&f);
    fake_arrive(&f, 10, 1);
    fake_arrive(&f, 10, 1);
    for (int step = 0; step < 3; step++)
        EXPECT_STEP(&f, "b 1");
    EXPECT_STEP(&f, "c 10  d 10");
    fake_close(&f);
}

static void refuses_buckets_that_are_none(void **state)
{
    static const char *const wrong[] = { "x", "64,", ",64", "64,64", "256,64", "0", "-5", "64 256", "64,,256",
                                         "99999999999999999999", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17" };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *const options[] = { "buckets", wrong[i], NULL };
        assert_true(fake_create(&f, "dynamic", options) < 0);
        assert_non_null(strstr(f.err.message, wrong[i]));
        assert_int_equal(atomic_load(&f.host.live_blocks), 0);
    }
}

static void whoever_holds_the_room_goes_on_whatever_its_bucket(void **state)
{
    (void)state;
    fake_open(&f, "dynamic", 512, 32, 4, "window_ms", "0", "buckets", "64");
    fake_running(&f, 16 * 3 + 4, 1, 20); /* the whole pool: it was held back while others ran */
    struct lathe_request *b = fake_arrive(&f, 100, 1);
    fake_fill_first(&f, b);
    assert_string_equal(fake_text(&f), "a 1");
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_batch_goes_at_once_and_a_smaller_one_after_the_window),
        cmocka_unit_test(only_prompts_of_a_bucket_go_together),
        cmocka_unit_test(who_has_waited_goes_before_a_full_bucket),
        cmocka_unit_test(padding_is_counted_as_it_is_computed),
        cmocka_unit_test(a_prefill_beyond_the_budget_takes_several_steps_and_ends_for_all_at_once),
        cmocka_unit_test(nobody_joins_before_all_ended),
        cmocka_unit_test(refuses_buckets_that_are_none),
        cmocka_unit_test(whoever_holds_the_room_goes_on_whatever_its_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* batching/single: one at a time; sticky to its end, or whoever ranks first. */
#include "fixture.h"

static struct fake f;

static void serves_one_at_a_time_to_its_end(void **state)
{
    (void)state;
    fake_open(&f, "single", 512, 32, 1000);
    fake_arrive(&f, 700, 2);
    fake_arrive(&f, 10, 1);
    EXPECT_STEP(&f, "a 512"); /* cut at the budget */
    EXPECT_STEP(&f, "a 188");
    EXPECT_STEP(&f, "a 1");
    EXPECT_STEP(&f, "b 10");
    assert_int_equal(fake_promises(&f), LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_STARVATION);
    fake_close(&f);
}

static void sticky_stays_whoever_ranks_first(void **state)
{
    (void)state;
    fake_open(&f, "single", 512, 32, 1000, "sticky", "true");
    fake_arrive(&f, 10, 5);
    fake_step(&f);
    struct lathe_request *b = fake_arrive(&f, 10, 1);
    fake_fill_first(&f, b);
    assert_string_equal(fake_text(&f), "a 1");
    fake_close(&f);
}

static void not_sticky_serves_whoever_ranks_first_and_comes_back(void **state)
{
    (void)state;
    fake_open(&f, "single", 512, 32, 1000, "sticky", "false");
    fake_arrive(&f, 10, 5);
    fake_step(&f);
    struct lathe_request *b = fake_arrive(&f, 10, 2);
    for (int i = 0; i < 2; i++) {
        fake_fill_first(&f, b);
        assert_string_equal(fake_text(&f), i ? "b 1" : "b 10");
        fake_happen(&f);
    }
    EXPECT_STEP(&f, "a 1");
    fake_close(&f);
}

static void one_set_aside_goes_on_when_its_kv_leaves_no_room_for_the_first(void **state)
{
    (void)state;
    fake_open(&f, "single", 512, 32, 4, "sticky", "false");
    fake_arrive(&f, 40, 5); /* 3 of 4 blocks */
    fake_step(&f);
    struct lathe_request *b = fake_arrive(&f, 40, 2);
    fake_arrive(&f, 10, 2); /* would fit, and must not pass b */
    fake_fill_first(&f, b);
    assert_string_equal(fake_text(&f), "a 1");
    fake_close(&f);
}

static void a_sticky_one_without_room_leaves_its_place_to_nobody(void **state)
{
    (void)state;
    fake_open(&f, "single", 512, 32, 1);
    fake_arrive(&f, 16, 5);
    fake_step(&f);
    fake_arrive(&f, 10, 2);
    EXPECT_STEP(&f, ""); /* the engine asks for a victim */
    fake_retire(&f, &f.requests[0], LATHE_REQUEST_FINISHED);
    EXPECT_STEP(&f, "b 10");
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serves_one_at_a_time_to_its_end),
        cmocka_unit_test(sticky_stays_whoever_ranks_first),
        cmocka_unit_test(not_sticky_serves_whoever_ranks_first_and_comes_back),
        cmocka_unit_test(one_set_aside_goes_on_when_its_kv_leaves_no_room_for_the_first),
        cmocka_unit_test(a_sticky_one_without_room_leaves_its_place_to_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

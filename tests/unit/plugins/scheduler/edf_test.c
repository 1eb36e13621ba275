/* SPDX-License-Identifier: MIT */
/* scheduler/edf: where deadlines come from, and what becomes of the late. */
#include "tiny_engine.h"

enum { MS = 1000000 };

static struct lathe_request due(int64_t deadline_ms, int64_t ttft_ms, int64_t tpot_ms)
{
    struct lathe_request r = sized(4, 50);
    r.deadline_ns = deadline_ms * MS;
    r.slo_ttft_ns = ttft_ms * MS;
    r.slo_tpot_ns = tpot_ms * MS;
    return r;
}

static void deadlines_go_by_their_time_wherever_they_come_from(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "edf", NULL, 1);
    tiny_add(&t, due(0, 0, 0)); /* none */
    tiny_add(&t, due(50, 1, 1)); /* its own goes before SLOs */
    tiny_add(&t, due(0, 20, 0));
    tiny_add(&t, due(30, 0, 0));
    assert_string_equal(tiny_order(&t), "3 4 2 1");
    tiny_close(&t);
}

/* Tokens are due one by one: who decodes at a slow pace lets a newcomer pass. */
static void a_decoding_one_is_due_with_its_next_token(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "edf", NULL, 1);
    struct lathe_request *slow = tiny_add(&t, due(0, 5, 20));
    tiny_step(&t); /* its first token comes at 1 ms, the second is due at 21 */
    tiny_add(&t, due(0, 19, 0)); /* at 20 */
    tiny_add(&t, due(0, 21, 0)); /* at 22 */
    assert_string_equal(tiny_order(&t), "2 1 3");
    assert_string_equal(tiny_why(&t, slow), "edf: 1 of 1 that run, due at 21.000 ms");
    tiny_close(&t);
}

static void the_last_token_can_be_the_target(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "edf", "target=request", 1);
    struct lathe_request hasty = due(0, 30, 1), guessed = due(0, 10, 1);
    hasty.predicted_output_tokens = 10; /* 40 */
    guessed.predicted_output_tokens = 0; /* 10 + 50, its maximum */
    tiny_add(&t, guessed);
    tiny_add(&t, hasty);
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_close(&t);
}

static void the_late_go_where_the_option_says(void **state)
{
    static const char *const options[] = { "late=first", "late=last", "late=drop-to-end" };
    static const char *const orders[] = { "1 2 3", "2 1 3", "2 3 1" };
    struct tiny t;
    (void)state;
    for (int i = 0; i < 3; i++) {
        tiny_open(&t, "edf", options[i], 1);
        tiny_add(&t, due(5, 0, 0));
        tiny_add(&t, due(50, 0, 0));
        tiny_add(&t, due(0, 0, 0));
        assert_string_equal(tiny_order(&t), "1 2 3");
        t.now_ns = 10 * MS; /* 1 is late, without having been served */
        assert_string_equal(tiny_order(&t), orders[i]);
        tiny_close(&t);
    }
}

static void without_preemption_whoever_runs_goes_on(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "edf", "preemptive=false", 1);
    tiny_add(&t, due(90, 0, 0));
    tiny_step(&t);
    tiny_add(&t, due(10, 0, 0));
    assert_string_equal(tiny_order(&t), "1 2");
    tiny_close(&t);
}

static void enormous_slos_do_not_wrap(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "edf", "target=request", 1);
    struct lathe_request r = due(0, 0, 0);
    r.slo_ttft_ns = INT64_MAX - 5;
    r.slo_tpot_ns = INT64_MAX / 2;
    tiny_add(&t, r);
    tiny_add(&t, due(50, 0, 0));
    assert_string_equal(tiny_order(&t), "2 1");
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_go_by_their_time_wherever_they_come_from),
        cmocka_unit_test(a_decoding_one_is_due_with_its_next_token),
        cmocka_unit_test(the_last_token_can_be_the_target),
        cmocka_unit_test(the_late_go_where_the_option_says),
        cmocka_unit_test(without_preemption_whoever_runs_goes_on),
        cmocka_unit_test(enormous_slos_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

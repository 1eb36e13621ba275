/* SPDX-License-Identifier: MIT */
/* An engine in trouble: what a lost worker costs its requests, and what is left out when they
 * wait too long. model/tiny plays the worker that is gone. */
#include "unit/core/engine_fixture.h"

enum { REQUESTS = 5, TOKENS = 12 };

static void ask(struct planned_request *requests)
{
    static const char *const prompts[REQUESTS] = { "one", "a second one", "third", "the fourth request", "5" };
    memset(requests, 0, REQUESTS * sizeof *requests);
    for (int i = 0; i < REQUESTS; i++)
        requests[i].submit = (struct engine_submit){ .text = prompts[i], .text_bytes = strlen(prompts[i]),
                                                     .forced_output_tokens = TOKENS, .want_text = 1 };
}

/* Drives the same requests; `options` of the model. */
static void run(const struct option_setting *options, struct planned_request *requests, struct engine_stats *stats)
{
    struct fixture f;
    struct fixture_params p = { 0 };
    memcpy(p.model, options, sizeof p.model);
    fixture_open(&f, p);
    ask(requests);
    fixture_drive(&f, requests, REQUESTS, 0);
    deployment_get_stats(f.deployment, stats);
    fixture_close(&f);
}

static void goes_on_with_the_same_tokens_after_a_lost_worker(void **state)
{
    const struct option_setting quiet[FIXTURE_OPTIONS] = { { 0 } };
    struct planned_request undisturbed[REQUESTS], disturbed[REQUESTS];
    struct engine_stats stats;
    (void)state;
    run(quiet, undisturbed, &stats);
    assert_int_equal(stats.losses, 0);
    for (int at = 1; at <= TOKENS; at++) {
        char number[8];
        snprintf(number, sizeof number, "%d", at);
        const struct option_setting once[FIXTURE_OPTIONS] = { { "fail_after", number }, { "fail_status", "lost" } };
        run(once, disturbed, &stats);
        assert_int_equal(stats.losses, 1);
        assert_int_equal(stats.failed, 0);
        for (int i = 0; i < REQUESTS; i++) {
            assert_int_equal(disturbed[i].output_count, TOKENS);
            assert_memory_equal(disturbed[i].output, undisturbed[i].output, TOKENS * sizeof(int32_t));
            assert_string_equal(disturbed[i].text, undisturbed[i].text);
        }
        fixture_free(disturbed, REQUESTS);
    }
    fixture_free(undisturbed, REQUESTS);
}

static void keeps_what_it_has_while_the_model_is_out_of_reach(void **state)
{
    const struct option_setting quiet[FIXTURE_OPTIONS] = { { 0 } };
    const struct option_setting away[FIXTURE_OPTIONS] = { { "fail_after", "4" }, { "fail_count", "3" },
                                                          { "fail_status", "unavailable" } };
    struct planned_request undisturbed[REQUESTS], disturbed[REQUESTS];
    struct engine_stats before, stats;
    (void)state;
    run(quiet, undisturbed, &before);
    run(away, disturbed, &stats);
    assert_int_equal(stats.losses, 0);
    assert_int_equal(stats.failed, 0);
    assert_int_equal(stats.prompt_tokens, before.prompt_tokens); /* nothing was prefilled twice */
    for (int i = 0; i < REQUESTS; i++)
        assert_memory_equal(disturbed[i].output, undisturbed[i].output, TOKENS * sizeof(int32_t));
    fixture_free(disturbed, REQUESTS);
    fixture_free(undisturbed, REQUESTS);
}

static void a_request_that_kills_its_worker_each_time_fails_alone(void **state)
{
    const struct option_setting always[FIXTURE_OPTIONS] = { { "fail_after", "3" }, { "fail_count", "1000" },
                                                            { "fail_status", "lost" } };
    struct planned_request requests[REQUESTS];
    struct engine_stats stats;
    (void)state;
    run(always, requests, &stats);
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(requests[i].finish_reason, LATHE_FINISH_ERROR);
        assert_non_null(strstr(requests[i].error, "worker died"));
    }
    assert_int_equal(stats.failed, REQUESTS);
    fixture_free(requests, REQUESTS);
}

static void leaves_no_block_behind_after_losses(void **state)
{
    const struct option_setting often[FIXTURE_OPTIONS] = { { "fail_after", "2" }, { "fail_count", "2" },
                                                           { "fail_status", "lost" } };
    struct planned_request requests[REQUESTS];
    struct engine_stats stats;
    (void)state;
    run(often, requests, &stats);
    assert_int_equal(stats.losses, 2);
    assert_int_equal(stats.failed, 0);
    assert_int_equal(stats.kv.used, 0);
    fixture_free(requests, REQUESTS);
}

static void refuses_the_longest_waiting_prompt_when_all_wait_too_long(void **state)
{
    enum { MANY = 40 };
    struct fixture f;
    struct fixture_params p = { .engine = { .batch_requests = 1, .degrade_wait_ns = 20 * 1000000 },
                                .model = { { "delay_us", "2000" } } };
    static char text[MANY][128];
    struct planned_request requests[MANY];
    struct engine_stats stats;
    struct lathe_error err = { 0 };
    int idle;
    int64_t until;
    (void)state;
    memset(requests, 0, sizeof requests);
    for (int i = 0; i < MANY; i++) {
        memset(text[i], 'a' + i % 26, sizeof text[i]);
        requests[i].submit = (struct engine_submit){ .text = text[i], .text_bytes = i == MANY / 2 ? 100 : 10,
                                                     .forced_output_tokens = 10 };
    }
    fixture_open(&f, p);
    fixture_drive(&f, requests, MANY, 0);
    assert_int_equal(deployment_turn(f.deployment, INT64_MAX, &idle, &until, &err), LATHE_OK);
    deployment_get_stats(f.deployment, &stats);
    assert_true(stats.refused > 0);
    assert_int_equal(stats.failed, stats.refused);
    assert_int_equal(requests[MANY / 2].finish_reason, LATHE_FINISH_ERROR); /* the longest is the first to go */
    assert_non_null(strstr(requests[MANY / 2].error, "overloaded"));
    assert_int_equal(requests[0].finish_reason, LATHE_FINISH_LENGTH);
    assert_int_equal(stats.degraded, ENGINE_NORMAL); /* restored once nobody waits */
    fixture_free(requests, MANY);
    fixture_close(&f);
}

static void never_degrades_for_waiting_unless_told_to(void **state)
{
    enum { MANY = 30 };
    struct fixture f;
    struct fixture_params p = { .engine = { .batch_requests = 1 }, .model = { { "delay_us", "500" } } };
    struct planned_request requests[MANY];
    struct engine_stats stats;
    (void)state;
    memset(requests, 0, sizeof requests);
    for (int i = 0; i < MANY; i++)
        requests[i].submit = (struct engine_submit){ .text = "x", .text_bytes = 1, .forced_output_tokens = 10 };
    fixture_open(&f, p);
    fixture_drive(&f, requests, MANY, 0);
    deployment_get_stats(f.deployment, &stats);
    assert_int_equal(stats.failed, 0);
    assert_int_equal(stats.refused, 0);
    fixture_free(requests, MANY);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_with_the_same_tokens_after_a_lost_worker),
        cmocka_unit_test(keeps_what_it_has_while_the_model_is_out_of_reach),
        cmocka_unit_test(a_request_that_kills_its_worker_each_time_fails_alone),
        cmocka_unit_test(leaves_no_block_behind_after_losses),
        cmocka_unit_test(refuses_the_longest_waiting_prompt_when_all_wait_too_long),
        cmocka_unit_test(never_degrades_for_waiting_unless_told_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The engine on real plugins and model/tiny: what a request lives through. */
#include "engine_fixture.h"

#include <math.h>

static const char *const prompts[] = {
    "The quick brown fox", "a", "Numbers: 1 2 3 4 5 6 7 8 9", "To be, or not to be, that is the question.",
    "xyzzy", "One two", "A rather longer prompt that takes more than one block of the cache to hold, by far.", "?",
    "Lathe", "A B C D E F G", "hello hello hello hello", "0123456789abcdef", "the end", "z", "Why is the sky blue?", "ok",
};
enum { PROMPTS = sizeof prompts / sizeof *prompts, OUTPUTS = 24 };

/* All prompts through one engine, `concurrency` at a time (0: all at once). */
static void run_all(struct fixture *f, uint32_t concurrency, int32_t tokens[PROMPTS][OUTPUTS])
{
    struct planned_request requests[PROMPTS] = { 0 };
    for (int i = 0; i < PROMPTS; i++)
        requests[i].submit = (struct engine_submit){ .text = prompts[i], .text_bytes = strlen(prompts[i]),
                                                     .forced_output_tokens = OUTPUTS };
    fixture_drive(f, requests, PROMPTS, concurrency);
    for (int i = 0; i < PROMPTS; i++) {
        assert_int_equal(requests[i].finish_reason, LATHE_FINISH_LENGTH);
        assert_int_equal(requests[i].output_count, OUTPUTS);
        memcpy(tokens[i], requests[i].output, sizeof tokens[i]);
    }
    fixture_free(requests, PROMPTS);
}

static int32_t alone[PROMPTS][OUTPUTS], other[PROMPTS][OUTPUTS];

static void gives_the_same_tokens_in_a_batch_as_alone(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ 0 });
    run_all(&f, 1, alone);
    run_all(&f, 0, other);
    assert_memory_equal(alone, other, sizeof alone);
    fixture_close(&f);
}

static void gives_the_same_tokens_when_prompts_are_cut(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .engine = { .batch_tokens = 7, .batch_requests = 5 } });
    run_all(&f, 0, other);
    assert_memory_equal(alone, other, sizeof alone);
    fixture_close(&f);
}

static void gives_the_same_tokens_after_preemption(void **state)
{
    struct fixture f;
    struct engine_stats stats;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .kvcache = { { "block_tokens", "4" }, { "blocks", "40" } } });
    run_all(&f, 0, other);
    assert_memory_equal(alone, other, sizeof alone);
    engine_get_stats(f.engine, &stats);
    assert_true(stats.preemptions > 0);
    assert_int_equal(stats.kv.used, 0);
    fixture_close(&f);
}

static void gives_the_same_tokens_under_static_batching(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .batching = "static" });
    run_all(&f, 0, other);
    assert_memory_equal(alone, other, sizeof alone);
    fixture_close(&f);
}

static void swaps_the_scheduler_between_steps(void **state)
{
    struct fixture f;
    struct instance *next;
    struct lathe_error err;
    uint64_t ids[PROMPTS];
    int engine_state;
    int64_t until;
    (void)state;

    fixture_open(&f, (struct fixture_params){ .engine = { .batch_requests = 3 } });
    for (int i = 0; i < PROMPTS; i++)
        ids[i] = fixture_submit(&f, &(struct engine_submit){ .text = prompts[i], .text_bytes = strlen(prompts[i]),
                                                             .forced_output_tokens = OUTPUTS });
    for (int i = 0; i < 10; i++)
        assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
    assert_int_equal(instance_create(f.registry, LATHE_KIND_SCHEDULER, "sjf", NULL, 0, &next, &err), LATHE_OK);
    assert_int_equal(engine_swap_scheduler(f.engine, next, &err), LATHE_OK);
    do
        assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
    while (engine_state == ENGINE_STARTED);
    for (int i = 0; i < PROMPTS; i++) {
        struct lathe_output piece;
        for (int t = 0; t < OUTPUTS; t++) {
            assert_int_equal(engine_read(f.engine, ids[i], &piece, &err), LATHE_OK);
            assert_int_equal(piece.token, alone[i][t]);
        }
        assert_int_equal(piece.finish_reason, LATHE_FINISH_LENGTH);
    }
    fixture_close(&f);
    instance_destroy(next);
}

static void refuses_a_prompt_beyond_the_context_and_goes_on(void **state)
{
    struct fixture f;
    char longer[400];
    (void)state;
    memset(longer, 'x', sizeof longer);
    fixture_open(&f, (struct fixture_params){ .engine = { .context_tokens = 128 } });
    struct planned_request r[2] = {
        { .submit = { .text = longer, .text_bytes = sizeof longer } },
        { .submit = { .text = "short", .text_bytes = 5, .forced_output_tokens = 4 } },
    };
    fixture_drive(&f, r, 2, 0);
    assert_int_equal(r[0].finish_reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(r[0].error, "beyond the context of 128"));
    assert_int_equal(r[1].finish_reason, LATHE_FINISH_LENGTH);
    fixture_free(r, 2);
    fixture_close(&f);
}

static void ends_at_the_end_of_the_context(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .engine = { .context_tokens = 32 } });
    struct planned_request r = { .submit = { .text = "0123456789", .text_bytes = 10, .max_output_tokens = 1000,
                                             .ignore_eos = 1 } };
    fixture_drive(&f, &r, 1, 0);
    assert_int_equal(r.finish_reason, LATHE_FINISH_LENGTH);
    assert_int_equal(r.output_count, 22);
    fixture_free(&r, 1);
    fixture_close(&f);
}

static void fails_a_request_that_the_pool_can_never_hold(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .kvcache = { { "block_tokens", "4" }, { "blocks", "6" } } });
    struct planned_request r[2] = {
        { .submit = { .text = "0123456789", .text_bytes = 10, .forced_output_tokens = 60 } }, /* 70 > 24 */
        { .submit = { .text = "short", .text_bytes = 5, .forced_output_tokens = 8 } },
    };
    fixture_drive(&f, r, 2, 0);
    assert_int_equal(r[0].finish_reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(r[0].error, "out of KV blocks"));
    assert_int_equal(r[1].finish_reason, LATHE_FINISH_LENGTH);
    assert_int_equal(r[1].output_count, 8);
    fixture_free(r, 2);
    fixture_close(&f);
}

static void fails_those_in_a_failed_forward_and_goes_on(void **state)
{
    struct fixture f;
    struct lathe_error err;
    int engine_state, reason = 0;
    int64_t until;
    struct lathe_output piece;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .model = { { "fail_after", "3" } } });
    uint64_t first = fixture_submit(&f, &(struct engine_submit){ .text = "a", .text_bytes = 1, .forced_output_tokens = 9 });
    for (int i = 0; i < 5; i++)
        assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
    assert_non_null(strstr(engine_request_error(f.engine, first), "failed"));
    while (engine_read(f.engine, first, &piece, &err) == LATHE_OK)
        reason = piece.finish_reason;
    assert_int_equal(reason, LATHE_FINISH_ERROR);
    fixture_close(&f);
}

static void cancels_between_steps(void **state)
{
    struct fixture f;
    struct lathe_error err;
    struct lathe_output piece;
    int engine_state, reason = 0;
    int64_t until;
    (void)state;
    fixture_open(&f, (struct fixture_params){ 0 });
    uint64_t id = fixture_submit(&f, &(struct engine_submit){ .text = "abc", .text_bytes = 3, .forced_output_tokens = 100 });
    for (int i = 0; i < 5; i++)
        assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
    engine_cancel(f.engine, id);
    engine_cancel(f.engine, 12345); /* unknown: ignored */
    assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
    assert_int_equal(engine_state, ENGINE_IDLE);
    int tokens = 0;
    while (engine_read(f.engine, id, &piece, &err) == LATHE_OK) {
        tokens += piece.token >= 0;
        reason = piece.finish_reason;
    }
    assert_int_equal(tokens, 5);
    assert_int_equal(reason, LATHE_FINISH_ABORT);
    assert_int_equal(engine_read(f.engine, id, &piece, &err), LATHE_ENOTFOUND);
    fixture_close(&f);
}

static void gives_up_at_the_deadline(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .model = { { "delay_us", "2000" } } });
    struct planned_request r = { .submit = { .text = "abc", .text_bytes = 3, .forced_output_tokens = 200,
                                             .deadline_ns = clock_now(&f.clock) + 50000000 } };
    fixture_drive(&f, &r, 1, 0);
    assert_int_equal(r.finish_reason, LATHE_FINISH_DEADLINE);
    assert_in_range(r.output_count, 1, 40);
    fixture_free(&r, 1);
    fixture_close(&f);
}

static void a_slow_reader_holds_up_itself_only(void **state)
{
    struct fixture f;
    struct lathe_error err;
    struct lathe_output piece;
    int engine_state, tokens = 0;
    int64_t until;
    (void)state;
    fixture_open(&f, (struct fixture_params){ .engine = { .output_queue = 4 } });
    uint64_t slow = fixture_submit(&f, &(struct engine_submit){ .text = "a", .text_bytes = 1, .forced_output_tokens = 50 });
    uint64_t quick = fixture_submit(&f, &(struct engine_submit){ .text = "b", .text_bytes = 1, .forced_output_tokens = 50 });
    for (int i = 0; i < 60; i++) {
        assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
        while (engine_read(f.engine, quick, &piece, &err) == LATHE_OK)
            tokens += piece.token >= 0;
    }
    assert_int_equal(tokens, 50);
    assert_int_equal(engine_state, ENGINE_IDLE);
    for (tokens = 0; tokens < 50;) {
        while (engine_read(f.engine, slow, &piece, &err) == LATHE_OK)
            tokens += piece.token >= 0;
        assert_int_equal(engine_step(f.engine, &engine_state, &until, &err), LATHE_OK);
    }
    fixture_close(&f);
}

static void streams_text_and_stops_at_a_stop_token(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f, (struct fixture_params){ 0 });
    struct planned_request r = { .submit = { .text = "hello", .text_bytes = 5, .forced_output_tokens = 20, .want_text = 1 } };
    fixture_drive(&f, &r, 1, 0);
    assert_non_null(r.text);
    int32_t stop = r.output[7];
    uint32_t first = 0; /* where that token comes first */
    while (r.output[first] != stop)
        first++;
    struct planned_request again = { .submit = { .text = "hello", .text_bytes = 5, .max_output_tokens = 20, .ignore_eos = 1,
                                                 .stop_ids = &stop, .stop_id_count = 1 } };
    fixture_drive(&f, &again, 1, 0);
    assert_int_equal(again.finish_reason, LATHE_FINISH_STOP);
    assert_int_equal(again.output_count, first + 1);
    fixture_free(&r, 1);
    fixture_free(&again, 1);
    fixture_close(&f);
}

static void refuses_bad_submissions_with_a_sentence(void **state)
{
    struct fixture f;
    struct lathe_error err;
    uint64_t id;
    int32_t outside = 100000;
    struct lathe_sampling hot = { .temperature = NAN, .top_p = 1, .repetition_penalty = 1 };
    (void)state;
    fixture_open(&f, (struct fixture_params){ .engine = { .max_requests = 2 } });
    assert_int_equal(engine_submit(f.engine, &(struct engine_submit){ .text = "", .text_bytes = 0 }, &id, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "empty"));
    assert_int_equal(engine_submit(f.engine, &(struct engine_submit){ .tokens = &outside, .token_count = 1 }, &id, &err),
                     LATHE_ERANGE);
    assert_non_null(strstr(err.message, "100000"));
    assert_int_equal(engine_submit(f.engine, &(struct engine_submit){ .text = "a", .text_bytes = 1, .sampling = &hot }, &id,
                                   &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "temperature"));
    assert_int_equal(engine_submit(f.engine, &(struct engine_submit){ .text = "a", .text_bytes = 1, .probes = 1 }, &id, &err),
                     LATHE_EINVAL);
    fixture_submit(&f, &(struct engine_submit){ .text = "a", .text_bytes = 1 });
    fixture_submit(&f, &(struct engine_submit){ .text = "a", .text_bytes = 1 });
    assert_int_equal(engine_submit(f.engine, &(struct engine_submit){ .text = "a", .text_bytes = 1 }, &id, &err), LATHE_EFULL);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_same_tokens_in_a_batch_as_alone),
        cmocka_unit_test(gives_the_same_tokens_when_prompts_are_cut),
        cmocka_unit_test(gives_the_same_tokens_after_preemption),
        cmocka_unit_test(gives_the_same_tokens_under_static_batching),
        cmocka_unit_test(swaps_the_scheduler_between_steps),
        cmocka_unit_test(refuses_a_prompt_beyond_the_context_and_goes_on),
        cmocka_unit_test(ends_at_the_end_of_the_context),
        cmocka_unit_test(fails_a_request_that_the_pool_can_never_hold),
        cmocka_unit_test(fails_those_in_a_failed_forward_and_goes_on),
        cmocka_unit_test(cancels_between_steps),
        cmocka_unit_test(gives_up_at_the_deadline),
        cmocka_unit_test(a_slow_reader_holds_up_itself_only),
        cmocka_unit_test(streams_text_and_stops_at_a_stop_token),
        cmocka_unit_test(refuses_bad_submissions_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

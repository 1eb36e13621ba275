/* SPDX-License-Identifier: MIT */
/* An engine whose cache shares prefixes: what it finds, and that what is found for those who wait
 * costs those who run nothing. */
#include "unit/core/engine_fixture.h"
#include "unit/core/simulate_fixture.h"

enum { MOST = 64 };

static struct engine *engine_of(struct sim *s)
{
    return deployment_engine(s->deployment, 0);
}

/* Tokens a, a, … (as many as `begins`), then others that nobody else has. */
static void submit(struct sim *s, uint64_t tag, int32_t a, uint32_t begins, uint32_t count, uint32_t outputs)
{
    int32_t tokens[MOST];
    uint64_t id;
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i < begins ? a : 100 + (int32_t)tag;
    struct engine_submit what = { .tokens = tokens, .token_count = count, .forced_output_tokens = outputs, .tag = tag,
                                  .unread = 1 };
    if (engine_submit(engine_of(s), &what, &id, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
}

static struct engine_stats stats_of(struct sim *s)
{
    struct engine_stats stats;
    engine_get_stats(engine_of(s), &stats);
    return stats;
}

static void steps(struct sim *s, int most)
{
    for (int i = 0; i < most && stats_of(s).live > 0; i++) {
        int status;
        int64_t until;
        if (engine_step(engine_of(s), &status, &until, &s->err) != LATHE_OK)
            fail_msg("%s", s->err.message);
        if (status == ENGINE_IDLE && until != INT64_MAX)
            clock_wait_until(&s->clock, until);
    }
}

static void all(struct sim *s)
{
    steps(s, 200);
    assert_int_equal(stats_of(s).live, 0);
}

static void a_second_prompt_computes_what_the_first_has_not(void **state)
{
    struct sim s;
    (void)state;
    sim_open(&s, (struct sim_params){ .tokens = 1, .kvcache = "prefix:block_tokens=4,blocks=40" });
    submit(&s, 0, 1, 20, 20, 2);
    all(&s);
    submit(&s, 1, 1, 18, 30, 2); /* four whole blocks */
    submit(&s, 2, 1, 20, 20, 2); /* the last token is computed, and its block with it */
    all(&s);
    assert_int_equal(s.ends[0].cached_tokens, 0);
    assert_int_equal(s.ends[1].cached_tokens, 16);
    assert_int_equal(s.ends[2].cached_tokens, 16);
    assert_int_equal(stats_of(&s).prompt_tokens, 20 + 14 + 4);
    assert_int_equal(stats_of(&s).kv.used, 0);
    assert_true(stats_of(&s).kv.cached > 0);
    sim_close(&s);
}

static void lengths_alone_share_nothing(void **state)
{
    struct sim s;
    (void)state;
    sim_open(&s, (struct sim_params){ .kvcache = "prefix:block_tokens=4,blocks=40" });
    for (uint64_t i = 0; i < 2; i++) {
        struct engine_submit what = { .token_count = 20, .forced_output_tokens = 2, .tag = i, .unread = 1 };
        uint64_t id;
        assert_int_equal(engine_submit(engine_of(&s), &what, &id, &s.err), LATHE_OK);
        all(&s);
        assert_int_equal(s.ends[i].cached_tokens, 0);
    }
    assert_int_equal(stats_of(&s).kv.cached, 0);
    sim_close(&s);
}

/* Two texts of ten tokens in a pool of 20 blocks of one token. */
static void cache_two(struct sim *s, struct sim_params p)
{
    p.tokens = 1;
    p.kvcache = "prefix:block_tokens=1,blocks=20";
    sim_open(s, p);
    submit(s, 0, 1, 10, 10, 1);
    submit(s, 1, 2, 10, 10, 1);
    all(s);
    assert_int_equal(stats_of(s).kv.cached, 20);
}

static void who_waits_costs_nobody_his_place_by_what_was_found_for_him(void **state)
{
    struct sim s;
    (void)state;
    cache_two(&s, (struct sim_params){ 0 });
    submit(&s, 2, 50, 0, 5, 14); /* runs, and needs 18 blocks at last */
    steps(&s, 1);
    submit(&s, 3, 1, 10, 16, 1); /* finds ten, and has no room for the rest */
    all(&s);
    assert_int_equal(s.ends[2].reason, LATHE_FINISH_LENGTH);
    assert_int_equal(s.ends[2].preemptions, 0);
    assert_int_equal(s.ends[3].reason, LATHE_FINISH_LENGTH);
    sim_close(&s);
}

static void two_who_wait_do_not_keep_each_other_out(void **state)
{
    struct sim s;
    (void)state;
    cache_two(&s, (struct sim_params){ 0 });
    submit(&s, 2, 1, 10, 16, 1); /* each finds ten blocks, so that none is left for either */
    submit(&s, 3, 2, 10, 16, 1);
    all(&s);
    assert_int_equal(s.ends[2].reason, LATHE_FINISH_LENGTH);
    assert_int_equal(s.ends[2].cached_tokens, 9 + 1);
    assert_int_equal(s.ends[3].reason, LATHE_FINISH_LENGTH);
    sim_close(&s);
}

static void a_window_of_waiting_is_kept_where_blocks_are_short(void **state)
{
    struct sim s;
    (void)state;
    cache_two(&s, (struct sim_params){ .batching = "static:batch=2,window_ms=3" });
    submit(&s, 2, 1, 10, 12, 1);
    submit(&s, 3, 50, 0, 19, 1);
    all(&s);
    assert_int_equal(s.ends[2].reason, LATHE_FINISH_LENGTH);
    assert_int_equal(s.ends[3].reason, LATHE_FINISH_LENGTH);
    sim_close(&s);
}

static uint32_t cached_tokens[2];

static void on_ended(void *user, const struct engine_ended *ended)
{
    (void)user;
    cached_tokens[ended->tag] = ended->request->cached_tokens;
}

/* The same prompt twice; the forward `at` finds that its worker is gone. */
static void twice(const char *at, struct planned_request *requests)
{
    static const char prompt[] = "a prompt that is longer than two blocks of the cache";
    struct fixture f;
    struct fixture_params p = { .cache = "prefix", .model = { { "fail_after", at }, { "fail_status", "lost" } },
                                .ended = on_ended };
    fixture_open(&f, p);
    for (int i = 0; i < 2; i++) {
        requests[i] = (struct planned_request){ .submit = { .text = prompt, .text_bytes = strlen(prompt), .tag = (uint64_t)i,
                                                            .forced_output_tokens = 4 } };
        fixture_drive(&f, &requests[i], 1, 0);
    }
    fixture_close(&f);
}

static void what_a_lost_worker_held_is_found_no_more(void **state)
{
    struct planned_request quiet[2], lost[2];
    (void)state;
    twice("0", quiet);
    assert_int_equal(cached_tokens[0], 0);
    assert_int_equal(cached_tokens[1], 48);
    twice("5", lost); /* the second's first */
    assert_int_equal(cached_tokens[1], 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lost[i].output_count, 4);
        assert_memory_equal(lost[i].output, quiet[0].output, 4 * sizeof(int32_t));
        assert_memory_equal(quiet[i].output, quiet[0].output, 4 * sizeof(int32_t));
    }
    fixture_free(quiet, 2);
    fixture_free(lost, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_prompt_computes_what_the_first_has_not),
        cmocka_unit_test(lengths_alone_share_nothing),
        cmocka_unit_test(who_waits_costs_nobody_his_place_by_what_was_found_for_him),
        cmocka_unit_test(two_who_wait_do_not_keep_each_other_out),
        cmocka_unit_test(a_window_of_waiting_is_kept_where_blocks_are_short),
        cmocka_unit_test(what_a_lost_worker_held_is_found_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

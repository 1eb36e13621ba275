/* SPDX-License-Identifier: MIT */
/* What an engine offers to simulations: requests that nobody reads, known by their lengths, with
 * keys and values that came with them or lie in a cache; and losing it all. */
#include "unit/core/simulate_fixture.h"

static struct engine *engine_of(struct sim *s)
{
    return deployment_engine(s->deployment, 0);
}

static struct engine_stats stats_of(struct sim *s)
{
    struct engine_stats stats;
    engine_get_stats(engine_of(s), &stats);
    return stats;
}

static uint64_t submit(struct sim *s, struct engine_submit what)
{
    uint64_t id;
    what.unread = 1;
    if (engine_submit(engine_of(s), &what, &id, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
    return id;
}

static int begin(struct sim *s, int64_t *until)
{
    int state;
    if (engine_begin(engine_of(s), clock_now(&s->clock), &state, until, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
    return state;
}

/* One step, if there is one to do. → 1: there was. */
static int step(struct sim *s)
{
    int64_t until;
    if (begin(s, &until) != ENGINE_STARTED)
        return 0;
    clock_wait_until(&s->clock, until);
    if (engine_finish(engine_of(s), until, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
    return 1;
}

/* Until nothing is left, at most `most` steps. → how many. */
static int steps(struct sim *s, int most)
{
    int count = 0;
    while (stats_of(s).live > 0 && count < most)
        count += step(s);
    assert_int_equal(stats_of(s).live, 0);
    return count;
}

/* ── Nobody reads ───────────────────────────────────────────────────────────────────── */

static void an_unread_request_gives_its_slot_back_as_it_ends(void **state)
{
    struct sim s;
    struct lathe_output output;
    (void)state;
    sim_open(&s, (struct sim_params){ .engine = { .max_requests = 1 } });
    for (uint64_t i = 0; i < 5; i++) {
        uint64_t id = submit(&s, (struct engine_submit){ .token_count = 3, .forced_output_tokens = 2, .tag = i });
        struct engine_submit more = { .token_count = 1, .unread = 1 };
        assert_int_equal(engine_submit(engine_of(&s), &more, &id, &s.err), LATHE_EFULL);
        assert_int_equal(steps(&s, 2), 2);
        assert_true(engine_is_empty(engine_of(&s)));
        assert_int_equal(engine_read(engine_of(&s), id, &output, &s.err), LATHE_ENOTFOUND);
        assert_int_equal(s.ends[i].count, 1);
        assert_int_equal(s.ends[i].output_tokens, 2);
    }
    sim_close(&s);
}

static void lengths_alone_are_taken_and_words_are_not(void **state)
{
    const int32_t ids[] = { 1, 2, 3 };
    struct engine_submit words = { .text = "abc", .text_bytes = 3 }, tokens = { .tokens = ids, .token_count = 3 },
                         empty = { .token_count = 0 }, exact = { .token_count = 1000, .forced_output_tokens = 24 },
                         beyond = { .token_count = 1000, .forced_output_tokens = 25 };
    struct sim s;
    uint64_t id;
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    assert_int_equal(engine_submit(engine_of(&s), &words, &id, &s.err), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(s.err.message, "known by their lengths alone"));
    assert_int_equal(engine_submit(engine_of(&s), &tokens, &id, &s.err), LATHE_EUNSUPPORTED);
    assert_int_equal(engine_submit(engine_of(&s), &empty, &id, &s.err), LATHE_EINVAL);
    assert_int_equal(engine_submit(engine_of(&s), &beyond, &id, &s.err), LATHE_ERANGE);
    exact.unread = 1;
    assert_int_equal(engine_submit(engine_of(&s), &exact, &id, &s.err), LATHE_OK);
    assert_int_equal(id, 1); /* who was refused has no number */
    assert_int_equal(steps(&s, 30), 2 + 23); /* 512 a step */
    sim_close(&s);
}

/* ── Keys and values that are there already ─────────────────────────────────────────── */

static void what_a_request_carries_takes_room_and_no_forward(void **state)
{
    struct sim s;
    (void)state;
    sim_open(&s, (struct sim_params){ .kvcache = "paged:block_tokens=8,blocks=20" });
    submit(&s, (struct engine_submit){ .token_count = 100, .carried_tokens = 99, .forced_output_tokens = 3 });
    assert_int_equal(stats_of(&s).pending_tokens, 1); /* what comes with it needn't be computed */
    assert_true(step(&s));
    assert_int_equal(stats_of(&s).prompt_tokens, 1);
    assert_int_equal(stats_of(&s).kv.used, 13);
    assert_int_equal(stats_of(&s).pending_tokens, 1);
    /* lost, it is computed like any other */
    assert_int_equal(engine_lose(engine_of(&s), clock_now(&s.clock), "gone", &s.err), LATHE_OK);
    assert_int_equal(stats_of(&s).kv.used, 0);
    assert_int_equal(stats_of(&s).pending_tokens, 101);
    assert_true(step(&s));
    assert_int_equal(stats_of(&s).prompt_tokens, 1 + 101);
    assert_int_equal(steps(&s, 5), 1);
    assert_int_equal(s.ends[0].preemptions, 1);
    assert_int_equal(stats_of(&s).kv.used, 0);
    sim_close(&s);
}

static void it_cannot_carry_more_than_all_but_the_last(void **state)
{
    struct sim s;
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    submit(&s, (struct engine_submit){ .token_count = 10, .carried_tokens = 10, .forced_output_tokens = 1 });
    assert_int_equal(steps(&s, 2), 1);
    assert_int_equal(stats_of(&s).prompt_tokens, 10);
    sim_close(&s);
}

/* A cache that has the first 30 positions of every prompt. */
static struct {
    const struct lathe_kvcache_api *paged;
    int forgotten, looks;
} fake;

static uint32_t fake_prefix(void *self, const struct lathe_request *req)
{
    (void)self;
    fake.looks++;
    return req->prompt_tokens > 30 ? 30 : req->prompt_tokens - 1;
}

static int fake_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    int status = fake.paged->admit(self, req, cached, err);
    if (status == LATHE_OK)
        *cached = fake_prefix(self, req);
    return status;
}

static void fake_forget(void *self)
{
    struct lathe_kv_usage usage;
    fake.paged->usage(self, &usage);
    assert_int_equal(usage.blocks_used, 0); /* no request is known then */
    fake.forgotten++;
}

static struct lathe_kvcache_api fake_cache(void)
{
    struct sim s;
    sim_open(&s, (struct sim_params){ 0 });
    fake.paged = s.parts.kvcache->api; /* stays mapped */
    sim_close(&s);
    fake.forgotten = fake.looks = 0;
    struct lathe_kvcache_api api = *fake.paged;
    api.admit = fake_admit, api.cached_prefix = fake_prefix, api.forget = fake_forget;
    return api;
}

static void what_the_cache_has_needs_no_forward_and_schedulers_may_look(void **state)
{
    struct lathe_kvcache_api cache = fake_cache();
    struct sim s;
    (void)state;
    sim_open(&s, (struct sim_params){ .scheduler = "prefix", .kvcache_api = &cache });
    submit(&s, (struct engine_submit){ .token_count = 50, .forced_output_tokens = 2, .tag = 0 });
    submit(&s, (struct engine_submit){ .token_count = 7, .forced_output_tokens = 2, .tag = 1 });
    assert_int_equal(steps(&s, 3), 2);
    assert_int_equal(s.ends[0].cached_tokens, 30);
    assert_int_equal(s.ends[1].cached_tokens, 6);
    assert_int_equal(stats_of(&s).prompt_tokens, 20 + 1);
    assert_true(fake.looks > 2); /* admit's two, and the scheduler's */
    sim_close(&s);
}

static void a_scheduler_that_needs_to_look_is_refused_where_it_cannot(void **state)
{
    struct sim s;
    (void)state;
    assert_int_equal(sim_try_open(&s, (struct sim_params){ .scheduler = "prefix" }), LATHE_EUNSUPPORTED);
    assert_string_equal(s.err.message, "scheduler prefix: this kvcache can't tell which prefixes it holds; take one that shares "
                                       "prefixes, or another scheduler");
    sim_close(&s);
}

/* ── Losing it all ──────────────────────────────────────────────────────────────────── */

static void losing_ends_the_step_and_forgets_the_cache(void **state)
{
    struct lathe_kvcache_api cache = fake_cache();
    struct sim s;
    int64_t until;
    (void)state;
    sim_open(&s, (struct sim_params){ .kvcache_api = &cache });
    submit(&s, (struct engine_submit){ .token_count = 50, .forced_output_tokens = 2 });
    assert_int_equal(begin(&s, &until), ENGINE_STARTED);
    assert_int_equal(engine_lose(engine_of(&s), clock_now(&s.clock), "gone", &s.err), LATHE_OK);
    assert_false(engine_is_started(engine_of(&s)));
    assert_int_equal(fake.forgotten, 1);
    assert_int_equal(stats_of(&s).losses, 1);
    assert_int_equal(stats_of(&s).running, 0);
    assert_int_equal(stats_of(&s).kv.used, 0);
    assert_int_equal(steps(&s, 3), 2); /* at once again: nothing waits for a worker */
    assert_int_equal(engine_lose(engine_of(&s), clock_now(&s.clock), "gone", &s.err), LATHE_OK); /* with nothing to lose */
    assert_int_equal(fake.forgotten, 2);
    assert_int_equal(s.ends[0].preemptions, 1);
    sim_close(&s);
}

static void three_losses_in_its_own_steps_end_a_request(void **state)
{
    struct sim s;
    int64_t until;
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    submit(&s, (struct engine_submit){ .token_count = 5, .forced_output_tokens = 2 });
    for (int i = 0; i < 3; i++) {
        assert_int_equal(stats_of(&s).live, 1);
        assert_int_equal(engine_lose(engine_of(&s), clock_now(&s.clock), "between its steps", &s.err), LATHE_OK);
        assert_int_equal(begin(&s, &until), ENGINE_STARTED);
        assert_int_equal(engine_lose(engine_of(&s), clock_now(&s.clock), "in its step", &s.err), LATHE_OK);
    }
    assert_int_equal(stats_of(&s).live, 0);
    assert_int_equal(s.ends[0].reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(s.ends[0].error, "died in 3 steps with this request in them"));
    sim_close(&s);
}

static void slowness_stretches_what_the_model_says(void **state)
{
    struct sim s;
    int64_t until;
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    submit(&s, (struct engine_submit){ .token_count = 5, .forced_output_tokens = 2 });
    engine_set_slowness(engine_of(&s), 2.5);
    assert_int_equal(begin(&s, &until), ENGINE_STARTED);
    assert_int_equal(until, MS(2.5));
    engine_set_slowness(engine_of(&s), 1); /* of the next one */
    assert_int_equal(engine_due(engine_of(&s)), MS(2.5));
    clock_wait_until(&s.clock, until);
    assert_int_equal(engine_finish(engine_of(&s), until, &s.err), LATHE_OK);
    assert_true(step(&s));
    assert_int_equal(s.ends[0].finish_ns, MS(3.5));
    sim_close(&s);
}

/* ── Policies that go round in circles ──────────────────────────────────────────────── */

static uint32_t seen_wanted;

/* Whoever waits goes first; whoever runs is preempted for him, or he for them: the last that ran. */
static int rank_waiting_first(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                              struct lathe_error *err)
{
    (void)self, (void)err;
    seen_wanted = view->ranking_wanted;
    ranking->count = ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX;
    for (int running = 0; running < 2; running++)
        for (uint32_t i = view->live_count; i-- > 0;)
            if ((view->live[i]->state == LATHE_REQUEST_RUNNING) == running)
                ranking->requests[ranking->count++] = view->live[i];
    return LATHE_OK;
}

static const struct lathe_request *youngest_victim(void *self, const struct lathe_step_view *view, const struct lathe_request *needy)
{
    const struct lathe_request *youngest = NULL;
    (void)self, (void)needy;
    for (uint32_t i = 0; i < view->live_count; i++)
        if (view->live[i]->state == LATHE_REQUEST_RUNNING && (!youngest || view->live[i]->id > youngest->id))
            youngest = view->live[i];
    return youngest;
}

static struct lathe_scheduler_api circling(void)
{
    struct sim s;
    sim_open(&s, (struct sim_params){ 0 });
    struct lathe_scheduler_api api = *(const struct lathe_scheduler_api *)s.parts.scheduler->api; /* stays mapped */
    sim_close(&s);
    api.rank = rank_waiting_first;
    api.victim = youngest_victim;
    return api;
}

static void a_victim_that_is_ranked_first_does_not_get_its_own_room_back_for_ever(void **state)
{
    struct lathe_scheduler_api scheduler = circling();
    struct sim s;
    (void)state;
    /* Each fits alone; the second's prompt takes two steps, all rows of each, and in the second of them
     * there is no room. */
    sim_open(&s, (struct sim_params){ .scheduler_api = &scheduler, .kvcache = "paged:block_tokens=1,blocks=100",
                                      .engine = { .batch_tokens = 64 } });
    submit(&s, (struct engine_submit){ .token_count = 30, .forced_output_tokens = 20, .tag = 0 });
    assert_true(step(&s));
    submit(&s, (struct engine_submit){ .token_count = 90, .forced_output_tokens = 5, .tag = 1 });
    assert_true(steps(&s, 200) < 200);
    assert_int_equal(s.ends[0].reason, LATHE_FINISH_LENGTH);
    assert_int_equal(s.ends[1].reason, LATHE_FINISH_LENGTH);
    assert_true(s.ends[1].preemptions > 0);
    sim_close(&s);
}

static void a_ranking_is_wanted_short_where_many_may_wait(void **state)
{
    struct lathe_scheduler_api scheduler = circling();
    static const struct { uint32_t max_requests, wanted; } sizes[] = { { 64, 0 }, { 1024, 0 }, { 2000, 16 } };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct sim s;
        sim_open(&s, (struct sim_params){ .scheduler_api = &scheduler,
                                          .engine = { .max_requests = sizes[i].max_requests, .batch_requests = 8 } });
        submit(&s, (struct engine_submit){ .token_count = 3, .forced_output_tokens = 1 });
        seen_wanted = UINT32_MAX;
        assert_int_equal(steps(&s, 2), 1);
        assert_int_equal(seen_wanted, sizes[i].wanted);
        sim_close(&s);
    }
}

/* Preempts whoever runs, and ranks all as they came. */
static int rank_after_preempting_all(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                                     struct lathe_error *err)
{
    int status = rank_waiting_first(self, view, ranking, err);
    for (uint32_t i = 0; i < view->live_count; i++)
        if (view->live[i]->state == LATHE_REQUEST_RUNNING)
            ranking->preempt[ranking->preempt_count++] = view->live[i];
    return status;
}

static void who_can_never_fit_ends_though_all_that_ran_were_preempted(void **state)
{
    struct lathe_scheduler_api scheduler = circling();
    struct sim s;
    (void)state;
    scheduler.rank = rank_after_preempting_all;
    sim_open(&s, (struct sim_params){ .scheduler_api = &scheduler, .kvcache = "paged:block_tokens=8,blocks=4,preempt=swap",
                                      .batching = "prefill_first" });
    submit(&s, (struct engine_submit){ .token_count = 32, .forced_output_tokens = 5, .tag = 0 }); /* its second token won't fit */
    assert_true(steps(&s, 50) < 50);
    assert_int_equal(s.ends[0].reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(s.ends[0].error, "out of KV blocks"));
    assert_int_equal(stats_of(&s).kv.used, 0);
    sim_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unread_request_gives_its_slot_back_as_it_ends),
        cmocka_unit_test(lengths_alone_are_taken_and_words_are_not),
        cmocka_unit_test(what_a_request_carries_takes_room_and_no_forward),
        cmocka_unit_test(it_cannot_carry_more_than_all_but_the_last),
        cmocka_unit_test(what_the_cache_has_needs_no_forward_and_schedulers_may_look),
        cmocka_unit_test(a_scheduler_that_needs_to_look_is_refused_where_it_cannot),
        cmocka_unit_test(losing_ends_the_step_and_forgets_the_cache),
        cmocka_unit_test(three_losses_in_its_own_steps_end_a_request),
        cmocka_unit_test(slowness_stretches_what_the_model_says),
        cmocka_unit_test(a_victim_that_is_ranked_first_does_not_get_its_own_room_back_for_ever),
        cmocka_unit_test(a_ranking_is_wanted_short_where_many_may_wait),
        cmocka_unit_test(who_can_never_fit_ends_though_all_that_ran_were_preempted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

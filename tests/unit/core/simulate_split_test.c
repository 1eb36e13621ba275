/* SPDX-License-Identifier: MIT */
/* Prefill and decode apart: halves that are one request for whoever counts, the order in which they
 * move, pools that don't mix, and positions that come with a request. */
#include "unit/core/engine_fixture.h"

#include "deployment.h"
#include "simulate_split.h"

enum { PLACES = 1000 };

static struct split *opened(int64_t transfer_ns, double token_ns)
{
    struct split_params params = { .prefill = 1, .transfer_ns = transfer_ns, .transfer_token_ns = token_ns };
    struct lathe_error err = { 0 };
    struct split *split = NULL;
    if (split_open(&split, &params, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return split;
}

static struct engine_submit begun(struct split *split, struct engine_submit submit, size_t number)
{
    struct lathe_error err = { 0 };
    if (split_begin(split, &submit, number, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return submit;
}

/* As an engine would tell of it: `outputs` of them, the last at `at_ns`. */
static bool ended(struct split *split, uint64_t tag, uint64_t id, uint32_t prompt, uint32_t outputs, int reason,
                  struct engine_ended *e, struct lathe_request *r)
{
    *r = (struct lathe_request){ .id = id, .correlation = 0xabc, .prompt_tokens = prompt, .output_tokens = outputs, .planned_ns = 1,
                                 .admitted_ns = 2, .first_token_ns = 3, .preemptions = 1 };
    *e = (struct engine_ended){ .id = id, .tag = tag, .finish_reason = reason, .request = r, .finish_ns = (int64_t)(1000 * id) };
    return split_ended(split, e, r);
}

static void makes_two_halves_one_request(void **state)
{
    struct split *split = opened(500, 3);
    struct engine_ended e;
    struct lathe_request r;
    (void)state;
    struct engine_submit first = begun(split, (struct engine_submit){ .token_count = 10, .forced_output_tokens = 5, .class_name = "chat",
        .predicted_output_tokens = 4, .planned_ns = 100, .slo_ttft_ns = 7, .slo_tpot_ns = 8, .session = 6, .turn = 2 }, 42);
    assert_int_equal(first.forced_output_tokens, 1);
    assert_int_equal(first.predicted_output_tokens, 1);
    assert_int_equal(first.slo_tpot_ns, 0);
    assert_true(split_next(split) == INT64_MAX);
    assert_false(ended(split, first.tag, 1, 10, 1, LATHE_FINISH_LENGTH, &e, &r));
    assert_int_equal(split_next(split), 1000 + 500 + 30);
    assert_null(split_first(split));
    split_moved(split);
    struct engine_submit second = *split_first(split);
    assert_int_equal(second.token_count, 11);
    assert_int_equal(second.carried_tokens, 10);
    assert_int_equal(second.forced_output_tokens, 4);
    assert_int_equal(second.predicted_output_tokens, 3);
    assert_int_equal(second.planned_ns, 1000);
    assert_int_equal(second.slo_ttft_ns, 0);
    assert_int_equal(second.slo_tpot_ns, 8);
    assert_int_equal(second.session, 6);
    assert_int_equal(second.turn, 2);
    assert_string_equal(second.class_name, "chat");
    assert_string_equal(second.correlation_id, "0000000000000abc"); /* as the engine writes one of its own */
    split_taken(split);
    assert_null(split_first(split));
    assert_true(ended(split, second.tag, 2, 11, 4, LATHE_FINISH_LENGTH, &e, &r));
    assert_int_equal(e.tag, 42);
    assert_int_equal(r.prompt_tokens, 10);
    assert_int_equal(r.output_tokens, 5);
    assert_int_equal(r.preemptions, 2);
    assert_int_equal(r.planned_ns, 100);
    assert_int_equal(r.slo_ttft_ns, 7);
    split_close(split);
}

static void ends_at_the_first_half_whoever_wants_or_gets_no_more(void **state)
{
    struct split *split = opened(0, 0);
    struct engine_ended e;
    struct lathe_request r;
    (void)state;
    struct engine_submit one = begun(split, (struct engine_submit){ .token_count = 10, .forced_output_tokens = 1, .slo_tpot_ns = 9 }, 3);
    assert_int_equal(one.slo_tpot_ns, 9);
    assert_true(ended(split, one.tag, 1, 10, 1, LATHE_FINISH_LENGTH, &e, &r));
    assert_int_equal(e.tag, 3);
    struct engine_submit late = begun(split, (struct engine_submit){ .token_count = 10, .max_output_tokens = 9 }, 4);
    assert_int_equal(late.max_output_tokens, 1);
    assert_true(ended(split, late.tag, 2, 10, 0, LATHE_FINISH_DEADLINE, &e, &r));
    assert_int_equal(e.tag, 4);
    struct engine_submit stopped = begun(split, (struct engine_submit){ .token_count = 10 }, 5);
    assert_true(ended(split, stopped.tag, 3, 10, 1, LATHE_FINISH_STOP, &e, &r));
    assert_true(split_next(split) == INT64_MAX);
    split_close(split);
}

static void moves_by_time_and_waits_in_line(void **state)
{
    struct split *split = opened(0, 1);
    uint64_t tags[PLACES];
    struct engine_ended e;
    struct lathe_request r;
    int64_t before = 0;
    (void)state;
    for (size_t i = 0; i < PLACES; i++) /* more than there are places at first: memory moves, they stay */
        tags[i] = begun(split, (struct engine_submit){ .token_count = 1, .forced_output_tokens = 9, .correlation_id = i ? NULL : "mine" }, i).tag;
    for (size_t i = 0; i < PLACES; i++)
        assert_false(ended(split, tags[i], 1, (uint32_t)(i * 7919 % PLACES) + 1, 1, LATHE_FINISH_LENGTH, &e, &r));
    for (size_t i = 0; i < PLACES; i++) {
        assert_true(split_next(split) >= before);
        before = split_next(split);
        split_moved(split);
    }
    assert_true(split_next(split) == INT64_MAX);
    for (size_t i = 0; i < PLACES; i++) {
        const struct engine_submit *first = split_first(split);
        assert_non_null(first);
        assert_int_equal(first->carried_tokens, i + 1);
        if (i == 0)
            assert_string_equal(first->correlation_id, "mine");
        split_taken(split);
    }
    assert_null(split_first(split));
    split_close(split);
}

static void tells_whose_half_was_refused(void **state)
{
    struct split *split = opened(0, 0);
    struct engine_ended e;
    struct lathe_request r;
    int64_t planned_ns;
    uint64_t id;
    (void)state;
    uint64_t tag = begun(split, (struct engine_submit){ .token_count = 1, .planned_ns = 5 }, 8).tag;
    assert_int_equal(split_refused(split, tag, &planned_ns, &id), 8);
    assert_int_equal(planned_ns, 5);
    assert_int_equal(id, 0);
    tag = begun(split, (struct engine_submit){ .token_count = 1, .planned_ns = 6 }, 9).tag;
    ended(split, tag, 77, 1, 1, LATHE_FINISH_LENGTH, &e, &r);
    split_moved(split);
    assert_int_equal(split_refused(split, split_first(split)->tag, &planned_ns, &id), 9);
    split_taken(split);
    assert_null(split_first(split));
    assert_int_equal(planned_ns, 6);
    assert_int_equal(id, 77);
    split_close(split);
}

/* ── a deployment of simulated replicas ─────────────────────────────────────────────── */

struct setting {
    struct registry *registry;
    struct loaded_model model;
    struct stage stages[LATHE_KIND_FRONTEND + 1];
    struct engine_parts parts;
    struct clock clock;
    struct deployment *deployment;
};

static void open_setting(struct setting *s, uint32_t replicas, uint32_t prefill)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct lathe_error err = { 0 };
    struct stage model = { 0 }, tokenizer = { 0 };
    memset(s, 0, sizeof *s);
    assert_int_equal(registry_open(folders, &s->registry, &err), LATHE_OK);
    /* 1 ms a step, 10 µs a prompt token, 100 µs one that decodes */
    assert_int_equal(stage_choose(&model, LATHE_KIND_MODEL, "sim", &err), LATHE_OK);
    static const char *const costs[][2] = { { "step_us", "1000" }, { "prefill_us", "10" }, { "decode_us", "100" },
                                            { "prefill_context_ns", "0" }, { "decode_context_ns", "0" } };
    for (size_t i = 0; i < sizeof costs / sizeof *costs; i++)
        assert_int_equal(stage_set(&model, costs[i][0], costs[i][1], &err), LATHE_OK);
    if (loaded_model_open(s->registry, &model, &tokenizer, &s->model, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    stage_clear(&model);
    assert_int_equal(stage_choose(&s->stages[LATHE_KIND_ROUTER], LATHE_KIND_ROUTER, "round_robin", &err), LATHE_OK);
    if (parts_open(s->registry, &s->model, s->stages, &s->parts, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    clock_start(&s->clock, CLOCK_KIND_VIRTUAL);
    struct deployment_params params = { .engine = { .parts = s->parts, .clock = &s->clock, .max_requests = 8, .context_tokens = 512,
                                                    .lengths_only = 1 },
                                        .replicas = replicas, .prefill = prefill, .registry = s->registry, .stages = s->stages };
    if (deployment_open(&params, &s->deployment, &err) != LATHE_OK)
        fail_msg("%s", err.message);
}

static void close_setting(struct setting *s)
{
    deployment_close(s->deployment);
    parts_close(&s->parts);
    for (size_t i = 0; i < sizeof s->stages / sizeof *s->stages; i++)
        stage_clear(&s->stages[i]);
    loaded_model_close(&s->model);
    registry_close(s->registry);
}

static void routes_each_half_within_its_pool(void **state)
{
    static const uint32_t expected[2][4] = { { 0, 1, 0, 1 }, { 2, 3, 4, 2 } };
    struct engine_submit submit = { .token_count = 10, .unread = 1 };
    struct lathe_error err = { 0 };
    struct setting s;
    uint32_t choice;
    (void)state;
    open_setting(&s, 5, 2);
    for (int half = 0; half < 2; half++, submit.carried_tokens = 9)
        for (int i = 0; i < 4; i++) {
            assert_int_equal(deployment_choose(s.deployment, &submit, &choice, &err), LATHE_OK);
            assert_int_equal(choice, expected[half][i]);
        }
    close_setting(&s);
    open_setting(&s, 2, 1); /* nothing to choose: one is, or is not ready */
    submit.carried_tokens = 0;
    for (uint32_t half = 0; half < 2; half++, submit.carried_tokens = 9) {
        assert_int_equal(deployment_choose(s.deployment, &submit, &choice, &err), LATHE_OK);
        assert_int_equal(choice, half);
    }
    deployment_set_ready(s.deployment, 1, 0);
    assert_int_equal(deployment_choose(s.deployment, &submit, &choice, &err), LATHE_OK);
    assert_true(choice == UINT32_MAX);
    close_setting(&s);
}

/* How long the next step takes, which is ended. */
static int64_t step(struct setting *s, struct engine *engine)
{
    struct lathe_error err = { 0 };
    int64_t now = clock_now(&s->clock), until;
    int what;
    if (engine_begin(engine, now, &what, &until, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(what, ENGINE_STARTED);
    clock_wait_until(&s->clock, until);
    if (engine_finish(engine, until, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return until - now;
}

static void what_comes_with_a_request_takes_room_and_no_forward(void **state)
{
    struct engine_submit submit = { .token_count = 101, .carried_tokens = 100, .forced_output_tokens = 3, .unread = 1 };
    struct lathe_error err = { 0 };
    struct engine_load load;
    struct setting s;
    uint64_t id;
    (void)state;
    open_setting(&s, 2, 1);
    struct engine *engine = deployment_engine(s.deployment, 1);
    assert_int_equal(engine_submit(engine, &submit, &id, &err), LATHE_OK);
    engine_get_load(engine, &load);
    assert_int_equal(load.pending_tokens, 1);
    assert_int_equal(step(&s, engine), 1100000);
    engine_get_load(engine, &load);
    assert_int_equal(load.blocks_used, 7); /* of 16 */
    assert_int_equal(step(&s, engine), 1100000);
    close_setting(&s);
}

static void what_came_with_it_is_lost_with_the_replica(void **state)
{
    struct engine_submit submit = { .token_count = 101, .carried_tokens = 100, .forced_output_tokens = 3, .unread = 1 };
    struct lathe_error err = { 0 };
    struct engine_load load;
    struct setting s;
    uint64_t id;
    (void)state;
    for (int running = 0; running < 2; running++) {
        open_setting(&s, 2, 1);
        struct engine *engine = deployment_engine(s.deployment, 1);
        assert_int_equal(engine_submit(engine, &submit, &id, &err), LATHE_OK);
        if (running)
            step(&s, engine);
        assert_int_equal(engine_lose(engine, clock_now(&s.clock), "it died", &err), LATHE_OK);
        engine_get_load(engine, &load);
        assert_int_equal(load.pending_tokens, 101 + running);
        assert_int_equal(step(&s, engine), 1000000 + (101 + running) * 10000);
        close_setting(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_two_halves_one_request),
        cmocka_unit_test(ends_at_the_first_half_whoever_wants_or_gets_no_more),
        cmocka_unit_test(moves_by_time_and_waits_in_line),
        cmocka_unit_test(tells_whose_half_was_refused),
        cmocka_unit_test(routes_each_half_within_its_pool),
        cmocka_unit_test(what_comes_with_a_request_takes_room_and_no_forward),
        cmocka_unit_test(what_came_with_it_is_lost_with_the_replica),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

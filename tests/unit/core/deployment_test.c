/* SPDX-License-Identifier: MIT */
/* Replicas behind a router on one bus: the same tokens whichever replica serves, numbers that
 * are the run's own, scaling while requests are under way. */
#include "unit/core/engine_fixture.h"

enum { REQUESTS = 12, TOKENS = 10 };

struct setting {
    struct registry *registry;
    struct loaded_model model;
    struct stage stages[LATHE_KIND_FRONTEND + 1];
    struct engine_parts parts;
    struct clock clock;
    struct deployment *deployment;
};

static void open_setting(struct setting *s, const char *bus, uint32_t replicas)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct lathe_error err = { 0 };
    struct stage model = { 0 }, tokenizer = { 0 };
    memset(s, 0, sizeof *s);
    assert_int_equal(registry_open(folders, &s->registry, &err), LATHE_OK);
    assert_int_equal(stage_choose(&model, LATHE_KIND_MODEL, "tiny", &err), LATHE_OK);
    if (loaded_model_open(s->registry, &model, &tokenizer, &s->model, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    stage_clear(&model);
    assert_int_equal(stage_choose(&s->stages[LATHE_KIND_BUS], LATHE_KIND_BUS, bus, &err), LATHE_OK);
    if (parts_open(s->registry, &s->model, s->stages, &s->parts, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    clock_start(&s->clock, CLOCK_KIND_REAL);
    struct deployment_params params = { .engine = { .parts = s->parts, .clock = &s->clock, .max_requests = 32, .context_tokens = 256,
                                                    .batch_requests = 4 },
                                        .replicas = replicas, .registry = s->registry, .stages = s->stages };
    if (deployment_open(&params, &s->deployment, &err) != LATHE_OK)
        fail_msg("%s: %s", bus, err.message);
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

static void drive_all(struct setting *s, struct planned_request *requests)
{
    static char prompts[REQUESTS][32];
    struct lathe_error err = { 0 };
    memset(requests, 0, REQUESTS * sizeof *requests);
    for (int i = 0; i < REQUESTS; i++) {
        snprintf(prompts[i], sizeof prompts[i], "request number %d", i);
        requests[i].submit = (struct engine_submit){ .text = prompts[i], .text_bytes = strlen(prompts[i]),
                                                     .forced_output_tokens = TOKENS, .want_text = 1 };
    }
    struct drive_params params = { .deployment = s->deployment, .clock = &s->clock, .requests = requests, .count = REQUESTS };
    if (drive(&params, &err) != LATHE_OK)
        fail_msg("%s", err.message);
}

static void same_outputs(const struct planned_request *a, const struct planned_request *b)
{
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(a[i].output_count, TOKENS);
        assert_int_equal(b[i].output_count, TOKENS);
        assert_memory_equal(a[i].output, b[i].output, TOKENS * sizeof(int32_t));
        assert_string_equal(a[i].text, b[i].text);
    }
}

static const char *const buses[] = { "direct", "sync", "async", "shm" };
enum { BUSES = sizeof buses / sizeof *buses };

static void gives_the_same_tokens_over_every_bus_with_one_replica_or_three(void **state)
{
    struct planned_request reference[REQUESTS], requests[REQUESTS];
    struct setting s;
    (void)state;
    open_setting(&s, "direct", 1);
    drive_all(&s, reference);
    close_setting(&s);
    for (int bus = 0; bus < BUSES; bus++)
        for (uint32_t replicas = 1; replicas <= 3; replicas += 2) {
            open_setting(&s, buses[bus], replicas);
            drive_all(&s, requests);
            same_outputs(requests, reference);
            fixture_free(requests, REQUESTS);
            close_setting(&s);
        }
    fixture_free(reference, REQUESTS);
}

static void numbers_requests_of_all_replicas_in_one_row(void **state)
{
    struct planned_request requests[REQUESTS];
    struct setting s;
    bool used[3] = { false };
    (void)state;
    open_setting(&s, "direct", 3);
    drive_all(&s, requests);
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(requests[i].id, i + 1);
        assert_true(requests[i].replica < 3);
        used[requests[i].replica] = true;
    }
    assert_true(used[0] && used[1] && used[2]); /* least_loaded spreads what comes at once */
    fixture_free(requests, REQUESTS);
    close_setting(&s);
}

static void scales_up_and_down_while_requests_are_under_way(void **state)
{
    struct lathe_error err = { 0 };
    (void)state;
    for (int bus = 0; bus < BUSES; bus++) {
        struct setting s;
        struct planned_request r[REQUESTS];
        static const uint32_t counts[] = { 2, 3, 1, 2, 1 };
        int turns = 0, state_now;
        size_t done = 0;
        int64_t until;
        open_setting(&s, buses[bus], 1);
        memset(r, 0, sizeof r);
        for (int i = 0; i < REQUESTS; i++) {
            struct deployment_request request;
            r[i].submit = (struct engine_submit){ .text = "scaled", .text_bytes = 6, .forced_output_tokens = TOKENS, .want_text = 1 };
            if (deployment_submit(s.deployment, &r[i].submit, &request, &err) != LATHE_OK)
                fail_msg("%s", err.message);
            r[i].id = request.id, r[i].replica = request.replica;
            if (i % 3 == 2 && turns < 5) {
                if (deployment_scale(s.deployment, "model", counts[turns], &err) != LATHE_OK)
                    fail_msg("%s", err.message);
                assert_int_equal(deployment_replicas(s.deployment), counts[turns++]);
            }
        }
        for (int round = 0; round < 100000 && done < REQUESTS; round++) {
            if (deployment_turn(s.deployment, INT64_MAX, &state_now, &until, &err) != LATHE_OK)
                fail_msg("%s", err.message);
            for (int i = 0; i < REQUESTS; i++) {
                bool finished;
                if (r[i].finish_reason)
                    continue;
                assert_int_equal(planned_request_read(s.deployment, &r[i], &finished, &err), LATHE_OK);
            }
            done = 0;
            for (int i = 0; i < REQUESTS; i++)
                done += r[i].finish_reason != LATHE_FINISH_NONE;
        }
        for (int i = 0; i < REQUESTS; i++) {
            assert_int_equal(r[i].finish_reason, LATHE_FINISH_LENGTH);
            assert_int_equal(r[i].output_count, TOKENS);
            assert_memory_equal(r[i].output, r[0].output, TOKENS * sizeof(int32_t));
        }
        fixture_free(r, REQUESTS);
        close_setting(&s);
    }
}

static void refuses_to_scale_to_none_or_an_unknown_service(void **state)
{
    struct lathe_error err = { 0 };
    struct setting s;
    (void)state;
    open_setting(&s, "sync", 1);
    assert_int_equal(deployment_scale(s.deployment, "model", 0, &err), LATHE_ERANGE);
    assert_int_equal(deployment_scale(s.deployment, "model", 1000, &err), LATHE_ERANGE);
    assert_int_equal(deployment_scale(s.deployment, "modell", 2, &err), LATHE_ENOTFOUND);
    close_setting(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_same_tokens_over_every_bus_with_one_replica_or_three),
        cmocka_unit_test(numbers_requests_of_all_replicas_in_one_row),
        cmocka_unit_test(scales_up_and_down_while_requests_are_under_way),
        cmocka_unit_test(refuses_to_scale_to_none_or_an_unknown_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

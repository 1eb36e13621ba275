/* SPDX-License-Identifier: MIT */
/* A deployment of the simulated model, on plugins from the build tree: every step takes exactly
 * 1 ms unless said, so that what a run must do can be counted on fingers. */
#ifndef TESTS_SIMULATE_FIXTURE_H
#define TESTS_SIMULATE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simulate.h"
#include <lathe/batching.h>
#include <lathe/kvcache.h>
#include <lathe/router.h>

enum { SIM_MOST = 4096 };
#define MS(x) ((int64_t)((x)*1e6))

struct sim_params {
    const char *scheduler, *batching, *kvcache, *router; /* as --set has them; NULL: fcfs, continuous, paged, least_loaded */
    const char *model;                                   /* more options of model/sim: "noise=0.1" */
    uint32_t replicas;
    int tokens;                                          /* requests bring token ids */
    struct engine_params engine;                         /* parts, clock, lengths_only are filled in */
    const struct lathe_scheduler_api *scheduler_api;     /* in place of the plugin's: of replica 0 */
    const struct lathe_batching_api *batching_api;
    const struct lathe_kvcache_api *kvcache_api;
};

/* What was told of an end, by tag. */
struct sim_end {
    uint64_t id;
    uint32_t count, replica, preemptions, output_tokens, cached_tokens;
    int reason;
    int64_t planned_ns, admitted_ns, first_token_ns, finish_ns;
    char error[200];
};

struct sim {
    struct registry *registry;
    struct loaded_model model;
    struct stage stages[LATHE_KIND_FRONTEND + 1];
    struct engine_parts parts;
    struct instance fakes[3];
    struct clock clock;
    struct simulation *simulation;
    struct deployment *deployment;
    struct figures figures;
    struct sim_end *ends; /* (SIM_MOST) */
    uint32_t order[SIM_MOST], ended;
    struct lathe_error err;
};

static inline void sim_choose(struct sim *s, int kind, const char *word, const char *otherwise, struct stage *stage)
{
    char text[256], *name;
    struct option_setting settings[8];
    size_t count;
    snprintf(text, sizeof text, "%s", word ? word : otherwise);
    if (settings_parse(text, &name, settings, 8, &count, &s->err) != LATHE_OK ||
        stage_choose(stage, kind, name, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(stage_set(stage, settings[i].name, settings[i].text, &s->err), LATHE_OK);
}

static inline void sim_on_ended(void *user, const struct engine_ended *ended)
{
    struct sim *s = user;
    const struct lathe_request *r = ended->request;
    assert_true(ended->tag < SIM_MOST);
    struct sim_end *end = &s->ends[ended->tag];
    *end = (struct sim_end){ ended->id, end->count + 1, ended->replica, r->preemptions, r->output_tokens, r->cached_tokens,
                             ended->finish_reason, r->planned_ns, r->admitted_ns, r->first_token_ns, ended->finish_ns, "" };
    snprintf(end->error, sizeof end->error, "%s", ended->error);
    s->order[s->ended++ % SIM_MOST] = (uint32_t)ended->tag;
    simulate_ended(s->simulation, ended);
}

static inline struct instance *sim_fake(struct instance *fake, struct instance *real, const void *api)
{
    if (!api)
        return real;
    *fake = *real;
    fake->api = api;
    return fake;
}

/* LATHE_… of deployment_open, s->err says why. */
static inline int sim_try_open(struct sim *s, struct sim_params p)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct stage model = { 0 }, none = { 0 };
    char text[256];
    memset(s, 0, sizeof *s);
    assert_int_equal(registry_open(folders, &s->registry, &s->err), LATHE_OK);
    snprintf(text, sizeof text, "sim:step_us=1000,prefill_us=0,prefill_context_ns=0,decode_us=0,decode_context_ns=0,padding_us=0,%s",
             p.model ? p.model : "swap_us=0");
    sim_choose(s, LATHE_KIND_MODEL, text, NULL, &model);
    if (loaded_model_open(s->registry, &model, &none, &s->model, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
    stage_clear(&model);
    sim_choose(s, LATHE_KIND_SCHEDULER, p.scheduler, "fcfs", &s->stages[LATHE_KIND_SCHEDULER]);
    sim_choose(s, LATHE_KIND_BATCHING, p.batching, "continuous", &s->stages[LATHE_KIND_BATCHING]);
    sim_choose(s, LATHE_KIND_KVCACHE, p.kvcache, "paged", &s->stages[LATHE_KIND_KVCACHE]);
    sim_choose(s, LATHE_KIND_ROUTER, p.router, "least_loaded", &s->stages[LATHE_KIND_ROUTER]);
    if (parts_open(s->registry, &s->model, s->stages, &s->parts, &s->err) != LATHE_OK)
        fail_msg("%s", s->err.message);
    s->ends = calloc(SIM_MOST, sizeof *s->ends);
    assert_non_null(s->ends);
    assert_int_equal(figures_open(&s->figures, &s->err), LATHE_OK);
    assert_int_equal(simulate_open(&s->simulation, &s->err), LATHE_OK);
    clock_start(&s->clock, CLOCK_KIND_VIRTUAL);
    p.engine.parts = s->parts;
    p.engine.parts.scheduler = sim_fake(&s->fakes[0], s->parts.scheduler, p.scheduler_api);
    p.engine.parts.batching = sim_fake(&s->fakes[1], s->parts.batching, p.batching_api);
    p.engine.parts.kvcache = sim_fake(&s->fakes[2], s->parts.kvcache, p.kvcache_api);
    p.engine.clock = &s->clock;
    p.engine.lengths_only = !p.tokens;
    p.engine.output_queue = 1;
    p.engine.context_tokens = p.engine.context_tokens ? p.engine.context_tokens : 1024;
    struct deployment_params deployment = { .engine = p.engine, .replicas = p.replicas, .registry = s->registry,
                                            .stages = s->stages, .ended = sim_on_ended, .user = s };
    return deployment_open(&deployment, &s->deployment, &s->err);
}

static inline void sim_open(struct sim *s, struct sim_params p)
{
    if (sim_try_open(s, p) != LATHE_OK)
        fail_msg("%s", s->err.message);
}

static inline void sim_close(struct sim *s)
{
    deployment_close(s->deployment);
    simulate_close(s->simulation);
    figures_close(&s->figures);
    parts_close(&s->parts);
    for (size_t i = 0; i < sizeof s->stages / sizeof *s->stages; i++)
        stage_clear(&s->stages[i]);
    loaded_model_close(&s->model);
    registry_close(s->registry);
    free(s->ends);
}

/* One of a list: so many output tokens, a prompt of `prompt`. */
static inline struct planned_request sim_request(double at_ms, uint32_t prompt, uint32_t output)
{
    return (struct planned_request){ .submit = { .token_count = prompt, .forced_output_tokens = output, .planned_ns = MS(at_ms) } };
}

/* A status; `more` may bring faults, concurrency. */
static inline int sim_try(struct sim *s, struct planned_request *requests, size_t count, struct simulate_params more)
{
    more.deployment = s->deployment, more.clock = &s->clock, more.figures = &s->figures;
    more.requests = requests, more.count = count;
    return simulate(s->simulation, &more, &s->err);
}

static inline void sim_run(struct sim *s, struct planned_request *requests, size_t count, struct simulate_params more)
{
    if (sim_try(s, requests, count, more) != LATHE_OK)
        fail_msg("%s", s->err.message);
}

#endif

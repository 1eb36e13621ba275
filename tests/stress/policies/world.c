/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <inttypes.h>
#include <stdlib.h>

#include <lathe/random.h>

/* A run of 10,000 requests has some 100,000 events; one with so many will never end. */
enum { MAX_LOOKS = 2000 }; /* of 4096 events each */

/* For scheduler/lua. */
static const char policy[] = "return { name = 'short', preemptive = true, key = function(r) return r.prompt_tokens end }";

uint32_t draw_below(struct draw *d, uint32_t below)
{
    return (uint32_t)(lathe_random_u64(d->seed, LATHE_RANDOM_USER, 1, d->count++) % below);
}

double draw_unit(struct draw *d)
{
    return lathe_random_unit(d->seed, LATHE_RANDOM_USER, 1, d->count++);
}

/* "name:option=value,…" of a kind. */
static int choose(struct world *w, int kind, const char *word, struct lathe_error *err)
{
    char text[CASE_WORD], *name;
    struct option_setting settings[8];
    size_t count;
    snprintf(text, sizeof text, "%s", word);
    int status = settings_parse(text, &name, settings, 8, &count, err);
    if (status == LATHE_OK)
        status = stage_choose(&w->stages[kind], kind, name, err);
    for (size_t i = 0; status == LATHE_OK && i < count; i++)
        status = stage_set(&w->stages[kind], settings[i].name, settings[i].text, err);
    if (status == LATHE_OK && kind == LATHE_KIND_SCHEDULER && strcmp(name, "lua") == 0)
        status = stage_set(&w->stages[kind], "text", policy, err);
    return status;
}

static void broken(struct world *w, const struct engine_ended *ended, const char *what)
{
    if (!w->broken[0])
        snprintf(w->broken, sizeof w->broken, "request %" PRIu64 " (tag %" PRIu64 ", reason %d): %.180s", ended->id, ended->tag,
                 ended->finish_reason, what);
}

static void cancel(struct world *w, uint64_t id)
{
    for (uint32_t i = 0; i < w->params.replicas; i++)
        engine_cancel(deployment_engine(w->deployment, i), id);
}

/* One that came about then, or now and then all of those. */
static void cancel_some(struct world *w, uint64_t id)
{
    const uint32_t around = 20;
    if (w->params.cancels == 0 || draw_unit(&w->cancels) >= w->params.cancels)
        return;
    uint64_t first = id > around ? id - around : 1;
    if (draw_below(&w->cancels, 50))
        cancel(w, first + draw_below(&w->cancels, 2 * around));
    else
        for (uint32_t i = 0; i < 4 * around; i++)
            cancel(w, first + i);
}

static void on_ended(void *user, const struct engine_ended *ended)
{
    struct world *w = user;
    const struct lathe_request *r = ended->request;
    if (!w->ends) /* the deployment is being closed */
        return;
    if (ended->tag >= w->params.of->requests || w->ends[ended->tag]++)
        broken(w, ended, "ended twice, or was never there");
    else
        w->order[ended->tag] = (uint32_t)w->ended;
    w->ended++;
    w->cancelled += ended->finish_reason == LATHE_FINISH_ABORT;
    w->late += ended->finish_reason == LATHE_FINISH_DEADLINE;
    if (ended->finish_reason == LATHE_FINISH_LENGTH && r->output_tokens != r->max_output_tokens)
        broken(w, ended, "ended before its last token");
    if (ended->finish_reason == LATHE_FINISH_ERROR && strlen(ended->error) < 20)
        broken(w, ended, "failed without a sentence");
    if (ended->finish_reason == LATHE_FINISH_STOP || ended->finish_reason == LATHE_FINISH_NONE)
        broken(w, ended, "ended for no reason that it can have");
    if (ended->finish_reason == LATHE_FINISH_DEADLINE && ended->finish_ns < r->deadline_ns)
        broken(w, ended, "was ended before its deadline");
    if (r->planned_ns > r->arrival_ns || r->arrival_ns > ended->finish_ns || (r->output_tokens > 0) != (r->first_token_ns >= 0) ||
        (r->first_token_ns >= 0 && (r->admitted_ns < r->arrival_ns || r->first_token_ns < r->admitted_ns ||
                                    r->first_token_ns > ended->finish_ns)))
        broken(w, ended, "its times are not in order");
    cancel_some(w, ended->id);
    simulate_ended(w->simulation, ended);
}

/* The sum of a replica's books must be nothing, and each that came was counted. */
int world_check(struct world *w, struct lathe_error *err)
{
    uint64_t ended = 0;
    if (w->broken[0])
        return lathe_fail(err, LATHE_EINTERNAL, "%s", w->broken);
    for (uint32_t i = 0; i < w->params.replicas; i++) {
        struct engine_stats s;
        engine_get_stats(deployment_engine(w->deployment, i), &s);
        if (s.live || s.running || s.waiting || s.pending_tokens)
            return lathe_fail(err, LATHE_EINTERNAL, "replica %u has %u live, %u running, %u waiting requests and %" PRIu64
                              " pending tokens left", i, s.live, s.running, s.waiting, s.pending_tokens);
        if (s.kv.used)
            return lathe_fail(err, LATHE_EINTERNAL, "replica %u leaked %u of %u KV blocks", i, s.kv.used, s.kv.total);
        ended += s.finished;
    }
    if (ended != w->ended || ended + w->figures.refused != w->params.of->requests)
        return lathe_fail(err, LATHE_EINTERNAL, "%" PRIu64 " ended, the replicas counted %" PRIu64 ", %" PRIu64 " were refused, "
                          "of %u", w->ended, ended, w->figures.refused, w->params.of->requests);
    if ((w->figures.refused > 0) != (strlen(w->figures.first_refusal) > 20))
        return lathe_fail(err, LATHE_EINTERNAL, "%" PRIu64 " were refused, and the reason given is \"%s\"", w->figures.refused,
                          w->figures.first_refusal);
    if (w->figures.busy_ns < 0 || w->figures.busy_ns > (double)w->params.replicas * (double)clock_now(&w->clock))
        return lathe_fail(err, LATHE_EINTERNAL, "replicas were busy for %.0f ns of %" PRId64, w->figures.busy_ns,
                          clock_now(&w->clock));
    return LATHE_OK;
}

static int on_progress(void *user, const struct drive_progress *now)
{
    struct world *w = user;
    (void)now;
    return ++w->looks > MAX_LOOKS;
}

int world_has_tokens(const struct policy_case *of)
{
    return strncmp(of->kvcache, "prefix", 6) == 0;
}

int world_open(struct world *w, struct registry *registry, const struct world_params *params, struct lathe_error *err)
{
    struct stage model = { 0 }, none = { 0 };
    char text[32];
    int status;

    memset(w, 0, sizeof *w);
    w->registry = registry;
    w->params = *params;
    w->cancels = (struct draw){ params->of->seed ^ 0x5bd1e995, 0 };
    snprintf(text, sizeof text, "%.3f", params->step_us);
    if ((status = stage_choose(&model, LATHE_KIND_MODEL, "sim", err)) == LATHE_OK &&
        (status = stage_set(&model, "step_us", text, err)) == LATHE_OK &&
        (status = stage_set(&model, "prefill_us", "10", err)) == LATHE_OK)
        status = loaded_model_open(registry, &model, &none, &w->model, err);
    stage_clear(&model);
    if (status != LATHE_OK || (status = choose(w, LATHE_KIND_SCHEDULER, params->of->scheduler, err)) != LATHE_OK ||
        (status = choose(w, LATHE_KIND_BATCHING, params->of->batching, err)) != LATHE_OK ||
        (status = choose(w, LATHE_KIND_KVCACHE, params->of->kvcache, err)) != LATHE_OK ||
        (status = choose(w, LATHE_KIND_ROUTER, params->router, err)) != LATHE_OK ||
        (status = parts_open(registry, &w->model, w->stages, &w->parts, err)) != LATHE_OK ||
        (status = figures_open(&w->figures, err)) != LATHE_OK || (status = simulate_open(&w->simulation, err)) != LATHE_OK)
        return status;
    w->order = calloc(params->of->requests, sizeof *w->order);
    w->ends = calloc(params->of->requests, 1);
    if (!w->ends || !w->order)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u requests", params->of->requests);
    clock_start(&w->clock, CLOCK_KIND_VIRTUAL);
    struct deployment_params deployment = {
        .engine = { .parts = w->parts, .clock = &w->clock, .max_requests = params->max_requests, .output_queue = 1,
                    .batch_tokens = params->batch_tokens, .batch_requests = params->batch_requests,
                    .context_tokens = params->context_tokens, .lengths_only = !world_has_tokens(params->of), .seed = params->of->seed },
        .replicas = params->replicas, .registry = registry, .stages = w->stages, .ended = on_ended, .user = w,
    };
    return deployment_open(&deployment, &w->deployment, err);
}

int world_run(struct world *w, struct simulate_params *params, struct lathe_error *err)
{
    params->deployment = w->deployment, params->clock = &w->clock, params->figures = &w->figures;
    params->progress = on_progress, params->user = w, params->progress_interval_ns = 1;
    return simulate(w->simulation, params, err);
}

void world_close(struct world *w)
{
    uint8_t *ends = w->ends;
    w->ends = NULL;
    deployment_close(w->deployment);
    simulate_close(w->simulation);
    figures_close(&w->figures);
    parts_close(&w->parts);
    for (size_t i = 0; i < sizeof w->stages / sizeof *w->stages; i++)
        stage_clear(&w->stages[i]);
    loaded_model_close(&w->model);
    free(ends);
    free(w->order);
}

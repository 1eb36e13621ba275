/* SPDX-License-Identifier: MIT */
#include "case.h"

#include <stdlib.h>

#include "world.h"
#include <lathe/batching.h>

enum { CLASSES = 4, MAX_FAULTS = 16, VICTIMS = 10, TEXTS = 8, TEXT_TOKENS = 600 };

static const char *const routers[] = { "round_robin", "least_loaded", "p2c", "random", "central:places=3", "prefix", "split" };

/* Sizes so small that the pool is always short: some 6 requests of a mean length fill it. */
static struct world_params draw_world(struct draw *d, const struct policy_case *of)
{
    static const uint32_t tokens[] = { 64, 256, 512 }, requests[] = { 4, 8, 16 }, most[] = { 6, 12, 12, 48, 48, 1500 }; /* of many the schedulers rank the head */
    return (struct world_params){
        .of = of,
        .replicas = 1 + draw_below(d, 3),
        .max_requests = most[draw_below(d, 6)],
        .batch_tokens = tokens[draw_below(d, 3)],
        .batch_requests = requests[draw_below(d, 3)],
        .context_tokens = 512,
        .router = routers[draw_below(d, sizeof routers / sizeof *routers)],
        .step_us = 500 + 1500 * draw_unit(d),
        .cancels = draw_below(d, 2) ? 0.05 * draw_unit(d) : 0,
    };
}

static void draw_classes(struct draw *d, struct workload_class *classes)
{
    static const char *const names[CLASSES] = { "chat", "batch", "agent", "huge" }, *const tenants[CLASSES] = { "a", "b", "a", "c" };
    for (int i = 0; i < CLASSES; i++) {
        classes[i] = (struct workload_class){
            .name = names[i], .tenant = tenants[i], .share = 1 + draw_unit(d),
            .prompt = { .kind = WORKLOAD_UNIFORM, .a = 1, .b = 5 + draw_below(d, 100) },
            .output = { .kind = WORKLOAD_UNIFORM, .a = 1, .b = 1 + draw_below(d, 40) },
            .prediction = (int)draw_below(d, 4), .noise = 0.5, .priority = (int32_t)draw_below(d, 5) - 2,
            .weight = 250 + draw_below(d, 2000),
        };
        if (draw_below(d, 2))
            classes[i].slo_ttft_ns = 50000000, classes[i].slo_tpot_ns = 5000000;
        if (draw_below(d, 4) == 0)
            classes[i].deadline_ns = 1000000 + (int64_t)draw_below(d, 20000) * 1000000;
    }
    classes[3].share = 0.02; /* some beyond the pool, some beyond the context */
    classes[3].prompt = (struct workload_length){ .kind = WORKLOAD_UNIFORM, .a = 100, .b = 540 };
    classes[3].output = (struct workload_length){ .kind = WORKLOAD_UNIFORM, .a = 1, .b = 100 };
}

/* As much as can be done, about; where the engine takes all that wait, less, since some schedulers look at all. */
static int draw_workload(struct draw *d, const struct policy_case *of, const struct world_params *world, double *horizon_s,
                         uint32_t *concurrency, struct workload **workload, struct lathe_error *err)
{
    static const int arrivals[] = { WORKLOAD_POISSON, WORKLOAD_GAMMA, WORKLOAD_MMPP, WORKLOAD_BURST, WORKLOAD_CLOSED };
    struct workload_class classes[CLASSES];
    draw_classes(d, classes);
    struct workload_params params = {
        .requests = of->requests, .seed_arrivals = of->seed, .seed_prompts = of->seed + 1, .seed_outputs = of->seed + 2,
        .seed_classes = of->seed + 3, .seed_predictions = of->seed + 4,
        .arrivals = arrivals[draw_below(d, sizeof arrivals / sizeof *arrivals)], .cv = 3, .states = 2,
        .classes = classes, .class_count = CLASSES,
    };
    params.rate = world->replicas * (50 + 250 * draw_unit(d)) / (world->max_requests > 1024 ? 4 : 1);
    params.rates[0] = params.rate / 4, params.rates[1] = 2 * params.rate;
    params.stays_s[0] = 1, params.stays_s[1] = 0.5;
    params.size = 2 + draw_below(d, 60);
    params.every_s = params.size / params.rate;
    *concurrency = params.arrivals == WORKLOAD_CLOSED ? 1 + draw_below(d, 40) : 0;
    *horizon_s = of->requests / params.rate;
    return workload_open(&params, workload, err);
}

/* At times that arrivals and other faults have too: milliseconds. */
static size_t draw_faults(struct draw *d, uint32_t replicas, double horizon_s, struct simulated_fault *faults)
{
    size_t count = draw_below(d, 3) ? draw_below(d, MAX_FAULTS) : 0;
    for (size_t i = 0; i < count; i++)
        faults[i] = (struct simulated_fault){
            .at_ns = (int64_t)draw_below(d, (uint32_t)(1000 * horizon_s) + 1) * 1000000,
            .for_ns = (int64_t)draw_below(d, 3000) * 1000000,
            .replica = draw_below(d, replicas), .kind = 1 + (int)draw_below(d, 3), .factor = 0.5 + 4 * draw_unit(d),
        };
    for (size_t i = 1; i < count; i++)
        if (draw_below(d, 3) == 0) /* in the middle of another */
            faults[i].replica = faults[i - 1].replica, faults[i].at_ns = faults[i - 1].at_ns + faults[i - 1].for_ns / 2;
    return count;
}

/* Texts that begin alike, all of them or some. */
static const int32_t *text_of(uint32_t session)
{
    static int32_t texts[TEXTS][TEXT_TOKENS];
    for (uint32_t text = 0; texts[0][0] == 0 && text < TEXTS; text++)
        for (uint32_t i = 0; i < TEXT_TOKENS; i++)
            texts[TEXTS - 1 - text][i] = (int32_t)(i < 30 ? 1 : i < 60 ? 1 + text % 3 : 1 + text);
    return texts[session % TEXTS];
}

/* The workload as a list, some of it with keys and values that come along; submitted one by one. */
static struct planned_request *as_list(struct draw *d, struct workload *workload, const struct policy_case *of)
{
    const uint32_t count = of->requests;
    struct planned_request *list = calloc(count, sizeof *list);
    struct workload_request w;
    for (uint32_t i = 0; list && i < count && workload_next(workload, &w); i++)
        list[i].submit = (struct engine_submit){
            .token_count = w.prompt_tokens, .forced_output_tokens = w.output_tokens, .planned_ns = w.planned_ns,
            .predicted_output_tokens = w.predicted_output_tokens, .priority = w.priority, .tenant = w.tenant,
            .carried_tokens = draw_below(d, 4) ? 0 : draw_below(d, w.prompt_tokens + 1), .session = draw_below(d, 30),
        };
    for (uint32_t i = 0; list && world_has_tokens(of) && i < count; i++)
        list[i].submit.tokens = text_of((uint32_t)list[i].submit.session);
    return list;
}

static void take_result(const struct world *w, int status, const struct lathe_error *err, struct case_result *result)
{
    struct engine_stats stats;
    deployment_get_stats(w->deployment, &stats);
    result->preemptions = stats.preemptions, result->losses = stats.losses, result->failed = w->figures.failed;
    result->cancelled = w->cancelled, result->late = w->late, result->not_taken = w->figures.refused;
    if (status != LATHE_OK)
        snprintf(result->error, sizeof result->error, "%s", err->message);
}

void case_run(struct registry *registry, const struct policy_case *of, struct case_result *result)
{
    struct draw draw = { of->seed, 0 };
    struct simulated_fault faults[MAX_FAULTS];
    struct workload *workload = NULL;
    struct planned_request *list = NULL;
    struct lathe_error err = { 0 };
    struct world world;
    uint32_t concurrency;
    double horizon_s;

    memset(result, 0, sizeof *result);
    struct world_params params = draw_world(&draw, of);
    int status = world_open(&world, registry, &params, &err);
    if (status != LATHE_OK) {
        result->refused = status == LATHE_EUNSUPPORTED;
        snprintf(result->error, sizeof result->error, "%s", err.message);
        world_close(&world);
        return;
    }
    status = draw_workload(&draw, of, &params, &horizon_s, &concurrency, &workload, &err);
    if (status == LATHE_OK) {
        size_t count = draw_faults(&draw, params.replicas, horizon_s, faults);
        struct simulate_params simulating = { .workload = workload, .faults = faults, .fault_count = count,
                                              .concurrency = concurrency, .think_ns = concurrency ? 1000000 : 0 };
        if (draw_below(&draw, 2) && (list = as_list(&draw, workload, of)))
            simulating.workload = NULL, simulating.requests = list, simulating.count = of->requests;
        status = world_run(&world, &simulating, &err);
    }
    if (status == LATHE_OK)
        status = world_check(&world, &err);
    take_result(&world, status, &err, result);
    free(list);
    workload_close(workload);
    world_close(&world);
}

/* ── starving ───────────────────────────────────────────────────────────────────────── */

static int promises_no_starvation(const struct world *w)
{
    const struct lathe_scheduler_api *scheduler = w->parts.scheduler->api;
    const struct lathe_batching_api *batching = w->parts.batching->api;
    uint32_t both = scheduler->promises ? scheduler->promises(w->parts.scheduler->self) : 0;
    both &= batching->promises ? batching->promises(w->parts.batching->self) : 0;
    return (both & LATHE_PROMISE_NO_STARVATION) != 0;
}

/* Users who come again at once: there is always more to do than can be done. Ten of them come early with much. */
void case_starve(struct registry *registry, const struct policy_case *of, struct case_result *result, int *starved, int *promised)
{
    const uint32_t users = 40;
    struct world_params params = { .of = of, .replicas = 1, .max_requests = users, .batch_tokens = 64, .batch_requests = 4,
                                   .context_tokens = 256, .router = "round_robin", .step_us = 10000 };
    struct planned_request *requests = calloc(of->requests, sizeof *requests);
    struct simulate_params simulating = { .requests = requests, .count = of->requests, .concurrency = users };
    struct lathe_error err = { 0 };
    struct world world;

    memset(result, 0, sizeof *result);
    *starved = *promised = 0;
    for (uint32_t i = 0; requests && i < of->requests; i++) {
        int victim = i >= VICTIMS && i < 2 * VICTIMS;
        requests[i].submit = (struct engine_submit){
            .token_count = victim ? 90 : 4, .forced_output_tokens = victim ? 40 : 2, .predicted_output_tokens = victim ? 40 : 2,
            .priority = victim ? -1 : 1, .tenant = victim ? "greedy" : "modest", .deadline_ns = victim ? 0 : INT64_MAX - 1,
        };
    }
    int status = world_open(&world, registry, &params, &err);
    if (status == LATHE_OK)
        *promised = promises_no_starvation(&world);
    if (status == LATHE_OK && (status = world_run(&world, &simulating, &err)) == LATHE_OK &&
        (status = world_check(&world, &err)) == LATHE_OK)
        for (uint32_t i = VICTIMS; i < 2 * VICTIMS; i++)
            *starved |= world.order[i] >= of->requests - users;
    if (status != LATHE_OK)
        snprintf(result->error, sizeof result->error, "%s", err.message);
    world_close(&world);
    free(requests);
}

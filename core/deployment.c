/* SPDX-License-Identifier: MIT */
#include "deployment.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"
#include <lathe/router.h>

enum { MAX_TENANTS = 256 };

struct replica {
    struct engine *engine;
    struct engine_parts parts;
    bool owned; /* the parts are ours to close */
    int64_t until_ns;
};

/* Replicas that a router chooses among: all there are, or those that prefill and those that decode. */
enum { POOL_FIRST, POOL_CARRIED, POOLS };

struct deployment {
    struct deployment_params params;
    struct bus_watch watch;
    struct engine_numbers numbers;
    const struct lathe_bus_api *bus;
    void *bus_self;
    struct instance *routers[POOLS]; /* made when there is something to choose */
    struct producer *producer;     /* shared by all replicas of a simulation: one thread drives them */
    struct replica *replicas;      /* (max) */
    struct lathe_replica *views;   /* what the router sees; (max) */
    uint32_t max;
    uint32_t count;  /* of them open */
    uint32_t wanted; /* of them that take requests; the rest are draining */
    uint64_t seen; /* of the bus's completions */
    char tenants[MAX_TENANTS][64]; /* numbered for the router; 0 is "" */
    uint32_t tenant_count;
};

/* ── Replicas ───────────────────────────────────────────────────────────────────────── */

static int pool_of(const struct deployment *d, uint32_t replica)
{
    return d->params.prefill > 0 && replica >= d->params.prefill ? POOL_CARRIED : POOL_FIRST;
}

static uint32_t pool_begin(const struct deployment *d, int pool) { return pool == POOL_CARRIED ? d->params.prefill : 0; }

static uint32_t pool_count(const struct deployment *d, int pool)
{
    uint32_t end = pool == POOL_FIRST && d->params.prefill > 0 && d->params.prefill < d->count ? d->params.prefill : d->count;
    return end - pool_begin(d, pool);
}

static int make_router(struct deployment *d, struct instance **router, struct lathe_error *err)
{
    struct lathe_router_limits limits = { .size = sizeof limits, .max_replicas = d->max,
                                          .seed = d->params.engine.seed };
    if (*router)
        return LATHE_OK;
    int status = stage_create(d->params.registry, LATHE_KIND_ROUTER, &d->params.stages[LATHE_KIND_ROUTER], router, err);
    if (status != LATHE_OK)
        return status;
    instance_attach(*router, d->params.engine.clock, NULL);
    status = ((const struct lathe_router_api *)(*router)->api)->bind((*router)->self, &limits, err);
    if (status != LATHE_OK) { /* or the next attempt would find it and not bind it */
        instance_destroy(*router);
        *router = NULL;
    }
    return status;
}

void deployment_refresh(struct deployment *d, uint32_t replica)
{
    struct lathe_replica *view = &d->views[replica];
    struct engine_load load;
    engine_get_load(d->replicas[replica].engine, &load);
    view->waiting = load.waiting, view->running = load.running, view->pending_tokens = load.pending_tokens;
    view->blocks_used = load.blocks_used, view->blocks_total = load.blocks_total;
}

void deployment_set_ready(struct deployment *d, uint32_t replica, int ready)
{
    d->views[replica].ready = ready;
}

/* For its router it ended there. */
static void tell_router(struct deployment *d, const struct lathe_request *request, uint32_t replica)
{
    int pool = pool_of(d, replica);
    const struct instance *router = d->routers[pool];
    const struct lathe_router_api *api = router ? router->api : NULL;
    if (api && api->finished)
        api->finished(router->self, request, replica - pool_begin(d, pool));
}

static void on_ended(void *user, const struct engine_ended *ended)
{
    struct deployment *d = user;
    tell_router(d, ended->request, ended->replica);
    if (d->params.ended)
        d->params.ended(d->params.user, ended);
}

/* Sampler, kvcache, scheduler and batching of its own; the rest is replica 0's. */
static int make_parts(struct deployment *d, struct replica *r, struct lathe_error *err)
{
    struct engine_parts parts = d->params.engine.parts;
    int status = parts_open_replica(d->params.registry, d->params.stages, &parts, err);
    if (status == LATHE_OK)
        r->parts = parts, r->owned = true;
    return status;
}

/* The group that a replica belongs to, and whether it is the first of it; NULL: there are none. */
static const struct deployment_group *group_of(const struct deployment *d, uint32_t replica, bool *first)
{
    const struct deployment_params *p = &d->params;
    uint32_t from = 0, i = 0;
    *first = replica == 0;
    if (p->group_count == 0)
        return NULL;
    while (i + 1 < p->group_count && replica >= from + p->groups[i].replicas)
        from += p->groups[i++].replicas;
    *first = replica == from;
    return &p->groups[i];
}

static int add_replica(struct deployment *d, struct lathe_error *err)
{
    bool first;
    const struct deployment_group *group = group_of(d, d->count, &first);
    struct replica *r = &d->replicas[d->count];
    struct engine_params params = d->params.engine;
    int status;

    if (d->count == d->max)
        return lathe_fail(err, LATHE_ERANGE, "%u replicas are the most that this deployment has", d->max);
    memset(r, 0, sizeof *r);
    r->parts = params.parts;
    if (d->count > 0) {
        if (!d->params.registry)
            return lathe_fail(err, LATHE_EUNSUPPORTED, "this engine was opened for one replica only");
        if ((status = make_router(d, &d->routers[pool_of(d, d->count)], err)) != LATHE_OK ||
            (status = make_parts(d, r, err)) != LATHE_OK)
            return status;
    }
    if (group)
        r->parts.model = group->model;
    params.parts = r->parts;
    params.attach_model = group && first;
    params.replica = d->count;
    params.watch = &d->watch;
    params.numbers = &d->numbers;
    params.producer = d->producer;
    params.ended = on_ended;
    params.user = d;
    status = engine_open(&params, &r->engine, err);
    if (status != LATHE_OK) {
        if (r->owned)
            parts_close_replica(&r->parts);
        return status;
    }
    d->views[d->count] = (struct lathe_replica){ .id = d->count - pool_begin(d, pool_of(d, d->count)),
                                                 .model = group ? (uint32_t)(group - d->params.groups) : 0,
                                                 .weight = group ? group->weight : 1000, .ready = 1 };
    deployment_refresh(d, d->count++);
    return LATHE_OK;
}

static void drop_replica(struct deployment *d)
{
    struct replica *r = &d->replicas[--d->count];
    engine_close(r->engine);
    if (r->owned)
        parts_close_replica(&r->parts);
}

int deployment_open(const struct deployment_params *params, struct deployment **deployment, struct lathe_error *err)
{
    struct deployment *d = calloc(1, sizeof *d);
    struct producer *producer = NULL;
    uint32_t replicas = params->replicas ? params->replicas : 1;
    int status = LATHE_OK;

    if (!d)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a deployment");
    d->params = *params;
    d->bus = params->engine.parts.bus->api;
    d->bus_self = params->engine.parts.bus->self;
    bool simulated = params->engine.clock->kind == CLOCK_KIND_VIRTUAL;
    d->max = simulated ? DEPLOYMENT_MAX_SIMULATED : DEPLOYMENT_MAX_REPLICAS;
    d->tenant_count = 1;
    d->replicas = calloc(d->max, sizeof *d->replicas);
    d->views = calloc(d->max, sizeof *d->views);
    if (!d->replicas || !d->views)
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for a deployment of up to %u replicas", d->max);
    else if (params->engine.run)
        status = recorder_producer(params->engine.run, &producer, err);
    if (status != LATHE_OK) {
        free(d->replicas);
        free(d->views);
        free(d);
        return status;
    }
    d->producer = simulated ? producer : NULL;
    instance_attach(params->engine.parts.bus, params->engine.clock, producer); /* workers' first rows have times */
    bus_watch_open(&d->watch, params->engine.parts.bus, params->engine.clock, producer, params->hops);
    if (simulated)
        host_pack(1);
    while (status == LATHE_OK && d->count < replicas)
        status = add_replica(d, err);
    if (simulated)
        host_pack(0);
    d->wanted = d->count;
    if (status != LATHE_OK) {
        deployment_close(d);
        return status;
    }
    *deployment = d;
    return LATHE_OK;
}

void deployment_close(struct deployment *d)
{
    if (!d)
        return;
    while (d->count > 0)
        drop_replica(d);
    bus_watch_close(&d->watch);
    instance_attach(d->params.engine.parts.bus, NULL, NULL);
    for (int pool = 0; pool < POOLS; pool++)
        instance_destroy(d->routers[pool]);
    free(d->replicas);
    free(d->views);
    free(d);
}

/* ── Requests ───────────────────────────────────────────────────────────────────────── */

static uint32_t tenant_number(struct deployment *d, const char *name)
{
    if (!name || !*name)
        return 0;
    for (uint32_t i = 1; i < d->tenant_count; i++)
        if (strcmp(d->tenants[i], name) == 0)
            return i;
    if (d->tenant_count == MAX_TENANTS || strlen(name) >= sizeof d->tenants[0])
        return MAX_TENANTS; /* the engine refuses it, or calls them all alike */
    memcpy(d->tenants[d->tenant_count], name, strlen(name) + 1);
    return d->tenant_count++;
}

/* As the router sees it: no engine knows it yet. */
static struct lathe_request described(struct deployment *d, const struct engine_submit *submit)
{
    return (struct lathe_request){
        .size = sizeof(struct lathe_request), .id = d->numbers.request + 1, .session = submit->session,
        .correlation = submit->correlation_id && *submit->correlation_id ? engine_correlation(submit->correlation_id) : 0,
        .priority = submit->priority, .tenant = tenant_number(d, submit->tenant), .planned_ns = submit->planned_ns,
        .weight = submit->weight, .prompt_tokens = (uint32_t)(submit->text ? submit->text_bytes : submit->token_count),
        .predicted_output_tokens = submit->predicted_output_tokens, .tokens = submit->tokens,
    };
}

static int pool_for(const struct deployment *d, const struct engine_submit *submit)
{
    return d->params.prefill > 0 && submit->carried_tokens > 0 ? POOL_CARRIED : POOL_FIRST;
}

int deployment_choose(struct deployment *d, const struct engine_submit *submit, uint32_t *choice, struct lathe_error *err)
{
    const int pool = pool_for(d, submit);
    const uint32_t begin = pool_begin(d, pool), count = pool_count(d, pool);
    if (count == 1) {
        *choice = d->views[begin].ready ? begin : LATHE_ROUTER_HOLD;
        return LATHE_OK;
    }
    struct lathe_request req = described(d, submit);
    const struct instance *router = d->routers[pool];
    const struct lathe_router_api *api = router->api;
    int status = api->route(router->self, &req, d->views + begin, count, choice, err);
    if (status != LATHE_OK || *choice == LATHE_ROUTER_HOLD)
        return status;
    if (*choice >= count)
        return lathe_fail(err, LATHE_EINTERNAL, "router/%s chose replica %u of %u", router->plugin->name, *choice, count);
    *choice += begin;
    return LATHE_OK;
}

void deployment_not_taken(struct deployment *d, const struct engine_submit *submit, uint32_t choice)
{
    struct lathe_request req = described(d, submit);
    tell_router(d, &req, choice);
}

int deployment_submit(struct deployment *d, const struct engine_submit *submit, struct deployment_request *request,
                      struct lathe_error *err)
{
    uint32_t choice = 0;
    for (uint32_t i = 0; d->count > 1 && i < d->count; i++) /* readers may have ended some meanwhile */
        deployment_refresh(d, i);
    int status = deployment_choose(d, submit, &choice, err);
    if (status != LATHE_OK)
        return status;
    if (choice == LATHE_ROUTER_HOLD)
        return lathe_fail(err, LATHE_EFULL, "router/%s holds the request back until another one has ended",
                          d->routers[POOL_FIRST] ? d->routers[POOL_FIRST]->plugin->name : "none");
    request->replica = choice;
    status = engine_submit(d->replicas[choice].engine, submit, &request->id, err);
    if (status != LATHE_OK)
        deployment_not_taken(d, submit, choice);
    return status;
}

int deployment_read(struct deployment *d, struct deployment_request request, struct lathe_output *output,
                    struct lathe_error *err)
{
    if (request.replica >= d->count)
        return lathe_fail(err, LATHE_ENOTFOUND, "there is no replica %u any more", request.replica);
    return engine_read(d->replicas[request.replica].engine, request.id, output, err);
}

void deployment_cancel(struct deployment *d, struct deployment_request request)
{
    if (request.replica < d->count)
        engine_cancel(d->replicas[request.replica].engine, request.id);
}

const char *deployment_request_error(const struct deployment *d, struct deployment_request request)
{
    return request.replica < d->count ? engine_request_error(d->replicas[request.replica].engine, request.id) : "";
}

/* ── Scaling ────────────────────────────────────────────────────────────────────────── */

/* Only the last can go: a replica's number is its place. */
static void close_drained(struct deployment *d)
{
    while (d->count > d->wanted && engine_is_empty(d->replicas[d->count - 1].engine)) {
        char detail[64];
        snprintf(detail, sizeof detail, "replica %u has served what it had", d->count - 1);
        drop_replica(d);
        bus_watch_tell(&d->watch, "model", 0, "drained", detail);
    }
}

static int scale_model(struct deployment *d, uint32_t count, struct lathe_error *err)
{
    int status = LATHE_OK;
    while (status == LATHE_OK && d->count < count)
        status = add_replica(d, err);
    if (status == LATHE_OK)
        d->wanted = count; /* who was draining and is wanted again simply goes on */
    else
        d->wanted = d->count;
    for (uint32_t i = 0; i < d->count; i++)
        d->views[i].ready = i < d->wanted;
    close_drained(d);
    return status;
}

int deployment_scale(struct deployment *d, const char *service, uint32_t count, struct lathe_error *err)
{
    bool model = strcmp(service, "model") == 0;
    uint32_t before = d->wanted;
    char detail[96];
    int status;

    if (count < 1 || count > d->max)
        return lathe_fail(err, LATHE_ERANGE, "a service can be scaled to 1 … %u, not to %u", d->max, count);
    if (model) {
        status = scale_model(d, count, err);
    } else {
        struct lathe_service_health health = { .size = sizeof health };
        if ((status = d->bus->health(d->bus_self, service, &health, err)) != LATHE_OK)
            return status;
        before = health.workers_wanted;
        status = d->bus->scale(d->bus_self, service, count, err);
    }
    if (status == LATHE_OK) {
        snprintf(detail, sizeof detail, "from %u to %u %s", before, count, model ? "replicas" : "workers");
        bus_watch_tell(&d->watch, service, 0, "scaled", detail);
        bus_watch_drain(&d->watch);
    }
    return status;
}

int deployment_swap_bus(struct deployment *d, struct instance *next, struct lathe_error *err)
{
    char detail[96];
    int status = LATHE_OK;

    for (uint32_t i = 0; i < d->count; i++)
        if (engine_is_started(d->replicas[i].engine))
            return lathe_fail(err, LATHE_ESTATE, "replica %u has a step under way: take a turn, then swap the bus", i);
    for (uint32_t i = d->count; i-- > 0 && status == LATHE_OK;) /* the first brought what all share */
        status = engine_leave_bus(d->replicas[i].engine, err);
    if (status != LATHE_OK)
        return status;
    snprintf(detail, sizeof detail, "from %s to %s", d->params.engine.parts.bus->plugin->name, next->plugin->name);
    struct instance *back = d->params.engine.parts.bus;
    for (uint32_t i = 0; i < d->count && status == LATHE_OK; i++)
        status = engine_join_bus(d->replicas[i].engine, next, err);
    if (status != LATHE_OK) { /* as it was */
        struct lathe_error ignored;
        for (uint32_t i = d->count; i-- > 0;)
            engine_leave_bus(d->replicas[i].engine, &ignored);
        for (uint32_t i = 0; i < d->count; i++)
            engine_join_bus(d->replicas[i].engine, back, &ignored);
        return status;
    }
    bus_watch_move(&d->watch, next);
    if (back != next)
        instance_attach(back, NULL, NULL); /* it may outlive this clock and these rings */
    d->params.engine.parts.bus = next;
    d->bus = next->api;
    d->bus_self = next->self;
    d->seen = 0;
    bus_watch_tell(&d->watch, "bus", 0, "swapped", detail);
    bus_watch_drain(&d->watch);
    return LATHE_OK;
}

/* ── Turning ────────────────────────────────────────────────────────────────────────── */

/* Sleep until a forward is done; a moment at most when an idle replica may wake meanwhile. */
static void wait_for_any(struct deployment *d, int64_t wake_ns)
{
    const int64_t moment_ns = 50 * 1000000;
    int64_t left = moment_ns, now = clock_now(d->params.engine.clock);
    for (uint32_t i = 0; i < d->count; i++) {
        int64_t next = engine_is_started(d->replicas[i].engine) ? engine_due(d->replicas[i].engine) : d->replicas[i].until_ns;
        wake_ns = next < wake_ns ? next : wake_ns;
    }
    if (wake_ns - now < left)
        left = wake_ns > now ? wake_ns - now : 0;
    d->bus->poll(d->bus_self, &d->seen, left);
}

int deployment_turn(struct deployment *d, int64_t wake_ns, int *state, int64_t *until_ns, struct lathe_error *err)
{
    struct clock *clock = d->params.engine.clock;
    uint32_t started = 0, finished = 0;
    int status;

    *state = ENGINE_IDLE;
    *until_ns = INT64_MAX;
    close_drained(d);
    if (d->count == 1 && !engine_is_started(d->replicas[0].engine)) /* nobody to overlap with */
        return engine_step(d->replicas[0].engine, state, until_ns, err);

    for (uint32_t i = 0; i < d->count; i++) {
        struct replica *r = &d->replicas[i];
        int own = ENGINE_STARTED;
        if (!engine_is_started(r->engine) &&
            (status = engine_begin(r->engine, clock_now(clock), &own, &r->until_ns, err)) != LATHE_OK)
            return status;
        started += own == ENGINE_STARTED;
        if (own == ENGINE_IDLE && r->until_ns < *until_ns)
            *until_ns = r->until_ns;
    }
    if (!started)
        return LATHE_OK;
    *state = ENGINE_STARTED;
    for (;;) {
        for (uint32_t i = 0; i < d->count; i++) {
            struct replica *r = &d->replicas[i];
            if (!engine_is_started(r->engine) || !engine_ready(r->engine))
                continue;
            if ((status = engine_finish(r->engine, clock_now(clock), err)) != LATHE_OK)
                return status;
            finished++;
        }
        if (finished || clock_now(clock) >= wake_ns)
            return LATHE_OK;
        wait_for_any(d, wake_ns);
    }
}

/* ── Looking ────────────────────────────────────────────────────────────────────────── */

uint32_t deployment_replicas(const struct deployment *d)
{
    return d->wanted;
}

struct engine *deployment_engine(struct deployment *d, uint32_t replica)
{
    return replica < d->count ? d->replicas[replica].engine : NULL;
}

const struct lathe_bus_api *deployment_bus(const struct deployment *d, void **self)
{
    *self = d->bus_self;
    return d->bus;
}

void deployment_get_stats(const struct deployment *d, struct engine_stats *sum)
{
    memset(sum, 0, sizeof *sum);
    for (uint32_t i = 0; i < d->count; i++) {
        struct engine_stats one;
        engine_get_stats(d->replicas[i].engine, &one);
        sum->waiting += one.waiting, sum->running += one.running, sum->live += one.live;
        sum->steps += one.steps, sum->finished += one.finished, sum->failed += one.failed;
        sum->preemptions += one.preemptions, sum->losses += one.losses, sum->refused += one.refused;
        sum->pending_tokens += one.pending_tokens;
        sum->prompt_tokens += one.prompt_tokens, sum->output_tokens += one.output_tokens;
        sum->kv.total += one.kv.total, sum->kv.used += one.kv.used;
        sum->kv.cached += one.kv.cached, sum->kv.shared += one.kv.shared;
        sum->degraded = one.degraded > sum->degraded ? one.degraded : sum->degraded;
    }
}

/* SPDX-License-Identifier: MIT */
/* A deployment: replicas of one model behind a router, on one bus, driven by one thread.
 *
 *     submit ─▶ router ─▶ replica 0: engine ┐
 *                         replica 1: engine ├─ bus ─ workers (threads, processes, or this thread)
 *                         …                 ┘
 *
 * They may be of several models (or versions, or machines): groups of replicas, each with a model and
 * a weight that the router sees; one tokenizer serves all.
 *
 * Each replica is an engine with a KV pool, scheduler, batching, kvcache and sampler of its own;
 * tokenizer, weights and bus are shared. `turn` begins a step on every replica that has none
 * under way and finishes those whose forward is done: with a bus that has workers the forwards
 * run at the same time, with one that has none they run in turn, and nothing else changes.
 *
 * A request is named by its run-wide id and its replica. All calls are [engine]: one thread at
 * a time. */
#ifndef CORE_DEPLOYMENT_H
#define CORE_DEPLOYMENT_H

#include "engine.h"
#include "stages.h"

struct deployment;

enum { DEPLOYMENT_MAX_REPLICAS = 64, DEPLOYMENT_MAX_SIMULATED = 65536 }; /* with a real clock; with a virtual one */

struct deployment_group {
    struct instance *model; /* borrowed */
    uint32_t replicas, weight; /* weight: of each of them, for the router, in thousandths */
};

struct deployment_params {
    struct engine_params engine; /* of every replica; parts are replica 0's and stay the caller's.
                                    `run` may be NULL; `watch`, `numbers` are filled in */
    uint32_t replicas;           /* 0: 1 */
    uint32_t prefill;            /* > 0: the first so many of them are a pool of their own, with a router of its own:
                                    requests without carried tokens go there, the others to the rest (simulate_split.h) */
    const struct deployment_group *groups; /* in the order of the replicas; those beyond are of the last */
    uint32_t group_count;        /* 0: all replicas are of parts.model */
    bool hops;                   /* a row for each call of a service */
    /* What more replicas are made with; NULL: replica 0 is the only one there can be. */
    struct registry *registry;
    const struct stage *stages;  /* by kind, as for parts_open; also the router's */
    /* As the engine's `ended`, once the router knows. */
    void (*ended)(void *user, const struct engine_ended *ended);
    void *user;
};

int deployment_open(const struct deployment_params *params, struct deployment **deployment, struct lathe_error *err);
void deployment_close(struct deployment *deployment); /* NULL is ignored */

struct deployment_request {
    uint64_t id;
    uint32_t replica;
};

/* As the engine's, after the router's choice. LATHE_EFULL too if the router holds it back: ask again
 * when something ended. */
int deployment_submit(struct deployment *deployment, const struct engine_submit *submit,
                      struct deployment_request *request, struct lathe_error *err);
int deployment_read(struct deployment *deployment, struct deployment_request request, struct lathe_output *output,
                    struct lathe_error *err);
void deployment_cancel(struct deployment *deployment, struct deployment_request request);
const char *deployment_request_error(const struct deployment *deployment, struct deployment_request request);

/* One round over the replicas. *state is ENGINE_STARTED if any step was finished or is under way.
 * While steps are under way elsewhere it sleeps until one is done or the clock says wake_ns;
 * idle, it returns at once with *until_ns as engine_begin does. */
int deployment_turn(struct deployment *deployment, int64_t wake_ns, int *state, int64_t *until_ns,
                    struct lathe_error *err);

/* More or fewer. Of "model": replicas are opened at once; surplus ones take no new requests, serve
 * what they have, and are closed by a later turn when the last piece of it was read. Of another
 * service: its workers on the bus. A row of service_event says so. */
int deployment_scale(struct deployment *deployment, const char *service, uint32_t count, struct lathe_error *err);
uint32_t deployment_replicas(const struct deployment *deployment); /* that take requests */

/* All services onto another bus, between steps (LATHE_ESTATE: some step is under way, take a turn and
 * ask again). Both buses stay the caller's and must outlive the deployment. A row says so. */
int deployment_swap_bus(struct deployment *deployment, struct instance *next, struct lathe_error *err);

/* Sums over the replicas; `degraded` is the worst of them. */
void deployment_get_stats(const struct deployment *deployment, struct engine_stats *stats);
/* ── For whoever drives the replicas one by one (simulate.h) ── */

/* Its pool's router's choice, or LATHE_ROUTER_HOLD. [engine] */
int deployment_choose(struct deployment *deployment, const struct engine_submit *submit, uint32_t *choice,
                      struct lathe_error *err);
/* The replica that was chosen refused it: for the router it ended there. [engine] */
void deployment_not_taken(struct deployment *deployment, const struct engine_submit *submit, uint32_t choice);
/* What the router sees of it is brought up to date; after each begin, finish and submit. [engine] */
void deployment_refresh(struct deployment *deployment, uint32_t replica);
/* Whether it takes new requests. [engine] */
void deployment_set_ready(struct deployment *deployment, uint32_t replica, int ready);

/* Of one: 0 … deployment_replicas − 1. */
struct engine *deployment_engine(struct deployment *deployment, uint32_t replica);
const struct lathe_bus_api *deployment_bus(const struct deployment *deployment, void **self);

#endif

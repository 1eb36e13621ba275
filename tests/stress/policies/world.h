/* SPDX-License-Identifier: MIT */
/* What a case runs in: a simulated model behind replicas and a router, and a book of ends. */
#ifndef TESTS_POLICIES_WORLD_H
#define TESTS_POLICIES_WORLD_H

#include <string.h>

#include "case.h"
#include "simulate.h"

/* Drawn by seed and purpose, one after the other. */
struct draw {
    uint64_t seed;
    uint32_t count;
};
uint32_t draw_below(struct draw *draw, uint32_t below);
double draw_unit(struct draw *draw);

struct world_params {
    const struct policy_case *of;
    uint32_t replicas, max_requests, batch_tokens, batch_requests, context_tokens;
    const char *router;
    double step_us;
    double cancels;       /* after an end, one in so many is followed by a cancel of another request */
};

struct world {
    struct registry *registry;
    struct world_params params;
    struct loaded_model model;
    struct stage stages[LATHE_KIND_FRONTEND + 1];
    struct engine_parts parts;
    struct clock clock;
    struct simulation *simulation;
    struct deployment *deployment;
    struct figures figures;
    struct draw cancels;
    uint8_t *ends;        /* by tag: how often it ended */
    uint32_t *order;      /* by tag: as the how manieth it ended */
    uint64_t ended, cancelled, late;
    size_t looks;
    char broken[256];     /* the first thing that an end shows to be wrong; "" */
};

/* A cache that shares prefixes is given tokens, so that there is something to share. */
int world_has_tokens(const struct policy_case *of);
/* 0, or LATHE_… with a sentence. Closed by world_close whatever came. */
int world_open(struct world *world, struct registry *registry, const struct world_params *params, struct lathe_error *err);
/* Fills in what is the world's of `params`, and simulates. */
int world_run(struct world *world, struct simulate_params *params, struct lathe_error *err);
/* What must hold after a run; the sentence of what does not. */
int world_check(struct world *world, struct lathe_error *err);
void world_close(struct world *world);

#endif

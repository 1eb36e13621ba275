/* SPDX-License-Identifier: MIT */
/* An engine in miniature with a real budget, for the conformance of batchings: a pool of blocks
 * with promises, a limit on rows and on slices, requests that prefill, decode, end, vanish, and
 * are preempted as the engine does it. Of a request's tokens only the numbers are known
 * (tokens == NULL), as in a simulation. */
#ifndef TESTS_CONFORMANCE_BATCHING_WORLD_H
#define TESTS_CONFORMANCE_BATCHING_WORLD_H

#include <lathe/batching.h>

#include "../harness.h"

enum { SLOTS = 20, MAX_TOKENS = 48, MAX_SLICES = 6, BLOCK = 8, BLOCKS = 40 };

struct world {
    const struct lathe_batching_api *api;
    void *self;
    uint32_t promises;
    struct dice dice;

    /* what happens in it; 0: not */
    int shuffled;            /* any order, instead of first come first */
    uint32_t refuse_percent; /* of can_reserve's answers are 0 although there is room */
    uint32_t vanish_percent; /* of steps end with somebody cancelled */
    uint32_t hold_percent;   /* of requests are left out of a ranking */
    uint32_t window;         /* most of those that don't run in a ranking, and ranking_wanted */

    struct lathe_request slots[SLOTS];
    uint32_t held[SLOTS];     /* blocks */
    uint32_t asked[SLOTS];    /* positions that can_reserve said 1 to, in this plan */
    uint8_t refused[SLOTS];   /* can_reserve said 0, in this plan */
    uint32_t passed[SLOTS];   /* steps in a row that went by without it although it runs and was ranked */
    uint32_t promised;        /* blocks, in this plan */
    uint32_t refusals, questions; /* in this plan */
    const struct lathe_request *live[SLOTS], *ranked[SLOTS];
    uint32_t live_count;
    uint64_t next_id, ended, vanished, preemptions, padding;
    int64_t now_ns;
    struct lathe_step_view view;
    struct lathe_ranking ranking;
    struct lathe_plan_entry entries[MAX_SLICES + 2];
    struct lathe_plan plan;
};

/* With an instance of the subject's, bound. */
struct world *world_open(struct subject *s, uint64_t seed);
/* The same around an instance that the caller owns. */
struct world *world_around(const struct lathe_batching_api *api, void *self, uint64_t seed);
void world_close(struct world *w); /* destroys the instance */

/* One more request, of random lengths or of these. NULL: all slots are taken. */
struct lathe_request *world_arrive(struct world *w);
struct lathe_request *world_arrive_with(struct world *w, uint32_t prompt, uint32_t output);

/* A view and a ranking. */
void world_rank(struct world *w);
/* Fills, and checks what a plan may be. */
void world_fill(struct world *w);
/* The plan happens: tokens are computed, requests end. A millisecond goes by. */
void world_carry_out(struct world *w);
/* Rank, fill (with victims, as the engine asks for them; windows pass), carry out. */
void world_step(struct world *w);

/* The latest arrived running request gives its room back; 0: none runs. */
int world_preempt(struct world *w);

#endif

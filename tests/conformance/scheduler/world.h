/* SPDX-License-Identifier: MIT */
/* An engine in miniature for the schedulers' conformance: requests live in slots that are used
 * again, the first PLACES of the ranking get tokens, and every ranking is held to what rankings
 * may be and to what the scheduler promised. */
#ifndef TESTS_CONFORMANCE_SCHEDULER_WORLD_H
#define TESTS_CONFORMANCE_SCHEDULER_WORLD_H

#include <lathe/scheduler.h>

#include "../harness.h"

enum { SLOTS = 24, PLACES = 4 };

extern const struct lathe_scheduler_api *api; /* of the subject; set by open_scheduler */

struct world {
    struct lathe_request slots[SLOTS];
    const struct lathe_request *live[SLOTS];
    uint32_t live_count;
    uint64_t next_id, step;
    int64_t now_ns, step_ns;
    uint32_t wanted;       /* the view's ranking_wanted */
    int blind;             /* without cached_prefix */
    uint32_t promised;     /* bits of enum lathe_policy_promise */
    struct lathe_step_view view;
    const struct lathe_request *ranked[SLOTS], *preempt[SLOTS];
    struct lathe_ranking ranking;
};

/* Bound to SLOTS requests and a cache that tells what it holds; its promises are the world's. */
void *open_scheduler(struct subject *s, struct world *w);

/* A request of random shape in a free slot, not admitted; NULL when there is none. */
struct lathe_request *arrive(struct world *w, struct dice *d);

void world_look(struct world *w); /* live ones and the view, as they are now */
void world_rank(struct world *w, void *self);
void world_preempt(struct lathe_request *r);
void world_finish(void *self, struct lathe_request *r);
/* Carries out the ranking: preemptions, then tokens, then the clock. */
void world_step(struct world *w, void *self);
/* Ranks and steps until nobody lives; within `most` steps. */
void world_drain(struct world *w, void *self, int most);

/* promises.c */
void ranks_what_is_wanted_best_first(struct subject *s);
void starves_nobody_if_it_says_so(struct subject *s);
void does_without_cached_prefixes_or_refuses(struct subject *s);

#endif

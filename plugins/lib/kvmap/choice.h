/* SPDX-License-Identifier: MIT */
/* A request that keeps its last positions and a choice of those before, by a score: what h2o (the mass
 * that a key was looked at with) and random (a draw) have in common.
 *
 *     score       .9 .1 .4 .8 .2 .3 | ·  ·  ·        budget = 6, recent = 3
 *     positions    0  1  5  6 11 12 | 40 41 42       goes: 1, the lowest of those before
 *                       chosen          recent
 *
 * When: after the step that stored position p, until at most `budget` positions are kept, p included:
 * of those but the `recent` newest the one with the lowest score, of equal scores the lowest position,
 * and so on. The next row therefore sees those and itself, budget + 1 keys. Within one step of a prompt
 * all its rows see each other; when it is done, one choice brings it down to the budget, with the scores
 * as they are then. recent = recent_share × budget, rounded, at least 1 and at most the budget: the newest
 * position always stays.
 *
 * Scopes: one set of positions a request, a layer, or a KV head of a layer, each with scores of its
 * own. All have as many positions. A block goes back when no set has a position in it: with choices
 * scattered, many blocks are kept for a few positions each, which usage() shows as reserved and not
 * filled. evicted_tokens counts positions of one set.
 *
 * After a truncation every set is brought to the length of the shortest, in the same order; that is not
 * counted as eviction.
 *
 * Cost: a step O(sets × (budget + rows)): scores are added up, then one pass finds the lowest (a
 * quickselect where several go). With a budget of 256, decode, and 30 layers of 3 KV heads that is 0.15 µs a
 * request and step by request, 4 µs by layer, 14 µs by head (paged: 0.01). kept O(1).
 * Memory a request: 8 bytes a set and position of the budget, 4 a block of the table. Scratch for one set
 * of a whole context is shared. */
#ifndef KVMAP_CHOICE_H
#define KVMAP_CHOICE_H

#include "kvmap.h"

/* Options of both, behind KVMAP_BUDGET_OPTIONS. */
enum { KVCHOICE_RECENT_SHARE = KVMAP_BUDGET_COUNT, KVCHOICE_SCOPE, KVCHOICE_COUNT };

#define KVCHOICE_OPTIONS \
    { "recent_share", LATHE_OPTION_NUMBER, "0.5", 0, 1, "", NULL, "Of the budget, the part that the newest positions have." }, \
    { "scope", LATHE_OPTION_CHOICE, "request", 0, 0, "", "request|layer|head", \
      "Who chooses: all layers together, each layer, or each KV head." }

struct kvchoice {
    struct kvmap map;
    double recent_share;
    int32_t scope;       /* enum lathe_kv_scope */
    int draws;           /* 1: scores are drawn, with this seed; 0: they are masses */
    uint64_t seed;
    uint32_t sets, most; /* most: positions a set may keep; 0: nothing is ever evicted */
    uint32_t *counts;    /* by request: positions in each of its sets; (max_requests) */
    int32_t *positions;  /* (max_requests, sets × most); of a request (sets, count), ascending in each */
    float *scores;       /* likewise */
    uint32_t *marks;     /* positions of all sets in a block; (max_requests, table_blocks) */
    /* Of the set that is being worked on. */
    int32_t *set_positions; /* (table_blocks × block_tokens) */
    float *set_scores, *set_order;
};

/* A set of `count` positions, ascending, loses `over`, none of the `recent` last; over ≤ count − recent. What
 * stays moves together; `gone` is called with each that goes. order: room for count. */
void kvchoice_evict(int32_t *positions, float *scores, float *order, uint32_t count, uint32_t over, uint32_t recent,
                    void (*gone)(void *user, int32_t position), void *user);

/* `bytes`: of the instance, which opens with a struct kvchoice. */
int kvchoice_create(const struct lathe_host *host, const struct lathe_config *config, const char *name, size_t bytes,
                    void **self, struct lathe_error *err);
void kvchoice_destroy(void *self);

int kvchoice_layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                    struct lathe_error *err);
int kvchoice_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err);
/* Tells the map too: the step was done, and nobody asks between this and `filled`. */
void kvchoice_observe(void *self, const struct lathe_request *req, const float *mass, uint32_t keys);
void kvchoice_filled(void *self, const struct lathe_request *req, uint32_t tokens);
void kvchoice_kept(void *self, const struct lathe_request *req, const int32_t **positions, uint32_t *count);
void kvchoice_truncate(void *self, const struct lathe_request *req, uint32_t tokens);
int kvchoice_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child,
                  struct lathe_error *err);

#endif

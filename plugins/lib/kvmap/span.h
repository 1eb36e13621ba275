/* SPDX-License-Identifier: MIT */
/* A request that keeps its first positions and its last ones: attention sinks and a window, or a
 * window alone (StreamingLLM, Xiao et al., ICLR 2024).
 *
 *     positions   0 1 2 3 | 4 … 90 | 91 … 154
 *                 first     gone     window         first = 4, budget = 68, from = 91
 *
 * What is gone is one hole, [first, from), and `from` only ever moves on: that is all that is
 * remembered of a request. A block wholly within the hole goes back at once.
 *
 * When: after the step that stored position p, until at most `budget` positions are kept, p
 * included. The next row therefore sees those and itself, budget + 1 keys. Within one step of a
 * prompt all its rows see each other; what is beyond the budget goes when it is done. The newest
 * position always stays, so that a budget of `first` or less still leaves a window of one.
 *
 * After a truncation to a position within the hole only the first positions are left, and what
 * comes then is kept behind them. If there are none, nothing that was is left to look at: kept's
 * count 0 can't say so, and the model refuses the table's holes.
 *
 * Cost: filled O(blocks that go), kept O(budget); memory a request: 4 bytes, and 4 a position
 * of the budget once it was asked for its list. */
#ifndef KVMAP_SPAN_H
#define KVMAP_SPAN_H

#include "kvmap.h"

struct kvspan {
    struct kvmap map;
    uint32_t first;     /* positions that stay at the beginning */
    uint32_t most;      /* entries of a list; 0: nothing is ever evicted */
    uint32_t *from;     /* by request: where its window begins; (max_requests) */
    int32_t *lists;     /* (max_requests, most) */
};

/* `bytes`: of the instance, which opens with a struct kvspan. */
int kvspan_create(const struct lathe_host *host, const struct lathe_config *config, const char *name, size_t bytes,
                  uint32_t first, void **self, struct lathe_error *err);
void kvspan_destroy(void *self);

int kvspan_layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err);
int kvspan_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err);
void kvspan_filled(void *self, const struct lathe_request *req, uint32_t tokens);
void kvspan_kept(void *self, const struct lathe_request *req, const int32_t **positions, uint32_t *count);
void kvspan_truncate(void *self, const struct lathe_request *req, uint32_t tokens);
int kvspan_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child,
                struct lathe_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/* Those that wait, in groups that are each first come, first served; which group goes next is
 * the policy's to say, anew at each ranking.
 *
 * For policies whose order moves with time or service: of a group only the first can be next, so
 * that one number a group, its score, is all that has to be computed.
 *
 *     group 0   ▶ a ▶ d ▶ f   score 7      next: b (3), then the group's score with e as its
 *     group 4   ▶ b ▶ e       score 3      first, against the others'; smaller goes first, equal
 *     group 9   ▶ c           score 8      ones by planned arrival
 *
 * The groups lie one behind the other in a single order whose keys are { group, 0 }. The
 * first of each is kept up with joins and leaves, in O(1); a ranking is O(groups + taken · log groups),
 * counting only groups where somebody waits. A tournament rather than a heap: of the same
 * depth, but without branches that can't be predicted. */
#ifndef POLICY_GROUPS_H
#define POLICY_GROUPS_H

#include "order.h"

struct groups_entry {
    double score;
    int64_t key;           /* the score as an order_number: what is compared */
    int64_t planned_ns, next_planned_ns; /* of its first, and of the one behind */
    uint32_t group, first, next;         /* their indexes in the order */
};

struct groups {
    const struct lathe_host *host;
    const struct order *order;
    uint32_t count, active; /* groups; those where somebody waits */
    uint32_t *first;        /* (count); order_end where nobody does */
    uint32_t *members;      /* the active groups, in no order; (count) */
    uint32_t *place;        /* of an active group among the members; (count) */

    /* A ranking is a tournament of the active groups: leaf i is node entry_count + i, the better of
     * nodes 2n and 2n + 1 stands at n. */
    uint32_t entry_count, left; /* left: that have somebody still */
    struct groups_entry *entries; /* (count) */
    uint32_t *winners;            /* (2 · count) */
};

/* Of a group whose first was planned at that time. */
typedef double groups_score(void *self, uint32_t group, int64_t planned_ns);

/* LATHE_ENOMEM without a sentence when there is no memory. `order` is open, empty, and outlives it. */
int groups_open(struct groups *g, const struct lathe_host *host, const struct order *order, uint32_t count);
void groups_close(struct groups *g); /* zeroed: ignored */

/* `req` has joined the order, or is about to leave it. */
void groups_join(struct groups *g, const struct lathe_request *req);
void groups_leave(struct groups *g, const struct lathe_request *req);

/* A ranking: begin, then while groups_next gives a request, groups_pass goes on behind it. */
void groups_begin(struct groups *g, groups_score *score, void *self);
void groups_pass(struct groups *g, groups_score *score, void *self);

static inline const struct groups_entry *groups_next(const struct groups *g)
{
    return g->left ? &g->entries[g->winners[1]] : NULL;
}

static inline const struct lathe_request *groups_first(const struct groups *g, uint32_t group)
{
    return g->order->links[g->first[group]].req;
}

#endif

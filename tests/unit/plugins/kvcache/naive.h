/* SPDX-License-Identifier: MIT */
/* A set of kept positions as its definition says, one eviction after the other. For tests. */
#ifndef TESTS_KVCACHE_NAIVE_H
#define TESTS_KVCACHE_NAIVE_H

#include "fixture.h"

struct naive {
    uint32_t count;
    int32_t positions[CACHE_CONTEXT];
    float scores[CACHE_CONTEXT];
};

static inline void naive_add(struct naive *n, int32_t position, float score)
{
    n->positions[n->count] = position;
    n->scores[n->count++] = score;
}

/* While there are more than the budget: of all but the recent last, the lowest score goes, of equal ones the
 * lowest position. */
static inline void naive_evict(struct naive *n, uint32_t budget, uint32_t recent)
{
    while (n->count > budget) {
        uint32_t at = 0;
        for (uint32_t i = 1; i < n->count - recent; i++)
            if (n->scores[i] < n->scores[at])
                at = i;
        for (uint32_t i = at; i + 1 < n->count; i++)
            n->positions[i] = n->positions[i + 1], n->scores[i] = n->scores[i + 1];
        n->count--;
    }
}

static inline void naive_equals(const struct naive *sets, uint32_t set_count, struct cache *c, const struct lathe_request *req,
                                uint32_t tokens)
{
    const int32_t *list;
    uint32_t count;
    c->api->kept(c->self, req, &list, &count);
    assert_int_equal(count, sets->count == tokens ? 0 : sets->count);
    for (uint32_t s = 0; s < set_count && count; s++)
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(list[s * count + i], sets[s].positions[i]);
}

#endif

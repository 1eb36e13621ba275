/* SPDX-License-Identifier: MIT */
/* See latency.h. */
#include "latency.h"

void latency_merge(struct latency *sum, const struct latency *l)
{
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
        atomic_store_explicit(&sum->counts[i], atomic_load_explicit(&sum->counts[i], memory_order_relaxed) +
                              atomic_load_explicit(&l->counts[i], memory_order_relaxed), memory_order_relaxed);
}

uint64_t latency_count(const struct latency *l)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
        count += atomic_load_explicit(&l->counts[i], memory_order_relaxed);
    return count;
}

/* The bucket's middle; of a bucket of one value, that value. */
static int64_t middle(uint32_t bucket)
{
    uint32_t group = bucket >> LATENCY_SUB_BITS, sub = bucket & ((1u << LATENCY_SUB_BITS) - 1);
    if (group == 0)
        return bucket;
    uint64_t width = UINT64_C(1) << (group - 1);
    return (int64_t)((((UINT64_C(1) << LATENCY_SUB_BITS) + sub) << (group - 1)) + width / 2);
}

int64_t latency_quantile(const struct latency *l, double q)
{
    uint64_t count = latency_count(l), before = 0;
    if (count == 0)
        return 0;
    /* The smallest value that at least q of them don't exceed: number ceil (q · count), from 1. Less
     * what q · count may be off by, or 0.999 of 20000 would be number 19981. */
    double wanted = q * (double)count * (1 - 1e-12);
    uint64_t rank = wanted < 1 ? 1 : wanted >= (double)count ? count : (uint64_t)wanted;
    rank += rank < count && (double)rank < wanted;
    uint32_t last = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        uint64_t here = atomic_load_explicit(&l->counts[i], memory_order_relaxed);
        before += here;
        last = here ? i : last;
        if (before >= rank)
            return middle(i);
    }
    return middle(last); /* while others add, the second walk may only see more: not reached */
}

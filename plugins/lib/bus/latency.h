/* SPDX-License-Identifier: MIT */
/* A log-linear histogram of nanoseconds, counted by any number of threads: each power of two
 * is cut into 32 buckets, so a value is known within 1/32 (3.1%) of itself. Values beyond
 * 2^42 ns (73 minutes) count as the last bucket. (Gil Tene's HdrHistogram, with 5 bits.)
 *
 * Adding is one relaxed atomic increment; reading sums what is there and may miss what is
 * being added. */
#ifndef LATHE_LIB_BUS_LATENCY_H
#define LATHE_LIB_BUS_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

enum { LATENCY_SUB_BITS = 5, LATENCY_TOP_BITS = 42,
       LATENCY_BUCKETS = (LATENCY_TOP_BITS - LATENCY_SUB_BITS + 1) << LATENCY_SUB_BITS };

struct latency {
    _Atomic uint64_t counts[LATENCY_BUCKETS];
};

/* Which bucket; values below 0 count as 0. */
static inline uint32_t latency_bucket(int64_t ns)
{
    uint64_t v = ns < 0 ? 0 : (uint64_t)ns;
    if (v < 1u << LATENCY_SUB_BITS)
        return (uint32_t)v;
    if (v >= UINT64_C(1) << LATENCY_TOP_BITS)
        return LATENCY_BUCKETS - 1;
    uint32_t power = 63 - (uint32_t)__builtin_clzll(v); /* ≥ 5 */
    return ((power - LATENCY_SUB_BITS + 1) << LATENCY_SUB_BITS) +
           (uint32_t)((v >> (power - LATENCY_SUB_BITS)) & ((1u << LATENCY_SUB_BITS) - 1));
}

static inline void latency_add(struct latency *l, int64_t ns)
{
    atomic_fetch_add_explicit(&l->counts[latency_bucket(ns)], 1, memory_order_relaxed);
}

/* The same by the one thread that adds to this histogram: no locked instruction. */
static inline void latency_add_alone(struct latency *l, int64_t ns)
{
    _Atomic uint64_t *n = &l->counts[latency_bucket(ns)];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* `sum`, which nobody else sees, counts what `l` has counted too. */
void latency_merge(struct latency *sum, const struct latency *l);
uint64_t latency_count(const struct latency *l);
/* The middle of the bucket in which the q-quantile lies (0 ≤ q ≤ 1); 0 if nothing was added. */
int64_t latency_quantile(const struct latency *l, double q);

#endif

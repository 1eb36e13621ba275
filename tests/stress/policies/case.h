/* SPDX-License-Identifier: MIT */
/* One case: a scheduler, a batching and a kvcache, and a seed that draws all the rest.
 *
 *     seed ─▶ arrivals (bursts, Poisson, closed …), classes, tenants, lengths, predictions,
 *             deadlines, cancels, sizes, replicas, router, faults
 *
 * It is run in virtual time, and afterwards everything must have ended once, and nothing may be
 * left in the pool. A case is written as a line, which is what seeds that ever failed are kept as:
 *
 *     srpt:preempt=recompute static:batch=4 paged:preempt=swap 10000 17 */
#ifndef TESTS_POLICIES_CASE_H
#define TESTS_POLICIES_CASE_H

#include <stdint.h>

#include "registry.h"

enum { CASE_WORD = 160 };

struct policy_case {
    char scheduler[CASE_WORD], batching[CASE_WORD], kvcache[CASE_WORD]; /* as --set has them */
    uint32_t requests;
    uint64_t seed;
};

struct case_result {
    char error[512];        /* "": it went well */
    int refused;            /* the three don't go together, for the reason in `error` */
    uint64_t preemptions, losses, failed, cancelled, late, not_taken, swaps;
};

/* Draws the rest from the seed, runs it, and checks. */
void case_run(struct registry *registry, const struct policy_case *of, struct case_result *result);

/* Ten requests that everybody passes by rights (long, of low priority, of a greedy tenant), and more
 * work behind them than can be done. *starved: some of the ten ended after the last had arrived. */
void case_starve(struct registry *registry, const struct policy_case *of, struct case_result *result, int *starved,
                 int *promised);

#endif

/* SPDX-License-Identifier: MIT */
/* The batching seam: how many tokens of each go in this step?
 *
 * Fills a step from the scheduler's ranking, within a budget of tokens, requests and KV
 * blocks. Whoever gets more than its one decode token is prefilling; a plan may give a
 * part of a prompt (chunked prefill).
 *
 *     create → bind → fill, fill, … (retire when a request ends) → destroy
 *
 * Worked sequence, continuous batching (Orca) with budget 512: ranking [a: 1 pending,
 * decoding; b: 700 pending, prompt; c: 20 pending, prompt] → plan [a 1, b 511 if it may
 * be cut, else c 20]. */
#ifndef LATHE_BATCHING_H
#define LATHE_BATCHING_H

#include <lathe/scheduler.h>

enum { LATHE_BATCHING_ABI = 2 };

struct lathe_batching_limits {
    uint32_t size;
    uint32_t max_requests;       /* every index is below this */
    uint32_t max_batch_tokens;   /* rows of one forward, padding included */
    uint32_t max_batch_requests; /* slices of one forward */
};

/* `tokens` of `request` are computed, 1 … lathe_request_pending(request). `padding` rows
 * are computed beside them and thrown away. A pure padding entry has request NULL. */
struct lathe_plan_entry {
    const struct lathe_request *request;
    uint32_t tokens;
    uint32_t padding;
};

struct lathe_plan {
    uint32_t capacity; /* entries; ≥ max_batch_requests */
    uint32_t count;
    struct lathe_plan_entry *entries;
    int64_t wake_ns;   /* nothing planned: ask again then (a window); INT64_MAX: on the next event */
};

struct lathe_batching_api {
    LATHE_API_HEAD;

    /* Size everything. [main] */
    int (*bind)(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err);

    /* Fill plan->entries. Asks view->can_reserve(engine, request, computed + tokens) before
     * it gives a request tokens, once for each, and gives none where that says 0: a request is
     * ended as hopeless only if can_reserve refused it. Whenever a *running* request that was
     * ranked gets no room and isn't planned, the engine asks the scheduler for a victim and has
     * the step filled again. [engine & running] */
    int (*fill)(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err);

    /* (optional) It finished or was preempted. [engine & running] */
    void (*retire)(void *self, const struct lathe_request *req);

    /* (optional) Bits of enum lathe_policy_promise, for the options it has; none if absent.
     * [any]                                                                       since abi 2 */
    uint32_t (*promises)(void *self);
};

#endif

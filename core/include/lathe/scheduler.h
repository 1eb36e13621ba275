/* SPDX-License-Identifier: MIT */
/* The scheduler seam: who goes next, and who waits or is preempted?
 *
 * Ranks requests for the next step; the batching plugin fills the step from that
 * ranking. It never sees tokens' text, model or memory: one plugin, in real time on a
 * real model and in virtual time on a simulated one.
 *
 *     create → bind → ┌ admit → (rank, progress, victim)… → retire ┐ → destroy
 *                     └───────────── for each request ─────────────┘
 *
 * A swap while running: the next scheduler is created and bound, gets `admit` for every
 * live request, and takes over between two steps; the old one is destroyed.
 *
 * Worked sequence, fcfs with two requests and room for both:
 *     admit(r1) admit(r2) rank → [r1 r2] progress(r1, 512) progress(r2, 30)
 *     rank → [r1 r2] progress(r1, 1) progress(r2, 1) … retire(r2) rank → [r1] … */
#ifndef LATHE_SCHEDULER_H
#define LATHE_SCHEDULER_H

#include <lathe/host.h>
#include <lathe/request.h>

enum { LATHE_SCHEDULER_ABI = 2 };

/* What a policy, as it is set, promises; the tests hold it to its word. Schedulers and batchings. */
enum lathe_policy_promise {
    LATHE_PROMISE_WORK_CONSERVING = 1, /* never idles while a request could run (no window, no watermark) */
    LATHE_PROMISE_NO_STARVATION = 2,   /* whoever is admitted ends, whatever keeps arriving behind it */
    LATHE_PROMISE_NO_PREEMPTION = 4,   /* a scheduler: once running, served in every step until the end, memory
                                          permitting; names nobody in `preempt` */
};

/* What the engine looks like at the start of a step. Borrowed until return. */
struct lathe_step_view {
    uint32_t size;
    uint32_t live_count;                      /* waiting, running and preempted */
    const struct lathe_request *const *live;  /* in no particular order */
    int64_t now_ns;
    uint64_t step;
    uint32_t waiting, running;
    uint32_t max_batch_tokens, max_batch_requests;
    uint32_t blocks_available, blocks_total, block_tokens;
    uint32_t ranking_wanted; /* of those that don't run, no more than so many, best first, can be of use in this
                                step; ranking more is allowed. 0: all                        since abi 2 */
    /* Would the pool hold `tokens` positions of `req`, beside what this plan has already
     * promised? For batching; a promise is made with it when it returns 1. */
    int (*can_reserve)(void *engine, const struct lathe_request *req, uint32_t tokens);
    void *engine;
    /* Positions of the prompt that the KV cache holds now, whoever left them there: a look, no
     * promise. NULL: this cache can't tell.                                       since abi 2 */
    uint32_t (*cached_prefix)(void *engine, const struct lathe_request *req);
};

/* Best first. A running request that is left out keeps its KV and gets nothing in this
 * step; one listed in `preempt` loses its place (and KV) before the step is filled. */
struct lathe_ranking {
    uint32_t capacity;                      /* ≥ live_count */
    uint32_t count;
    const struct lathe_request **requests;
    uint32_t preempt_capacity, preempt_count;
    const struct lathe_request **preempt;
    int64_t wake_ns;                        /* if nothing is ranked: ask again then; INT64_MAX: on the next event */
};

struct lathe_scheduler_limits {
    uint32_t size;
    uint32_t max_requests; /* every index is below this */
    uint64_t seed;
    uint32_t cached_prefix; /* 1: the views will have cached_prefix. A scheduler that can't do without
                               refuses here (LATHE_EUNSUPPORTED)                     since abi 2 */
    uint32_t reserved;
};

struct lathe_scheduler_api {
    LATHE_API_HEAD;

    /* Size everything. Once, before the first admit. [main] */
    int (*bind)(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err);

    /* Take a request among the waiting. Borrowed until retire. LATHE_EFULL: try again after
     * a step. [engine & running] */
    int (*admit)(void *self, const struct lathe_request *req, struct lathe_error *err);

    /* Write the requests that may run now, best first, running ones included. An empty
     * ranking means idle. Each live request at most once. [engine & running] */
    int (*rank)(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err);

    /* The pool is short while `needy` is being given room: name a running request to
     * preempt, or NULL: `needy` itself waits. May name `needy`. [engine & running] */
    const struct lathe_request *(*victim)(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy);

    /* (optional) After a step: `tokens` positions of it were computed. [engine & running] */
    void (*progress)(void *self, const struct lathe_request *req, uint32_t tokens);

    /* It finished, in whatever way; forget it. [engine & running] */
    void (*retire)(void *self, const struct lathe_request *req);

    /* (optional) One line: why is this request where it is in the ranking? Returns the
     * length as snprintf does. [engine] */
    int (*explain)(void *self, const struct lathe_request *req, char *text, uint32_t capacity);

    /* (optional) Bits of enum lathe_policy_promise, for the options it has; none if absent.
     * [any]                                                                       since abi 2 */
    uint32_t (*promises)(void *self);
};

#endif

/* SPDX-License-Identifier: MIT */
/* What schedulers have in common, so that each one's file is about its idea: who waits, who
 * runs, and a ranking made of both.
 *
 *     admit ──▶ waiting ──progress──▶ running ──retire──▶
 *                  ▲                     │
 *                  └── seen not to run ──┘    (preempted, swapped out, lost with a worker)
 *
 * Each of the two is a set in the order of the policy's keys. A ranking is either the running
 * ones and then the waiting ones, or (`merged`) both by their keys alone; all that run, and no
 * more of those that wait than the step can use. So it costs O(running + ranking_wanted),
 * however many wait; to admit and to retire cost O(log live).
 *
 * A scheduler's struct opens with a `struct lineup`; then the functions below that take
 * `void *self` can stand in its table as they are, or be called by its own. */
#ifndef POLICY_LINEUP_H
#define POLICY_LINEUP_H

#include <lathe/scheduler.h>

#include "order.h"

/* What a policy is to its lineup. All but `key` may be missing. */
struct lineup_rules {
    const char *name; /* of the scheduler, for errors */
    /* Where `req` stands among those that run or wait; smaller first. Asked when it joins one of
     * the two, and by lineup_rekey. */
    struct order_key (*key)(void *self, const struct lathe_request *req, int running);
    /* It has joined those that wait, or is about to leave them. */
    void (*waits)(void *self, const struct lathe_request *req, int joins);
    size_t note_bytes; /* what the policy remembers of each request: lineup_note */
};

struct lineup {
    const struct lathe_host *host;
    const struct lineup_rules *rules;
    int merged;    /* 1: ranked by key alone; 0: whoever runs goes first */
    int recompute; /* 1: whoever runs but is ranked beyond what a batch holds loses its place and KV */
    struct order waiting, running;
    char *notes; /* (max_requests, note_bytes) */
};

/* A zeroed scheduler of `bytes`, or NULL and a sentence. */
void *lineup_create(const struct lathe_host *host, const struct lineup_rules *rules, size_t bytes,
                    struct lathe_error *err);

/* For the scheduler's table. */
void lineup_destroy(void *self);
int lineup_bind(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err);
int lineup_admit(void *self, const struct lathe_request *req, struct lathe_error *err);
int lineup_rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err);
const struct lathe_request *lineup_victim(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy);
void lineup_progress(void *self, const struct lathe_request *req, uint32_t tokens);
void lineup_retire(void *self, const struct lathe_request *req);

/* LATHE_OK if lineup_admit will take it (it isn't known yet): for policies that note something first. */
int lineup_has_room(const struct lineup *l, const struct lathe_request *req, struct lathe_error *err);

/* The steps of lineup_rank, for policies with something to do in between: whoever stopped or
 * began to run unheard changes sets; an empty ranking; all that run; up to `wanted` more. */
void lineup_settle(struct lineup *l, const struct lathe_step_view *view);
void lineup_clear(struct lathe_ranking *ranking);
void lineup_rank_running(const struct lineup *l, struct lathe_ranking *ranking);
void lineup_rank_all(const struct lineup *l, const struct lathe_step_view *view, struct lathe_ranking *ranking);

static inline void lineup_put(struct lathe_ranking *ranking, const struct lathe_request *req)
{
    if (ranking->count < ranking->capacity)
        ranking->requests[ranking->count++] = req;
}

/* How many of those that wait are of use. */
static inline uint32_t lineup_wanted(const struct lathe_step_view *view)
{
    return view->ranking_wanted ? view->ranking_wanted : UINT32_MAX;
}

/* Its key may have changed. Ignores whoever isn't known. */
void lineup_rekey(struct lineup *l, const struct lathe_request *req);

static inline int lineup_knows(const struct lineup *l, const struct lathe_request *req)
{
    return order_contains(&l->running, req) || order_contains(&l->waiting, req);
}

static inline void *lineup_note(const struct lineup *l, uint32_t index)
{
    return l->notes + index * l->rules->note_bytes;
}

/* "sjf: 3 of 17 that wait", and the length as snprintf gives it; "sjf: not admitted". Walks. */
int lineup_explain(const struct lineup *l, const struct lathe_request *req, char *text, uint32_t capacity);

/* The rest of an explanation, behind the `length` that lineup_explain returned. */
__attribute__((format(printf, 4, 5))) int lineup_explain_more(char *text, uint32_t capacity, int length,
                                                              const char *format, ...);

#endif

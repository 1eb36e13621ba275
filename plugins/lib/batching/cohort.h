/* SPDX-License-Identifier: MIT */
/* A cohort: requests that begin together and run until the last of them ends. What static and
 * dynamic batching have in common, behind two ways of gathering one.
 *
 *     look (who of it is ranked?) → none: clear, take, take, … → plan, in every step
 *
 * Prompts are padded on the left, so that all of a cohort give their first token in the same
 * step. A step computes a window of columns; where places × longest exceeds the budget, the
 * prefill takes several steps of budget / places columns:
 *
 *     columns left     9 8 7 6 | 5 4 3 2 | 1      budget 12, three places: four columns a step
 *     a  (9 pending)   a a a a | a a a a | a
 *     b  (5 pending)   . . . . | b b b b | b      '.' is padding: computed, thrown away
 *     c  (2 pending)   . . . . | . . . c | c
 *
 * That needs no memory of its own: after a step with `left` columns to come, a member has at
 * most `left` pending, so it gets what it has beyond. Decode is the case of one column.
 *
 * Unpadded, a step takes as many columns as the members' own tokens allow, and a place that is
 * computed on costs one row. */
#ifndef BATCHING_COHORT_H
#define BATCHING_COHORT_H

#include <lathe/batching.h>

struct cohort_rules {
    int pad;         /* each is computed as long as the longest */
    int shrink;      /* the place of one that ended is not computed */
    int reserve_end; /* taken only if the pool has room up to its end */
};

struct cohort {
    const struct lathe_host *host;
    struct cohort_rules rules;
    uint32_t capacity, count, alive;      /* places in all, of this cohort, and how many of those live */
    uint32_t max_tokens, max_requests;
    const struct lathe_request **members; /* NULL: ended or preempted; (capacity) */
    uint64_t looks;
    uint64_t *seen;                       /* the look in which a member was ranked last; (capacity) */
    uint32_t *place;                      /* by index: its place from 1 on, 0: not a member; (max_requests) */
    int turned_away;                      /* a waiting one found no room: none passes it */
    int fresh;                            /* taken since the last look: all ranked, the room is promised */
};

/* Room for `batch` members, or as many as the limits allow. `name` opens the sentence of a
 * refusal. LATHE_ESTATE, LATHE_EINVAL, LATHE_ENOMEM. [main] */
int cohort_bind(struct cohort *c, const char *name, int64_t batch, const struct lathe_batching_limits *limits,
                struct lathe_error *err);
void cohort_free(struct cohort *c);

/* → how many of it are ranked; stops when all have been seen. [engine & running] */
uint32_t cohort_look(struct cohort *c, const struct lathe_ranking *ranking);

/* Forgets it: nobody is in it, and new ones may be taken. [engine & running] */
void cohort_clear(struct cohort *c);

/* Takes one, if there is a place and room. [engine & running] */
void cohort_take(struct cohort *c, const struct lathe_step_view *view, const struct lathe_request *req);

/* This step's rows of those that are ranked and find room. → 1: there are some, or running ones
 * were refused room, and the engine will ask for a victim. [engine & running] */
int cohort_plan(struct cohort *c, const struct lathe_step_view *view, struct lathe_plan *plan);

/* It ended or was preempted. [engine & running] */
void cohort_retire(struct cohort *c, const struct lathe_request *req);

#endif

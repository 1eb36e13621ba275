/* SPDX-License-Identifier: MIT */
/* Prefill and decode on replicas of their own, in a simulation (DistServe, OSDI 2024; Splitwise, ISCA 2024).
 *
 *     arrives ─▶ router ─▶ replicas 0 … prefill − 1: prompt, first token
 *                              │ its keys and values move: transfer_ns + transfer_token_ns × prompt
 *                              ▼
 *                          router ─▶ the other replicas: all further tokens ─▶ ends
 *
 * Each half is a request of the engine's own. The first has one output; the second has the prompt
 * and that output as its prompt, all but the last of its positions carried (engine_submit), and as
 * many outputs less. Whoever wants one output only ends with the first. Each pool has a router of
 * its own, of the same kind, and a line of its own in front of it: neither half holds up the other.
 *
 * One request for whoever counts. Latencies, targets, warm-up, Little's law, closed loops and
 * `planned_request` are of the whole: planned → first token (the first half's) → last token (the
 * second's), so that moving, and waiting for a place among those that decode, are gaps between two
 * tokens and part of the TPOT.
 *
 * Two rows for SQL, with the same correlation id, class, tenant, priority, session and turn. The
 * first half's has the TTFT target; the second's the one for TPOT, cached_tokens > 0, and begins
 * (planned_ns) when the first token was out. So in request_latency the first half's ttft_ms is the
 * whole's, the second's queue_ms is moving and waiting, its ttft_ms the gap to the second token, its
 * tpot_ms of what came after that; run_latency counts halves. Whole ones:
 *
 *     select a.id, (a.first_token_ns - a.planned_ns) / 1e6 as ttft_ms, (b.finish_ns - a.planned_ns) / 1e6 as e2e_ms,
 *            (b.finish_ns - a.first_token_ns) / 1e6 / b.output_tokens as tpot_ms
 *       from request a join request b on b.run_id = a.run_id and b.correlation_id = a.correlation_id and b.id > a.id
 *
 * What can't fit with all its outputs is refused when its second half is: it has the first half's row
 * then, and counts as refused.
 *
 * Not simulated: transfers that share a link (each takes its time, however many there are), and the
 * sender's memory, which is free at once. What is on its way outlives a fault of its sender; what
 * came in is lost with the replica that has it, and prefilled again there. */
#ifndef CORE_SIMULATE_SPLIT_H
#define CORE_SIMULATE_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "engine.h"

struct split_params {
    uint32_t prefill;          /* 0: every replica does both */
    int64_t transfer_ns;       /* of each request */
    double transfer_token_ns;  /* and of each token of its prompt */
};

struct split;
int split_open(struct split **split, const struct split_params *params, struct lathe_error *err);
void split_close(struct split *split); /* NULL is ignored */

/* It came: *submit becomes its first half. `number` is given back when it ends. */
int split_begin(struct split *split, struct engine_submit *submit, size_t number, struct lathe_error *err);
/* A half ended. True: so did the whole, and *ended and *request (a copy of ended->request) are made to
 * say of it what the engine would have said of one request, its tag the number. False: it moves on.
 * Allocates nothing. */
bool split_ended(struct split *split, struct engine_ended *ended, struct lathe_request *request);
/* A half was refused, so the whole ends: *planned_ns is when it should have come, *id the row that it
 * has already (0: none). Returns its number. */
size_t split_refused(struct split *split, uint64_t tag, int64_t *planned_ns, uint64_t *id);

int64_t split_next(const struct split *split); /* when the next has moved; INT64_MAX: none moves */
void split_moved(struct split *split);         /* it waits at the end of the line */
/* The second half of whoever is first in line, until the next call; NULL: nobody is. */
const struct engine_submit *split_first(struct split *split);
void split_taken(struct split *split);         /* the first in line is no longer: before any other comes */

#endif

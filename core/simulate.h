/* SPDX-License-Identifier: MIT */
/* Driving a deployment in virtual time: nothing sleeps, the clock jumps to what happens next.
 *
 *     one heap of replicas by (time, kind, replica)        arrivals, drawn as they come
 *       a step ends  ─▶ engine_finish ─▶ begin at once       ─▶ router ─▶ engine_submit
 *       an idle one wakes ─▶ engine_begin                    faults, by time
 *
 * At one instant steps end first, then faults happen, then those that moved from prefill to decode
 * arrive (simulate_split.h), then requests, then steps begin, and replicas go in the order of their
 * numbers: two runs are the same, event for event. A replica has one entry in the heap, so an event
 * costs O(log replicas) whatever waits.
 *
 * What a queue must obey is checked in every run: each request that came ended once; with an empty
 * start and end Little's law holds exactly (the integral of the number in the system is the sum of
 * the times in it, in whole nanoseconds); and policies that promise to be work conserving don't
 * idle with a request at hand. A breach is a bug of ours and ends the run with LATHE_EINTERNAL. */
#ifndef CORE_SIMULATE_H
#define CORE_SIMULATE_H

#include "drive.h"
#include "figures.h"
#include "simulate_split.h"
#include "workload.h"

enum simulated_fault_kind {
    FAULT_DIES = 1,       /* keys, values and the step under way are lost; back after `for_ns` */
    FAULT_SLOW = 2,       /* steps take `factor` times as long, for `for_ns` */
    FAULT_LOSES_CACHE = 3 /* keys and values are lost, work goes on */
};
struct simulated_fault {
    int64_t at_ns, for_ns;
    uint32_t replica;
    int kind;
    double factor;
};

struct simulate_params {
    struct deployment *deployment;    /* its `ended` must be simulate_ended, its `user` what simulate_open gave */
    struct clock *clock;              /* virtual */
    struct planned_request *requests; /* sorted by planned_ns if open; or */
    size_t count;
    struct workload *workload;        /* drawn as it comes */
    uint32_t concurrency;             /* > 0: closed loop, each user thinks for think_ns after an answer */
    int64_t think_ns;
    const struct simulated_fault *faults; /* any order */
    size_t fault_count;
    const struct split_params *split; /* prefill on replicas of their own (the deployment has as many); NULL: not */
    uint64_t warmup_requests;         /* the figures are of those that came later */
    int64_t progress_interval_ns;     /* of real time; 0: 100 ms */
    int (*progress)(void *user, const struct drive_progress *progress);
    void *user;
    struct figures *figures;          /* filled */
};

struct simulation;
/* Before the deployment is opened, since its replicas tell `simulation` of ends. */
int simulate_open(struct simulation **simulation, struct lathe_error *err);
void simulate_ended(void *simulation, const struct engine_ended *ended);
/* Returns when all have ended. A request that is refused ends as an error of its own. [engine] */
int simulate(struct simulation *simulation, const struct simulate_params *params, struct lathe_error *err);
void simulate_close(struct simulation *simulation); /* NULL is ignored */

#endif

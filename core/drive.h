/* SPDX-License-Identifier: MIT */
/* Driving a deployment through a workload on the calling thread: what lathe.run does.
 *
 * A workload is a list of planned requests. Open: each arrives at its planned time,
 * whatever the engine does (latency counts from there). Closed: `concurrency` of them
 * are in flight, and the next arrives think_ns after one ends. */
#ifndef CORE_DRIVE_H
#define CORE_DRIVE_H

#include <stdbool.h>

#include "deployment.h"

struct planned_request {
    struct engine_submit submit; /* submit.planned_ns: when it arrives (open) */
    /* Filled while driving: */
    uint64_t id;
    uint32_t replica;
    int32_t finish_reason;
    uint32_t output_count, output_capacity;
    int32_t *output;             /* tokens; malloc'd by drive, the caller frees */
    float *logprobs;             /* the same */
    char *text;                  /* if want_text: malloc'd, NUL-terminated */
    size_t text_bytes, text_capacity;
    char error[200];             /* why, if finish_reason is ERROR; "" otherwise */
};

struct drive_progress {
    int64_t now_ns;              /* by the run's clock */
    int64_t machine_ns;          /* by the machine's: for pacing what is shown */
    uint64_t finished, total, output_tokens, steps;
    uint32_t waiting, running;
};

struct drive_params {
    struct deployment *deployment;
    struct clock *clock;
    struct planned_request *requests; /* sorted by planned_ns if open */
    size_t count;
    uint32_t concurrency;             /* > 0: closed loop */
    int64_t think_ns;
    int64_t progress_interval_ns;     /* 0: 100 ms */
    /* Called now and then between steps; non-zero stops the run (interrupt). May be NULL. */
    int (*progress)(void *user, const struct drive_progress *progress);
    void *user;
};

/* Read what is ready of one; *finished: its last piece was among it. [engine] */
int planned_request_read(struct deployment *deployment, struct planned_request *request, bool *finished,
                         struct lathe_error *err);

/* Returns when all have ended, or on a failure of the engine itself. A request that is refused
 * (too long, say) ends as an error of its own; the rest go on. [engine] */
int drive(const struct drive_params *params, struct lathe_error *err);

#endif

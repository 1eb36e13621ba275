/* SPDX-License-Identifier: MIT */
/* A circuit breaker: a service that keeps failing is left alone for a while.
 *
 *     CLOSED ── ≥ share of the last `window` attempts failed, ≥ minimum seen ──▶ OPEN
 *     OPEN ──── open_ns passed: the next attempt is the trial ────────────────▶ HALF_OPEN
 *     HALF_OPEN ── the trial succeeded ──▶ CLOSED (forgetting the past)
 *     HALF_OPEN ── the trial failed ─────▶ OPEN (again for open_ns)
 *
 *     state      admit(now)                              settle(ok)        settle(failed)
 *     CLOSED     yes                                     count             count; may open
 *     OPEN       no before opened + open_ns; then yes,   late answer:      late answer:
 *                as the trial, and HALF_OPEN             ignored           ignored
 *     HALF_OPEN  no: one trial at a time                 trial: close;     trial: open;
 *                                                        others: ignored   others: ignored
 *
 * Time is the host's. Any thread may call; a mutex guards the rare changes, and a closed
 * breaker that sees a success takes none: three loads, and one exchange while a failure is
 * remembered or the window isn't full yet. (Nygard, Release It!, 2007.) */
#ifndef LATHE_LIB_BUS_BREAKER_H
#define LATHE_LIB_BUS_BREAKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lathe/bus.h>

enum { BREAKER_MAX_WINDOW = 64 };

struct breaker_options {
    uint32_t window;   /* attempts looked back on, 1 … 64; 0: no breaker */
    uint32_t minimum;  /* seen before it may open, 1 … window */
    double share;      /* of failures that opens it, (0, 1] */
    int64_t open_ns;
};

struct breaker {
    struct breaker_options options;
    _Atomic int32_t state;        /* enum lathe_breaker_state */
    _Atomic uint64_t failures;    /* the window: bit 0 is the newest attempt, 1 a failure */
    _Atomic uint32_t seen;        /* attempts in the window, at most `window` */
    pthread_mutex_t lock;
    int64_t opened_ns;            /* under lock */
    uint64_t trial;               /* under lock: the attempt on trial; 0: none */
    uint64_t next_trial;
};

void breaker_open(struct breaker *breaker, const struct breaker_options *options);
void breaker_close(struct breaker *breaker);

/* Does `status` say that the service is ill (and not that its caller erred)? See <lathe/bus.h>. */
bool breaker_is_failure(int status);

/* What changed, for the observer: 0 or an enum lathe_bus_event_kind. */

/* May an attempt go? true with *trial = 0 or the trial's number; false: *retry_ns is when to ask
 * again. `now` is only asked for when the breaker isn't closed. [any] */
bool breaker_admit(struct breaker *breaker, const struct lathe_host *host, uint64_t *trial, int64_t *retry_ns,
                   int *event);
void breaker_settle(struct breaker *breaker, const struct lathe_host *host, uint64_t trial, bool failed, int *event);
/* Its trial was never carried out (the ring was full, say): another may be tried. */
void breaker_forget(struct breaker *breaker, uint64_t trial);

#endif

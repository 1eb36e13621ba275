/* SPDX-License-Identifier: MIT */
/* What every bus but `direct` puts around a call: deadline, breaker, retry, counters,
 * latency, observer. The picture is in <lathe/bus.h>.
 *
 * A bus that waits on the caller's thread uses envelope_call. One that posts uses the two
 * halves around its own hand-over, once an attempt:
 *
 *     envelope_admit ─ refused ─▶ final status
 *       └▶ hand over … taken back ─▶ envelope_settle ─ 0 ─▶ final status
 *                                       └ 1: again, not before attempt.retry_ns */
#ifndef LATHE_LIB_BUS_ENVELOPE_H
#define LATHE_LIB_BUS_ENVELOPE_H

#include <stdalign.h>

#include "breaker.h"
#include "latency.h"
#include "ticks.h"

/* Of one bus; made from its options, the same on every bus: see ENVELOPE_OPTIONS. */
struct envelope_policy {
    uint32_t attempts;            /* at most, the first included; 1: no retry */
    int64_t base_ns, cap_ns;      /* pause: random (0, min (cap, base · 2^attempt)), attempt from 0 */
    uint64_t seed;
    struct breaker_options breaker;
};

/* The options that these buses share, for their option tables; values stand from `first` on. */
enum { ENVELOPE_OPTION_ATTEMPTS, ENVELOPE_OPTION_BASE, ENVELOPE_OPTION_CAP, ENVELOPE_OPTION_WINDOW,
       ENVELOPE_OPTION_MINIMUM, ENVELOPE_OPTION_SHARE, ENVELOPE_OPTION_OPEN, ENVELOPE_OPTION_COUNT };
#define ENVELOPE_OPTIONS                                                                                          \
    { "retry_attempts", LATHE_OPTION_INTEGER, "3", 1, 100, "", NULL,                                              \
      "attempts of a call at most, the first included" },                                                         \
    { "retry_base_ms", LATHE_OPTION_NUMBER, "10", 0, 60000, "ms", NULL, "the first pause is random, below this" },\
    { "retry_cap_ms", LATHE_OPTION_NUMBER, "1000", 0, 3600000, "ms", NULL, "no pause is longer" },                \
    { "breaker_window", LATHE_OPTION_INTEGER, "20", 0, 64, "attempts", NULL,                                      \
      "the breaker looks back on so many; 0: no breaker" },                                                       \
    { "breaker_minimum", LATHE_OPTION_INTEGER, "10", 1, 64, "attempts", NULL, "seen before it may open" },        \
    { "breaker_share", LATHE_OPTION_NUMBER, "0.5", 0.01, 1, "", NULL, "share of failures that opens it" },        \
    { "breaker_open_ms", LATHE_OPTION_NUMBER, "5000", 0, 3600000, "ms", NULL, "how long it then stays open" }
int envelope_policy_read(struct envelope_policy *policy, const struct lathe_config *config, uint32_t first,
                         struct lathe_error *err);

/* Of one bus: what its endpoints share. */
struct envelope_bus {
    const struct lathe_host *host;
    struct envelope_policy policy;
    struct ticks ticks;
    struct lathe_bus_observer observer; /* zeroed: nobody looks */
    _Atomic uint64_t calls;             /* numbers the draws of pauses */
};

/* Of one service. */
struct envelope_service {
    struct breaker breaker;
    pthread_mutex_t lock;
    int64_t last_error_ns;              /* under lock */
    struct lathe_error last_error;      /* under lock */
};

/* What every call adds to. */
struct envelope_tally {
    alignas(64) _Atomic uint64_t bytes; /* lines of its own */
    _Atomic uint64_t total_ns, max_ns;
    struct latency latency;             /* its count is the calls' */
};

/* Of one endpoint. The thread that calls first owns one of two tallies and adds to it without a
 * locked instruction, of which three cost as much as all the rest of the envelope; other threads
 * share the second. Whoever asks gets the sum. */
struct envelope {
    struct envelope_bus *bus;
    struct envelope_service *service;
    const struct lathe_endpoint *endpoint;
    uint32_t method_flags;              /* enum lathe_method_flags */
    _Atomic uintptr_t owner;            /* a thread's mark; 0: nobody has called yet */
    _Atomic uint64_t failures, retries, refused, expired;
    struct envelope_tally own, shared;
};

/* One call on its way. */
struct envelope_attempt {
    uint32_t number;                    /* 1, 2, … */
    uint32_t worker;                    /* the bus says who did it; 0: the caller's thread */
    uint64_t trial, draw, from;
    int64_t sent_ns, started_ns, ended_ns; /* only while a hop is observed */
    int64_t retry_ns;                   /* on the host's clock: not before */
};

void envelope_service_open(struct envelope_service *service, const struct envelope_policy *policy);
void envelope_service_close(struct envelope_service *service);

/* First: zero the attempt. Counts number up. 0, or the refusal (not counted as a call). */
int envelope_admit(struct envelope *e, const struct lathe_message *in, struct envelope_attempt *attempt,
                   struct lathe_error *err);
/* What a method returned, made a status: above 0 is none, and becomes LATHE_EINTERNAL. Before settle. */
int envelope_status(const struct envelope *e, int returned, struct lathe_error *err);
/* The attempt came back. 1: try again, admit first. 0: `status` is final, *err is the caller's. `err`
 * may be replaced when a retry would come after the deadline. Fills the reply's envelope. */
int envelope_settle(struct envelope *e, const struct lathe_message *in, struct lathe_message *out, int status,
                    struct envelope_attempt *attempt, struct lathe_error *err);
/* It was admitted and could not be handed over (full): the breaker's trial is given back. */
void envelope_withdraw(struct envelope *e, struct envelope_attempt *attempt);

/* The whole of it around a function that is called on this thread; pauses with host->wait_until. */
int envelope_call(struct envelope *e, lathe_method *function, void *self, const void *in, void *out,
                  struct lathe_error *err);

void envelope_stats(const struct envelope *e, struct lathe_endpoint_stats *stats);
/* breaker, last error: the rest of *health is the bus's. */
void envelope_health(struct envelope_service *service, struct lathe_service_health *health);
/* Tells the observer, if any. */
void envelope_tell(struct envelope_bus *bus, int kind, const char *service, uint32_t worker, const char *detail);

#endif

/* SPDX-License-Identifier: MIT */
/* Messages of the host's own services, so that a person can ask them by name as any other:
 *
 *     scheduler.rank     lathe_empty         → local_rank_out      who goes next, who would be preempted
 *     scheduler.explain  local_request_in    → local_explain_out   why is it where it is?
 *     memory.usage       lathe_empty         → local_usage_out     how full is the KV pool?
 *     memory.table       local_request_in    → local_table_out     which blocks are its?
 *
 * They are flat although the services are local: what is asked by hand may be asked from afar.
 * Where a span doesn't fit, the method returns LATHE_EFULL, and `needed` is the bytes that the
 * whole reply wants as `head.capacity`. */
#ifndef CORE_LOCAL_SERVICES_H
#define CORE_LOCAL_SERVICES_H

#include <lathe/kvcache.h>
#include <lathe/message.h>
#include <lathe/request.h>

/* Of one request; unknown is LATHE_ENOTFOUND. */
struct local_request_in {
    struct lathe_message head;
    uint64_t request; /* the run's number for it */
};

enum local_ranked_flags {
    LOCAL_RANKED_WAITING = 1, /* has no place yet, or lost it */
    LOCAL_RANKED_RUNNING = 2, /* has a place and KV */
    LOCAL_RANKED_DECODING = 4, /* all but its newest token is in KV */
};

struct local_ranked {
    uint64_t request;
    int32_t state;           /* enum lathe_request_state */
    uint32_t flags;          /* enum local_ranked_flags */
    int32_t priority;
    uint32_t pending_tokens; /* known, not yet in KV */
};

struct local_rank_out {
    struct lathe_message head;
    uint64_t needed;           /* bytes */
    int64_t wake_ns;           /* as in struct lathe_ranking */
    struct lathe_span ranked;  /* struct local_ranked, best first */
    struct lathe_span preempt; /* uint64_t: numbers of requests */
};

struct local_explain_out {
    struct lathe_message head;
    uint64_t needed;        /* bytes */
    struct lathe_span text; /* bytes; one line */
};

struct local_usage_out {
    struct lathe_message head;
    struct lathe_kv_usage usage;
    uint32_t block_tokens, reserved;
};

struct local_table_out {
    struct lathe_message head;
    uint64_t needed;          /* bytes */
    uint32_t computed_tokens; /* positions whose KV is valid */
    uint32_t block_tokens;
    struct lathe_span blocks; /* int32_t; −1: a position that isn't kept */
};

#endif

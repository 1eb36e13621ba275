/* SPDX-License-Identifier: MIT */
/* A request as plugins see it: the engine owns and changes it, plugins read.
 *
 *     submitted ─▶ WAITING ─admit▶ RUNNING ─▶ FINISHED
 *                    ▲                │
 *                    └── PREEMPTED ◀──┘  (recompute: KV given back; swap: KV moved out)
 *
 * `index` is dense (0 … max_requests − 1) and unique among live requests, so a plugin
 * keeps what it remembers of a request in an array of its own, sized at `bind`: every
 * scheduler instance has a slot in each request that way, a shadow or the next one
 * during a swap included, and the engine needs to know nothing of it. */
#ifndef LATHE_REQUEST_H
#define LATHE_REQUEST_H

#include <stdint.h>

enum lathe_request_state {
    LATHE_REQUEST_WAITING = 1,
    LATHE_REQUEST_RUNNING = 2,
    LATHE_REQUEST_PREEMPTED = 3, /* waiting again; computed_tokens says what is left in KV */
    LATHE_REQUEST_SWAPPED = 4,   /* waiting again; its KV lies in host memory */
    LATHE_REQUEST_FINISHED = 5,
};

enum lathe_finish_reason {
    LATHE_FINISH_NONE = 0,
    LATHE_FINISH_STOP = 1,      /* a stop token or stop text */
    LATHE_FINISH_LENGTH = 2,    /* max_output_tokens, or the context is full */
    LATHE_FINISH_ABORT = 3,     /* cancelled */
    LATHE_FINISH_ERROR = 4,
    LATHE_FINISH_DEADLINE = 5,
};

struct lathe_request {
    uint32_t size;
    uint32_t index;                   /* dense, see above */
    uint64_t id;                      /* the run's number for it, 1, 2, … */
    uint64_t correlation;             /* 64 bits; the text stands in table request */
    int32_t state;                    /* enum lathe_request_state */
    int32_t priority;                 /* larger goes first; 0 unless said */
    uint32_t tenant, class_id;        /* interned: equal numbers, equal names */
    uint64_t session;
    int64_t planned_ns, arrival_ns;   /* latency counts from planned_ns (no coordinated omission) */
    int64_t admitted_ns, first_token_ns; /* −1 until they happen */
    int64_t deadline_ns;              /* absolute; INT64_MAX: none */
    int64_t slo_ttft_ns, slo_tpot_ns; /* 0: none */
    uint32_t prompt_tokens;
    uint32_t cached_tokens;           /* of the prompt, found in the cache when admitted */
    uint32_t computed_tokens;         /* positions whose KV is valid */
    uint32_t output_tokens;           /* so far */
    uint32_t max_output_tokens;
    uint32_t predicted_output_tokens; /* 0: unknown; filled by workload or predictor */
    uint32_t preemptions;
    uint32_t weight;                  /* its tenant's share, in thousandths; 0: 1000 */
    const int32_t *tokens;            /* prompt and output so far: prompt_tokens + output_tokens. NULL: only the
                                         lengths are known (simulation), and equal to no other request's */
};

/* Tokens known but not yet in KV: more than one is prefill (or recompute), one is decode. */
static inline uint32_t lathe_request_pending(const struct lathe_request *r)
{
    return r->prompt_tokens + r->output_tokens - r->computed_tokens;
}

/* Decoding: everything but the newest token is in KV, and there is output. */
static inline int lathe_request_decoding(const struct lathe_request *r)
{
    return r->output_tokens > 0 && lathe_request_pending(r) == 1;
}

#endif

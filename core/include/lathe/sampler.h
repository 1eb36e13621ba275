/* SPDX-License-Identifier: MIT */
/* The sampler seam: which token of those? A service: flat messages.
 *
 * Called once a step with all rows that have logits. Stateless between calls: penalties
 * see the history that travels with the row, randomness is counter-based and keyed by
 * (seed, request's sampling stream, output index) (<lathe/random.h>), so a request draws
 * the same whatever else is in its batch.
 *
 * Log-probabilities are of the model's own distribution (temperature 1, no penalty, no
 * truncation), in nats: what papers compare. Ties go to the lower id. */
#ifndef LATHE_SAMPLER_H
#define LATHE_SAMPLER_H

#include <lathe/message.h>
#include <lathe/plugin.h>

enum { LATHE_SAMPLER_ABI = 3 }; /* 2: a message's header is a cache line; 3: forced tokens */

/* A request's wishes. `defaults` fills them from the plugin's options; a request may
 * then change any. Out of range is refused when the request is submitted. */
struct lathe_sampling {
    float temperature;        /* ≥ 0; 0 is greedy */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1): drop below min_p × the largest; 0: off */
    int32_t top_k;            /* 0: off */
    float repetition_penalty; /* > 0; 1: off (Keskar et al. 2019, CTRL) */
    float presence_penalty;   /* [−2, 2]; subtracted once if the token occurred in the output */
    float frequency_penalty;  /* [−2, 2]; subtracted for each occurrence in the output */
    uint32_t reserved;
    uint64_t seed;            /* of this request */
};

struct lathe_sample_row {
    uint64_t request;
    uint32_t output_index;                 /* 0 for the request's first output: the counter */
    uint32_t logits_row;                   /* row of the logits region */
    uint32_t history_first, history_count; /* history[]: prompt and output so far */
    uint32_t prompt_count;                 /* how many of the history are prompt */
    uint32_t banned_count;                 /* how many of stops[] may not be chosen (ignore_eos) */
    struct lathe_sampling sampling;
    /* 1: the token is `forced`, whatever the logits say (teacher forcing), and its log-probability is what is
     * asked for. 0: free.                                                          since abi 3 */
    uint32_t is_forced;
    int32_t forced;
};

struct lathe_sample_in {
    struct lathe_message head;
    uint32_t vocab_tokens, reserved;
    struct lathe_region logits;  /* float (rows, vocab_tokens); read only */
    struct lathe_span rows;      /* struct lathe_sample_row */
    struct lathe_region history; /* int32_t: of all rows, one array */
    struct lathe_span stops;     /* int32_t */
};

struct lathe_sampled {
    int32_t token;
    float logprob; /* nats */
};

struct lathe_sample_out {
    struct lathe_message head;
    struct lathe_span sampled; /* struct lathe_sampled, one a row; laid out by the method */
};

/* Service "sampler": method "sample". */
struct lathe_sampler_api {
    LATHE_API_HEAD;
    /* What the options say, for a request that says nothing. [any]            since abi 1 */
    int (*defaults)(void *self, struct lathe_sampling *sampling, struct lathe_error *err);
    /* Size scratch for a vocabulary; before the first sample. [main]          since abi 1 */
    int (*bind)(void *self, uint32_t vocab_tokens, struct lathe_error *err);
    /* lathe_sample_in → lathe_sample_out. All logits −inf or any NaN in a row is
     * LATHE_EINVAL naming the request. [engine & running]                     since abi 1 */
    lathe_method *sample;
};

#endif

/* SPDX-License-Identifier: MIT */
/* What samplers share: reading a sample message with checks, and sums over a vocabulary.
 *
 * A row is (vocab_tokens) float logits. Sums of exponentials are taken from the largest
 * logit down, each term in float32 (relative error under 2e-7), the sum in double, in a
 * fixed order: the same row gives the same bits whatever is beside it in the batch. */
#ifndef SAMPLING_SAMPLING_H
#define SAMPLING_SAMPLING_H

#include <lathe/sampler.h>

/* A message whose spans and regions were checked. Pointers into it. */
struct sampling_batch {
    const struct lathe_sample_row *rows;
    uint32_t row_count, vocab_tokens;
    const float *logits;      /* (…, vocab_tokens) */
    const int32_t *history;
    const int32_t *stops;
    uint32_t stop_count;
    struct lathe_sampled *sampled; /* (row_count), laid out in the reply */
};

/* Checks `in`, lays out `out`. `name` opens the sentence of a refusal ("sampler greedy").
 * LATHE_EINVAL, LATHE_ERANGE (vocab_tokens isn't `vocab_tokens`), LATHE_EFULL. [any] */
int sampling_open(const char *name, uint32_t vocab_tokens, const struct lathe_sample_in *in,
                  struct lathe_sample_out *out, struct sampling_batch *batch, struct lathe_error *err);

/* The largest logit. LATHE_EINVAL naming the request: a NaN or +inf in the row, or all −inf. [any] */
int sampling_largest(const char *name, const struct lathe_sample_row *row, const float *logits, uint32_t n,
                     float *largest, struct lathe_error *err);

/* The lowest id whose logit is the largest of those not banned; −1: all are banned or −inf. [any] */
int32_t sampling_argmax(const float *logits, uint32_t n, const int32_t *banned, uint32_t banned_count);

/* Σ exp((logits[i] − largest) × scale); each term to weights[i] too unless that is NULL.
 * Terms below exp(−87) count as 0. [any] */
double sampling_exponentials(const float *logits, uint32_t n, float largest, float scale, float *weights);

#endif

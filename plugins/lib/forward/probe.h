/* SPDX-License-Identifier: MIT */
/* Packing one head's row of attention into its place in each of the row's records that has one
 * (layout: <lathe/attention.h>). Called only for probed rows; formats of layers: layers.h.
 *
 *     probed = forward_probed(b, row, layer, head)      bits 1 << format, 0 for most
 *     if (probed & FORWARD_BEFORE_SOFTMAX)  forward_probe_scores(…)
 *     softmax
 *     if (probed & FORWARD_AFTER_SOFTMAX)   forward_probe_pack(…) */
#ifndef LATHE_FORWARD_PROBE_H
#define LATHE_FORWARD_PROBE_H

#include <forward/batch.h>

enum {
    FORWARD_BEFORE_SOFTMAX = 1 << LATHE_PROBE_SCORES,
    FORWARD_AFTER_SOFTMAX = 1 << LATHE_PROBE_SUMMARY | 1 << LATHE_PROBE_TOP | 1 << LATHE_PROBE_FULL | 1 << LATHE_PROBE_VALUES,
    FORWARD_HEAD_FORMATS = FORWARD_BEFORE_SOFTMAX | FORWARD_AFTER_SOFTMAX,
    FORWARD_LAYER_FORMATS = 1 << LATHE_PROBE_NORMS | 1 << LATHE_PROBE_LENS | 1 << LATHE_PROBE_HIDDEN,
};

/* A row as attention has it in hand: weights before division by their sum. */
struct forward_weights {
    const float *weights; /* exp(score − largest score), one a key */
    float scale;          /* 1 / their sum */
    float entropy;        /* nats; read by `summary` */
    uint32_t set;         /* of kept positions: which keys these are */
    const float *value_norms; /* one a key; read by `values` */
};

/* How many bits are set below `bit`; without it set, the baseline of x86-64 calls a function for each word. */
static inline uint32_t forward_ones(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    return (uint32_t)(((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

static inline uint32_t forward_rank(const uint64_t mask[4], uint32_t bit)
{
    uint32_t n = forward_ones(mask[bit / 64] & (((uint64_t)1 << bit % 64) - 1));
    for (uint32_t i = 0; i < bit / 64; i++)
        n += forward_ones(mask[i]);
    return n;
}

/* The formats of heads, as bits, that some probe wants of this (row, layer, head): one branch is
 * the only cost where no probe wants the row. */
static inline uint32_t forward_probed(const struct forward_batch *b, const struct forward_row *row, uint32_t layer,
                                      uint32_t head)
{
    uint32_t formats = 0;
    if (row->record == FORWARD_NO_RECORD)
        return 0;
    const struct lathe_probe *p = &b->probes[b->slices[row->slice].probe];
    for (uint32_t left = row->probes & ~row->layer_probes; left; left &= left - 1) {
        const struct lathe_probe *q = &p[__builtin_ctz(left)];
        if (lathe_probe_has(q->layers, layer) && lathe_probe_has(q->heads, head))
            formats |= 1u << q->format;
    }
    return formats;
}

/* Writes the head's part of each of the row's records of these formats. Different heads and rows
 * write different bytes. [any thread of the forward] */
void forward_probe_scores(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                          const float *scores);
void forward_probe_pack(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                        const struct forward_weights *w);

/* The k largest of x (n), largest first, of equals the earlier; fewer if n is less: returns how many. */
uint32_t forward_largest(const float *x, uint32_t n, uint32_t k, struct lathe_attention_top *out);

#endif

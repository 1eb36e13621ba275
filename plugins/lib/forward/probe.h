/* SPDX-License-Identifier: MIT */
/* Packing one head's row of attention weights into its place in the row's record
 * (layout: <lathe/attention.h>). Called only for probed rows. */
#ifndef LATHE_FORWARD_PROBE_H
#define LATHE_FORWARD_PROBE_H

#include <forward/batch.h>

/* A row as attention has it in hand: weights before division by their sum. */
struct forward_weights {
    const float *weights; /* exp(score − largest score), one a key */
    float scale;          /* 1 / their sum */
    float entropy;        /* nats; read by `summary` */
    uint32_t set;         /* of kept positions: which keys these are */
};

/* 1 if this (row, layer, head) is probed: one branch is the only cost where no probe wants the row. */
static inline int forward_probed(const struct forward_batch *b, const struct forward_row *row, uint32_t layer,
                                 uint32_t head)
{
    if (row->record == FORWARD_NO_RECORD)
        return 0;
    const struct lathe_probe *p = &b->probes[b->slices[row->slice].probe];
    for (uint32_t left = row->probes; left; left &= left - 1) {
        const struct lathe_probe *q = &p[__builtin_ctz(left)];
        if (lathe_probe_has(q->layers, layer) && lathe_probe_has(q->heads, head) && !lathe_probe_of_layers(q->format))
            return 1;
    }
    return 0;
}

/* Writes the head's part of each of the row's records that has one. Different heads and rows write
 * different bytes. [any thread of the forward] */
void forward_probe_pack(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                        const struct forward_weights *w);

#endif

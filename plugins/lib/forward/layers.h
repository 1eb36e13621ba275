/* SPDX-License-Identifier: MIT */
/* The probe's formats of layers: norms, lens, hidden (layout: <lathe/attention.h>). A model calls
 * these for rows whose layer_probes isn't 0, at four places of a layer:
 *
 *     the layer begins, heads are done   forward_layer_heads   norms: before, heads
 *     attention was added                forward_layer_added   norms: attention
 *     the MLP was added                  forward_layer_added   norms: feed
 *     the layer ends                     forward_layer_ends    norms: after; hidden
 *                                        forward_lens_pack     lens: from the model's own logits
 *
 * What was added is the difference of two rows of the residual stream: the model keeps the row
 * from before, where forward_layer_wants says so. [any thread of the forward, rows apart] */
#ifndef LATHE_FORWARD_LAYERS_H
#define LATHE_FORWARD_LAYERS_H

#include <forward/batch.h>

/* Formats of layers, as bits 1 << format, that some probe wants of this row after this layer. */
uint32_t forward_layer_wants(const struct forward_batch *b, const struct forward_row *row, uint32_t layer);

/* x (embedding_width), outputs (heads, head_width). */
void forward_layer_heads(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, const float *x,
                         const float *outputs);

enum forward_addition { FORWARD_ATTENTION, FORWARD_FEED };
void forward_layer_added(const struct forward_batch *b, const struct forward_row *row, uint32_t layer,
                         enum forward_addition which, const float *x, const float *before);

void forward_layer_ends(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, const float *x);

/* logits (vocab_tokens) of the row, which the softmax spoils. */
void forward_lens_pack(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, float *logits);

#endif

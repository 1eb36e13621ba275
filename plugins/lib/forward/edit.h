/* SPDX-License-Identifier: MIT */
/* Interventions (<lathe/intervention.h>): checked with the message, carried out by the model at
 * the sites that are named there. Each function does what holds for one row at one site and
 * nothing else, so that a model of another shape calls the same ones:
 *
 *     scores ─▶ forward_edit_keys ─▶ [probe of scores] ─▶ forward_edit_uniform ─▶ softmax
 *            ─▶ forward_edit_weights ─▶ [probe of weights] · values ─▶ forward_edit_heads
 *            ─▶ [norms of heads] ─▶ × forward_edit_factor ─▶ Wo ─▶ + residual
 *            ─▶ MLP's inside × forward_edit_factor ─▶ Wdown ─▶ + residual ─▶ forward_edit_patch
 *
 * A key that is dropped gets a score far below any other, −10^20 and not −∞: entropies stay
 * finite, and what the softmax makes of it is then set to 0. Looking at all keys alike is a
 * score of 0 for each. What attention or an MLP adds is scaled before its last product, which
 * is linear: no row of differences is needed.
 *
 * A row without interventions has edits 0: that branch is all it costs. Nothing here allocates. */
#ifndef LATHE_FORWARD_EDIT_H
#define LATHE_FORWARD_EDIT_H

#include <forward/batch.h>

enum { FORWARD_INTERVENTIONS = (1 << LATHE_INTERVENTION_KINDS) - 2 }; /* every kind */

/* The message's interventions against the model's shape, vectors and keys inside their arrays;
 * then what one slice names. Called by forward_batch_check. */
int forward_edits_check(const struct lathe_forward_in *in, const struct forward_batch *b, struct lathe_error *err);
int forward_edits_check_slice(const struct forward_batch *b, const struct lathe_slice *slice, struct lathe_error *err);

/* Those of the slice's that hold at this query position. */
uint64_t forward_edits_at(const struct forward_batch *b, const struct lathe_slice *slice, int32_t position);

/* Scores (row->keys) of one head before the softmax. forward_edit_keys tells whether a key went. */
int forward_edit_keys(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                      float *scores);
void forward_edit_uniform(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                          float *scores);
/* After the softmax, if keys went. */
void forward_edit_weights(const struct forward_row *row, float *weights);

/* The heads' outputs of one row: (heads, head_width). */
void forward_edit_heads(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, float *outputs);

/* Product of the factors of `kind` (ATTENTION_SCALE, MLP_SCALE); 1: none. */
float forward_edit_factor(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t kind);

/* What the residual stream after the layer becomes, embedding_width floats; NULL: it stays. */
const float *forward_edit_patch(const struct forward_batch *b, const struct forward_row *row, uint32_t layer);

#endif

/* SPDX-License-Identifier: MIT */
/* The second pass of tiles that are watched: see attention_blocks.h.
 *
 * The blocks have kept all scores, (queries, keys). Here they become the weights of whole rows,
 * which is where interventions change them and probes and masses take them. A row whose
 * weights nobody changed keeps the result that its blocks gave: looking changes no bit. */
#include <math.h>
#include <string.h>

#include "attention_blocks.h"

/* |value| of each key, for the probe of values. */
static void find_value_norms(const struct llama_context *c, const struct llama_keys *from, uint32_t keys,
                             struct llama_scratch *w)
{
    size_t head = c->kv.head_width;
    for (uint32_t key = 0; key < keys;) {
        struct llama_rows rows = llama_next_rows(c, from, 1, key, keys, w->panel);
        for (uint32_t i = 0; i < rows.count; i++, key++) {
            const float *value = rows.at + i * head;
            c->model->kernels->few(w->value_norms + key, 1, value, head, 1, value, head, 1, head, 0);
            w->value_norms[key] = sqrtf(w->value_norms[key]);
        }
    }
}

/* Does an intervention of the row change what this head's weights are? */
static int edited(const struct llama_context *c, const struct forward_row *row, uint32_t layer, uint32_t head)
{
    for (uint64_t left = row->edits; left; left &= left - 1) {
        const struct lathe_intervention *i = &c->batch.interventions[__builtin_ctzll(left)];
        if ((i->kind == LATHE_HEAD_UNIFORM || i->kind == LATHE_KEYS_DROP || i->kind == LATHE_KEYS_KEEP) &&
            lathe_probe_has(i->layers, layer) && lathe_probe_has(i->heads, head))
            return 1;
    }
    return 0;
}

/* A row's result from its weights. */
static void weigh_values(const struct llama_context *c, const struct llama_keys *from, struct llama_scratch *w,
                         const float *weights, uint32_t keys, float *result)
{
    size_t head = c->kv.head_width;
    memset(result, 0, head * sizeof *result);
    for (uint32_t key = 0; key < keys;) {
        struct llama_rows rows = llama_next_rows(c, from, 1, key, keys, w->panel);
        c->model->kernels->weigh(result, head, weights + key, 0, 1, rows.at, head, rows.count, head);
        key += rows.count;
    }
}

void llama_watch_rows(struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *from,
                      struct llama_scratch *w, const struct llama_partial *total)
{
    const struct kernels *k = c->model->kernels;
    uint32_t group = llama_group(c), layer = from->layer, keys = llama_tile_keys(c, tile);
    int have_norms = 0;
    for (uint32_t q = 0; q < tile->count * group; q++) {
        const struct forward_row *row = &c->batch.rows[tile->first + q / group];
        float *scores = w->scores + q * c->score_stride, entropy = 0;
        uint32_t head = from->kv_head * group + q % group, probed = forward_probed(&c->batch, row, layer, head);
        int changed = edited(c, row, layer, head), went = changed && forward_edit_keys(&c->batch, row, layer, head, scores);
        if (probed & FORWARD_BEFORE_SOFTMAX)
            forward_probe_scores(&c->batch, row, layer, head, scores);
        if (changed)
            forward_edit_uniform(&c->batch, row, layer, head, scores);
        float sum = k->softmax(scores, row->keys, probed >> LATHE_PROBE_SUMMARY & 1 ? &entropy : NULL);
        if (went)
            forward_edit_weights(row, scores);
        memset(scores + row->keys, 0, (keys - row->keys) * sizeof(float));
        w->inverse[q] = 1.0f / sum;
        if (probed & FORWARD_AFTER_SOFTMAX) {
            if (probed >> LATHE_PROBE_VALUES & 1 && !have_norms) {
                find_value_norms(c, from, keys, w);
                have_norms = 1;
            }
            struct forward_weights weights = { scores, w->inverse[q], entropy, from->set, w->value_norms };
            forward_probe_pack(&c->batch, row, layer, head, &weights);
        }
        if (changed) {
            total->sum[q] = sum;
            weigh_values(c, from, w, scores, row->keys, total->values + q * c->kv.head_width);
        }
    }
}

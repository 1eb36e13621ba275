/* SPDX-License-Identifier: MIT */
/* Masses of keys, the same bits whatever the number of threads.
 *
 * A set's masses are sums over tiles, and over KV heads that share the set: work items that run
 * at the same time. So items run in waves of as many as there are lanes; each item sums its own
 * rows into its own lane (llama_mass_of_tile), and after the wave the lanes are added to the sets in
 * the items' order. An item that has its set for itself, as in decode with a set a head, writes
 * there at once. */
#include <string.h>

#include "llama.h"

static const struct llama_tile *tile_of(const struct llama_context *c, uint32_t item)
{
    return &c->tiles[c->tile_count - 1 - item / c->model->shape.kv_heads];
}

/* Is it the only item that adds to its set? */
static int alone(const struct llama_context *c, const struct llama_tile *tile)
{
    return c->batch.head_sets && tile->count == c->batch.slices[tile->slice].token_count;
}

void llama_mass_of_tile(struct llama_context *c, uint32_t layer, uint32_t item, const struct llama_scratch *w,
                        uint32_t queries, uint32_t keys)
{
    const struct llama_tile *tile = tile_of(c, item);
    float *masses = forward_masses(&c->batch, tile->slice, forward_set(&c->batch, layer, item % c->model->shape.kv_heads));
    if (!masses)
        return;
    if (!alone(c, tile)) {
        masses = c->mass_lanes + item % LLAMA_MASS_LANES * c->score_stride;
        memset(masses, 0, keys * sizeof *masses);
    }
    c->model->kernels->weigh(masses, 0, w->inverse, 0, 1, w->scores, c->score_stride, queries, keys);
}

void llama_mass_waves(struct llama_context *c, uint32_t layer, void (*wave)(void *arg, uint32_t first, uint32_t count),
                      void *arg)
{
    uint32_t kv_heads = c->model->shape.kv_heads, items = c->tile_count * kv_heads;
    for (uint32_t first = 0; first < items; first += LLAMA_MASS_LANES) {
        uint32_t count = items - first < LLAMA_MASS_LANES ? items - first : LLAMA_MASS_LANES;
        wave(arg, first, count);
        for (uint32_t item = first; item < first + count; item++) {
            const struct llama_tile *tile = tile_of(c, item);
            float *masses = forward_masses(&c->batch, tile->slice, forward_set(&c->batch, layer, item % kv_heads));
            if (masses && !alone(c, tile))
                c->model->kernels->add(masses, c->mass_lanes + (item - first) * c->score_stride,
                                       c->batch.rows[tile->first + tile->count - 1].keys);
        }
    }
}

/* SPDX-License-Identifier: MIT */
/* Making keys and values ready: see attention_keys.h. */
#include <string.h>

#include "attention_keys.h"

void llama_gather(const struct llama_context *c, const struct llama_keys *k, int side, uint32_t key, uint32_t end, float *to)
{
    const struct llama_shape *s = &c->model->shape;
    const struct kernels *kernels = c->model->kernels;
    void (*turn)(float *, const float *, const float *, size_t, size_t, size_t) =
        s->halves ? kernels->turn_halves : kernels->turn_interleaved;
    while (key < end) {
        struct llama_run run = llama_find_run(c, k, key, end);
        const void *at = llama_run_at(c, k, side, &run);
        size_t floats = (size_t)run.count * s->head;
        if (c->kv.dtype != LATHE_F32) {
            kernels->dequantize(c->kv.dtype, at, to, floats);
            at = to;
        }
        if (side == 0 && c->key_turns) {
            size_t first = (size_t)forward_key_turn(&c->batch, k->slice, k->set, key);
            turn(to, at, c->key_turns + first * s->rotated, run.count, s->head, s->rotated / 2);
        } else if (at != to) {
            memcpy(to, at, floats * sizeof *to);
        }
        to += floats;
        key += run.count;
    }
}

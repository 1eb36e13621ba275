/* SPDX-License-Identifier: MIT */
/* The keys and values that a tile looks at, where they lie or made ready in a panel.
 *
 * Plain float32 rows that follow each other in a block are read there. All others are put
 * side by side in a panel first: halves and Q8_0 converted, keys that were kept unrotated
 * rotated by the table of turns (by position, or by their number: forward_key_turn), and kept
 * positions that lie scattered, so that the kernels always have many rows at a time. */
#ifndef MODEL_LLAMA_ATTENTION_KEYS_H
#define MODEL_LLAMA_ATTENTION_KEYS_H

#include "llama.h"

/* Keys that attention does at a time: their values, 32 KB at 64 wide, stay in the first-level cache. Their
 * scores' rows lie so far apart. Keys that a panel holds: converted and used at once. So few keys
 * in a row are sooner copied than multiplied alone. */
enum { LLAMA_BLOCK_KEYS = 128, LLAMA_BLOCK_STRIDE = LLAMA_BLOCK_KEYS + 16, LLAMA_PANEL_KEYS = 32, LLAMA_SHORT_RUN = 8 };

/* Whose keys: those of a set of a slice, in one layer and KV head. */
struct llama_keys {
    uint32_t slice, set, layer, kv_head;
};

/* Keys that lie one after the other: `count` of them in a block, from a slot on. */
struct llama_run {
    uint32_t count;
    int32_t block;
    uint32_t slot;
};

struct llama_rows {
    const float *at; /* (count, head) */
    uint32_t count;
};

/* From the set's key number `key` on, at most up to `keys`. */
static inline struct llama_run llama_find_run(const struct llama_context *c, const struct llama_keys *k, uint32_t key,
                                              uint32_t keys)
{
    const struct lathe_slice *slice = &c->batch.slices[k->slice];
    uint32_t step = c->kv.block_tokens;
    int32_t position = forward_key_position(&c->batch, k->slice, k->set, key);
    struct llama_run run = { 1, c->batch.blocks[slice->block_first + (uint32_t)position / step], (uint32_t)position % step };
    uint32_t most = step - run.slot < keys - key ? step - run.slot : keys - key;
    if (slice->kept_count == 0)
        run.count = most;
    else
        while (run.count < most &&
               forward_key_position(&c->batch, k->slice, k->set, key + run.count) == position + (int32_t)run.count)
            run.count++;
    return run;
}

static inline const unsigned char *llama_run_at(const struct llama_context *c, const struct llama_keys *k, int side,
                                                const struct llama_run *run)
{
    return (const unsigned char *)forward_kv_at(&c->kv, run->block, k->layer, side, k->kv_head) + run->slot * c->kv.row_bytes;
}

/* Keys (side 0) or values (1) number `key` to `end` − 1, ready to be multiplied, to `to` (end − key, head). */
void llama_gather(const struct llama_context *c, const struct llama_keys *k, int side, uint32_t key, uint32_t end, float *to);

/* The next of them, as many as can be had at once; `panel` if they don't lie as they are needed. */
static inline struct llama_rows llama_next_rows(const struct llama_context *c, const struct llama_keys *k, int side,
                                                uint32_t key, uint32_t keys, float *panel)
{
    if (c->kv.dtype == LATHE_F32 && (side || !c->key_turns)) {
        struct llama_run run = llama_find_run(c, k, key, keys);
        if (run.count >= LLAMA_SHORT_RUN || c->batch.slices[k->slice].kept_count == 0)
            return (struct llama_rows){ (const float *)(const void *)llama_run_at(c, k, side, &run), run.count };
    }
    uint32_t count = keys - key < LLAMA_PANEL_KEYS ? keys - key : LLAMA_PANEL_KEYS;
    llama_gather(c, k, side, key, key + count, panel);
    return (struct llama_rows){ panel, count };
}

#endif

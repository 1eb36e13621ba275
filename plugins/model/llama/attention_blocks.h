/* SPDX-License-Identifier: MIT */
/* Attention of a tile's rows to one block of keys, and how blocks become the whole.
 *
 *     keys     0 …… 127 | 128 …… 255 | 256 …        LLAMA_BLOCK_KEYS a block, by a key's number in its set
 *     of each  most m, sum s, values y              s = Σ exp(score − m), y = Σ exp(score − m) · value
 *     joined   m' = max(m, m_b);  s' = s · e^(m − m') + s_b · e^(m_b − m');  y likewise
 *
 * Blocks are joined in order, from the first on. A row's result depends on its query and its keys
 * alone, to the bit: not on the rows beside it, on how its prompt is cut into chunks, or on
 * who did which block. (Online softmax: Milakov and Gimelshein, arXiv:1805.02867; blocked so that
 * scores stay in the cache: Dao et al., arXiv:2205.14135; blocks of one row done by several
 * threads: "Flash-Decoding for long-context inference", Dao et al. 2023.) */
#ifndef MODEL_LLAMA_ATTENTION_BLOCKS_H
#define MODEL_LLAMA_ATTENTION_BLOCKS_H

#include "attention_keys.h"

/* What blocks gave a tile's queries: query t · group + g is head g of the tile's row t. */
struct llama_partial {
    float *most, *sum; /* (queries) */
    float *values;     /* (queries, head) */
};

static inline uint32_t llama_group(const struct llama_context *c)
{
    return c->model->shape.heads / c->model->shape.kv_heads;
}

/* Keys that the tile's last row sees: all that the tile needs. */
static inline uint32_t llama_tile_keys(const struct llama_context *c, const struct llama_tile *tile)
{
    return c->batch.rows[tile->first + tile->count - 1].keys;
}

static inline uint32_t llama_tile_blocks(const struct llama_context *c, const struct llama_tile *tile)
{
    return (llama_tile_keys(c, tile) + LLAMA_BLOCK_KEYS - 1) / LLAMA_BLOCK_KEYS;
}

/* The first query of the tile that sees a key of the block; all after it do. */
uint32_t llama_block_first(const struct llama_context *c, const struct llama_tile *tile, uint32_t block);

/* Fills `to` for the queries that see the block. w->queries are there; a tile that is watched
 * finds its scores in w->scores afterwards. */
void llama_block_attend(const struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *keys,
                        struct llama_scratch *w, uint32_t block, const struct llama_partial *to);

/* total = total joined by `part`, for queries `first` … `end` − 1. `part` is used up. */
void llama_block_join(const struct llama_context *c, const struct llama_partial *total, const struct llama_partial *part,
                      uint32_t first, uint32_t end);

/* What a tile needs that has a probe of heads, masses or an intervention on keys: weights of whole rows,
 * from w->scores, in a second pass. Rows whose weights are changed get their results anew. */
void llama_watch_rows(struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *keys,
                      struct llama_scratch *w, const struct llama_partial *total);

#endif

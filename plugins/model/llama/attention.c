/* SPDX-License-Identifier: MIT */
/* Attention of a mixed batch over block tables.
 *
 * A slice's rows are cut into tiles; a work item is one tile and one KV head with the group
 * of query heads that share it. It goes through the tile's keys in blocks (attention_blocks.h), which
 * are read where they lie, and joins what each gave.
 *
 *     many items   tile 0, head 0 | tile 0, head 1 | …       each joins its blocks as it goes
 *     few          tile 0, head 0: blocks 0 1 | 2 3 | …      ranges of blocks, left in c->partials; who ends
 *                                                           last of a tile and head joins them all
 *
 * Few items that are long, as one sequence's decode at a long context, are thus shared by all
 * threads; since blocks are joined in one order, either way gives the same bits. Tiles with a probe
 * of heads, masses or an intervention on keys take a second pass (attention_watch.c). */
#include <math.h>
#include <string.h>

#include "attention_blocks.h"

/* Items a thread that a forward has before none is cut into ranges; ranges are of so many blocks at least. */
enum { ITEMS_A_THREAD = 4, BLOCKS_A_RANGE = 2 };

struct attention {
    struct llama_context *context;
    uint32_t layer, first; /* first: item of the wave */
};

/* A padding row looks at itself alone: the result is its own value. */
static void own_values(struct llama_context *c, const struct llama_tile *tile, uint32_t kv_head)
{
    const struct llama_shape *s = &c->model->shape;
    uint32_t group = s->heads / s->kv_heads;
    size_t values = (size_t)(s->heads + s->kv_heads) * s->head;
    for (uint32_t r = tile->first; r < tile->first + tile->count; r++)
        for (uint32_t g = 0; g < group; g++)
            memcpy(c->mixed + ((size_t)r * s->heads + kv_head * group + g) * s->head,
                   c->qkv + r * c->qkv_width + values + kv_head * s->head, s->head * sizeof(float));
}

/* The part of a block of a tile and head (a pair), in c->partials. */
static struct llama_partial part_of(const struct llama_context *c, uint32_t pair, uint32_t block)
{
    size_t queries = c->partial_queries;
    float *at = c->partials + ((size_t)pair * c->partial_blocks + block) * queries * (2 + c->kv.head_width);
    return (struct llama_partial){ at, at + queries, at + 2 * queries };
}

/* Blocks of one range; 1: it was the last of the pair's to end, and `total` is all of them. */
static int attend_range(const struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *keys,
                        struct llama_scratch *w, uint32_t pair, uint32_t range, struct llama_partial *total)
{
    uint32_t blocks = llama_tile_blocks(c, tile), queries = tile->count * llama_group(c);
    for (uint32_t b = blocks * range / c->ranges; b < blocks * (range + 1) / c->ranges; b++) {
        struct llama_partial part = part_of(c, pair, b);
        llama_block_attend(c, tile, keys, w, b, &part);
    }
    if (atomic_fetch_add_explicit(&c->ended[pair], 1, memory_order_acq_rel) + 1 != c->ranges)
        return 0;
    atomic_store_explicit(&c->ended[pair], 0, memory_order_relaxed); /* for the next layer: after this job's end */
    *total = part_of(c, pair, 0);
    for (uint32_t b = 1; b < blocks; b++) {
        struct llama_partial part = part_of(c, pair, b);
        llama_block_join(c, total, &part, llama_block_first(c, tile, b), queries);
    }
    return 1;
}

static void attend_all(const struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *keys,
                       struct llama_scratch *w, const struct llama_partial *total)
{
    uint32_t blocks = llama_tile_blocks(c, tile), queries = tile->count * llama_group(c);
    struct llama_partial part = { w->part_most, w->part_sum, w->part_values };
    llama_block_attend(c, tile, keys, w, 0, total); /* which all rows see */
    for (uint32_t b = 1; b < blocks; b++) {
        llama_block_attend(c, tile, keys, w, b, &part);
        llama_block_join(c, total, &part, llama_block_first(c, tile, b), queries);
    }
}

static void attend(void *arg, uint32_t item, uint32_t thread)
{
    const struct attention *a = arg;
    struct llama_context *c = a->context;
    const struct llama_shape *s = &c->model->shape;
    const struct kernels *k = c->model->kernels;
    item += a->first;
    uint32_t range = item % c->ranges, pair = item / c->ranges, group = llama_group(c), kv_head = pair % s->kv_heads;
    /* last tiles first: they see most keys, and small items at the end keep all threads busy */
    const struct llama_tile *tile = &c->tiles[c->tile_count - 1 - pair / s->kv_heads];
    struct llama_scratch *w = &c->scratch[thread];
    if (c->batch.slices[tile->slice].flags & LATHE_SLICE_PADDING) {
        if (range == 0)
            own_values(c, tile, kv_head);
        return;
    }
    size_t row = (size_t)group * s->head, from = kv_head * row;
    struct llama_keys keys = { tile->slice, forward_set(&c->batch, a->layer, kv_head), a->layer, kv_head };
    struct llama_partial total = { w->most, w->sum, w->results };
    float scale = 1.0f / sqrtf((float)s->head);
    for (uint32_t t = 0; t < tile->count; t++)
        k->scale(w->queries + t * row, c->qkv + (tile->first + t) * c->qkv_width + from, scale, row);
    if (c->ranges == 1)
        attend_all(c, tile, &keys, w, &total);
    else if (!attend_range(c, tile, &keys, w, pair, range, &total))
        return;
    if (tile->watched)
        llama_watch_rows(c, tile, &keys, w, &total);
    if (c->batch.mass_count)
        llama_mass_of_tile(c, a->layer, item, w, tile->count * group, llama_tile_keys(c, tile));
    for (uint32_t t = 0; t < tile->count; t++)
        for (uint32_t g = 0; g < group; g++)
            k->scale(c->mixed + (size_t)(tile->first + t) * s->heads * s->head + from + g * s->head,
                     total.values + (t * group + g) * s->head, 1.0f / total.sum[t * group + g], s->head);
}

/* Does someone want weights of whole rows of this tile? */
static int watched(const struct llama_context *c, const struct llama_tile *tile)
{
    if (c->batch.slice_mass[tile->slice])
        return 1;
    for (uint32_t r = tile->first; r < tile->first + tile->count; r++)
        if (c->batch.rows[r].edits || c->batch.rows[r].probes & ~c->batch.rows[r].layer_probes)
            return 1;
    return 0;
}

/* How many ranges each tile and head is cut into: 1 where there are items enough, where whole rows
 * are wanted in one thread's scratch, or where the parts would take too much room. */
static void choose_ranges(struct llama_context *c)
{
    uint32_t threads = pool_threads(c->pool), pairs = c->tile_count * c->model->shape.kv_heads, blocks = 0, rows = 0;
    c->ranges = 1;
    if (threads == 1 || pairs >= ITEMS_A_THREAD * threads)
        return;
    for (uint32_t i = 0; i < c->tile_count; i++) {
        const struct llama_tile *tile = &c->tiles[i];
        if (tile->watched)
            return;
        blocks = llama_tile_blocks(c, tile) > blocks ? llama_tile_blocks(c, tile) : blocks;
        rows = tile->count > rows ? tile->count : rows;
    }
    c->partial_queries = (size_t)rows * llama_group(c);
    c->partial_blocks = blocks;
    uint32_t wanted = (2 * ITEMS_A_THREAD * threads + pairs - 1) / pairs;
    size_t floats = pairs * c->partial_blocks * c->partial_queries * (2 + c->kv.head_width);
    if (floats <= c->partial_floats && blocks >= 2 * BLOCKS_A_RANGE)
        c->ranges = wanted < blocks / BLOCKS_A_RANGE ? wanted : blocks / BLOCKS_A_RANGE;
}

void llama_attention_tiles(struct llama_context *c)
{
    c->tile_count = 0;
    for (uint32_t s = 0; s < c->batch.slice_count; s++) {
        uint32_t count = c->batch.slices[s].token_count;
        for (uint32_t i = 0; i < count; i += c->tile_rows) {
            uint32_t n = count - i < c->tile_rows ? count - i : c->tile_rows;
            struct llama_tile tile = { s, c->batch.slice_rows[s] + i, n, 0 };
            tile.watched = watched(c, &tile);
            c->tiles[c->tile_count++] = tile;
        }
    }
    choose_ranges(c);
}

static void attend_items(void *arg, uint32_t first, uint32_t count)
{
    struct attention *a = arg;
    a->first = first;
    pool_run(a->context->pool, count, attend, a);
}

void llama_attention(struct llama_context *c, uint32_t layer)
{
    struct attention a = { c, layer, 0 };
    if (c->batch.mass_count)
        llama_mass_waves(c, layer, attend_items, &a);
    else
        attend_items(&a, 0, c->tile_count * c->model->shape.kv_heads * c->ranges);
}

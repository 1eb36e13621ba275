/* SPDX-License-Identifier: MIT */
/* Attention of a mixed batch over block tables.
 *
 * A slice's rows are cut into tiles; a work item is one tile and one KV head with the group
 * of query heads that share it:
 *
 *     queries (rows · group, head)  ×  keys (n, head)   → scores (rows · group, n)
 *     scores → weights, row by row: each row sees its own number of keys, the rest is 0
 *     weights × values (n, head) → results (rows · group, head) → mixed
 *
 * Blocks are read where they lie, and rows pass over those that they don't see: an element's sum is
 * a matter of its own row, whatever tile it is in. With compute = blas, many queries: keys and values
 * are gathered from their blocks once for the tile and both products are sgemm. The weights of a row are
 * then all in hand, which is where interventions change them and the probe takes them; each
 * costs one branch where it is off. */
#include <math.h>
#include <string.h>

#include <cblas.h>

#include "attention_keys.h"

enum { FEW_QUERIES = 8 };

struct attention {
    struct llama_context *context;
    uint32_t layer, first; /* first: item of the wave */
};

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

/* Scores to weights in place, with interventions and the probe of heads. */
static void weigh_rows(struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *from,
                       struct llama_scratch *w, uint32_t keys)
{
    const struct kernels *k = c->model->kernels;
    uint32_t group = c->model->shape.heads / c->model->shape.kv_heads;
    uint32_t layer = from->layer;
    int have_norms = 0, went = 0;
    for (uint32_t t = 0; t < tile->count; t++) {
        const struct forward_row *row = &c->batch.rows[tile->first + t];
        for (uint32_t g = 0; g < group; g++) {
            float *scores = w->scores + (size_t)(t * group + g) * c->score_stride, entropy = 0;
            uint32_t head = from->kv_head * group + g, probed = forward_probed(&c->batch, row, layer, head);
            if (row->edits)
                went = forward_edit_keys(&c->batch, row, layer, head, scores);
            if (probed & FORWARD_BEFORE_SOFTMAX)
                forward_probe_scores(&c->batch, row, layer, head, scores);
            if (row->edits)
                forward_edit_uniform(&c->batch, row, layer, head, scores);
            float inverse = 1.0f / k->softmax(scores, row->keys, probed >> LATHE_PROBE_SUMMARY & 1 ? &entropy : NULL);
            if (row->edits && went)
                forward_edit_weights(row, scores);
            memset(scores + row->keys, 0, (keys - row->keys) * sizeof(float));
            w->inverse[t * group + g] = inverse;
            if (probed & FORWARD_AFTER_SOFTMAX) {
                struct forward_weights weights = { scores, inverse, entropy, from->set, w->value_norms };
                if (probed >> LATHE_PROBE_VALUES & 1 && !have_norms) {
                    find_value_norms(c, from, keys, w);
                    have_norms = 1;
                }
                forward_probe_pack(&c->batch, row, layer, head, &weights);
            }
        }
    }
}

/* The tile's first row that sees key number `key`: rows see ever more. */
static uint32_t first_row(const struct llama_context *c, const struct llama_tile *tile, uint32_t key)
{
    uint32_t t = 0;
    while (t < tile->count && c->batch.rows[tile->first + t].keys <= key)
        t++;
    return t;
}

static void by_own_kernels(struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *from,
                           struct llama_scratch *w, uint32_t queries, uint32_t keys)
{
    const struct kernels *k = c->model->kernels;
    size_t head = c->kv.head_width, stride = c->score_stride, group = queries / tile->count;
    for (uint32_t key = 0; key < keys;) {
        struct llama_rows rows = llama_next_rows(c, from, 0, key, keys, w->panel);
        size_t q = first_row(c, tile, key) * group;
        k->few(w->scores + q * stride + key, stride, w->queries + q * head, head, queries - q, rows.at, head, rows.count, head,
               0);
        key += rows.count;
    }
    weigh_rows(c, tile, from, w, keys);
    memset(w->results, 0, queries * head * sizeof(float));
    for (uint32_t key = 0; key < keys;) {
        struct llama_rows rows = llama_next_rows(c, from, 1, key, keys, w->panel);
        size_t q = first_row(c, tile, key) * group;
        k->weigh(w->results + q * head, head, w->scores + q * stride + key, stride, queries - q, rows.at, head, rows.count,
                 head);
        key += rows.count;
    }
}

static void by_blas(struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *from,
                         struct llama_scratch *w, uint32_t queries, uint32_t keys)
{
    int head = (int)c->kv.head_width, stride = (int)c->score_stride;
    llama_gather(c, from, 0, 0, keys, w->keys);
    llama_gather(c, from, 1, 0, keys, w->values);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)queries, (int)keys, head, 1.0f, w->queries, head, w->keys,
                head, 0.0f, w->scores, stride);
    weigh_rows(c, tile, from, w, keys);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)queries, head, (int)keys, 1.0f, w->scores, stride,
                w->values, head, 0.0f, w->results, head);
}

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

static void attend(void *arg, uint32_t item, uint32_t thread)
{
    const struct attention *a = arg;
    struct llama_context *c = a->context;
    const struct llama_shape *s = &c->model->shape;
    item += a->first;
    uint32_t group = s->heads / s->kv_heads, kv_head = item % s->kv_heads;
    /* last tiles first: they see most keys, and small items at the end keep all threads busy */
    const struct llama_tile *tile = &c->tiles[c->tile_count - 1 - item / s->kv_heads];
    struct llama_scratch *w = &c->scratch[thread];
    if (c->batch.slices[tile->slice].flags & LATHE_SLICE_PADDING) {
        own_values(c, tile, kv_head);
        return;
    }
    uint32_t queries = tile->count * group, keys = c->batch.rows[tile->first + tile->count - 1].keys;
    size_t row = (size_t)group * s->head, from = kv_head * row;
    struct llama_keys keys_of = { tile->slice, forward_set(&c->batch, a->layer, kv_head), a->layer, kv_head };
    float scale = 1.0f / sqrtf((float)s->head);
    for (uint32_t t = 0; t < tile->count; t++)
        c->model->kernels->scale(w->queries + t * row, c->qkv + (tile->first + t) * c->qkv_width + from, scale, row);
    if (c->model->blas && queries > FEW_QUERIES)
        by_blas(c, tile, &keys_of, w, queries, keys);
    else
        by_own_kernels(c, tile, &keys_of, w, queries, keys);
    if (c->batch.mass_count)
        llama_mass_of_tile(c, a->layer, item, w, queries, keys);
    for (uint32_t t = 0; t < tile->count; t++)
        for (uint32_t g = 0; g < group; g++)
            c->model->kernels->scale(c->mixed + (size_t)(tile->first + t) * s->heads * s->head + from + g * s->head,
                                     w->results + (t * group + g) * s->head, w->inverse[t * group + g], s->head);
}

void llama_attention_tiles(struct llama_context *c)
{
    c->tile_count = 0;
    for (uint32_t s = 0; s < c->batch.slice_count; s++) {
        uint32_t count = c->batch.slices[s].token_count;
        for (uint32_t i = 0; i < count; i += c->tile_rows) {
            uint32_t n = count - i < c->tile_rows ? count - i : c->tile_rows;
            c->tiles[c->tile_count++] = (struct llama_tile){ s, c->batch.slice_rows[s] + i, n };
        }
    }
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
        attend_items(&a, 0, c->tile_count * c->model->shape.kv_heads);
}

/* SPDX-License-Identifier: MIT */
/* A context: the KV pool, the scratch of a forward and its threads, sized once.
 *
 * Sizes are products of a few 32-bit numbers that were checked against bounds (widths at most
 * 2^20, heads at most 2^10 wide), so none can wrap 64 bits before it is asked for. */
#include <string.h>

#include <kernels/product.h>

#include "attention_keys.h"

/* Query rows times heads of a tile: enough for a matrix product, little enough for the cache. */
enum { TILE_QUERIES = 192, TILE_SCORES = 1 << 20, PARTIAL_FLOATS = 1 << 20, LENS_FLOATS = 1 << 22, LENS_ROWS = 64 };

struct take {
    const struct lathe_host *host;
    size_t wanted; /* the size that failed; 0: none */
};

static void *take(struct take *t, size_t count, size_t each)
{
    void *memory = lathe_alloc_array(t->host, count, each);
    if (!memory && !t->wanted)
        t->wanted = count * each;
    return memory;
}

void llama_context_destroy(void *context)
{
    struct llama_context *c = context;
    if (!c)
        return;
    const struct lathe_host *host = c->model->host;
    pool_close(c->pool);
    forward_kv_close(&c->kv);
    void *const owned[] = { c->batch.rows, c->batch.slice_rows, c->batch.slice_kept, c->batch.slice_mass, c->x, c->h, c->qkv,
                            c->mixed, c->quantized, c->feed, c->turns, c->key_turns, c->mass_lanes, c->out, c->lens, c->lens_rows,
                            c->tiles, c->partials, c->ended, c->scratch, c->scratch_memory };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        lathe_free(host, owned[i]);
    lathe_free(host, c);
}

/* Every thread's scratch, in one piece. */
static void take_scratch(struct llama_context *c, struct take *t, uint32_t threads)
{
    const struct llama_shape *s = &c->model->shape;
    size_t group = s->heads / s->kv_heads, context = c->limits.params.context_tokens;
    size_t rows = TILE_QUERIES / group, fit = TILE_SCORES / (group * context);
    c->score_stride = (context + 15) & ~(size_t)15;
    rows = rows < fit ? rows : fit;
    c->tile_rows = rows ? (uint32_t)rows : 1;
    size_t queries = c->tile_rows * group;
    c->panel_floats = PRODUCT_PANEL;
    if (c->panel_floats < (size_t)LLAMA_PANEL_KEYS * s->head)
        c->panel_floats = (size_t)LLAMA_PANEL_KEYS * s->head;
    size_t floats[] = { c->panel_floats, (size_t)LLAMA_BLOCK_KEYS * s->head, queries * s->head, queries * s->head,
                        queries, queries, queries, queries,
                        queries * s->head, queries * LLAMA_BLOCK_STRIDE, queries * c->score_stride, queries, context };
    size_t each = 0;
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        each += floats[i] = (floats[i] + 15) & ~(size_t)15;
    c->scratch = take(t, threads, sizeof *c->scratch);
    c->scratch_memory = take(t, threads, each * sizeof(float));
    if (!c->scratch || !c->scratch_memory)
        return;
    for (uint32_t i = 0; i < threads; i++) {
        struct llama_scratch *w = &c->scratch[i];
        float *at = (float *)(void *)(c->scratch_memory + i * each * sizeof(float));
        float **parts[] = { &w->panel, &w->across, &w->queries, &w->results, &w->most, &w->sum, &w->part_most, &w->part_sum,
                            &w->part_values, &w->block, &w->scores, &w->inverse, &w->value_norms };
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            *parts[k] = at;
            at += floats[k];
        }
    }
}

int llama_context_create(void *self, const struct lathe_context_params *params, void **context, struct lathe_error *err)
{
    const struct llama *m = self;
    const struct llama_shape *s = &m->shape;
    struct take t = { m->host, 0 };
    int status = forward_params_check(params, err);
    if (status)
        return status;
    struct forward_kv_shape shape = { s->layers, s->kv_heads, s->head, m->swap_blocks };
    if ((status = forward_kv_dtype_check(&shape, params->kv_dtype, err)))
        return status;
    if (params->context_tokens > s->context)
        return lathe_fail(err, LATHE_ERANGE, "model %s was trained for %u tokens of context, %u wanted", m->name, s->context,
                          params->context_tokens);
    uint32_t threads = params->threads ? params->threads : m->threads ? m->threads : pool_cores();
    if (threads > POOL_MAX_THREADS)
        return lathe_fail(err, LATHE_ERANGE, "model llama: %u threads wanted; 1 to %d can be had", threads, POOL_MAX_THREADS);
    struct llama_context *c = lathe_alloc(m->host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "model llama: no memory for a context of %zu bytes", sizeof *c);
    size_t n = params->batch_tokens, q = (size_t)s->heads * s->head, kv = (size_t)s->kv_heads * s->head;
    c->model = m;
    c->limits = (struct forward_limits){ .params = *params, .vocab_tokens = s->vocab, .embedding_width = s->width,
                                         .layers = s->layers, .heads = s->heads, .kv_heads = s->kv_heads, .head_width = s->head,
                                         .probe_formats = FORWARD_HEAD_FORMATS | FORWARD_LAYER_FORMATS,
                                         .interventions = FORWARD_INTERVENTIONS };
    c->qkv_width = q + 2 * kv;
    c->batch.rows = take(&t, n, sizeof *c->batch.rows);
    c->batch.slice_rows = take(&t, params->batch_slices, sizeof(uint32_t));
    c->batch.slice_kept = take(&t, params->batch_slices, sizeof(uint32_t));
    c->batch.slice_mass = take(&t, params->batch_slices, sizeof(uint64_t));
    c->x = take(&t, n, s->width * sizeof(float));
    c->h = take(&t, n, s->width * sizeof(float));
    c->qkv = take(&t, n, c->qkv_width * sizeof(float));
    c->mixed = take(&t, n, q * sizeof(float));
    c->feed = take(&t, n, 2 * s->feed * sizeof(float));
    c->turns = take(&t, n, s->rotated * sizeof(float));
    if (m->integer) {
        size_t rows = n > params->output_rows ? n : params->output_rows, columns = s->feed > q ? s->feed : q;
        c->quantized = take(&t, rows, integer_row_bytes(columns > s->width ? columns : s->width));
    }
    c->out = take(&t, params->output_rows, s->width * sizeof(float));
    c->lens_capacity = LENS_FLOATS / s->vocab < LENS_ROWS ? LENS_FLOATS / s->vocab + 1 : LENS_ROWS;
    c->lens_capacity = c->lens_capacity < params->batch_tokens ? c->lens_capacity : params->batch_tokens;
    c->lens = take(&t, c->lens_capacity, s->vocab * sizeof(float));
    c->lens_rows = take(&t, c->lens_capacity, sizeof *c->lens_rows);
    take_scratch(c, &t, threads);
    c->mass_lanes = take(&t, LLAMA_MASS_LANES, c->score_stride * sizeof(float));
    if (params->kv_flags & LATHE_KV_KEYS_UNROTATED)
        c->key_turns = take(&t, params->context_tokens, s->rotated * sizeof(float));
    for (uint32_t p = 0; c->key_turns && p < params->context_tokens; p++)
        llama_turn(m, (int32_t)p, c->key_turns + (size_t)p * s->rotated);
    c->tile_capacity = params->batch_slices + params->batch_tokens / c->tile_rows + 1;
    c->tiles = take(&t, c->tile_capacity, sizeof *c->tiles);
    c->ended = take(&t, (size_t)c->tile_capacity * s->kv_heads, sizeof *c->ended);
    c->partial_floats = threads > 1 ? PARTIAL_FLOATS : 1;
    c->partials = take(&t, c->partial_floats, sizeof(float));
    if (t.wanted)
        status = lathe_fail(err, LATHE_ENOMEM, "model llama: no memory for the scratch of %u rows and %u tokens of context: "
                            "%zu bytes wanted", params->batch_tokens, params->context_tokens, t.wanted);
    if (status || (status = forward_kv_open(&c->kv, m->host, &shape, params, err)) ||
        (status = pool_open(m->host, threads, &c->pool, err)) || (m->pin && (status = pool_pin(c->pool, err)))) {
        llama_context_destroy(c);
        return status;
    }
    *context = c;
    return 0;
}

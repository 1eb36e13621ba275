/* SPDX-License-Identifier: MIT */
/* Blocks of keys: see attention_blocks.h.
 *
 *     keys (128, head)                       → across (head, 128)
 *     queries (n, head) × across             → scores (n, 128), in the second-level cache
 *     scores → weights, row by row: each row sees its own number of keys, the rest is 0
 *     weights × values (128, head)           → values (n, head)
 *
 * Both products are sums of vectors, each element in the order of the head's elements, of the keys.
 * Scores as sums across lanes (kernels->few) reach half the rate with AVX-512: measured.md. */
#include <math.h>
#include <string.h>

#include <cblas.h>

#include "attention_blocks.h"

enum { WHOLE = 64 }; /* scores of so many keys come out in whole vectors, by the same instructions for each */

uint32_t llama_block_first(const struct llama_context *c, const struct llama_tile *tile, uint32_t block)
{
    uint32_t key = block * LLAMA_BLOCK_KEYS, sees = c->batch.rows[tile->first].keys; /* each row one more than the last */
    return sees > key ? 0 : (key + 1 - sees) * llama_group(c);
}

enum { FEW_QUERIES = 8 }; /* own kernels' even with compute = blas */

/* y (n, columns) += x (n, k) · w (k, columns): by own kernels, or where many rows and compute = blas, by
 * OpenBLAS, which is the reference. */
static void multiply(const struct llama_context *c, float *y, uint32_t y_stride, const float *x, uint32_t x_stride, uint32_t n,
                     const float *w, uint32_t w_stride, uint32_t k, uint32_t columns)
{
    if (c->model->blas && n > FEW_QUERIES)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)columns, (int)k, 1.0f, x, (int)x_stride, w,
                    (int)w_stride, 1.0f, y, (int)y_stride);
    else
        c->model->kernels->weigh(y, y_stride, x, x_stride, n, w, w_stride, k, columns);
}

/* The other side of the keys that are read now, or later ones: a run is a page or two somewhere in memory, where the
 * processor's own prefetching begins anew each time. */
static void fetch(const struct llama_context *c, const struct llama_keys *keys, int side, uint32_t key, uint32_t end)
{
    while (key < end) {
        struct llama_run run = llama_find_run(c, keys, key, end);
        const unsigned char *at = llama_run_at(c, keys, side, &run);
        for (size_t i = 0; i < run.count * c->kv.row_bytes; i += 64)
            __builtin_prefetch(at + i, 0, 2);
        key += run.count;
    }
}

void llama_block_attend(const struct llama_context *c, const struct llama_tile *tile, const struct llama_keys *keys,
                        struct llama_scratch *w, uint32_t block, const struct llama_partial *to)
{
    const struct kernels *k = c->model->kernels;
    size_t head = c->kv.head_width;
    uint32_t from = block * LLAMA_BLOCK_KEYS, all = llama_tile_keys(c, tile);
    uint32_t end = all - from < LLAMA_BLOCK_KEYS ? all : from + LLAMA_BLOCK_KEYS;
    uint32_t group = llama_group(c), first = llama_block_first(c, tile, block), n = tile->count * group - first;
    float *scores = w->block + (size_t)first * LLAMA_BLOCK_STRIDE;
    uint32_t whole = (end - from + WHOLE - 1) / WHOLE * WHOLE;
    for (uint32_t key = from; key < end;) {
        struct llama_rows rows = llama_next_rows(c, keys, 0, key, end, w->panel);
        fetch(c, keys, 1, key, key + rows.count);
        k->transpose(w->across + (key - from), LLAMA_BLOCK_KEYS, rows.at, rows.count, head);
        key += rows.count;
    }
    for (uint32_t q = 0; q < n; q++)
        memset(scores + (size_t)q * LLAMA_BLOCK_STRIDE, 0, whole * sizeof *scores);
    multiply(c, scores, LLAMA_BLOCK_STRIDE, w->queries + first * head, (uint32_t)head, n, w->across, LLAMA_BLOCK_KEYS,
             (uint32_t)head, whole);
    for (uint32_t q = first; q < first + n; q++) {
        float *row = w->block + (size_t)q * LLAMA_BLOCK_STRIDE;
        uint32_t sees = c->batch.rows[tile->first + q / group].keys, most = sees < end ? sees : end;
        if (tile->watched)
            memcpy(w->scores + q * c->score_stride + from, row, (most - from) * sizeof *row);
        to->sum[q] = k->soften(row, most - from, end - from, &to->most[q]);
    }
    memset(to->values + first * head, 0, n * head * sizeof(float));
    for (uint32_t key = from; key < end;) {
        struct llama_rows rows = llama_next_rows(c, keys, 1, key, end, w->panel);
        uint32_t next = key + LLAMA_BLOCK_KEYS;
        fetch(c, keys, 0, next, next + rows.count < all ? next + rows.count : all);
        multiply(c, to->values + first * head, (uint32_t)head, scores + (key - from), LLAMA_BLOCK_STRIDE, n, rows.at,
                 (uint32_t)head, rows.count, (uint32_t)head);
        key += rows.count;
    }
}

void llama_block_join(const struct llama_context *c, const struct llama_partial *total, const struct llama_partial *part,
                      uint32_t first, uint32_t end)
{
    const struct kernels *k = c->model->kernels;
    size_t head = c->kv.head_width;
    for (uint32_t q = first; q < end; q++) {
        float most = total->most[q], other = part->most[q], *y = total->values + q * head, *more = part->values + q * head;
        float by = 1, times = 1;
        if (other > most) {
            by = expf(most - other);
            total->most[q] = other;
            k->scale(y, y, by, head);
        } else {
            times = expf(other - most);
            k->scale(more, more, times, head);
        }
        total->sum[q] = total->sum[q] * by + part->sum[q] * times;
        k->add(y, more, head);
    }
}

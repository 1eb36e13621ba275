/* SPDX-License-Identifier: MIT */
/* y = x · Wᵀ, cut over the weights' rows among the context's threads.
 *
 * Many rows of x: a thread dequantizes a panel of W's rows into its scratch and calls
 * single-threaded sgemm on it; the dequantization is paid once for all rows of x. Few rows
 * (decode): four rows of W at a time are dequantized into the first-level cache and
 * multiplied there, so that W is read from memory in the form that the file has: a quarter
 * or an eighth of float32's bytes, and memory is what decode waits for. */
#include <cblas.h>

#include "llama.h"

enum { FEW_ROWS = 8, FEW_PIECE = 32, PANEL_ROWS = 384, PANEL_FLOATS = 1 << 21 };

struct pieces {
    struct llama_context *context;
    const struct product *product;
    uint32_t rows[3], counts[3]; /* of each part: rows a piece, pieces */
};

size_t llama_panel_floats(const struct llama_shape *s)
{
    size_t columns = s->width, q = (size_t)s->heads * s->head;
    columns = columns > s->feed ? columns : s->feed;
    columns = columns > q ? columns : q;
    size_t rows = PANEL_FLOATS / columns;
    rows = rows < 64 ? 64 : rows > PANEL_ROWS ? PANEL_ROWS : rows;
    return rows * columns;
}

static const struct matrix *find_piece(const struct pieces *p, uint32_t item, uint32_t *first, uint32_t *count, float **y)
{
    uint32_t part = 0;
    *y = p->product->y;
    while (item >= p->counts[part]) {
        item -= p->counts[part];
        *y += p->product->parts[part]->rows;
        part++;
    }
    const struct matrix *w = p->product->parts[part];
    *first = item * p->rows[part];
    *count = w->rows - *first < p->rows[part] ? w->rows - *first : p->rows[part];
    *y += *first;
    return w;
}

static const float *dequantize_rows(const struct llama_context *c, const struct matrix *w, uint32_t first, uint32_t count,
                                    float *panel)
{
    const unsigned char *from = w->bytes + (size_t)first * w->row_bytes;
    if (w->dtype == LATHE_F32)
        return (const float *)(const void *)from;
    for (uint32_t i = 0; i < count; i++)
        c->model->kernels->dequantize(w->dtype, from + i * w->row_bytes, panel + (size_t)i * w->columns, w->columns);
    return panel;
}

static void few_piece(void *arg, uint32_t item, uint32_t thread)
{
    const struct pieces *pieces = arg;
    const struct product *p = pieces->product;
    struct llama_context *c = pieces->context;
    uint32_t first, count;
    float *y;
    const struct matrix *w = find_piece(pieces, item, &first, &count, &y);
    uint32_t step = w->dtype == LATHE_F32 ? count : 4;
    for (uint32_t i = 0; i < count; i += step) {
        uint32_t n = count - i < step ? count - i : step;
        const float *rows = dequantize_rows(c, w, first + i, n, c->scratch[thread].panel);
        c->model->kernels->few(y + i, p->y_stride, p->x, p->x_stride, p->m, rows, w->columns, n, w->columns, p->add);
    }
}

static void many_piece(void *arg, uint32_t item, uint32_t thread)
{
    const struct pieces *pieces = arg;
    const struct product *p = pieces->product;
    struct llama_context *c = pieces->context;
    uint32_t first, count;
    float *y;
    const struct matrix *w = find_piece(pieces, item, &first, &count, &y);
    const float *panel = dequantize_rows(c, w, first, count, c->scratch[thread].panel);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p->m, (int)count, (int)w->columns, 1.0f, p->x,
                (int)p->x_stride, panel, (int)w->columns, p->add ? 1.0f : 0.0f, y, (int)p->y_stride);
}

void llama_product(struct llama_context *c, const struct product *p)
{
    struct pieces pieces = { .context = c, .product = p };
    uint32_t threads = pool_threads(c->pool), items = 0;
    int few = p->m <= FEW_ROWS;
    for (uint32_t i = 0; i < p->part_count; i++) {
        const struct matrix *w = p->parts[i];
        uint32_t most = few ? FEW_PIECE : (uint32_t)(c->panel_floats / w->columns);
        if (few && w->rows > 4096)
            most = 8 * FEW_PIECE; /* the output head */
        else if (!few && most > PANEL_ROWS)
            most = PANEL_ROWS;
        uint32_t count = (w->rows + most - 1) / most;
        if (!few && w->rows >= 32 * threads) /* as many for each thread */
            count = (count + threads - 1) / threads * threads;
        pieces.rows[i] = ((w->rows + count - 1) / count + 15) & ~15u;
        if (pieces.rows[i] > most)
            pieces.rows[i] = most;
        pieces.counts[i] = (w->rows + pieces.rows[i] - 1) / pieces.rows[i];
        items += pieces.counts[i];
    }
    pool_run(c->pool, items, few ? few_piece : many_piece, &pieces);
}

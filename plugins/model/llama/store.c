/* SPDX-License-Identifier: MIT */
/* Matrices in memory: as the file has them, dequantized to float32 (weights = f32), or packed for
 * integer products (kernels/packed.h) where their type has such a form. Pieces of rows are stored by
 * all threads at once; then the file's pages are let go, so that a model is in memory once. */
#include <string.h>

#include "llama.h"

enum { PIECE_ROWS = 256 }; /* whole groups of any number of lanes */

struct storing {
    const struct llama *m;
    const struct lathe_tensor *t;
    const struct matrix *matrix;
    unsigned char *to;
    uint32_t piece; /* rows */
};

static void store_rows(void *arg, uint32_t item, uint32_t thread)
{
    const struct storing *s = arg;
    const struct matrix *w = s->matrix;
    uint32_t first = item * s->piece, end = w->rows - first < s->piece ? w->rows : first + s->piece;
    uint32_t step = w->form ? (uint32_t)s->m->integer->lanes : 1;
    (void)thread;
    for (uint32_t i = first; i < end; i += step) {
        const unsigned char *from = (const unsigned char *)s->t->data + i * s->t->row_bytes;
        unsigned char *to = s->to + (size_t)(i / step) * w->row_bytes;
        if (w->form)
            packed_group(to, step, s->t->dtype, from, s->t->row_bytes, end - i < step ? end - i : step, w->columns);
        else if (s->m->resident)
            s->m->kernels->dequantize(s->t->dtype, from, (float *)(void *)to, w->columns);
        else
            memcpy(to, from, w->row_bytes);
    }
}

int llama_store(struct llama *m, const struct gguf *file, const struct lathe_tensor *t, struct matrix *matrix,
                struct lathe_error *err)
{
    uint32_t rows = (uint32_t)t->shape[0], columns = (uint32_t)t->shape[1];
    *matrix = (struct matrix){ .rows = rows, .columns = columns, .dtype = m->resident ? LATHE_F32 : t->dtype };
    size_t count = rows;
    if (m->integer && (matrix->form = (int32_t)packed_form_of(t->dtype))) {
        matrix->row_bytes = packed_group_bytes(matrix->form, m->integer->lanes, columns);
        count = (rows + m->integer->lanes - 1) / m->integer->lanes;
    } else
        matrix->row_bytes = m->resident ? columns * sizeof(float) :
                                          (size_t)columns / lathe_dtype_block(t->dtype) * lathe_dtype_block_bytes(t->dtype);
    unsigned char *to = llama_take(m, count, matrix->row_bytes, err);
    if (!to)
        return err->code;
    matrix->bytes = to;
    struct storing storing = { m, t, matrix, to, PIECE_ROWS };
    while (rows / storing.piece >= POOL_MAX_ITEMS)
        storing.piece *= 2;
    pool_run(m->loaders, (rows + storing.piece - 1) / storing.piece, store_rows, &storing);
    gguf_release(file, t);
    m->parameters += (uint64_t)rows * columns;
    m->weight_bytes += count * matrix->row_bytes;
    return 0;
}

void llama_row(const struct llama *m, const struct matrix *w, uint32_t row, float *to)
{
    if (w->form)
        packed_row(to, w->bytes, w->form, m->integer->lanes, row, w->columns);
    else
        m->kernels->dequantize(w->dtype, w->bytes + row * w->row_bytes, to, w->columns);
}

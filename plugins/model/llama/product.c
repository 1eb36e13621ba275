/* SPDX-License-Identifier: MIT */
/* y = x · Wᵀ, cut over the weights' rows among the context's threads.
 *
 * An item is a piece of W's rows, which a thread dequantizes and multiplies with all rows of x
 * (kernels/product.h): nobody waits for another but at the product's end, and a thread that is
 * held up holds up no more than its piece. Pieces are small enough that each thread takes
 * several, and whole cache lines of y. However W is cut, the bits are the same.
 *
 * Packed weights are multiplied in integers (kernels/integer.h): rows of x are quantized first, once
 * for all parts; a few of them on the spot, since to share the work would take longer than to do it. */
#include <kernels/product.h>

#include "llama.h"

/* Pieces of a thread; rows of a piece, and of the output head's for few rows of x, where taking
 * an item would cost more than its share. */
enum {
    PIECES = 8,
    LEAST_ROWS = 16,
    MOST_ROWS = PRODUCT_ROWS,
    HEAD_ROWS = 4 * PRODUCT_ROWS,
    FEW_ROWS = 8,
    MANY_WEIGHTS = 4096,
    QUANTIZE_ROWS = 16
};
_Static_assert(LEAST_ROWS % PACKED_MOST_LANES == 0, "a piece is whole groups of packed rows");

struct pieces {
    struct llama_context *context;
    const struct product *product;
    uint32_t rows[3], counts[3]; /* of each part: rows a piece, pieces */
};

static void do_piece(void *arg, uint32_t item, uint32_t thread)
{
    const struct pieces *pieces = arg;
    const struct product *p = pieces->product;
    const struct llama_context *c = pieces->context;
    float *y = p->y;
    uint32_t part = 0;
    while (item >= pieces->counts[part]) {
        item -= pieces->counts[part];
        y += p->parts[part++]->rows;
    }
    const struct matrix *w = p->parts[part];
    uint32_t first = item * pieces->rows[part], left = w->rows - first;
    if (w->form) {
        const struct integer_kernels *integer = c->model->integer;
        struct integer_weights groups = { .n = left < pieces->rows[part] ? left : pieces->rows[part], .columns = w->columns,
                                          .groups = w->bytes + first / integer->lanes * w->row_bytes, .form = w->form };
        integer->multiply(y + first, p->y_stride, c->quantized, integer_row_bytes(w->columns), p->m, &groups, p->add);
        return;
    }
    struct product_rows rows = { .bytes = w->bytes + (size_t)first * w->row_bytes, .row_bytes = w->row_bytes,
                                 .n = left < pieces->rows[part] ? left : pieces->rows[part], .columns = w->columns,
                                 .dtype = w->dtype };
    product_of_rows(c->model->kernels, y + first, p->y_stride, p->x, p->x_stride, p->m, &rows, c->scratch[thread].panel,
                    p->add);
}

static void quantize_rows(void *arg, uint32_t item, uint32_t thread)
{
    const struct pieces *pieces = arg;
    const struct product *p = pieces->product;
    const struct llama_context *c = pieces->context;
    size_t columns = p->parts[0]->columns, bytes = integer_row_bytes(columns);
    (void)thread;
    for (uint32_t r = item * QUANTIZE_ROWS; r < p->m && r < (item + 1) * QUANTIZE_ROWS; r++)
        c->model->integer->quantize(c->quantized + r * bytes, p->x + r * p->x_stride, columns);
}

void llama_product(struct llama_context *c, const struct product *p)
{
    struct pieces pieces = { .context = c, .product = p };
    uint32_t all = 0, items = 0;
    int packed = 0;
    for (uint32_t i = 0; i < p->part_count; i++) {
        all += p->parts[i]->rows;
        packed |= p->parts[i]->form;
    }
    if (packed)
        pool_run(c->pool, (p->m + QUANTIZE_ROWS - 1) / QUANTIZE_ROWS, quantize_rows, &pieces);
    uint32_t most = p->m <= FEW_ROWS && all > MANY_WEIGHTS ? HEAD_ROWS : MOST_ROWS;
    uint32_t rows = (all / (PIECES * pool_threads(c->pool)) + LEAST_ROWS - 1) / LEAST_ROWS * LEAST_ROWS;
    rows = rows > most ? most : rows < LEAST_ROWS ? LEAST_ROWS : rows;
    for (uint32_t i = 0; i < p->part_count; i++) {
        pieces.rows[i] = rows;
        pieces.counts[i] = (p->parts[i]->rows + rows - 1) / rows;
        items += pieces.counts[i];
    }
    pool_run(c->pool, items, do_piece, &pieces);
}

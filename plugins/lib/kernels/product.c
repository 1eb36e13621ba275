/* SPDX-License-Identifier: MIT */
/* One thread's share of a product: see product.h. */
#include <kernels/product.h>

/* WHOLE: every type's blocks divide it, so that k is cut between blocks. Up to FEW_ROWS rows of
 * x, a panel would be written to the second-level cache for too little use. */
enum { WHOLE = 256, FEW_ROWS = 8, ROWS_OF_A_TILE = 4 };

/* How much of k at a time: equal parts, each but the last of whole blocks. */
static size_t part_of(size_t columns)
{
    size_t parts = (columns + PRODUCT_COLUMNS - 1) / PRODUCT_COLUMNS;
    return parts <= 1 ? columns : ((columns + parts - 1) / parts + WHOLE - 1) / WHOLE * WHOLE;
}

void product_of_rows(const struct kernels *kernels, float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
                     const struct product_rows *w, float *panel, int add)
{
    size_t part = part_of(w->columns), step = m <= FEW_ROWS ? ROWS_OF_A_TILE : PRODUCT_ROWS;
    for (size_t row = 0; row < w->n; row += step) {
        size_t n = w->n - row < step ? w->n - row : step;
        for (size_t from = 0; from < w->columns; from += part) {
            size_t k = w->columns - from < part ? w->columns - from : part, stride = k;
            const unsigned char *bytes = w->bytes + row * w->row_bytes +
                                         from / lathe_dtype_block(w->dtype) * lathe_dtype_block_bytes(w->dtype);
            const float *rows = panel;
            if (w->dtype == LATHE_F32) {
                rows = (const float *)(const void *)bytes;
                stride = w->row_bytes / sizeof(float);
            } else
                for (size_t i = 0; i < n; i++)
                    kernels->dequantize(w->dtype, bytes + i * w->row_bytes, panel + i * k, k);
            kernels->few(y + row, y_stride, x + from, x_stride, m, rows, stride, n, k, add || from);
        }
    }
}

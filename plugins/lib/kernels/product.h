/* SPDX-License-Identifier: MIT */
/* y (m, n) = x (m, k) · Wᵀ in float32, W as a file has it: one thread's share of a product.
 *
 *          k ────▶
 *     ┌──────┬──────┬────┐   W: PRODUCT_ROWS rows at a time, PRODUCT_COLUMNS columns at a time,
 *   n │ panel│      │    │   dequantized into a panel that stays in the second-level cache and
 *   │ ├──────┼──────┼────┤   serves all rows of x; with few rows of x four rows of W at a time,
 *   ▼ │      │      │    │   which then don't leave the first-level cache
 *     └──────┴──────┴────┘
 *
 * W is read from memory once, in the file's bytes (a quarter or an eighth of float32's), and
 * dequantized once a product. Each panel goes through kernels.few, whose tiles keep their sums
 * in registers; the parts of k are added one after the other.
 *
 * Bits: an element of y is a function of its row of x, its row of W, k and what it is added to,
 * in each instruction set. It doesn't depend on m, on how rows of W are cut into calls, nor,
 * therefore, on the number of threads: where k is cut depends on k alone.
 *
 * What was tried, with figures: measured.md. */
#ifndef LATHE_KERNELS_PRODUCT_H
#define LATHE_KERNELS_PRODUCT_H

#include <kernels/kernels.h>

enum { PRODUCT_ROWS = 64, PRODUCT_COLUMNS = 1024, PRODUCT_PANEL = PRODUCT_ROWS * PRODUCT_COLUMNS };

/* Rows of blocks: n of them, row_bytes apart; `columns` is k. */
struct product_rows {
    const unsigned char *bytes;
    size_t row_bytes, n, columns;
    int32_t dtype;
};

/* Writes y, or adds to it. Strides are in floats; `panel` has PRODUCT_PANEL floats and is
 * overwritten. Allocates nothing. [any] */
void product_of_rows(const struct kernels *kernels, float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
                     const struct product_rows *w, float *panel, int add);

#endif

/* SPDX-License-Identifier: MIT */
/* One thread's share of a product: see product.h. */
#include <kernels/product.h>

/* WHOLE: every type's blocks divide it, so that k is cut between blocks. Up to FEW_ROWS rows of
 * x fit beside NARROW rows of W; more are worth a whole panel. GROUP: rows of W between fetches. */
enum { WHOLE = 256, FEW_ROWS = 32, NARROW = 4, GROUP = 16, LINE = 64 };

/* The bytes that are dequantized next. Memory is slow to answer, and while a panel is multiplied
 * nobody asks it: so the tiles ask in between, a share of the lines each. Beyond the matrix's end
 * they ask for what isn't used; a prefetch doesn't fault. */
struct ahead {
    const unsigned char *bytes;
    size_t row_bytes, length, rows, done;
};

static void fetch(struct ahead *ahead, size_t until)
{
    for (; ahead->done < until; ahead->done++)
        for (size_t i = 0; i < ahead->length + LINE; i += LINE)
            __builtin_prefetch(ahead->bytes + ahead->done * ahead->row_bytes + i, 0, 3);
}

/* How much of k at a time: equal parts, each but the last of whole blocks. */
static size_t part_of(size_t columns)
{
    size_t parts = (columns + PRODUCT_COLUMNS - 1) / PRODUCT_COLUMNS;
    return parts <= 1 ? columns : ((columns + parts - 1) / parts + WHOLE - 1) / WHOLE * WHOLE;
}

/* y = x · panel transposed, tile by tile: a tile of x stays in the first-level cache while the panel passes by. */
static void multiply(const struct kernels *kernels, float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
                     const float *w, size_t w_stride, size_t n, size_t k, int add, struct ahead *ahead)
{
    size_t tiles = (m + kernels->rows - 1) / kernels->rows, calls = tiles * ((n + GROUP - 1) / GROUP), done = 0;
    for (; tiles > 0; tiles--) {
        size_t rows = (m + tiles - 1) / tiles; /* seven rows: four and three, not six and one */
        for (size_t j = 0; j < n; j += GROUP) {
            fetch(ahead, (ahead->rows * ++done + calls - 1) / calls);
            kernels->few(y + j, y_stride, x, x_stride, rows, w + j * w_stride, w_stride, n - j < GROUP ? n - j : GROUP, k,
                         add);
        }
        y += rows * y_stride;
        x += rows * x_stride;
        m -= rows;
    }
}

void product_of_rows(const struct kernels *kernels, float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
                     const struct product_rows *w, float *panel, int add)
{
    size_t part = part_of(w->columns), step = m <= FEW_ROWS ? NARROW : PRODUCT_ROWS;
    size_t block = lathe_dtype_block(w->dtype), block_bytes = lathe_dtype_block_bytes(w->dtype);
    for (size_t row = 0; row < w->n; row += step) {
        size_t n = w->n - row < step ? w->n - row : step;
        for (size_t from = 0; from < w->columns; from += part) {
            size_t k = w->columns - from < part ? w->columns - from : part, stride = k;
            const unsigned char *bytes = w->bytes + row * w->row_bytes + from / block * block_bytes;
            struct ahead ahead = { .bytes = from + part < w->columns ? bytes + k / block * block_bytes :
                                            w->bytes + (row + step) * w->row_bytes,
                                   .row_bytes = w->row_bytes, .length = k / block * block_bytes, .rows = step };
            const float *rows = panel;
            if (w->dtype == LATHE_F32) {
                rows = (const float *)(const void *)bytes;
                stride = w->row_bytes / sizeof(float);
            } else
                for (size_t i = 0; i < n; i++)
                    kernels->dequantize(w->dtype, bytes + i * w->row_bytes, panel + i * k, k);
            multiply(kernels, y + row, y_stride, x + from, x_stride, m, rows, stride, n, k, add || from, &ahead);
        }
    }
}

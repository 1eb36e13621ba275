/* SPDX-License-Identifier: MIT */
/* Products in vectors: y (m, n) = x (m, k) · w (n, k) transposed; included by vector.h and plain.c.
 *
 *            w0  w1  w2  w3         a tile: ROWS rows of x by four rows of w, all its sums in
 *        x0  ∑   ∑   ∑   ∑          registers, each a vector of LANES partial sums over k; every
 *        x1  ∑   ∑   ∑   ∑          vector that is loaded serves four, or ROWS, multiplications
 *        …                          (3 rows, 12 sums where there are 16 registers; 6, 24 of 32)
 *
 * Both sides are read along k, as they lie: nothing is transposed or packed, and a tail of m
 * costs what it has. In return each sum is folded across lanes once, about a tenth of the work
 * at k = 576. The tiles of x go outside, so that one tile of x stays in the first-level cache
 * while w passes by from the second.
 *
 * The same bits for any m, any cut of n or m, any number of threads: lane l of a sum adds
 * elements l, l + LANES, … in order, the lanes are added in one order (SUMS), and what is left
 * of k follows element by element. Nothing else enters an element of y. */
#ifndef LATHE_KERNELS_PRODUCT_VECTOR_H
#define LATHE_KERNELS_PRODUCT_VECTOR_H

/* Four floats, wherever they lie. */
typedef float four_floats __attribute__((vector_size(16), aligned(4), may_alias));

static inline float dot(const float *x, const float *w, size_t k, float to, int add)
{
    V sum = ALL(0.0f), none = ALL(0.0f);
    size_t i = 0;
    for (; i + LANES <= k; i += LANES)
        sum = FMA(LOAD(x + i), LOAD(w + i), sum);
    float y = SUMS(sum, none, none, none)[0];
    y = add ? to + y : y;
    for (; i < k; i++)
        y += x[i] * w[i];
    return y;
}

#define ROWS_OF_X(ROWS)                                                                                               \
    static void rows_##ROWS(float *y, size_t y_stride, const float *x, size_t x_stride, const float *w,               \
                            size_t w_stride, size_t n, size_t k, int add)                                             \
    {                                                                                                                 \
        size_t j = 0, whole = k - k % LANES;                                                                          \
        for (; j + 4 <= n; j += 4, w += 4 * w_stride) {                                                               \
            const float *w0 = w, *w1 = w + w_stride, *w2 = w1 + w_stride, *w3 = w2 + w_stride;                        \
            V sum[ROWS][4];                                                                                           \
            for (int r = 0; r < ROWS; r++)                                                                            \
                for (int c = 0; c < 4; c++)                                                                           \
                    sum[r][c] = ALL(0.0f);                                                                            \
            for (size_t i = 0; i < whole; i += LANES) {                                                               \
                V a[ROWS];                                                                                            \
                for (int r = 0; r < ROWS; r++)                                                                        \
                    a[r] = LOAD(x + (size_t)r * x_stride + i);                                                        \
                const float *const b[4] = { w0 + i, w1 + i, w2 + i, w3 + i };                                         \
                for (int c = 0; c < 4; c++) {                                                                         \
                    V from = LOAD(b[c]);                                                                              \
                    for (int r = 0; r < ROWS; r++)                                                                    \
                        sum[r][c] = FMA(a[r], from, sum[r][c]);                                                       \
                }                                                                                                     \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++) {                                                                          \
                float *out = y + (size_t)r * y_stride + j;                                                            \
                four_floats sums = SUMS(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);                                  \
                if (add)                                                                                              \
                    sums += *(four_floats *)(void *)out;                                                              \
                *(four_floats *)(void *)out = sums;                                                                   \
                for (size_t i = whole; i < k; i++)                                                                    \
                    for (size_t c = 0; c < 4; c++)                                                                    \
                        out[c] += x[(size_t)r * x_stride + i] * w[c * w_stride + i];                                  \
            }                                                                                                         \
        }                                                                                                             \
        for (; j < n; j++, w += w_stride)                                                                             \
            for (size_t r = 0; r < ROWS; r++)                                                                         \
                y[r * y_stride + j] = dot(x + r * x_stride, w, k, y[r * y_stride + j], add);                          \
    }
ROWS_OF_X(1)
ROWS_OF_X(2)
ROWS_OF_X(3)
#if MOST_ROWS == 6
ROWS_OF_X(4)
ROWS_OF_X(5)
ROWS_OF_X(6)
#endif

static void few(float *y, size_t y_stride, const float *x, size_t x_stride, size_t m, const float *w, size_t w_stride,
                size_t n, size_t k, int add)
{
    static void (*const tiles[])(float *, size_t, const float *, size_t, const float *, size_t, size_t, size_t, int) = {
        rows_1, rows_2, rows_3,
#if MOST_ROWS == 6
        rows_4, rows_5, rows_6,
#endif
    };
    for (size_t left = (m + MOST_ROWS - 1) / MOST_ROWS; left > 0; left--) {
        size_t rows = (m + left - 1) / left; /* seven rows: four and three, not six and one */
        tiles[rows - 1](y, y_stride, x, x_stride, w, w_stride, n, k, add);
        y += rows * y_stride;
        x += rows * x_stride;
        m -= rows;
    }
}

#endif

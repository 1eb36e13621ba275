/* SPDX-License-Identifier: MIT */
/* Weighted sums in vectors: y (m, k) += p (m, n) · v (n, k); included by vector.h and plain.c.
 *
 * A tile of y, ROWS rows of four vectors, stays in registers while all n values pass by: each
 * vector of values that is loaded serves ROWS sums. An element of y adds in the order of n and
 * nothing else enters it: the same bits for any m, and wherever n is cut in two calls. */
#ifndef LATHE_KERNELS_WEIGH_VECTOR_H
#define LATHE_KERNELS_WEIGH_VECTOR_H

#define WEIGH_ROWS(ROWS)                                                                                              \
    static void weigh_##ROWS(float *y, size_t y_stride, const float *p, size_t p_stride, const float *v,              \
                             size_t v_stride, size_t n, size_t k)                                                     \
    {                                                                                                                 \
        size_t i = 0;                                                                                                 \
        for (; i + 4 * LANES <= k; i += 4 * LANES) {                                                                  \
            V sum[ROWS][4];                                                                                           \
            for (int r = 0; r < ROWS; r++)                                                                            \
                for (int c = 0; c < 4; c++)                                                                           \
                    sum[r][c] = LOAD(y + (size_t)r * y_stride + i + (size_t)c * LANES);                               \
            for (size_t j = 0; j < n; j++) {                                                                          \
                const float *row = v + j * v_stride + i;                                                              \
                V weight[ROWS];                                                                                       \
                for (int r = 0; r < ROWS; r++)                                                                        \
                    weight[r] = ALL(p[(size_t)r * p_stride + j]);                                                     \
                for (int c = 0; c < 4; c++) {                                                                         \
                    V value = LOAD(row + c * LANES);                                                                  \
                    for (int r = 0; r < ROWS; r++)                                                                    \
                        sum[r][c] = FMA(weight[r], value, sum[r][c]);                                                 \
                }                                                                                                     \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++)                                                                            \
                for (int c = 0; c < 4; c++)                                                                           \
                    STORE(y + (size_t)r * y_stride + i + (size_t)c * LANES, sum[r][c]);                               \
        }                                                                                                             \
        for (size_t r = 0; r < ROWS && i < k; r++)                                                                    \
            weigh_rest(y + r * y_stride + i, p + r * p_stride, v + i, v_stride, n, k - i);                            \
    }

static void weigh_rest(float *y, const float *p, const float *v, size_t v_stride, size_t n, size_t k)
{
    size_t i = 0;
    for (; i + LANES <= k; i += LANES) {
        V sum = LOAD(y + i);
        for (size_t j = 0; j < n; j++)
            sum = FMA(ALL(p[j]), LOAD(v + j * v_stride + i), sum);
        STORE(y + i, sum);
    }
    for (; i < k; i++)
        for (size_t j = 0; j < n; j++)
            y[i] += p[j] * v[j * v_stride + i];
}

WEIGH_ROWS(1)
WEIGH_ROWS(2)
WEIGH_ROWS(3)
#if MOST_ROWS == 6
WEIGH_ROWS(4)
WEIGH_ROWS(5)
WEIGH_ROWS(6)
#endif

static void weigh(float *y, size_t y_stride, const float *p, size_t p_stride, size_t m, const float *v, size_t v_stride,
                  size_t n, size_t k)
{
    static void (*const tiles[])(float *, size_t, const float *, size_t, const float *, size_t, size_t, size_t) = {
        weigh_1, weigh_2, weigh_3,
#if MOST_ROWS == 6
        weigh_4, weigh_5, weigh_6,
#endif
    };
    for (size_t left = (m + MOST_ROWS - 1) / MOST_ROWS; left > 0; left--) {
        size_t rows = (m + left - 1) / left;
        tiles[rows - 1](y, y_stride, p, p_stride, v, v_stride, n, k);
        y += rows * y_stride;
        p += rows * p_stride;
        m -= rows;
    }
}

#endif

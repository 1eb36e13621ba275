/* SPDX-License-Identifier: MIT */
/* Attention's small parts in vectors: keys turned so that scores are sums of vectors, and a block of a
 * softmax. Included by vector.h, which has exp_lanes. */
#ifndef LATHE_KERNELS_SOFTEN_VECTOR_H
#define LATHE_KERNELS_SOFTEN_VECTOR_H

/* Eight rows of eight: halves of rows i and i + 4 side by side, then two steps of pairs. */
static inline void transpose_eight(float *y, size_t y_stride, const float *x, size_t k)
{
    __m256 r[8], t[8];
    for (size_t i = 0; i < 4; i++)
        for (size_t half = 0; half < 2; half++)
            r[i + 4 * half] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x + i * k + 4 * half)),
                                                   _mm_loadu_ps(x + (i + 4) * k + 4 * half), 1);
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4, y += 4 * y_stride) {
        _mm256_storeu_ps(y, _mm256_shuffle_ps(t[i], t[i + 2], 0x44));
        _mm256_storeu_ps(y + y_stride, _mm256_shuffle_ps(t[i], t[i + 2], 0xee));
        _mm256_storeu_ps(y + 2 * y_stride, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44));
        _mm256_storeu_ps(y + 3 * y_stride, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee));
    }
}

static void transpose(float *y, size_t y_stride, const float *x, size_t n, size_t k)
{
    size_t whole_n = n - n % 8, whole_k = k - k % 8;
    for (size_t i = 0; i < whole_n; i += 8)
        for (size_t j = 0; j < whole_k; j += 8)
            transpose_eight(y + j * y_stride + i, y_stride, x + i * k + j, k);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i < whole_n ? whole_k : 0; j < k; j++)
            y[j * y_stride + i] = x[i * k + j];
}

static float soften(float *x, size_t n, size_t width, float *largest)
{
    size_t whole = n - n % LANES, i = 0;
    float rest[LANES];
    for (size_t l = 0; l < LANES; l++)
        rest[l] = whole + l < n ? x[whole + l] : -INFINITY;
    V most = LOAD(rest), sums = ALL(0.0f);
    for (; i < whole; i += LANES)
        most = LARGER(most, LOAD(x + i));
    *largest = LARGEST(most);
    most = ALL(*largest);
    for (i = 0; i < whole; i += LANES) {
        V e = exp_lanes(LOAD(x + i) - most);
        STORE(x + i, e);
        sums = sums + e;
    }
    if (whole < n) {
        STORE(rest, exp_lanes(LOAD(rest) - most));
        for (size_t l = n - whole; l < LANES; l++)
            rest[l] = 0; /* not the e^-87 that exp_lanes ends at */
        sums = sums + LOAD(rest);
        memcpy(x + whole, rest, (n - whole) * sizeof *x);
    }
    memset(x + n, 0, (width - n) * sizeof *x);
    return SUM(sums);
}

#endif

/* SPDX-License-Identifier: MIT */
/* Products of packed weights (packed.h) with rows that are quantized in flight, in integers:
 *
 *     x ≈ s · p      p in −127 … 127, s = largest / 127 of 32 columns
 *     y = Σ over blocks of  a · s · Σ (q − zero) · p  +  b · s · Σ p
 *
 *     plain          C loops: the reference, and what other machines run
 *     avx2           maddubs; four-bit products summed in 16 bits: 8 · 2 · 15 · 127 < 2^15
 *     avx_vnni       dpbusd of 256 bits
 *     avx512_vnni    dpbusd of 512 bits
 *
 * Bits: a block's sum is an integer, so exact in any order; the blocks of a row are added in
 * order, each with one fused multiply-add (two with b). An element of y is therefore a function
 * of its row of x, its row of W and what it is added to, the same in every implementation, for
 * any m, cut of W and number of threads.
 *
 * A tile: rows of x by one group of rows of W. A block's quads are loaded and unpacked once for all
 * rows of the tile, whose sums stay in registers (16 rows where there are 32 registers, else 4).
 * All functions are [any] and allocate nothing. What was tried, with figures: measured.md. */
#ifndef LATHE_KERNELS_INTEGER_H
#define LATHE_KERNELS_INTEGER_H

#include <kernels/packed.h>

/* A quantized row, block by block. Rows are an odd number of cache lines apart, so that those of a
 * tile don't meet in the same sets of the cache. */
struct integer_block {
    int8_t p[PACKED_BLOCK];
    float s, sum; /* sum: s · Σp */
    int32_t zero; /* −8 · Σp */
    int32_t unused;
};

static inline size_t integer_row_bytes(size_t columns)
{
    return ((columns / PACKED_BLOCK * sizeof(struct integer_block) + 63) / 64 | 1) * 64;
}

struct integer_weights {
    const unsigned char *groups;
    size_t n, columns; /* n: rows from the first group's first on */
    int form;
};

struct integer_kernels {
    const char *name;
    size_t lanes;

    /* Blocks whose largest magnitude is below 2^-100 become zero. columns is whole blocks. The same bytes in all. */
    void (*quantize)(void *row, const float *x, size_t columns);

    /* y (m, n) = x (m, columns) · Wᵀ, or added to it. y_stride in floats, x_stride in bytes. */
    void (*multiply)(float *y, size_t y_stride, const unsigned char *x, size_t x_stride, size_t m,
                     const struct integer_weights *w, int add);
};

extern const struct integer_kernels integer_plain;

/* The best of this processor; LATHE_KERNELS (plain, avx2, avx_vnni, avx512_vnni) names another one that it has. */
const struct integer_kernels *integer_best(void);

/* All that this processor can run, plain first; returns how many. */
size_t integer_all(const struct integer_kernels **all, size_t capacity);

#endif

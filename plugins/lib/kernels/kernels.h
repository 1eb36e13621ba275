/* SPDX-License-Identifier: MIT */
/* The arithmetic of a transformer on one thread: several implementations of one table.
 *
 *     plain    C loops: the reference, and what other machines run
 *     avx2     AVX2, FMA, F16C
 *     avx512   AVX-512 F, BW, DQ, VL
 *
 * The best one that the processor offers is chosen when first asked for (kernels_best).
 * Dequantization is the same to the bit in all of them; sums are not, since lanes add in
 * another order: the tests hold them to a few units in the last place of a double sum.
 * All functions are [any], allocate nothing and need no alignment. */
#ifndef LATHE_KERNELS_H
#define LATHE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/tensor.h>

struct kernels {
    const char *name;
    size_t rows; /* of x that `few` keeps in registers at a time */

    /* out (count) = one row of `dtype`; count is whole blocks. Unknown dtypes write nothing. */
    void (*dequantize)(int32_t dtype, const void *row, float *out, size_t count);

    /* y (m, n) = x (m, k) · w (n, k) transposed, or added to it; for what caches hold: decode's
     * queries and keys, or a panel of a product with weights (product.h). An element's bits depend
     * on its two rows, k and what it is added to alone. Strides are in floats, between rows. */
    void (*few)(float *y, size_t y_stride, const float *x, size_t x_stride, size_t m, const float *w, size_t w_stride,
                size_t n, size_t k, int add);

    /* y (m, k) += p (m, n) · v (n, k): weighted sums of values. An element adds in the order of n:
     * cut anywhere, and with any m, it has the same bits. */
    void (*weigh)(float *y, size_t y_stride, const float *p, size_t p_stride, size_t m, const float *v, size_t v_stride,
                  size_t n, size_t k);

    /* x = exp(x − largest); returns the sum. Not divided by it: whoever reads the weights
     * scales by 1 / sum. entropy (NULL: not wanted) of the distribution, in nats. n ≥ 1. */
    float (*softmax)(float *x, size_t n, float *entropy);

    /* y (k, n) = x (n, k) transposed; rows of y lie y_stride apart, rows of x k. So that keys lie as `weigh` wants
     * its values, and their scores need no sums across lanes. */
    void (*transpose)(float *y, size_t y_stride, const float *x, size_t n, size_t k);

    /* A block of a softmax that is put together from blocks: x (n) = exp(x − largest), which is told, and 0
     * from n on up to width; returns the sum. The same bits for any width. 1 ≤ n ≤ width. */
    float (*soften)(float *x, size_t n, size_t width, float *largest);

    /* y = x / sqrt(mean(x²) + epsilon) · weight */
    void (*rmsnorm)(float *y, const float *x, const float *weight, size_t n, float epsilon);

    /* y = gate · sigmoid(gate) · up */
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);

    /* Rotates the first 2 · pairs elements of x; `turn` is (pairs) cosines, then (pairs) sines.
     * Interleaved: element 2i with 2i + 1 (llama in GGUF). Halves: i with i + pairs (NEOX). */
    void (*rope_interleaved)(float *x, const float *turn, size_t pairs);
    void (*rope_halves)(float *x, const float *turn, size_t pairs);

    /* The same of n rows of `width` elements, each by its own turn, (n, 2 · pairs); y may be x. The turned
     * products are fused where the processor can: within a unit in the last place of rope_*. */
    void (*turn_interleaved)(float *y, const float *x, const float *turns, size_t n, size_t width, size_t pairs);
    void (*turn_halves)(float *y, const float *x, const float *turns, size_t n, size_t width, size_t pairs);

    /* y = a · x, y += x */
    void (*scale)(float *y, const float *x, float a, size_t n);
    void (*add)(float *y, const float *x, size_t n);

    void (*half_to_float)(float *out, const uint16_t *in, size_t n);
    void (*float_to_half)(uint16_t *out, const float *in, size_t n);
    void (*quantize_q8_0)(void *row, const float *in, size_t n); /* whole blocks; the same bytes in all */

    /* out = a · x as halves, values beyond ±65504 as these. */
    void (*scale_to_half)(uint16_t *out, const float *x, float a, size_t n);
    float (*sum)(const float *x, size_t n);
    /* The first element that equals `value`: its index; n: none does. */
    size_t (*find)(const float *x, size_t n, float value);
    /* A number that at least k of the elements reach, as large as a quick look gives; −∞ where none does. */
    float (*reached_by)(const float *x, size_t n, size_t k);
    /* Writes the indexes of the elements ≥ least, ascending, to `at` (n); returns how many. */
    size_t (*reaching)(const float *x, size_t n, float least, uint32_t *at);
};

extern const struct kernels kernels_plain;

/* The best of this processor; the environment variable LATHE_KERNELS (plain, avx2, avx512)
 * names another one that it has, for comparisons. */
const struct kernels *kernels_best(void);

/* All that this processor can run, plain first; returns how many. */
size_t kernels_all(const struct kernels **all, size_t capacity);

#endif

/* SPDX-License-Identifier: MIT */
/* The block types in vectors: numbers are put together as bytes, sixteen at a time, and then
 * widened and scaled (scale_bytes: y = a · q, scale_bytes_add: y = a · q + b, of the including
 * file). Multiplied and added apart, never fused, in the order of dequantize.h: the same to
 * the bit. Layouts: dequantize.h. */
#ifndef LATHE_KERNELS_DEQUANTIZE_VECTOR_H
#define LATHE_KERNELS_DEQUANTIZE_VECTOR_H

#include <immintrin.h>

#include <kernels/dequantize.h>

static inline float half_lane(const uint8_t *bytes)
{
    uint16_t h;
    memcpy(&h, bytes, 2);
    return _cvtsh_ss(h);
}

/* The two halves that a block begins with; the second may be other data. */
static inline __m128 two_halves(const uint8_t *bytes)
{
    int both;
    memcpy(&both, bytes, 4);
    return _mm_cvtph_ps(_mm_cvtsi32_si128(both));
}

static inline __m128i bytes16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline __m128i low_nibbles(__m128i q)
{
    return _mm_and_si128(q, _mm_set1_epi8(15));
}

static inline __m128i high_nibbles(__m128i q)
{
    return _mm_and_si128(_mm_srli_epi16(q, 4), _mm_set1_epi8(15));
}

/* y (16) = a · (q − 8), or a · q + b, of the low or high four bits of 16 bytes. Where one
 * instruction looks up sixteen floats (LOOK_UP), a table of the sixteen values does it. */
static inline void scale_four_bits(float *y, __m128i q, int high, float a)
{
#ifdef LOOK_UP
    LOOK_UP(y, q, high, ALL(a) * (SIXTEEN - ALL(8.0f)));
#else
    scale_bytes(y, _mm_sub_epi8(high ? high_nibbles(q) : low_nibbles(q), _mm_set1_epi8(8)), a);
#endif
}

static inline void scale_four_bits_add(float *y, __m128i q, int high, float a, float b)
{
#ifdef LOOK_UP
    LOOK_UP(y, q, high, SIXTEEN * ALL(a) + ALL(b));
#else
    scale_bytes_add(y, high ? high_nibbles(q) : low_nibbles(q), a, b);
#endif
}

/* 16 bits to 16 bytes of 16 or 0: the fifth bits of Q5_0 and Q5_1. */
static inline __m128i fifth_bits(const uint8_t *bits)
{
    uint16_t b;
    memcpy(&b, bits, 2);
    __m128i spread = _mm_shuffle_epi8(_mm_set1_epi16((short)b), _mm_set_epi8(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
    __m128i each = _mm_set1_epi64x((long long)0x8040201008040201ull);
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(spread, each), each), _mm_set1_epi8(16));
}

static void lanes_q8_0(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 34, y += 32) {
        float d = two_halves(b)[0];
        scale_bytes(y, bytes16(b + 2), d);
        scale_bytes(y + 16, bytes16(b + 18), d);
    }
}

static void lanes_q4_0(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 18, y += 32) {
        float d = two_halves(b)[0];
        scale_four_bits(y, bytes16(b + 2), 0, d);
        scale_four_bits(y + 16, bytes16(b + 2), 1, d);
    }
}

static void lanes_q4_1(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 20, y += 32) {
        __m128 both = two_halves(b);
        float d = both[0], m = both[1];
        scale_four_bits_add(y, bytes16(b + 4), 0, d, m);
        scale_four_bits_add(y + 16, bytes16(b + 4), 1, d, m);
    }
}

static void lanes_q5_0(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 22, y += 32) {
        float d = two_halves(b)[0];
        __m128i q = bytes16(b + 6), middle = _mm_set1_epi8(16);
        scale_bytes(y, _mm_sub_epi8(_mm_or_si128(low_nibbles(q), fifth_bits(b + 2)), middle), d);
        scale_bytes(y + 16, _mm_sub_epi8(_mm_or_si128(high_nibbles(q), fifth_bits(b + 4)), middle), d);
    }
}

static void lanes_q5_1(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 24, y += 32) {
        __m128 both = two_halves(b);
        float d = both[0], m = both[1];
        __m128i q = bytes16(b + 8);
        scale_bytes_add(y, _mm_or_si128(low_nibbles(q), fifth_bits(b + 4)), d, m);
        scale_bytes_add(y + 16, _mm_or_si128(high_nibbles(q), fifth_bits(b + 6)), d, m);
    }
}

/* Q4_K (high NULL: no fifth bits) and Q5_K: eight groups of 32 in pairs that share bytes. */
static inline void lanes_k(const uint8_t *b, const uint8_t *nibbles, const uint8_t *high, float *y)
{
    __m128 both = two_halves(b);
    float d = both[0], dmin = both[1];
    const __m128i one = _mm_set1_epi8(1);
    for (int j = 0; j < 8; j++, y += 32) {
        uint8_t scale, minimum;
        scale_and_minimum(b + 4, j, &scale, &minimum);
        float a = d * (float)scale, n = -(dmin * (float)minimum);
        for (int part = 0; part < 32; part += 16) {
            __m128i q = bytes16(nibbles + j / 2 * 32 + part);
            if (!high)
                scale_four_bits_add(y + part, q, j % 2, a, n);
            else {
                q = j % 2 ? high_nibbles(q) : low_nibbles(q);
                __m128i bit = _mm_and_si128(_mm_srl_epi16(bytes16(high + part), _mm_cvtsi32_si128(j)), one);
                scale_bytes_add(y + part, _mm_or_si128(q, _mm_slli_epi16(bit, 4)), a, n);
            }
        }
    }
}

static void lanes_q4_k(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 144, y += 256)
        lanes_k(b, b + 16, NULL, y);
}

static void lanes_q5_k(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 176, y += 256)
        lanes_k(b, b + 48, b + 16, y);
}

static void lanes_q6_k(const uint8_t *b, float *y, size_t blocks)
{
    const __m128i three = _mm_set1_epi8(3), middle = _mm_set1_epi8(32);
    for (; blocks--; b += 210) {
        float d = half_lane(b + 208);
        for (int part = 0; part < 2; part++, y += 128)
            for (int group = 0; group < 8; group++) { /* of 16 elements: see dequantize.h */
                int quarter = group / 2, from = group % 2 * 16;
                __m128i low = bytes16(b + part * 64 + quarter % 2 * 32 + from);
                __m128i high = _mm_srl_epi16(bytes16(b + 128 + part * 32 + from), _mm_cvtsi32_si128(2 * quarter));
                low = quarter / 2 ? high_nibbles(low) : low_nibbles(low);
                __m128i q = _mm_or_si128(low, _mm_slli_epi16(_mm_and_si128(high, three), 4));
                scale_bytes(y + group * 16, _mm_sub_epi8(q, middle), d * (float)(int8_t)b[192 + part * 8 + group]);
            }
    }
}

static void half_to_float(float *out, const uint16_t *in, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(in + i))));
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + i, 2); /* rows of a file may be unaligned */
        out[i] = float_of_half(h);
    }
}

static void dequantize_lanes(int32_t dtype, const void *row, float *out, size_t count)
{
    switch (dtype) {
    case LATHE_F16: half_to_float(out, row, count); break;
    case LATHE_Q8_0: lanes_q8_0(row, out, count / 32); break;
    case LATHE_Q4_0: lanes_q4_0(row, out, count / 32); break;
    case LATHE_Q4_1: lanes_q4_1(row, out, count / 32); break;
    case LATHE_Q5_0: lanes_q5_0(row, out, count / 32); break;
    case LATHE_Q5_1: lanes_q5_1(row, out, count / 32); break;
    case LATHE_Q4_K: lanes_q4_k(row, out, count / 256); break;
    case LATHE_Q5_K: lanes_q5_k(row, out, count / 256); break;
    case LATHE_Q6_K: lanes_q6_k(row, out, count / 256); break;
    default: dequantize(dtype, row, out, count);
    }
}

#endif

/* SPDX-License-Identifier: MIT */
/* Rows of blocks to float32, for every type of <lathe/tensor.h>, as plain loops: the
 * reference, and what the types without a kernel of their own (dequantize_vector.h) run.
 *
 *     Q8_0  d q[32]                        x = d·q
 *     Q4_0  d nibbles[16]                  x = d·(q − 8)        low nibbles first, then high
 *     Q4_1  d m nibbles[16]                x = d·q + m
 *     Q5_0  d high[4] nibbles[16]          x = d·(q − 16)       fifth bits in `high`
 *     Q5_1  d m high[4] nibbles[16]        x = d·q + m
 *     Q4_K  d dmin scales[12] nibbles[128] eight groups of 32, 6-bit scale and minimum each
 *     Q5_K  d dmin scales[12] high[32] nibbles[128]
 *     Q6_K  low[128] high[64] scales[16] d  sixteen groups of 16, 8-bit scale each
 *
 * d, m, dmin are half precision. The layouts are GGUF's (ggml-common.h). */
#ifndef LATHE_KERNELS_DEQUANTIZE_H
#define LATHE_KERNELS_DEQUANTIZE_H

#include <string.h>

#include <kernels/half.h>
#include <lathe/tensor.h>

static inline float half_at(const uint8_t *bytes)
{
    uint16_t h;
    memcpy(&h, bytes, 2);
    return float_of_half(h);
}

static void dequantize_q8_0(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 34, y += 32) {
        float d = half_at(b);
        int8_t q[32]; /* a copy: so the compiler knows that y doesn't overlap */
        memcpy(q, b + 2, 32);
        for (int i = 0; i < 32; i++)
            y[i] = d * (float)q[i];
    }
}

/* The other way: d = largest / 127, q = x / d rounded to even by the adder. The largest is found among the
 * bits of magnitudes, which order as they do; NaN is the largest of all and makes the block NaN. */
static inline void quantize_q8_0(void *row, const float *x, size_t count)
{
    uint8_t *b = row;
    for (size_t done = 0; done < count; done += 32, x += 32, b += 34) {
        uint32_t bits[32], most = 0;
        int8_t q[32];
        memcpy(bits, x, sizeof bits);
        for (int i = 0; i < 32; i++)
            most = (bits[i] & 0x7fffffffu) > most ? bits[i] & 0x7fffffffu : most;
        float largest = float_of_bits(most), by = most ? 127.0f / largest : 0;
        uint16_t d = half_of_float(largest / 127.0f);
        for (int i = 0; i < 32; i++)
            q[i] = (int8_t)(uint8_t)bits_of_float(x[i] * by + 12582912.0f); /* 1.5 · 2^23: the low bits are the number */
        memcpy(b, &d, 2);
        memcpy(b + 2, q, 32);
    }
}

static void dequantize_q4_0(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 18, y += 32) {
        float d = half_at(b);
        uint8_t q[16];
        memcpy(q, b + 2, 16);
        for (int i = 0; i < 16; i++)
            y[i] = d * (float)((q[i] & 15) - 8);
        for (int i = 0; i < 16; i++)
            y[i + 16] = d * (float)((q[i] >> 4) - 8);
    }
}

static void dequantize_q4_1(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 20, y += 32) {
        float d = half_at(b), m = half_at(b + 2);
        uint8_t q[16];
        memcpy(q, b + 4, 16);
        for (int i = 0; i < 16; i++)
            y[i] = d * (float)(q[i] & 15) + m;
        for (int i = 0; i < 16; i++)
            y[i + 16] = d * (float)(q[i] >> 4) + m;
    }
}

/* 32 five-bit numbers. */
static inline void five_bits(const uint8_t *high, const uint8_t *nibbles, int32_t q[32])
{
    uint32_t bits;
    memcpy(&bits, high, 4);
    for (int i = 0; i < 16; i++)
        q[i] = (nibbles[i] & 15) | (int32_t)((bits >> i & 1) << 4);
    for (int i = 0; i < 16; i++)
        q[i + 16] = (nibbles[i] >> 4) | (int32_t)((bits >> (i + 16) & 1) << 4);
}

static void dequantize_q5_0(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 22, y += 32) {
        float d = half_at(b);
        int32_t q[32];
        five_bits(b + 2, b + 6, q);
        for (int i = 0; i < 32; i++)
            y[i] = d * (float)(q[i] - 16);
    }
}

static void dequantize_q5_1(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 24, y += 32) {
        float d = half_at(b), m = half_at(b + 2);
        int32_t q[32];
        five_bits(b + 4, b + 8, q);
        for (int i = 0; i < 32; i++)
            y[i] = d * (float)q[i] + m;
    }
}

/* The j-th of eight 6-bit (scale, minimum) pairs packed in 12 bytes. */
static inline void scale_and_minimum(const uint8_t *s, int j, uint8_t *scale, uint8_t *minimum)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *minimum = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *minimum = (uint8_t)((s[j + 4] >> 4) | (s[j] >> 6) << 4);
    }
}

static void dequantize_q4_k(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 144) {
        float d = half_at(b), dmin = half_at(b + 2);
        for (int j = 0; j < 8; j += 2, y += 64) {
            uint8_t s0, s1, m0, m1, q[32];
            scale_and_minimum(b + 4, j, &s0, &m0);
            scale_and_minimum(b + 4, j + 1, &s1, &m1);
            float d0 = d * (float)s0, d1 = d * (float)s1, n0 = dmin * (float)m0, n1 = dmin * (float)m1;
            memcpy(q, b + 16 + j * 16, 32);
            for (int i = 0; i < 32; i++)
                y[i] = d0 * (float)(q[i] & 15) - n0;
            for (int i = 0; i < 32; i++)
                y[i + 32] = d1 * (float)(q[i] >> 4) - n1;
        }
    }
}

static void dequantize_q5_k(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 176) {
        float d = half_at(b), dmin = half_at(b + 2);
        uint8_t high[32];
        memcpy(high, b + 16, 32);
        for (int j = 0; j < 8; j += 2, y += 64) {
            uint8_t s0, s1, m0, m1, q[32];
            scale_and_minimum(b + 4, j, &s0, &m0);
            scale_and_minimum(b + 4, j + 1, &s1, &m1);
            float d0 = d * (float)s0, d1 = d * (float)s1, n0 = dmin * (float)m0, n1 = dmin * (float)m1;
            memcpy(q, b + 48 + j * 16, 32);
            for (int i = 0; i < 32; i++)
                y[i] = d0 * (float)((q[i] & 15) | (high[i] >> j & 1) << 4) - n0;
            for (int i = 0; i < 32; i++)
                y[i + 32] = d1 * (float)((q[i] >> 4) | (high[i] >> (j + 1) & 1) << 4) - n1;
        }
    }
}

static void dequantize_q6_k(const uint8_t *b, float *y, size_t blocks)
{
    for (; blocks--; b += 210) {
        float d = half_at(b + 208);
        for (int part = 0; part < 2; part++, y += 128) {
            uint8_t low[64], high[32];
            memcpy(low, b + part * 64, 64);
            memcpy(high, b + 128 + part * 32, 32);
            for (int group = 0; group < 8; group++) { /* of 16 elements */
                float scale = d * (float)(int8_t)b[192 + part * 8 + group];
                int quarter = group / 2, from = group % 2 * 16, shift = quarter / 2 * 4, lows = quarter % 2 * 32;
                for (int i = 0; i < 16; i++) {
                    int q = (low[lows + from + i] >> shift & 15) | (high[from + i] >> (2 * quarter) & 3) << 4;
                    y[group * 16 + i] = scale * (float)(q - 32);
                }
            }
        }
    }
}

static void dequantize_f16(const uint8_t *b, float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] = half_at(b + 2 * i);
}

static void dequantize_bf16(const uint8_t *b, float *y, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t h;
        memcpy(&h, b + 2 * i, 2);
        y[i] = float_of_bfloat(h);
    }
}

static void dequantize(int32_t dtype, const void *row, float *out, size_t count)
{
    switch (dtype) {
    case LATHE_F32: memcpy(out, row, count * sizeof(float)); break;
    case LATHE_F16: dequantize_f16(row, out, count); break;
    case LATHE_BF16: dequantize_bf16(row, out, count); break;
    case LATHE_Q8_0: dequantize_q8_0(row, out, count / 32); break;
    case LATHE_Q4_0: dequantize_q4_0(row, out, count / 32); break;
    case LATHE_Q4_1: dequantize_q4_1(row, out, count / 32); break;
    case LATHE_Q5_0: dequantize_q5_0(row, out, count / 32); break;
    case LATHE_Q5_1: dequantize_q5_1(row, out, count / 32); break;
    case LATHE_Q4_K: dequantize_q4_k(row, out, count / 256); break;
    case LATHE_Q5_K: dequantize_q5_k(row, out, count / 256); break;
    case LATHE_Q6_K: dequantize_q6_k(row, out, count / 256); break;
    default: break;
    }
}

#endif

/* SPDX-License-Identifier: MIT */
/* Rows of floats to 8 bits: loops that the compiler makes vectors of, included by each set. */
#ifndef LATHE_KERNELS_INTEGER_QUANTIZE_H
#define LATHE_KERNELS_INTEGER_QUANTIZE_H

#include <kernels/half.h>
#include <kernels/integer.h>

/* The largest is found among the bits of magnitudes, which order as they do; adding 1.5 · 2^23 rounds
 * to even, and the low bits are the number. */
static void quantize_row(void *row, const float *x, size_t columns)
{
    size_t blocks = columns / PACKED_BLOCK;
    unsigned char *p = row, *scales = p + columns, *sums = scales + 4 * blocks, *zeros = sums + 4 * blocks;
    for (size_t b = 0; b < blocks; b++, x += PACKED_BLOCK, p += PACKED_BLOCK) {
        uint32_t bits[PACKED_BLOCK], most = 0;
        int8_t q[PACKED_BLOCK];
        memcpy(bits, x, sizeof bits);
        for (int i = 0; i < PACKED_BLOCK; i++)
            most = (bits[i] & 0x7fffffffu) > most ? bits[i] & 0x7fffffffu : most;
        float largest = float_of_bits(most), by = 0, s = 0;
        if (most >= bits_of_float(0x1p-100f)) {
            by = 127.0f / largest;
            s = largest / 127.0f;
        }
        for (int i = 0; i < PACKED_BLOCK; i++)
            q[i] = (int8_t)(uint8_t)bits_of_float(x[i] * by + 12582912.0f);
        int32_t sum = 0;
        for (int i = 0; i < PACKED_BLOCK; i++)
            sum += q[i];
        float sum_scaled = s * (float)sum;
        sum *= -8;
        memcpy(p, q, sizeof q);
        memcpy(scales + 4 * b, &s, 4);
        memcpy(sums + 4 * b, &sum_scaled, 4);
        memcpy(zeros + 4 * b, &sum, 4);
    }
}

#endif

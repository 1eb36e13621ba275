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
    struct integer_block *to = row;
    for (size_t b = 0; b < columns / PACKED_BLOCK; b++, x += PACKED_BLOCK, to++) {
        uint32_t bits[PACKED_BLOCK], most = 0;
        int8_t p[PACKED_BLOCK];
        memcpy(bits, x, sizeof bits);
        for (int i = 0; i < PACKED_BLOCK; i++)
            most = (bits[i] & 0x7fffffffu) > most ? bits[i] & 0x7fffffffu : most;
        float largest = float_of_bits(most), by = 0, s = 0;
        if (most >= bits_of_float(0x1p-100f)) {
            by = 127.0f / largest;
            s = largest / 127.0f;
        }
        for (int i = 0; i < PACKED_BLOCK; i++)
            p[i] = (int8_t)(uint8_t)bits_of_float(x[i] * by + 12582912.0f);
        int32_t sum = 0;
        for (int i = 0; i < PACKED_BLOCK; i++)
            sum += p[i];
        memcpy(to->p, p, sizeof p);
        to->s = s;
        to->sum = s * (float)sum;
        to->zero = -8 * sum;
        to->unused = 0;
    }
}

#endif

/* SPDX-License-Identifier: MIT */
/* From a file's blocks to packed groups, and back to numbers: see packed.h. */
#include <math.h>

#include <kernels/dequantize.h>
#include <kernels/packed.h>

/* 32 columns of one row: q as the form wants them (nibbles: 16 bytes, as files have them), and the two scales. */
struct block {
    uint8_t q[PACKED_BLOCK];
    uint16_t a, b;
};

enum packed_form packed_form_of(int32_t dtype)
{
    switch (dtype) {
    case LATHE_Q4_0: return PACKED_NIBBLES;
    case LATHE_Q4_1: case LATHE_Q4_K: return PACKED_NIBBLES_PLUS;
    case LATHE_Q8_0: case LATHE_Q5_0: case LATHE_Q6_K: return PACKED_BYTES;
    case LATHE_Q5_1: case LATHE_Q5_K: return PACKED_BYTES_PLUS;
    default: return PACKED_NOT;
    }
}

/* A product of two scales; beyond what a half has, its largest. */
static uint16_t half_scale(float x)
{
    return half_of_float(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

static uint16_t u16_at(const uint8_t *bytes)
{
    uint16_t h;
    memcpy(&h, bytes, 2);
    return h;
}

static void five_bits_at(const uint8_t *high, const uint8_t *nibbles, int to, uint8_t *q)
{
    int32_t five[32];
    five_bits(high, nibbles, five);
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)(five[i] + to);
}

/* Numbers to 8 bits around 128, by the scale as it is stored. */
static void eight_bits(const float *x, struct block *to)
{
    float most = 0;
    for (int i = 0; i < PACKED_BLOCK; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    to->a = half_scale(most / 127.0f);
    float a = float_of_half(to->a);
    for (int i = 0; i < PACKED_BLOCK; i++) {
        float q = a > 0 ? rintf(x[i] / a) : 0;
        to->q[i] = (uint8_t)(128 + (q > 127 ? 127 : q < -127 ? -127 : (int)q));
    }
}

/* Block `at` of 32 columns in a row of a file. */
static void block_of(int32_t dtype, const uint8_t *row, size_t at, struct block *to)
{
    size_t each = lathe_dtype_block_bytes(dtype);
    const uint8_t *b = row + (lathe_dtype_block(dtype) == 256 ? at / 8 : at) * each;
    int j = (int)(at % 8);
    switch (dtype) {
    case LATHE_Q4_0:
        to->a = u16_at(b);
        memcpy(to->q, b + 2, 16);
        break;
    case LATHE_Q4_1:
        to->a = u16_at(b);
        to->b = u16_at(b + 2);
        memcpy(to->q, b + 4, 16);
        break;
    case LATHE_Q5_0:
        to->a = u16_at(b);
        five_bits_at(b + 2, b + 6, 128 - 16, to->q);
        break;
    case LATHE_Q5_1:
        to->a = u16_at(b);
        to->b = u16_at(b + 2);
        five_bits_at(b + 4, b + 8, 0, to->q);
        break;
    case LATHE_Q8_0:
        to->a = u16_at(b);
        for (int i = 0; i < 32; i++)
            to->q[i] = b[2 + i] ^ 128;
        break;
    case LATHE_Q6_K: {
        float x[256];
        dequantize(dtype, b, x, 256);
        eight_bits(x + 32 * j, to);
        break;
    }
    default: { /* Q4_K, Q5_K */
        uint8_t scale, minimum;
        const uint8_t *nibbles = b + (dtype == LATHE_Q5_K ? 48 : 16) + j / 2 * 32;
        int shift = j % 2 * 4;
        scale_and_minimum(b + 4, j, &scale, &minimum);
        to->a = half_scale(half_at(b) * (float)scale);
        to->b = half_scale(-(half_at(b + 2) * (float)minimum));
        for (int i = 0; dtype == LATHE_Q4_K && i < 16; i++)
            to->q[i] = (uint8_t)((nibbles[i] >> shift & 15) | (nibbles[i + 16] >> shift & 15) << 4);
        for (int i = 0; dtype == LATHE_Q5_K && i < 32; i++)
            to->q[i] = (uint8_t)((nibbles[i] >> shift & 15) | (b[16 + i] >> j & 1) << 4);
    }
    }
}

void packed_group(unsigned char *group, size_t lanes, int32_t dtype, const unsigned char *bytes, size_t row_bytes,
                  size_t rows, size_t columns)
{
    int form = (int)packed_form_of(dtype), plus = form == PACKED_NIBBLES_PLUS || form == PACKED_BYTES_PLUS;
    size_t blocks = columns / PACKED_BLOCK, quads = packed_quads_bytes(form, lanes), scales = packed_scales_bytes(form, lanes);
    memset(group, 0, packed_group_bytes(form, lanes, columns));
    for (size_t at = 0; at < blocks; at++) {
        unsigned char *to = group + at * quads, *factors = group + blocks * quads + at * scales;
        for (size_t r = 0; r < rows; r++) {
            struct block block;
            block_of(dtype, bytes + r * row_bytes, at, &block);
            memcpy(factors + 2 * r, &block.a, 2);
            if (plus)
                memcpy(factors + 2 * (lanes + r), &block.b, 2);
            for (size_t j = 0; j < (form < PACKED_BYTES ? 4 : 8); j++)
                memcpy(to + 4 * (j * lanes + r), block.q + 4 * j, 4);
        }
    }
}

void packed_row(float *out, const unsigned char *groups, int form, size_t lanes, size_t row, size_t columns)
{
    size_t blocks = columns / PACKED_BLOCK, quads = packed_quads_bytes(form, lanes), scales = packed_scales_bytes(form, lanes);
    const unsigned char *group = groups + row / lanes * packed_group_bytes(form, lanes, columns);
    size_t r = row % lanes;
    for (size_t at = 0; at < blocks; at++, out += PACKED_BLOCK) {
        const unsigned char *from = group + at * quads + 4 * r, *factors = group + blocks * quads + at * scales + 2 * r;
        float a = half_at(factors), b = scales > 2 * lanes ? half_at(factors + 2 * lanes) : 0;
        int zero = form == PACKED_NIBBLES ? 8 : form == PACKED_BYTES ? 128 : 0;
        for (size_t i = 0; i < PACKED_BLOCK; i++) {
            uint8_t q = from[4 * lanes * (form < PACKED_BYTES ? i / 4 % 4 : i / 4) + i % 4];
            if (form < PACKED_BYTES)
                q = i < 16 ? q & 15 : q >> 4;
            out[i] = a * (float)(q - zero) + b;
        }
    }
}

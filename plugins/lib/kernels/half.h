/* SPDX-License-Identifier: MIT */
/* IEEE half precision and bfloat16, one number at a time, exact: rounds to nearest even,
 * keeps infinities, NaN and subnormals. The vector kernels are tested against these. */
#ifndef LATHE_KERNELS_HALF_H
#define LATHE_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        float x = (float)fraction * 0x1p-24f; /* subnormal or zero: exact in float */
        return sign ? -x : x;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t half_of_float(float x)
{
    uint32_t bits = bits_of_float(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x1ff)); /* NaN stays NaN */
    if (magnitude >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u); /* 65520 and up round to infinity */
    if (magnitude < 0x38800000u) {         /* subnormal half: let the adder round, at 2^-24 */
        float y = float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(y) - 0x3f000000u));
    }
    magnitude += 0xfffu + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}

static inline float float_of_bfloat(uint16_t b)
{
    return float_of_bits((uint32_t)b << 16);
}

#endif

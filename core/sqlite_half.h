/* SPDX-License-Identifier: MIT */
/* A number in IEEE half precision, as attention_token packs it. */
#ifndef CORE_SQLITE_HALF_H
#define CORE_SQLITE_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Shifted into a float's place, its exponent is 112 short. */
static inline double sqlite_half(const uint8_t *p)
{
    uint16_t h;
    float value;
    memcpy(&h, p, sizeof h);
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    if (value >= 65536) /* infinity, or no number */
        value = h & 1023 ? NAN : INFINITY;
    return (double)(h & 0x8000 ? -value : value);
}

#endif

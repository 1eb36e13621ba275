/* SPDX-License-Identifier: MIT */
/* Quantized weights as integer products read them: rows side by side, as many as a vector has lanes.
 *
 *     a group of `lanes` rows, k columns in blocks of 32:
 *
 *     quads of block 0 │ of block 1 │ … │ a (, b) of block 0 │ of block 1 │ … │ padding to 64 bytes
 *     a quad: columns 4j … 4j + 3 of each row, one row after the other: a vector of 4 · lanes bytes
 *     nibbles: four vectors, vector j with quad j in the low and quad j + 4 in the high four bits
 *     bytes:   eight vectors
 *     a, b: (lanes) half precision each; b only where there is a minimum
 *
 *                     w =                    of
 *     NIBBLES         a · (q − 8)            Q4_0
 *     NIBBLES_PLUS    a · q + b              Q4_1, Q4_K
 *     BYTES           a · (q − 128)          Q8_0, Q5_0, Q6_K
 *     BYTES_PLUS      a · q + b              Q5_1, Q5_K
 *
 * So one row of x is read as broadcast quads, each lane sums for its own row of W, and nothing is
 * folded across lanes. The types of 32 stay what they were to the bit, and as large but for the
 * fifth bits. K types have scales of their own precision: rounded to a half, 2^-12 of themselves
 * at most. Q6_K, whose scales are of 16 columns, is quantized again, to 8 bits by 32 columns.
 * Rows that fill up the last group are zero.
 *
 * Lanes are 4 to 16, so NEON's sdot (a quad of four rows, bytes − 128) fits as it is. */
#ifndef LATHE_KERNELS_PACKED_H
#define LATHE_KERNELS_PACKED_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/tensor.h>

enum { PACKED_BLOCK = 32, PACKED_MOST_LANES = 16 };
enum packed_form { PACKED_NOT, PACKED_NIBBLES, PACKED_NIBBLES_PLUS, PACKED_BYTES, PACKED_BYTES_PLUS };

static inline size_t packed_quads_bytes(int form, size_t lanes) /* of a block */
{
    return (form >= PACKED_BYTES ? 32 : 16) * lanes;
}

static inline size_t packed_scales_bytes(int form, size_t lanes)
{
    return (form == PACKED_NIBBLES || form == PACKED_BYTES ? 2 : 4) * lanes;
}

static inline size_t packed_group_bytes(int form, size_t lanes, size_t columns)
{
    size_t block = packed_quads_bytes(form, lanes) + packed_scales_bytes(form, lanes);
    return (columns / PACKED_BLOCK * block + 63) & ~(size_t)63;
}

/* PACKED_NOT: this type has no integer form. [any] */
enum packed_form packed_form_of(int32_t dtype);

/* Writes one group: `rows` (at most lanes) rows of a file, row_bytes apart. [any] */
void packed_group(unsigned char *group, size_t lanes, int32_t dtype, const unsigned char *bytes, size_t row_bytes,
                  size_t rows, size_t columns);

/* out (columns) = one row of packed groups, as numbers. [any] */
void packed_row(float *out, const unsigned char *groups, int form, size_t lanes, size_t row, size_t columns);

#endif

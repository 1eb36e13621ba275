/* SPDX-License-Identifier: MIT */
/* What an array of numbers is: its element type, shape and strides.
 *
 * Shapes are written outermost first, as papers do: a weight of a linear layer
 * is (n_out, n_in), a GGUF's `ne` reversed. Quantized types are rows of blocks:
 * only the innermost dimension is packed, and it must be whole blocks. */
#ifndef LATHE_TENSOR_H
#define LATHE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

/* Numbered as GGUF numbers them (ggml.h, enum ggml_type), so that a file's
 * value is ours after a range check. */
enum lathe_dtype {
    LATHE_F32 = 0,
    LATHE_F16 = 1,
    LATHE_Q4_0 = 2,
    LATHE_Q4_1 = 3,
    LATHE_Q5_0 = 6,
    LATHE_Q5_1 = 7,
    LATHE_Q8_0 = 8,
    LATHE_Q4_K = 12,
    LATHE_Q5_K = 13,
    LATHE_Q6_K = 14,
    LATHE_I32 = 26,
    LATHE_BF16 = 30,
};

enum { LATHE_TENSOR_MAX_RANK = 4 };

/* A view: it owns nothing. `data` is valid as long as its owner says. */
struct lathe_tensor {
    int32_t dtype;
    uint32_t rank;                         /* 1 … LATHE_TENSOR_MAX_RANK */
    uint64_t shape[LATHE_TENSOR_MAX_RANK]; /* outermost first; 1 … */
    uint64_t row_bytes;                    /* bytes from one innermost row to the next */
    const void *data;
};

/* Elements and bytes of one block of a dtype; 0 where we don't know it. [any] */
static inline uint32_t lathe_dtype_block(int32_t dtype)
{
    switch (dtype) {
    case LATHE_F32: case LATHE_F16: case LATHE_BF16: case LATHE_I32: return 1;
    case LATHE_Q4_0: case LATHE_Q4_1: case LATHE_Q5_0: case LATHE_Q5_1: case LATHE_Q8_0: return 32;
    case LATHE_Q4_K: case LATHE_Q5_K: case LATHE_Q6_K: return 256;
    default: return 0;
    }
}

static inline uint32_t lathe_dtype_block_bytes(int32_t dtype)
{
    switch (dtype) {
    case LATHE_F32: case LATHE_I32: return 4;
    case LATHE_F16: case LATHE_BF16: return 2;
    case LATHE_Q4_0: return 18;
    case LATHE_Q4_1: return 20;
    case LATHE_Q5_0: return 22;
    case LATHE_Q5_1: return 24;
    case LATHE_Q8_0: return 34;
    case LATHE_Q4_K: return 144;
    case LATHE_Q5_K: return 176;
    case LATHE_Q6_K: return 210;
    default: return 0;
    }
}

static inline const char *lathe_dtype_name(int32_t dtype)
{
    switch (dtype) {
    case LATHE_F32: return "F32";
    case LATHE_F16: return "F16";
    case LATHE_BF16: return "BF16";
    case LATHE_I32: return "I32";
    case LATHE_Q4_0: return "Q4_0";
    case LATHE_Q4_1: return "Q4_1";
    case LATHE_Q5_0: return "Q5_0";
    case LATHE_Q5_1: return "Q5_1";
    case LATHE_Q8_0: return "Q8_0";
    case LATHE_Q4_K: return "Q4_K";
    case LATHE_Q5_K: return "Q5_K";
    case LATHE_Q6_K: return "Q6_K";
    default: return "unknown";
    }
}

#endif

/* SPDX-License-Identifier: MIT */
/* The bytes of keys and values: a pool of blocks, and what is swapped out of it.
 *
 *     pool   block 0 | block 1 | …            a block: all layers of block_tokens positions
 *     block  layer 0 keys, values | layer 1 keys, values | …
 *     side   (kv_heads, block_tokens, head_width)
 *
 * A head's keys of one block are contiguous, since attention reads them head by head; a
 * block is contiguous, since it is swapped as one. Swapped blocks lie in room taken when
 * the pool is opened (option swap_blocks of the model): nothing is allocated in a step. */
#ifndef LATHE_FORWARD_KV_H
#define LATHE_FORWARD_KV_H

#include <lathe/host.h>
#include <lathe/model.h>

struct forward_kv {
    const struct lathe_host *host;
    unsigned char *bytes, *swap;
    struct forward_swapped {
        uint64_t handle;
        int used;
    } *swapped;                 /* swap_blocks of them */
    uint32_t layers, kv_heads, head_width, block_tokens, blocks, swap_blocks;
    int32_t dtype;              /* one of forward_kv_dtypes */
    size_t row_bytes;           /* one head's key of one position */
    size_t head_bytes, side_bytes, block_bytes;
};

struct forward_kv_shape {
    uint32_t layers, kv_heads, head_width, swap_blocks;
};

/* Bytes of keys and values a position takes. */
uint64_t forward_kv_bytes_per_token(const struct forward_kv_shape *shape, int32_t dtype);

/* What they can be kept in: bits 1 << enum lathe_dtype. Another is refused with a sentence. */
uint32_t forward_kv_dtypes(const struct forward_kv_shape *shape);
int forward_kv_dtype_check(const struct forward_kv_shape *shape, int32_t dtype, struct lathe_error *err);

/* LATHE_ENOMEM names the bytes wanted; nothing is kept then. [loader] */
int forward_kv_open(struct forward_kv *kv, const struct lathe_host *host, const struct forward_kv_shape *shape,
                    const struct lathe_context_params *params, struct lathe_error *err);
void forward_kv_close(struct forward_kv *kv); /* a zeroed one is fine */

/* Carries out a forward's operations in order. [engine & running] */
int forward_kv_ops(struct forward_kv *kv, const struct lathe_kv_op *ops, uint64_t count, struct lathe_error *err);

/* (block_tokens, head_width) of one head; `side` 0: keys, 1: values. */
static inline void *forward_kv_at(const struct forward_kv *kv, int32_t block, uint32_t layer, int side, uint32_t kv_head)
{
    return kv->bytes + (size_t)block * kv->block_bytes + ((size_t)layer * 2 + (size_t)side) * kv->side_bytes +
           kv_head * kv->head_bytes;
}

#endif

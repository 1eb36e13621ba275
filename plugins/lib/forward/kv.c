/* SPDX-License-Identifier: MIT */
/* The pool of keys and values: see kv.h. */
#include <inttypes.h>
#include <string.h>

#include <forward/kv.h>

static size_t row_bytes(const struct forward_kv_shape *shape, int32_t dtype)
{
    return (size_t)shape->head_width / lathe_dtype_block(dtype) * lathe_dtype_block_bytes(dtype);
}

uint64_t forward_kv_bytes_per_token(const struct forward_kv_shape *shape, int32_t dtype)
{
    return 2ull * shape->layers * shape->kv_heads * row_bytes(shape, dtype);
}

uint32_t forward_kv_dtypes(const struct forward_kv_shape *shape)
{
    uint32_t whole_blocks = shape->head_width % lathe_dtype_block(LATHE_Q8_0) == 0;
    return 1u << LATHE_F32 | 1u << LATHE_F16 | whole_blocks << LATHE_Q8_0;
}

int forward_kv_dtype_check(const struct forward_kv_shape *shape, int32_t dtype, struct lathe_error *err)
{
    if (dtype >= 0 && dtype < 32 && forward_kv_dtypes(shape) >> dtype & 1)
        return 0;
    if (dtype == LATHE_Q8_0)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "keys and values in Q8_0 are packed by %u elements; this model's heads have "
                          "%u: keep them in F16 or F32", lathe_dtype_block(dtype), shape->head_width);
    return lathe_fail(err, LATHE_EUNSUPPORTED, "keys and values are kept in F32, F16 or Q8_0, not %s", lathe_dtype_name(dtype));
}

int forward_kv_open(struct forward_kv *kv, const struct lathe_host *host, const struct forward_kv_shape *shape,
                    const struct lathe_context_params *params, struct lathe_error *err)
{
    size_t bytes = 0, swap = 0;
    memset(kv, 0, sizeof *kv);
    kv->host = host;
    kv->layers = shape->layers;
    kv->kv_heads = shape->kv_heads;
    kv->head_width = shape->head_width;
    kv->swap_blocks = shape->swap_blocks;
    kv->block_tokens = params->block_tokens;
    kv->blocks = params->blocks;
    kv->dtype = params->kv_dtype;
    kv->row_bytes = row_bytes(shape, kv->dtype);
    if (__builtin_mul_overflow(kv->row_bytes, (size_t)kv->block_tokens, &kv->head_bytes) ||
        __builtin_mul_overflow(kv->head_bytes, (size_t)kv->kv_heads, &kv->side_bytes) ||
        __builtin_mul_overflow(kv->side_bytes, (size_t)kv->layers * 2, &kv->block_bytes) ||
        __builtin_mul_overflow(kv->block_bytes, (size_t)kv->blocks, &bytes) ||
        __builtin_mul_overflow(kv->block_bytes, (size_t)kv->swap_blocks, &swap) || bytes > PTRDIFF_MAX ||
        swap > PTRDIFF_MAX)
        return lathe_fail(err, LATHE_ENOMEM, "%u KV blocks of %u tokens are more bytes than can be counted: ask for fewer",
                          kv->blocks, kv->block_tokens);
    kv->bytes = host->alloc(host->context, bytes, 64);
    if (!kv->bytes)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u KV blocks of %u tokens: %zu bytes wanted; ask for fewer "
                          "blocks", kv->blocks, kv->block_tokens, bytes);
    if (kv->swap_blocks) {
        kv->swap = host->alloc(host->context, swap, 64);
        kv->swapped = lathe_alloc_array(host, kv->swap_blocks, sizeof *kv->swapped);
        if (!kv->swap || !kv->swapped) {
            forward_kv_close(kv);
            return lathe_fail(err, LATHE_ENOMEM, "no memory for %u swapped KV blocks: %zu bytes wanted; lower swap_blocks",
                              shape->swap_blocks, swap);
        }
    }
    return 0;
}

void forward_kv_close(struct forward_kv *kv)
{
    if (!kv->host)
        return;
    lathe_free(kv->host, kv->bytes);
    lathe_free(kv->host, kv->swap);
    lathe_free(kv->host, kv->swapped);
    memset(kv, 0, sizeof *kv);
}

static struct forward_swapped *find(struct forward_kv *kv, int used, uint64_t handle)
{
    for (uint32_t i = 0; i < kv->swap_blocks; i++)
        if (kv->swapped[i].used == used && (!used || kv->swapped[i].handle == handle))
            return &kv->swapped[i];
    return NULL;
}

static unsigned char *swap_bytes(struct forward_kv *kv, const struct forward_swapped *place)
{
    return kv->swap + (size_t)(place - kv->swapped) * kv->block_bytes;
}

static int bad_block(const struct forward_kv *kv, uint64_t i, int32_t block, struct lathe_error *err)
{
    if (block >= 0 && (uint32_t)block < kv->blocks)
        return 0;
    return lathe_fail(err, LATHE_ERANGE, "forward: KV operation %" PRIu64 " names block %d; the pool has %u", i, block,
                      kv->blocks);
}

static int copy(struct forward_kv *kv, uint64_t i, const struct lathe_kv_op *op, struct lathe_error *err)
{
    if (op->tokens > kv->block_tokens)
        return lathe_fail(err, LATHE_ERANGE, "forward: KV operation %" PRIu64 " copies %u tokens of a block of %u", i,
                          op->tokens, kv->block_tokens);
    if (bad_block(kv, i, op->from, err) || bad_block(kv, i, op->to, err))
        return LATHE_ERANGE;
    if (op->from == op->to)
        return 0;
    for (uint32_t layer = 0; layer < kv->layers; layer++)
        for (int side = 0; side < 2; side++)
            for (uint32_t h = 0; h < kv->kv_heads; h++)
                memcpy(forward_kv_at(kv, op->to, layer, side, h), forward_kv_at(kv, op->from, layer, side, h),
                       op->tokens * kv->row_bytes);
    return 0;
}

static int move_out(struct forward_kv *kv, uint64_t i, const struct lathe_kv_op *op, struct lathe_error *err)
{
    if (bad_block(kv, i, op->from, err))
        return LATHE_ERANGE;
    if (find(kv, 1, op->handle))
        return lathe_fail(err, LATHE_EBUSY, "forward: KV operation %" PRIu64 " swaps out under handle %" PRIu64
                          ", which is taken", i, op->handle);
    struct forward_swapped *place = find(kv, 0, 0);
    if (!place)
        return lathe_fail(err, LATHE_EFULL, "forward: no room to swap a KV block out; the model was made with swap_blocks "
                          "%u", kv->swap_blocks);
    place->used = 1;
    place->handle = op->handle;
    memcpy(swap_bytes(kv, place), kv->bytes + (size_t)op->from * kv->block_bytes, kv->block_bytes);
    return 0;
}

static int move_in(struct forward_kv *kv, uint64_t i, const struct lathe_kv_op *op, struct lathe_error *err)
{
    struct forward_swapped *place = find(kv, 1, op->handle);
    if (bad_block(kv, i, op->to, err))
        return LATHE_ERANGE;
    if (!place)
        return lathe_fail(err, LATHE_ENOTFOUND, "forward: KV operation %" PRIu64 " swaps in handle %" PRIu64
                          ", under which nothing lies", i, op->handle);
    memcpy(kv->bytes + (size_t)op->to * kv->block_bytes, swap_bytes(kv, place), kv->block_bytes);
    place->used = 0;
    return 0;
}

int forward_kv_ops(struct forward_kv *kv, const struct lathe_kv_op *ops, uint64_t count, struct lathe_error *err)
{
    for (uint64_t i = 0; i < count; i++) {
        const struct lathe_kv_op *op = &ops[i];
        struct forward_swapped *place;
        int status = 0;
        switch (op->kind) {
        case LATHE_KV_COPY: status = copy(kv, i, op, err); break;
        case LATHE_KV_MOVE_OUT: status = move_out(kv, i, op, err); break;
        case LATHE_KV_MOVE_IN: status = move_in(kv, i, op, err); break;
        case LATHE_KV_DROP:
            if ((place = find(kv, 1, op->handle)))
                place->used = 0;
            break;
        default:
            status = lathe_fail(err, LATHE_EUNSUPPORTED, "forward: KV operation %" PRIu64 " is of kind %d; 1 to 4 are known",
                                i, op->kind);
        }
        if (status)
            return status;
    }
    return 0;
}

/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_ALIGN = 16, BLOCK_ALIGN = 64 };

struct arena_block {
    struct arena_block *older;
    size_t capacity, used; /* of bytes[] */
    _Alignas(BLOCK_ALIGN) unsigned char bytes[];
};

static struct arena_block *make_block(size_t capacity)
{
    size_t total;
    if (__builtin_add_overflow(capacity, sizeof(struct arena_block) + BLOCK_ALIGN, &total))
        return NULL;
    total &= ~(size_t)(BLOCK_ALIGN - 1);
    struct arena_block *block = aligned_alloc(BLOCK_ALIGN, total);
    if (!block)
        return NULL;
    block->older = NULL;
    block->capacity = capacity;
    block->used = 0;
    return block;
}

int arena_open(struct arena *arena, size_t bytes, int grows, size_t limit_bytes, struct lathe_error *err)
{
    memset(arena, 0, sizeof *arena);
    if (limit_bytes > 0 && bytes > limit_bytes)
        return lathe_fail(err, LATHE_EINVAL, "an arena of %zu bytes is beyond its own limit of %zu", bytes,
                          limit_bytes);
    arena->block = make_block(bytes);
    if (!arena->block)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for an arena of %zu bytes", bytes);
    arena->grows = grows;
    arena->limit_bytes = limit_bytes;
    arena->total_bytes = bytes;
    return LATHE_OK;
}

static void free_older(struct arena_block *block)
{
    while (block->older) {
        struct arena_block *older = block->older;
        block->older = older->older;
        free(older);
    }
}

void arena_close(struct arena *arena)
{
    if (arena->block) {
        free_older(arena->block);
        free(arena->block);
    }
    memset(arena, 0, sizeof *arena);
}

/* A block that surely holds `bytes` aligned: 1, or 0 when it may not be had. */
static int grow(struct arena *arena, size_t bytes, size_t align)
{
    size_t need, wish, total;
    if (!arena->grows || __builtin_add_overflow(bytes, align, &need))
        return 0;
    wish = arena->block->capacity <= SIZE_MAX / 4 ? arena->block->capacity * 2 : need;
    if (wish < need)
        wish = need;
    if (__builtin_add_overflow(arena->total_bytes, wish, &total))
        return 0;
    if (arena->limit_bytes > 0 && total > arena->limit_bytes) {
        wish = need;
        if (__builtin_add_overflow(arena->total_bytes, wish, &total) || total > arena->limit_bytes)
            return 0;
    }
    struct arena_block *block = make_block(wish);
    if (!block)
        return 0;
    block->older = arena->block;
    arena->block = block;
    arena->total_bytes = total;
    return 1;
}

static void *take_from(struct arena_block *block, size_t bytes, size_t align)
{
    uintptr_t start = (uintptr_t)block->bytes;
    size_t at = ((start + block->used + align - 1) & ~(uintptr_t)(align - 1)) - start, end;
    if (__builtin_add_overflow(at, bytes, &end) || end > block->capacity)
        return NULL;
    block->used = end;
    return memset(block->bytes + at, 0, bytes);
}

void *arena_take(struct arena *arena, size_t bytes, size_t align)
{
    if (align == 0)
        align = DEFAULT_ALIGN;
    if (!arena->block || align & (align - 1) || align > SIZE_MAX / 4)
        return NULL;
    void *memory = take_from(arena->block, bytes, align);
    if (!memory && grow(arena, bytes, align))
        memory = take_from(arena->block, bytes, align);
    if (memory) {
        arena->used_bytes += bytes;
        if (arena->used_bytes > arena->peak_bytes)
            arena->peak_bytes = arena->used_bytes;
    }
    return memory;
}

void *arena_take_array(struct arena *arena, size_t count, size_t each, size_t align)
{
    size_t bytes;
    return __builtin_mul_overflow(count, each, &bytes) ? NULL : arena_take(arena, bytes, align);
}

char *arena_copy_text(struct arena *arena, const char *text, size_t bytes)
{
    char *copy = bytes < SIZE_MAX ? arena_take(arena, bytes + 1, 1) : NULL;
    if (copy && bytes > 0)
        memcpy(copy, text, bytes);
    return copy;
}

void arena_reset(struct arena *arena)
{
    if (!arena->block)
        return;
    free_older(arena->block); /* the newest is mostly the largest */
    arena->block->used = 0;
    arena->total_bytes = arena->block->capacity;
    arena->used_bytes = 0;
}

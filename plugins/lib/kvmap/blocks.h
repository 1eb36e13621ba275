/* SPDX-License-Identifier: MIT */
/* Of the library alone: single blocks, and a slot's figures. */
#ifndef KVMAP_BLOCKS_H
#define KVMAP_BLOCKS_H

#include "kvmap.h"

static inline uint32_t free_blocks(const struct kvmap *map)
{
    return map->freed_count + (map->blocks - map->fresh);
}

/* What was used last goes first, as it may still be in the caches. There is one. */
static inline int32_t block_take(struct kvmap *map)
{
    int32_t block = map->freed_count ? map->freed[--map->freed_count] : (int32_t)map->fresh++;
    map->references[block] = 1;
    kvmap_bump(&map->used, 1);
    return block;
}

static inline void block_share(struct kvmap *map, int32_t block)
{
    if (++map->references[block] == 2)
        kvmap_bump(&map->shared, 1);
}

/* 1: it is free now. */
static inline int block_drop(struct kvmap *map, int32_t block)
{
    uint32_t left = --map->references[block];
    if (left == 1)
        kvmap_bump(&map->shared, UINT32_MAX);
    if (left > 0)
        return 0;
    map->freed[map->freed_count++] = block;
    kvmap_bump(&map->used, UINT32_MAX);
    return 1;
}

/* A slot's new figures, and with them the pool's; unsigned wrap-around subtracts rightly. */
static inline void count_slot(struct kvmap *map, struct kvmap_slot *s, uint32_t count, uint32_t held, uint32_t filled,
                              uint32_t kept)
{
    if (held != s->held)
        kvmap_bump_tokens(&map->reserved_tokens, ((uint64_t)held - s->held) * map->block_tokens);
    kvmap_bump_tokens(&map->filled_tokens, (uint64_t)kept - s->kept);
    map->holes += (count - held) - (s->count - s->held);
    s->count = count;
    s->held = held;
    s->filled = filled;
    s->kept = kept;
}

/* A new request's slot. */
int take_slot(struct kvmap *map, const struct lathe_request *req, struct lathe_error *err);

#endif

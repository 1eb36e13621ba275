/* SPDX-License-Identifier: MIT */
/* See pool.h. */
#include "pool.h"

#include <string.h>

static size_t size_of(int order)
{
    return (size_t)POOL_SMALLEST << order;
}

static int order_of(size_t bytes)
{
    int order = 0;
    while (order < POOL_ORDERS && size_of(order) < bytes)
        order++;
    return order;
}

static void put(struct pool *pool, size_t at, int order)
{
    struct pool_block *block = (void *)(pool->region + at);
    *block = (struct pool_block){ .next = pool->free[order] };
    if (block->next)
        block->next->previous = block;
    pool->free[order] = block;
    pool->tags[at / POOL_SMALLEST] = (uint8_t)(order + 1);
}

static void take(struct pool *pool, size_t at, int order)
{
    struct pool_block *block = (void *)(pool->region + at);
    if (block->next)
        block->next->previous = block->previous;
    if (block->previous)
        block->previous->next = block->next;
    else
        pool->free[order] = block->next;
    pool->tags[at / POOL_SMALLEST] = 0;
}

/* What lies above the first 2^to of a block of 2^from is given back. */
static void split(struct pool *pool, size_t at, int from, int to)
{
    while (from > to) {
        from--;
        put(pool, at + size_of(from), from);
    }
}

static void *cut(struct pool *pool, int order)
{
    int from = order;
    while (from < POOL_ORDERS && !pool->free[from])
        from++;
    if (from >= POOL_ORDERS)
        return NULL;
    size_t at = (size_t)((char *)pool->free[from] - pool->region);
    take(pool, at, from);
    split(pool, at, from, order);
    pool->used += size_of(order);
    return pool->region + at;
}

static void give_back(struct pool *pool, void *memory, int order)
{
    size_t at = (size_t)((char *)memory - pool->region);
    pool->used -= size_of(order);
    for (; order + 1 < POOL_ORDERS; order++) {
        size_t other = at ^ size_of(order);
        if (other + size_of(order) > pool->bytes || pool->tags[other / POOL_SMALLEST] != order + 1)
            break;
        take(pool, other, order);
        at = at < other ? at : other;
    }
    put(pool, at, order);
}

size_t pool_needs(size_t bytes)
{
    return bytes + bytes / POOL_SMALLEST;
}

/* A region that is no power of two long becomes several blocks, each where its size divides. */
void pool_open(struct pool *pool, void *memory, size_t bytes)
{
    *pool = (struct pool){ .region = memory, .bytes = bytes / POOL_SMALLEST * POOL_SMALLEST };
    pool->tags = (uint8_t *)memory + pool->bytes;
    for (size_t at = 0; at < pool->bytes;) {
        int order = 0;
        while (order + 1 < POOL_ORDERS && at % size_of(order + 1) == 0 && at + size_of(order + 1) <= pool->bytes)
            order++;
        put(pool, at, order);
        at += size_of(order);
    }
}

void *pool_resize(struct pool *pool, void *memory, size_t before, size_t bytes)
{
    int order = order_of(bytes);
    if (!memory)
        return bytes ? cut(pool, order) : NULL;
    int old = order_of(before);
    if (bytes == 0) {
        give_back(pool, memory, old);
        return NULL;
    }
    if (order <= old) {
        split(pool, (size_t)((char *)memory - pool->region), old, order);
        pool->used -= size_of(old) - size_of(order);
        return memory;
    }
    void *larger = cut(pool, order);
    if (!larger)
        return NULL;
    memcpy(larger, memory, before);
    give_back(pool, memory, old);
    return larger;
}

/* SPDX-License-Identifier: MIT */
/* Memory for one Lua state, in one region that was taken beforehand.
 *
 * Inside the step loop nothing may ask the system for memory, and a policy must not have more
 * than it was allowed: both come of themselves when all of it is set aside at the start. The
 * region is cut by halves into blocks of 32 · 2^k bytes (binary buddies: Knowlton, "A Fast
 * Storage Allocator", CACM 1965). A block that is given back meets its other half, if that is
 * free, as one block of the next order; so nothing stays in pieces for ever, and every call
 * takes at most one step an order.
 *
 * Lua says how large a block was when it gives it back, so blocks have no header. A byte for
 * each 32 says which of them begins a free block, of what order.
 *
 *     region  ┌──────────────┬──────┬──────┬─────────────────────────────┐
 *             │ in use, 128  │ 64   │ free │ free, 256                   │
 *     tags    │ 0            │ 0    │ 2    │ 4          (order + 1)      │ */
#ifndef SCHEDULER_LUA_POOL_H
#define SCHEDULER_LUA_POOL_H

#include <stddef.h>
#include <stdint.h>

enum { POOL_SMALLEST = 32, POOL_ORDERS = 32 };

struct pool_block {
    struct pool_block *next, *previous;
};

struct pool {
    char *region;
    uint8_t *tags;    /* (bytes / 32) */
    size_t bytes;     /* of the region, whole smallest blocks */
    size_t used;      /* in blocks that are in use */
    struct pool_block *free[POOL_ORDERS];
};

/* Of memory to be handed to pool_open, for a region of `bytes`. */
size_t pool_needs(size_t bytes);

/* `memory` is zeroed, pool_needs(bytes) long, and the pool's until it is forgotten. */
void pool_open(struct pool *pool, void *memory, size_t bytes);

/* As realloc, with the size that was asked for before (0 for a new block). NULL for 0 bytes,
 * and where no block is large enough: then the old one is as it was. Shrinking never fails. */
void *pool_resize(struct pool *pool, void *memory, size_t before, size_t bytes);

#endif

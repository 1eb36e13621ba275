/* SPDX-License-Identifier: MIT */
/* The block map that KV caches share: a pool, block tables, reference counts, swapping
 * (PagedAttention, SOSP 2023), and holes where a policy let positions go.
 *
 * The pool is cut into blocks of block_tokens positions. A request's table lists its blocks in
 * the order of its positions; they may lie anywhere, so the only waste is the last block's empty
 * end, and what a policy leaves of a block.
 *
 *     request 7, 37 positions     table  [ 4 | 0 | 9 ]
 *     request 8, fork of 7        table  [ 4 | 0 | 9 ]      references: 4:2 0:2 9:2
 *     request 8 writes at 37:     table  [ 4 | 0 | 2 ]      op: copy 5 positions of 9 to 2
 *     request 7 lets 16 … 31 go:  table  [ 4 | −1 | 9 ]     references: 4:2 0:1 9:1 2:1
 *
 * Invariants: a block is free, or has as many references as tables that list it; whoever writes
 * into a block is its only owner (copy on write); a call that fails has changed nothing. At most
 * one block of a table can be about to be written and not the request's own: the one that holds
 * position `filled`, since everything beyond is fresh.
 *
 * A plugin's instance opens with its struct kvmap, so that the functions here are slots of its
 * table as they are; a policy puts its own in front of a few of them (span.h, choice.h).
 *
 * Memory: nothing is written before it is used (a block never used is number `fresh`), so that of
 * tables of (max_requests, table_blocks) only the pages of requests that came are ever there.
 *
 * Counters for usage() are atomics with one writer: other threads may read them. */
#ifndef KVMAP_KVMAP_H
#define KVMAP_KVMAP_H

#include <stdatomic.h>

#include <lathe/kvcache.h>

#include "options.h"

/* Blocks in host memory, under handles in a row. */
struct kvmap_range {
    uint64_t handle; /* handle … handle + count − 1 */
    uint32_t count;
};

struct kvmap_slot {
    uint64_t id;     /* the request's; 0: free */
    uint32_t count;  /* entries of its table */
    uint32_t held;   /* of them blocks; the others are holes, −1 */
    uint32_t filled; /* positions that were stored */
    uint32_t kept;   /* of them those that may still be looked at */
    /* Of one that lies in host memory (swapped.count > 0): its table counts none, and what it was is here.
     * Where it had holes stays in the table's memory. */
    struct kvmap_range swapped;
    uint32_t swapped_entries, swapped_filled, swapped_kept, swapped_truncated;
};

struct kvmap {
    const struct lathe_host *host;
    const char *name; /* the plugin's, for sentences */
    struct kvmap_wishes wishes;
    /* What truncates, if it isn't kvmap_truncate: called too when somebody comes back who was truncated while
     * swapped out. A policy sets it after kvmap_create. */
    void (*truncate)(void *self, const struct lathe_request *req, uint32_t tokens);

    uint32_t max_requests, table_blocks; /* table_blocks: most that one request may have */
    uint32_t block_tokens, blocks;
    uint32_t admitted;                   /* requests that it knows */
    struct kvmap_slot *slots;            /* (max_requests); NULL before layout */
    int32_t *tables;                     /* (max_requests, table_blocks) */
    uint32_t *references;                /* (blocks) */
    int32_t *freed;                      /* a stack of blocks that were used before; (blocks) */
    uint32_t freed_count, fresh;         /* fresh: blocks from here on were never used */
    uint32_t holes;                      /* of all tables */

    /* Handles of requests that were released while swapped out are dropped by the next calls that have
     * room for operations. Swapped requests and waiting drops together never exceed max_requests, so that
     * release can't fail. */
    struct kvmap_range *drops;           /* a ring; (max_requests) */
    uint32_t drop_first, drop_count, swapped_requests;
    uint64_t next_handle;

    atomic_uint used, shared;
    atomic_uint_least64_t reserved_tokens, filled_tokens, evicted_blocks, evicted_tokens;
};

/* ── Slots of a plugin's table ──────────────────────────────────────────────────────── */

int kvmap_layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                 struct lathe_error *err);
int kvmap_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err);
uint32_t kvmap_blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens);
uint32_t kvmap_blocks_available(void *self);
int kvmap_reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                  struct lathe_error *err);
void kvmap_table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count);
void kvmap_filled(void *self, const struct lathe_request *req, uint32_t tokens);
void kvmap_truncate(void *self, const struct lathe_request *req, uint32_t tokens);
void kvmap_release(void *self, const struct lathe_request *req);
void kvmap_usage(void *self, struct lathe_kv_usage *usage);
int kvmap_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child,
               struct lathe_error *err);
int kvmap_preempt_choice(void *self, const struct lathe_request *req);
int kvmap_swap_out(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err);
int kvmap_swap_in(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err);

/* ── For policies ───────────────────────────────────────────────────────────────────── */

/* An instance of `bytes`, zeroed but for the struct kvmap that it opens with. `budgets`: the plugin has
 * KVMAP_BUDGET_OPTIONS too. */
int kvmap_create(const struct lathe_host *host, const struct lathe_config *config, const char *name, int budgets,
                 size_t bytes, void **self, struct lathe_error *err);
/* Frees what layout made; the instance itself is the caller's to free. */
void kvmap_close(struct kvmap *map);

/* The slot of an admitted request, or NULL. */
static inline struct kvmap_slot *kvmap_slot(const struct kvmap *map, const struct lathe_request *req)
{
    if (!map->slots || req->index >= map->max_requests || map->slots[req->index].id != req->id || req->id == 0)
        return NULL;
    return &map->slots[req->index];
}

static inline int32_t *kvmap_entries(const struct kvmap *map, const struct kvmap_slot *s)
{
    return map->tables + (size_t)(s - map->slots) * map->table_blocks;
}

static inline uint32_t kvmap_blocks_for(const struct kvmap *map, uint32_t tokens)
{
    return tokens / map->block_tokens + (tokens % map->block_tokens != 0);
}

/* Positions that a request may keep now, UINT32_MAX: any number. The pool's budget is shared evenly by
 * those admitted; each comes down to its share at its own next step. */
uint32_t kvmap_limit(const struct kvmap *map);
/* The most that a request ever keeps, at most what a table holds; 0 where nothing is ever evicted. */
uint32_t kvmap_most_kept(const struct kvmap *map);

/* `count` of its positions may no longer be looked at. */
void kvmap_evict_tokens(struct kvmap *map, struct kvmap_slot *s, uint32_t count);
/* None of the positions of this entry may be: the block goes back, the entry is a hole. One that is a hole
 * already, or beyond the table, is left alone. */
void kvmap_evict_block(struct kvmap *map, struct kvmap_slot *s, uint32_t entry);
/* Forget positions from `tokens` on; of those before, `kept` may be looked at. */
void kvmap_cut(struct kvmap *map, struct kvmap_slot *s, uint32_t tokens, uint32_t kept);

/* Figures that [any] may read; one thread alone writes them, so no locked instruction. */
static inline void kvmap_bump(atomic_uint *figure, uint32_t by) /* UINT32_MAX: one less */
{
    atomic_store_explicit(figure, atomic_load_explicit(figure, memory_order_relaxed) + by, memory_order_relaxed);
}

static inline void kvmap_bump_tokens(atomic_uint_least64_t *figure, uint64_t by)
{
    atomic_store_explicit(figure, atomic_load_explicit(figure, memory_order_relaxed) + by, memory_order_relaxed);
}

int kvmap_unknown(const struct kvmap *map, const struct lathe_request *req, const char *call, struct lathe_error *err);

#endif

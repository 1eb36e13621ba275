/* SPDX-License-Identifier: MIT */
/* The pool's blocks and the tree of those that others may find.
 *
 * A node of the tree is a block: block_tokens tokens, all of them filled, and the block before it.
 * A path from the top spells a text from its first token on, and the keys and values of that text
 * lie in its blocks. Texts that begin alike share a path until they differ:
 *
 *     salt 0 ─▶ [You are a helpful] ─▶ [assistant. Answer] ─┬▶ [in French: Good]
 *                                                           └▶ [briefly: Why is t] ─▶ [he sky blue? Beca]
 *
 * Rejected: an edge of any length, as in SGLang's tree. Only whole blocks can be shared, so that a
 * longer edge would only be cut at blocks again. And vLLM's way, a hash of all tokens so far for each
 * block, without a tree: it must trust the hash, and may evict a block from under those that come
 * after it, which nobody can find then. Here the children of all nodes stand in one table by a hash
 * of (block before, tokens), in chains, and what a chain offers counts only if the block before it
 * and each token are the same. By induction a path that is found is the text that was looked for.
 *
 *     free ──take──▶ held ──publish──▶ held, in the tree ──last drop──▶ idle ─┐
 *      ▲              │ ▲                  │         ▲                        │
 *      ├── last drop ─┘ └──── withdraw ────┘         └──────── share ─────────┤
 *      └──────────────────── evicted, when `take` finds no other ─────────────┘
 *
 * Invariants: whoever refers to a node refers to all nodes above it; so below an idle node all are
 * idle, and every idle block can be had, leaf after leaf. A block has as many references as tables
 * list it. Nothing here allocates after blocks_open.
 *
 * The figures are atomics with one writer: other threads may read them. */
#ifndef PREFIX_BLOCKS_H
#define PREFIX_BLOCKS_H

#include <stdatomic.h>

#include <lathe/host.h>

enum { NO_BLOCK = -1 };

struct block {
    int32_t parent;      /* the block before it; NO_BLOCK: it is the first */
    int32_t next;        /* in its chain of the table */
    uint32_t hash;       /* of (parent or salt, tokens) */
    uint32_t references; /* tables that list it */
    uint32_t children;   /* nodes that come right after it */
    uint32_t place;      /* in the heap, from 1; 0: not in it */
    uint32_t uses;       /* requests that it was of use to */
    uint32_t in_tree;
    uint64_t salt;       /* texts of different salts have nothing in common; of first blocks */
    uint64_t left;       /* when its last reference went; no two are the same */
};

struct blocks_shape {
    uint32_t blocks, block_tokens;
    uint32_t hash_bits; /* of the hash that are used; 0: all collide, for tests */
    int lfu;            /* evict what served fewest, and of those what was left longest ago; 0: only the latter */
};

struct blocks {
    const struct lathe_host *host;
    struct blocks_shape shape;
    struct block *all;       /* (blocks) */
    int32_t *tokens;         /* of nodes; (blocks, block_tokens) */
    int32_t *free;           /* a stack; (blocks) */
    int32_t *chains;         /* (a power of two): the first of each; NO_BLOCK */
    int32_t *heap;           /* idle leaves, the next to be evicted at 0; (blocks) */
    uint32_t free_count, heap_count, chain_mask;
    uint64_t now;            /* counts what `left` says */

    atomic_uint used, shared, idle;
    atomic_uint_least64_t evicted;
};

/* LATHE_ENOMEM without a sentence when there is no memory; `host` is set in any case. */
int blocks_open(struct blocks *b, const struct lathe_host *host, const struct blocks_shape *shape);
void blocks_close(struct blocks *b); /* one that was never opened (zeroed) is ignored */

/* Blocks that `take` could give now. */
static inline uint32_t blocks_available(const struct blocks *b)
{
    return b->free_count + atomic_load_explicit(&b->idle, memory_order_relaxed);
}

/* One with one reference; if need be an idle one is evicted. At least one must be available. */
int32_t blocks_take(struct blocks *b);
void blocks_share(struct blocks *b, int32_t block); /* one reference more */
void blocks_drop(struct blocks *b, int32_t block);  /* one fewer */

/* The node after `parent` with these tokens (block_tokens of them), or NO_BLOCK. */
int32_t blocks_find(const struct blocks *b, uint64_t salt, int32_t parent, const int32_t *tokens);
/* A held block that isn't in the tree becomes such a node; there must be none yet. */
void blocks_publish(struct blocks *b, int32_t block, uint64_t salt, int32_t parent, const int32_t *tokens);
/* A held leaf is a node no longer; its holder may write into it. */
void blocks_withdraw(struct blocks *b, int32_t block);
/* All idle blocks are free, whatever they held. Nobody may hold any. */
void blocks_forget(struct blocks *b);

/* Figures that [any] may read; one thread alone writes them, so no locked instruction. */
static inline void figure_add(atomic_uint *figure, uint32_t by) /* UINT32_MAX: one less */
{
    atomic_store_explicit(figure, atomic_load_explicit(figure, memory_order_relaxed) + by, memory_order_relaxed);
}
static inline void figure_add_long(atomic_uint_least64_t *figure, uint64_t by)
{
    atomic_store_explicit(figure, atomic_load_explicit(figure, memory_order_relaxed) + by, memory_order_relaxed);
}

#endif

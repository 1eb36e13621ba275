/* SPDX-License-Identifier: MIT */
/* What the files of this plugin share: the map from requests to blocks.
 *
 *     plugin.c   options, layout, the table of functions
 *     map.c      a request's table: admit, reserve, filled, truncate, release, fork
 *     swap.c     out to host memory and back
 *     blocks.c   the pool and the tree; heap.c: who is evicted next
 *
 * A table lists nodes of the tree first, `known` of them, a path from the top; then blocks of the
 * request's own, which nobody finds. In them lie the positions that aren't a whole block yet, and
 * all of requests that share with nobody.
 *
 *     filled 37, block_tokens 16    table [ 4 | 0 | 9 ]    known 2: the nodes 4 and 0 */
#ifndef PREFIX_PREFIX_H
#define PREFIX_PREFIX_H

#include <lathe/kvcache.h>

#include "blocks.h"

enum { SHARE_ALL, SHARE_TENANT, SHARE_SESSION }; /* choices of the option share */

struct range {
    uint64_t handle; /* handle … handle + count − 1 */
    uint32_t count;
    uint32_t tokens; /* positions that they hold */
};

struct slot {
    uint64_t id;          /* the request's; 0: free */
    uint64_t salt;
    uint32_t count;       /* blocks in its table */
    uint32_t filled;      /* positions whose KV is valid */
    uint32_t known;       /* leading blocks that are nodes */
    uint32_t looked_up;   /* prompt tokens of a look-up that isn't counted yet, since nothing came of it; 0: none */
    int shares;           /* may its blocks be others', and others' its own? */
    struct range swapped; /* count > 0: it lies in host memory, its table is empty */
};

struct prefix {
    const struct lathe_host *host;
    int64_t want_block_tokens, want_blocks, want_memory_mb, hash_bits;
    int32_t want_dtype; /* −1: as the engine says */
    int preempt, share, lfu;

    uint32_t max_requests, table_blocks; /* table_blocks: most that one request may have */
    uint32_t block_tokens;
    struct slot *slots;                  /* (max_requests) */
    int32_t *tables;                     /* (max_requests, table_blocks) */
    struct blocks blocks;

    struct range *drops;                 /* a ring; (max_requests): see swap.c */
    uint32_t drop_first, drop_count, swapped_requests;
    uint64_t next_handle;

    atomic_uint_least64_t reserved_tokens, filled_tokens, hit_tokens, looked_up_tokens;
};

/* map.c */
int map_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err);
uint32_t map_blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens);
uint32_t map_blocks_available(void *self);
int map_reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                struct lathe_error *err);
void map_table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count);
void map_filled(void *self, const struct lathe_request *req, uint32_t tokens);
void map_truncate(void *self, const struct lathe_request *req, uint32_t tokens);
void map_release(void *self, const struct lathe_request *req);
int map_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child, struct lathe_error *err);
uint32_t map_cached_prefix(void *self, const struct lathe_request *req);

/* The slot of an admitted request, or NULL. */
struct slot *map_slot(struct prefix *p, const struct lathe_request *req);
int map_unknown(const struct lathe_request *req, const char *call, struct lathe_error *err);
/* Take references to the nodes that spell the first positions of `req`, at most `most` blocks of them, into an
 * empty table. How many: known and filled say. */
void map_adopt(struct prefix *p, struct slot *s, const struct lathe_request *req, uint32_t most);
/* How many of them there are, and of these, how many idle. */
uint32_t map_look(const struct prefix *p, const struct slot *s, const struct lathe_request *req, uint32_t most,
                  uint32_t *idle);
void map_cut(struct prefix *p, struct slot *s, uint32_t tokens);
void map_count(struct prefix *p, struct slot *s, uint32_t count, uint32_t filled);

static inline uint32_t blocks_for(const struct prefix *p, uint32_t tokens)
{
    return tokens / p->block_tokens + (tokens % p->block_tokens != 0);
}

static inline int32_t *table_of(const struct prefix *p, const struct slot *s)
{
    return p->tables + (size_t)(s - p->slots) * p->table_blocks;
}

/* swap.c */
int swap_preempt_choice(void *self, const struct lathe_request *req);
int swap_out(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err);
int swap_in(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err);
/* What a swapped request left is to be dropped. */
void swap_abandon(struct prefix *p, struct slot *s);
/* Drops that wait go out with other operations, `most` at a time. */
void swap_emit_drops(struct prefix *p, struct lathe_kv_ops *ops, uint32_t most);

#endif

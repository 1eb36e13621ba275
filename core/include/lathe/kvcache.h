/* SPDX-License-Identifier: MIT */
/* The kvcache seam: where do keys and values live, and which go first?
 *
 * The plugin owns the map: blocks, references, shared prefixes, which positions go.
 * The bytes are the model's; what must happen to them (copies, moves) is appended to
 * a list of operations that the next forward carries out first. In the host process,
 * called by the engine with pointers.
 *
 *     create → layout [main] → ┌ admit → reserve → filled → … → release ┐ → destroy
 *                              └────────── for each request ────────────┘
 *
 * Requests are known by their dense `index`. All calls are [engine & running] unless
 * they say otherwise: they allocate nothing, everything is sized by `layout`. */
#ifndef LATHE_KVCACHE_H
#define LATHE_KVCACHE_H

#include <lathe/host.h>
#include <lathe/model.h>
#include <lathe/request.h>

enum { LATHE_KVCACHE_ABI = 2 };

/* What the engine will ask of it. */
struct lathe_kv_demand {
    uint32_t size;
    uint32_t max_requests;       /* live at once */
    uint32_t context_tokens;     /* longest request */
    uint32_t reserved;
    uint64_t kv_bytes_per_token; /* the model's */
    uint64_t memory_bytes;       /* the pool may take this much; 0: as the options say */
};

/* What the model's context is then made with. */
struct lathe_kv_geometry {
    uint32_t block_tokens;
    uint32_t blocks;
};

/* Operations to be carried out by the next forward, in order. */
struct lathe_kv_ops {
    uint32_t capacity, count;
    struct lathe_kv_op *ops;
};

/* At most this many operations come of one call of reserve. swap_out and swap_in take one
 * for each block that they move, and say LATHE_EFULL, nothing changed, when the list has
 * no room for them. */
enum { LATHE_KV_OPS_PER_CALL = 4 };

struct lathe_kv_usage {
    uint32_t blocks_total;
    uint32_t blocks_used;      /* referred to by a live request, shared ones once */
    uint32_t blocks_cached;    /* kept for reuse, may be evicted */
    uint32_t blocks_shared;    /* referred to by more than one */
    uint64_t reserved_tokens;  /* room given out */
    uint64_t filled_tokens;    /* of it in use; the rest is internal fragmentation */
    uint64_t evicted_blocks;   /* since layout */
};

enum lathe_kv_preempt { LATHE_KV_RECOMPUTE = 1, LATHE_KV_SWAP = 2 };

struct lathe_kvcache_api {
    LATHE_API_HEAD;

    /* Decide block size and count and allocate the map. A pool that can't hold one
     * request of context_tokens is allowed: such a request is refused alone. [main] */
    int (*layout)(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err);

    /* Start a request's table; look for a prefix that is already here. *cached is how
     * many positions of its tokens need no forward (always < the tokens it has). */
    int (*admit)(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err);

    /* Blocks that `reserve` to hold `tokens` positions would take from the pool. Used by
     * batching through the view's can_reserve; no side effect. */
    uint32_t (*blocks_needed)(void *self, const struct lathe_request *req, uint32_t tokens);

    /* Blocks that could be had now, evictable ones included. */
    uint32_t (*blocks_available)(void *self);

    /* Make room so that positions 0 … tokens − 1 can be stored; shared blocks that will be
     * written are copied (an op each). LATHE_EBLOCKS: nothing was changed. */
    int (*reserve)(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                   struct lathe_error *err);

    /* The request's block table; valid until the next call for this request. */
    void (*table)(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count);

    /* The step succeeded: positions 0 … tokens − 1 hold what req->tokens say. */
    void (*filled)(void *self, const struct lathe_request *req, uint32_t tokens);

    /* Forget positions from `tokens` on; blocks wholly beyond go back. */
    void (*truncate)(void *self, const struct lathe_request *req, uint32_t tokens);

    /* The request ends or loses its KV: every reference goes back. Unknown is ignored. */
    void (*release)(void *self, const struct lathe_request *req);

    void (*usage)(void *self, struct lathe_kv_usage *usage); /* [any] */

    /* (optional) `child` starts as a copy of `parent`: shared blocks, copied when written. */
    int (*fork)(void *self, const struct lathe_request *parent, const struct lathe_request *child,
                struct lathe_error *err);

    /* (optional) Positions that may still be looked at, ascending; *count 0: all. */
    void (*kept)(void *self, const struct lathe_request *req, const int32_t **positions, uint32_t *count);

    /* (optional) What is cheaper for this victim; absent: recompute. enum lathe_kv_preempt. */
    int (*preempt_choice)(void *self, const struct lathe_request *req);

    /* (optional) Move a request's blocks to host memory and back; `swap_out` frees them. */
    int (*swap_out)(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err);
    int (*swap_in)(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err);

    /* (optional) What `admit` would find cached of a request that it doesn't know yet. No side
     * effect, not even on what is evicted next.                                   since abi 2 */
    uint32_t (*cached_prefix)(void *self, const struct lathe_request *req);
    /* (optional) The bytes are gone (a worker died): whatever is kept for reuse is forgotten. No
     * request is known then.                                                      since abi 2 */
    void (*forget)(void *self);
};

#endif

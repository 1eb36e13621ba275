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

enum { LATHE_KVCACHE_ABI = 3 }; /* 3: dtype, scope, masses, refusal, blocks by pressure */

/* What the engine will ask of it. */
struct lathe_kv_demand {
    uint32_t size;
    uint32_t max_requests;       /* live at once */
    uint32_t context_tokens;     /* longest request */
    uint32_t reserved;
    uint64_t kv_bytes_per_token; /* the model's */
    uint64_t memory_bytes;       /* the pool may take this much; 0: as the options say */
    /* since abi 3 */
    uint32_t layers, kv_heads, head_width; /* 0: unknown (a simulation) */
    uint32_t kv_dtypes;          /* bits 1 << enum lathe_dtype that the model can keep; 0: F32 alone */
    uint32_t key_mass;           /* 1: the model can tell keys' masses */
    uint32_t unrotated;          /* 1: the model can rotate keys when it reads them */
};

/* Bytes that a position takes in `dtype`: kv_bytes_per_token is F32's. */
static inline uint64_t lathe_kv_bytes(const struct lathe_kv_demand *d, int32_t dtype)
{
    return d->kv_bytes_per_token / 4 * lathe_dtype_block_bytes(dtype) / lathe_dtype_block(dtype);
}

/* What the model's context is then made with. */
struct lathe_kv_geometry {
    uint32_t block_tokens;
    uint32_t blocks;
    /* since abi 3; the host has zeroed them, but for */
    int32_t kv_dtype;            /* enum lathe_dtype: what the engine was asked for */
    uint32_t kv_flags;           /* enum lathe_kv_flags */
    int32_t kv_scope;            /* enum lathe_kv_scope: of `kept` and `observe` */
    uint32_t cache_positions;    /* 1: every slice with LATHE_SLICE_CACHE_POSITIONS */
    uint32_t wants_mass;         /* 1: `observe` is called */
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
    uint64_t evicted_tokens;   /* positions that may no longer be looked at, since layout   since abi 3 */
    uint64_t hit_tokens, looked_up_tokens; /* of prompts: found cached, and looked for, since layout  since abi 3 */
};

/* REFUSE: nobody makes room; the request that wants it ends, with a sentence. */
enum lathe_kv_preempt { LATHE_KV_RECOMPUTE = 1, LATHE_KV_SWAP = 2, LATHE_KV_REFUSE = 3 };

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

    /* (optional) Positions that may still be looked at, ascending; *count 0: all. With several
     * sets (kv_scope): (sets, *count), each set as long. All are below the positions that `filled`
     * told of. Valid until the next call for this request. What is kept changes in `filled`, after
     * a step: within one step of a prompt all its rows see each other. */
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
    /* (optional; with geometry.wants_mass) Before `filled`: what the step's rows of this request looked at.
     * mass: (sets, keys), the keys as `kept` had them and then the step's own rows; see
     * lathe_forward_out.masses.                                                   since abi 3 */
    void (*observe)(void *self, const struct lathe_request *req, const float *mass, uint32_t keys);
};

#endif

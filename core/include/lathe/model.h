/* SPDX-License-Identifier: MIT */
/* The model seam: tokens in, logits out. A service: flat messages.
 *
 * An instance is the weights: immutable, shared, read once by [loader]. A context
 * belongs to one engine and holds the bytes of keys and values, and scratch memory.
 * The model owns those bytes; which block holds what is the kvcache plugin's map,
 * and arrives as block tables.
 *
 *     create [loader] → describe [any]
 *        └ context_create [loader] → forward [engine & running] … → context_destroy
 *     → destroy (after its contexts)
 *
 * One forward takes any mix of prefill and decode slices of many requests:
 *
 *     kv_ops   done first, in order: copy, truncate, move out, move in
 *     slices   request 7: positions 0…511 (prefill), wants logits of its last row
 *              request 3: position 90 (decode),      wants logits of its only row
 *     out      logits (2, n_vocab), in the order of the slices' output rows
 *
 * Rows of one slice see every earlier position of their request, through its block
 * table: position p lies in blocks[p / block_tokens], slot p % block_tokens. */
#ifndef LATHE_MODEL_H
#define LATHE_MODEL_H

#include <lathe/attention.h>
#include <lathe/intervention.h>
#include <lathe/message.h>
#include <lathe/plugin.h>
#include <lathe/tensor.h>

/* 2: a message's header is a cache line; 3: duration_ns and picked; 4: kept lists by layer and head, keys' masses,
 * keys rotated when read, several probes a slice, interventions */
enum { LATHE_MODEL_ABI = 4 };

/* Reply to `describe`. */
struct lathe_model_info {
    struct lathe_message head;
    char architecture[32];     /* "llama", "qwen2", "tiny" */
    char name[96];             /* the file's own name for itself */
    char quantization[16];     /* the type most weights have: "Q4_1" */
    uint32_t layers, heads, kv_heads, head_width; /* head_width: elements a head */
    uint32_t embedding_width;  /* elements of a hidden state */
    uint32_t vocab_tokens;
    uint32_t context_tokens;   /* trained maximum */
    uint32_t probe_formats;    /* bits 1 << enum lathe_probe_format that forward can serve */
    uint64_t parameters;
    uint64_t weight_bytes;     /* in memory, as loaded */
    uint64_t kv_bytes_per_token; /* of F32 */
    uint32_t kv_dtypes;        /* bits 1 << enum lathe_dtype that keys and values can be kept in      since abi 4 */
    uint32_t interventions;    /* bits 1 << enum lathe_intervention_kind that forward can carry out   since abi 4 */
};

/* How finely a KV-cache policy tells positions apart. A set of positions is then kept for
 * the whole request, for each layer, or for each KV head of each layer (layer-major). */
enum lathe_kv_scope {
    LATHE_KV_REQUEST = 0, /* 1 set */
    LATHE_KV_LAYER = 1,   /* layers */
    LATHE_KV_HEAD = 2,    /* layers × kv_heads */
};

enum lathe_kv_flags {
    /* Keys are stored as they come out of their projection and rotated when they are read, so that a key's
     * rotary position may change. Costs a rotation of every key that is read. */
    LATHE_KV_KEYS_UNROTATED = 1,
};

static inline uint32_t lathe_kv_sets(int32_t scope, uint32_t layers, uint32_t kv_heads)
{
    return scope == LATHE_KV_HEAD ? layers * kv_heads : scope == LATHE_KV_LAYER ? layers : 1;
}

/* What one engine needs; all are maxima, sized once. */
struct lathe_context_params {
    uint32_t size;
    uint32_t block_tokens;     /* positions a KV block */
    uint32_t blocks;           /* KV blocks in the pool */
    uint32_t batch_tokens;     /* rows of one forward, padding included */
    uint32_t batch_slices;
    uint32_t context_tokens;   /* longest request */
    uint32_t output_rows;      /* rows with logits or hidden state in one forward */
    uint32_t threads;          /* 0: the model's own option */
    int32_t kv_dtype;          /* enum lathe_dtype, one of info.kv_dtypes; another is LATHE_EUNSUPPORTED */
    uint32_t replica;          /* for draws of its own, with the run's seed              since abi 3 */
    uint64_t seed;
    uint32_t kv_flags;         /* enum lathe_kv_flags                                     since abi 4 */
    int32_t kv_scope;          /* enum lathe_kv_scope: of kept lists and masses           since abi 4 */
};

/* Operations on KV bytes, done in order before the slices. */
enum lathe_kv_op_kind {
    LATHE_KV_COPY = 1,     /* first `tokens` positions of block `from` to block `to` (copy on write) */
    LATHE_KV_MOVE_OUT = 2, /* block `from` to host memory under `handle` (swap out) */
    LATHE_KV_MOVE_IN = 3,  /* back into block `to`; the handle is spent */
    LATHE_KV_DROP = 4,     /* forget what `handle` holds */
};

struct lathe_kv_op {
    int32_t kind; /* enum lathe_kv_op_kind */
    int32_t from, to;
    uint32_t tokens;
    uint64_t handle; /* the kvcache's own number for a swapped block */
};

enum lathe_slice_flags {
    /* Rows that are computed and thrown away (static batching pads to the longest). No
     * block table; keys and values aren't stored; each row attends to itself alone. */
    LATHE_SLICE_PADDING = 1,
    LATHE_SLICE_LOGITS = 2, /* output rows give logits (n_vocab) */
    LATHE_SLICE_HIDDEN = 4, /* output rows give the final hidden state (embedding_width) */
    /* Rotary positions count what a row sees, not what there was: key j of the n that it sees is at j, the
     * row itself at n − 1 (StreamingLLM). Needs LATHE_KV_KEYS_UNROTATED.            since abi 4 */
    LATHE_SLICE_CACHE_POSITIONS = 8,
    /* Its keys' masses are wanted: see forward_out.masses.                         since abi 4 */
    LATHE_SLICE_KEY_MASS = 16,
};

enum { LATHE_NO_PROBE = UINT32_MAX };

/* Rows of one request. The *_first are indexes into the message's arrays. */
struct lathe_slice {
    uint64_t request;
    uint32_t flags;
    int32_t first_position;              /* of its first row, absolute */
    uint32_t token_first, token_count;   /* tokens[]: the rows, in order */
    uint32_t block_first, block_count;   /* blocks[]: its block table */
    uint32_t output_first, output_count; /* outputs[]: row numbers within the slice, ascending */
    uint32_t kept_first, kept_count;     /* kept[]: positions that may be looked at, ascending;
                                            none: all. The slice's own rows see each other
                                            whether listed or not; blocks without a kept position
                                            may be −1. Of a scope with several sets: (sets, kept_count),
                                            set by set, each as long, all before first_position.
                                            A model may refuse (LATHE_EUNSUPPORTED) */
    uint32_t probe;                      /* probes[]: its first, or LATHE_NO_PROBE */
    int32_t adapter;                     /* −1: none */
    uint32_t probe_count;                /* how many from there on, each with records of its own; 0 is 1. since abi 4 */
    uint32_t reserved;
    uint64_t interventions;              /* bit i: interventions[i]; 0: none               since abi 4 */
};

struct lathe_forward_in {
    struct lathe_message head;
    uint64_t step;              /* the step's number, for the model's own figures */
    struct lathe_span kv_ops;   /* struct lathe_kv_op */
    struct lathe_span slices;   /* struct lathe_slice */
    struct lathe_span tokens;   /* int32_t; outside the vocabulary is LATHE_ERANGE */
    struct lathe_span blocks;   /* int32_t */
    struct lathe_span outputs;  /* uint32_t */
    struct lathe_span kept;     /* int32_t */
    struct lathe_span probes;   /* struct lathe_probe */
    struct lathe_span interventions;        /* struct lathe_intervention                    since abi 4 */
    struct lathe_span intervention_floats;  /* float: their vectors                         since abi 4 */
    struct lathe_span intervention_keys;    /* int32_t: their keys                          since abi 4 */
};

struct lathe_picked {
    int32_t token;
    float logprob; /* NaN: it can't tell */
};

struct lathe_forward_out {
    struct lathe_message head;
    /* Set by the caller before the call, filled by the model. */
    struct lathe_region logits;    /* float (n logits rows, n_vocab), slices' order */
    struct lathe_region hidden;    /* float (n hidden rows, embedding_width) */
    struct lathe_region attention; /* records of <lathe/attention.h>, one after the other: slices' order, within
                                      a slice positions ascending, of one position its probes in order; bytes = room */
    /* Filled by the model. */
    uint64_t logits_rows, hidden_rows;
    uint64_t attention_bytes;      /* used; LATHE_EFULL when the room was too small */
    /* Of LATHE_MODEL_TIME: how long this forward takes; its results become visible so long after it
     * began. 0: it has taken its time already.                                    since abi 3 */
    int64_t duration_ns;
    /* Of LATHE_MODEL_PICK: a struct lathe_picked for each output row, added by the model if the
     * reply has room; the caller then gives none for logits.                      since abi 3 */
    struct lathe_span picked;
    /* Set by the caller: room for the masses of slices that want them, in their order. Of a slice
     * (sets, keys) float, keys = those its last row sees, in the order of kept[] and then its own rows:
     * the weights that its rows gave each key, summed over rows and over the set's query heads. H2O
     * (Zhang et al., NeurIPS 2023) sums these over steps.                          since abi 4 */
    struct lathe_region masses;
    uint64_t mass_bytes; /* used; LATHE_EFULL when the room was too small */
};

/* Optional abilities, asked for with get_extension; each is a struct lathe_model_ability. */
#define LATHE_MODEL_PICK "lathe.model-pick/1" /* it picks tokens itself, from each row */
#define LATHE_MODEL_TIME "lathe.model-time/1" /* it tells its time (duration_ns) instead of taking it: without
                                                 this no virtual clock */
#define LATHE_MODEL_LENGTHS "lathe.model-lengths/1" /* it looks at lengths alone: a message may leave out tokens,
                                                 blocks and outputs (spans empty; a slice with output_count 1
                                                 means its last row) */
#define LATHE_MODEL_KEY_MASS "lathe.model-key-mass/1" /* LATHE_SLICE_KEY_MASS */
struct lathe_model_ability {
    uint32_t size;
};

/* Service "model": methods "describe" (self = instance), "forward" (self = context). */
struct lathe_model_api {
    LATHE_API_HEAD; /* create reads the weights: [loader], seconds */

    lathe_method *describe; /* lathe_empty → lathe_model_info. [any]          since abi 1 */

    /* Allocates KV pool and scratch for these maxima. Sizes are checked; what doesn't
     * fit is LATHE_ENOMEM with the bytes that were wanted. [loader]            since abi 1 */
    int (*context_create)(void *self, const struct lathe_context_params *params, void **context,
                          struct lathe_error *err);
    void (*context_destroy)(void *context); /* NULL is ignored. [loader]        since abi 1 */

    /* lathe_forward_in → lathe_forward_out. On failure no KV of this step may be trusted,
     * earlier positions are intact. Allocates nothing. [engine & running]      since abi 1 */
    lathe_method *forward;
};

#endif

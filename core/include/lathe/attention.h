/* SPDX-License-Identifier: MIT */
/* The probe: what to record of what the heads look at and of what the layers do, and how it is packed.
 *
 * A probe says which layers, heads and query positions, and how much of each row of
 * weights (after the softmax). The model writes one record a probed query position
 * into a region that the host reserved in the recorder's bulk ring before the forward;
 * heads fill disjoint parts, on any thread; the host commits the region afterwards.
 * An unprobed row costs one branch.
 *
 * One record, all fields little-endian, 16-byte aligned:
 *
 *     ┌───────────────────────────┬─────────────┬─────────────┬─ … ─┬──────────────┐
 *     │ struct lathe_attention_row│ layer a,    │ layer a,    │     │ last layer,  │
 *     │ (32 bytes)                │ head 0      │ head 1      │     │ last head    │
 *     └───────────────────────────┴─────────────┴─────────────┴─ … ─┴──────────────┘
 *
 * probed layers ascending, within each the probed heads ascending; each head takes
 * lathe_attention_head_bytes(): `summary` 16 bytes (struct lathe_attention_summary),
 * `top` k × 8 bytes (struct lathe_attention_top, heaviest first, unused ones key
 * UINT32_MAX and weight 0), `full` keys × 2 bytes (IEEE half precision, key 0 first), and
 * likewise `scores` (q·k / √head_width before the softmax, clamped to ±65504) and `values`
 * (weight × Euclidean norm of the key's value: Kobayashi et al., EMNLP 2020).
 *
 * The formats of layers have a part a probed layer instead:
 *
 *     norms   struct lathe_layer_norms, then a float a probed head: the norm of what the head adds
 *             to the residual stream before the output projection
 *     lens    top_k struct lathe_lens, likeliest first: the residual stream after the layer through
 *             the final norm and the output matrix (logit lens, nostalgebraist 2020)
 *     hidden  embedding_width floats: the residual stream after the layer
 *
 * The bytes after the 32-byte header are what table attention_token (formats of heads) and table
 * layer_token (formats of layers) hold as `data`.
 *
 * Keys are numbered by absolute position. Entropy is in nats. */
#ifndef LATHE_ATTENTION_H
#define LATHE_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

enum lathe_probe_format {
    LATHE_PROBE_SUMMARY = 1,
    LATHE_PROBE_TOP = 2,
    LATHE_PROBE_FULL = 3,
    LATHE_PROBE_SCORES = 4,
    LATHE_PROBE_VALUES = 5,
    LATHE_PROBE_NORMS = 6,
    LATHE_PROBE_LENS = 7,
    LATHE_PROBE_HIDDEN = 8,
    LATHE_PROBE_FORMATS = 9, /* one more than the last */
};

enum { LATHE_PROBE_MAX_LAYERS = 256, LATHE_PROBE_MAX_HEADS = 256, LATHE_MAX_PROBES = 32 };

struct lathe_probe {
    uint32_t id;             /* the probe's number in the run's table `probe` */
    uint32_t format;         /* enum lathe_probe_format */
    uint32_t top_k;          /* `top`, `lens`: 1 … 1024 */
    uint32_t recent_window;  /* `summary`: recent_mass is over the last this many keys, itself included */
    int32_t first_position;  /* query positions first … last, inclusive; */
    int32_t last_position;   /* −1: to the end */
    uint32_t every;          /* every n-th position from first_position, 1: all */
    uint32_t width;          /* the model's embedding_width, set by the host: the size of `hidden` */
    uint64_t layers[LATHE_PROBE_MAX_LAYERS / 64]; /* bit masks; the host has cleared */
    uint64_t heads[LATHE_PROBE_MAX_HEADS / 64];   /* bits that the model doesn't have */
};

struct lathe_attention_row {
    uint64_t request;
    int32_t position;   /* of the query, absolute */
    uint32_t keys;      /* how many keys it could see: position + 1 unless some were dropped */
    uint32_t probe;     /* lathe_probe.id */
    uint32_t bytes;     /* of this record, header included, multiple of 16 */
    uint64_t reserved;
};

struct lathe_attention_summary {
    float entropy;                                          /* nats */
    uint16_t first_mass, recent_mass, self_mass, top_weight; /* half precision */
    uint32_t top_key;
};

struct lathe_attention_top {
    uint32_t key;
    float weight;
};

struct lathe_layer_norms {
    float before;    /* of the residual stream when the layer begins */
    float attention; /* of what attention adds to it */
    float feed;      /* of what the MLP adds */
    float after;     /* of the residual stream when the layer ends */
};

struct lathe_lens {
    int32_t token;
    float logprob; /* nats */
};

static inline int lathe_probe_has(const uint64_t *mask, uint32_t i)
{
    return (int)(mask[i / 64] >> (i % 64) & 1);
}

static inline uint32_t lathe_probe_count(const uint64_t mask[4])
{
    uint32_t n = 0;
    for (int i = 0; i < 4; i++)
        n += (uint32_t)__builtin_popcountll(mask[i]);
    return n;
}

/* Is this query position probed? */
static inline int lathe_probe_wants(const struct lathe_probe *p, int32_t position)
{
    return position >= p->first_position && (p->last_position < 0 || position <= p->last_position) &&
           (uint32_t)(position - p->first_position) % p->every == 0;
}

/* Does the format have a part a layer, rather than a part a head? */
static inline int lathe_probe_of_layers(uint32_t format)
{
    return format >= LATHE_PROBE_NORMS && format <= LATHE_PROBE_HIDDEN;
}

static inline size_t lathe_attention_head_bytes(const struct lathe_probe *p, uint32_t keys)
{
    switch (p->format) {
    case LATHE_PROBE_SUMMARY: return sizeof(struct lathe_attention_summary);
    case LATHE_PROBE_TOP: return (size_t)p->top_k * sizeof(struct lathe_attention_top);
    case LATHE_PROBE_FULL:
    case LATHE_PROBE_SCORES:
    case LATHE_PROBE_VALUES: return (size_t)keys * 2;
    default: return 0;
    }
}

/* Bytes of one probed layer, all its heads included. */
static inline size_t lathe_probe_layer_bytes(const struct lathe_probe *p, uint32_t keys)
{
    switch (p->format) {
    case LATHE_PROBE_NORMS: return sizeof(struct lathe_layer_norms) + lathe_probe_count(p->heads) * sizeof(float);
    case LATHE_PROBE_LENS: return (size_t)p->top_k * sizeof(struct lathe_lens);
    case LATHE_PROBE_HIDDEN: return (size_t)p->width * sizeof(float);
    default: return lathe_probe_count(p->heads) * lathe_attention_head_bytes(p, keys);
    }
}

/* Bytes of one whole record; both sides compute it with this. */
static inline size_t lathe_attention_row_bytes(const struct lathe_probe *p, uint32_t keys)
{
    size_t n = lathe_probe_count(p->layers) * lathe_probe_layer_bytes(p, keys);
    return (sizeof(struct lathe_attention_row) + n + 15) & ~(size_t)15;
}

#endif

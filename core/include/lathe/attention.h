/* SPDX-License-Identifier: MIT */
/* The attention probe: what to record of what the heads look at, and how it is packed.
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
 * UINT32_MAX and weight 0), `full` keys × 2 bytes (IEEE half precision, key 0 first).
 * The bytes after the 32-byte header are what table attention_token holds as `data`.
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
};

enum { LATHE_PROBE_MAX_LAYERS = 256, LATHE_PROBE_MAX_HEADS = 256 };

struct lathe_probe {
    uint32_t id;             /* the probe's number in the run's table `probe` */
    uint32_t format;         /* enum lathe_probe_format */
    uint32_t top_k;          /* `top`: 1 … 1024 */
    uint32_t recent_window;  /* `summary`: recent_mass is over the last this many keys, itself included */
    int32_t first_position;  /* query positions first … last, inclusive; */
    int32_t last_position;   /* −1: to the end */
    uint32_t every;          /* every n-th position from first_position, 1: all */
    uint32_t reserved;
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

static inline size_t lathe_attention_head_bytes(const struct lathe_probe *p, uint32_t keys)
{
    switch (p->format) {
    case LATHE_PROBE_SUMMARY: return sizeof(struct lathe_attention_summary);
    case LATHE_PROBE_TOP: return (size_t)p->top_k * sizeof(struct lathe_attention_top);
    case LATHE_PROBE_FULL: return (size_t)keys * 2;
    default: return 0;
    }
}

/* Bytes of one whole record; both sides compute it with this. */
static inline size_t lathe_attention_row_bytes(const struct lathe_probe *p, uint32_t keys)
{
    size_t n = (size_t)lathe_probe_count(p->layers) * lathe_probe_count(p->heads) *
               lathe_attention_head_bytes(p, keys);
    return (sizeof(struct lathe_attention_row) + n + 15) & ~(size_t)15;
}

#endif

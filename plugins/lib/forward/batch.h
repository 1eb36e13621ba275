/* SPDX-License-Identifier: MIT */
/* What every model does first with a forward message: check it whole, and number its rows.
 *
 *     slices   s0: 3 tokens     s1: 1 token   s2: 2 tokens (padding)
 *     rows     0    1    2      3             4    5
 *
 * After the check nothing in the message can make a model read or write outside its
 * memory: spans lie inside the message, tokens inside the vocabulary, every block that a
 * row looks at inside the pool, outputs inside their slice, and the reply has room for all
 * logits, hidden states and attention records. Each probed row has been given the place of
 * its record, with the record's header already written.
 *
 * A row of a slice sees its own slice's rows up to itself, and of the earlier positions
 * all, or with a kept list those on it (entries at or after first_position change nothing).
 * By the context's kv_scope a slice has one list, one a layer, or one a KV head: kept.c. */
#ifndef LATHE_FORWARD_BATCH_H
#define LATHE_FORWARD_BATCH_H

#include <lathe/model.h>

struct forward_limits {
    struct lathe_context_params params;
    uint32_t vocab_tokens, embedding_width, layers, heads, kv_heads, head_width;
    uint32_t probe_formats; /* what the model offers, as in lathe_model_info; */
    uint32_t interventions; /* anything else is refused */
};

enum { FORWARD_NO_RECORD = 0 };

struct forward_row {
    int32_t position; /* padding: 0 */
    uint32_t slice;
    uint32_t keys;    /* how many it looks at, itself included; padding: 1 */
    uint32_t token;
    uint64_t record;  /* 1 + its first record's offset in the attention region; FORWARD_NO_RECORD */
    uint32_t probes;  /* bit i: the slice's i-th probe wants this row; a record each, in order */
    uint32_t layer_probes; /* those of them whose format has a part a layer */
    uint64_t edits;   /* bit i: interventions[i] holds for this row */
};

struct forward_batch {
    const struct lathe_kv_op *ops;
    const struct lathe_slice *slices;
    const int32_t *tokens, *blocks, *kept;
    const uint32_t *outputs;
    const struct lathe_probe *probes;
    const struct lathe_intervention *interventions;
    const float *intervention_floats;
    const int32_t *intervention_keys;
    const struct forward_limits *limits;
    uint64_t op_count, intervention_count;
    uint64_t edits;            /* of all rows: 0 is a forward without interventions */
    uint32_t slice_count, row_count, probed_rows;
    uint32_t layer_probed;     /* rows that a probe of layers wants */
    struct forward_row *rows;  /* caller's, params.batch_tokens of them */
    uint32_t *slice_rows;      /* caller's, params.batch_slices: first row of each slice */
    uint32_t *slice_kept;      /* caller's, params.batch_slices: kept positions before first_position, of each set */
    uint64_t *slice_mass;      /* caller's, params.batch_slices: 1 + the slice's first number in `masses`, 0: wants
                                  none. NULL: the model can't tell masses */
    float *logits, *hidden;    /* where the reply's rows go */
    unsigned char *attention;
    float *masses;             /* all zero after the check */
    uint64_t mass_count;
    uint32_t layer_sets, head_sets; /* sets that a layer, a KV head is further on: 0 where they share one */
};

/* Fills `batch` and the counts of `out` (all of them or none). LATHE_EINVAL, LATHE_ERANGE: the
 * message is wrong; LATHE_EFULL: the reply has too little room, `out` says how much is needed. */
int forward_batch_check(const struct forward_limits *limits, const struct lathe_forward_in *in,
                        struct lathe_forward_out *out, struct forward_batch *batch, struct lathe_error *err);

/* Checks what an engine asked for before any memory is taken. */
int forward_params_check(const struct lathe_context_params *params, struct lathe_error *err);

/* Room for a reply to `describe` or `forward`. */
int forward_reply_check(const struct lathe_message *reply, size_t bytes, const char *method, struct lathe_error *err);

/* How many probes a slice has, from probes[slice->probe] on. */
static inline uint32_t forward_probe_count(const struct lathe_slice *slice)
{
    if (slice->probe == LATHE_NO_PROBE || slice->flags & LATHE_SLICE_PADDING)
        return 0;
    return slice->probe_count ? slice->probe_count : 1;
}

/* The first bit at or beyond `count` that a mask of layers or heads has set; 256: none. */
static inline uint32_t forward_beyond(const uint64_t mask[4], uint32_t count)
{
    for (uint32_t i = count / 64; i < 4; i++) {
        uint64_t word = i == count / 64 ? mask[i] & UINT64_MAX << count % 64 : mask[i];
        if (word)
            return i * 64 + (uint32_t)__builtin_ctzll(word);
    }
    return 256;
}

/* The set of kept positions that a KV head of a layer looks at. */
static inline uint32_t forward_set(const struct forward_batch *b, uint32_t layer, uint32_t kv_head)
{
    return layer * b->layer_sets + kv_head * b->head_sets;
}

/* The j-th key of a set that rows of this slice may look at: its absolute position. */
static inline int32_t forward_key_position(const struct forward_batch *b, uint32_t s, uint32_t set, uint32_t j)
{
    const struct lathe_slice *slice = &b->slices[s];
    if (slice->kept_count == 0)
        return (int32_t)j;
    if (j < b->slice_kept[s])
        return b->kept[slice->kept_first + (uint64_t)set * slice->kept_count + j];
    return slice->first_position + (int32_t)(j - b->slice_kept[s]);
}

/* Where a row stands to its rotation: its position, or its number among the keys that it sees. */
static inline int32_t forward_row_turn(const struct forward_batch *b, const struct forward_row *row)
{
    return b->slices[row->slice].flags & LATHE_SLICE_CACHE_POSITIONS ? (int32_t)row->keys - 1 : row->position;
}

/* The same of a slice's key. */
static inline int32_t forward_key_turn(const struct forward_batch *b, uint32_t s, uint32_t set, uint32_t j)
{
    return b->slices[s].flags & LATHE_SLICE_CACHE_POSITIONS ? (int32_t)j : forward_key_position(b, s, set, j);
}

/* Keys that the slice's last row sees: the width of its masses. */
static inline uint32_t forward_slice_keys(const struct forward_batch *b, uint32_t s)
{
    const struct lathe_slice *slice = &b->slices[s];
    return (slice->kept_count ? b->slice_kept[s] : (uint32_t)slice->first_position) + slice->token_count;
}

/* The masses of a set of a slice, (forward_slice_keys); NULL where the slice wants none. */
static inline float *forward_masses(const struct forward_batch *b, uint32_t s, uint32_t set)
{
    if (!b->slice_mass || !b->slice_mass[s])
        return NULL;
    return b->masses + (b->slice_mass[s] - 1) + (uint64_t)set * forward_slice_keys(b, s);
}

#endif

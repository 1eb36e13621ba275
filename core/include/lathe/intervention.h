/* SPDX-License-Identifier: MIT */
/* Interventions: changing what a layer or head does while it does it, to see what it was for.
 *
 * They are part of the forward's message; weights stay as they are. A slice names the ones
 * that hold for it (a bit each), each holds for a range of its query positions, and where
 * several meet they are carried out in the order of the array. What a probe records is
 * what there is after them.
 *
 * Sites, in the order of a layer:
 *
 *     scores ─▶ KEYS_DROP, KEYS_KEEP ─▶ softmax ─▶ HEAD_UNIFORM ─▶ · values
 *            ─▶ HEAD_SCALE, HEAD_SET ─▶ output projection ─▶ ATTENTION_SCALE ─▶ + residual
 *            ─▶ MLP ─▶ MLP_SCALE ─▶ + residual ─▶ PATCH */
#ifndef LATHE_INTERVENTION_H
#define LATHE_INTERVENTION_H

#include <stdint.h>

enum lathe_intervention_kind {
    LATHE_HEAD_SCALE = 1,      /* the heads' outputs (before the output projection) × factor; 0 removes them */
    LATHE_HEAD_SET = 2,        /* the heads' outputs become `floats`, head_width of them (mean ablation) */
    LATHE_HEAD_UNIFORM = 3,    /* the heads look at every key that the row sees alike */
    LATHE_KEYS_DROP = 4,       /* the heads don't see the positions in `keys`; a row always sees itself */
    LATHE_KEYS_KEEP = 5,       /* the heads see of other positions only those in `keys` */
    LATHE_ATTENTION_SCALE = 6, /* what the layers' attention adds to the residual stream × factor */
    LATHE_MLP_SCALE = 7,       /* what the layers' MLP adds × factor */
    LATHE_PATCH = 8,           /* the residual stream after the layers becomes `floats`, embedding_width a query
                                  position from first_position to last_position (activation patching) */
    LATHE_INTERVENTION_KINDS = 9,
};

enum { LATHE_MAX_INTERVENTIONS = 64 };

struct lathe_intervention {
    uint32_t kind;                    /* enum lathe_intervention_kind */
    float factor;                     /* *_SCALE; finite */
    int32_t first_position;           /* of the query rows that it holds for, absolute, inclusive; */
    int32_t last_position;            /* −1: to the end (not for PATCH) */
    uint32_t float_first, float_count; /* into intervention_floats[] */
    uint32_t key_first, key_count;    /* into intervention_keys[]: absolute positions, ascending */
    uint64_t layers[4], heads[4];     /* bit masks as a probe's; heads: query heads, where the kind has heads */
};

static inline int lathe_intervention_holds(const struct lathe_intervention *i, int32_t position)
{
    return position >= i->first_position && (i->last_position < 0 || position <= i->last_position);
}

#endif

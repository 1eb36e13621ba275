/* SPDX-License-Identifier: MIT */
/* Stands for the model's keys and values: each position holds the whole text that it was computed
 * from, and the operations are carried out as a model would. What reads another's text, or one that
 * nobody wrote, can't go unnoticed. */
#ifndef TESTS_STRESS_PREFIX_STORE_H
#define TESTS_STRESS_PREFIX_STORE_H

#include <lathe/kvcache.h>

#include "reference.h"

enum { MAX_HANDLES = 1024 };

struct store {
    uint32_t blocks, block_tokens;
    struct text *cells;   /* (blocks, block_tokens); length 0: nonsense */
    struct {
        uint64_t handle;
        struct text *cells;
    } moved[MAX_HANDLES]; /* handle 0: free */
    uint32_t moved_count;
};

void store_open(struct store *s, uint32_t blocks, uint32_t block_tokens);
void store_close(struct store *s);
/* A sentence if one can't be carried out, else NULL. */
const char *store_carry_out(struct store *s, const struct lathe_kv_ops *ops);
static inline struct text *store_cell(struct store *s, int32_t block, uint32_t position)
{
    return &s->cells[(uint32_t)block * s->block_tokens + position % s->block_tokens];
}

#endif

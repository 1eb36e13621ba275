/* SPDX-License-Identifier: MIT */
/* See store.h. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

void store_open(struct store *s, uint32_t blocks, uint32_t block_tokens)
{
    memset(s, 0, sizeof *s);
    s->blocks = blocks;
    s->block_tokens = block_tokens;
    s->cells = calloc((size_t)blocks * block_tokens, sizeof *s->cells);
}

void store_close(struct store *s)
{
    for (uint32_t i = 0; i < MAX_HANDLES; i++)
        if (s->moved[i].handle)
            free(s->moved[i].cells);
    free(s->cells);
}

static int is_block(const struct store *s, int32_t block)
{
    return block >= 0 && (uint32_t)block < s->blocks;
}

static uint32_t place_of(const struct store *s, uint64_t handle)
{
    uint32_t i = 0;
    while (i < MAX_HANDLES && s->moved[i].handle != handle)
        i++;
    return i;
}

static const char *one(struct store *s, const struct lathe_kv_op *op)
{
    size_t bytes = s->block_tokens * sizeof *s->cells;
    uint32_t place;
    if (op->kind == LATHE_KV_COPY) {
        if (!is_block(s, op->from) || !is_block(s, op->to) || op->from == op->to || op->tokens > s->block_tokens)
            return "a copy that can't be";
        memset(store_cell(s, op->to, 0), 0, bytes);
        memcpy(store_cell(s, op->to, 0), store_cell(s, op->from, 0), op->tokens * sizeof *s->cells);
        return NULL;
    }
    if (op->kind == LATHE_KV_MOVE_OUT) {
        if (!is_block(s, op->from) || op->handle == 0 || place_of(s, op->handle) < MAX_HANDLES)
            return "a move out that can't be";
        if ((place = place_of(s, 0)) == MAX_HANDLES)
            return "more is moved out than this test has room for";
        s->moved[place].handle = op->handle;
        s->moved[place].cells = malloc(bytes);
        memcpy(s->moved[place].cells, store_cell(s, op->from, 0), bytes);
        s->moved_count++;
        return NULL;
    }
    if ((place = place_of(s, op->handle)) == MAX_HANDLES || op->handle == 0)
        return "a handle under which nothing lies";
    if (op->kind == LATHE_KV_MOVE_IN) {
        if (!is_block(s, op->to))
            return "a move in that can't be";
        memcpy(store_cell(s, op->to, 0), s->moved[place].cells, bytes);
    } else if (op->kind != LATHE_KV_DROP) {
        return "an operation that is none";
    }
    free(s->moved[place].cells);
    s->moved[place].handle = 0;
    s->moved_count--;
    return NULL;
}

const char *store_carry_out(struct store *s, const struct lathe_kv_ops *ops)
{
    const char *wrong = NULL;
    for (uint32_t i = 0; i < ops->count && !wrong; i++)
        wrong = one(s, &ops->ops[i]);
    return wrong;
}

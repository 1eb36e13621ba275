/* SPDX-License-Identifier: MIT */
/* See reference.h. */
#include <string.h>

#include "reference.h"

static int same(const struct text *a, const struct text *b, uint32_t length)
{
    return a->salt == b->salt && memcmp(a->tokens, b->tokens, length * sizeof *a->tokens) == 0;
}

struct kept *reference_kept(struct reference *r, const struct text *text, uint32_t length)
{
    for (struct kept *k = r->kept; k < r->kept + MAX_BLOCKS; k++)
        if (k->there && k->text.length == length && same(&k->text, text, length))
            return k;
    return NULL;
}

struct kept *reference_entry(struct reference *r, int32_t block)
{
    for (struct kept *k = r->kept; k < r->kept + MAX_BLOCKS; k++)
        if (k->there && k->block == block)
            return k;
    return NULL;
}

int reference_is_leaf(struct reference *r, const struct kept *k)
{
    for (const struct kept *other = r->kept; other < r->kept + MAX_BLOCKS; other++)
        if (other->there && other->text.length == k->text.length + r->block_tokens &&
            same(&other->text, &k->text, k->text.length))
            return 0;
    return 1;
}

uint32_t reference_found(struct reference *r, const struct row *row, uint32_t most, uint32_t *idle)
{
    uint32_t found = 0;
    const struct kept *k;
    *idle = 0;
    while (row->shares && found < most && (k = reference_kept(r, &row->text, (found + 1) * r->block_tokens))) {
        *idle += r->references[k->block] == 0;
        found++;
    }
    return found;
}

void reference_adopt(struct reference *r, struct row *row, uint32_t most)
{
    uint32_t idle;
    row->count = row->known = reference_found(r, row, most, &idle);
    row->filled = row->count * r->block_tokens;
    for (uint32_t i = 0; i < row->count; i++) {
        row->blocks[i] = reference_kept(r, &row->text, (i + 1) * r->block_tokens)->block;
        reference_share(r, row->blocks[i]);
    }
}

void reference_share(struct reference *r, int32_t block)
{
    r->references[block]++;
}

void reference_drop(struct reference *r, int32_t block)
{
    struct kept *k = reference_entry(r, block);
    if (--r->references[block] == 0 && k)
        k->left = ++r->now;
}

/* Of leaves that nobody refers to, the one that goes first. */
static struct kept *victim(struct reference *r)
{
    struct kept *first = NULL;
    for (struct kept *k = r->kept; k < r->kept + MAX_BLOCKS; k++) {
        if (!k->there || r->references[k->block] || !reference_is_leaf(r, k))
            continue;
        int fewer = first && r->lfu && k->uses < first->uses, as_many = !r->lfu || (first && k->uses == first->uses);
        if (!first || fewer || (as_many && k->left < first->left))
            first = k;
    }
    return first;
}

const char *reference_take(struct reference *r, int32_t block)
{
    struct kept *k = reference_entry(r, block);
    if (r->references[block])
        return "a block that somebody refers to was given out";
    if (reference_used(r) + reference_idle(r) < r->blocks) {
        if (k)
            return "a kept block was given out while others were free";
    } else {
        struct kept *first = victim(r);
        if (!first)
            return "nothing could be evicted, and a block was given out";
        if (k != first)
            return "another block should have been evicted";
        k->there = 0;
        r->evicted++;
    }
    r->references[block] = 1;
    return NULL;
}

void reference_cut(struct reference *r, struct row *row, uint32_t tokens)
{
    while (row->count * r->block_tokens >= tokens + r->block_tokens)
        reference_drop(r, row->blocks[--row->count]);
    if (row->known > tokens / r->block_tokens)
        row->known = tokens / r->block_tokens;
    if (row->filled > tokens)
        row->filled = tokens;
}

static int keep_one(struct reference *r, struct row *row)
{
    int32_t *block = &row->blocks[row->known];
    uint32_t length = (row->known + 1) * r->block_tokens;
    struct kept *k = reference_kept(r, &row->text, length);
    if (k && k->block != *block) {
        reference_share(r, k->block);
        reference_drop(r, *block);
        *block = k->block;
        k->uses++;
    } else if (!k) {
        if (r->references[*block] > 1)
            return 0;
        for (k = r->kept; k->there; k++)
            ;
        *k = (struct kept){ .there = 1, .text = row->text, .block = *block, .uses = 1 };
        k->text.length = length;
    }
    row->known++;
    return 1;
}

void reference_keep(struct reference *r, struct row *row)
{
    while (row->shares && (row->known + 1) * r->block_tokens <= row->filled && keep_one(r, row))
        ;
}

void reference_forget(struct reference *r)
{
    for (struct kept *k = r->kept; k < r->kept + MAX_BLOCKS; k++)
        k->there = 0;
}

uint32_t reference_used(const struct reference *r)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < r->blocks; i++)
        used += r->references[i] > 0;
    return used;
}

uint32_t reference_shared(const struct reference *r)
{
    uint32_t shared = 0;
    for (uint32_t i = 0; i < r->blocks; i++)
        shared += r->references[i] > 1;
    return shared;
}

uint32_t reference_idle(const struct reference *r)
{
    uint32_t idle = 0;
    for (const struct kept *k = r->kept; k < r->kept + MAX_BLOCKS; k++)
        idle += k->there && r->references[k->block] == 0;
    return idle;
}

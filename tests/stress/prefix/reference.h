/* SPDX-License-Identifier: MIT */
/* A prefix cache that is slow and plain: a list of all block-long beginnings that are kept, each
 * written out from its first token, searched from end to end. No tree, no hash, no heap. What it
 * says of hits, evictions and counts is what kvcache/prefix must do.
 *
 * It has tables of its own, which the plugin's must equal. Which free block is given out is the
 * plugin's choice; which one is evicted is not. */
#ifndef TESTS_STRESS_PREFIX_REFERENCE_H
#define TESTS_STRESS_PREFIX_REFERENCE_H

#include <stdint.h>

enum { MAX_CONTEXT = 64, MAX_BLOCKS = 64, MAX_REQUESTS = 8 };

/* A text from its first token on, and who it belongs to. */
struct text {
    uint64_t salt;
    uint32_t length;
    int32_t tokens[MAX_CONTEXT];
};

struct kept {
    int there;
    struct text text;
    int32_t block;
    uint64_t left;
    uint32_t uses;
};

struct row {                   /* of a request */
    int32_t blocks[MAX_CONTEXT];
    uint32_t count, filled, known; /* known: leading blocks that are kept under their text */
    int shares;
    struct text text;          /* its salt, and all tokens that it has or will have */
};

struct reference {
    uint32_t blocks, block_tokens;
    int lfu;
    struct kept kept[MAX_BLOCKS];
    uint32_t references[MAX_BLOCKS];
    struct row rows[MAX_REQUESTS];
    uint64_t now, evicted;
};

/* The entry of the first `length` tokens of a text, or NULL. */
struct kept *reference_kept(struct reference *r, const struct text *text, uint32_t length);
struct kept *reference_entry(struct reference *r, int32_t block); /* kept in this block, or NULL */
int reference_is_leaf(struct reference *r, const struct kept *k);
/* Whole blocks of a row's text that are kept, at most `most`; how many of them nobody refers to. */
uint32_t reference_found(struct reference *r, const struct row *row, uint32_t most, uint32_t *idle);
void reference_adopt(struct reference *r, struct row *row, uint32_t most);

void reference_share(struct reference *r, int32_t block);
void reference_drop(struct reference *r, int32_t block);
/* The plugin took `block`: a sentence if it mustn't have been that one, else NULL. */
const char *reference_take(struct reference *r, int32_t block);
void reference_cut(struct reference *r, struct row *row, uint32_t tokens);
/* All that is filled is kept, as far as it may be. */
void reference_keep(struct reference *r, struct row *row);
void reference_forget(struct reference *r);

uint32_t reference_used(const struct reference *r);
uint32_t reference_shared(const struct reference *r);
uint32_t reference_idle(const struct reference *r);

#endif

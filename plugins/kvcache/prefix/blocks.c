/* SPDX-License-Identifier: MIT */
/* See blocks.h. */
#include <string.h>

#include "blocks.h"
#include "heap.h"

int blocks_open(struct blocks *b, const struct lathe_host *host, const struct blocks_shape *shape)
{
    size_t count = shape->blocks, chains = 1;
    while (chains < count)
        chains *= 2;
    *b = (struct blocks){ .host = host, .shape = *shape };
    b->all = lathe_alloc_array(host, count, sizeof *b->all);
    b->tokens = lathe_alloc_array(host, count, shape->block_tokens * sizeof *b->tokens);
    b->free = lathe_alloc_array(host, count, sizeof *b->free);
    b->heap = lathe_alloc_array(host, count, sizeof *b->heap);
    b->chains = lathe_alloc_array(host, chains, sizeof *b->chains);
    if (!b->all || !b->tokens || !b->free || !b->heap || !b->chains) {
        blocks_close(b);
        return LATHE_ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) /* popped from the end: block 0 first */
        b->free[i] = (int32_t)(count - 1 - i);
    for (size_t i = 0; i < chains; i++)
        b->chains[i] = NO_BLOCK;
    b->free_count = shape->blocks;
    b->chain_mask = (uint32_t)(chains - 1);
    if (shape->hash_bits < 32)
        b->chain_mask &= ((uint32_t)1 << shape->hash_bits) - 1;
    return LATHE_OK;
}

void blocks_close(struct blocks *b)
{
    if (!b->host)
        return;
    lathe_free(b->host, b->all);
    lathe_free(b->host, b->tokens);
    lathe_free(b->host, b->free);
    lathe_free(b->host, b->heap);
    lathe_free(b->host, b->chains);
    b->all = NULL, b->tokens = NULL, b->free = NULL, b->heap = NULL, b->chains = NULL;
}

/* ── the tree ──────────────────────────────────────────────────────────────────────── */

static int32_t *tokens_of(const struct blocks *b, int32_t block)
{
    return b->tokens + (size_t)block * b->shape.block_tokens;
}

static uint64_t mix(uint64_t x) /* splitmix64's finish */
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static uint32_t hash_of(const struct blocks *b, uint64_t salt, int32_t parent, const int32_t *tokens)
{
    uint64_t hash = mix(parent == NO_BLOCK ? ~salt : (uint64_t)parent);
    for (uint32_t i = 0; i < b->shape.block_tokens; i++)
        hash = (hash ^ (uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
    hash = mix(hash);
    return (uint32_t)hash & b->chain_mask;
}

int32_t blocks_find(const struct blocks *b, uint64_t salt, int32_t parent, const int32_t *tokens)
{
    int32_t at = b->chains[hash_of(b, salt, parent, tokens)];
    for (; at != NO_BLOCK; at = b->all[at].next) {
        const struct block *node = &b->all[at];
        if (node->parent == parent && (parent != NO_BLOCK || node->salt == salt) &&
            memcmp(tokens_of(b, at), tokens, b->shape.block_tokens * sizeof *tokens) == 0)
            return at;
    }
    return NO_BLOCK;
}

void blocks_publish(struct blocks *b, int32_t block, uint64_t salt, int32_t parent, const int32_t *tokens)
{
    struct block *node = &b->all[block];
    memcpy(tokens_of(b, block), tokens, b->shape.block_tokens * sizeof *tokens);
    node->parent = parent;
    node->salt = salt;
    node->hash = hash_of(b, salt, parent, tokens);
    node->next = b->chains[node->hash];
    b->chains[node->hash] = block;
    node->children = 0;
    node->uses = 1;
    node->in_tree = 1;
    if (parent != NO_BLOCK)
        b->all[parent].children++;
}

/* Out of the tree; its parent may now be an idle leaf. */
static void unlink_node(struct blocks *b, int32_t block)
{
    struct block *node = &b->all[block];
    int32_t *link = &b->chains[node->hash];
    while (*link != block)
        link = &b->all[*link].next;
    *link = node->next;
    node->in_tree = 0;
    if (node->parent != NO_BLOCK) {
        struct block *parent = &b->all[node->parent];
        if (--parent->children == 0 && parent->references == 0)
            heap_push(b, node->parent);
    }
}

void blocks_withdraw(struct blocks *b, int32_t block)
{
    unlink_node(b, block);
}

/* ── references ────────────────────────────────────────────────────────────────────── */

static void give_back(struct blocks *b, int32_t block)
{
    b->free[b->free_count++] = block;
}

static void evict(struct blocks *b)
{
    int32_t block = b->heap[0];
    heap_remove(b, block);
    unlink_node(b, block);
    give_back(b, block);
    figure_add(&b->idle, UINT32_MAX);
    figure_add_long(&b->evicted, 1);
}

int32_t blocks_take(struct blocks *b)
{
    if (b->free_count == 0)
        evict(b);
    int32_t block = b->free[--b->free_count];
    b->all[block].references = 1;
    figure_add(&b->used, 1);
    return block;
}

void blocks_share(struct blocks *b, int32_t block)
{
    struct block *node = &b->all[block];
    node->references++;
    if (node->references == 1) {
        if (node->place)
            heap_remove(b, block);
        figure_add(&b->idle, UINT32_MAX);
        figure_add(&b->used, 1);
    } else if (node->references == 2) {
        figure_add(&b->shared, 1);
    }
}

void blocks_drop(struct blocks *b, int32_t block)
{
    struct block *node = &b->all[block];
    node->references--;
    if (node->references == 1)
        figure_add(&b->shared, UINT32_MAX);
    if (node->references > 0)
        return;
    figure_add(&b->used, UINT32_MAX);
    if (!node->in_tree) {
        give_back(b, block);
        return;
    }
    node->left = ++b->now;
    figure_add(&b->idle, 1);
    if (node->children == 0)
        heap_push(b, block);
}

void blocks_forget(struct blocks *b)
{
    while (b->heap_count > 0) {
        int32_t block = b->heap[0];
        heap_remove(b, block);
        unlink_node(b, block);
        give_back(b, block);
    }
    atomic_store_explicit(&b->idle, 0, memory_order_relaxed);
}

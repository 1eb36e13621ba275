/* SPDX-License-Identifier: MIT */
/* A request's way through the map: see kvmap.h. */
#include <string.h>

#include "blocks.h"

int kvmap_unknown(const struct kvmap *map, const struct lathe_request *req, const char *call, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ESTATE, "kvcache %s: %s of request %llu, which was not admitted", map->name, call,
                      (unsigned long long)req->id);
}

int take_slot(struct kvmap *map, const struct lathe_request *req, struct lathe_error *err)
{
    if (!map->slots)
        return lathe_fail(err, LATHE_ESTATE, "kvcache %s: used before layout", map->name);
    if (req->index >= map->max_requests || req->id == 0)
        return lathe_fail(err, LATHE_ERANGE, "kvcache %s: request %llu has index %u, beyond the %u that it was "
                          "laid out for", map->name, (unsigned long long)req->id, req->index, map->max_requests);
    if (map->slots[req->index].id)
        return lathe_fail(err, LATHE_ESTATE, "kvcache %s: request %llu has index %u, which request %llu still "
                          "holds; release that first", map->name, (unsigned long long)req->id, req->index,
                          (unsigned long long)map->slots[req->index].id);
    map->slots[req->index] = (struct kvmap_slot){ .id = req->id };
    map->admitted++;
    return LATHE_OK;
}

int kvmap_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    int status = take_slot(self, req, err);
    if (status == LATHE_OK)
        *cached = 0;
    return status;
}

/* Is the block that the next position goes into gone, or one that others look at too? While no block is
 * shared and no table has a hole, that is known without a look at table and references. */
static int must_take(const struct kvmap *map, const struct kvmap_slot *s, uint32_t tokens)
{
    if (map->holes == 0 && atomic_load_explicit(&map->shared, memory_order_relaxed) == 0)
        return 0;
    uint32_t entry = s->filled / map->block_tokens;
    if (tokens <= s->filled || entry >= s->count)
        return 0;
    int32_t block = kvmap_entries(map, s)[entry];
    return block < 0 || map->references[block] > 1;
}

uint32_t kvmap_blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens)
{
    const struct kvmap *map = self;
    const struct kvmap_slot *s = kvmap_slot(map, req);
    uint32_t want = kvmap_blocks_for(map, tokens);
    if (!s)
        return want;
    if (s->swapped.count)
        return s->swapped.count + (want > s->swapped_entries ? want - s->swapped_entries : 0);
    return (want > s->count ? want - s->count : 0) + (uint32_t)must_take(map, s, tokens);
}

uint32_t kvmap_blocks_available(void *self)
{
    return free_blocks(self);
}

/* Drops that wait go out with other operations; few at a time, since what is left of the list may be
 * needed to bring somebody in. */
static void emit_drops(struct kvmap *map, struct lathe_kv_ops *ops, uint32_t most)
{
    while (map->drop_count && most-- && ops->count < ops->capacity) {
        struct kvmap_range *r = &map->drops[map->drop_first];
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_DROP, .handle = r->handle++ };
        if (--r->count == 0) {
            map->drop_first = (map->drop_first + 1) % map->max_requests;
            map->drop_count--;
        }
    }
}

/* The block that is written first becomes the request's own. */
static void take_own(struct kvmap *map, struct kvmap_slot *s, struct lathe_kv_ops *ops)
{
    int32_t *entry = &kvmap_entries(map, s)[s->filled / map->block_tokens], old = *entry;
    uint32_t tokens = s->filled % map->block_tokens;
    *entry = block_take(map);
    if (old < 0) {
        count_slot(map, s, s->count, s->held + 1, s->filled, s->kept);
        return;
    }
    if (tokens)
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = old, .to = *entry, .tokens = tokens };
    block_drop(map, old);
}

int kvmap_reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                  struct lathe_error *err)
{
    struct kvmap *map = self;
    struct kvmap_slot *s = kvmap_slot(map, req);
    uint32_t want = map->slots ? kvmap_blocks_for(map, tokens) : 0, needed;
    int take;

    LATHE_ASSERT_THREAD(map->host, LATHE_THREAD_ENGINE);
    if (!s)
        return kvmap_unknown(map, req, "reserve", err);
    if (s->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache %s: request %llu is swapped out; swap it in first", map->name,
                          (unsigned long long)req->id);
    if (want > map->table_blocks)
        return lathe_fail(err, LATHE_ERANGE, "kvcache %s: request %llu wants %u positions; a table holds %u", map->name,
                          (unsigned long long)req->id, tokens, map->table_blocks * map->block_tokens);
    take = must_take(map, s, tokens);
    needed = (want > s->count ? want - s->count : 0) + (uint32_t)take;
    if (needed > free_blocks(map))
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache %s: request %llu needs %u more blocks for %u positions, "
                          "%u of %u are free", map->name, (unsigned long long)req->id, needed, tokens, free_blocks(map),
                          map->blocks);
    if (take && ops->count >= ops->capacity)
        return lathe_fail(err, LATHE_EFULL, "kvcache %s: no room for an operation; come with a list that has at "
                          "least %d free places", map->name, LATHE_KV_OPS_PER_CALL);
    if (take)
        take_own(map, s, ops);
    if (want > s->count) {
        int32_t *entries = kvmap_entries(map, s);
        for (uint32_t i = s->count; i < want; i++)
            entries[i] = block_take(map);
        count_slot(map, s, want, s->held + (want - s->count), s->filled, s->kept);
    }
    emit_drops(map, ops, LATHE_KV_OPS_PER_CALL - 1);
    return LATHE_OK;
}

void kvmap_table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count)
{
    const struct kvmap *map = self;
    const struct kvmap_slot *s = kvmap_slot(map, req);
    *blocks = s ? kvmap_entries(map, s) : NULL;
    *count = s ? s->count : 0;
}

void kvmap_filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct kvmap *map = self;
    struct kvmap_slot *s = kvmap_slot(map, req);
    if (!s)
        return;
    uint64_t room = (uint64_t)s->count * map->block_tokens;
    tokens = tokens < room ? tokens : (uint32_t)room;
    if (tokens > s->filled)
        count_slot(map, s, s->count, s->held, tokens, s->kept + (tokens - s->filled));
}

void kvmap_cut(struct kvmap *map, struct kvmap_slot *s, uint32_t tokens, uint32_t kept)
{
    uint32_t keep = kvmap_blocks_for(map, tokens), held = s->held;
    const int32_t *blocks = kvmap_entries(map, s);
    if (keep > s->count)
        keep = s->count;
    for (uint32_t i = s->count; i > keep; i--) /* last first: taken again in order */
        if (blocks[i - 1] >= 0) {
            block_drop(map, blocks[i - 1]);
            held--;
        }
    count_slot(map, s, keep, held, tokens < s->filled ? tokens : s->filled, kept);
}

void kvmap_truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct kvmap *map = self;
    struct kvmap_slot *s = kvmap_slot(map, req);
    if (!s)
        return;
    if (!s->swapped.count)
        kvmap_cut(map, s, tokens, tokens < s->filled ? tokens : s->kept);
    else if (tokens < s->swapped_truncated)
        s->swapped_truncated = tokens; /* it will be done when it is back */
}

void kvmap_release(void *self, const struct lathe_request *req)
{
    struct kvmap *map = self;
    struct kvmap_slot *s = kvmap_slot(map, req);
    if (!s)
        return;
    kvmap_cut(map, s, 0, 0);
    if (s->swapped.count) {
        map->drops[(map->drop_first + map->drop_count++) % map->max_requests] = s->swapped;
        map->swapped_requests--;
    }
    *s = (struct kvmap_slot){ 0 };
    map->admitted--;
}

int kvmap_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child,
               struct lathe_error *err)
{
    struct kvmap *map = self;
    struct kvmap_slot *from = kvmap_slot(map, parent), *to;
    uint32_t count, held = 0;
    int status;

    if (!from)
        return kvmap_unknown(map, parent, "fork", err);
    if (from->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache %s: request %llu is swapped out; swap it in before a fork",
                          map->name, (unsigned long long)parent->id);
    if ((status = take_slot(map, child, err)) != LATHE_OK)
        return status;
    to = &map->slots[child->index];
    count = kvmap_blocks_for(map, from->filled); /* room that nothing is in is not shared */
    for (uint32_t i = 0; i < count; i++) {
        int32_t block = kvmap_entries(map, from)[i];
        kvmap_entries(map, to)[i] = block;
        if (block >= 0) {
            block_share(map, block);
            held++;
        }
    }
    count_slot(map, to, count, held, from->filled, from->kept);
    return LATHE_OK;
}

void kvmap_evict_tokens(struct kvmap *map, struct kvmap_slot *s, uint32_t count)
{
    kvmap_bump_tokens(&map->evicted_tokens, count);
    count_slot(map, s, s->count, s->held, s->filled, s->kept - count);
}

void kvmap_evict_block(struct kvmap *map, struct kvmap_slot *s, uint32_t entry)
{
    int32_t *block = &kvmap_entries(map, s)[entry];
    if (entry >= s->count || *block < 0)
        return;
    if (block_drop(map, *block))
        kvmap_bump_tokens(&map->evicted_blocks, 1);
    *block = -1;
    count_slot(map, s, s->count, s->held - 1, s->filled, s->kept);
}

void kvmap_usage(void *self, struct lathe_kv_usage *u)
{
    struct kvmap *map = self;
    *u = (struct lathe_kv_usage){
        .blocks_total = map->blocks,
        .blocks_used = atomic_load_explicit(&map->used, memory_order_relaxed),
        .blocks_shared = atomic_load_explicit(&map->shared, memory_order_relaxed),
        .reserved_tokens = atomic_load_explicit(&map->reserved_tokens, memory_order_relaxed),
        .filled_tokens = atomic_load_explicit(&map->filled_tokens, memory_order_relaxed),
        .evicted_blocks = atomic_load_explicit(&map->evicted_blocks, memory_order_relaxed),
        .evicted_tokens = atomic_load_explicit(&map->evicted_tokens, memory_order_relaxed),
    };
}

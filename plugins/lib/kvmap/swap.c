/* SPDX-License-Identifier: MIT */
/* Swapping: a request's filled blocks move to host memory under handles, numbered by a counter, and
 * come back to any blocks that are free. Holes stay where they were. See kvmap.h. */
#include "blocks.h"

int kvmap_preempt_choice(void *self, const struct lathe_request *req)
{
    (void)req;
    return ((struct kvmap *)self)->wishes.preempt;
}

static int too_few_ops(const struct kvmap *map, const struct lathe_request *req, uint32_t count, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFULL, "kvcache %s: swapping request %llu takes %u operations; come with a list "
                      "that has room for them", map->name, (unsigned long long)req->id, count);
}

int kvmap_swap_out(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err)
{
    struct kvmap *map = self;
    struct kvmap_slot *s = kvmap_slot(map, req);
    const int32_t *blocks;
    uint32_t entries, held = 0, filled, kept;

    if (!s)
        return kvmap_unknown(map, req, "swap_out", err);
    if (s->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache %s: request %llu is swapped out already", map->name,
                          (unsigned long long)req->id);
    entries = kvmap_blocks_for(map, s->filled);
    blocks = kvmap_entries(map, s);
    for (uint32_t i = 0; i < entries; i++)
        held += blocks[i] >= 0;
    if (!held && s->filled)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache %s: nothing is kept of request %llu; recompute it instead",
                          map->name, (unsigned long long)req->id);
    if (ops->capacity - ops->count < held)
        return too_few_ops(map, req, held, err);
    if (held && map->swapped_requests + map->drop_count >= map->max_requests)
        return lathe_fail(err, LATHE_EFULL, "kvcache %s: %u swapped blocks' ranges wait to be dropped; recompute "
                          "request %llu instead", map->name, map->drop_count, (unsigned long long)req->id);
    for (uint32_t i = 0, moved = 0; i < entries; i++)
        if (blocks[i] >= 0)
            ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_OUT, .from = blocks[i],
                                                           .handle = map->next_handle + moved++ };
    filled = s->filled, kept = s->kept;
    kvmap_cut(map, s, 0, 0);
    if (held) {
        s->swapped = (struct kvmap_range){ map->next_handle, held };
        s->swapped_entries = entries;
        s->swapped_filled = s->swapped_truncated = filled;
        s->swapped_kept = kept;
        map->next_handle += held;
        map->swapped_requests++;
    }
    return LATHE_OK;
}

int kvmap_swap_in(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err)
{
    struct kvmap *map = self;
    struct kvmap_slot *s = kvmap_slot(map, req);
    uint32_t count, moved = 0;
    int32_t *blocks;

    if (!s)
        return kvmap_unknown(map, req, "swap_in", err);
    count = s->swapped.count;
    if (!count)
        return LATHE_OK; /* nothing was moved */
    if (count > free_blocks(map))
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache %s: request %llu needs %u blocks to come back, %u of %u are "
                          "free", map->name, (unsigned long long)req->id, count, free_blocks(map), map->blocks);
    if (ops->capacity - ops->count < count)
        return too_few_ops(map, req, count, err);
    blocks = kvmap_entries(map, s);
    for (uint32_t i = 0; i < s->swapped_entries; i++) {
        if (blocks[i] < 0)
            continue;
        blocks[i] = block_take(map);
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_IN, .to = blocks[i],
                                                       .handle = s->swapped.handle + moved++ };
    }
    count_slot(map, s, s->swapped_entries, count, s->swapped_filled, s->swapped_kept);
    s->swapped.count = 0;
    map->swapped_requests--;
    if (s->swapped_truncated < s->filled)
        (map->truncate ? map->truncate : kvmap_truncate)(map, req, s->swapped_truncated);
    return LATHE_OK;
}

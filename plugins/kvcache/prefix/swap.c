/* SPDX-License-Identifier: MIT */
/* Out to host memory and back, under handles numbered by a counter.
 *
 * What goes out of the tree stays there as well, idle: when its request comes back, blocks that
 * are still there are taken as they are, and their copies in host memory are dropped.
 *
 * A swapped request that is released leaves handles to be dropped; they wait in a small ring until
 * the next call that has room for operations. Swapped requests and waiting drops together never
 * exceed max_requests, so that release can't fail. */
#include "prefix.h"

int swap_preempt_choice(void *self, const struct lathe_request *req)
{
    (void)req;
    return ((const struct prefix *)self)->preempt;
}

void swap_abandon(struct prefix *p, struct slot *s)
{
    p->drops[(p->drop_first + p->drop_count++) % p->max_requests] = s->swapped;
    p->swapped_requests--;
}

void swap_emit_drops(struct prefix *p, struct lathe_kv_ops *ops, uint32_t most)
{
    while (p->drop_count && most-- && ops->count < ops->capacity) {
        struct range *r = &p->drops[p->drop_first];
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_DROP, .handle = r->handle++ };
        if (--r->count == 0) {
            p->drop_first = (p->drop_first + 1) % p->max_requests;
            p->drop_count--;
        }
    }
}

static int too_few_ops(const struct lathe_request *req, uint32_t count, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFULL, "kvcache prefix: swapping request %llu takes %u operations; come with a list "
                      "that has room for them", (unsigned long long)req->id, count);
}

int swap_out(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err)
{
    struct prefix *p = self;
    struct slot *s = map_slot(p, req);

    if (!s)
        return map_unknown(req, "swap_out", err);
    if (s->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: request %llu is swapped out already",
                          (unsigned long long)req->id);
    uint32_t count = blocks_for(p, s->filled), tokens = s->filled;
    if (ops->capacity - ops->count < count)
        return too_few_ops(req, count, err);
    if (count && p->swapped_requests + p->drop_count >= p->max_requests)
        return lathe_fail(err, LATHE_EFULL, "kvcache prefix: %u swapped blocks' ranges wait to be dropped; recompute "
                          "request %llu instead", p->drop_count, (unsigned long long)req->id);
    for (uint32_t i = 0; i < count; i++)
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_OUT, .from = table_of(p, s)[i],
                                                       .handle = p->next_handle + i };
    map_cut(p, s, 0);
    if (count) {
        s->swapped = (struct range){ p->next_handle, count, tokens };
        p->next_handle += count;
        p->swapped_requests++;
    }
    return LATHE_OK;
}

int swap_in(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err)
{
    struct prefix *p = self;
    struct slot *s = map_slot(p, req);
    uint32_t idle;

    if (!s)
        return map_unknown(req, "swap_in", err);
    if (!s->swapped.count)
        return LATHE_OK; /* nothing was moved */
    uint32_t whole = s->swapped.tokens / p->block_tokens, keep = blocks_for(p, s->swapped.tokens);
    uint32_t found = map_look(p, s, req, whole, &idle), needed = keep - found + idle;
    if (needed > blocks_available(&p->blocks))
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache prefix: request %llu needs %u blocks to come back, %u of %u are "
                          "free or may be evicted", (unsigned long long)req->id, needed, blocks_available(&p->blocks),
                          p->blocks.shape.blocks);
    if (ops->capacity - ops->count < s->swapped.count)
        return too_few_ops(req, s->swapped.count, err);
    map_adopt(p, s, req, whole);
    for (uint32_t i = 0; i < found; i++)
        p->blocks.all[table_of(p, s)[i]].uses++;
    for (uint32_t i = 0; i < s->swapped.count; i++) {
        struct lathe_kv_op op = { .kind = LATHE_KV_DROP, .handle = s->swapped.handle + i };
        if (i >= found && i < keep) {
            op.kind = LATHE_KV_MOVE_IN;
            op.to = table_of(p, s)[i] = blocks_take(&p->blocks);
        }
        ops->ops[ops->count++] = op;
    }
    map_count(p, s, keep, s->swapped.tokens);
    s->swapped = (struct range){ 0 };
    p->swapped_requests--;
    return LATHE_OK;
}

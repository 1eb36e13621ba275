/* SPDX-License-Identifier: MIT */
/* See span.h. */
#include "span.h"

void kvspan_destroy(void *self)
{
    struct kvspan *p = self;
    if (!p)
        return;
    lathe_free(p->map.host, p->from);
    lathe_free(p->map.host, p->lists);
    kvmap_close(&p->map);
    lathe_free(p->map.host, p);
}

int kvspan_create(const struct lathe_host *host, const struct lathe_config *config, const char *name, size_t bytes,
                  uint32_t first, void **self, struct lathe_error *err)
{
    void *made;
    int64_t budget = config->values[KVMAP_BUDGET].integer;
    if (budget && budget <= first)
        return lathe_fail(err, LATHE_EINVAL, "kvcache %s: a budget of %lld positions leaves no window behind the first %u; "
                          "raise it", name, (long long)budget, first);
    int status = kvmap_create(host, config, name, 1, bytes, &made, err);
    if (status != LATHE_OK)
        return status;
    ((struct kvspan *)made)->first = first;
    ((struct kvspan *)made)->map.truncate = kvspan_truncate;
    *self = made;
    return LATHE_OK;
}

int kvspan_layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    struct kvspan *p = self;
    size_t entries;
    int status = kvmap_layout(self, demand, geometry, err);
    if (status != LATHE_OK)
        return status;
    p->most = kvmap_most_kept(&p->map);
    if (!p->most)
        return LATHE_OK;
    if (p->most <= p->first) /* a pool's share may be as small */
        p->most = p->first + 1;
    p->from = lathe_alloc_array(p->map.host, p->map.max_requests, sizeof *p->from);
    p->lists = __builtin_mul_overflow((size_t)p->map.max_requests, (size_t)p->most, &entries)
                   ? NULL
                   : lathe_alloc_array(p->map.host, entries, sizeof *p->lists);
    if (!p->from || !p->lists)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache %s: no memory for the lists of %u requests that keep %u positions each",
                          p->map.name, p->map.max_requests, p->most);
    return LATHE_OK;
}

int kvspan_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    struct kvspan *p = self;
    int status = kvmap_admit(self, req, cached, err);
    if (status == LATHE_OK && p->most)
        p->from[req->index] = p->first;
    return status;
}

/* The hole reaches to `from` now: blocks wholly within it go back. */
static void widen(struct kvspan *p, struct kvmap_slot *s, uint32_t from)
{
    uint32_t block = p->map.block_tokens, *was = &p->from[s - p->map.slots];
    uint32_t whole = kvmap_blocks_for(&p->map, p->first), i = *was / block > whole ? *was / block : whole;
    for (; (uint64_t)(i + 1) * block <= from; i++)
        kvmap_evict_block(&p->map, s, i);
    *was = from;
}

void kvspan_filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct kvspan *p = self;
    struct kvmap_slot *s = kvmap_slot(&p->map, req);
    kvmap_filled(self, req, tokens);
    if (!p->most || !s || s->swapped.count)
        return;
    uint32_t limit = kvmap_limit(&p->map);
    if (limit <= p->first)
        limit = p->first + 1;
    if (s->kept <= limit)
        return;
    uint32_t over = s->kept - limit; /* those kept beyond the first are from … filled − 1, more than `over` */
    kvmap_evict_tokens(&p->map, s, over);
    widen(p, s, p->from[req->index] + over);
}

void kvspan_kept(void *self, const struct lathe_request *req, const int32_t **positions, uint32_t *count)
{
    struct kvspan *p = self;
    const struct kvmap_slot *s = kvmap_slot(&p->map, req);
    *positions = NULL;
    *count = 0;
    if (!p->most || !s || s->kept == s->filled)
        return;
    int32_t *list = p->lists + (size_t)req->index * p->most;
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->first && i < s->filled; i++)
        list[n++] = (int32_t)i;
    for (uint32_t i = p->from[req->index]; i < s->filled; i++)
        list[n++] = (int32_t)i;
    *positions = list;
    *count = n;
}

void kvspan_truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct kvspan *p = self;
    struct kvmap_slot *s = kvmap_slot(&p->map, req);
    if (!p->most || !s || s->swapped.count || tokens >= s->filled) {
        kvmap_truncate(self, req, tokens);
        return;
    }
    uint32_t from = p->from[req->index], entry = tokens / p->map.block_tokens;
    uint32_t first = tokens < p->first ? tokens : p->first;
    kvmap_cut(&p->map, s, tokens, first + (tokens > from ? tokens - from : 0));
    if (tokens >= from)
        return;
    p->from[req->index] = tokens > p->first ? tokens : p->first;
    if (tokens > p->first && (uint64_t)entry * p->map.block_tokens >= p->first)
        kvmap_evict_block(&p->map, s, entry); /* of the block that it is cut in, only what is gone was left */
}

int kvspan_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child,
                struct lathe_error *err)
{
    struct kvspan *p = self;
    int status = kvmap_fork(self, parent, child, err);
    if (status == LATHE_OK && p->most)
        p->from[child->index] = p->from[parent->index];
    return status;
}

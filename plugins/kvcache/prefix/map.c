/* SPDX-License-Identifier: MIT */
/* A request's table of blocks; see prefix.h.
 *
 * When a block of its own is full, its request publishes it, or, if somebody else was quicker with
 * the same text, takes the other's and gives its own back. A block that two requests of one fork
 * hold is published by the one that has it alone at last: otherwise the other would refer to a node
 * and not to those above it. */
#include "prefix.h"

/* ── requests ──────────────────────────────────────────────────────────────────────── */

struct slot *map_slot(struct prefix *p, const struct lathe_request *req)
{
    if (!p->slots || req->index >= p->max_requests || p->slots[req->index].id != req->id || req->id == 0)
        return NULL;
    return &p->slots[req->index];
}

int map_unknown(const struct lathe_request *req, const char *call, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: %s of request %llu, which was not admitted", call,
                      (unsigned long long)req->id);
}

void map_count(struct prefix *p, struct slot *s, uint32_t count, uint32_t filled)
{
    uint64_t block = p->block_tokens; /* unsigned wrap-around subtracts rightly */
    figure_add_long(&p->reserved_tokens, ((uint64_t)count - s->count) * block);
    figure_add_long(&p->filled_tokens, (uint64_t)filled - s->filled);
    s->count = count;
    s->filled = filled;
}

/* Whose texts may be the same as this one's. A request whose tokens aren't known equals no other, and
 * one without a session shares with nobody where sessions are apart. */
static void set_salt(const struct prefix *p, struct slot *s, const struct lathe_request *req)
{
    s->salt = p->share == SHARE_TENANT ? req->tenant : p->share == SHARE_SESSION ? req->session : 0;
    s->shares = req->tokens && (p->share != SHARE_SESSION || req->session != 0);
}

static int take_slot(struct prefix *p, const struct lathe_request *req, struct lathe_error *err)
{
    if (!p->slots)
        return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: used before layout");
    if (req->index >= p->max_requests || req->id == 0)
        return lathe_fail(err, LATHE_ERANGE, "kvcache prefix: request %llu has index %u, beyond the %u that it was "
                          "laid out for", (unsigned long long)req->id, req->index, p->max_requests);
    if (p->slots[req->index].id)
        return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: request %llu has index %u, which request %llu still "
                          "holds; release that first", (unsigned long long)req->id, req->index,
                          (unsigned long long)p->slots[req->index].id);
    p->slots[req->index] = (struct slot){ .id = req->id };
    set_salt(p, &p->slots[req->index], req);
    return LATHE_OK;
}

/* ── what is there already ─────────────────────────────────────────────────────────── */

/* Whole blocks that may be found: all but the last token, which must be computed to know what comes next. */
static uint32_t most_found(const struct prefix *p, const struct lathe_request *req)
{
    uint64_t tokens = (uint64_t)req->prompt_tokens + req->output_tokens;
    uint64_t most = tokens ? (tokens - 1) / p->block_tokens : 0;
    return most < p->table_blocks ? (uint32_t)most : p->table_blocks;
}

uint32_t map_look(const struct prefix *p, const struct slot *s, const struct lathe_request *req, uint32_t most,
                  uint32_t *idle)
{
    int32_t at = NO_BLOCK;
    uint32_t found = 0;
    *idle = 0;
    for (; s->shares && found < most; found++) {
        at = blocks_find(&p->blocks, s->salt, at, req->tokens + (size_t)found * p->block_tokens);
        if (at == NO_BLOCK)
            break;
        *idle += p->blocks.all[at].references == 0;
    }
    return found;
}

void map_adopt(struct prefix *p, struct slot *s, const struct lathe_request *req, uint32_t most)
{
    int32_t *table = table_of(p, s), at = NO_BLOCK;
    uint32_t found = 0;
    for (; s->shares && found < most; found++) {
        at = blocks_find(&p->blocks, s->salt, at, req->tokens + (size_t)found * p->block_tokens);
        if (at == NO_BLOCK)
            break;
        blocks_share(&p->blocks, at);
        table[found] = at;
    }
    s->known = found;
    map_count(p, s, found, found * p->block_tokens);
}

uint32_t map_cached_prefix(void *self, const struct lathe_request *req)
{
    const struct prefix *p = self;
    struct slot stranger = { 0 };
    uint32_t idle;
    if (!p->slots)
        return 0;
    set_salt(p, &stranger, req);
    return map_look(p, &stranger, req, most_found(p, req), &idle) * p->block_tokens;
}

int map_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    struct prefix *p = self;
    int status = take_slot(p, req, err);
    if (status != LATHE_OK)
        return status;
    struct slot *s = &p->slots[req->index];
    map_adopt(p, s, req, most_found(p, req));
    s->looked_up = req->prompt_tokens;
    *cached = s->filled;
    return LATHE_OK;
}

/* An engine may let a request in many times before it runs. A look-up counts when room is first
 * taken, and once: a victim that comes back finds its own blocks, which is no hit of a prompt. */
static void count_look_up(struct prefix *p, struct slot *s, const struct lathe_request *req)
{
    for (uint32_t i = 0; i < s->known; i++)
        p->blocks.all[table_of(p, s)[i]].uses++;
    if (s->shares && req->preemptions == 0) {
        figure_add_long(&p->hit_tokens, (uint64_t)s->known * p->block_tokens);
        figure_add_long(&p->looked_up_tokens, s->looked_up);
    }
    s->looked_up = 0;
}

/* ── room ──────────────────────────────────────────────────────────────────────────── */

/* What must happen to the block that the next position goes into. */
enum first_write {
    WRITE,          /* it is this request's own */
    WITHDRAW,       /* nobody else holds it and nothing comes after it: it leaves the tree */
    COPY_AND_LEAVE, /* nobody else holds it, but idle nodes come after it: a copy, and it stays, idle */
    COPY,           /* others hold it */
};

static enum first_write first_write(const struct prefix *p, const struct slot *s, uint32_t tokens)
{
    uint32_t block = s->filled / p->block_tokens;
    if (tokens <= s->filled || block >= s->count)
        return WRITE;
    const struct block *b = &p->blocks.all[table_of(p, s)[block]];
    if (b->references > 1)
        return COPY;
    return !b->in_tree ? WRITE : b->children ? COPY_AND_LEAVE : WITHDRAW;
}

static uint32_t needed_for(const struct prefix *p, const struct slot *s, uint32_t tokens, enum first_write how)
{
    uint32_t want = blocks_for(p, tokens);
    return (want > s->count ? want - s->count : 0) + (how == COPY);
}

uint32_t map_blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct prefix *p = self;
    const struct slot *s = map_slot(p, req);
    if (!s)
        return p->block_tokens ? blocks_for(p, tokens) : 0;
    return needed_for(p, s, tokens, first_write(p, s, tokens));
}

uint32_t map_blocks_available(void *self)
{
    return blocks_available(&((const struct prefix *)self)->blocks);
}

static void make_writable(struct prefix *p, struct slot *s, enum first_write how, struct lathe_kv_ops *ops)
{
    int32_t *entry = &table_of(p, s)[s->filled / p->block_tokens], old = *entry;
    if (how == WITHDRAW) {
        blocks_withdraw(&p->blocks, old);
        return;
    }
    *entry = blocks_take(&p->blocks);
    ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = old, .to = *entry,
                                                   .tokens = s->filled % p->block_tokens };
    blocks_drop(&p->blocks, old);
}

int map_reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                struct lathe_error *err)
{
    struct prefix *p = self;
    struct slot *s = map_slot(p, req);
    LATHE_ASSERT_THREAD(p->host, LATHE_THREAD_ENGINE);
    if (!s)
        return map_unknown(req, "reserve", err);
    if (s->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: request %llu is swapped out; swap it in first",
                          (unsigned long long)req->id);
    uint32_t want = blocks_for(p, tokens);
    if (want > p->table_blocks)
        return lathe_fail(err, LATHE_ERANGE, "kvcache prefix: request %llu wants %u positions; a table holds %u",
                          (unsigned long long)req->id, tokens, p->table_blocks * p->block_tokens);
    enum first_write how = first_write(p, s, tokens);
    uint32_t needed = needed_for(p, s, tokens, how), available = blocks_available(&p->blocks);
    if (needed > available)
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache prefix: request %llu needs %u more blocks for %u positions, "
                          "%u of %u are free or may be evicted", (unsigned long long)req->id, needed, tokens, available,
                          p->blocks.shape.blocks);
    if (how >= COPY_AND_LEAVE && ops->count >= ops->capacity)
        return lathe_fail(err, LATHE_EFULL, "kvcache prefix: no room for an operation; come with a list that has at "
                          "least %d free places", LATHE_KV_OPS_PER_CALL);
    if (s->looked_up)
        count_look_up(p, s, req);
    if (how != WRITE)
        make_writable(p, s, how, ops);
    if (want > s->count) {
        int32_t *table = table_of(p, s);
        for (uint32_t i = s->count; i < want; i++)
            table[i] = blocks_take(&p->blocks);
        map_count(p, s, want, s->filled);
    }
    swap_emit_drops(p, ops, LATHE_KV_OPS_PER_CALL - 1);
    return LATHE_OK;
}

void map_table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count)
{
    struct prefix *p = self;
    const struct slot *s = map_slot(p, req);
    *blocks = s ? table_of(p, s) : NULL;
    *count = s ? s->count : 0;
}

/* ── what lies in it ───────────────────────────────────────────────────────────────── */

/* Block `known` of the table is full: it becomes a node, or the node of the same text takes its place. */
static int settle(struct prefix *p, struct slot *s, const struct lathe_request *req)
{
    int32_t *entry = &table_of(p, s)[s->known], parent = s->known ? entry[-1] : NO_BLOCK;
    const int32_t *tokens = req->tokens + (size_t)s->known * p->block_tokens;
    int32_t there = blocks_find(&p->blocks, s->salt, parent, tokens);
    const struct block *own = &p->blocks.all[*entry];

    if (there == NO_BLOCK) {
        if (own->references > 1 || own->in_tree)
            return 0;
        blocks_publish(&p->blocks, *entry, s->salt, parent, tokens);
    } else if (there != *entry) {
        blocks_share(&p->blocks, there);
        blocks_drop(&p->blocks, *entry);
        p->blocks.all[there].uses++;
        *entry = there;
    }
    s->known++;
    return 1;
}

void map_filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct prefix *p = self;
    struct slot *s = map_slot(p, req);
    if (!s)
        return;
    uint32_t room = s->count * p->block_tokens;
    tokens = tokens < room ? tokens : room;
    if (tokens > s->filled)
        map_count(p, s, s->count, tokens);
    while (s->shares && s->known < s->filled / p->block_tokens && settle(p, s, req))
        ;
}

void map_cut(struct prefix *p, struct slot *s, uint32_t tokens)
{
    uint32_t keep = blocks_for(p, tokens), whole = tokens / p->block_tokens;
    const int32_t *table = table_of(p, s);
    for (uint32_t i = s->count; i > keep; i--) /* last first: leaves before their parents */
        blocks_drop(&p->blocks, table[i - 1]);
    if (s->known > whole)
        s->known = whole;
    map_count(p, s, keep < s->count ? keep : s->count, tokens < s->filled ? tokens : s->filled);
}

void map_truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct prefix *p = self;
    struct slot *s = map_slot(p, req);
    if (!s)
        return;
    if (tokens < s->swapped.tokens)
        s->swapped.tokens = tokens;
    map_cut(p, s, tokens);
}

void map_release(void *self, const struct lathe_request *req)
{
    struct prefix *p = self;
    struct slot *s = map_slot(p, req);
    if (!s)
        return;
    map_cut(p, s, 0);
    if (s->swapped.count)
        swap_abandon(p, s);
    *s = (struct slot){ 0 };
}

int map_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child, struct lathe_error *err)
{
    struct prefix *p = self;
    struct slot *from = map_slot(p, parent), *to;
    int status;

    if (!from)
        return map_unknown(parent, "fork", err);
    if (from->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache prefix: request %llu is swapped out; swap it in before a fork",
                          (unsigned long long)parent->id);
    if ((status = take_slot(p, child, err)) != LATHE_OK)
        return status;
    to = &p->slots[child->index];
    uint32_t count = blocks_for(p, from->filled); /* room that nothing is in is not shared */
    for (uint32_t i = 0; i < count; i++) {
        int32_t block = table_of(p, from)[i];
        table_of(p, to)[i] = block;
        blocks_share(&p->blocks, block);
        if (i < from->known)
            p->blocks.all[block].uses++;
    }
    to->known = from->known;
    to->shares = to->shares && from->shares && to->salt == from->salt; /* never below somebody else's path */
    map_count(p, to, count, from->filled);
    return LATHE_OK;
}

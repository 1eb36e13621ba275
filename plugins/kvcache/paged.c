/* SPDX-License-Identifier: MIT */
/* A paged KV cache: blocks, block tables, reference counts (PagedAttention, SOSP 2023).
 *
 * The pool is cut into blocks of block_tokens positions. A request's table lists its
 * blocks in the order of its positions; they may lie anywhere, so the only waste is the
 * last block's empty end.
 *
 *     request 7, 37 positions     table  [ 4 | 0 | 9 ]
 *     request 8, fork of 7        table  [ 4 | 0 | 9 ]      references: 4:2 0:2 9:2
 *     request 8 writes at 37:     table  [ 4 | 0 | 2 ]      op: copy 5 positions of 9 to 2
 *
 * Invariants: a block is on the free list, or has as many references as tables that list
 * it; whoever writes into a block is its only owner (copy on write); a call that fails has
 * changed nothing. At most one block of a table can be both shared and about to be
 * written: the one that holds position `filled`, since everything beyond is fresh.
 *
 * Swapping moves a request's filled blocks to host memory under handles, numbered by a
 * counter. A swapped request that is released leaves handles to be dropped; they wait in
 * a small ring until the next call that has room for operations. Swapped requests and
 * waiting drops together never exceed max_requests, so that release can't fail.
 *
 * Counters for usage() are atomics with one writer: other threads may read them. */
#include <stdatomic.h>
#include <string.h>

#include <lathe/kvcache.h>

enum { OPT_BLOCK_TOKENS, OPT_BLOCKS, OPT_MEMORY_MB, OPT_PREEMPT, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "block_tokens", LATHE_OPTION_INTEGER, "16", 1, 4096, "tokens", NULL, "Positions a block holds." },
    { "blocks", LATHE_OPTION_INTEGER, "0", 0, 1e9, "blocks", NULL,
      "Blocks in the pool; 0: as many as the memory holds." },
    { "memory_mb", LATHE_OPTION_INTEGER, "256", 1, 1e9, "MiB", NULL,
      "Memory for keys and values, if neither `blocks` nor the engine says." },
    { "preempt", LATHE_OPTION_CHOICE, "recompute", 0, 0, "", "recompute|swap",
      "What becomes of a victim's keys and values: thrown away, or moved to host memory." },
};

struct range {
    uint64_t handle; /* handle … handle + count − 1 */
    uint32_t count;
    uint32_t tokens; /* positions that they hold */
};

struct slot {
    uint64_t id;            /* the request's; 0: free */
    uint32_t count;         /* blocks in its table */
    uint32_t filled;        /* positions whose KV is valid */
    struct range swapped;   /* count > 0: it lies in host memory, its table is empty */
};

struct paged {
    const struct lathe_host *host;
    int64_t want_block_tokens, want_blocks, want_memory_mb;
    int preempt;

    uint32_t max_requests, table_blocks; /* table_blocks: most that one request may have */
    uint32_t block_tokens, blocks;
    struct slot *slots;                  /* (max_requests) */
    int32_t *tables;                     /* (max_requests, table_blocks) */
    uint32_t *references;                /* (blocks) */
    int32_t *free_blocks;                /* a stack; (blocks) */
    uint32_t free_count;

    struct range *drops;                 /* a ring; (max_requests) */
    uint32_t drop_first, drop_count, swapped_requests;
    uint64_t next_handle;

    atomic_uint used, shared;
    atomic_uint_least64_t reserved_tokens, filled_tokens;
};

static void destroy(void *self)
{
    struct paged *p = self;
    if (!p)
        return;
    lathe_free(p->host, p->slots);
    lathe_free(p->host, p->tables);
    lathe_free(p->host, p->references);
    lathe_free(p->host, p->free_blocks);
    lathe_free(p->host, p->drops);
    lathe_free(p->host, p);
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct paged *p = lathe_alloc(host, sizeof *p);
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache paged: no memory for %zu bytes", sizeof *p);
    p->host = host;
    p->want_block_tokens = config->values[OPT_BLOCK_TOKENS].integer;
    p->want_blocks = config->values[OPT_BLOCKS].integer;
    p->want_memory_mb = config->values[OPT_MEMORY_MB].integer;
    p->preempt = config->values[OPT_PREEMPT].integer == 1 ? LATHE_KV_SWAP : LATHE_KV_RECOMPUTE;
    *self = p;
    return LATHE_OK;
}

static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    struct paged *p = self;
    uint64_t block_bytes, blocks, most;

    if (p->slots)
        return lathe_fail(err, LATHE_ESTATE, "kvcache paged: laid out twice; make a second instance instead");
    if (demand->max_requests == 0 || demand->context_tokens == 0)
        return lathe_fail(err, LATHE_EINVAL, "kvcache paged: asked for %u requests of %u tokens; both must be at "
                          "least 1", demand->max_requests, demand->context_tokens);
    p->block_tokens = (uint32_t)p->want_block_tokens;
    p->max_requests = demand->max_requests;
    p->table_blocks = (uint32_t)(((uint64_t)demand->context_tokens + p->block_tokens - 1) / p->block_tokens);
    most = (uint64_t)p->max_requests * p->table_blocks; /* more could never be used */
    if (__builtin_mul_overflow(demand->kv_bytes_per_token, (uint64_t)p->block_tokens, &block_bytes))
        return lathe_fail(err, LATHE_ERANGE, "kvcache paged: a block of %u tokens at %llu bytes each is too large",
                          p->block_tokens, (unsigned long long)demand->kv_bytes_per_token);
    if (p->want_blocks > 0) {
        blocks = (uint64_t)p->want_blocks;
    } else {
        uint64_t memory = demand->memory_bytes ? demand->memory_bytes : (uint64_t)p->want_memory_mb << 20;
        blocks = block_bytes ? memory / block_bytes : most;
        if (blocks == 0)
            return lathe_fail(err, LATHE_EINVAL, "kvcache paged: %llu bytes hold no block of %u tokens, which takes "
                              "%llu bytes; raise memory_mb or lower block_tokens", (unsigned long long)memory,
                              p->block_tokens, (unsigned long long)block_bytes);
        if (blocks > most)
            blocks = most;
    }
    if (blocks > INT32_MAX)
        blocks = INT32_MAX;
    p->blocks = (uint32_t)blocks;

    p->slots = lathe_alloc_array(p->host, p->max_requests, sizeof *p->slots);
    p->tables = most > SIZE_MAX / 4 ? NULL : lathe_alloc_array(p->host, (size_t)most, sizeof *p->tables);
    p->references = lathe_alloc_array(p->host, p->blocks, sizeof *p->references);
    p->free_blocks = lathe_alloc_array(p->host, p->blocks, sizeof *p->free_blocks);
    p->drops = lathe_alloc_array(p->host, p->max_requests, sizeof *p->drops);
    if (!p->slots || !p->tables || !p->references || !p->free_blocks || !p->drops) {
        lathe_free(p->host, p->slots);
        lathe_free(p->host, p->tables);
        lathe_free(p->host, p->references);
        lathe_free(p->host, p->free_blocks);
        lathe_free(p->host, p->drops);
        p->slots = NULL, p->tables = NULL, p->references = NULL, p->free_blocks = NULL, p->drops = NULL;
        return lathe_fail(err, LATHE_ENOMEM, "kvcache paged: no memory for the map of %u blocks and %u requests",
                          p->blocks, p->max_requests);
    }
    for (uint32_t i = 0; i < p->blocks; i++) /* popped from the end: block 0 first */
        p->free_blocks[i] = (int32_t)(p->blocks - 1 - i);
    p->free_count = p->blocks;
    p->next_handle = 1;
    geometry->block_tokens = p->block_tokens;
    geometry->blocks = p->blocks;
    return LATHE_OK;
}

/* --- blocks ------------------------------------------------------------------ */

static uint32_t blocks_for(const struct paged *p, uint32_t tokens)
{
    return tokens / p->block_tokens + (tokens % p->block_tokens != 0);
}

/* Figures that [any] may read; this thread alone writes them, so no locked instruction. */
static void bump(atomic_uint *figure, uint32_t by) /* UINT32_MAX: one less */
{
    atomic_store_explicit(figure, atomic_load_explicit(figure, memory_order_relaxed) + by, memory_order_relaxed);
}

static void bump_tokens(atomic_uint_least64_t *figure, uint64_t by)
{
    atomic_store_explicit(figure, atomic_load_explicit(figure, memory_order_relaxed) + by, memory_order_relaxed);
}

static int32_t block_take(struct paged *p)
{
    int32_t block = p->free_blocks[--p->free_count];
    p->references[block] = 1;
    bump(&p->used, 1);
    return block;
}

static void block_share(struct paged *p, int32_t block)
{
    if (++p->references[block] == 2)
        bump(&p->shared, 1);
}

static void block_drop(struct paged *p, int32_t block)
{
    uint32_t left = --p->references[block];
    if (left == 1)
        bump(&p->shared, UINT32_MAX);
    if (left == 0) {
        p->free_blocks[p->free_count++] = block;
        bump(&p->used, UINT32_MAX);
    }
}

/* --- requests ---------------------------------------------------------------- */

/* The slot of an admitted request, or NULL. */
static struct slot *slot_of(struct paged *p, const struct lathe_request *req)
{
    if (!p->slots || req->index >= p->max_requests || p->slots[req->index].id != req->id)
        return NULL;
    return &p->slots[req->index];
}

static int32_t *table_of(struct paged *p, const struct slot *s)
{
    return p->tables + (size_t)(s - p->slots) * p->table_blocks;
}

static int unknown(const struct lathe_request *req, const char *call, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ESTATE, "kvcache paged: %s of request %llu, which was not admitted", call,
                      (unsigned long long)req->id);
}

static void count_tokens(struct paged *p, struct slot *s, uint32_t count, uint32_t filled)
{
    uint64_t block = p->block_tokens; /* unsigned wrap-around subtracts rightly */
    if (count != s->count)
        bump_tokens(&p->reserved_tokens, ((uint64_t)count - s->count) * block);
    bump_tokens(&p->filled_tokens, (uint64_t)filled - s->filled);
    s->count = count;
    s->filled = filled;
}

static int take_slot(struct paged *p, const struct lathe_request *req, struct lathe_error *err)
{
    if (!p->slots)
        return lathe_fail(err, LATHE_ESTATE, "kvcache paged: used before layout");
    if (req->index >= p->max_requests || req->id == 0)
        return lathe_fail(err, LATHE_ERANGE, "kvcache paged: request %llu has index %u, beyond the %u that it was "
                          "laid out for", (unsigned long long)req->id, req->index, p->max_requests);
    if (p->slots[req->index].id)
        return lathe_fail(err, LATHE_ESTATE, "kvcache paged: request %llu has index %u, which request %llu still "
                          "holds; release that first", (unsigned long long)req->id, req->index,
                          (unsigned long long)p->slots[req->index].id);
    p->slots[req->index] = (struct slot){ .id = req->id };
    return LATHE_OK;
}

static int admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    int status = take_slot(self, req, err);
    if (status == LATHE_OK)
        *cached = 0;
    return status;
}

/* Is the block that the next position goes into one that others look at too? While no block is
 * shared, that is known without a look at table and references. */
static int must_copy(struct paged *p, const struct slot *s, uint32_t tokens)
{
    if (atomic_load_explicit(&p->shared, memory_order_relaxed) == 0)
        return 0;
    uint32_t block = s->filled / p->block_tokens;
    return tokens > s->filled && block < s->count && p->references[table_of(p, s)[block]] > 1;
}

static uint32_t blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct paged *p = self;
    const struct slot *s = slot_of(p, req);
    uint32_t want = blocks_for(p, tokens);
    if (!s)
        return want;
    return (want > s->count ? want - s->count : 0) + (uint32_t)must_copy(p, s, tokens);
}

static uint32_t blocks_available(void *self)
{
    const struct paged *p = self;
    return p->free_count;
}

/* Drops that wait go out with other operations; few at a time, since what is left of the list may be
 * needed to bring somebody in. */
static void emit_drops(struct paged *p, struct lathe_kv_ops *ops, uint32_t most)
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

static int reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                   struct lathe_error *err)
{
    struct paged *p = self;
    struct slot *s = slot_of(p, req);
    uint32_t want = blocks_for(p, tokens), needed;
    int copy;

    LATHE_ASSERT_THREAD(p->host, LATHE_THREAD_ENGINE);
    if (!s)
        return unknown(req, "reserve", err);
    if (s->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache paged: request %llu is swapped out; swap it in first",
                          (unsigned long long)req->id);
    if (want > p->table_blocks)
        return lathe_fail(err, LATHE_ERANGE, "kvcache paged: request %llu wants %u positions; a table holds %u",
                          (unsigned long long)req->id, tokens, p->table_blocks * p->block_tokens);
    copy = must_copy(p, s, tokens);
    needed = (want > s->count ? want - s->count : 0) + (uint32_t)copy;
    if (needed > p->free_count)
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache paged: request %llu needs %u more blocks for %u positions, "
                          "%u of %u are free", (unsigned long long)req->id, needed, tokens, p->free_count, p->blocks);
    if (copy && ops->count >= ops->capacity)
        return lathe_fail(err, LATHE_EFULL, "kvcache paged: no room for an operation; come with a list that has at "
                          "least %d free places", LATHE_KV_OPS_PER_CALL);
    if (copy) {
        int32_t *entry = &table_of(p, s)[s->filled / p->block_tokens], fresh = block_take(p);
        if (s->filled % p->block_tokens)
            ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = *entry, .to = fresh,
                                                           .tokens = s->filled % p->block_tokens };
        block_drop(p, *entry);
        *entry = fresh;
    }
    if (want > s->count) {
        int32_t *table = table_of(p, s);
        for (uint32_t i = s->count; i < want; i++)
            table[i] = block_take(p);
        count_tokens(p, s, want, s->filled);
    }
    emit_drops(p, ops, LATHE_KV_OPS_PER_CALL - 1);
    return LATHE_OK;
}

static void table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count)
{
    struct paged *p = self;
    const struct slot *s = slot_of(p, req);
    *blocks = s ? table_of(p, s) : NULL;
    *count = s ? s->count : 0;
}

static void filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct paged *p = self;
    struct slot *s = slot_of(p, req);
    uint32_t room;
    if (!s)
        return;
    room = s->count * p->block_tokens;
    tokens = tokens < room ? tokens : room;
    if (tokens > s->filled)
        count_tokens(p, s, s->count, tokens);
}

static void truncate_table(struct paged *p, struct slot *s, uint32_t tokens)
{
    uint32_t keep = blocks_for(p, tokens);
    const int32_t *blocks = table_of(p, s);
    for (uint32_t i = s->count; i > keep; i--) /* last first: taken again in order */
        block_drop(p, blocks[i - 1]);
    count_tokens(p, s, keep < s->count ? keep : s->count, tokens < s->filled ? tokens : s->filled);
}

static void truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct paged *p = self;
    struct slot *s = slot_of(p, req);
    if (!s)
        return;
    if (tokens < s->swapped.tokens)
        s->swapped.tokens = tokens;
    truncate_table(p, s, tokens);
}

static void release(void *self, const struct lathe_request *req)
{
    struct paged *p = self;
    struct slot *s = slot_of(p, req);
    if (!s || !s->id)
        return;
    truncate_table(p, s, 0);
    if (s->swapped.count) {
        p->drops[(p->drop_first + p->drop_count++) % p->max_requests] = s->swapped;
        p->swapped_requests--;
    }
    *s = (struct slot){ 0 };
}

static int fork_table(void *self, const struct lathe_request *parent, const struct lathe_request *child,
                      struct lathe_error *err)
{
    struct paged *p = self;
    struct slot *from = slot_of(p, parent), *to;
    uint32_t count;
    int status;

    if (!from)
        return unknown(parent, "fork", err);
    if (from->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache paged: request %llu is swapped out; swap it in before a fork",
                          (unsigned long long)parent->id);
    if ((status = take_slot(p, child, err)) != LATHE_OK)
        return status;
    to = &p->slots[child->index];
    count = blocks_for(p, from->filled); /* room that nothing is in is not shared */
    for (uint32_t i = 0; i < count; i++) {
        table_of(p, to)[i] = table_of(p, from)[i];
        block_share(p, table_of(p, to)[i]);
    }
    count_tokens(p, to, count, from->filled);
    return LATHE_OK;
}

/* --- swapping ---------------------------------------------------------------- */

static int preempt_choice(void *self, const struct lathe_request *req)
{
    (void)req;
    return ((struct paged *)self)->preempt;
}

static int too_few_ops(const struct lathe_request *req, uint32_t count, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFULL, "kvcache paged: swapping request %llu takes %u operations; come with a list "
                      "that has room for them", (unsigned long long)req->id, count);
}

static int swap_out(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err)
{
    struct paged *p = self;
    struct slot *s = slot_of(p, req);
    const int32_t *blocks;
    uint32_t count, tokens;

    if (!s)
        return unknown(req, "swap_out", err);
    if (s->swapped.count)
        return lathe_fail(err, LATHE_ESTATE, "kvcache paged: request %llu is swapped out already",
                          (unsigned long long)req->id);
    count = blocks_for(p, s->filled);
    if (ops->capacity - ops->count < count)
        return too_few_ops(req, count, err);
    if (count && p->swapped_requests + p->drop_count >= p->max_requests)
        return lathe_fail(err, LATHE_EFULL, "kvcache paged: %u swapped blocks' ranges wait to be dropped; recompute "
                          "request %llu instead", p->drop_count, (unsigned long long)req->id);
    blocks = table_of(p, s);
    for (uint32_t i = 0; i < count; i++)
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_OUT, .from = blocks[i],
                                                       .handle = p->next_handle + i };
    tokens = s->filled;
    truncate_table(p, s, 0);
    if (count) {
        s->swapped = (struct range){ p->next_handle, count, tokens };
        p->next_handle += count;
        p->swapped_requests++;
    }
    return LATHE_OK;
}

static int swap_in(void *self, const struct lathe_request *req, struct lathe_kv_ops *ops, struct lathe_error *err)
{
    struct paged *p = self;
    struct slot *s = slot_of(p, req);
    uint32_t count;

    if (!s)
        return unknown(req, "swap_in", err);
    count = s->swapped.count;
    if (!count)
        return LATHE_OK; /* nothing was moved */
    if (count > p->free_count)
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache paged: request %llu needs %u blocks to come back, %u of %u are "
                          "free", (unsigned long long)req->id, count, p->free_count, p->blocks);
    if (ops->capacity - ops->count < count)
        return too_few_ops(req, count, err);
    for (uint32_t i = 0; i < count; i++) {
        int32_t block = block_take(p);
        table_of(p, s)[i] = block;
        ops->ops[ops->count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_IN, .to = block,
                                                       .handle = s->swapped.handle + i };
    }
    count_tokens(p, s, count, s->swapped.tokens);
    truncate_table(p, s, s->swapped.tokens); /* it may have been truncated meanwhile */
    s->swapped = (struct range){ 0 };
    p->swapped_requests--;
    return LATHE_OK;
}

static void usage(void *self, struct lathe_kv_usage *u)
{
    struct paged *p = self;
    *u = (struct lathe_kv_usage){
        .blocks_total = p->blocks,
        .blocks_used = atomic_load_explicit(&p->used, memory_order_relaxed),
        .blocks_shared = atomic_load_explicit(&p->shared, memory_order_relaxed),
        .reserved_tokens = atomic_load_explicit(&p->reserved_tokens, memory_order_relaxed),
        .filled_tokens = atomic_load_explicit(&p->filled_tokens, memory_order_relaxed),
    };
}

static const struct lathe_kvcache_api api = {
    .size = sizeof api,
    .abi = LATHE_KVCACHE_ABI,
    .create = create,
    .destroy = destroy,
    .layout = layout,
    .admit = admit,
    .blocks_needed = blocks_needed,
    .blocks_available = blocks_available,
    .reserve = reserve,
    .table = table,
    .filled = filled,
    .truncate = truncate,
    .release = release,
    .usage = usage,
    .fork = fork_table,
    .preempt_choice = preempt_choice,
    .swap_out = swap_out,
    .swap_in = swap_in,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_KVCACHE,
    .concurrency = LATHE_SERIAL,
    .name = "paged",
    .version = "1.0.0",
    .summary = "fixed-size blocks with reference counts, copy on write and swapping",
    .citation = "@inproceedings{kwon2023pagedattention,\n"
                "  title = {Efficient Memory Management for Large Language Model Serving with PagedAttention},\n"
                "  author = {Kwon, Woosuk and Li, Zhuohan and Zhuang, Siyuan and Sheng, Ying and Zheng, Lianmin and "
                "Yu, Cody Hao and Gonzalez, Joseph E. and Zhang, Hao and Stoica, Ion},\n"
                "  booktitle = {Proceedings of the 29th Symposium on Operating Systems Principles (SOSP '23)},\n"
                "  year = {2023},\n"
                "  doi = {10.1145/3600006.3613165}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

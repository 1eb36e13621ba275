/* SPDX-License-Identifier: MIT */
/* A KV cache that reserves the most that a request may come to, in one piece, when it is admitted: what
 * serving systems did before paging (FasterTransformer, Orca), and what the paged cache's paper measures
 * itself against (Kwon et al., SOSP 2023, figure 2).
 *
 *     pool   | request 3: 40 blocks | 12 free | request 9: 130 blocks | 25 free | …
 *                                     ▲ 37 are free, and a request of 30 waits: external fragmentation
 *
 * A request's range holds prompt + max_output_tokens positions, or reserve_tokens if that is more, at
 * most a context. It is taken from the first gap that it fits into; where none is, admit says
 * LATHE_EBLOCKS and the request waits. One that is in never lacks room, so nobody is ever in anybody's
 * way: there are no victims but those that a scheduler chooses, whose range goes.
 *
 * Waste: usage() tells reserved and filled, whose difference is what was reserved and not come to. Of what
 * is free, figures tell when somebody is refused how much (kv_free_tokens) and the largest gap (kv_gap_tokens),
 * if either has changed.
 *
 * Cost: admit and release O(requests that are in), all else O(1). A table is a piece of one list of all
 * blocks, as a range's blocks follow each other. */
#include <stdatomic.h>
#include <string.h>

#include <kvmap/options.h>

enum { OPT_RESERVE_TOKENS = KVMAP_COUNT, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    KVMAP_OPTIONS("recompute|refuse"),
    { "reserve_tokens", LATHE_OPTION_INTEGER, "0", 0, 1e9, "tokens", NULL,
      "Reserve at least so many positions for each request; 0: prompt and max_output_tokens." },
};

struct slot {
    uint64_t id;      /* 0: free */
    uint32_t first, count; /* its range of blocks */
    uint32_t filled;
};

struct contiguous {
    const struct lathe_host *host;
    struct kvmap_wishes wishes;
    uint32_t reserve_tokens;
    int free_figure, gap_figure;
    uint32_t told_free, told_gap; /* what the figures said last, in blocks */
    uint32_t max_requests, context_tokens, block_tokens, blocks;
    uint32_t in;       /* requests that have a range */
    struct slot *slots; /* by index; (max_requests) */
    uint32_t *order;    /* the indexes of those that are in, by place; (max_requests) */
    int32_t *numbers;   /* 0, 1, 2, …: tables; (blocks) */
    uint32_t numbered;  /* how many of them are written */
    atomic_uint used;
    atomic_uint_least64_t filled_tokens;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct contiguous *c = lathe_alloc(host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache contiguous: no memory for %zu bytes", sizeof *c);
    c->host = host;
    kvmap_read(config, 0, &c->wishes);
    c->reserve_tokens = (uint32_t)config->values[OPT_RESERVE_TOKENS].integer;
    c->free_figure = host->metric(host->context, "kv_free_tokens", "tokens", "free when a request found no gap");
    c->gap_figure = host->metric(host->context, "kv_gap_tokens", "tokens", "the largest gap when a request found none");
    *self = c;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct contiguous *c = self;
    if (!c)
        return;
    lathe_free(c->host, c->slots);
    lathe_free(c->host, c->order);
    lathe_free(c->host, c->numbers);
    lathe_free(c->host, c);
}

static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    struct contiguous *c = self;
    int status = kvmap_size(&c->wishes, "contiguous", demand, geometry, err);
    if (status != LATHE_OK)
        return status;
    c->max_requests = demand->max_requests;
    c->context_tokens = demand->context_tokens;
    c->block_tokens = geometry->block_tokens;
    c->blocks = geometry->blocks;
    c->slots = lathe_alloc_array(c->host, c->max_requests, sizeof *c->slots);
    c->order = lathe_alloc_array(c->host, c->max_requests, sizeof *c->order);
    c->numbers = lathe_alloc_array(c->host, c->blocks, sizeof *c->numbers);
    if (!c->slots || !c->order || !c->numbers)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache contiguous: no memory for the map of %u blocks and %u requests",
                          c->blocks, c->max_requests);
    return LATHE_OK;
}

static struct slot *slot_of(const struct contiguous *c, const struct lathe_request *req)
{
    struct slot *s = c->slots && req->index < c->max_requests ? &c->slots[req->index] : NULL;
    return s && s->id == req->id && req->id ? s : NULL;
}

static uint32_t blocks_for(const struct contiguous *c, uint64_t tokens)
{
    return (uint32_t)((tokens + c->block_tokens - 1) / c->block_tokens);
}

static uint32_t range_of(const struct contiguous *c, const struct lathe_request *req)
{
    uint64_t tokens = (uint64_t)req->prompt_tokens + req->max_output_tokens;
    uint32_t known = req->prompt_tokens + req->output_tokens;
    tokens = tokens > c->reserve_tokens ? tokens : c->reserve_tokens;
    tokens = tokens < c->context_tokens ? tokens : c->context_tokens;
    return blocks_for(c, tokens > known ? tokens : known);
}

/* The first gap of `want` blocks: before which of those that are in, and where it begins. 0: there is none,
 * and *largest is the largest. */
static int find_gap(const struct contiguous *c, uint32_t want, uint32_t *place, uint32_t *first, uint32_t *largest)
{
    *first = *largest = 0;
    for (*place = 0; *place <= c->in; ++*place) {
        const struct slot *next = *place < c->in ? &c->slots[c->order[*place]] : NULL;
        uint32_t gap = (next ? next->first : c->blocks) - *first;
        if (gap >= want)
            return 1;
        *largest = gap > *largest ? gap : *largest;
        if (next)
            *first = next->first + next->count;
    }
    return 0;
}

static uint32_t free_blocks(const struct contiguous *c)
{
    return c->blocks - atomic_load_explicit(&c->used, memory_order_relaxed);
}

static int admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    struct contiguous *c = self;
    uint32_t want, place, first, largest;
    if (!c->slots || req->index >= c->max_requests || req->id == 0 || c->slots[req->index].id)
        return lathe_fail(err, LATHE_ESTATE, "kvcache contiguous: index %u of request %llu is taken, or too large for the "
                          "%u requests that it was laid out for", req->index, (unsigned long long)req->id, c->max_requests);
    want = range_of(c, req);
    if (!find_gap(c, want, &place, &first, &largest)) {
        if (free_blocks(c) != c->told_free || largest != c->told_gap) { /* who waits asks at every step */
            c->host->record(c->host->context, c->free_figure, (double)free_blocks(c) * c->block_tokens);
            c->host->record(c->host->context, c->gap_figure, (double)largest * c->block_tokens);
            c->told_free = free_blocks(c), c->told_gap = largest;
        }
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache contiguous: request %llu wants %u blocks in a row; %u of %u are "
                          "free, at most %u in a row", (unsigned long long)req->id, want, free_blocks(c), c->blocks,
                          largest);
    }
    memmove(c->order + place + 1, c->order + place, (c->in++ - place) * sizeof *c->order);
    c->order[place] = req->index;
    c->slots[req->index] = (struct slot){ .id = req->id, .first = first, .count = want };
    for (; c->numbered < first + want; c->numbered++)
        c->numbers[c->numbered] = (int32_t)c->numbered;
    atomic_store_explicit(&c->used, c->blocks - free_blocks(c) + want, memory_order_relaxed);
    *cached = 0;
    return LATHE_OK;
}

static uint32_t blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens)
{
    const struct contiguous *c = self;
    const struct slot *s = slot_of(c, req);
    uint32_t want = blocks_for(c, tokens);
    return !s ? range_of(c, req) : want > s->count ? c->blocks + 1 : 0; /* beyond its range it can't grow */
}

static uint32_t blocks_available(void *self)
{
    return free_blocks(self);
}

static int reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                   struct lathe_error *err)
{
    const struct contiguous *c = self;
    const struct slot *s = slot_of(c, req);
    (void)ops; /* nothing is ever copied */
    if (!s)
        return lathe_fail(err, LATHE_ESTATE, "kvcache contiguous: reserve of request %llu, which was not admitted",
                          (unsigned long long)req->id);
    if (tokens > (uint64_t)s->count * c->block_tokens)
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache contiguous: request %llu wants %u positions; its range holds %u, for "
                          "its prompt and max_output_tokens", (unsigned long long)req->id, tokens, s->count * c->block_tokens);
    return LATHE_OK;
}

static void table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count)
{
    const struct contiguous *c = self;
    const struct slot *s = slot_of(c, req);
    *blocks = s ? c->numbers + s->first : NULL;
    *count = s ? s->count : 0;
}

static void set_filled(struct contiguous *c, struct slot *s, uint32_t tokens)
{
    uint64_t filled = atomic_load_explicit(&c->filled_tokens, memory_order_relaxed);
    atomic_store_explicit(&c->filled_tokens, filled + tokens - s->filled, memory_order_relaxed);
    s->filled = tokens;
}

static void filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct contiguous *c = self;
    struct slot *s = slot_of(c, req);
    if (s && tokens > s->filled && tokens <= (uint64_t)s->count * c->block_tokens)
        set_filled(c, s, tokens);
}

/* The range stays: what was reserved is for what comes. */
static void truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct slot *s = slot_of(self, req);
    if (s && tokens < s->filled)
        set_filled(self, s, tokens);
}

static void release(void *self, const struct lathe_request *req)
{
    struct contiguous *c = self;
    struct slot *s = slot_of(c, req);
    uint32_t place = 0;
    if (!s)
        return;
    set_filled(c, s, 0);
    atomic_store_explicit(&c->used, c->blocks - free_blocks(c) - s->count, memory_order_relaxed);
    while (c->order[place] != req->index)
        place++;
    memmove(c->order + place, c->order + place + 1, (--c->in - place) * sizeof *c->order);
    s->id = 0;
}

static int preempt_choice(void *self, const struct lathe_request *req)
{
    (void)req;
    return ((struct contiguous *)self)->wishes.preempt;
}

static void usage(void *self, struct lathe_kv_usage *u)
{
    struct contiguous *c = self;
    uint32_t used = atomic_load_explicit(&c->used, memory_order_relaxed);
    *u = (struct lathe_kv_usage){ .blocks_total = c->blocks, .blocks_used = used,
                                  .reserved_tokens = (uint64_t)used * c->block_tokens,
                                  .filled_tokens = atomic_load_explicit(&c->filled_tokens, memory_order_relaxed) };
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
    .preempt_choice = preempt_choice,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_KVCACHE,
    .concurrency = LATHE_SERIAL,
    .name = "contiguous",
    .version = "1.0.0",
    .summary = "reserves the most that a request may come to, in one piece",
    .citation = "@inproceedings{yu2022orca,\n"
                "  title = {Orca: A Distributed Serving System for Transformer-Based Generative Models},\n"
                "  author = {Yu, Gyeong-In and Jeong, Joo Seong and Kim, Geon-Woo and Kim, Soojeong and Chun, "
                "Byung-Gon},\n"
                "  booktitle = {16th USENIX Symposium on Operating Systems Design and Implementation (OSDI 22)},\n"
                "  year = {2022}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

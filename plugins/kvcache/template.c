/* SPDX-License-Identifier: MIT */
/* A KV cache to copy. It works: a place of fixed size for each request, reserved whole
 * when its first token comes, as serving systems did before paging.
 *
 *     pool  [ place 0: context_tokens ][ place 1 ][ place 2 ] …      one block a place
 *
 *   1. Say in this comment where keys and values live and who goes first; cite its paper.
 *   2. Declare your options: name, type, default, range, unit, help. The host checks them.
 *   3. layout: decide on block size and count, allocate the map.
 *   4. admit … release: a request's life. Know it by req->index; req->id tells a new one.
 *   5. reserve: make room, or say LATHE_EBLOCKS and change nothing.
 *   6. usage: the figures that people will see.
 *   7. Name it in lathe_plugin, at the end, as the file is named.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.run { kvcache = "mine", … } */
#include <lathe/kvcache.h>

/* Step 2. create finds the values in this order. */
enum { OPT_PLACES, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "places", LATHE_OPTION_INTEGER, "8", 1, 1e6, "requests", NULL, "Requests whose keys and values fit at once." },
};

struct slot {
    uint64_t id;     /* of the request; 0: free */
    int32_t block;   /* its place, −1: none yet */
    uint32_t filled; /* positions */
};

struct mine {
    const struct lathe_host *host;
    int64_t want_places;
    uint32_t max_requests, block_tokens, places, free_count, filled_tokens;
    struct slot *slots;  /* by req->index; (max_requests) */
    int32_t *free_places; /* a stack; (places) */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    m->want_places = config->values[OPT_PLACES].integer;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (!m)
        return;
    lathe_free(m->host, m->slots);
    lathe_free(m->host, m->free_places);
    lathe_free(m->host, m);
}

/* Step 3. From now on nothing may be allocated. */
static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                  struct lathe_error *err)
{
    struct mine *m = self;
    uint64_t place_bytes = demand->kv_bytes_per_token * demand->context_tokens;
    m->max_requests = demand->max_requests;
    m->block_tokens = demand->context_tokens;
    m->places = (uint32_t)m->want_places < demand->max_requests ? (uint32_t)m->want_places : demand->max_requests;
    if (demand->memory_bytes && place_bytes && demand->memory_bytes / place_bytes < m->places)
        m->places = (uint32_t)(demand->memory_bytes / place_bytes);
    if (m->places == 0)
        return lathe_fail(err, LATHE_EINVAL, "kvcache template: %llu bytes hold no request of %u tokens, which takes "
                          "%llu bytes", (unsigned long long)demand->memory_bytes, demand->context_tokens,
                          (unsigned long long)place_bytes);
    m->slots = lathe_alloc_array(m->host, m->max_requests, sizeof *m->slots);
    m->free_places = lathe_alloc_array(m->host, m->places, sizeof *m->free_places);
    if (!m->slots || !m->free_places)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache template: no memory for %u places", m->places);
    while (m->free_count < m->places) {
        m->free_places[m->free_count] = (int32_t)m->free_count;
        m->free_count++;
    }
    *geometry = (struct lathe_kv_geometry){ .block_tokens = m->block_tokens, .blocks = m->places };
    return LATHE_OK;
}

static struct slot *slot_of(struct mine *m, const struct lathe_request *req)
{
    struct slot *s = req->index < m->max_requests ? &m->slots[req->index] : NULL;
    return s && s->id == req->id ? s : NULL;
}

/* Step 4. */
static int admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    struct mine *m = self;
    if (req->index >= m->max_requests || m->slots[req->index].id)
        return lathe_fail(err, LATHE_ESTATE, "kvcache template: index %u of request %llu is taken or too large",
                          req->index, (unsigned long long)req->id);
    m->slots[req->index] = (struct slot){ .id = req->id, .block = -1 };
    *cached = 0; /* no prefix is ever found */
    return LATHE_OK;
}

static uint32_t blocks_needed(void *self, const struct lathe_request *req, uint32_t tokens)
{
    const struct slot *s = slot_of(self, req);
    return tokens > 0 && (!s || s->block < 0);
}

static uint32_t blocks_available(void *self)
{
    return ((struct mine *)self)->free_count;
}

/* Step 5. */
static int reserve(void *self, const struct lathe_request *req, uint32_t tokens, struct lathe_kv_ops *ops,
                   struct lathe_error *err)
{
    struct mine *m = self;
    struct slot *s = slot_of(m, req);
    (void)ops; /* nothing is ever copied */
    if (!s)
        return lathe_fail(err, LATHE_ESTATE, "kvcache template: reserve of request %llu, which was not admitted",
                          (unsigned long long)req->id);
    if (tokens > m->block_tokens)
        return lathe_fail(err, LATHE_ERANGE, "kvcache template: request %llu wants %u positions; a place holds %u",
                          (unsigned long long)req->id, tokens, m->block_tokens);
    if (tokens == 0 || s->block >= 0)
        return LATHE_OK;
    if (m->free_count == 0)
        return lathe_fail(err, LATHE_EBLOCKS, "kvcache template: all %u places are taken", m->places);
    s->block = m->free_places[--m->free_count];
    return LATHE_OK;
}

static void table(void *self, const struct lathe_request *req, const int32_t **blocks, uint32_t *count)
{
    const struct slot *s = slot_of(self, req);
    *blocks = s ? &s->block : NULL;
    *count = s && s->block >= 0;
}

static void filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct mine *m = self;
    struct slot *s = slot_of(m, req);
    if (!s || s->block < 0 || tokens <= s->filled || tokens > m->block_tokens)
        return;
    m->filled_tokens += tokens - s->filled;
    s->filled = tokens;
}

static void truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct mine *m = self;
    struct slot *s = slot_of(m, req);
    if (!s)
        return;
    if (tokens < s->filled) {
        m->filled_tokens -= s->filled - tokens;
        s->filled = tokens;
    }
    if (tokens == 0 && s->block >= 0) {
        m->free_places[m->free_count++] = s->block;
        s->block = -1;
    }
}

static void release(void *self, const struct lathe_request *req)
{
    struct slot *s = slot_of(self, req);
    if (!s)
        return;
    truncate(self, req, 0);
    s->id = 0;
}

/* Step 6. */
static void usage(void *self, struct lathe_kv_usage *u)
{
    const struct mine *m = self;
    uint32_t used = m->places - m->free_count;
    *u = (struct lathe_kv_usage){ .blocks_total = m->places, .blocks_used = used,
                                  .reserved_tokens = (uint64_t)used * m->block_tokens,
                                  .filled_tokens = m->filled_tokens };
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
};

/* Step 7. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_KVCACHE,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a KV cache to copy: one fixed place for each request",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

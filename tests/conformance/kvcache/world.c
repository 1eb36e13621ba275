/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "world.h"

enum { HANDLES = 4096 };

const struct lathe_kvcache_api *api;
void *cache;
struct lathe_kv_geometry shape;
struct mirror mirrors[REQUESTS];
struct lathe_kv_op op_space[OPS];
uint64_t next_id, evicted;

static uint32_t sets;    /* of kept positions */
static int64_t budget;   /* 0: unlimited */
static struct dice masses = { .seed = 77 };
static uint64_t *pool;   /* (blocks, block_tokens) */
static struct { uint64_t handle; uint64_t *values; } moved[HANDLES];

static uint64_t value(const struct mirror *m, uint32_t position)
{
    uint64_t hash = 14695981039346656037u;
    for (uint32_t i = 0; i <= position; i++)
        hash = (hash ^ (uint32_t)m->tokens[i]) * 1099511628211u;
    return hash;
}

void carry_out(const struct lathe_kv_ops *ops)
{
    size_t width = shape.block_tokens * sizeof *pool;
    for (uint32_t i = 0; i < ops->count; i++) {
        const struct lathe_kv_op *op = &ops->ops[i];
        uint32_t slot = 0;
        if (op->kind == LATHE_KV_COPY) {
            CHECK(op->from >= 0 && (uint32_t)op->from < shape.blocks && op->to >= 0 && (uint32_t)op->to < shape.blocks &&
                      op->tokens <= shape.block_tokens, "copy %d to %d", op->from, op->to);
            memcpy(pool + (size_t)op->to * shape.block_tokens, pool + (size_t)op->from * shape.block_tokens,
                   op->tokens * sizeof *pool);
            continue;
        }
        for (slot = 0; slot < HANDLES && moved[slot].handle != (op->kind == LATHE_KV_MOVE_OUT ? 0 : op->handle); slot++)
            ;
        CHECK(slot < HANDLES, "operation %d: handle %llu holds nothing", op->kind, (unsigned long long)op->handle);
        if (op->kind == LATHE_KV_MOVE_OUT) {
            moved[slot].handle = op->handle;
            moved[slot].values = malloc(width);
            memcpy(moved[slot].values, pool + (size_t)op->from * shape.block_tokens, width);
        } else {
            if (op->kind == LATHE_KV_MOVE_IN)
                memcpy(pool + (size_t)op->to * shape.block_tokens, moved[slot].values, width);
            free(moved[slot].values);
            moved[slot].handle = 0;
        }
    }
}

static uint32_t table_of(const struct mirror *m, const int32_t **blocks)
{
    uint32_t count = 0;
    *blocks = NULL;
    api->table(cache, &m->req, blocks, &count);
    return count;
}

/* How many positions of each set it may look at; *lists NULL: all that were filled. */
static uint32_t kept_of(const struct mirror *m, const int32_t **lists)
{
    uint32_t count = 0;
    *lists = NULL;
    if (api->kept)
        api->kept(cache, &m->req, lists, &count);
    if (count == 0)
        *lists = NULL;
    return count ? count : m->filled;
}

/* Into seen, by position: may it be looked at, by any set? */
static void look(const struct mirror *m, uint8_t *seen)
{
    const int32_t *lists;
    uint32_t count = kept_of(m, &lists);
    memset(seen, lists == NULL, m->filled);
    CHECK(count <= m->filled, "%u of %u positions are kept", count, m->filled);
    for (uint32_t i = 0; lists && i < sets * count; i++) {
        CHECK(lists[i] >= 0 && (uint32_t)lists[i] < m->filled, "position %d of %u is kept", lists[i], m->filled);
        CHECK(i % count == 0 || lists[i] > lists[i - 1], "the kept positions don't ascend: %d, %d", lists[i - 1], lists[i]);
        seen[lists[i]] = 1;
    }
}

void check_everything(void)
{
    uint8_t seen[CONTEXT];
    uint32_t *references = calloc(shape.blocks, sizeof *references), used = 0, shared = 0;
    uint64_t filled = 0;
    struct lathe_kv_usage u;

    for (struct mirror *m = mirrors; m < mirrors + REQUESTS; m++) {
        const int32_t *blocks;
        uint32_t count = table_of(m, &blocks);
        CHECK(m->live || count == 0, "request %llu was released and has a table", (unsigned long long)m->req.id);
        if (!m->live || m->swapped)
            continue;
        CHECK((uint64_t)count * shape.block_tokens >= m->filled, "%u blocks hold no %u positions", count, m->filled);
        look(m, seen);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t first = i * shape.block_tokens, last = first + shape.block_tokens, wanted = 0;
            for (uint32_t p = first; p < last && p < m->filled; p++)
                wanted += seen[p];
            if (blocks[i] == -1) {
                CHECK(wanted == 0 && first < m->filled, "a hole where %u positions are kept", wanted);
                continue;
            }
            CHECK(wanted > 0 || last > m->filled, "block %d has no position that may be looked at", blocks[i]);
            CHECK(blocks[i] >= 0 && (uint32_t)blocks[i] < shape.blocks, "block %d of %u", blocks[i], shape.blocks);
            for (uint32_t j = 0; j < i; j++)
                CHECK(blocks[i] != blocks[j], "block %d twice in one table", blocks[i]);
            references[blocks[i]]++;
        }
        for (uint32_t p = 0; p < m->filled; p++) {
            if (!seen[p])
                continue;
            uint64_t found = pool[(size_t)blocks[p / shape.block_tokens] * shape.block_tokens + p % shape.block_tokens];
            CHECK(found == value(m, p), "request %llu finds somebody else's numbers at position %u",
                  (unsigned long long)m->req.id, p);
        }
        const int32_t *lists;
        filled += kept_of(m, &lists);
    }
    for (uint32_t i = 0; i < shape.blocks; i++) {
        used += references[i] > 0;
        shared += references[i] > 1;
    }
    free(references);
    api->usage(cache, &u);
    CHECK(u.blocks_total == shape.blocks, "usage says %u blocks, layout %u", u.blocks_total, shape.blocks);
    CHECK(u.blocks_used == used && u.blocks_shared == shared, "usage says %u used, %u shared; the tables say %u, %u",
          u.blocks_used, u.blocks_shared, used, shared);
    CHECK(u.filled_tokens == filled && u.reserved_tokens >= filled, "usage says %llu of %llu tokens, expected %llu",
          (unsigned long long)u.filled_tokens, (unsigned long long)u.reserved_tokens, (unsigned long long)filled);
    CHECK(!api->kept || u.evicted_tokens == evicted, "usage says %llu positions were evicted, %llu were", (unsigned long long)u.evicted_tokens,
          (unsigned long long)evicted);
    CHECK(u.blocks_cached <= shape.blocks - used, "%u cached and %u used of %u", u.blocks_cached, used, shape.blocks);
    CHECK(api->blocks_available(cache) <= shape.blocks - used, "%u available, %u used of %u",
          api->blocks_available(cache), used, shape.blocks);
}

/* What a number is set to; 0: there is no such option. */
static int64_t option(const struct subject *s, const char *name)
{
    for (uint32_t i = 0; i < s->plugin->option_count; i++)
        if (!strcmp(s->plugin->options[i].name, name))
            return s->config.values[i].integer;
    return 0;
}

struct lathe_kv_demand demanded(uint32_t requests, uint32_t requests_in_memory)
{
    return (struct lathe_kv_demand){
        .size = sizeof(struct lathe_kv_demand), .max_requests = requests, .context_tokens = CONTEXT,
        .kv_bytes_per_token = KV_BYTES, .memory_bytes = (uint64_t)requests_in_memory * CONTEXT * KV_BYTES,
        .layers = LAYERS, .kv_heads = KV_HEADS, .head_width = 32,
        .kv_dtypes = 1u << LATHE_F32 | 1u << LATHE_F16 | 1u << LATHE_Q8_0, .key_mass = 1, .unrotated = 1,
    };
}

void open_cache(struct subject *s, uint32_t requests_in_memory)
{
    struct lathe_kv_demand demand = demanded(REQUESTS, requests_in_memory);
    struct lathe_error err = { 0 };
    api = (const void *)s->head;
    cache = subject_create(s);
    shape = (struct lathe_kv_geometry){ 0 };
    CHECK_OK(api->layout(cache, &demand, &shape, &err), &err);
    CHECK(shape.block_tokens > 0 && shape.blocks > 0, "%u blocks of %u", shape.blocks, shape.block_tokens);
    CHECK(option(s, "blocks") > 0 || (uint64_t)shape.blocks * shape.block_tokens * lathe_kv_bytes(&demand, shape.kv_dtype) <=
                                         demand.memory_bytes,
          "%u blocks of %u tokens exceed the memory", shape.blocks, shape.block_tokens);
    CHECK(!shape.wants_mass || api->observe, "masses are wanted, and nobody observes");
    CHECK(shape.cache_positions == 0 || (shape.kv_flags & LATHE_KV_KEYS_UNROTATED), "positions move and keys are rotated");
    sets = lathe_kv_sets(shape.kv_scope, LAYERS, KV_HEADS);
    evicted = 0;
    budget = option(s, "budget");
    pool = calloc((size_t)shape.blocks * shape.block_tokens, sizeof *pool);
    memset(mirrors, 0, sizeof mirrors);
    for (uint32_t i = 0; i < REQUESTS; i++)
        mirrors[i].req = (struct lathe_request){ .size = sizeof mirrors[i].req, .index = i, .id = UINT64_MAX };
    next_id = 1;
}

void close_cache(void)
{
    api->destroy(cache);
    free(pool);
    for (uint32_t i = 0; i < HANDLES; i++) {
        if (moved[i].handle)
            free(moved[i].values);
        moved[i].handle = 0;
    }
}

int admit(struct mirror *m, struct dice *d)
{
    struct lathe_error err = { 0 };
    uint32_t cached = UINT32_MAX, index = m->req.index, known = 1 + roll(d, CONTEXT - 1), family = roll(d, 3);
    for (uint32_t i = 0; i < CONTEXT; i++) /* prefixes that several have in common */
        m->tokens[i] = (int32_t)(i < 40 ? family * 1000 + i : roll(d, 50000));
    m->req = (struct lathe_request){ .size = sizeof m->req, .index = index, .id = next_id++, .prompt_tokens = known,
                                     .max_output_tokens = CONTEXT - known, .state = LATHE_REQUEST_WAITING,
                                     .tokens = m->tokens };
    int status = api->admit(cache, &m->req, &cached, &err);
    if (status == LATHE_EBLOCKS) {
        CHECK(err.message[0], "no sentence");
        return 0;
    }
    CHECK_OK(status, &err);
    CHECK(cached < known, "%u of %u tokens cached", cached, known);
    m->live = 1;
    m->swapped = 0;
    m->filled = cached;
    return 1;
}

/* As the engine does after a step: what was looked at, and that it is stored. */
static void step_done(struct mirror *m, uint32_t tokens)
{
    static float mass[LAYERS * KV_HEADS * (CONTEXT + 1)];
    const int32_t *lists;
    struct lathe_kv_usage before, after;
    uint32_t keys = kept_of(m, &lists) + (tokens - m->filled), left;
    for (uint32_t i = 0; shape.wants_mass && i < sets * keys; i++)
        mass[i] = (float)roll(&masses, 16) / 8; /* some are equal */
    api->usage(cache, &before);
    if (shape.wants_mass)
        api->observe(cache, &m->req, mass, keys);
    api->filled(cache, &m->req, tokens);
    api->usage(cache, &after);
    m->filled = tokens;
    left = kept_of(m, &lists);
    CHECK(left <= keys && (budget == 0 || left <= budget), "%u of %u positions stay, the budget is %lld", left, keys,
          (long long)budget);
    for (uint32_t i = 0; lists && i < sets; i++)
        CHECK((uint32_t)lists[(i + 1) * left - 1] == tokens - 1, "the newest position was evicted");
    CHECK(!api->kept || after.evicted_blocks - before.evicted_blocks == before.blocks_used - after.blocks_used,
          "%llu blocks were evicted, and %u less are in use", (unsigned long long)(after.evicted_blocks - before.evicted_blocks),
          before.blocks_used - after.blocks_used);
    evicted += keys - left;
}

int may_truncate(const struct mirror *m, uint32_t tokens)
{
    const int32_t *lists;
    uint32_t count = kept_of(m, &lists);
    for (uint32_t i = 0; lists && tokens > 0 && i < sets; i++)
        if ((uint32_t)lists[i * count] >= tokens)
            return 0;
    return 1;
}

int grow(struct mirror *m, uint32_t tokens, int fill)
{
    struct lathe_kv_ops ops = { .capacity = LATHE_KV_OPS_PER_CALL, .ops = op_space };
    struct lathe_error err = { 0 };
    uint32_t needed = api->blocks_needed(cache, &m->req, tokens), available = api->blocks_available(cache), count;
    const int32_t *blocks;
    int32_t before[CONTEXT];
    uint32_t count_before = table_of(m, &blocks);
    int status;

    if (count_before)
        memcpy(before, blocks, count_before * sizeof *before);
    CHECK(api->blocks_needed(cache, &m->req, tokens) == needed, "blocks_needed changed something");
    status = api->reserve(cache, &m->req, tokens, &ops, &err);
    count = table_of(m, &blocks);
    if (needed > available) {
        CHECK(status == LATHE_EBLOCKS, "%u blocks needed, %u available: status %d", needed, available, status);
        CHECK(err.message[0], "no sentence");
        CHECK(count == count_before && (!count || !memcmp(before, blocks, count * sizeof *before)) && ops.count == 0 &&
                  api->blocks_available(cache) == available, "a refused reserve changed something");
        return 0;
    }
    CHECK_OK(status, &err);
    CHECK((uint64_t)count * shape.block_tokens >= tokens, "%u positions reserved, %u blocks", tokens, count);
    CHECK(available - api->blocks_available(cache) == needed, "blocks_needed said %u, %u were taken", needed,
          available - api->blocks_available(cache));
    carry_out(&ops);
    for (uint32_t p = m->filled; p < tokens && fill; p++)
        pool[(size_t)blocks[p / shape.block_tokens] * shape.block_tokens + p % shape.block_tokens] = value(m, p);
    if (fill && tokens > m->filled)
        step_done(m, tokens);
    return 1;
}

void release(struct mirror *m)
{
    api->release(cache, &m->req);
    m->live = 0;
}

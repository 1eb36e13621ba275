/* SPDX-License-Identifier: MIT */
/* What every KV cache must keep. The oracle is a pool of numbers: each position of a request
 * has a value made of the tokens up to it; operations are carried out on the pool as a model
 * would, new positions are written through the table, and after every call every live
 * request must find all of its own values again, of the positions that it may look at. Wrong
 * sharing, a missing copy or a block given out twice can't hide from that.
 *
 * Caches that evict are held to their word besides: lists ascend, no request keeps more than its
 * budget, the newest position always stays, a block without a kept position is gone at once, and
 * what usage says of evictions is what happened. */
#include <lathe/kvcache.h>

#include "harness.h"

enum { REQUESTS = 12, CONTEXT = 200, KV_BYTES = 64, OPS = 4096, HANDLES = 4096, STEPS = 6000, LAYERS = 2, KV_HEADS = 3 };

static const struct lathe_kvcache_api *api;
static void *cache;
static struct lathe_kv_geometry shape;
static uint32_t sets;    /* of kept positions */
static int64_t budget;   /* 0: unlimited */
static struct dice masses = { .seed = 77 };
static uint64_t evicted; /* positions, so far */

static struct mirror {
    struct lathe_request req;
    int32_t tokens[CONTEXT];
    int live, swapped;
    uint32_t filled;
} mirrors[REQUESTS];

static uint64_t *pool;                     /* (blocks, block_tokens) */
static struct { uint64_t handle; uint64_t *values; } moved[HANDLES];
static struct lathe_kv_op op_space[OPS];
static uint64_t next_id;

static uint64_t value(const struct mirror *m, uint32_t position)
{
    uint64_t hash = 14695981039346656037u;
    for (uint32_t i = 0; i <= position; i++)
        hash = (hash ^ (uint32_t)m->tokens[i]) * 1099511628211u;
    return hash;
}

static void carry_out(const struct lathe_kv_ops *ops)
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

static void check_everything(void)
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

/* Of a model that can do all that a cache may ask for. */
static struct lathe_kv_demand demanded(uint32_t requests, uint32_t requests_in_memory)
{
    return (struct lathe_kv_demand){
        .size = sizeof(struct lathe_kv_demand), .max_requests = requests, .context_tokens = CONTEXT,
        .kv_bytes_per_token = KV_BYTES, .memory_bytes = (uint64_t)requests_in_memory * CONTEXT * KV_BYTES,
        .layers = LAYERS, .kv_heads = KV_HEADS, .head_width = 32,
        .kv_dtypes = 1u << LATHE_F32 | 1u << LATHE_F16 | 1u << LATHE_Q8_0, .key_mass = 1, .unrotated = 1,
    };
}

static void open_cache(struct subject *s, uint32_t requests_in_memory)
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

static void close_cache(void)
{
    api->destroy(cache);
    free(pool);
    for (uint32_t i = 0; i < HANDLES; i++) {
        if (moved[i].handle)
            free(moved[i].values);
        moved[i].handle = 0;
    }
}

/* 0: a cache that reserves whole requests has no room for it now. */
static int admit(struct mirror *m, struct dice *d)
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

/* Nothing that is beyond may be the only thing that is left. */
static int may_truncate(const struct mirror *m, uint32_t tokens)
{
    const int32_t *lists;
    uint32_t count = kept_of(m, &lists);
    for (uint32_t i = 0; lists && tokens > 0 && i < sets; i++)
        if ((uint32_t)lists[i * count] >= tokens)
            return 0;
    return 1;
}

/* Reserve, let the operations happen, write the new positions, say so. 0 if there was no room. */
static int grow(struct mirror *m, uint32_t tokens, int fill)
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

static void release(struct mirror *m)
{
    api->release(cache, &m->req);
    m->live = 0;
}

static void finds_its_numbers_again_after_random_calls(struct subject *s)
{
    struct dice d = { .seed = 20 };
    struct lathe_error err = { 0 };
    uint32_t refused = 0, copied = 0, swapped = 0;

    open_cache(s, 4);
    for (int step = 0; step < STEPS; step++) {
        struct mirror *m = &mirrors[roll(&d, REQUESTS)], *other = &mirrors[roll(&d, REQUESTS)];
        struct lathe_kv_ops ops = { .capacity = OPS, .ops = op_space };
        if (!m->live) {
            refused += !admit(m, &d);
        } else if (m->swapped) {
            if (roll(&d, 4) == 0) {
                release(m);
            } else {
                int status = api->swap_in(cache, &m->req, &ops, &err);
                CHECK(status == LATHE_OK || status == LATHE_EBLOCKS, "swap_in: %s", err.message);
                m->swapped = status != LATHE_OK;
                carry_out(&ops);
            }
        } else {
            uint32_t what = roll(&d, 20);
            if (what < 11) {
                uint32_t more = what < 6 ? 1 : 1 + roll(&d, 60);
                refused += !grow(m, m->filled + more < CONTEXT ? m->filled + more : CONTEXT, roll(&d, 8) > 0);
            } else if (what < 13) {
                uint32_t tokens = roll(&d, m->filled + 2);
                if (!may_truncate(m, tokens))
                    continue;
                api->truncate(cache, &m->req, tokens);
                m->filled = tokens < m->filled ? tokens : m->filled;
            } else if (what < 15) {
                release(m);
            } else if (what < 18 && api->fork && !other->live) {
                uint32_t index = other->req.index;
                *other = *m;
                other->req.index = index;
                other->req.id = next_id++;
                other->req.tokens = other->tokens;
                other->live = 0;
                CHECK_OK(api->fork(cache, &m->req, &other->req, &err), &err);
                other->live = 1;
                for (uint32_t p = other->filled; p < CONTEXT; p++) /* they part from here */
                    other->tokens[p] = (int32_t)roll(&d, 50000);
                copied++;
            } else if (what == 18 && api->swap_out) {
                int status = api->swap_out(cache, &m->req, &ops, &err);
                CHECK(status == LATHE_OK || status == LATHE_EFULL, "swap_out: %s", err.message);
                m->swapped = status == LATHE_OK;
                swapped += status == LATHE_OK;
                carry_out(&ops);
            }
        }
        check_everything();
    }
    CHECK(refused > 20, "the pool was short only %u times", refused);
    CHECK(!api->fork || copied > 20, "%u forks", copied);
    CHECK(!api->swap_out || swapped > 20, "%u swaps", swapped);
    for (struct mirror *m = mirrors; m < mirrors + REQUESTS; m++)
        release(m);
    check_everything();
    CHECK(api->blocks_available(cache) == shape.blocks, "all released, %u of %u available",
          api->blocks_available(cache), shape.blocks);
    close_cache();
}

static void ignores_a_second_release_and_an_old_one(struct subject *s)
{
    struct dice d = { .seed = 3 };
    struct lathe_request old;
    open_cache(s, 4);
    admit(&mirrors[0], &d);
    CHECK(grow(&mirrors[0], 20, 1), "no room for the first request");
    old = mirrors[0].req;
    release(&mirrors[0]);
    release(&mirrors[0]);
    admit(&mirrors[0], &d); /* the index is used again */
    CHECK(grow(&mirrors[0], 30, 1), "no room after a release");
    api->release(cache, &old);
    check_everything();
    close_cache();
}

static void refuses_what_was_not_admitted(struct subject *s)
{
    struct dice d = { .seed = 4 };
    struct lathe_error err = { 0 };
    struct lathe_request stranger = { .size = sizeof stranger, .id = 99, .index = 5, .prompt_tokens = 4 };
    struct lathe_kv_ops ops = { .capacity = OPS, .ops = op_space };
    uint32_t cached;
    const int32_t *blocks;
    uint32_t count = 7;

    open_cache(s, 4);
    CHECK(api->reserve(cache, &stranger, 4, &ops, &err) < 0 && err.message[0], "reserve of a stranger");
    api->table(cache, &stranger, &blocks, &count);
    CHECK(count == 0, "a stranger has %u blocks", count);
    api->filled(cache, &stranger, 4);
    api->truncate(cache, &stranger, 1);
    api->release(cache, &stranger);
    stranger.index = REQUESTS;
    CHECK(api->admit(cache, &stranger, &cached, &err) < 0, "an index beyond max_requests was admitted");
    admit(&mirrors[2], &d);
    CHECK(api->admit(cache, &mirrors[2].req, &cached, &err) < 0, "admitted twice");
    CHECK(api->reserve(cache, &mirrors[2].req, 4 * CONTEXT, &ops, &err) < 0, "four contexts were reserved for one");
    check_everything();
    close_cache();
}

static void says_blocks_to_one_that_is_larger_than_the_pool(struct subject *s)
{
    struct dice d = { .seed = 5 };
    uint32_t given = 0;
    open_cache(s, 1);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        if (admit(&mirrors[i], &d))
            given += (uint32_t)grow(&mirrors[i], CONTEXT, 1);
        check_everything();
    }
    CHECK(given <= (uint64_t)shape.blocks * shape.block_tokens / CONTEXT || evicted, "%u whole contexts in memory for one", given);
    close_cache();
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_kv_demand demand = demanded(4, 4);
    struct lathe_kv_ops ops = { .capacity = OPS, .ops = op_space };
    int32_t tokens[4] = { 1, 2, 3, 4 };
    struct lathe_request req = { .size = sizeof req, .id = 1, .prompt_tokens = 4, .tokens = tokens };
    uint32_t cached;
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    if ((status = api->layout(self, &demand, &shape, err)) == LATHE_OK &&
        (status = api->admit(self, &req, &cached, err)) == LATHE_OK &&
        (status = api->reserve(self, &req, 4, &ops, err)) == LATHE_OK)
        api->release(self, &req);
    api->destroy(self);
    return status;
}

int main(int argc, char **argv)
{
    static const struct behaviour behaviours[] = {
        { "finds_its_numbers_again_after_random_calls", finds_its_numbers_again_after_random_calls },
        { "ignores_a_second_release_and_an_old_one", ignores_a_second_release_and_an_old_one },
        { "refuses_what_was_not_admitted", refuses_what_was_not_admitted },
        { "says_blocks_to_one_that_is_larger_than_the_pool", says_blocks_to_one_that_is_larger_than_the_pool },
    };
    return conformance(argc, argv, LATHE_KIND_KVCACHE, LATHE_KVCACHE_ABI,
                       offsetof(struct lathe_kvcache_api, usage) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

/* SPDX-License-Identifier: MIT */
/* Does the prefix cache ever serve another's tokens?
 *
 *     stress_prefix prefix.so OPERATIONS [SEED]
 *
 * Random admits, steps that succeed and that fail, forks, truncations, swaps, releases and losses,
 * over texts of so few different tokens that everything begins like everything else, in a pool that
 * is always short. After each operation every position of every live request must hold that
 * request's own text (store.h), and tables, hits, counts and victims must be those of a cache that
 * is too plain to be wrong (reference.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/random.h>

#include "store.h"
#include "../../support/counting_host.h"
#include "../../support/policy_plugin.h"

enum { OPS = 256, PER_CALL = LATHE_KV_OPS_PER_CALL };

struct setting {
    const char *options;
    uint32_t blocks, block_tokens, context;
    int share, lfu; /* share: 0 all, 1 tenant, 2 session */
};

static const struct setting settings[] = {
    { "block_tokens=4,blocks=20", 20, 4, 48, 0, 0 },
    { "block_tokens=4,blocks=20,hash_bits=0", 20, 4, 48, 0, 0 }, /* all hashes collide */
    { "block_tokens=4,blocks=24,hash_bits=2,evict=lfu,share=tenant", 24, 4, 48, 1, 1 },
    { "block_tokens=1,blocks=60,hash_bits=0,share=session", 60, 1, 24, 2, 0 },
    { "block_tokens=3,blocks=12,evict=lfu,preempt=swap", 12, 3, 30, 0, 1 },
    { "block_tokens=16,blocks=9,hash_bits=1,share=tenant", 9, 16, 60, 1, 0 },
};

struct guest {
    struct lathe_request req;
    int live, swapped;
    uint32_t swapped_tokens, swapped_count, looked_up;
};

static const struct lathe_kvcache_api *api;
static const struct setting *now;
static void *cache;
static struct reference reference;
static struct store store;
static struct guest guests[MAX_REQUESTS];
static struct lathe_kv_op op_space[OPS];
static uint64_t seed, draws, next_id, hits, looked_up;
static uint32_t operation;
static uint64_t counted[9]; /* what happened how often */
static struct lathe_error err;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list more;
    va_start(more, format);
    fprintf(stderr, "operation %u of \"%s\", seed %llu: ", operation, now->options, (unsigned long long)seed);
    vfprintf(stderr, format, more);
    fputc('\n', stderr);
    va_end(more);
    exit(1);
}

#define CHECK(condition, ...) ((condition) ? (void)0 : fail(__VA_ARGS__))

static uint32_t roll(uint32_t below)
{
    return (uint32_t)(lathe_random_u64(seed, LATHE_RANDOM_USER, 0, draws++) % below);
}

static struct row *row_of(const struct guest *g)
{
    return &reference.rows[g->req.index];
}

static void draw_tokens(struct row *row, uint32_t from)
{
    uint32_t kinds = roll(4) ? 6 : 40; /* mostly alike */
    for (uint32_t i = from; i < MAX_CONTEXT; i++) {
        uint32_t kind = roll(kinds);
        row->text.tokens[i] = kind < 3 ? (int32_t)kind * (roll(3) == 0) : 0;
    }
}

/* ── after each operation ──────────────────────────────────────────────────────────── */

static void check_text(const struct guest *g)
{
    const struct row *row = row_of(g);
    for (uint32_t p = 0; p < row->filled; p++) {
        const struct text *cell = store_cell(&store, row->blocks[p / now->block_tokens], p);
        CHECK(cell->length == p + 1 && !memcmp(cell->tokens, row->text.tokens, (p + 1) * sizeof *cell->tokens),
              "request %llu finds another's text at position %u", (unsigned long long)g->req.id, p);
    }
}

static void check_usage(void)
{
    struct lathe_kv_usage u;
    uint32_t used = reference_used(&reference), idle = reference_idle(&reference);
    uint64_t filled = 0, reserved = 0;
    api->usage(cache, &u);
    for (const struct row *row = reference.rows; row < reference.rows + MAX_REQUESTS; row++)
        filled += row->filled, reserved += (uint64_t)row->count * now->block_tokens;
    CHECK(u.blocks_total == now->blocks && u.blocks_used == used && u.blocks_cached == idle &&
              u.blocks_shared == reference_shared(&reference), "usage: %u used, %u cached, %u shared; expected %u, %u, %u",
          u.blocks_used, u.blocks_cached, u.blocks_shared, used, idle, reference_shared(&reference));
    CHECK(api->blocks_available(cache) == now->blocks - used, "%u blocks available, expected %u",
          api->blocks_available(cache), now->blocks - used);
    CHECK(u.filled_tokens == filled && u.reserved_tokens == reserved, "usage: %llu of %llu tokens",
          (unsigned long long)u.filled_tokens, (unsigned long long)u.reserved_tokens);
    CHECK(u.evicted_blocks == reference.evicted && u.evicted_tokens == 0,
          "usage: %llu evicted, expected %llu", (unsigned long long)u.evicted_blocks, (unsigned long long)reference.evicted);
    CHECK(u.hit_tokens == hits && u.looked_up_tokens == looked_up, "usage: hits %llu of %llu, expected %llu of %llu",
          (unsigned long long)u.hit_tokens, (unsigned long long)u.looked_up_tokens, (unsigned long long)hits,
          (unsigned long long)looked_up);
}

static void check_everything(void)
{
    for (const struct guest *g = guests; g < guests + MAX_REQUESTS; g++) {
        const int32_t *blocks;
        uint32_t count;
        const struct row *row = row_of(g);
        api->table(cache, &g->req, &blocks, &count);
        CHECK(count == row->count, "request %llu has %u blocks, expected %u", (unsigned long long)g->req.id, count, row->count);
        for (uint32_t i = 0; i < count; i++)
            CHECK(blocks[i] == row->blocks[i], "entry %u of a table is block %d, expected %d", i, blocks[i], row->blocks[i]);
        check_text(g);
    }
    check_usage();
}

/* ── operations ────────────────────────────────────────────────────────────────────── */

static void set_salt(struct guest *g)
{
    struct row *row = row_of(g);
    row->shares = g->req.tokens && (now->share != 2 || g->req.session);
    row->text.salt = now->share == 1 ? g->req.tenant : now->share == 2 ? g->req.session : 0;
}

static void admit(struct guest *g)
{
    struct row *row = row_of(g);
    uint32_t known = 1 + roll(now->context - 1), outputs = roll(4) ? 0 : roll(known), idle, cached = UINT32_MAX;
    *row = (struct row){ 0 };
    draw_tokens(row, 0);
    g->req = (struct lathe_request){ .size = sizeof g->req, .index = g->req.index, .id = next_id++,
                                     .prompt_tokens = known - outputs, .output_tokens = outputs,
                                     .preemptions = outputs > 0, .tenant = roll(2), .session = roll(3),
                                     .tokens = roll(20) ? row->text.tokens : NULL };
    set_salt(g);
    uint32_t most = (known - 1) / now->block_tokens, found = reference_found(&reference, row, most, &idle);
    CHECK(api->cached_prefix(cache, &g->req) == found * now->block_tokens, "cached_prefix says %u, expected %u",
          api->cached_prefix(cache, &g->req), found * now->block_tokens);
    if (roll(3) == 0)
        return; /* it was only a look */
    CHECK(api->admit(cache, &g->req, &cached, &err) == LATHE_OK, "admit: %s", err.message);
    CHECK(cached == found * now->block_tokens && cached < known, "%u of %u tokens cached, expected %u", cached, known,
          found * now->block_tokens);
    reference_adopt(&reference, row, most);
    for (uint32_t p = 0; p < cached; p++)
        CHECK(store_cell(&store, row->blocks[p / now->block_tokens], p)->salt == row->text.salt,
              "position %u was written by somebody who shares nothing with request %llu", p, (unsigned long long)g->req.id);
    g->looked_up = g->req.prompt_tokens;
    g->live = 1;
    g->swapped = 0;
    counted[0] += found > 0;
}

static void take(int32_t block)
{
    const char *wrong = reference_take(&reference, block);
    CHECK(!wrong, "block %d: %s", block, wrong);
}

static void count_look_up(struct guest *g)
{
    const struct row *row = row_of(g);
    for (uint32_t i = 0; g->looked_up && i < row->known; i++)
        reference_entry(&reference, row->blocks[i])->uses++;
    if (g->looked_up && row->shares && g->req.preemptions == 0)
        hits += (uint64_t)row->known * now->block_tokens, looked_up += g->looked_up;
    g->looked_up = 0;
}

/* The step's rows are computed; one that fails leaves nonsense behind. */
static void write_rows(struct guest *g, uint32_t tokens, int fails)
{
    struct row *row = row_of(g);
    for (uint32_t p = row->filled; p < tokens; p++) {
        struct text *cell = store_cell(&store, row->blocks[p / now->block_tokens], p);
        *cell = row->text;
        cell->length = fails ? 0 : p + 1;
        if (!row->shares)
            cell->salt = UINT64_MAX - g->req.id;
    }
    if (fails)
        return;
    api->filled(cache, &g->req, tokens);
    if (tokens > row->filled)
        row->filled = tokens;
    reference_keep(&reference, row);
}

static void step(struct guest *g, uint32_t tokens, int fails)
{
    struct row *row = row_of(g);
    struct lathe_kv_ops ops = { .capacity = roll(10) ? PER_CALL : 0, .ops = op_space };
    uint32_t want = (tokens + now->block_tokens - 1) / now->block_tokens, at = row->filled / now->block_tokens;
    uint32_t free = now->blocks - reference_used(&reference), growth = want > row->count ? want - row->count : 0, count;
    int writes = tokens > row->filled && at < row->count;
    int others = writes && reference.references[row->blocks[at]] > 1;
    struct kept *kept = writes ? reference_entry(&reference, row->blocks[at]) : NULL;
    int copies = others || (kept && !reference_is_leaf(&reference, kept));
    const int32_t *blocks;

    CHECK(api->blocks_needed(cache, &g->req, tokens) == growth + (uint32_t)others, "blocks_needed says %u, expected %u",
          api->blocks_needed(cache, &g->req, tokens), growth + (uint32_t)others);
    int status = api->reserve(cache, &g->req, tokens, &ops, &err);
    int expected = growth + (uint32_t)others > free ? LATHE_EBLOCKS : copies && ops.capacity == 0 ? LATHE_EFULL : LATHE_OK;
    CHECK(status == expected, "reserve says %d, expected %d: %s", status, expected, err.message);
    counted[1] += status == LATHE_EBLOCKS;
    if (status != LATHE_OK) {
        CHECK(ops.count == 0, "a refused reserve has operations");
        return;
    }
    count_look_up(g);
    api->table(cache, &g->req, &blocks, &count);
    CHECK(count == row->count + growth, "%u blocks after reserve, expected %u", count, row->count + growth);
    if (copies) {
        int32_t old = row->blocks[at];
        take(blocks[at]);
        row->blocks[at] = blocks[at];
        reference_drop(&reference, old);
        CHECK(ops.count && ops.ops[0].kind == LATHE_KV_COPY && ops.ops[0].from == old && ops.ops[0].to == blocks[at] &&
                  ops.ops[0].tokens == row->filled % now->block_tokens, "no copy, or another than expected");
        counted[2]++;
    } else if (kept) {
        kept->there = 0; /* its holder writes into it */
        counted[3]++;
    }
    for (uint32_t i = row->count; i < count; i++) {
        take(blocks[i]);
        row->blocks[i] = blocks[i];
    }
    row->count = count;
    const char *wrong = store_carry_out(&store, &ops);
    CHECK(!wrong, "%s", wrong);
    write_rows(g, tokens, fails);
}

static void truncate_to(struct guest *g, uint32_t tokens)
{
    struct row *row = row_of(g);
    api->truncate(cache, &g->req, tokens);
    reference_cut(&reference, row, tokens);
    if (g->swapped && tokens < g->swapped_tokens)
        g->swapped_tokens = tokens;
    uint32_t holds = g->swapped ? g->swapped_tokens : row->filled;
    if (roll(2) && holds <= tokens)
        draw_tokens(row, holds); /* another text from here on */
    counted[4]++;
}

static void release(struct guest *g)
{
    api->release(cache, &g->req);
    reference_cut(&reference, row_of(g), 0);
    g->live = g->swapped = 0;
}

static void fork_to(struct guest *parent, struct guest *child)
{
    struct row *from = row_of(parent), *to = row_of(child);
    uint32_t index = child->req.index;
    child->req = parent->req;
    child->req.index = index;
    child->req.id = next_id++;
    child->req.tenant = roll(4) ? parent->req.tenant : roll(2);
    child->req.tokens = parent->req.tokens ? to->text.tokens : NULL;
    CHECK(api->fork(cache, &parent->req, &child->req, &err) == LATHE_OK, "fork: %s", err.message);
    *to = *from;
    set_salt(child);
    to->shares = to->shares && from->shares && to->text.salt == from->text.salt;
    to->count = (from->filled + now->block_tokens - 1) / now->block_tokens;
    for (uint32_t i = 0; i < to->count; i++) {
        reference_share(&reference, to->blocks[i]);
        if (i < to->known)
            reference_entry(&reference, to->blocks[i])->uses++;
    }
    draw_tokens(to, to->filled);
    child->live = 1;
    child->swapped = 0;
    child->looked_up = 0;
    counted[5]++;
}

static void move_out(struct guest *g)
{
    struct row *row = row_of(g);
    struct lathe_kv_ops ops = { .capacity = roll(10) ? OPS : 0, .ops = op_space };
    uint32_t count = (row->filled + now->block_tokens - 1) / now->block_tokens, tokens = row->filled;
    int status = api->swap_out(cache, &g->req, &ops, &err);
    CHECK(status == LATHE_OK || status == LATHE_EFULL, "swap_out: %s", err.message);
    if (status != LATHE_OK)
        return;
    CHECK(ops.count == count, "%u operations, expected %u", ops.count, count);
    const char *wrong = store_carry_out(&store, &ops);
    CHECK(!wrong, "%s", wrong);
    reference_cut(&reference, row, 0);
    g->swapped = count > 0;
    g->swapped_tokens = tokens;
    g->swapped_count = count;
    counted[6] += count > 0;
}

static void move_in(struct guest *g)
{
    struct row *row = row_of(g);
    struct lathe_kv_ops ops = { .capacity = roll(10) ? OPS : 0, .ops = op_space };
    uint32_t whole = g->swapped_tokens / now->block_tokens, idle, free = now->blocks - reference_used(&reference);
    uint32_t keep = (g->swapped_tokens + now->block_tokens - 1) / now->block_tokens, count;
    uint32_t found = reference_found(&reference, row, whole, &idle);
    int expected = keep - found + idle > free ? LATHE_EBLOCKS : ops.capacity == 0 ? LATHE_EFULL : LATHE_OK;
    const int32_t *blocks;
    int status = api->swap_in(cache, &g->req, &ops, &err);
    CHECK(status == expected, "swap_in says %d, expected %d: %s", status, expected, err.message);
    if (status != LATHE_OK) {
        CHECK(ops.count == 0, "a refused swap_in has operations");
        return;
    }
    CHECK(ops.count == g->swapped_count, "%u operations, expected %u", ops.count, g->swapped_count);
    const char *wrong = store_carry_out(&store, &ops);
    CHECK(!wrong, "%s", wrong);
    api->table(cache, &g->req, &blocks, &count);
    CHECK(count == keep, "%u blocks came back, expected %u", count, keep);
    reference_adopt(&reference, row, whole);
    for (uint32_t i = 0; i < keep; i++) {
        if (i < found) {
            reference_entry(&reference, row->blocks[i])->uses++;
            continue;
        }
        take(blocks[i]);
        row->blocks[i] = blocks[i];
    }
    row->count = keep;
    row->filled = g->swapped_tokens;
    g->swapped = 0;
    counted[7] += found > 0;
}

static void lose_everything(void)
{
    for (struct guest *g = guests; g < guests + MAX_REQUESTS; g++)
        if (g->live)
            release(g);
    api->forget(cache);
    reference_forget(&reference);
    store_close(&store);
    store_open(&store, now->blocks, now->block_tokens);
    counted[8]++;
}

static void one_operation(void)
{
    struct guest *g = &guests[roll(MAX_REQUESTS)], *other = &guests[roll(MAX_REQUESTS)];
    const struct row *row = row_of(g);
    if (roll(500) == 0) {
        lose_everything();
        return;
    }
    if (!g->live) {
        admit(g);
        return;
    }
    if (g->swapped) {
        uint32_t what = roll(8);
        if (what == 0)
            release(g);
        else if (what == 1)
            truncate_to(g, roll(g->swapped_tokens + 2));
        else
            move_in(g);
        return;
    }
    uint32_t what = roll(24), more = what < 8 ? 1 : 1 + roll(now->context);
    if (what < 14)
        step(g, row->filled + more < now->context ? row->filled + more : now->context, roll(8) == 0);
    else if (what < 17)
        truncate_to(g, roll(row->filled + 2));
    else if (what < 20)
        release(g);
    else if (what < 22 && !other->live)
        fork_to(g, other);
    else if (what >= 22)
        move_out(g);
}

/* What was swapped out by requests that are gone is dropped by and by. */
static void drops_come_to_an_end(void)
{
    struct guest *g = guests;
    for (struct guest *other = guests; other < guests + MAX_REQUESTS; other++)
        if (other->live)
            release(other);
    for (uint32_t i = 0; i < 1000 && store.moved_count; i++) {
        while (!g->live)
            admit(g);
        step(g, row_of(g)->filled + 1, 0);
        release(g);
    }
    CHECK(store.moved_count == 0, "%u blocks are never dropped from host memory", store.moved_count);
}

static void run(struct policy *policy, const struct lathe_host *host, uint32_t operations)
{
    struct lathe_kv_demand demand = { .size = sizeof demand, .max_requests = MAX_REQUESTS, .kv_bytes_per_token = 64,
                                      .context_tokens = now->context };
    struct lathe_kv_geometry shape = { 0 };
    CHECK(policy_create(policy, host, now->options, &cache, &err) == LATHE_OK, "create: %s", err.message);
    CHECK(api->layout(cache, &demand, &shape, &err) == LATHE_OK, "layout: %s", err.message);
    CHECK(shape.blocks == now->blocks && shape.block_tokens == now->block_tokens, "%u blocks of %u", shape.blocks,
          shape.block_tokens);
    memset(&reference, 0, sizeof reference);
    memset(guests, 0, sizeof guests);
    memset(counted, 0, sizeof counted);
    reference.blocks = now->blocks, reference.block_tokens = now->block_tokens, reference.lfu = now->lfu;
    store_open(&store, now->blocks, now->block_tokens);
    for (uint32_t i = 0; i < MAX_REQUESTS; i++)
        guests[i].req = (struct lathe_request){ .size = sizeof guests[i].req, .index = i, .id = UINT64_MAX };
    next_id = 1, draws = hits = looked_up = 0;
    for (operation = 1; operation <= operations; operation++) {
        one_operation();
        check_everything();
    }
    printf("%s: %u operations; %llu hits, %llu evictions, %llu without room, %llu copies, %llu withdrawn, %llu truncated, "
           "%llu forks, %llu swaps (%llu found their blocks again), %llu losses\n", now->options, operations,
           (unsigned long long)counted[0], (unsigned long long)reference.evicted, (unsigned long long)counted[1],
           (unsigned long long)counted[2], (unsigned long long)counted[3], (unsigned long long)counted[4],
           (unsigned long long)counted[5], (unsigned long long)counted[6], (unsigned long long)counted[7],
           (unsigned long long)counted[8]);
    for (int i = 0; i < 9 && operations >= 10000; i++) /* blocks of one token are never half full */
        CHECK(counted[i] > 0 || (now->block_tokens == 1 && (i == 2 || i == 3)), "nothing of kind %d ever happened", i);
    drops_come_to_an_end();
    api->destroy(cache);
    store_close(&store);
}

int main(int argc, char **argv)
{
    static struct policy policy;
    static struct counting_host host;
    if (argc < 3) {
        fprintf(stderr, "usage: stress_prefix prefix.so OPERATIONS [SEED]\n");
        return 2;
    }
    counting_host_init(&host);
    policy_open(&policy, argv[1]);
    api = policy.api;
    seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        now = &settings[i];
        run(&policy, &host.host, (uint32_t)strtoul(argv[2], NULL, 10));
    }
    if (host.live_blocks) {
        fprintf(stderr, "%zu pieces of memory were not given back\n", (size_t)host.live_blocks);
        return 1;
    }
    return 0;
}

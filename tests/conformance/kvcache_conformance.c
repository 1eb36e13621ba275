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
#include "kvcache/world.h"

enum { STEPS = 6000 };

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

/* SPDX-License-Identifier: MIT */
/* A policy without a budget decides as paged does: the same statuses, blocks, operations and figures
 * after random calls. */
#include "fixture.h"

enum { STEPS = 8000, REQUESTS = 4 };

static void same_ops(const struct cache *a, const struct cache *b)
{
    assert_int_equal(a->ops.count, b->ops.count);
    for (uint32_t i = 0; i < a->ops.count; i++)
        assert_memory_equal(&a->ops.ops[i], &b->ops.ops[i], sizeof a->ops.ops[i]);
}

static void same_state(const struct cache *a, const struct cache *b, const struct lathe_request *requests)
{
    struct lathe_kv_usage ua, ub;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        const int32_t *ta, *tb;
        uint32_t ca, cb;
        if (!requests[i].id)
            continue;
        a->api->table(a->self, &requests[i], &ta, &ca);
        b->api->table(b->self, &requests[i], &tb, &cb);
        assert_int_equal(ca, cb);
        if (ca)
            assert_memory_equal(ta, tb, ca * sizeof *ta);
        b->api->kept(b->self, &requests[i], &tb, &cb);
        assert_int_equal(cb, 0);
    }
    a->api->usage(a->self, &ua);
    b->api->usage(b->self, &ub);
    assert_memory_equal(&ua, &ub, sizeof ua);
}

static void equal(const char *name, const char *options)
{
    struct cache c[2];
    struct lathe_request requests[REQUESTS] = { { 0 } };
    uint32_t filled[REQUESTS] = { 0 }, draws = 0, swapped = 0;
    uint64_t next_id = 1;
    cache_open(&c[0], "paged", "block_tokens=8,blocks=70,preempt=swap");
    cache_open(&c[1], name, options);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t at = cache_roll(&draws, REQUESTS), other = cache_roll(&draws, REQUESTS), what = cache_roll(&draws, 12);
        uint32_t more = what == 0 ? cache_roll(&draws, 90) : 1, cut = cache_roll(&draws, CACHE_CONTEXT);
        struct lathe_request *req = &requests[at];
        int status[2];
        if (what > 9 && cache_roll(&draws, 4))
            continue;
        int is_new = !req->id;
        if (is_new)
            *req = cache_request(at, next_id++), filled[at] = 0;
        uint32_t tokens = filled[at] + more < CACHE_CONTEXT ? filled[at] + more : CACHE_CONTEXT;
        int fork = !is_new && what == 9 && !requests[other].id;
        if (fork)
            requests[other] = cache_request(other, next_id++);
        for (int i = 0; i < 2; i++) {
            const struct lathe_kvcache_api *api = c[i].api;
            uint32_t cached;
            c[i].ops.count = 0;
            status[i] = LATHE_OK;
            if (is_new)
                status[i] = api->admit(c[i].self, req, &cached, &c[i].err);
            else if (what < 8 && (status[i] = api->reserve(c[i].self, req, tokens, &c[i].ops, &c[i].err)) == LATHE_OK)
                api->filled(c[i].self, req, tokens);
            else if (what == 8)
                api->truncate(c[i].self, req, cut);
            else if (fork)
                status[i] = api->fork(c[i].self, req, &requests[other], &c[i].err);
            else if (what == 10)
                api->release(c[i].self, req);
            else if (what == 11 && (status[i] = api->swap_in(c[i].self, req, &c[i].ops, &c[i].err)) == LATHE_OK &&
                     c[i].ops.count == 0)
                status[i] = api->swap_out(c[i].self, req, &c[i].ops, &c[i].err);
        }
        assert_int_equal(status[0], status[1]);
        swapped += what == 11 && c[0].ops.count > 0;
        same_ops(&c[0], &c[1]);
        if (!is_new && what < 8 && status[0] == LATHE_OK && tokens > filled[at])
            filled[at] = tokens;
        else if (!is_new && what == 8 && cut < filled[at])
            filled[at] = cut;
        else if (fork && status[0] == LATHE_OK)
            filled[other] = filled[at];
        else if (fork)
            requests[other].id = 0;
        else if (!is_new && what == 10)
            req->id = 0;
        same_state(&c[0], &c[1], requests);
    }
    assert_true(swapped > 50);
    cache_close(&c[0]);
    cache_close(&c[1]);
}

static void a_policy_without_a_budget_is_paged(void **state)
{
    (void)state;
    equal("window", "block_tokens=8,blocks=70,preempt=swap");
    equal("sinks", "block_tokens=8,blocks=70,preempt=swap");
    equal("h2o", "block_tokens=8,blocks=70,preempt=swap,scope=head");
    equal("random", "block_tokens=8,blocks=70,preempt=swap");
}

/* A budget that is never come to is none, but for the masses. */
static void a_budget_of_a_context_is_paged(void **state)
{
    (void)state;
    equal("window", "block_tokens=8,blocks=70,preempt=swap,budget=400");
    equal("sinks", "block_tokens=8,blocks=70,preempt=swap,budget=400");
    equal("h2o", "block_tokens=8,blocks=70,preempt=swap,scope=head,budget=400");
    equal("random", "block_tokens=8,blocks=70,preempt=swap,scope=layer,budget=400");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_without_a_budget_is_paged),
        cmocka_unit_test(a_budget_of_a_context_is_paged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* kvcache/window: which positions stay, which blocks go, and how a pool's budget is shared. */
#include "fixture.h"

static void the_last_positions_stay_and_whole_blocks_go(void **state)
{
    static const uint32_t steps[] = { 30, 31, 32, 33, 60, 61, 62, 63, 64, 65, 66, 200, 201 };
    struct cache c;
    struct lathe_request req = cache_request(1, 7);
    (void)state;
    cache_open(&c, "window", "budget=10,block_tokens=4");
    assert_int_equal(c.geometry.kv_flags, 0);
    assert_int_equal(c.geometry.wants_mass, 0);
    cache_admit(&c, &req);
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        int32_t wanted[10];
        const int32_t *blocks;
        struct lathe_kv_usage u;
        uint32_t tokens = steps[s], count;
        cache_step(&c, &req, tokens, NULL, 0);
        for (uint32_t i = 0; i < 10; i++)
            wanted[i] = (int32_t)(tokens - 10 + i);
        cache_expect(&c, &req, wanted, 10);
        c.api->table(c.self, &req, &blocks, &count);
        assert_int_equal(count, (tokens + 3) / 4);
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(blocks[i] >= 0, (i + 1) * 4 > tokens - 10);
        c.api->usage(c.self, &u);
        assert_int_equal(u.filled_tokens, 10);
        assert_int_equal(u.evicted_tokens, tokens - 10);
        assert_int_equal(u.evicted_blocks, (tokens - 10) / 4);
    }
    c.api->release(c.self, &req);
    cache_close(&c);
}

static void up_to_the_budget_all_may_be_looked_at(void **state)
{
    struct cache c;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "window", "budget=10,block_tokens=4");
    cache_admit(&c, &req);
    cache_step(&c, &req, 10, NULL, 0);
    cache_expect(&c, &req, NULL, 0);
    cache_step(&c, &req, 11, NULL, 0);
    cache_expect(&c, &req, (int32_t[]){ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, 10);
    cache_close(&c);
}

static void a_pools_budget_is_shared_by_those_who_are_in(void **state)
{
    struct cache c;
    struct lathe_request a = cache_request(0, 1), b = cache_request(1, 2);
    (void)state;
    cache_open(&c, "window", "pool_budget=8,block_tokens=4");
    cache_admit(&c, &a);
    cache_step(&c, &a, 20, NULL, 0);
    cache_expect(&c, &a, (int32_t[]){ 12, 13, 14, 15, 16, 17, 18, 19 }, 8);
    cache_admit(&c, &b);
    cache_step(&c, &b, 9, NULL, 0);
    cache_expect(&c, &b, (int32_t[]){ 5, 6, 7, 8 }, 4);
    cache_step(&c, &a, 21, NULL, 0); /* at its own next step */
    cache_expect(&c, &a, (int32_t[]){ 17, 18, 19, 20 }, 4);
    c.api->release(c.self, &a);
    cache_step(&c, &b, 12, NULL, 0); /* there is room again, and what went is gone */
    cache_expect(&c, &b, (int32_t[]){ 5, 6, 7, 8, 9, 10, 11 }, 7);
    cache_close(&c);
}

static void under_pressure_everybody_is_shortened(void **state)
{
    struct cache c;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "window", "preempt=evict,blocks=10,block_tokens=4");
    cache_admit(&c, &req);
    for (uint32_t tokens = 1; tokens <= 300; tokens++) /* ten times the pool, and never short */
        cache_step(&c, &req, tokens, NULL, 0);
    assert_int_equal(c.api->preempt_choice(c.self, &req), LATHE_KV_RECOMPUTE);
    cache_close(&c);
}

static void a_truncation_into_the_window_goes_on_from_there(void **state)
{
    struct cache c;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "window", "budget=6,block_tokens=4,preempt=swap");
    cache_admit(&c, &req);
    cache_step(&c, &req, 22, NULL, 0); /* 16 … 21 */
    c.api->truncate(c.self, &req, 18);
    cache_expect(&c, &req, (int32_t[]){ 16, 17 }, 2);
    cache_step(&c, &req, 20, NULL, 0);
    cache_expect(&c, &req, (int32_t[]){ 16, 17, 18, 19 }, 4);
    assert_int_equal(c.api->swap_out(c.self, &req, &c.ops, &c.err), LATHE_OK);
    c.api->truncate(c.self, &req, 19); /* while it is away */
    assert_int_equal(c.api->swap_in(c.self, &req, &c.ops, &c.err), LATHE_OK);
    cache_expect(&c, &req, (int32_t[]){ 16, 17, 18 }, 3);
    c.api->release(c.self, &req);
    cache_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_positions_stay_and_whole_blocks_go),
        cmocka_unit_test(up_to_the_budget_all_may_be_looked_at),
        cmocka_unit_test(a_pools_budget_is_shared_by_those_who_are_in),
        cmocka_unit_test(under_pressure_everybody_is_shortened),
        cmocka_unit_test(a_truncation_into_the_window_goes_on_from_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

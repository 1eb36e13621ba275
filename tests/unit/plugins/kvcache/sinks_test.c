/* SPDX-License-Identifier: MIT */
/* kvcache/sinks: the first positions and a window, and what it asks of the model. */
#include "fixture.h"

/* What the definition says, for random steps: the first four, and the last so that both are the budget. */
static void the_first_stay_and_the_last(void **state)
{
    enum { BUDGET = 23, SINKS = 4 };
    struct cache c;
    uint32_t draws = 0, tokens = 0;
    struct lathe_request req = cache_request(2, 5);
    (void)state;
    cache_open(&c, "sinks", "budget=23,block_tokens=3");
    cache_admit(&c, &req);
    while (tokens + 40 < CACHE_CONTEXT) {
        int32_t wanted[BUDGET];
        tokens += 1 + cache_roll(&draws, 5) / 4 * cache_roll(&draws, 40);
        cache_step(&c, &req, tokens, NULL, 0);
        for (int32_t i = 0; i < BUDGET; i++)
            wanted[i] = i < SINKS ? i : (int32_t)tokens - BUDGET + i;
        cache_expect(&c, &req, wanted, tokens > BUDGET ? BUDGET : 0);
    }
    c.api->release(c.self, &req);
    cache_close(&c);
}

static void positions_in_the_cache_want_keys_that_turn_when_read(void **state)
{
    struct cache c;
    (void)state;
    cache_open(&c, "sinks", "budget=23");
    assert_int_equal(c.geometry.kv_flags, LATHE_KV_KEYS_UNROTATED);
    assert_int_equal(c.geometry.cache_positions, 1);
    cache_close(&c);
    cache_open(&c, "sinks", "budget=23,positions=original");
    assert_int_equal(c.geometry.kv_flags | c.geometry.cache_positions, 0);
    cache_close(&c);
    cache_open(&c, "sinks", NULL); /* nothing is evicted, so nothing moves */
    assert_int_equal(c.geometry.kv_flags | c.geometry.cache_positions, 0);
    cache_close(&c);
}

static void a_model_that_cannot_turn_them_is_refused_and_a_simulation_is_not(void **state)
{
    struct cache c;
    (void)state;
    assert_int_equal(cache_create(&c, "sinks", "budget=23"), LATHE_OK);
    c.demand.unrotated = 0;
    assert_int_equal(cache_layout(&c), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(c.err.message, "positions = original"));
    cache_close(&c);
    assert_int_equal(cache_create(&c, "sinks", "budget=23"), LATHE_OK);
    c.demand.unrotated = c.demand.layers = c.demand.kv_heads = 0;
    assert_int_equal(cache_layout(&c), LATHE_OK);
    cache_close(&c);
}

static void a_budget_without_a_window_is_refused(void **state)
{
    struct cache c;
    (void)state;
    assert_int_equal(cache_create(&c, "sinks", "budget=4"), LATHE_EINVAL);
    assert_non_null(strstr(c.err.message, "leaves no window"));
}

static void without_sinks_it_is_a_window(void **state)
{
    struct cache c, w;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "sinks", "sinks=0,budget=9,block_tokens=4");
    cache_open(&w, "window", "budget=9,block_tokens=4");
    cache_admit(&c, &req);
    cache_admit(&w, &req);
    for (uint32_t tokens = 1; tokens < 60; tokens++) {
        const int32_t *list;
        uint32_t count;
        cache_step(&c, &req, tokens, NULL, 0);
        cache_step(&w, &req, tokens, NULL, 0);
        w.api->kept(w.self, &req, &list, &count);
        cache_expect(&c, &req, list, count);
    }
    cache_close(&c);
    cache_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_stay_and_the_last),
        cmocka_unit_test(positions_in_the_cache_want_keys_that_turn_when_read),
        cmocka_unit_test(a_model_that_cannot_turn_them_is_refused_and_a_simulation_is_not),
        cmocka_unit_test(a_budget_without_a_window_is_refused),
        cmocka_unit_test(without_sinks_it_is_a_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

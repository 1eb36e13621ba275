/* SPDX-License-Identifier: MIT */
/* kvcache/h2o: the sets that it keeps, against the definition, on random masses. */
#include "naive.h"

static struct naive sets[CACHE_LAYERS * CACHE_HEADS];
static float mass[CACHE_LAYERS * CACHE_HEADS * CACHE_CONTEXT];

/* Steps of a prompt and of decode, masses of which many are equal; recent: as the options come to. */
static void compare(const char *options, uint32_t set_count, uint32_t budget, uint32_t recent, uint32_t seed)
{
    struct cache c;
    struct lathe_request req = cache_request(seed % 4, 100 + seed), other = cache_request((seed + 1) % 4, 99);
    uint32_t draws = seed << 20, tokens = 0;
    cache_open(&c, "h2o", options);
    assert_int_equal(c.geometry.wants_mass, 1);
    cache_admit(&c, &other); /* whose sets lie beside */
    cache_admit(&c, &req);
    memset(sets, 0, sizeof sets);
    while (tokens + 100 < CACHE_CONTEXT) {
        uint32_t rows = tokens == 0 || cache_roll(&draws, 9) == 0 ? 1 + cache_roll(&draws, 90) : 1, keys = sets->count + rows;
        for (uint32_t i = 0; i < set_count * keys; i++)
            mass[i] = cache_roll(&draws, 2) ? (float)cache_roll(&draws, 8) / 4 : (float)cache_roll(&draws, 1 << 20) / (1 << 20);
        cache_step(&c, &req, tokens + rows, mass, keys);
        for (uint32_t s = 0; s < set_count; s++) {
            for (uint32_t r = 0; r < rows; r++)
                naive_add(&sets[s], (int32_t)(tokens + r), 0);
            for (uint32_t k = 0; k < keys; k++)
                sets[s].scores[k] += mass[s * keys + k];
            naive_evict(&sets[s], budget, recent);
        }
        tokens += rows;
        naive_equals(sets, set_count, &c, &req, tokens);
    }
    c.api->release(c.self, &req);
    c.api->release(c.self, &other);
    cache_close(&c);
}

static void keeps_what_the_definition_keeps(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        compare("budget=20,block_tokens=4", 1, 20, 10, seed);
        compare("budget=21,block_tokens=4,recent_share=0.25,scope=layer", CACHE_LAYERS, 21, 5, seed);
        compare("budget=17,block_tokens=3,scope=head", CACHE_LAYERS * CACHE_HEADS, 17, 9, seed);
        compare("budget=8,recent_share=0,scope=head", CACHE_LAYERS * CACHE_HEADS, 8, 1, seed);
        compare("budget=8,recent_share=1", 1, 8, 8, seed);
        compare("budget=1", 1, 1, 1, seed);
    }
}

static void equal_masses_let_the_lower_position_go(void **state)
{
    static const float ones[32] = { [0 ... 31] = 1 };
    struct cache c;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "h2o", "budget=4,block_tokens=4");
    cache_admit(&c, &req);
    cache_step(&c, &req, 6, ones, 6);
    cache_expect(&c, &req, (int32_t[]){ 2, 3, 4, 5 }, 4);
    cache_close(&c);
}

static void a_heavy_hitter_stays_and_is_not_paid_for_its_age(void **state)
{
    struct cache c;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "h2o", "budget=4,block_tokens=4");
    cache_admit(&c, &req);
    cache_step(&c, &req, 4, (float[]){ 1, 9, 1, 1 }, 4);
    for (uint32_t tokens = 5; tokens < 40; tokens++) /* nobody looks at it again */
        cache_step(&c, &req, tokens, (float[]){ 0, 0, 0, 0.1F, 0.1F }, 5);
    cache_expect(&c, &req, (int32_t[]){ 1, 3, 37, 38 }, 4);
    cache_close(&c);
}

static void without_a_budget_it_wants_no_masses(void **state)
{
    struct cache c;
    struct lathe_request req = cache_request(0, 1);
    (void)state;
    cache_open(&c, "h2o", "scope=head");
    assert_int_equal(c.geometry.wants_mass, 0);
    assert_int_equal(c.geometry.kv_scope, LATHE_KV_REQUEST);
    cache_admit(&c, &req);
    cache_step(&c, &req, CACHE_CONTEXT, NULL, 0);
    cache_expect(&c, &req, NULL, 0);
    cache_close(&c);
}

static void models_that_cannot_serve_it_are_refused(void **state)
{
    struct cache c;
    (void)state;
    assert_int_equal(cache_create(&c, "h2o", "budget=8"), LATHE_OK);
    c.demand.key_mass = 0;
    assert_int_equal(cache_layout(&c), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(c.err.message, "how much its keys are looked at"));
    cache_close(&c);
    assert_int_equal(cache_create(&c, "h2o", "budget=8,scope=head"), LATHE_OK);
    c.demand.layers = c.demand.kv_heads = 0;
    assert_int_equal(cache_layout(&c), LATHE_EUNSUPPORTED);
    assert_non_null(strstr(c.err.message, "scope = request"));
    cache_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_the_definition_keeps),
        cmocka_unit_test(equal_masses_let_the_lower_position_go),
        cmocka_unit_test(a_heavy_hitter_stays_and_is_not_paid_for_its_age),
        cmocka_unit_test(without_a_budget_it_wants_no_masses),
        cmocka_unit_test(models_that_cannot_serve_it_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

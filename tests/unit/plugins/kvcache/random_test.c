/* SPDX-License-Identifier: MIT */
/* kvcache/random: the sets that it keeps, against the definition, and that they are random. */
#include "naive.h"

enum { BUDGET = 16, RECENT = 8, SETS = CACHE_LAYERS * CACHE_HEADS };

static float drawn(uint64_t seed, uint64_t id, uint32_t set, uint32_t position)
{
    return (float)(lathe_random_u64(seed, LATHE_RANDOM_EVICTION, id + ((uint64_t)set << 40), position) >> 40) / 16777216.0F;
}

static void keeps_what_the_definition_keeps(void **state)
{
    static struct naive sets[SETS];
    (void)state;
    for (uint32_t id = 1; id < 20; id++) {
        struct cache c;
        struct lathe_request req = cache_request(id % 4, id);
        uint32_t draws = id << 20, tokens = 0;
        cache_open(&c, "random", "budget=16,block_tokens=4,scope=head,seed=9");
        assert_int_equal(c.geometry.wants_mass, 0);
        cache_admit(&c, &req);
        memset(sets, 0, sizeof sets);
        while (tokens + 60 < CACHE_CONTEXT) {
            uint32_t rows = cache_roll(&draws, 6) ? 1 : 1 + cache_roll(&draws, 50);
            cache_step(&c, &req, tokens + rows, NULL, 0);
            for (uint32_t s = 0; s < SETS; s++) {
                for (uint32_t p = tokens; p < tokens + rows; p++)
                    naive_add(&sets[s], (int32_t)p, drawn(9, id, s, p));
                naive_evict(&sets[s], BUDGET, RECENT);
            }
            tokens += rows;
            naive_equals(sets, SETS, &c, &req, tokens);
        }
        c.api->release(c.self, &req);
        cache_close(&c);
    }
}

/* Of the positions before the recent ones each stays as often as another: 8 of 72, over 2,000 requests. */
static void all_that_are_not_recent_have_the_same_chance(void **state)
{
    struct cache c;
    uint32_t stayed[80] = { 0 };
    (void)state;
    cache_open(&c, "random", "budget=16,block_tokens=4");
    for (uint64_t id = 1; id <= 2000; id++) {
        struct lathe_request req = cache_request(0, id);
        const int32_t *list;
        uint32_t count;
        cache_admit(&c, &req);
        cache_step(&c, &req, 40, NULL, 0); /* in two steps, which makes no difference */
        cache_step(&c, &req, 80, NULL, 0);
        c.api->kept(c.self, &req, &list, &count);
        assert_int_equal(count, BUDGET);
        for (uint32_t i = 0; i < count; i++)
            stayed[list[i]]++;
        c.api->release(c.self, &req);
    }
    for (uint32_t p = 0; p < 72; p++) /* 222 expected, deviation 14 */
        assert_in_range(stayed[p], 222 - 4 * 14 - 8, 222 + 4 * 14 + 8);
    for (uint32_t p = 72; p < 80; p++)
        assert_int_equal(stayed[p], 2000);
    cache_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_the_definition_keeps),
        cmocka_unit_test(all_that_are_not_recent_have_the_same_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

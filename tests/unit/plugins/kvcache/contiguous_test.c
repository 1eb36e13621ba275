/* SPDX-License-Identifier: MIT */
/* kvcache/contiguous: ranges, gaps, and what waits because of them. */
#include "fixture.h"

static int enter(struct cache *c, struct lathe_request *req, uint32_t index, uint32_t prompt, uint32_t output)
{
    uint32_t cached;
    *req = (struct lathe_request){ .size = sizeof *req, .index = index, .id = index + 1, .prompt_tokens = prompt,
                                   .max_output_tokens = output };
    return c->api->admit(c->self, req, &cached, &c->err);
}

static void a_request_has_one_piece_for_all_that_it_may_become(void **state)
{
    struct cache c;
    struct lathe_request a, b;
    const int32_t *blocks;
    uint32_t count;
    (void)state;
    cache_open(&c, "contiguous", "block_tokens=4,blocks=20");
    assert_int_equal(enter(&c, &a, 0, 10, 20), LATHE_OK);
    assert_int_equal(enter(&c, &b, 1, 1, 7), LATHE_OK);
    c.api->table(c.self, &b, &blocks, &count);
    assert_int_equal(count, 2);
    assert_true(blocks[0] == 8 && blocks[1] == 9);
    assert_int_equal(c.api->blocks_available(c.self), 10);
    assert_int_equal(c.api->blocks_needed(c.self, &a, 30), 0);
    cache_step(&c, &a, 30, NULL, 0);
    assert_int_equal(c.api->reserve(c.self, &b, 9, &c.ops, &c.err), LATHE_EBLOCKS);
    cache_close(&c);
}

static void a_gap_that_is_too_small_is_passed_over_and_told(void **state)
{
    struct cache c;
    struct lathe_request r[5];
    const int32_t *blocks;
    struct lathe_kv_usage u;
    uint32_t count;
    (void)state;
    cache_open(&c, "contiguous", "block_tokens=1,blocks=40");
    assert_int_equal(enter(&c, &r[0], 0, 10, 0), LATHE_OK); /* 0 … 9 */
    assert_int_equal(enter(&c, &r[1], 1, 10, 0), LATHE_OK); /* 10 … 19 */
    assert_int_equal(enter(&c, &r[2], 2, 12, 0), LATHE_OK); /* 20 … 31; 8 are left */
    c.api->release(c.self, &r[1]);
    assert_int_equal(c.api->blocks_available(c.self), 18);
    assert_int_equal(enter(&c, &r[3], 3, 11, 0), LATHE_EBLOCKS); /* 18 are free, and not 11 in a row */
    assert_non_null(strstr(c.err.message, "18 of 40 are free, at most 10 in a row"));
    assert_int_equal(enter(&c, &r[3], 3, 3, 5), LATHE_OK); /* the first gap, not the tighter one */
    c.api->table(c.self, &r[3], &blocks, &count);
    assert_true(blocks[0] == 10 && count == 8);
    cache_step(&c, &r[3], 3, NULL, 0);
    c.api->usage(c.self, &u);
    assert_int_equal(u.reserved_tokens, 30);
    assert_int_equal(u.filled_tokens, 3);
    cache_close(&c);
}

static void a_reserve_is_at_least_what_the_option_says_and_at_most_a_context(void **state)
{
    struct cache c;
    struct lathe_request a, b;
    (void)state;
    cache_open(&c, "contiguous", "block_tokens=1,blocks=1000,reserve_tokens=100");
    assert_int_equal(enter(&c, &a, 0, 10, 20), LATHE_OK);
    assert_int_equal(c.api->blocks_available(c.self), 900);
    assert_int_equal(enter(&c, &b, 1, 10, 5000), LATHE_OK);
    assert_int_equal(c.api->blocks_available(c.self), 900 - CACHE_CONTEXT);
    cache_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_has_one_piece_for_all_that_it_may_become),
        cmocka_unit_test(a_gap_that_is_too_small_is_passed_over_and_told),
        cmocka_unit_test(a_reserve_is_at_least_what_the_option_says_and_at_most_a_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

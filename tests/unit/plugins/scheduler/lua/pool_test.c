/* SPDX-License-Identifier: MIT */
/* The memory of a Lua state: blocks never overlap, keep what is in them, and come together again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <lathe/random.h>

#include "pool.h"

enum { BLOCKS = 200, STEPS = 50000 };

struct block {
    unsigned char *memory;
    size_t bytes;
    unsigned char mark;
};

static void check(const struct block *b)
{
    for (size_t i = 0; i < b->bytes; i++)
        if (b->memory[i] != b->mark)
            fail_msg("byte %zu of %zu was changed", i, b->bytes);
}

static void random_blocks_keep_what_is_in_them(size_t region)
{
    static struct block blocks[BLOCKS];
    void *memory = calloc(1, pool_needs(region));
    struct pool pool;
    uint32_t refused = 0;
    pool_open(&pool, memory, region);
    memset(blocks, 0, sizeof blocks);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint64_t draw = lathe_random_u64(3, LATHE_RANDOM_USER, 0, i);
        struct block *b = &blocks[draw % BLOCKS];
        size_t bytes = (draw >> 10) % 3 ? (draw >> 12) % 200 : (draw >> 12) % 5000;
        check(b);
        unsigned char *new = pool_resize(&pool, b->memory, b->bytes, bytes);
        if (bytes && !new) {
            assert_true(bytes > b->bytes); /* shrinking never fails */
            refused++;
            continue;
        }
        assert_true(!new || ((char *)new >= (char *)memory && (char *)new + bytes <= (char *)memory + region));
        assert_int_equal((uintptr_t)new % 16, 0);
        *b = (struct block){ .memory = new, .bytes = bytes, .mark = (unsigned char)i };
        if (new)
            memset(new, b->mark, bytes);
    }
    for (int i = 0; i < BLOCKS; i++) {
        check(&blocks[i]);
        pool_resize(&pool, blocks[i].memory, blocks[i].bytes, 0);
    }
    assert_int_equal(pool.used, 0);
    assert_true(refused > 0);
    size_t whole = 32;
    while (whole * 2 <= pool.bytes)
        whole *= 2;
    assert_non_null(pool_resize(&pool, NULL, 0, whole)); /* in one piece again */
    free(memory);
}

static void a_region_of_a_power_of_two(void **state)
{
    (void)state;
    random_blocks_keep_what_is_in_them(65536);
}

static void a_region_of_any_size(void **state)
{
    (void)state;
    random_blocks_keep_what_is_in_them(70001 / 32 * 32);
    random_blocks_keep_what_is_in_them(33000);
}

static void a_region_of_next_to_nothing(void **state)
{
    void *memory = calloc(1, pool_needs(40));
    struct pool pool;
    (void)state;
    pool_open(&pool, memory, 40);
    void *only = pool_resize(&pool, NULL, 0, 1);
    assert_non_null(only);
    assert_null(pool_resize(&pool, NULL, 0, 1));
    assert_null(pool_resize(&pool, only, 1, 33));
    assert_ptr_equal(pool_resize(&pool, only, 1, 32), only);
    assert_null(pool_resize(&pool, NULL, 0, SIZE_MAX));
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_region_of_a_power_of_two),
        cmocka_unit_test(a_region_of_any_size),
        cmocka_unit_test(a_region_of_next_to_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

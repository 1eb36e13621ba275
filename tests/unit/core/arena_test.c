/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"

static void pieces_are_aligned_zeroed_and_apart(void **state)
{
    struct arena arena;
    struct lathe_error err;
    unsigned char *before = NULL;
    (void)state;
    assert_int_equal(arena_open(&arena, 4096, 0, 0, &err), LATHE_OK);
    for (size_t align = 1; align <= 512; align *= 2) {
        unsigned char *p = arena_take(&arena, 24, align);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        for (int i = 0; i < 24; i++)
            assert_int_equal(p[i], 0);
        assert_true(!before || p >= before + 24);
        memset(p, 0xFF, 24);
        before = p;
    }
    arena_close(&arena);
}

static void a_fixed_arena_says_no_when_it_is_full(void **state)
{
    struct arena arena;
    struct lathe_error err;
    (void)state;
    assert_int_equal(arena_open(&arena, 100, 0, 0, &err), LATHE_OK);
    assert_non_null(arena_take(&arena, 60, 1));
    assert_null(arena_take(&arena, 41, 1));
    assert_non_null(arena_take(&arena, 40, 1)); /* to the last byte */
    assert_null(arena_take(&arena, 1, 1));
    arena_reset(&arena);
    assert_non_null(arena_take(&arena, 100, 1));
    assert_int_equal(arena.peak_bytes, 100);
    arena_close(&arena);
}

static void a_reset_zeroes_again(void **state)
{
    struct arena arena;
    struct lathe_error err;
    (void)state;
    assert_int_equal(arena_open(&arena, 256, 0, 0, &err), LATHE_OK);
    memset(arena_take(&arena, 256, 1), 0xAB, 256);
    arena_reset(&arena);
    unsigned char *p = arena_take(&arena, 256, 1);
    for (int i = 0; i < 256; i++)
        assert_int_equal(p[i], 0);
    arena_close(&arena);
}

static void sizes_that_wrap_are_refused(void **state)
{
    struct arena arena;
    struct lathe_error err;
    (void)state;
    assert_int_equal(arena_open(&arena, 64, 1, 0, &err), LATHE_OK);
    assert_null(arena_take(&arena, SIZE_MAX, 16));
    assert_null(arena_take(&arena, SIZE_MAX - 8, 64));
    assert_null(arena_take_array(&arena, SIZE_MAX / 8 + 2, 8, 0));
    assert_null(arena_take(&arena, 8, 24)); /* no power of two */
    assert_null(arena_take(&arena, 8, (size_t)1 << 63));
    assert_null(arena_copy_text(&arena, "", SIZE_MAX));
    assert_non_null(arena_take(&arena, 8, 0)); /* and it still works */
    arena_close(&arena);
    assert_int_equal(arena_open(&arena, SIZE_MAX - 10, 0, 0, &err), LATHE_ENOMEM);
}

static void a_growing_arena_grows_to_its_limit_and_keeps_old_pieces(void **state)
{
    struct arena arena;
    struct lathe_error err;
    char *texts[100];
    (void)state;
    assert_int_equal(arena_open(&arena, 64, 1, 10000, &err), LATHE_OK);
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "text %d", i);
        texts[i] = arena_copy_text(&arena, text, strlen(text));
        assert_non_null(texts[i]);
    }
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof text, "text %d", i);
        assert_string_equal(texts[i], text);
    }
    int taken = 0;
    while (arena_take(&arena, 100, 1))
        taken++;
    assert_true(taken > 10 && arena.total_bytes <= 10000);
    arena_reset(&arena);
    assert_int_equal(arena.used_bytes, 0);
    assert_non_null(arena_take(&arena, 100, 1));
    arena_close(&arena);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_zeroed_and_apart),
        cmocka_unit_test(a_fixed_arena_says_no_when_it_is_full),
        cmocka_unit_test(a_reset_zeroes_again),
        cmocka_unit_test(sizes_that_wrap_are_refused),
        cmocka_unit_test(a_growing_arena_grows_to_its_limit_and_keeps_old_pieces),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* tokenizer/byte: bytes are tokens, four names are special, streams are whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/tokenizer_plugin.h"

static struct counting_host counting;
static struct tokenizer t;
static struct lathe_error err;

static int setup(void **state)
{
    (void)state;
    return tokenizer_open(&t, counting_host_init(&counting), "byte", NULL, &err);
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_close(&t);
    return counting.live_blocks != 0;
}

static void expect_ids(const char *text, size_t bytes, uint32_t flags, const int32_t *ids, size_t count)
{
    struct lathe_encode_out *out = tokenizer_ids(&t, text, bytes, flags, &err);
    assert_non_null(out);
    assert_int_equal(out->tokens.count, count);
    if (count)
        assert_memory_equal(LATHE_SPAN(int32_t, out, out->tokens), ids, 4 * count);
    free(out);
}

static void bytes_are_tokens(void **state)
{
    (void)state;
    expect_ids("", 0, 0, NULL, 0);
    expect_ids("a\0\n", 3, 0, (int32_t[]){97, 0, 10}, 3);
    expect_ids("\xc3\xa9", 2, 0, (int32_t[]){0xc3, 0xa9}, 2);
}

static void ill_formed_bytes_become_replacement_characters(void **state)
{
    (void)state;
    expect_ids("\xff", 1, 0, (int32_t[]){0xef, 0xbf, 0xbd}, 3);
    expect_ids("\xe2\x82" "A", 3, 0, (int32_t[]){0xef, 0xbf, 0xbd, 'A'}, 4);
    expect_ids("\xc0\x80", 2, 0, (int32_t[]){0xef, 0xbf, 0xbd, 0xef, 0xbf, 0xbd}, 6);
}

static void special_names_are_read_when_asked(void **state)
{
    (void)state;
    expect_ids("<|im_start|>x<|im_end|>", 23, LATHE_ENCODE_SPECIAL, (int32_t[]){258, 'x', 259}, 3);
    struct lathe_encode_out *out = tokenizer_ids(&t, "<|eos|>", 7, 0, &err);
    assert_int_equal(out->tokens.count, 7);
    free(out);
}

static void a_stream_gives_whole_characters(void **state)
{
    (void)state;
    struct lathe_decode_state s = {0};
    static const int32_t euro[] = {0xe2, 0x82, 0xac, 0xe2, 0x82};
    static const size_t expected[] = {0, 0, 3, 0, 3};
    for (size_t i = 0; i < 5; i++) {
        struct lathe_decode_out *out = tokenizer_text(&t, euro + i, 1, i == 4 ? LATHE_DECODE_FLUSH : 0, &s, 16, &err);
        assert_non_null(out);
        assert_int_equal(out->text.count, expected[i]);
        free(out);
    }
    assert_int_equal(s.count, 0);
}

static void special_tokens_are_silent_unless_asked(void **state)
{
    (void)state;
    struct lathe_decode_state s = {0};
    static const int32_t ids[] = {256, 'h', 259};
    struct lathe_decode_out *out = tokenizer_text(&t, ids, 3, 0, &s, 64, &err);
    assert_int_equal(out->text.count, 1);
    free(out);
    out = tokenizer_text(&t, ids, 3, LATHE_DECODE_SPECIAL, &s, 64, &err);
    assert_int_equal(out->text.count, 7 + 1 + 10);
    free(out);
}

static void refuses_ids_beyond_the_vocabulary_and_small_rooms(void **state)
{
    (void)state;
    struct lathe_decode_state s = {0};
    assert_null(tokenizer_text(&t, (int32_t[]){260}, 1, 0, &s, 64, &err));
    assert_int_equal(err.code, LATHE_ERANGE);
    assert_null(tokenizer_text(&t, (int32_t[]){-1}, 1, 0, &s, 64, &err));
    assert_int_equal(err.code, LATHE_ERANGE);
    assert_null(tokenizer_text(&t, (int32_t[]){'a', 'b'}, 2, 0, &s, 1, &err));
    assert_int_equal(err.code, LATHE_EFULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(bytes_are_tokens),
        T(ill_formed_bytes_become_replacement_characters),
        T(special_names_are_read_when_asked),
        T(a_stream_gives_whole_characters),
        T(special_tokens_are_silent_unless_asked),
        T(refuses_ids_beyond_the_vocabulary_and_small_rooms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

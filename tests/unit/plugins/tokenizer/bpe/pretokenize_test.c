/* SPDX-License-Identifier: MIT */
/* The hand-written matchers against a regex library that runs the models' own expressions, on
 * text made of the characters that the expressions tell apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "bpe.h"

#define SPACE "\\p{White_Space}"
#define NOT_SPACE "\\P{White_Space}"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?(?:(?!" SPACE "|\\p{L}|\\p{N}).)+|" SPACE "+(?!" NOT_SPACE ")|" SPACE "+"
#define CL100K(digits)                                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?(?:(?!" SPACE "|\\p{L}|\\p{N}).)+[\\r\\n]*|" SPACE  \
    "*[\\r\\n]+|" SPACE "+(?!" NOT_SPACE ")|" SPACE "+"

static pcre2_code *compile(const char *pattern)
{
    int error;
    size_t where;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL | PCRE2_ANCHORED, &error, &where, NULL);
    assert_non_null(code);
    return code;
}

static size_t matched(pcre2_code *code, pcre2_match_data *data, const unsigned char *text, size_t count)
{
    int rc = pcre2_match(code, text, count, 0, PCRE2_NO_UTF_CHECK, data, NULL);
    return rc > 0 ? pcre2_get_ovector_pointer(data)[1] : 0;
}

/* Characters that some alternative treats in its own way, all older than Unicode 14. */
static const char *const characters[] = {
    "a", "s", "t", "r", "e", "v", "m", "l", "d", "S", "T", "R", "E", "L", "D", "\u017f", "\u00e9", "\u65e5", "\u0e01", "\u05d0",
    "1", "2", "9", "\u00b2", "\u00bd", "\u2167", "\u0663", "'", "'", "'", ".", "!", "-", "\u2026", "\U0001f600", "\u200d", "\u0301",
    "\u200b", "\ufeff", "\u180e", " ", " ", " ", "\t", "\n", "\n", "\r", "\v", "\x1c", "\xc2\x85", "\u00a0", "\u1680", "\u2028", "\u3000",
    "\x01", "_", "\u00ad", "\U00020000", "\u0e34",
};

static uint64_t state = 1;

static size_t below(size_t n)
{
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (size_t)(state >> 33) % n;
}

static size_t make_text(unsigned char *text)
{
    size_t n = 0, length = 1 + below(24);
    for (size_t i = 0; i < length; i++) {
        const char *c = characters[below(sizeof characters / sizeof *characters)];
        for (size_t repeat = below(4) ? 1 : 1 + below(4); repeat; repeat--) {
            memcpy(text + n, c, strlen(c));
            n += strlen(c);
        }
    }
    return n;
}

/* Pieces one after the other; in smollm's two passes numbers cut the text first. */
static void compare(enum pretokenizer which, const char *pattern)
{
    pcre2_code *code = compile(pattern), *number = compile("\\p{N}"), *plain = compile("\\P{N}+");
    pcre2_match_data *data = pcre2_match_data_create(4, NULL);
    unsigned char text[1024];
    for (int i = 0; i < 100000; i++) {
        size_t count = make_text(text), at = 0;
        while (at < count) {
            size_t wanted = 0, end = count;
            if (which == PRETOKENIZER_SMOLLM) {
                wanted = matched(number, data, text + at, count - at);
                end = wanted ? count : at + matched(plain, data, text + at, count - at);
            }
            if (!wanted)
                wanted = matched(code, data, text + at, end - at);
            size_t got = pretokenize(which, text + at, count - at);
            if (got != wanted)
                print_message("text %d at %zu: \"%.*s\"\n", i, at, (int)(count - at), text + at);
            assert_int_equal(got, wanted);
            assert_true(got > 0);
            at += got;
        }
    }
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    pcre2_code_free(number);
    pcre2_code_free(plain);
}

static void gpt2_cuts_as_its_expression(void **unused)
{
    (void)unused;
    compare(PRETOKENIZER_GPT2, GPT2);
}

static void smollm_cuts_digits_first(void **unused)
{
    (void)unused;
    compare(PRETOKENIZER_SMOLLM, GPT2);
}

static void llama_bpe_cuts_as_its_expression(void **unused)
{
    (void)unused;
    compare(PRETOKENIZER_LLAMA3, CL100K("\\p{N}{1,3}"));
}

static void qwen2_cuts_as_its_expression(void **unused)
{
    (void)unused;
    compare(PRETOKENIZER_QWEN2, CL100K("\\p{N}"));
}

/* The library may know less (an older Unicode), never otherwise. */
static void classes_hold_what_the_library_knows(void **unused)
{
    (void)unused;
    static const char *const patterns[] = {[UNICODE_LETTER] = "\\p{L}", [UNICODE_NUMBER] = "\\p{N}", [UNICODE_SPACE] = SPACE};
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    for (int class = UNICODE_LETTER; class <= UNICODE_SPACE; class++) {
        pcre2_code *code = compile(patterns[class]);
        size_t more = 0;
        for (uint32_t c = 0; c < 0x110000; c++) {
            unsigned char bytes[4];
            if (c >= 0xd800 && c <= 0xdfff)
                continue;
            size_t known = matched(code, data, bytes, utf8_put(c, bytes));
            if (known)
                assert_int_equal(unicode_class(c), class);
            else
                more += unicode_class(c) == (enum unicode_class)class;
        }
        assert_true(more < 15000);
        if (class == UNICODE_SPACE)
            assert_int_equal(more, 0);
        pcre2_code_free(code);
    }
    pcre2_match_data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_cuts_as_its_expression),
        cmocka_unit_test(smollm_cuts_digits_first),
        cmocka_unit_test(llama_bpe_cuts_as_its_expression),
        cmocka_unit_test(qwen2_cuts_as_its_expression),
        cmocka_unit_test(classes_hold_what_the_library_knows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

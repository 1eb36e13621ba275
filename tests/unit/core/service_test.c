/* SPDX-License-Identifier: MIT */
/* Calling services: on a real tokenizer, and on tokenizers that answer what no sound one does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service.h"

static void text_goes_to_tokens_and_back(void **state)
{
    struct registry *registry;
    struct instance *tokenizer;
    struct lathe_tokenizer_info info;
    struct lathe_error err;
    int32_t *tokens;
    char *text;
    size_t count, bytes, large = 300000;
    char *much = malloc(large);
    (void)state;
    for (size_t i = 0; i < large; i++)
        much[i] = (char)('a' + i % 26);
    assert_int_equal(registry_open(NULL, &registry, &err), LATHE_OK);
    assert_int_equal(instance_create(registry, LATHE_KIND_TOKENIZER, "byte", NULL, 0, &tokenizer, &err), LATHE_OK);
    assert_int_equal(tokenizer_describe(tokenizer, &info, &err), LATHE_OK);
    assert_true(info.vocab_tokens >= 256);
    /* A token a byte: more than was guessed for a text of this length, so the call is repeated. */
    assert_int_equal(tokenizer_encode(tokenizer, much, large, 0, &tokens, &count, &err), LATHE_OK);
    assert_int_equal(count, large);
    assert_int_equal(tokenizer_decode(tokenizer, tokens, count, LATHE_DECODE_FLUSH, &text, &bytes, &err), LATHE_OK);
    assert_int_equal(bytes, large);
    assert_memory_equal(text, much, large);
    assert_int_equal(text[bytes], '\0');
    free(tokens);
    free(text);
    assert_int_equal(tokenizer_encode(tokenizer, "", 0, 0, &tokens, &count, &err), LATHE_OK);
    assert_int_equal(count, 0);
    assert_int_equal(tokenizer_decode(tokenizer, tokens, 0, 0, &text, &bytes, &err), LATHE_OK);
    assert_string_equal(text, "");
    free(tokens);
    free(text);
    int32_t outside = (int32_t)info.vocab_tokens;
    assert_int_equal(tokenizer_decode(tokenizer, &outside, 1, 0, &text, &bytes, &err), LATHE_ERANGE);
    instance_destroy(tokenizer);
    registry_close(registry);
    free(much);
}

/* --- tokenizers with a fault -------------------------------------------------------------- */

static int points_outside(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in, (void)err;
    reply->tokens = (struct lathe_span){ reply->head.capacity - 4, 1000 };
    reply->head.bytes = reply->head.capacity;
    return LATHE_OK;
}

static int claims_more_than_there_is(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in, (void)err;
    reply->tokens = (struct lathe_span){ 64, UINT64_MAX / 2 };
    reply->head.bytes = UINT64_MAX;
    return LATHE_OK;
}

static int never_has_enough(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in;
    reply->needed = reply->head.capacity; /* always a little more */
    return lathe_fail(err, LATHE_EFULL, "more room, please");
}

static int wants_everything(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in;
    reply->needed = UINT64_MAX / 2;
    return lathe_fail(err, LATHE_EFULL, "all the room there is, please");
}

static int returns_a_count(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out, (void)err;
    return 5;
}

static void faulty_replies_are_errors_not_wild_reads(void **state)
{
    static const struct {
        lathe_method *encode;
        int code;
    } cases[] = {
        { points_outside, LATHE_EINTERNAL },   { claims_more_than_there_is, LATHE_EINTERNAL },
        { never_has_enough, LATHE_EINTERNAL }, { wants_everything, LATHE_ENOMEM },
        { returns_a_count, LATHE_EINTERNAL },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lathe_tokenizer_api api = { .size = sizeof api, .encode = cases[i].encode };
        struct instance tokenizer = { .api = &api };
        struct lathe_error err = { 0 };
        int32_t *tokens = NULL;
        size_t count = 0;
        int rc = tokenizer_encode(&tokenizer, "text", 4, 0, &tokens, &count, &err);
        if (rc != cases[i].code)
            fail_msg("case %zu: status %d: %s", i, rc, err.message);
        assert_null(tokens);
        assert_true(err.message[0] != '\0');
    }
}

static void a_tokenizer_without_templates_says_so(void **state)
{
    struct lathe_tokenizer_api api = { .size = sizeof api };
    struct instance tokenizer = { .api = &api };
    struct lathe_error err;
    char *text;
    size_t bytes;
    (void)state;
    assert_int_equal(tokenizer_template(&tokenizer, "[]", 1, NULL, &text, &bytes, &err), LATHE_EUNSUPPORTED);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_goes_to_tokens_and_back),
        cmocka_unit_test(faulty_replies_are_errors_not_wild_reads),
        cmocka_unit_test(a_tokenizer_without_templates_says_so),
    };
    return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}

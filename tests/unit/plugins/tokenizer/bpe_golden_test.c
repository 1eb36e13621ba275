/* SPDX-License-Identifier: MIT */
/* tokenizer/bpe against Hugging Face's tokenizers: every id of every golden string, text back
 * again, and streams cut at every token. See tests/data/README.md for the files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <unistd.h>

#include "support/tokenizer_plugin.h"

static struct counting_host counting;
static struct lathe_error err;

static size_t from_base64(const char *text, unsigned char *out)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    size_t n = 0;
    int have = 0;
    for (; *text && *text != '='; text++) {
        bits = bits << 6 | (uint32_t)(strchr(alphabet, *text) - alphabet);
        if ((have += 6) >= 8)
            out[n++] = (unsigned char)(bits >> (have -= 8));
    }
    return n;
}

static int same_ids(const struct lathe_encode_out *got, json_t *wanted)
{
    const int32_t *ids = LATHE_SPAN(const int32_t, got, got->tokens);
    if (got->tokens.count != json_array_size(wanted))
        return 0;
    for (size_t i = 0; i < got->tokens.count; i++)
        if (ids[i] != json_integer_value(json_array_get(wanted, i)))
            return 0;
    return 1;
}

static void print_ids(const char *what, const struct lathe_encode_out *got)
{
    print_message("%s:", what);
    for (size_t i = 0; i < got->tokens.count && i < 40; i++)
        print_message(" %d", LATHE_SPAN(const int32_t, got, got->tokens)[i]);
    print_message("\n");
}

/* Whole and token by token give the same text; each part is whole characters. */
static void check_decoding(const struct tokenizer *t, const struct lathe_encode_out *ids, const unsigned char *text,
                           size_t bytes, int round_trip)
{
    const int32_t *tokens = LATHE_SPAN(const int32_t, ids, ids->tokens);
    size_t room = 4096 + 64 * ids->tokens.count, joined_bytes = 0;
    struct lathe_decode_state state = {0};
    struct lathe_decode_out *whole = tokenizer_text(t, tokens, ids->tokens.count, LATHE_DECODE_SPECIAL | LATHE_DECODE_FLUSH,
                                                    &state, room, &err);
    assert_non_null(whole);
    const unsigned char *decoded = LATHE_SPAN(const unsigned char, whole, whole->text);
    if (round_trip) {
        assert_int_equal(whole->text.count, bytes);
        assert_memory_equal(decoded, text, bytes);
    }
    unsigned char *joined = malloc(room);
    memset(&state, 0, sizeof state);
    for (size_t i = 0; i < ids->tokens.count; i++) {
        int last = i + 1 == ids->tokens.count;
        struct lathe_decode_out *part = tokenizer_text(
            t, tokens + i, 1, LATHE_DECODE_SPECIAL | (last ? LATHE_DECODE_FLUSH : 0), &state, 4096, &err);
        assert_non_null(part);
        const unsigned char *p = LATHE_SPAN(const unsigned char, part, part->text);
        if (part->text.count) /* neither begins nor ends within a character */
            assert_true((p[0] & 0xc0) != 0x80 && (p[part->text.count - 1] < 0x80 || (p[part->text.count - 1] & 0xc0) == 0x80));
        memcpy(joined + joined_bytes, p, part->text.count);
        joined_bytes += part->text.count;
        free(part);
    }
    assert_int_equal(joined_bytes, whole->text.count);
    assert_memory_equal(joined, decoded, joined_bytes);
    free(joined);
    free(whole);
}

static void compare(const char *model, const char *golden, size_t least)
{
    struct tokenizer t;
    char path[4096], *line = NULL;
    size_t room = 0, cases = 0, different = 0;
    int rc = tokenizer_open(&t, counting_host_init(&counting), "bpe", model, &err);
    if (rc)
        print_message("%s\n", err.message);
    assert_int_equal(rc, 0);
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, golden);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&line, &room, file) > 0) {
        json_t *o = json_loads(line, 0, NULL);
        assert_non_null(o);
        const char *b64 = json_string_value(json_object_get(o, "b"));
        unsigned char *text = malloc(strlen(b64) + 1);
        size_t bytes = from_base64(b64, text);
        struct lathe_encode_out *got = tokenizer_ids(
            &t, text, bytes, json_is_true(json_object_get(o, "special")) ? LATHE_ENCODE_SPECIAL : 0, &err);
        assert_non_null(got);
        if (!same_ids(got, json_object_get(o, "ids"))) {
            if (different++ < 5) {
                print_message("%s line %zu (%s)\n", golden, cases + 1, json_string_value(json_object_get(o, "c")));
                print_ids("got", got);
                char *wanted = json_dumps(json_object_get(o, "ids"), JSON_COMPACT);
                print_message("wanted: %.300s\n", wanted);
                free(wanted);
            }
        } else {
            check_decoding(&t, got, text, bytes, json_is_true(json_object_get(o, "rt")));
        }
        free(got);
        free(text);
        json_decref(o);
        cases++;
    }
    free(line);
    fclose(file);
    tokenizer_close(&t);
    assert_int_equal(counting.live_blocks, 0);
    assert_int_equal(different, 0);
    assert_true(cases >= least);
}

static void compare_small(const char *name, size_t least)
{
    char model[4096], golden[128];
    snprintf(model, sizeof model, "%s/vocab_%s.gguf", TEST_DATA, name);
    snprintf(golden, sizeof golden, "golden_tokenizer_%s.jsonl", name);
    compare(model, golden, least);
}

static void gives_gpt2s_ids(void **state)
{
    (void)state;
    compare_small("gpt-2", 700);
}

static void gives_llama_bpes_ids(void **state)
{
    (void)state;
    compare_small("llama-bpe", 800);
}

static void gives_qwen2s_ids(void **state)
{
    (void)state;
    compare_small("qwen2", 800);
}

/* The real vocabulary; its strings are the many. */
static void gives_smollms_ids(void **state)
{
    (void)state;
    char model[4096];
    const char *models = getenv("LATHE_MODELS");
    snprintf(model, sizeof model, "%s/smollm2-135m.gguf", models ? models : TEST_SOURCE "/models");
    if (access(model, R_OK) != 0) {
        print_message("smollm2-135m.gguf isn't in models/: run scripts/quickstart.sh to fetch it\n");
        skip();
    }
    compare(model, "golden_tokenizer_smollm.jsonl", 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_gpt2s_ids),
        cmocka_unit_test(gives_llama_bpes_ids),
        cmocka_unit_test(gives_qwen2s_ids),
        cmocka_unit_test(gives_smollms_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

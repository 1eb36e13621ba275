/* SPDX-License-Identifier: MIT */
/* What every tokenizer must keep: text comes back as it was, a stream says the same wherever
 * it is cut, too small a reply says how much is needed, and nothing outside is believed. */
#include <lathe/tokenizer.h>

#include "harness.h"

enum { ROOM = 1 << 18 };

static const struct lathe_tokenizer_api *api;
static void *tokenizer;
static struct lathe_tokenizer_info info;
static _Alignas(64) unsigned char question[ROOM], answer[ROOM];

static const char *const texts[] = {
    "", " ", "a", "Hello, world!", "  two  spaces\n\n\n\ttabs ", "the cat and the dog is in of to a the",
    "It's we'll they'd I'm 1234567890 3.14159", "ÄÖÜ ß é è ñ ç", "日本語のテキスト。中文 한국어", "مرحبا שלום नमस्ते",
    "🙂👩‍👩‍👧‍👦🇩🇪", "\x01\x02\x7f", "x\r\ny\u00a0z\u200b", "<|not_special|> <| |>", "def f(x):\n    return x**2 # ok\n",
};
enum { TEXTS = sizeof texts / sizeof *texts };

static int encode(const void *text, size_t bytes, uint32_t flags, size_t room, struct lathe_error *err)
{
    struct lathe_encode_in *in = (void *)question;
    struct lathe_encode_out *out = (void *)answer;
    *in = (struct lathe_encode_in){ .head = { .capacity = ROOM, .bytes = sizeof *in }, .flags = flags };
    memcpy(lathe_message_add(&in->head, &in->text, bytes, 1), text, bytes);
    out->head = (struct lathe_message){ .capacity = room };
    return api->encode(tokenizer, in, out, err);
}

static int decode(const int32_t *tokens, size_t count, uint32_t flags, const struct lathe_decode_state *state, size_t room,
                  struct lathe_error *err)
{
    struct lathe_decode_in *in = (void *)question;
    struct lathe_decode_out *out = (void *)answer;
    *in = (struct lathe_decode_in){ .head = { .capacity = ROOM, .bytes = sizeof *in }, .flags = flags, .state = *state };
    memcpy(lathe_message_add(&in->head, &in->tokens, count, sizeof *tokens), tokens, count * sizeof *tokens);
    out->head = (struct lathe_message){ .capacity = room };
    return api->decode(tokenizer, in, out, err);
}

/* The tokens of a text; the caller frees them. */
static int32_t *tokens_of(const void *text, size_t bytes, size_t *count)
{
    const struct lathe_encode_out *out = (void *)answer;
    struct lathe_error err = { 0 };
    int32_t *tokens;
    CHECK_OK(encode(text, bytes, 0, ROOM, &err), &err);
    CHECK(lathe_span_check(&out->head, out->tokens, sizeof *tokens, sizeof *tokens), "the reply's span");
    *count = out->tokens.count;
    CHECK(out->needed == *count && *count <= bytes + 1, "%zu tokens for %zu bytes", *count, bytes);
    tokens = malloc(*count * sizeof *tokens + 1);
    if (*count)
        memcpy(tokens, LATHE_SPAN(int32_t, out, out->tokens), *count * sizeof *tokens);
    for (size_t i = 0; i < *count; i++)
        CHECK(tokens[i] >= 0 && (uint32_t)tokens[i] < info.vocab_tokens, "token %d of %u", tokens[i], info.vocab_tokens);
    return tokens;
}

static void open_tokenizer(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_empty empty = { .head = { sizeof empty, sizeof empty, 0, 0 } };
    api = (const void *)s->head;
    tokenizer = subject_create(s);
    info.head = (struct lathe_message){ .capacity = sizeof info };
    CHECK_OK(api->describe(tokenizer, &empty, &info, &err), &err);
}

static const struct lathe_decode_state fresh;

static void describes_its_vocabulary(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_empty empty = { .head = { sizeof empty, sizeof empty, 0, 0 } };
    open_tokenizer(s);
    CHECK(info.vocab_tokens > 0 && info.name[0] && memchr(info.name, 0, sizeof info.name), "a vocabulary of %u",
          info.vocab_tokens);
    CHECK(info.stop_count <= LATHE_TOKENIZER_MAX_STOPS && info.max_token_bytes > 0, "%u stops", info.stop_count);
    for (uint32_t i = 0; i < info.stop_count; i++)
        CHECK(info.stops[i] >= 0 && (uint32_t)info.stops[i] < info.vocab_tokens, "stop %d", info.stops[i]);
    CHECK(info.eos < (int32_t)info.vocab_tokens && info.bos < (int32_t)info.vocab_tokens, "bos or eos");
    CHECK(!info.has_template || api->apply_template, "a template without a method");
    info.head.capacity = 40;
    CHECK_FAILS(api->describe(tokenizer, &empty, &info, &err), LATHE_EFULL, &err);
    api->destroy(tokenizer);
}

static void check_round_trip(const char *text, size_t bytes)
{
    const struct lathe_decode_out *out = (void *)answer;
    struct lathe_error err = { 0 };
    size_t count;
    int32_t *tokens = tokens_of(text, bytes, &count);
    CHECK_OK(decode(tokens, count, LATHE_DECODE_FLUSH, &fresh, ROOM, &err), &err);
    CHECK(out->text.count == bytes && !memcmp(LATHE_SPAN(char, out, out->text), text, bytes),
          "'%.*s' came back as '%.*s'", (int)bytes, text, (int)out->text.count, LATHE_SPAN(char, out, out->text));
    free(tokens);
}

static size_t random_text(struct dice *d, char *text, size_t room)
{
    size_t n = 0, want = roll(d, (uint32_t)room - 4);
    while (n < want) {
        uint32_t kind = roll(d, 8), code = kind < 5 ? 32 + roll(d, 95) : kind < 6 ? 0xa0 + roll(d, 0x700)
                        : kind < 7 ? 0x4e00 + roll(d, 0x5000) : 0x1f300 + roll(d, 0x300);
        if (code < 0x80) {
            text[n++] = (char)code;
        } else if (code < 0x800) {
            text[n++] = (char)(0xc0 | code >> 6);
            text[n++] = (char)(0x80 | (code & 0x3f));
        } else {
            if (code >= 0x10000) {
                text[n++] = (char)(0xf0 | code >> 18);
                text[n++] = (char)(0x80 | (code >> 12 & 0x3f));
            } else {
                text[n++] = (char)(0xe0 | code >> 12);
            }
            text[n++] = (char)(0x80 | (code >> 6 & 0x3f));
            text[n++] = (char)(0x80 | (code & 0x3f));
        }
    }
    return n;
}

static void gives_back_the_text_that_it_got(struct subject *s)
{
    struct dice d = { .seed = 1 };
    char text[400];
    open_tokenizer(s);
    for (int i = 0; i < TEXTS; i++)
        check_round_trip(texts[i], strlen(texts[i]));
    for (int i = 0; i < 300; i++)
        check_round_trip(text, random_text(&d, text, sizeof text));
    api->destroy(tokenizer);
}

static void repairs_ill_formed_text(struct subject *s)
{
    static const struct { const char *in, *out; } cases[] = {
        { "a\xff""b", "a\xef\xbf\xbd""b" },
        { "\xe2\x82", "\xef\xbf\xbd" },                                   /* cut short: one U+FFFD */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },       /* a surrogate */
        { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },                       /* overlong */
        { "\xf0\x9f\x99 x", "\xef\xbf\xbd x" },
    };
    const struct lathe_decode_out *out = (void *)answer;
    struct lathe_error err = { 0 };
    open_tokenizer(s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lathe_encode_out *encoded = (void *)answer;
        size_t count;
        int32_t *tokens;
        CHECK_OK(encode(cases[i].in, strlen(cases[i].in), 0, ROOM, &err), &err);
        count = encoded->tokens.count;
        tokens = malloc(count * sizeof *tokens + 1);
        memcpy(tokens, LATHE_SPAN(int32_t, encoded, encoded->tokens), count * sizeof *tokens);
        CHECK_OK(decode(tokens, count, LATHE_DECODE_FLUSH, &fresh, ROOM, &err), &err);
        CHECK(out->text.count == strlen(cases[i].out) &&
                  !memcmp(LATHE_SPAN(char, out, out->text), cases[i].out, out->text.count), "case %zu", i);
        free(tokens);
    }
    api->destroy(tokenizer);
}

static void decodes_a_stream_the_same_wherever_it_is_cut(struct subject *s)
{
    const struct lathe_decode_out *out = (void *)answer;
    struct lathe_error err = { 0 };
    open_tokenizer(s);
    for (int t = 0; t < TEXTS; t++) {
        size_t count, bytes = strlen(texts[t]);
        int32_t *tokens = tokens_of(texts[t], bytes, &count);
        for (size_t cut = 0; cut <= count; cut++) {
            char text[400];
            size_t n;
            struct lathe_decode_state state = fresh;
            CHECK_OK(decode(tokens, cut, 0, &state, ROOM, &err), &err);
            n = out->text.count;
            memcpy(text, LATHE_SPAN(char, out, out->text), n);
            state = out->state;
            CHECK(state.count <= 3, "%u bytes are pending", state.count);
            CHECK_OK(decode(tokens + cut, count - cut, LATHE_DECODE_FLUSH, &state, ROOM, &err), &err);
            CHECK(n + out->text.count == bytes, "cut at %zu: %zu bytes of %zu", cut, n + (size_t)out->text.count, bytes);
            memcpy(text + n, LATHE_SPAN(char, out, out->text), out->text.count);
            CHECK(!memcmp(text, texts[t], bytes), "'%s' cut at %zu", texts[t], cut);
        }
        free(tokens);
    }
    api->destroy(tokenizer);
}

static void says_how_much_room_is_needed(struct subject *s)
{
    const struct lathe_encode_out *encoded = (void *)answer;
    const struct lathe_decode_out *decoded = (void *)answer;
    struct lathe_error err = { 0 };
    const char *text = texts[8];
    size_t count;
    int32_t *tokens;
    open_tokenizer(s);
    tokens = tokens_of(text, strlen(text), &count);
    for (size_t room = sizeof *encoded; room < 64 + 64 + count * sizeof *tokens; room += 4) {
        int status;
        memset(answer + room, 0x5a, 64); /* a fence */
        status = encode(text, strlen(text), 0, room, &err);
        CHECK(status == LATHE_OK || status == LATHE_EFULL, "room for %zu bytes: %d", room, status);
        CHECK(encoded->needed == count, "room for %zu bytes: needed %llu, not %zu", room,
              (unsigned long long)encoded->needed, count);
        for (int i = 0; i < 64; i++)
            CHECK(answer[room + (size_t)i] == 0x5a, "wrote %d bytes beyond the room", i + 1);
    }
    for (size_t room = sizeof *decoded; room < sizeof *decoded + strlen(text) + 8; room++) {
        int status;
        memset(answer + room, 0x5a, 64);
        status = decode(tokens, count, LATHE_DECODE_FLUSH, &fresh, room, &err);
        CHECK(status == (room < sizeof *decoded + strlen(text) ? LATHE_EFULL : LATHE_OK), "room for %zu: %d", room, status);
        CHECK(decoded->needed == strlen(text), "needed %llu", (unsigned long long)decoded->needed);
        for (int i = 0; i < 64; i++)
            CHECK(answer[room + (size_t)i] == 0x5a, "wrote %d bytes beyond the room", i + 1);
    }
    free(tokens);
    api->destroy(tokenizer);
}

static void refuses_ids_and_spans_from_outside(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_decode_in *in = (void *)question;
    struct lathe_encode_in *text = (void *)question;
    int32_t bad[] = { -1, (int32_t)info.vocab_tokens, INT32_MAX, INT32_MIN };
    open_tokenizer(s);
    bad[1] = (int32_t)info.vocab_tokens;
    for (int i = 0; i < 4; i++)
        CHECK_FAILS(decode(&bad[i], 1, 0, &fresh, ROOM, &err), LATHE_ERANGE, &err);
    *in = (struct lathe_decode_in){ .head = { ROOM, sizeof *in, 0, 0 }, .tokens = { ROOM - 4, 1000 } };
    CHECK_FAILS(api->decode(tokenizer, in, answer, &err), LATHE_EINVAL, &err);
    *in = (struct lathe_decode_in){ .head = { ROOM, sizeof *in, 0, 0 }, .state = { .count = 200 } };
    CHECK_FAILS(api->decode(tokenizer, in, answer, &err), LATHE_EINVAL, &err);
    *text = (struct lathe_encode_in){ .head = { ROOM, sizeof *text, 0, 0 }, .text = { UINT64_MAX - 3, 8 } };
    CHECK_FAILS(api->encode(tokenizer, text, answer, &err), LATHE_EINVAL, &err);
    api->destroy(tokenizer);
}

static int life(struct subject *s, struct lathe_error *err)
{
    int status = subject_try_create(s, &tokenizer, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    status = encode("The cat sat.", 12, 0, ROOM, err);
    api->destroy(tokenizer);
    return status;
}

int main(int argc, char **argv)
{
#define BEHAVIOUR(name) { #name, name }
    static const struct behaviour behaviours[] = {
        BEHAVIOUR(describes_its_vocabulary),
        BEHAVIOUR(gives_back_the_text_that_it_got),
        BEHAVIOUR(repairs_ill_formed_text),
        BEHAVIOUR(decodes_a_stream_the_same_wherever_it_is_cut),
        BEHAVIOUR(says_how_much_room_is_needed),
        BEHAVIOUR(refuses_ids_and_spans_from_outside),
    };
    return conformance(argc, argv, LATHE_KIND_TOKENIZER, LATHE_TOKENIZER_ABI,
                       offsetof(struct lathe_tokenizer_api, decode) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

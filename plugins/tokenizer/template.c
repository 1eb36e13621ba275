/* SPDX-License-Identifier: MIT */
/* A tokenizer to copy. It works: a token for each byte, and some for frequent words, the
 * longest that matches being taken.
 *
 *     0…255 the byte    256… words[]    then <|end|>
 *
 *   1. Say in this comment what the tokens are, and cite the paper below.
 *   2. Declare options, such as the path of a file, as plugins/scheduler/template.c does.
 *   3. describe: the vocabulary's size and its special tokens.
 *   4. encode: text to ids. Ill-formed UTF-8 is repaired first.
 *   5. decode: ids to whole characters; what a stream holds back travels in the state, so
 *      that any cut of it gives the same text. decode(encode(x)) must be x.
 *   6. Name it in lathe_plugin, at the end, as the file is named; mine.cmake links the
 *      UTF-8 library as template.cmake does.
 *
 * All methods are [worker]: keep nothing between calls. Build, and the conformance tests run
 * on it by themselves; then swap it in:
 *     lathe.run { tokenizer = "mine", … } */
#include <string.h>

#include <lathe/host.h>
#include <lathe/tokenizer.h>
#include <utf8/utf8.h>

static const char *const words[] = { " the", " of", " and", " to", " in", " is", " a", "\n\n" };
enum { WORDS = sizeof words / sizeof *words, END = 256 + WORDS, VOCAB_TOKENS };

static const char end_text[] = "<|end|>";

struct mine {
    const struct lathe_host *host;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    (void)config;
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "tokenizer template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (m)
        lathe_free(m->host, m);
}

/* Step 3. */
static int describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_tokenizer_info *info = out;
    struct lathe_message head = info->head;
    (void)self, (void)in;
    if (head.capacity < sizeof *info)
        return lathe_fail(err, LATHE_EFULL, "tokenizer template: a description takes %zu bytes", sizeof *info);
    *info = (struct lathe_tokenizer_info){ .head = head, .name = "template", .vocab_tokens = VOCAB_TOKENS, .bos = -1,
                                           .eos = END, .unknown = -1, .padding = -1, .stop_count = 1,
                                           .stops = { END }, .max_token_bytes = sizeof end_text - 1 };
    info->head.bytes = sizeof *info;
    return LATHE_OK;
}

/* The token that `text` begins with, and its bytes; ill-formed bytes are none of them. */
static int32_t longest(const unsigned char *text, uint64_t count, int special, size_t *bytes)
{
    int32_t id = text[0];
    *bytes = 1;
    if (special && count >= sizeof end_text - 1 && !memcmp(text, end_text, sizeof end_text - 1)) {
        *bytes = sizeof end_text - 1;
        return END;
    }
    for (int i = 0; i < WORDS; i++) {
        size_t n = strlen(words[i]);
        if (n > *bytes && n <= count && !memcmp(text, words[i], n)) {
            *bytes = n;
            id = 256 + i;
        }
    }
    return id;
}

/* Step 4. Tokens beyond the room are counted, so that `needed` is right. */
static int encode(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_encode_in *in = in_;
    struct lathe_encode_out *out = out_;
    const unsigned char *text;
    uint64_t first = (sizeof *out + 63) & ~(uint64_t)63, room, n = 0; /* where lathe_message_add puts them */
    int32_t *tokens = (int32_t *)(void *)((unsigned char *)out_ + first);

    (void)self;
    if (out->head.capacity < sizeof *out || !lathe_span_check(&in->head, in->text, 1, 1))
        return lathe_fail(err, LATHE_EINVAL, "tokenizer template: the text lies outside of its message, or the reply "
                          "has no room for %zu bytes", sizeof *out);
    text = LATHE_SPAN(const unsigned char, in, in->text);
    room = out->head.capacity > first ? (out->head.capacity - first) / sizeof *tokens : 0;
    for (uint64_t i = 0; i < in->text.count;) {
        unsigned char repaired[4];
        size_t bad, bytes, count;
        int open;
        if (utf8_sequence(text + i, in->text.count - i, &bad, &open)) {
            int32_t id = longest(text + i, in->text.count - i, in->flags & LATHE_ENCODE_SPECIAL, &bytes);
            if (n++ < room)
                tokens[n - 1] = id;
            i += bytes;
            while (id < 256 && i < in->text.count && (text[i] & 0xc0) == 0x80) { /* the rest of its character */
                if (n++ < room)
                    tokens[n - 1] = text[i];
                i++;
            }
            continue;
        }
        count = utf8_put(0xfffd, repaired);
        for (size_t k = 0; k < count; k++)
            if (n++ < room)
                tokens[n - 1] = repaired[k];
        i += bad;
    }
    out->needed = n;
    out->head.bytes = sizeof *out;
    if (n > room)
        return lathe_fail(err, LATHE_EFULL, "tokenizer template: the text is %llu tokens, there is room for %llu",
                          (unsigned long long)n, (unsigned long long)room);
    lathe_message_add(&out->head, &out->tokens, n, sizeof *tokens);
    return LATHE_OK;
}

/* Step 5. */
static int decode(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_decode_in *in = in_;
    struct lathe_decode_out *out = out_;
    struct lathe_decode_state state = in->state;
    struct utf8_output o;
    const int32_t *tokens;

    (void)self;
    if (out->head.capacity < sizeof *out || state.count > 3 ||
        !lathe_span_check(&in->head, in->tokens, sizeof *tokens, _Alignof(int32_t)))
        return lathe_fail(err, LATHE_EINVAL, "tokenizer template: the tokens lie outside of their message, more than 3 "
                          "bytes are pending, or the reply has no room for %zu bytes", sizeof *out);
    tokens = LATHE_SPAN(const int32_t, in, in->tokens);
    o = (struct utf8_output){ (unsigned char *)(out + 1), out->head.capacity - sizeof *out, 0 };
    for (uint64_t i = 0; i < in->tokens.count; i++) {
        unsigned char byte = (unsigned char)tokens[i];
        const unsigned char *bytes = &byte;
        size_t count = 1;
        if (tokens[i] < 0 || tokens[i] >= VOCAB_TOKENS)
            return lathe_fail(err, LATHE_ERANGE, "tokenizer template: token %d is outside the vocabulary of %d",
                              tokens[i], VOCAB_TOKENS);
        if (tokens[i] == END) {
            bytes = (const unsigned char *)end_text;
            count = in->flags & LATHE_DECODE_SPECIAL ? sizeof end_text - 1 : 0;
        } else if (tokens[i] >= 256) {
            bytes = (const unsigned char *)words[tokens[i] - 256];
            count = strlen(words[tokens[i] - 256]);
        }
        if (in->flags & LATHE_DECODE_RAW)
            utf8_output_put(&o, bytes, count);
        else
            utf8_feed(&state, bytes, count, &o);
        state.started = 1;
    }
    if (in->flags & LATHE_DECODE_FLUSH)
        utf8_flush(&state, &o);
    out->needed = o.count;
    out->head.bytes = sizeof *out;
    if (o.count > o.room)
        return lathe_fail(err, LATHE_EFULL, "tokenizer template: the text is %llu bytes, there is room for %llu",
                          (unsigned long long)o.count, (unsigned long long)o.room);
    out->text = (struct lathe_span){ sizeof *out, o.count };
    out->head.bytes += o.count;
    out->state = state;
    return LATHE_OK;
}

static const struct lathe_tokenizer_api api = {
    .size = sizeof api,
    .abi = LATHE_TOKENIZER_ABI,
    .create = create,
    .destroy = destroy,
    .describe = describe,
    .encode = encode,
    .decode = decode,
};

/* Step 6. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_TOKENIZER,
    .concurrency = LATHE_PARALLEL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a tokenizer to copy: bytes and some words",
    .api = &api,
};

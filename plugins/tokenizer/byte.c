/* SPDX-License-Identifier: MIT */
/* tokenizer/byte: a token for each byte, and four that aren't text. Needs no file: for tests,
 * and for model/tiny, whose vocabulary is the same 260.
 *
 *     0…255 the byte   256 <|bos|>   257 <|eos|>   258 <|im_start|>   259 <|im_end|> */
#include <string.h>

#include <lathe/host.h>
#include <lathe/tokenizer.h>
#include <utf8/utf8.h>

enum { BOS = 256, EOS, IM_START, IM_END, VOCAB_TOKENS };

static const char *const names[] = {"<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"};
enum { NAMES = sizeof names / sizeof *names, LONGEST_NAME = 12 };

struct byte_tokenizer {
    const struct lathe_host *host;
};

static int byte_create(const struct lathe_host *host, const struct lathe_config *config, void **self, struct lathe_error *err)
{
    (void)config;
    struct byte_tokenizer *t = lathe_alloc(host, sizeof *t);
    if (!t)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a tokenizer");
    t->host = host;
    *self = t;
    return 0;
}

static void byte_destroy(void *self)
{
    struct byte_tokenizer *t = self;
    if (t)
        lathe_free(t->host, t);
}

static int byte_describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_tokenizer_info *info = out;
    struct lathe_message head = info->head;
    (void)self, (void)in;
    if (head.capacity < sizeof *info)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of a description, expected %zu",
                          (unsigned long long)head.capacity, sizeof *info);
    memset(info, 0, sizeof *info);
    info->head = head;
    info->head.bytes = sizeof *info;
    strcpy(info->name, "byte");
    info->vocab_tokens = VOCAB_TOKENS;
    info->bos = BOS;
    info->eos = EOS;
    info->unknown = info->padding = -1;
    info->stop_count = 2;
    info->stops[0] = EOS;
    info->stops[1] = IM_END;
    info->max_token_bytes = LONGEST_NAME;
    return 0;
}

/* The special token that `text` begins with, or −1. */
static int32_t special_at(const unsigned char *text, uint64_t count)
{
    for (int i = 0; i < NAMES; i++)
        if (count >= strlen(names[i]) && memcmp(text, names[i], strlen(names[i])) == 0)
            return BOS + i;
    return -1;
}

static int byte_encode(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_encode_in *in = in_;
    struct lathe_encode_out *out = out_;
    (void)self;
    if (out->head.capacity < sizeof *out)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of an encode reply, expected at least %zu",
                          (unsigned long long)out->head.capacity, sizeof *out);
    if (!lathe_span_check(&in->head, in->text, 1, 1))
        return lathe_fail(err, LATHE_EINVAL, "found text outside of the message, expected a span within it");
    const unsigned char *text = LATHE_SPAN(const unsigned char, in, in->text);
    uint64_t at = (sizeof *out + 63) & ~(uint64_t)63; /* where lathe_message_add puts it */
    int32_t *tokens = (int32_t *)(void *)((unsigned char *)out + at);
    uint64_t room = out->head.capacity > at ? (out->head.capacity - at) / sizeof *tokens : 0, n = 0;
    for (uint64_t i = 0; i < in->text.count;) {
        unsigned char code[4];
        size_t bad, length, from = i;
        int open;
        int32_t id = in->flags & LATHE_ENCODE_SPECIAL ? special_at(text + i, in->text.count - i) : -1;
        if (id >= 0) {
            if (n++ < room)
                tokens[n - 1] = id;
            i += strlen(names[id - BOS]);
            continue;
        }
        length = utf8_sequence(text + i, in->text.count - i, &bad, &open);
        i += length ? length : bad;
        if (length)
            memcpy(code, text + from, length);
        else
            length = utf8_put(0xfffd, code);
        for (size_t k = 0; k < length; k++)
            if (n++ < room)
                tokens[n - 1] = code[k];
    }
    out->needed = n;
    out->tokens = (struct lathe_span){0, 0};
    out->head.bytes = sizeof *out;
    if (n > room)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu tokens, expected %llu", (unsigned long long)room,
                          (unsigned long long)n);
    lathe_message_add(&out->head, &out->tokens, n, sizeof *tokens);
    return 0;
}

static int byte_decode(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_decode_in *in = in_;
    struct lathe_decode_out *out = out_;
    struct lathe_decode_state state = in->state;
    (void)self;
    if (out->head.capacity < sizeof *out)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of a decode reply, expected at least %zu",
                          (unsigned long long)out->head.capacity, sizeof *out);
    if (!lathe_span_check(&in->head, in->tokens, sizeof(int32_t), _Alignof(int32_t)) || state.count > 3)
        return lathe_fail(err, LATHE_EINVAL, "found tokens outside of the message or %u pending bytes, expected a span and 0 to 3",
                          state.count);
    const int32_t *tokens = LATHE_SPAN(const int32_t, in, in->tokens);
    struct utf8_output o = {(unsigned char *)(out + 1), out->head.capacity - sizeof *out, 0};
    for (uint64_t i = 0; i < in->tokens.count; i++) {
        unsigned char byte = (unsigned char)tokens[i];
        const unsigned char *bytes = &byte;
        size_t count = 1;
        if (tokens[i] < 0 || tokens[i] >= VOCAB_TOKENS)
            return lathe_fail(err, LATHE_ERANGE, "found token %d, expected 0 to %d", tokens[i], VOCAB_TOKENS - 1);
        state.started = 1;
        if (tokens[i] >= BOS) {
            bytes = (const unsigned char *)names[tokens[i] - BOS];
            count = in->flags & LATHE_DECODE_SPECIAL ? strlen(names[tokens[i] - BOS]) : 0;
        }
        if (in->flags & LATHE_DECODE_RAW)
            utf8_output_put(&o, bytes, count);
        else
            utf8_feed(&state, bytes, count, &o);
    }
    if (in->flags & LATHE_DECODE_FLUSH)
        utf8_flush(&state, &o);
    out->needed = o.count;
    out->text = (struct lathe_span){sizeof *out, 0};
    out->head.bytes = sizeof *out;
    out->state = in->state;
    if (o.count > o.room)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of text, expected %llu", (unsigned long long)o.room,
                          (unsigned long long)o.count);
    out->text.count = o.count;
    out->head.bytes = sizeof *out + o.count;
    out->state = state;
    return 0;
}

static const struct lathe_tokenizer_api api = {
    .size = sizeof api,
    .abi = LATHE_TOKENIZER_ABI,
    .create = byte_create,
    .destroy = byte_destroy,
    .describe = byte_describe,
    .encode = byte_encode,
    .decode = byte_decode,
};

LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_TOKENIZER,
    .concurrency = LATHE_PARALLEL,
    .name = "byte",
    .version = "1.0.0",
    .summary = "A token for each byte; needs no file",
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* tokenizer/bpe: what the host sees. The steps and their files stand in bpe.h. */
#include "bpe.h"

#include <string.h>

#include <jinja/jinja.h>

enum { OPT_PATH };

static const struct lathe_option options[] = {
    {.name = "path", .type = LATHE_OPTION_PATH, .help = "The GGUF model file whose vocabulary, merges and chat template to use."},
};

static int bpe_create(const struct lathe_host *host, const struct lathe_config *config, void **self, struct lathe_error *err)
{
    struct gguf *gguf = NULL;
    if (config->count <= OPT_PATH || !config->values[OPT_PATH].text)
        return lathe_fail(err, LATHE_EINVAL, "option path: found nothing, expected a GGUF model file");
    struct vocab *v = lathe_alloc(host, sizeof *v);
    if (!v)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a tokenizer");
    int rc = gguf_open(host, config->values[OPT_PATH].text, &gguf, err);
    if (!rc)
        rc = vocab_load(host, gguf, v, err);
    gguf_close(gguf);
    if (rc)
        lathe_free(host, v);
    else
        *self = v;
    return rc;
}

static void bpe_destroy(void *self)
{
    struct vocab *v = self;
    if (!v)
        return;
    const struct lathe_host *host = v->host;
    vocab_free(v);
    lathe_free(host, v);
}

static int bpe_describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    const struct vocab *v = self;
    struct lathe_tokenizer_info *info = out;
    struct lathe_message head = info->head;
    (void)in;
    if (head.capacity < sizeof *info)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of a description, expected %zu",
                          (unsigned long long)head.capacity, sizeof *info);
    memset(info, 0, sizeof *info);
    info->head = head;
    info->head.bytes = sizeof *info;
    memcpy(info->name, v->name, sizeof info->name);
    info->vocab_tokens = v->count;
    info->bos = v->bos;
    info->eos = v->eos;
    info->unknown = v->unknown;
    info->padding = v->padding;
    info->add_bos = v->add_bos;
    info->stop_count = v->stop_count;
    memcpy(info->stops, v->stops, sizeof info->stops);
    info->has_template = v->chat_template != NULL;
    info->max_token_bytes = v->max_token_bytes;
    return 0;
}

static int bpe_encode(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_encode_in *in = in_;
    struct lathe_encode_out *out = out_;
    if (out->head.capacity < sizeof *out)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of an encode reply, expected at least %zu",
                          (unsigned long long)out->head.capacity, sizeof *out);
    if (!lathe_span_check(&in->head, in->text, 1, 1))
        return lathe_fail(err, LATHE_EINVAL, "found text outside of the message, expected a span within it");
    out->head.bytes = sizeof *out;
    out->needed = 0;
    out->tokens = (struct lathe_span){0, 0};
    uint64_t at = (sizeof *out + 63) & ~(uint64_t)63; /* where lathe_message_add puts it */
    struct sink sink = {(int32_t *)(void *)((unsigned char *)out + at),
                        out->head.capacity > at ? (out->head.capacity - at) / sizeof(int32_t) : 0, 0};
    int rc = encode_text(self, in->flags, LATHE_SPAN(const unsigned char, in, in->text), in->text.count, &sink, err);
    if (rc)
        return rc;
    out->needed = sink.count;
    if (sink.count > sink.room)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu tokens, expected %llu", (unsigned long long)sink.room,
                          (unsigned long long)sink.count);
    lathe_message_add(&out->head, &out->tokens, sink.count, sizeof(int32_t));
    return 0;
}

/* The model's template, or the caller's, over the caller's messages. */
static int bpe_apply_template(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct vocab *v = self;
    const struct lathe_template_in *in = in_;
    struct lathe_template_out *out = out_;
    if (out->head.capacity < sizeof *out)
        return lathe_fail(err, LATHE_EFULL, "found room for %llu bytes of a template reply, expected at least %zu",
                          (unsigned long long)out->head.capacity, sizeof *out);
    if (!lathe_span_check(&in->head, in->messages, 1, 1) || !lathe_span_check(&in->head, in->source, 1, 1))
        return lathe_fail(err, LATHE_EINVAL, "found messages or template outside of the message, expected spans within it");
    struct jinja_job job = {
        .source = in->source.count ? LATHE_SPAN(const char, in, in->source) : v->chat_template,
        .source_bytes = in->source.count ? in->source.count : v->template_bytes,
        .messages = LATHE_SPAN(const char, in, in->messages),
        .messages_bytes = in->messages.count,
        .add_generation_prompt = in->add_generation_prompt != 0,
        .out = (char *)(out + 1),
        .room = out->head.capacity - sizeof *out,
    };
    if (!job.source)
        return lathe_fail(err, LATHE_ENOTFOUND, "this model file has no chat template: give one, or write the prompt as plain text");
    if (v->bos >= 0) {
        job.bos = (const char *)v->bytes + v->tokens[v->bos].at;
        job.bos_bytes = v->tokens[v->bos].count;
    }
    if (v->eos >= 0) {
        job.eos = (const char *)v->bytes + v->tokens[v->eos].at;
        job.eos_bytes = v->tokens[v->eos].count;
    }
    int rc = jinja_render(v->host, &job, err);
    out->needed = job.written;
    out->text = (struct lathe_span){0, 0};
    out->head.bytes = sizeof *out;
    if (rc)
        return rc;
    out->text = (struct lathe_span){sizeof *out, job.written};
    out->head.bytes = sizeof *out + job.written;
    return 0;
}

static const struct lathe_tokenizer_api api = {
    .size = sizeof api,
    .abi = LATHE_TOKENIZER_ABI,
    .create = bpe_create,
    .destroy = bpe_destroy,
    .describe = bpe_describe,
    .encode = bpe_encode,
    .decode = bpe_decode,
    .apply_template = bpe_apply_template,
};

LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_TOKENIZER,
    .concurrency = LATHE_PARALLEL,
    .name = "bpe",
    .version = "1.0.0",
    .summary = "Byte-level BPE from a GGUF: smollm, gpt-2, llama-bpe, qwen2; special tokens, chat templates",
    .citation = "@inproceedings{sennrich2016bpe, author = {Sennrich, Rico and Haddow, Barry and Birch, Alexandra}, title = "
                "{Neural Machine Translation of Rare Words with Subword Units}, booktitle = {ACL}, year = {2016}}",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .api = &api,
};

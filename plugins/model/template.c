/* SPDX-License-Identifier: MIT */
/* A model to copy. It works: a bigram model, whose logits depend on the newest token alone.
 *
 *     logits of a row = table[token]           table (VOCAB, VOCAB), drawn from a seed
 *
 *   1. Say in this comment what the model computes, and cite its paper below.
 *   2. Declare options, such as the path of its weights, as below. The host checks them.
 *   3. create: read the weights, once; they are shared by all contexts. It may take long.
 *   4. describe: shapes, so that the engine can size everything else.
 *   5. context_create: scratch for the largest step of one engine, and its KV pool. This
 *      model has none: kv_bytes_per_token is 0. plugins/model/tiny.c has one to look at.
 *   6. forward: check the message, do the KV operations, compute the rows. lathe_forward
 *      checks everything that could lead outside of memory. Allocate nothing.
 *   7. Name it in lathe_plugin, at the end, as the file is named; mine.cmake links the
 *      library as template.cmake does.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.model { "mine" } */
#include <string.h>

#include <forward/batch.h>

#include <lathe/host.h>
#include <lathe/random.h>

enum { VOCAB = 260, CONTEXT = 4096 };

/* Step 2. create finds the values in this order. */
enum { OPT_SEED, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "seed", LATHE_OPTION_INTEGER, "1", 0, 1e15, "", NULL, "Another seed is another model." },
};

struct mine {
    const struct lathe_host *host;
    float *table; /* (VOCAB, VOCAB) */
};

struct context {
    const struct mine *model;
    struct forward_limits limits;
    struct forward_batch batch;
};

static void destroy(void *self)
{
    struct mine *m = self;
    if (!m)
        return;
    lathe_free(m->host, m->table);
    lathe_free(m->host, m);
}

/* Step 3. */
static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    uint64_t seed = (uint64_t)config->values[OPT_SEED].integer;
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (m) {
        m->host = host;
        m->table = lathe_alloc_array(host, VOCAB, VOCAB * sizeof *m->table);
    }
    if (!m || !m->table) {
        destroy(m);
        return lathe_fail(err, LATHE_ENOMEM, "model template: no memory for a table of %d by %d", VOCAB, VOCAB);
    }
    for (uint32_t i = 0; i < VOCAB * VOCAB; i++)
        m->table[i] = (float)(8.0 * lathe_random_unit(seed, LATHE_RANDOM_WEIGHTS, 0, i) - 4.0);
    *self = m;
    return LATHE_OK;
}

/* Step 4. */
static int describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_model_info *info = out;
    struct lathe_message head = info->head;
    int status = forward_reply_check(&head, sizeof *info, "describe", err);
    (void)self, (void)in;
    if (status != LATHE_OK)
        return status;
    *info = (struct lathe_model_info){ .head = head, .architecture = "bigram", .name = "template",
                                       .quantization = "F32", .layers = 1, .heads = 1, .kv_heads = 1, .head_width = 1,
                                       .embedding_width = 1, .vocab_tokens = VOCAB, .context_tokens = CONTEXT,
                                       .parameters = VOCAB * VOCAB, .weight_bytes = VOCAB * VOCAB * sizeof(float) };
    info->head.bytes = sizeof *info;
    return LATHE_OK;
}

static void context_destroy(void *self)
{
    struct context *c = self;
    const struct lathe_host *host;
    if (!c)
        return;
    host = c->model->host;
    lathe_free(host, c->batch.rows);
    lathe_free(host, c->batch.slice_rows);
    lathe_free(host, c->batch.slice_kept);
    lathe_free(host, c);
}

/* Step 5. */
static int context_create(void *self, const struct lathe_context_params *params, void **context,
                          struct lathe_error *err)
{
    const struct mine *m = self;
    struct context *c;
    int status = forward_params_check(params, err);
    if (status != LATHE_OK)
        return status;
    if (params->context_tokens > CONTEXT)
        return lathe_fail(err, LATHE_ERANGE, "model template: a context of %u tokens is wanted, it has %d",
                          params->context_tokens, CONTEXT);
    c = lathe_alloc(m->host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "model template: no memory for a context");
    c->model = m;
    c->limits = (struct forward_limits){ .params = *params, .vocab_tokens = VOCAB, .embedding_width = 1, .layers = 1,
                                         .heads = 1, .kv_heads = 1, .head_width = 1 };
    c->batch.rows = lathe_alloc_array(m->host, params->batch_tokens, sizeof *c->batch.rows);
    c->batch.slice_rows = lathe_alloc_array(m->host, params->batch_slices, sizeof *c->batch.slice_rows);
    c->batch.slice_kept = lathe_alloc_array(m->host, params->batch_slices, sizeof *c->batch.slice_kept);
    if (!c->batch.rows || !c->batch.slice_rows || !c->batch.slice_kept) {
        context_destroy(c);
        return lathe_fail(err, LATHE_ENOMEM, "model template: no memory for a step of %u rows", params->batch_tokens);
    }
    *context = c;
    return LATHE_OK;
}

/* Step 6. */
static int forward(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct context *c = self;
    struct lathe_forward_out *reply = out;
    struct forward_batch *b = &c->batch;
    float *logits, *hidden;
    int status = forward_batch_check(&c->limits, in, reply, b, err);

    if (status != LATHE_OK)
        return status;
    logits = b->logits;
    hidden = b->hidden;
    for (uint32_t s = 0; s < b->slice_count; s++) {
        const struct lathe_slice *slice = &b->slices[s];
        for (uint32_t k = 0; k < slice->output_count; k++) {
            uint32_t token = b->rows[b->slice_rows[s] + b->outputs[slice->output_first + k]].token;
            if (slice->flags & LATHE_SLICE_LOGITS) {
                memcpy(logits, c->model->table + (size_t)token * VOCAB, VOCAB * sizeof *logits);
                logits += VOCAB;
            }
            if (slice->flags & LATHE_SLICE_HIDDEN)
                *hidden++ = (float)token;
        }
    }
    reply->head.bytes = sizeof *reply;
    return LATHE_OK;
}

static const struct lathe_model_api api = {
    .size = sizeof api,
    .abi = LATHE_MODEL_ABI,
    .create = create,
    .destroy = destroy,
    .describe = describe,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .forward = forward,
};

/* Step 7. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_MODEL,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a model to copy: bigrams drawn from a seed",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

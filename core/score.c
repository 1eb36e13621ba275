/* SPDX-License-Identifier: MIT */
/* Scoring sequences with a model alone: see score.h. */
#include "score.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"

enum { CHUNK_TOKENS = 512 };

struct scorer {
    const struct lathe_model_api *api;
    void *context;
    uint32_t chunk, rows, context_tokens;
    uint32_t vocab;
    struct lathe_forward_in *in;
    size_t in_bytes;
    float *logits;
    struct lathe_forward_out *out;
};

int scorer_open(const struct instance *model, uint32_t context_tokens, uint32_t rows, struct scorer **scorer,
                struct lathe_error *err)
{
    struct lathe_model_info info;
    int status = model_describe(model, &info, err);
    if (status)
        return status;
    if (context_tokens == 0 || context_tokens > info.context_tokens)
        return lathe_fail(err, LATHE_ERANGE, "a sequence of %u tokens does not fit the model's context of %u", context_tokens,
                          info.context_tokens);
    struct scorer *s = calloc(1, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a scorer");
    s->api = model->api;
    s->vocab = info.vocab_tokens;
    s->context_tokens = context_tokens;
    s->chunk = rows > CHUNK_TOKENS ? rows : CHUNK_TOKENS;
    s->chunk = s->chunk < context_tokens ? s->chunk : context_tokens;
    s->rows = rows < s->chunk ? rows : s->chunk;
    /* message: fixed fields, one slice, tokens, one block, output rows, each aligned to 64 */
    s->in_bytes = sizeof *s->in + sizeof(struct lathe_slice) + 4 * (2 * (size_t)s->chunk + 1) + 6 * 64;
    s->in = aligned_alloc(64, (s->in_bytes + 63) & ~(size_t)63);
    s->out = aligned_alloc(64, (sizeof *s->out + 63) & ~(size_t)63);
    s->logits = malloc((size_t)s->rows * s->vocab * sizeof(float));
    struct lathe_context_params params = {
        .size = sizeof params, .block_tokens = context_tokens, .blocks = 1, .batch_tokens = s->chunk, .batch_slices = 1,
        .context_tokens = context_tokens, .output_rows = s->rows, .kv_dtype = LATHE_F32,
    };
    if (!s->in || !s->out || !s->logits)
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for %u rows of %u logits", s->rows, s->vocab);
    else
        status = s->api->context_create(model->self, &params, &s->context, err);
    if (status) {
        scorer_close(s);
        return status;
    }
    *scorer = s;
    return 0;
}

void scorer_close(struct scorer *s)
{
    if (!s)
        return;
    if (s->context)
        s->api->context_destroy(s->context);
    free(s->in);
    free(s->out);
    free(s->logits);
    free(s);
}

/* One forward: at most s->chunk tokens, the last `rows` of which give logits. */
static int run_chunk(struct scorer *s, uint32_t first, const int32_t *tokens, uint32_t count, uint32_t rows,
                     struct lathe_error *err)
{
    struct lathe_forward_in *in = s->in;
    memset(in, 0, sizeof *in);
    in->head.capacity = s->in_bytes;
    in->head.bytes = sizeof *in;
    struct lathe_slice *slice = lathe_message_add(&in->head, &in->slices, 1, sizeof *slice);
    int32_t *ids = lathe_message_add(&in->head, &in->tokens, count, sizeof *ids);
    int32_t *block = lathe_message_add(&in->head, &in->blocks, 1, sizeof *block);
    uint32_t *outputs = lathe_message_add(&in->head, &in->outputs, rows, sizeof *outputs);
    if (!slice || !ids || !block || (rows && !outputs))
        return lathe_fail(err, LATHE_EINTERNAL, "the scorer's message is too small for %u tokens", count);
    *slice = (struct lathe_slice){ .request = 1, .flags = LATHE_SLICE_LOGITS, .first_position = (int32_t)first,
                                   .token_count = count, .block_count = 1, .output_count = rows,
                                   .probe = LATHE_NO_PROBE, .adapter = -1 };
    memcpy(ids, tokens, count * sizeof *ids);
    *block = 0;
    for (uint32_t i = 0; i < rows; i++)
        outputs[i] = count - rows + i;
    memset(s->out, 0, sizeof *s->out);
    s->out->head.capacity = sizeof *s->out;
    s->out->logits.offset = (int64_t)((intptr_t)s->logits - (intptr_t)s->out);
    s->out->logits.bytes = (uint64_t)s->rows * s->vocab * sizeof(float);
    return s->api->forward(s->context, in, s->out, err);
}

int scorer_run(struct scorer *s, uint32_t first, const int32_t *tokens, size_t count, const float **logits,
               struct lathe_error *err)
{
    if (count == 0 || first > s->context_tokens || count > s->context_tokens - first || (s->rows > 1 && count > s->rows))
        return lathe_fail(err, LATHE_ERANGE, "%zu tokens at position %u do not fit a scorer of %u tokens and %u rows", count,
                          first, s->context_tokens, s->rows);
    for (size_t at = 0; at < count; at += s->chunk) {
        uint32_t n = count - at < s->chunk ? (uint32_t)(count - at) : s->chunk;
        int last = at + n == count;
        int status = run_chunk(s, first + (uint32_t)at, tokens + at, n, s->rows > 1 ? n : (uint32_t)last, err);
        if (status)
            return status;
    }
    *logits = s->logits;
    return 0;
}

double log_sum_exp(const float *x, size_t count)
{
    double most = x[0], sum = 0;
    for (size_t i = 1; i < count; i++)
        most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < count; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

size_t score_top(const float *logits, size_t count, struct score_token *best, size_t top)
{
    double sum = log_sum_exp(logits, count);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        double logprob = logits[i] - sum;
        size_t at = n;
        while (at > 0 && best[at - 1].logprob < logprob)
            at--;
        if (at >= top)
            continue;
        n = n < top ? n + 1 : n;
        memmove(best + at + 1, best + at, (n - at - 1) * sizeof *best);
        best[at] = (struct score_token){ (int32_t)i, logprob };
    }
    return n;
}

int score_likelihood(struct scorer *s, const int32_t *tokens, size_t count, uint32_t context, uint32_t stride,
                     void (*progress)(size_t done, size_t count), struct score_likelihood *result,
                     struct lathe_error *err)
{
    memset(result, 0, sizeof *result);
    if (count < 2)
        return lathe_fail(err, LATHE_EINVAL, "%zu token%s can't be scored: the first is only given, so at least 2 are needed",
                          count, count == 1 ? "" : "s");
    if (context < 2 || stride == 0 || stride >= context)
        return lathe_fail(err, LATHE_EINVAL, "a context of %u tokens with a stride of %u can't be used: the context is at "
                          "least 2, the stride 1 to context − 1", context, stride);
    result->tokens = count;
    size_t scored = 1; /* tokens before this one are done; the first is only given */
    for (size_t begin = 0; scored < count; begin += stride) {
        size_t end = count - begin < context ? count : begin + context;
        /* the last token's own logits predict nothing that is scored here */
        for (size_t at = begin; at + 1 < end;) {
            int seen = at + 1 < scored; /* scored by an earlier window: context only, no logits */
            size_t most = seen ? s->chunk : s->rows, until = seen && scored < end ? scored : end;
            size_t n = until - 1 - at < most ? until - 1 - at : most;
            int status = run_chunk(s, (uint32_t)(at - begin), tokens + at, (uint32_t)n, seen ? 0 : (uint32_t)n, err);
            if (status)
                return status;
            for (size_t i = 0; i < n; i++, at++) {
                if (seen)
                    continue;
                const float *row = s->logits + i * s->vocab;
                result->nll += log_sum_exp(row, s->vocab) - row[tokens[at + 1]];
                scored++;
            }
        }
        result->windows++;
        if (progress)
            progress(scored, count);
    }
    result->scored = scored - 1;
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* A test through the model's forward alone: a context, a message, a block table for each sequence.
 *
 * Sequence i holds positions 0 … depth + prompt + generated − 1 in blocks of its own. The depth is
 * filled once: the test writes behind it only, so that each repetition finds it as it was. Prompts
 * come one sequence after the other in chunks, their last row gives logits; generation is one row
 * of each sequence a forward. Messages are built while the clock runs, as an engine would. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_TOKENS = 16 };

struct bench_forward {
    const struct lathe_model_api *api;
    void *context;
    struct bench_test test;
    uint32_t chunk, blocks_each, vocab;
    struct clock clock;
    int64_t told_ns; /* by a model that tells its time, since the test began */
    uint64_t step;
    struct lathe_forward_in *in;
    size_t in_bytes;
    struct lathe_forward_out *out;
    float *logits;
};

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static int take_memory(struct bench_forward *f, uint32_t rows, struct lathe_error *err)
{
    const struct bench_test *t = &f->test;
    size_t elements = (size_t)rows * sizeof(int32_t) + (size_t)t->sequences * f->blocks_each * sizeof(int32_t) +
                      t->sequences * (sizeof(struct lathe_slice) + sizeof(uint32_t));
    f->in_bytes = (sizeof *f->in + elements + 6 * 64 + 63) & ~(size_t)63; /* five spans, each aligned to 64 */
    f->in = aligned_alloc(64, f->in_bytes);
    f->out = aligned_alloc(64, (sizeof *f->out + 63) & ~(size_t)63);
    f->logits = calloc((size_t)t->sequences * f->vocab, sizeof(float));
    if (!f->in || !f->out || !f->logits)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the messages of %u sequences", t->sequences);
    return LATHE_OK;
}

int bench_forward_open(const struct instance *model, const struct bench_test *test, uint32_t chunk, int32_t kv_dtype,
                       struct bench_forward **forward, struct lathe_error *err)
{
    struct lathe_model_info info;
    char name[BENCH_NAME_BYTES];
    int status = model_describe(model, &info, err);
    if (status)
        return status;
    uint64_t total = (uint64_t)test->depth + test->prompt + test->generated;
    bench_test_name(test, name);
    if (total > info.context_tokens)
        return lathe_fail(err, LATHE_ERANGE, "%s needs a context of %llu tokens, the model's is %u: take a smaller depth or "
                          "fewer tokens", name, (unsigned long long)total, info.context_tokens);
    struct bench_forward *f = calloc(1, sizeof *f);
    if (!f)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a test");
    f->api = model->api;
    f->test = *test;
    f->vocab = info.vocab_tokens;
    f->blocks_each = ((uint32_t)total + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    uint32_t longest = test->prompt > test->depth ? test->prompt : test->depth;
    f->chunk = lesser(chunk, longest ? longest : 1);
    uint32_t rows = f->chunk > test->sequences ? f->chunk : test->sequences;
    struct lathe_context_params params = {
        .size = sizeof params, .block_tokens = BLOCK_TOKENS, .blocks = f->blocks_each * test->sequences, .batch_tokens = rows,
        .batch_slices = test->sequences, .context_tokens = (uint32_t)total, .output_rows = test->sequences,
        .threads = test->threads, .kv_dtype = kv_dtype,
    };
    clock_start(&f->clock, CLOCK_KIND_REAL);
    status = take_memory(f, rows, err);
    if (!status)
        status = f->api->context_create(model->self, &params, &f->context, err);
    if (status) {
        bench_forward_close(f);
        return status;
    }
    *forward = f;
    return LATHE_OK;
}

void bench_forward_close(struct bench_forward *f)
{
    if (!f)
        return;
    if (f->context)
        f->api->context_destroy(f->context);
    free(f->in);
    free(f->out);
    free(f->logits);
    free(f);
}

/* A token by where it stands, so that a repetition repeats it. */
static int32_t token_at(const struct bench_forward *f, uint32_t sequence, uint32_t position)
{
    uint32_t x = (sequence + 1) * 0x9E3779B1u ^ (position + 1) * 0x85EBCA6Bu;
    return (int32_t)((x ^ x >> 15) * 0xC2B2AE35u % f->vocab);
}

/* Rows `position` … of sequences first … first + count − 1; the last of each gives logits if `output`. */
static int step(struct bench_forward *f, uint32_t first, uint32_t count, uint32_t position, uint32_t rows, bool output,
                struct lathe_error *err)
{
    struct lathe_forward_in *in = f->in;
    memset(in, 0, sizeof *in);
    in->head.capacity = f->in_bytes;
    in->head.bytes = sizeof *in;
    in->step = ++f->step;
    struct lathe_slice *slices = lathe_message_add(&in->head, &in->slices, count, sizeof *slices);
    int32_t *ids = lathe_message_add(&in->head, &in->tokens, (uint64_t)count * rows, sizeof *ids);
    int32_t *blocks = lathe_message_add(&in->head, &in->blocks, (uint64_t)count * f->blocks_each, sizeof *blocks);
    uint32_t *outputs = lathe_message_add(&in->head, &in->outputs, output ? count : 0, sizeof *outputs);
    if (!slices || !ids || !blocks || (output && !outputs))
        return lathe_fail(err, LATHE_EINTERNAL, "the message is too small for %u slices of %u rows", count, rows);
    for (uint32_t i = 0; i < count; i++) {
        slices[i] = (struct lathe_slice){
            .request = first + i + 1, .flags = LATHE_SLICE_LOGITS, .first_position = (int32_t)position,
            .token_first = i * rows, .token_count = rows, .block_first = i * f->blocks_each, .block_count = f->blocks_each,
            .output_first = output ? i : 0, .output_count = output, .probe = LATHE_NO_PROBE, .adapter = -1,
        };
        for (uint32_t k = 0; k < rows; k++)
            ids[i * rows + k] = token_at(f, first + i, position + k);
        for (uint32_t k = 0; k < f->blocks_each; k++)
            blocks[i * f->blocks_each + k] = (int32_t)((first + i) * f->blocks_each + k);
        if (output)
            outputs[i] = rows - 1;
    }
    memset(f->out, 0, sizeof *f->out);
    f->out->head.capacity = sizeof *f->out;
    f->out->logits.offset = (int64_t)((intptr_t)f->logits - (intptr_t)f->out);
    f->out->logits.bytes = (uint64_t)f->test.sequences * f->vocab * sizeof(float);
    int status = f->api->forward(f->context, in, f->out, err);
    f->told_ns += f->out->duration_ns;
    return status;
}

/* Positions from … from + count − 1 of each sequence, in chunks. */
static int prefill(struct bench_forward *f, uint32_t from, uint32_t count, bool output, struct lathe_error *err)
{
    for (uint32_t sequence = 0; sequence < f->test.sequences; sequence++)
        for (uint32_t at = 0; at < count; at += f->chunk) {
            uint32_t rows = lesser(f->chunk, count - at);
            int status = step(f, sequence, 1, from + at, rows, output && at + rows == count, err);
            if (status)
                return status;
        }
    return LATHE_OK;
}

int bench_forward_fill(struct bench_forward *f, struct lathe_error *err)
{
    return prefill(f, 0, f->test.depth, false, err);
}

int bench_forward_run(struct bench_forward *f, uint32_t most_prompt, uint32_t most_generated, double *seconds,
                      struct lathe_error *err)
{
    uint32_t prompt = lesser(f->test.prompt, most_prompt), generated = lesser(f->test.generated, most_generated);
    f->told_ns = 0;
    int64_t start = clock_now(&f->clock);
    int status = prefill(f, f->test.depth, prompt, true, err);
    for (uint32_t i = 0; !status && i < generated; i++)
        status = step(f, 0, f->test.sequences, f->test.depth + prompt + i, 1, true, err);
    int64_t took = f->told_ns ? f->told_ns : clock_now(&f->clock) - start;
    *seconds = (double)(took > 0 ? took : 1) * 1e-9;
    return status;
}

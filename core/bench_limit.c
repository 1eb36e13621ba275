/* SPDX-License-Identifier: MIT */
/* What a test asks of a machine, and how quick that lets it be.
 *
 * A bound must hold, so everything is counted at its least:
 *
 *     bytes       each forward reads the weights once, whatever its rows, and each sequence's keys
 *                 and values up to its last row once. A forward without output rows leaves the
 *                 output matrix out. Writing, activations and cache misses are not counted.
 *     operations  a row multiplies with every weight once (2 a weight), with the output matrix only
 *                 if it is an output row; a row that sees n keys has 4 · layers · heads · head width · n
 *                 of attention. Those with weights are of the type of their products (int8 where
 *                 quantized weights stay quantized), attention is float32.
 *
 * Seconds of memory: bytes over read bandwidth. Seconds of arithmetic: the sum over types of
 * operations over that type's peak. Both can go on at the same time, so the larger bounds.
 * (The roofline of Williams, Waterman and Patterson, CACM 2009.)
 *
 * An output matrix that is the embedding too is counted once, as it is in memory; where the file has
 * both, the embedding counts as read, which it isn't: such a model's bound is too low by that
 * share of its weights. A model that fits the last cache may pass the bound of memory. */
#include "bench.h"

#include <math.h>
#include <string.h>

void bench_test_name(const struct bench_test *test, char name[BENCH_NAME_BYTES])
{
    int at = 0;
    if (test->prompt)
        at += snprintf(name + at, (size_t)(BENCH_NAME_BYTES - at), "pp%u", test->prompt);
    if (test->generated)
        at += snprintf(name + at, (size_t)(BENCH_NAME_BYTES - at), "%stg%u", test->prompt ? "+" : "", test->generated);
    if (test->sequences > 1)
        at += snprintf(name + at, (size_t)(BENCH_NAME_BYTES - at), " x%u", test->sequences);
    if (test->depth)
        snprintf(name + at, (size_t)(BENCH_NAME_BYTES - at), " @ d%u", test->depth);
}

double bench_test_tokens(const struct bench_test *test)
{
    return ((double)test->prompt + test->generated) * test->sequences;
}

/* One forward: `rows` of each of `sequences`, the first at `first`; `outputs` rows in all. */
static void add_forward(const struct bench_model *m, double sequences, double first, double rows, double outputs,
                        struct bench_demand *d)
{
    const struct lathe_model_info *info = &m->info;
    double output_weights = (double)info->vocab_tokens * info->embedding_width;
    double parameters = (double)info->parameters;
    if (output_weights > parameters)
        output_weights = parameters; /* a model without weights has no output matrix either */
    double output_bytes = parameters > 0 ? (double)info->weight_bytes * output_weights / parameters : 0;
    double keys = rows * first + rows * (rows + 1) / 2; /* Σ of what each row sees */
    d->bytes += (double)info->weight_bytes - (outputs > 0 ? 0 : output_bytes);
    d->bytes += sequences * (first + rows) * m->kv_bytes_per_token;
    d->ops[m->arithmetic] += 2 * (sequences * rows * (parameters - output_weights) + outputs * output_weights);
    d->ops[BENCH_F32] += parameters > 0 ? 4.0 * info->layers * info->heads * info->head_width * sequences * keys : 0;
}

void bench_demand(const struct bench_model *model, const struct bench_test *test, struct bench_demand *demand)
{
    memset(demand, 0, sizeof *demand);
    for (uint32_t at = 0; at < test->prompt; at += model->chunk) { /* prompts one after the other */
        uint32_t rows = test->prompt - at < model->chunk ? test->prompt - at : model->chunk;
        struct bench_demand one = { 0 };
        add_forward(model, 1, (double)test->depth + at, rows, at + rows == test->prompt, &one);
        demand->bytes += one.bytes * test->sequences;
        for (int i = 0; i < BENCH_ARITHMETICS; i++)
            demand->ops[i] += one.ops[i] * test->sequences;
    }
    for (uint32_t i = 0; i < test->generated; i++)
        add_forward(model, test->sequences, (double)test->depth + test->prompt + i, 1, test->sequences, demand);
}

void bench_limit(const struct bench_machine *machine, const struct bench_demand *demand, double tokens,
                 struct bench_limit *limit)
{
    memset(limit, 0, sizeof *limit);
    if (machine->read_bytes_s > 0)
        limit->memory_s = demand->bytes / machine->read_bytes_s;
    for (int i = 0; i < BENCH_ARITHMETICS; i++) {
        double peak = machine->ops_s[i] > 0 ? machine->ops_s[i] : machine->ops_s[BENCH_F32];
        if (peak > 0)
            limit->arithmetic_s += demand->ops[i] / peak;
    }
    double longer = fmax(limit->memory_s, limit->arithmetic_s);
    if (longer <= 0)
        return;
    limit->bound = limit->memory_s >= limit->arithmetic_s ? BENCH_MEMORY : BENCH_ARITHMETIC;
    limit->tokens_s = tokens / longer;
}

void bench_figures(const struct bench_samples *samples, double tokens, struct bench_figures *figures)
{
    double n = samples->count, seconds = 0, rate = 0, seconds2 = 0, rate2 = 0;
    memset(figures, 0, sizeof *figures);
    for (uint32_t i = 0; i < samples->count; i++) {
        seconds += samples->seconds[i] / n;
        rate += tokens / samples->seconds[i] / n;
    }
    for (uint32_t i = 0; i < samples->count; i++) {
        seconds2 += pow(samples->seconds[i] - seconds, 2);
        rate2 += pow(tokens / samples->seconds[i] - rate, 2);
    }
    figures->mean_ns = seconds * 1e9;
    figures->mean_rate = rate;
    figures->sd_ns = n > 1 ? sqrt(seconds2 / (n - 1)) * 1e9 : 0;
    figures->sd_rate = n > 1 ? sqrt(rate2 / (n - 1)) : 0;
}

/* SPDX-License-Identifier: MIT */
/* What does a way to compute cost in quality?
 *
 *     for t in tests/data/texts/[a-z]*.txt; do build/release/lathe tokenize -m smollm2-135m --ids < $t; done |
 *         build/release/tests/bench/bench_quality [compute] [reference] [tokens a line]
 *
 * Token ids on stdin, a text a line, the first 400 of each unless said. Each text is one prompt, given
 * once to model/llama with compute = int8 and once with compute = blas; prints over all positions the
 * mean and largest Kullback-Leibler divergence from the reference, in nats, how often the likeliest
 * token is another one, and both perplexities. Status 1 beyond a mean of 0.004 or a perplexity that
 * differs by 1%. */
#include <stdio.h>

#include "../unit/plugins/model/golden.h"

enum { MOST_TOKENS = 2000, MOST_LINE = 1 << 20, ROWS = 128 };

static struct fixture models[2];
static struct call *calls[2];
static double total, largest_kl, nll[2];
static long scored, positions, others;

static double log_of_sum(const float *logits, uint32_t n)
{
    double sum = 0;
    float most = logits[0];
    for (uint32_t i = 1; i < n; i++)
        most = logits[i] > most ? logits[i] : most;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)(logits[i] - most));
    return most + log(sum);
}

/* One position: logits[0] of the reference. next < 0: nothing follows. */
static void compare(const float *const logits[2], uint32_t n, int32_t next)
{
    double sums[2] = { log_of_sum(logits[0], n), log_of_sum(logits[1], n) }, kl = 0;
    for (uint32_t i = 0; i < n; i++) {
        double p = logits[0][i] - sums[0];
        kl += exp(p) * (p - (logits[1][i] - sums[1]));
    }
    total += kl;
    largest_kl = kl > largest_kl ? kl : largest_kl;
    others += largest(logits[0], n) != largest(logits[1], n);
    positions++;
    for (int side = 0; side < 2 && next >= 0; side++)
        nll[side] += sums[side] - logits[side][next];
    scored += next >= 0;
}

static void run_text(const int32_t *ids, uint32_t count)
{
    int32_t table[MOST_TOKENS / 16 + 1];
    blocks_fill(table, MOST_TOKENS / 16 + 1, 0, 1);
    for (uint32_t from = 0; from < count; from += ROWS) {
        uint32_t n = count - from < ROWS ? count - from : ROWS, vocab = models[0].info.vocab_tokens;
        for (int side = 0; side < 2; side++) {
            call_reset(calls[side]);
            call_slice(calls[side], 1, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)from, ids + from, n, table,
                       MOST_TOKENS / 16 + 1);
            if (call_run(&models[side], calls[side])) {
                fprintf(stderr, "bench_quality: %s\n", models[side].err.message);
                exit(1);
            }
        }
        for (uint32_t i = 0; i < n; i++)
            compare((const float *const[]){ calls[0]->logits + (size_t)i * vocab, calls[1]->logits + (size_t)i * vocab },
                    vocab, from + i + 1 < count ? ids[from + i + 1] : -1);
    }
}

static uint32_t read_ids(const char *line, int32_t *ids, uint32_t most)
{
    uint32_t n = 0;
    while (*line && n < most) {
        char *end;
        long id = strtol(line, &end, 10);
        if (end == line)
            line++;
        else {
            ids[n++] = (int32_t)id;
            line = end;
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    const char *path = golden_model_path(), *compute[2] = { argc > 2 ? argv[2] : "blas", argc > 1 ? argv[1] : "int8" };
    static char line[MOST_LINE];
    int32_t ids[MOST_TOKENS];
    int most = argc > 3 ? atoi(argv[3]) : 400;
    if (!path || most < 1 || most > MOST_TOKENS) {
        fprintf(stderr, "usage: bench_quality [compute] [reference] [tokens a line, at most %d] < ids\n", MOST_TOKENS);
        return 2;
    }
    for (int side = 0; side < 2; side++) {
        const struct fixture_option options[] = { { "path", path }, { "compute", compute[side] }, { NULL, NULL } };
        if (fixture_open(&models[side], "llama", options) ||
            fixture_context(&models[side], (struct lathe_context_params){ .output_rows = ROWS, .batch_tokens = ROWS,
                                                                          .threads = 2 })) {
            fprintf(stderr, "bench_quality: %s\n", models[side].err.message);
            return 1;
        }
        calls[side] = call_new();
    }
    while (fgets(line, sizeof line, stdin))
        run_text(ids, read_ids(line, ids, (uint32_t)most));
    double perplexity[2] = { exp(nll[0] / (double)scored), exp(nll[1] / (double)scored) };
    printf("%s against %s, %ld positions: mean KL %.5f nats, largest %.3f; another likeliest token at %.2f%%; perplexity %.4f "
           "against %.4f (%+.3f%%)\n", compute[1], compute[0], positions, total / (double)positions, largest_kl,
           100.0 * (double)others / (double)positions, perplexity[1], perplexity[0],
           100 * (perplexity[1] / perplexity[0] - 1));
    for (int side = 0; side < 2; side++) {
        call_free(calls[side]);
        fixture_close(&models[side]);
    }
    return !(positions > 0 && total / (double)positions <= 0.004 && fabs(perplexity[1] / perplexity[0] - 1) <= 0.01);
}

/* SPDX-License-Identifier: MIT */
/* How much of what cblas_sgemm alone does does a prefill reach?
 *
 *     bench_prefill [threads] [rounds] [tokens]
 *
 * In one process and interleaved, so that both see the same machine: the forward of a prompt
 * (everything: norms, rotation, attention, logits of the last row) and OpenBLAS's own threaded
 * sgemm on the matrix products of the same layers, weights in float32, each layer its own
 * memory. Prints best and median of both, and the ratios; then decode's tokens a second for
 * 1 to 16 sequences and the bytes of weights it reads a second. */
#include <cblas.h>

#include "../unit/plugins/model/golden.h"

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double now(void)
{
    return (double)fixture_now(NULL) * 1e-9;
}

struct shapes {
    uint32_t layers, count;
    uint32_t rows[7], columns[7];
    size_t floats; /* of one layer's weights */
    float *weights, *x, *y;
};

static double products_alone(const struct shapes *s, uint32_t m)
{
    double start = now();
    for (uint32_t l = 0; l < s->layers; l++) {
        const float *w = s->weights + l * s->floats;
        for (uint32_t i = 0; i < s->count; i++) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)s->rows[i], (int)s->columns[i], 1.0f, s->x,
                        (int)s->columns[i], w, (int)s->columns[i], 0.0f, s->y, (int)s->rows[i]);
            w += (size_t)s->rows[i] * s->columns[i];
        }
    }
    return now() - start;
}

static double run(struct fixture *f, struct call *c)
{
    double start = now();
    if (call_run(f, c)) {
        fprintf(stderr, "%s\n", f->err.message);
        exit(1);
    }
    return now() - start;
}

/* Summaries of all heads of all rows, on and off in turn: a prefill and a decode at its end. */
static void probe_cost(struct fixture *f, struct call *c, const int32_t *ids, uint32_t tokens, uint32_t rounds,
                       const int32_t *blocks)
{
    call_attention_room(c, (size_t)(tokens + 1) * (32 + 16ull * f->info.layers * f->info.heads));
    for (int decode = 0; decode < 2; decode++) {
        double best[2] = { 1e9, 1e9 };
        for (uint32_t r = 0; r < 2 * rounds * (decode ? 8 : 1); r++) {
            call_reset(c);
            struct lathe_slice *s = call_slice(c, 1, LATHE_SLICE_LOGITS, decode ? (int32_t)tokens - 1 : 0, ids,
                                               decode ? 1 : tokens, blocks, 128);
            c->probes[0] = (struct lathe_probe){ .id = 1, .format = LATHE_PROBE_SUMMARY, .recent_window = 64,
                                                 .last_position = -1, .every = 1 };
            for (uint32_t i = 0; i < f->info.layers; i++)
                c->probes[0].layers[i / 64] |= 1ull << i % 64;
            for (uint32_t i = 0; i < f->info.heads; i++)
                c->probes[0].heads[i / 64] |= 1ull << i % 64;
            c->probe_count = 1;
            s->probe = r % 2 ? 0 : LATHE_NO_PROBE;
            double took = run(f, c);
            best[r % 2] = took < best[r % 2] ? took : best[r % 2];
        }
        printf("probe         %s %.2f ms without, %.2f ms with summaries of all heads: %.1f %% more\n",
               decode ? "decode " : "prefill", best[0] * 1e3, best[1] * 1e3, 100 * (best[1] / best[0] - 1));
    }
}

int main(int argc, char **argv)
{
    static struct fixture f;
    uint32_t threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 2, rounds = argc > 2 ? (uint32_t)atoi(argv[2]) : 9;
    uint32_t tokens = argc > 3 ? (uint32_t)atoi(argv[3]) : 512, decode_rows[] = { 1, 4, 8, 12, 16 };
    const char *path = golden_model_path();
    const struct fixture_option options[] = { { "path", path }, { NULL, NULL } };
    if (!path || rounds > 1000 || rounds < 1)
        return 1;
    double start = now();
    if (fixture_open(&f, "llama", options) ||
        fixture_context(&f, (struct lathe_context_params){ .batch_tokens = tokens, .threads = threads })) {
        fprintf(stderr, "%s\n", f.err.message);
        return 1;
    }
    printf("loaded in %.3f s\n", now() - start);
    uint32_t width = f.info.embedding_width, q = f.info.heads * f.info.head_width;
    uint32_t kv = f.info.kv_heads * f.info.head_width;
    uint64_t vocab = (uint64_t)f.info.vocab_tokens * width;
    uint32_t feed = (uint32_t)(((f.info.parameters - vocab) / f.info.layers - 2ull * width * (q + kv)) / (3ull * width));
    struct shapes s = { .layers = f.info.layers, .count = 7, .rows = { q, kv, kv, width, feed, feed, width },
                        .columns = { width, width, width, q, width, width, feed } };
    for (uint32_t i = 0; i < s.count; i++)
        s.floats += (size_t)s.rows[i] * s.columns[i];
    s.weights = malloc(s.floats * s.layers * sizeof(float));
    for (size_t i = 0; i < s.floats * s.layers; i++)
        s.weights[i] = (float)(i % 1000) * 1e-4f;
    s.x = calloc((size_t)tokens * (feed + q + width), sizeof(float));
    s.y = calloc((size_t)tokens * (feed + q + width), sizeof(float));

    struct call *c = call_new();
    static int32_t ids[16384], blocks[128];
    for (uint32_t i = 0; i < tokens; i++)
        ids[i] = (int32_t)(i * 7919 % f.info.vocab_tokens);
    blocks_fill(blocks, 128, 0, 1);
    double *alone = malloc(rounds * sizeof *alone), *forward = malloc(rounds * sizeof *forward);
    for (uint32_t r = 0; r < rounds; r++) {
        openblas_set_num_threads((int)threads);
        alone[r] = products_alone(&s, tokens);
        openblas_set_num_threads(1);
        call_reset(c);
        call_slice(c, 1, LATHE_SLICE_LOGITS, 0, ids, tokens, blocks, 128);
        forward[r] = run(&f, c);
    }
    qsort(alone, rounds, sizeof *alone, by_size);
    qsort(forward, rounds, sizeof *forward, by_size);
    double flops = 2.0 * (double)s.floats * s.layers * tokens;
    printf("%u tokens, %u threads, %u rounds\n", tokens, threads, rounds);
    printf("sgemm alone   best %.3f s  median %.3f s  (%.1f GFLOP/s at best)\n", alone[0], alone[rounds / 2],
           flops / alone[0] * 1e-9);
    printf("forward       best %.3f s  median %.3f s  (%.0f tokens/s at best)\n", forward[0], forward[rounds / 2],
           tokens / forward[0]);
    printf("ratio         best %.1f %%   median %.1f %%\n", 100 * alone[0] / forward[0],
           100 * alone[rounds / 2] / forward[rounds / 2]);
    probe_cost(&f, c, ids, tokens, rounds, blocks);
    for (uint32_t d = 0; d < sizeof decode_rows / sizeof *decode_rows; d++) {
        double best = 1e9;
        for (uint32_t step = 0; step < 24; step++) {
            call_reset(c);
            for (uint32_t i = 0; i < decode_rows[d]; i++) { /* each sequence has 16 blocks of its own */
                int32_t own[16];
                blocks_fill(own, 16, (int32_t)(i * 16), 1);
                call_slice(c, i, LATHE_SLICE_LOGITS, 100 + (int32_t)step, ids, 1, own, 16);
            }
            double took = run(&f, c);
            best = took < best ? took : best;
        }
        printf("decode of %u   best %.2f ms a step, %.1f tokens/s, %.1f GB/s of weights read\n", decode_rows[d], best * 1e3,
               decode_rows[d] / best, (double)f.info.weight_bytes / best * 1e-9);
    }
    call_free(c);
    fixture_close(&f);
    free(s.weights);
    free(s.x);
    free(s.y);
    free(alone);
    free(forward);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* What do probes cost a model's forward?
 *
 *     bench_probe_cost [rounds] [context] [sequences] [threads | cpu] [probes whose name has this]
 *
 * Decode of the real model: so many sequences, each with a context that long, one token each a
 * forward, always the same one. Each probe is compared with forwards whose message has none,
 * interleaved (without, with, with, without), every probe in each round, so that what a shared
 * machine does in the meantime falls on all alike. Printed: the mean over rounds of the ratio
 * (of the logarithms), its 95% interval (Student's t over rounds), the median, and the bytes
 * that a token's record takes. "off" has a probe in its message that no slice names.
 *
 * `cpu`: processor time instead of the clock's, on one thread; on a machine that others use too
 * it is the steadier of the two.
 *
 * This is the model's side alone; recording_cost.lua measures a whole run with its database. */
#include "../unit/plugins/model/golden.h"

enum { MOST_ROUNDS = 2000, BLOCKS_EACH = 40 };

static struct fixture f;
static struct call *c;
static uint32_t sequences = 16, context = 300;
static clockid_t clock_used = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const struct variant {
    const char *name;
    uint32_t format, layers, heads; /* 0: all */
} variants[] = {
    { "off", 0, 0, 0 },
    { "summary, all heads", LATHE_PROBE_SUMMARY, 0, 0 },
    { "top 8, all heads", LATHE_PROBE_TOP, 0, 0 },
    { "full, 4 heads", LATHE_PROBE_FULL, 2, 2 },
    { "full, all heads", LATHE_PROBE_FULL, 0, 0 },
    { "scores, 4 heads", LATHE_PROBE_SCORES, 2, 2 },
    { "values, 4 heads", LATHE_PROBE_VALUES, 2, 2 },
    { "norms, all layers", LATHE_PROBE_NORMS, 0, 0 },
    { "hidden, all layers", LATHE_PROBE_HIDDEN, 0, 0 },
    { "lens 5, 4 layers", LATHE_PROBE_LENS, 4, 0 },
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static struct lathe_probe probe_of(const struct variant *v)
{
    struct lathe_probe p = { .id = 1, .format = v->format ? v->format : LATHE_PROBE_SUMMARY, .recent_window = 64,
                             .top_k = v->format == LATHE_PROBE_LENS ? 5 : 8, .last_position = -1, .every = 1,
                             .width = f.info.embedding_width };
    for (uint32_t i = 0; i < f.info.layers; i += v->layers ? f.info.layers / v->layers : 1)
        p.layers[i / 64] |= 1ull << i % 64;
    for (uint32_t i = 0; i < f.info.heads; i += v->heads ? (f.info.heads + v->heads - 1) / v->heads : 1)
        p.heads[i / 64] |= 1ull << i % 64;
    return p;
}

/* One decode step of all sequences; v NULL: no probe in the message. Seconds. */
static double step(const struct variant *v)
{
    call_reset(c);
    for (uint32_t i = 0; i < sequences; i++) {
        int32_t token = (int32_t)(i * 97 + 11), own[BLOCKS_EACH];
        blocks_fill(own, BLOCKS_EACH, (int32_t)(i * BLOCKS_EACH), 1);
        struct lathe_slice *s = call_slice(c, i, LATHE_SLICE_LOGITS, (int32_t)context, &token, 1, own, BLOCKS_EACH);
        s->probe = v && v->format ? 0 : LATHE_NO_PROBE;
    }
    if (v) {
        c->probes[0] = probe_of(v);
        c->probe_count = 1;
    }
    call_build(c);
    double start = now();
    if (call_forward(&f, c)) {
        fprintf(stderr, "%s\n", f.err.message);
        exit(1);
    }
    return now() - start;
}

static void prefill(void)
{
    int32_t ids[BLOCKS_EACH * 16];
    for (uint32_t i = 0; i < sequences; i++) {
        int32_t own[BLOCKS_EACH];
        blocks_fill(own, BLOCKS_EACH, (int32_t)(i * BLOCKS_EACH), 1);
        for (uint32_t k = 0; k < context; k++)
            ids[k] = (int32_t)((k * 7919 + i * 131) % f.info.vocab_tokens);
        call_reset(c);
        call_slice(c, i, 0, 0, ids, context, own, BLOCKS_EACH);
        if (call_run(&f, c)) {
            fprintf(stderr, "%s\n", f.err.message);
            exit(1);
        }
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_variant(const struct variant *v, double *ratios, uint32_t rounds)
{
    struct lathe_probe p = probe_of(v);
    double mean = 0, squares = 0, degrees = rounds - 1.0;
    for (uint32_t r = 0; r < rounds; r++)
        mean += ratios[r] / rounds;
    for (uint32_t r = 0; r < rounds; r++)
        squares += (ratios[r] - mean) * (ratios[r] - mean);
    double t = 1.959964 + 2.3723 / degrees + 2.822 / (degrees * degrees); /* Student's 97.5%, to 0.001 from 9 on */
    double half = rounds > 1 ? t * sqrt(squares / degrees / rounds) : INFINITY;
    qsort(ratios, rounds, sizeof *ratios, by_size);
    printf("%-20s %+7.2f %%   %+7.2f to %+7.2f   %+7.2f   %8zu\n", v->name, 100 * expm1(mean), 100 * expm1(mean - half),
           100 * expm1(mean + half), 100 * expm1(ratios[rounds / 2]),
           v->format ? lathe_attention_row_bytes(&p, context + 1) : (size_t)0);
}

int main(int argc, char **argv)
{
    static double ratios[VARIANTS][MOST_ROUNDS];
    const char *path = golden_model_path();
    const struct fixture_option options[] = { { "path", path }, { NULL, NULL } };
    uint32_t rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 40, threads = argc > 4 ? (uint32_t)atoi(argv[4]) : 2;
    double without = 1e9;
    const char *only = argc > 5 ? argv[5] : "";
    if (argc > 4 && strcmp(argv[4], "cpu") == 0) {
        threads = 1;
        clock_used = CLOCK_PROCESS_CPUTIME_ID;
    }
    context = argc > 2 ? (uint32_t)atoi(argv[2]) : context;
    sequences = argc > 3 ? (uint32_t)atoi(argv[3]) : sequences;
    if (!path || rounds < 1 || rounds > MOST_ROUNDS || context < 1 || context >= BLOCKS_EACH * 16 || sequences < 1 ||
        sequences > 32)
        return 1;
    if (fixture_open(&f, "llama", options) ||
        fixture_context(&f, (struct lathe_context_params){ .blocks = BLOCKS_EACH * sequences, .batch_tokens = BLOCKS_EACH * 16,
                                                           .threads = threads })) {
        fprintf(stderr, "%s\n", f.err.message);
        return 1;
    }
    c = call_new();
    call_attention_room(c, 64 << 20);
    prefill();
    for (uint32_t v = 0; v < VARIANTS; v++) /* once each, for the caches and the pages */
        step(&variants[v]);
    for (uint32_t r = 0; r < rounds; r++)
        for (uint32_t v = 0; v < VARIANTS; v++) {
            if (!strstr(variants[v].name, only))
                continue;
            double a = step(NULL), b = step(&variants[v]), d = step(&variants[v]), e = step(NULL);
            ratios[v][r] = log((b + d) / (a + e));
            without = a < without ? a : without;
        }
    printf("decode of %u sequences, context %u, %u threads, %u rounds; without a probe %.2f ms at best\n", sequences, context,
           threads, rounds, without * 1e3);
    printf("probe                    mean     95%% interval        median   bytes a token\n");
    for (uint32_t v = 0; v < VARIANTS; v++)
        if (strstr(variants[v].name, only))
            print_variant(&variants[v], ratios[v], rounds);
    call_free(c);
    fixture_close(&f);
    return 0;
}

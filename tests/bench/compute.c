/* SPDX-License-Identifier: MIT */
/* How fast are model/llama's ways to compute, side by side?
 *
 *     bench_compute [threads] [rounds] [compute] [reference]
 *
 * Two instances take turns at decode steps of 1 to 32 sequences with 128 to 160 tokens of context,
 * and at a prompt of 512 tokens. Prints tokens a second at the median of each and of the quick tenth:
 * by processor time with one thread, by the clock with more; first what loading took. */
#include <stdio.h>

#include "../unit/plugins/model/golden.h"

enum { CONTEXT = 128, TABLE = 10, PROMPT = 512, MOST_SEQUENCES = 32, MOST_ROUNDS = 99 };

static struct fixture models[2];
static struct call *c;
static int32_t ids[PROMPT];

static int by_size(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;
    return one < other ? -1 : one > other;
}

static double forward(struct fixture *f, int by_clock)
{
    struct timespec from, to;
    clockid_t clock = by_clock ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
    clock_gettime(clock, &from);
    if (call_run(f, c)) {
        fprintf(stderr, "bench_compute: %s\n", f->err.message);
        exit(1);
    }
    clock_gettime(clock, &to);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
}

static void add(uint32_t request, uint32_t first, uint32_t count)
{
    int32_t table[PROMPT / 16];
    blocks_fill(table, count > TABLE * 16 ? PROMPT / 16 : TABLE, (int32_t)(request * TABLE), 1);
    call_slice(c, request, LATHE_SLICE_LOGITS, (int32_t)first, ids, count, table, count > TABLE * 16 ? PROMPT / 16 : TABLE);
}

static void measure(uint32_t sequences, uint32_t rows, int rounds, int by_clock)
{
    double took[2][MOST_ROUNDS];
    for (int round = -1; round < rounds; round++)
        for (int side = 0; side < 2; side++) {
            call_reset(c);
            for (uint32_t s = 0; s < sequences; s++)
                add(s, rows > 1 ? 0 : CONTEXT + (uint32_t)(round + 1) % 32, rows);
            double seconds = forward(&models[side], by_clock);
            if (round >= 0)
                took[side][round] = seconds;
        }
    if (rows > 1)
        printf("| prefill of %u |", rows);
    else
        printf("| %u |", sequences);
    for (int side = 0; side < 2; side++) {
        qsort(took[side], (size_t)rounds, sizeof(double), by_size);
        printf(" %.0f | %.0f |", sequences * rows / took[side][rounds / 2], sequences * rows / took[side][rounds / 10]);
    }
    printf(" %.2f |\n", took[0][rounds / 2] / took[1][rounds / 2]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *path = golden_model_path(), *compute[2] = { argc > 4 ? argv[4] : "blas", argc > 3 ? argv[3] : "int8" };
    int threads = argc > 1 ? atoi(argv[1]) : 1, rounds = argc > 2 ? atoi(argv[2]) : 15;
    if (!path || threads < 1 || threads > 1024 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: bench_compute [threads] [rounds, at most %d] [compute] [reference]\n", MOST_ROUNDS);
        return 2;
    }
    for (int side = 0; side < 2; side++) {
        const struct fixture_option options[] = { { "path", path }, { "compute", compute[side] }, { NULL, NULL } };
        int64_t start = fixture_now(NULL);
        int status = fixture_open(&models[side], "llama", options);
        printf("%s: loaded in %.0f ms by the clock\n", compute[side], (double)(fixture_now(NULL) - start) * 1e-6);
        if (status ||
            fixture_context(&models[side], (struct lathe_context_params){ .blocks = MOST_SEQUENCES * TABLE,
                                                                          .batch_tokens = PROMPT,
                                                                          .threads = (uint32_t)threads })) {
            fprintf(stderr, "bench_compute: %s\n", models[side].err.message);
            return 1;
        }
    }
    c = call_new();
    for (uint32_t i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)(i * 7919 % models[0].info.vocab_tokens);
    printf("\n| sequences | %s: tokens/s | p10 | %s: tokens/s | p10 | ratio |\n| --- | --- | --- | --- | --- | --- |\n",
           compute[0], compute[1]);
    for (uint32_t sequences = 1; sequences <= MOST_SEQUENCES; sequences *= 2)
        measure(sequences, 1, rounds, threads > 1);
    measure(1, PROMPT, (rounds + 2) / 3, threads > 1);
    for (int side = 0; side < 2; side++)
        fixture_close(&models[side]);
    call_free(c);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* What do prompts and long contexts cost a forward, and what did they cost another build of it?
 *
 *     bench_attention [threads] [rounds] [other] [case]     other: a plugin's path from plugins/model/, without .so
 *
 * The whole forward of the real model, in processor time of all threads and in wall time: prompts of 512
 * and 2,048 tokens, a chunk of 512 behind 4,096, decode of sixteen sequences at 300 tokens, and of one at
 * 4,096; keys and values in f32, f16 and q8_0. With `other` both are run in turn, so that both see
 * the same machine; figures are medians (plugins/model/llama/measured.md has some). */
#include "../unit/plugins/model/golden.h"

enum { SIDES = 2, MOST_ROUNDS = 199, CONTEXT = 4800, BLOCKS = CONTEXT / 16 + 32 };

static const struct measured {
    const char *name;
    uint32_t slices, first, tokens, chunk;
} cases[] = {
    { "prefill 512", 1, 0, 512, 512 },
    { "prefill 2048", 1, 0, 2048, 512 },
    { "prefill 512 @ 4096", 1, 4096, 512, 512 },
    { "decode 16 x 300", 16, 300, 1, 1 },
    { "decode 1 x 4096", 1, 4096, 1, 1 },
};

static struct fixture sides[SIDES];
static double cpu[SIDES][MOST_ROUNDS], wall[SIDES][MOST_ROUNDS];

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void step(struct fixture *f, struct call *c, const struct measured *m, uint32_t first, uint32_t tokens)
{
    static int32_t ids[CONTEXT], blocks[BLOCKS];
    uint32_t table = (first + tokens + 15) / 16;
    call_reset(c);
    for (uint32_t i = 0; i < tokens; i++)
        ids[i] = (int32_t)((first + i) * 7919 % f->info.vocab_tokens);
    for (uint32_t s = 0; s < m->slices; s++) {
        blocks_fill(blocks, table, (int32_t)(s * table), 1);
        call_slice(c, s, LATHE_SLICE_LOGITS, (int32_t)first, ids, tokens, blocks, table);
    }
    if (call_run(f, c)) {
        fprintf(stderr, "%s\n", f->err.message);
        exit(1);
    }
}

static void measure(struct call *c, const struct measured *m, uint32_t count, uint32_t rounds)
{
    for (uint32_t side = 0; m->first && side < count; side++) /* what lies there takes no part in the time */
        for (uint32_t at = 0; at < m->first && m->slices == 1; at += 512)
            step(&sides[side], c, m, at, 512);
    for (uint32_t r = 0; r <= rounds; r++)
        for (uint32_t side = 0; side < count; side++) {
            double begun = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
            for (uint32_t at = 0; at < m->tokens; at += m->chunk)
                step(&sides[side], c, m, m->first + at, m->chunk);
            if (r == 0)
                continue; /* warms up */
            cpu[side][r - 1] = now(CLOCK_PROCESS_CPUTIME_ID) - used;
            wall[side][r - 1] = now(CLOCK_MONOTONIC) - begun;
        }
    printf("| %s |", m->name);
    for (uint32_t side = 0; side < count; side++) {
        qsort(cpu[side], rounds, sizeof(double), by_size);
        qsort(wall[side], rounds, sizeof(double), by_size);
        printf(" %.2f | %.2f | %.0f |", cpu[side][rounds / 2] * 1e3, wall[side][rounds / 2] * 1e3,
               m->slices * m->tokens / wall[side][rounds / 2]);
    }
    if (count == 2)
        printf(" %.2f |", cpu[0][rounds / 2] / cpu[1][rounds / 2]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const int32_t dtypes[] = { LATHE_F32, LATHE_F16, LATHE_Q8_0 };
    uint32_t threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 2, rounds = argc > 2 ? (uint32_t)atoi(argv[2]) : 9;
    const char *path = golden_model_path(), *names[SIDES] = { argc > 3 && argv[3][0] ? argv[3] : "llama", "llama" };
    uint32_t count = argc > 3 && argv[3][0] ? 2 : 1;
    if (!path || rounds < 1 || rounds > MOST_ROUNDS)
        return 2;
    struct call *c = call_new();
    const struct fixture_option options[] = { { "path", path }, { NULL, NULL } };
    for (uint32_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        for (uint32_t side = 0; side < count; side++)
            if (fixture_open(&sides[side], names[side], options) ||
                fixture_context(&sides[side], (struct lathe_context_params){ .batch_tokens = 512, .threads = threads,
                                .blocks = BLOCKS, .context_tokens = CONTEXT, .kv_dtype = dtypes[d] })) {
                fprintf(stderr, "%s\n", sides[side].err.message);
                return 1;
            }
        printf("\n%s, %u threads, %u rounds%s\n\n| forward | processor ms | wall ms | tokens/s |%s\n", lathe_dtype_name(dtypes[d]),
               threads, rounds, count == 2 ? ", before and now" : "", count == 2 ? " processor ms | wall ms | tokens/s | ratio |" : "");
        for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
            if (argc <= 4 || strstr(cases[i].name, argv[4]))
                measure(c, &cases[i], count, rounds);
        for (uint32_t side = 0; side < count; side++)
            fixture_close(&sides[side]);
    }
    call_free(c);
    return 0;
}

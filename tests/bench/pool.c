/* SPDX-License-Identifier: MIT */
/* What does handing a job over cost, and what is left of decode when another process takes a core?
 *
 *     bench_pool [threads] [seconds] [other]        other: a plugin's path from plugins/model/, without .so
 *
 * First a job whose items wait for each other to be begun, one a thread: while all spin, and after a pause in
 * which the workers fell asleep. Then decode of one sequence of the real model, tokens a second: with one
 * thread, with `threads`, and both again beside a process that does nothing but spin; in turn, so
 * that all see the same machine. With `other` another build of the plugin takes part. */
#include <signal.h>
#include <sys/wait.h>

#include <kernels/pool.h>

#include "../unit/plugins/model/golden.h"

enum { ROUNDS = 2000, PAUSES = 100, TURNS = 9, MOST_SIDES = 4 };

static double took[ROUNDS];
static double rates[MOST_SIDES][2][TURNS]; /* quiet, beside a spinner */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double now(void)
{
    return (double)fixture_now(NULL) * 1e-9;
}

/* Each item waits for the others to be begun, so that none of the threads is left out; 5 ms at most. */
static void meet(void *arg, uint32_t item, uint32_t thread)
{
    uint32_t *arrived = arg, threads = arrived[1];
    double start = now();
    (void)item, (void)thread;
    __atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(arrived, __ATOMIC_ACQUIRE) < threads && now() - start < 5e-3) {
    }
}

static void round_trips(const struct lathe_host *host, uint32_t threads)
{
    struct pool *pool;
    struct lathe_error err;
    if (pool_open(host, threads, &pool, &err))
        return;
    for (int asleep = 0; asleep < 2; asleep++) {
        int rounds = asleep ? PAUSES : ROUNDS;
        for (int r = 0; r < rounds; r++) {
            if (asleep)
                usleep(3000);
            uint32_t arrived[2] = { 0, threads };
            double start = now();
            pool_run(pool, threads, meet, arrived);
            took[r] = now() - start;
        }
        qsort(took, (size_t)rounds, sizeof *took, by_size);
        printf("a job in which %u threads meet, workers %s: %.2f us (median; tenths %.2f to %.2f)\n", threads,
               asleep ? "asleep" : "spinning", took[rounds / 2] * 1e6, took[rounds / 10] * 1e6, took[rounds * 9 / 10] * 1e6);
    }
    pool_close(pool);
}

static pid_t spinner(void)
{
    pid_t child = fork();
    for (volatile uint64_t n = 0; child == 0; n++) {
    }
    return child;
}

/* Tokens a second for so long. */
static double decode(struct fixture *f, struct call *c, double seconds)
{
    int32_t id = 42, blocks[16];
    double start = now(), end;
    uint32_t n = 0;
    blocks_fill(blocks, 16, 0, 1);
    do {
        call_reset(c);
        call_slice(c, 1, LATHE_SLICE_LOGITS, 100 + (int32_t)(n % 100), &id, 1, blocks, 16);
        if (call_run(f, c))
            exit(1);
        n++;
        end = now();
    } while (end - start < seconds);
    return n / (end - start);
}

int main(int argc, char **argv)
{
    static struct fixture sides[MOST_SIDES];
    uint32_t threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 2, count = argc > 3 ? 4 : 2;
    double seconds = argc > 2 ? atof(argv[2]) : 0.5;
    const char *path = golden_model_path();
    const struct fixture_option options[] = { { "path", path }, { NULL, NULL } };
    if (!path)
        return 1;
    for (uint32_t i = 0; i < count; i++)
        if (fixture_open(&sides[i], i < 2 ? "llama" : argv[3], options) ||
            fixture_context(&sides[i], (struct lathe_context_params){ .blocks = 16, .context_tokens = 256,
                                                                      .threads = i % 2 ? threads : 1 })) {
            fprintf(stderr, "%s\n", sides[i].err.message);
            return 1;
        }
    round_trips(&sides[0].host, threads);
    struct call *c = call_new();
    for (uint32_t turn = 0; turn < TURNS; turn++)
        for (int beside = 0; beside < 2; beside++) {
            pid_t child = beside ? spinner() : 0;
            for (uint32_t i = 0; i < count; i++)
                rates[i][beside][turn] = decode(&sides[i], c, seconds);
            if (child > 0) {
                kill(child, SIGKILL);
                waitpid(child, NULL, 0);
            }
        }
    for (uint32_t i = 0; i < count; i++)
        for (int beside = 0; beside < 2; beside++)
            qsort(rates[i][beside], TURNS, sizeof(double), by_size);
    for (uint32_t i = 0; i < count; i++)
        for (int beside = 0; beside < 2; beside++) {
            const double *r = rates[i][beside];
            printf("%s, %u thread%s%s: %.1f tokens/s (median; %.1f to %.1f), %.0f%% of one thread's when quiet\n",
                   i < 2 ? "this build" : "the other", i % 2 ? threads : 1, i % 2 ? "s" : "", beside ? " beside a spinner" : "",
                   r[TURNS / 2], r[0], r[TURNS - 1], 100 * r[TURNS / 2] / rates[i & ~1u][0][TURNS / 2]);
        }
    call_free(c);
    for (uint32_t i = 0; i < count; i++)
        fixture_close(&sides[i]);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* What recording costs the thread that records, and how fast the writer is.
 *
 *     bench_recorder [DATABASE]
 *
 * Prints the nanoseconds of one record_token (and one clock read, to compare with) while the ring
 * has room, the rows a second that arrive in the file when it has not, and the same of attention
 * rows of 30 layers × 9 heads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "recorder.h"

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check(int status, const struct lathe_error *err)
{
    if (status) {
        fprintf(stderr, "%s\n", err->message);
        exit(1);
    }
}

static void tokens(struct producer *producer, int64_t request, int64_t count)
{
    struct record_token token = { .request_id = request, .kind = "output", .token = 17, .gap_ns = 1000, .logprob = -0.5 };
    for (int64_t i = 0; i < count; i++) {
        token.position = token.step_id = i;
        record_token(producer, &token);
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "bench_recorder.db";
    struct recorder_params params = { .path = path };
    struct recorder *recorder;
    struct recorder_run *run;
    struct producer *producer;
    struct lathe_error err;
    struct run_info info = { .label = "bench", .seed_index = -1, .dirty = -1 };
    enum { SMALL = 10000, ROUNDS = 50, LARGE = 1000000, ROWS = 20000 };
    double best = 1e9, sum = 0, start, wall, cpu;
    unlink(path);
    check(recorder_open(&params, &recorder, &err), &err);
    check(recorder_run_begin(recorder, &info, &run, &err), &err);
    check(recorder_producer(run, &producer, &err), &err);

    for (int i = 0; i < ROUNDS; i++) { /* each fits in the ring */
        start = seconds(CLOCK_THREAD_CPUTIME_ID);
        tokens(producer, i + 1, SMALL);
        double took = (seconds(CLOCK_THREAD_CPUTIME_ID) - start) / SMALL * 1e9;
        sum += took;
        best = took < best ? took : best;
        check(recorder_flush(recorder, &err), &err);
    }
    printf("record_token, room in the ring: %.1f ns (mean), %.1f ns (best of %d rounds)\n", sum / ROUNDS, best, ROUNDS);

    start = seconds(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < SMALL; i++)
        seconds(CLOCK_MONOTONIC);
    printf("one clock_gettime, to compare:  %.1f ns\n", (seconds(CLOCK_THREAD_CPUTIME_ID) - start) / SMALL * 1e9);

    start = seconds(CLOCK_MONOTONIC);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    tokens(producer, 1000, LARGE);
    check(recorder_flush(recorder, &err), &err);
    wall = seconds(CLOCK_MONOTONIC) - start;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("tokens into the file:           %.0f rows/s (%.2f µs of processor a row)\n", LARGE / wall, cpu / LARGE * 1e6);

    struct lathe_probe probe = { .id = 1, .format = LATHE_PROBE_SUMMARY, .recent_window = 16, .last_position = -1, .every = 1,
                                 .layers = { (1ull << 30) - 1 }, .heads = { (1ull << 9) - 1 } };
    check(recorder_probe(run, &probe, &err), &err);
    size_t bytes = lathe_attention_row_bytes(&probe, 1);
    start = seconds(CLOCK_MONOTONIC);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < ROWS; i++) {
        char *room = record_attention_reserve(producer, bytes);
        struct lathe_attention_row row = { .request = 1, .position = i, .keys = 1, .probe = 1, .bytes = (uint32_t)bytes };
        memset(room, i & 127, bytes);
        memcpy(room, &row, sizeof row);
        record_attention_commit(producer, bytes, i);
    }
    check(recorder_flush(recorder, &err), &err);
    wall = seconds(CLOCK_MONOTONIC) - start;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("attention rows into the file:   %.0f rows/s of %zu bytes (%.1f µs of processor a row)\n", ROWS / wall, bytes,
           cpu / ROWS * 1e6);
    check(recorder_run_end(run, "done", &err), &err);
    check(recorder_close(recorder, &err), &err);
    unlink(path);
    return 0;
}

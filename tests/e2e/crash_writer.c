/* SPDX-License-Identifier: MIT */
/* What crash.py kills: records tokens and attention as fast as told to, and says on stdout what
 * it has recorded and when, so that crash.py knows what must be found.
 *
 *     crash_writer DATABASE FLUSH_MS PAUSE_US EXPLICIT     records until it is killed
 *     crash_writer DATABASE                                opens and closes: marks what was cut short
 *
 * A line is "K NS": token 0 … K − 1 of this run were recorded before monotonic time NS; or
 * "flushed K": a recorder_flush after them has returned (EXPLICIT is how many tokens apart,
 * 0: none). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "recorder.h"

enum { LAYERS = 30, HEADS = 9 };

static int fail(const struct lathe_error *err)
{
    fprintf(stderr, "%s\n", err->message);
    return 1;
}

static void say(const char *line)
{
    if (write(STDOUT_FILENO, line, strlen(line)) < 0)
        exit(0);
}

static int record(struct recorder *recorder, long pause_us, long apart, struct lathe_error *err)
{
    struct recorder_run *run;
    struct producer *producer;
    struct run_info info = { .label = "to be killed", .seed_index = -1, .dirty = -1, .clock = "real" };
    struct lathe_probe probe = { .id = 1, .format = LATHE_PROBE_SUMMARY, .recent_window = 16, .last_position = -1, .every = 1,
                                 .layers = { (1ull << LAYERS) - 1 }, .heads = { (1ull << HEADS) - 1 } };
    char line[80];
    if (recorder_run_begin(recorder, &info, &run, err) || recorder_producer(run, &producer, err) ||
        recorder_probe(run, &probe, err))
        return err->code;
    snprintf(line, sizeof line, "run %lld\n", (long long)recorder_run_id(run));
    say(line);
    for (int64_t k = 0;; k++) {
        struct record_token token = { .request_id = 1, .position = k, .step_id = k, .kind = "output", .token = (int32_t)k,
                                      .time_ns = k, .gap_ns = RECORD_NULL, .logprob = -1 };
        record_token(producer, &token);
        if (k % 16 == 0) {
            size_t bytes = lathe_attention_row_bytes(&probe, (uint32_t)k + 1);
            char *room = record_attention_reserve(producer, bytes);
            if (room) {
                struct lathe_attention_row row = { .request = 1, .position = (int32_t)k, .keys = (uint32_t)k + 1, .probe = 1,
                                                   .bytes = (uint32_t)bytes };
                memset(room, (int)(k & 127), bytes);
                memcpy(room, &row, sizeof row);
                record_attention_commit(producer, bytes, k);
            }
        }
        if (k % 32 == 31) {
            struct timespec now, pause = { 0, pause_us * 1000 };
            clock_gettime(CLOCK_MONOTONIC, &now);
            snprintf(line, sizeof line, "%lld %lld\n", (long long)k + 1, (long long)now.tv_sec * 1000000000 + now.tv_nsec);
            say(line);
            nanosleep(&pause, NULL);
        }
        if (apart > 0 && k % apart == apart - 1) {
            if (recorder_flush(recorder, err))
                return err->code;
            snprintf(line, sizeof line, "flushed %lld\n", (long long)k + 1);
            say(line);
        }
    }
}

int main(int argc, char **argv)
{
    struct lathe_error err;
    struct recorder *recorder;
    if (argc != 2 && argc != 5)
        return 2;
    struct recorder_params params = { .path = argv[1], .flush_interval_ns = argc == 5 ? atol(argv[2]) * 1000000 : 0 };
    if (recorder_open(&params, &recorder, &err))
        return fail(&err);
    if (argc == 5 && record(recorder, atol(argv[3]), atol(argv[4]), &err))
        return fail(&err);
    return recorder_close(recorder, &err) ? fail(&err) : 0;
}

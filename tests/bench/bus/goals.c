/* SPDX-License-Identifier: MIT */
/* The goals, and whether they are met. Each is computed within a round, from figures that saw
 * the same machine within a few seconds; the median over rounds is what counts. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"

enum goal_form { DIFFERENCE, RATIO, RATE, LOAN_ALONE, LOAN_THREADS };

static double median(const struct bench_list *list, const struct bench_case *c)
{
    double values[BENCH_MAX_ROUNDS];
    memcpy(values, c->ns, list->rounds * sizeof *values);
    return bench_quantile(values, list->rounds, 0.5);
}

static const struct bench_case *quicker(const struct bench_list *list, const char *a, const char *b)
{
    const struct bench_case *x = bench_find(list, a), *y = bench_find(list, b);
    if (!x || !y)
        return x ? x : y;
    return median(list, x) <= median(list, y) ? x : y;
}

static const struct bench_case *best_batch(const struct bench_list *list, const char *bus)
{
    const struct bench_case *best = NULL;
    char id[64];
    for (int batch = 1; batch <= 1024; batch *= 2) {
        snprintf(id, sizeof id, "post/%s/%d", bus, batch);
        best = bench_find(list, id) ? (best ? quicker(list, best->id, id) : bench_find(list, id)) : best;
    }
    return best;
}

int goals_loan_excess(const struct bench_list *list, uint64_t bytes, int threads, uint32_t round, double *percent)
{
    char loan_id[64], same_id[64];
    snprintf(loan_id, sizeof loan_id, "copy/loan/%llu", (unsigned long long)bytes);
    snprintf(same_id, sizeof same_id, "copy/%s/%llu", threads ? "threads" : "alone", (unsigned long long)bytes);
    const struct bench_case *loan = bench_find(list, loan_id), *same = bench_find(list, same_id);
    const struct bench_case *hop = bench_find(list, "call/shm/spin"), *bare = bench_find(list, "raw/pair/threads");
    if (!loan || !same || !hop || !bare)
        return 0;
    double work = same->ns[round] - (threads ? bare->ns[round] : 0);
    *percent = 100 * (loan->ns[round] - work - hop->ns[round]) / work;
    return 1;
}

struct judge {
    const struct bench_list *list;
    struct bench_goal *goals;
    uint32_t count;
};

__attribute__((format(printf, 8, 9))) static void judge(struct judge *j, int form, const struct bench_case *a,
                                                        const struct bench_case *b, uint64_t bytes, double limit,
                                                        const char *unit, const char *text, ...)
{
    struct bench_goal *g = &j->goals[j->count++];
    double values[BENCH_MAX_ROUNDS];
    uint32_t rounds = j->list->rounds;
    va_list args;
    *g = (struct bench_goal){ .unit = unit, .limit = limit, .at_least = form == RATE, .known = 1 };
    va_start(args, text);
    vsnprintf(g->text, sizeof g->text, text, args);
    va_end(args);
    for (uint32_t i = 0; i < rounds && g->known; i++) {
        if (form == LOAN_ALONE || form == LOAN_THREADS)
            g->known = goals_loan_excess(j->list, bytes, form == LOAN_THREADS, i, &values[i]);
        else if (!a || (!b && form != RATE))
            g->known = 0;
        else
            values[i] = form == RATE ? 1e3 / a->ns[i] : form == RATIO ? a->ns[i] / b->ns[i] : a->ns[i] - b->ns[i];
    }
    if (!g->known || rounds == 0)
        return;
    g->low = bench_quantile(values, rounds, 0.25);
    g->value = bench_quantile(values, rounds, 0.5);
    g->high = bench_quantile(values, rounds, 0.75);
}

uint32_t goals_judge(const struct bench_list *list, struct bench_goal goals[BENCH_MAX_GOALS])
{
    struct judge j = { .list = list, .goals = goals };
    static const char *const buses[] = { "async", "shm" }, *const sides[] = { "threads", "processes" };
    const uint64_t big = 16777216;
    char id[64], other[64];
    judge(&j, DIFFERENCE, bench_find(list, "call/direct"), bench_find(list, "call/indirect"), 0, 2, "ns",
          "bus/direct over an indirect C call");
    judge(&j, DIFFERENCE, bench_find(list, "call/sync"), bench_find(list, "call/direct"), 0, 60, "ns",
          "bus/sync with all counters over bus/direct");
    for (int i = 0; i < 2; i++) {
        snprintf(id, sizeof id, "call/%s/spin", buses[i]);
        snprintf(other, sizeof other, "raw/pair/%s", sides[i]);
        judge(&j, RATIO, bench_find(list, id), bench_find(list, other), 0, 1.5, "×",
              "bus/%s to the bare ping-pong of two %s with a line each way, while both spin", buses[i], sides[i]);
        snprintf(other, sizeof other, "raw/line/%s", sides[i]);
        judge(&j, RATIO, bench_find(list, id), bench_find(list, other), 0, 1.5, "×",
              "the same with one line for both ways, which is quicker where the cores are near");
    }
    for (int i = 0; i < 2; i++) {
        snprintf(id, sizeof id, "call/%s/sleep", buses[i]);
        judge(&j, RATIO, bench_find(list, id), bench_find(list, "zeromq/sleep"), 0, 1, "×",
              "bus/%s to ZeroMQ inproc, while both sleep", buses[i]);
    }
    for (int i = 0; i < 2; i++) {
        const struct bench_case *best = best_batch(list, buses[i]);
        judge(&j, RATE, best, NULL, 0, 10, "M/s", "bus/%s: messages a second from one producer, batches of %d",
              buses[i], best ? (int)best->count : 0);
    }
    judge(&j, LOAN_THREADS, NULL, NULL, big, 5, "%",
          "16 MiB by loan beyond one thread writing, another summing, and a 64-byte hop");
    judge(&j, LOAN_ALONE, NULL, NULL, big, 5, "%",
          "16 MiB by loan beyond one thread writing and summing, and a 64-byte hop");
    return j.count;
}

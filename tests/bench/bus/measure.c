/* SPDX-License-Identifier: MIT */
/* Clock, cores, batches and quantiles; see bench.h. */
#include "bench.h"

#include <sched.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern char **environ;

enum { MAX_BATCHES = 64 };

const uint64_t bench_batches[] = { 1, 16, 64, 256, 1024, 0 };

int64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void bench_pin(const struct bench *b, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0 || cpu == b->caller_cpu)
        CPU_SET(b->caller_cpu, &set);
    if (cpu < 0 || cpu == b->worker_cpu)
        CPU_SET(b->worker_cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

int bench_spawn(const struct bench *b, char *const arguments[])
{
    pid_t pid;
    bench_pin(b, b->worker_cpu);
    int failed = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ);
    bench_pin(b, b->caller_cpu);
    return failed ? -1 : (int)pid;
}

void bench_add(struct bench_list *list, int group, bench_sampler *sample, const char *title, const char *bus, int how,
               uint64_t count, const char *id, ...)
{
    struct bench_case *c;
    va_list args;
    if (list->count == BENCH_MAX_CASES) {
        fprintf(stderr, "bench_bus: more than %d cases; raise BENCH_MAX_CASES\n", BENCH_MAX_CASES);
        exit(1);
    }
    c = &list->cases[list->count++];
    *c = (struct bench_case){
        .group = group, .title = title, .sample = sample, .bus = bus, .how = how, .count = count, .quickest = 1e300
    };
    va_start(args, id);
    vsnprintf(c->id, sizeof c->id, id, args);
    va_end(args);
}

const struct bench_case *bench_find(const struct bench_list *list, const char *id)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const struct bench_case *c = &list->cases[i];
        if (!strcmp(c->id, id))
            return c->missing[0] ? NULL : c;
    }
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_quantile(double *values, uint32_t count, double q)
{
    qsort(values, count, sizeof *values, by_size);
    double at = q * (count - 1);
    uint32_t below = (uint32_t)at;
    if (below + 1 >= count)
        return values[count - 1];
    return values[below] + (at - below) * (values[below + 1] - values[below]);
}

int bench_time(const struct bench *b, const struct bench_case *c, bench_step *step, void *context, double *ns,
               struct lathe_error *err)
{
    double batches[MAX_BATCHES];
    uint64_t times = 1;
    int64_t start = bench_now_ns(), took = 0;
    int status;
    for (;;) { /* warm up, and find out how many make a batch */
        int64_t from = bench_now_ns();
        if ((status = step(context, times, err)) != LATHE_OK)
            return status;
        took = bench_now_ns() - from;
        if (bench_now_ns() - start >= b->warm_ns && (took >= b->batch_ns / 4 || times >= UINT64_C(1) << 40))
            break;
        if (took < b->batch_ns / 2)
            times *= 2;
    }
    times = (uint64_t)((double)times * (double)b->batch_ns / (double)(took > 0 ? took : 1));
    times = times ? times : 1;
    uint32_t count = took > b->batch_ns * 4 ? 3 : b->batches;
    for (uint32_t i = 0; i < count; i++) {
        int64_t from = bench_now_ns();
        if ((status = step(context, times, err)) != LATHE_OK)
            return status;
        batches[i] = (double)(bench_now_ns() - from) / (double)times;
    }
    *ns = bench_quantile(batches, count, 0.5);
    if (batches[0] < c->quickest)
        ((struct bench_case *)(uintptr_t)c)->quickest = batches[0];
    return LATHE_OK;
}

void bench_write(void *payload, uint64_t bytes, uint64_t seed)
{
    uint64_t *words = payload;
    for (uint64_t i = 0; i < bytes / 8; i++)
        words[i] = seed + i;
}

uint64_t bench_sum(const void *payload, uint64_t bytes)
{
    const uint64_t *words = payload;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes / 8; i++)
        sum += words[i];
    return sum;
}

uint64_t bench_expected(uint64_t bytes, uint64_t seed)
{
    uint64_t n = bytes / 8;
    return n * seed + n * (n - 1) / 2;
}

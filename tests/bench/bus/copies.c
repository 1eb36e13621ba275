/* SPDX-License-Identifier: MIT */
/* Zero copy: a payload is written by one side and summed by the other.
 *
 *     loan        written into the loaned message; summed there by another process
 *     copy        written to private memory, copied into the message; copied out, then summed
 *     alone       written and summed by one thread, in private memory
 *     threads     written by one thread, summed by another on the other core, in private memory,
 *                 handed over by the bare ping-pong: the lines come from where a bus's would
 *     processes   the same between two processes over a bare shared mapping: no bus at all
 *
 * All memory was touched before it is timed. Every sum is checked. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "callee.h"
#include "echo.h"
#include "opened.h"

enum { ALONE, THREADS, PROCESSES, LOAN, COPY };

const uint64_t copy_sizes[] = { 64, 512, 4096, 32768, 262144, 2097152, 16777216, 67108864, 0 };

struct work {
    uint64_t bytes, seed;
    void *payload;    /* where it is written */
    struct echo echo; /* THREADS, PROCESSES */
    const struct lathe_endpoint *endpoint;
    struct lathe_message *in;
    struct callee_answer *out;
};

static int wrong(const struct work *w, uint64_t sum, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EINTERNAL, "%llu bytes arrived with sum %llu, expected %llu",
                      (unsigned long long)w->bytes, (unsigned long long)sum,
                      (unsigned long long)bench_expected(w->bytes, w->seed));
}

static int alone(void *context, uint64_t times, struct lathe_error *err)
{
    struct work *w = context;
    for (uint64_t i = 0; i < times; i++) {
        bench_write(w->payload, w->bytes, ++w->seed);
        uint64_t sum = bench_sum(w->payload, w->bytes);
        if (sum != bench_expected(w->bytes, w->seed))
            return wrong(w, sum, err);
    }
    return LATHE_OK;
}

static int handed(void *context, uint64_t times, struct lathe_error *err)
{
    struct work *w = context;
    for (uint64_t i = 0; i < times; i++) {
        bench_write(w->payload, w->bytes, ++w->seed);
        echo_once(&w->echo);
        if (w->echo.shared->sum != bench_expected(w->bytes, w->seed))
            return wrong(w, w->echo.shared->sum, err);
    }
    return LATHE_OK;
}

static int called(void *context, uint64_t times, struct lathe_error *err)
{
    struct work *w = context;
    void *body = w->in + 1;
    for (uint64_t i = 0; i < times; i++) {
        bench_write(w->payload, w->bytes, ++w->seed);
        if (w->payload != body)
            memcpy(body, w->payload, w->bytes);
        int status = w->endpoint->call(w->endpoint->self, w->in, w->out, err);
        if (status != LATHE_OK)
            return status;
        if (w->out->sum != bench_expected(w->bytes, w->seed))
            return wrong(w, w->out->sum, err);
    }
    return LATHE_OK;
}

static void *private_memory(uint64_t bytes, struct lathe_error *err)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory != MAP_FAILED)
        return memory;
    lathe_fail(err, LATHE_ENOMEM, "no memory for %llu bytes", (unsigned long long)bytes);
    return NULL;
}

static int sample_alone(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    struct work w = { .bytes = c->count, .payload = private_memory(c->count, err) };
    if (!w.payload)
        return err->code;
    int status = bench_time(b, c, alone, &w, ns, err);
    munmap(w.payload, c->count);
    return status;
}

static int sample_handed(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    struct work w = { .bytes = c->count };
    int status = echo_open(&w.echo, b, ECHO_PAIR, c->how == PROCESSES, c->count, err);
    if (status != LATHE_OK)
        return status;
    w.payload = echo_payload(&w.echo);
    status = bench_time(b, c, handed, &w, ns, err);
    echo_close(&w.echo);
    return status;
}

static int sample_called(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    static const char *const options[] = { "spin_us", "100000", "memory_mb", "256", NULL };
    struct work w = { .bytes = c->count };
    struct opened o;
    int status = opened_open(&o, b, c->bus, options, err);
    if (status != LATHE_OK)
        return status;
    w.endpoint = c->how == COPY ? o.copy_sum : o.sum;
    w.in = o.api->loan(o.self, sizeof *w.in + w.bytes, err);
    w.out = w.in ? (void *)o.api->loan(o.self, sizeof *w.out, err) : NULL;
    w.payload = w.out ? (c->how == COPY ? private_memory(w.bytes, err) : w.in + 1) : NULL;
    if (w.payload) {
        w.in->bytes = sizeof *w.in + w.bytes;
        status = bench_time(b, c, called, &w, ns, err);
        if (c->how == COPY)
            munmap(w.payload, w.bytes);
    } else {
        status = err->code;
    }
    o.api->give_back(o.self, w.in);
    o.api->give_back(o.self, w.out ? &w.out->head : NULL);
    opened_close(&o);
    return status;
}

void copy_cases(struct bench_list *list)
{
    for (int i = 0; copy_sizes[i]; i++) {
        unsigned long long n = copy_sizes[i];
        int group = BENCH_COPY + i;
        bench_add(list, group, sample_alone, "written and summed by one thread", NULL, ALONE, n, "copy/alone/%llu",
                  n);
        bench_add(list, group, sample_handed, "written by one thread, summed by another", NULL, THREADS, n,
                  "copy/threads/%llu", n);
        bench_add(list, group, sample_handed, "the same by two processes", NULL, PROCESSES, n, "copy/processes/%llu",
                  n);
        bench_add(list, group, sample_called, "bus/shm, by loan", "shm", LOAN, n, "copy/loan/%llu", n);
        bench_add(list, group, sample_called, "bus/shm, copied in and out", "shm", COPY, n, "copy/copy/%llu", n);
    }
}

/* SPDX-License-Identifier: MIT */
/* The ring of calls without its bus, between two threads that spin: what lies between this and
 * bus/async is the envelope (counters, deadline, breaker, tickets). */
#include <pthread.h>
#include <stdlib.h>

#include <bus/callring.h>

#include "bench.h"

enum { RING_CALLS = 2048 };
static const int64_t long_ns = 1000000000;

struct rung {
    struct callring *ring;
    uint32_t batch;
    _Atomic uint32_t stop;
};

static void *serve(void *rung_)
{
    struct rung *r = rung_;
    uint32_t position;
    while (!atomic_load_explicit(&r->stop, memory_order_acquire)) {
        if (callring_next(r->ring, &position))
            callring_answer(r->ring, position);
        else
            callring_idle(r->ring, long_ns, -1, &r->stop);
    }
    return NULL;
}

static int calls(void *context, uint64_t times, struct lathe_error *err)
{
    struct callring *ring = ((struct rung *)context)->ring;
    for (uint64_t i = 0; i < times; i++) {
        uint32_t position;
        struct callring_cell *cell = callring_take(ring, &position);
        if (!cell)
            return lathe_fail(err, LATHE_EFULL, "the ring is full of one call");
        cell->words[0] = i;
        callring_fill(ring, position, 0);
        callring_wait(ring, position, long_ns, -1);
        callring_collect(ring, position);
    }
    return LATHE_OK;
}

static int batches(void *context, uint64_t times, struct lathe_error *err)
{
    struct rung *r = context;
    for (uint64_t done = 0; done < times; done += r->batch) {
        uint32_t first, n = callring_take_many(r->ring, r->batch, &first);
        if (n < r->batch)
            return lathe_fail(err, LATHE_EFULL, "the ring has room for %u calls", n);
        for (uint32_t i = 0; i < n; i++) {
            callring_cell(r->ring, first + i)->words[0] = done;
            callring_fill(r->ring, first + i, 1);
        }
        callring_ring(r->ring, 1);
        for (uint32_t i = 0; i < n; i++) {
            callring_wait(r->ring, first + i, long_ns, -1);
            callring_collect(r->ring, first + i);
        }
    }
    return LATHE_OK;
}

static int sample(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err)
{
    struct rung r = { .ring = aligned_alloc(64, callring_bytes(RING_CALLS)), .batch = (uint32_t)c->count };
    pthread_t thread;
    if (!r.ring)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a ring");
    callring_init(r.ring, RING_CALLS, 0);
    bench_pin(b, b->worker_cpu);
    int failed = pthread_create(&thread, NULL, serve, &r);
    bench_pin(b, b->caller_cpu);
    int status = failed ? lathe_fail(err, LATHE_EIO, "can't start a thread")
                        : bench_time(b, c, c->count ? batches : calls, &r, ns, err);
    atomic_store_explicit(&r.stop, 1, memory_order_release);
    callring_ring(r.ring, 1);
    if (!failed)
        pthread_join(thread, NULL);
    free(r.ring);
    return status;
}

void ring_cases(struct bench_list *list)
{
    bench_add(list, BENCH_SPINNING, sample, "the ring of calls alone, two threads", NULL, 0, 0, "raw/ring/threads");
    for (const uint64_t *batch = bench_batches; *batch; batch++)
        bench_add(list, BENCH_RATES, sample, "the ring of calls alone", NULL, 0, *batch, "post/ring/%d", (int)*batch);
}

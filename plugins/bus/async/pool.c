/* SPDX-License-Identifier: MIT */
/* A ring of calls and the threads that work on it: opening, scaling, emptying. */
#include "async.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>

#include <bus/futex.h>

_Thread_local struct worker *async_this_worker;

enum { NAP_NS = 50000, AHEAD = 8, RUN = 4 };

void pool_count(struct async *bus, uint32_t stripe)
{
    atomic_fetch_add(&bus->done[stripe % STRIPES].n, 1); /* seq_cst, as poll's looks are: one sees the other */
    if (atomic_load(&bus->poll_wanted) && atomic_exchange(&bus->poll_wanted, 0)) {
        atomic_fetch_add(&bus->bell, 1);
        futex_wake(&bus->bell, INT_MAX, 0);
    }
}

/* --- working -------------------------------------------------------------------------- */

void pool_serve(struct pool *pool, struct callring_cell *cell, uint32_t position, uint32_t worker)
{
    struct async *bus = pool->bus;
    struct line *line = (struct line *)(uintptr_t)cell->words[WORD_LINE];
    const bool posted = cell->words[WORD_STATUS] != 0;

    if (line) {
        struct lathe_error *err = (struct lathe_error *)(uintptr_t)cell->words[WORD_ERROR];
        const int64_t deadline_ns = (int64_t)cell->words[WORD_DEADLINE];
        const bool stamp = bus->envelope.observer.hop != NULL;
        int64_t now_ns = stamp || deadline_ns ? bus->host->now_ns(bus->host->context) : 0;
        int status;
        cell->words[WORD_STARTED] = stamp ? (uint64_t)now_ns : 0;
        if (deadline_ns && now_ns >= deadline_ns) {
            status = lathe_fail(err, LATHE_EDEADLINE, "bus async: the call of '%s' waited in the queue until its "
                                "deadline had passed; give it more time, or the service more workers",
                                line->envelope.endpoint->name);
            atomic_fetch_add_explicit(&line->envelope.expired, 1, memory_order_relaxed);
        } else {
            status = line->function(line->self, (const void *)(uintptr_t)cell->words[WORD_IN],
                                    (void *)(uintptr_t)cell->words[WORD_OUT], err);
            if (status > 0)
                status = envelope_status(&line->envelope, status, err);
        }
        cell->words[WORD_STATUS] = (uint32_t)status | (uint64_t)worker << 32;
        cell->words[WORD_ENDED] = stamp ? (uint64_t)bus->host->now_ns(bus->host->context) : 0;
    }
    callring_answer(pool->ring, position);
    if (posted)
        pool_count(bus, pool->slot + worker);
}

/* Has everything that was put in been taken out again? */
static bool empty(const struct callring *ring)
{
    return atomic_load(&ring->head) == atomic_load(&ring->tail);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct pool *pool = w->pool;
    struct callring *ring = pool->ring;
    const struct lathe_host *host = pool->bus->host;
    uint32_t run = 0; /* calls in a row without waiting */

    async_this_worker = w;
    host->set_thread_roles(host->context, LATHE_THREAD_WORKER | LATHE_THREAD_ENGINE);
    atomic_store(&w->up, 1);
    futex_wake(&w->up, 1, 0);
    for (;;) {
        uint32_t stop = atomic_load_explicit(&w->stop, memory_order_acquire), position;
        struct callring_cell *cell;
        if (stop == STOP_NOW || (stop == STOP_WHEN_EMPTY && empty(ring)))
            break;
        cell = callring_next(ring, &position);
        if (cell) {
            if (++run >= RUN) /* others were put in while this one was worked on: fetch them early */
                __builtin_prefetch(callring_cell(ring, position + AHEAD), 1);
            pool_serve(pool, cell, position, w->number);
        } else {
            run = 0;
            if (stop == STOP_WHEN_EMPTY)
                sched_yield();
            else if (callring_idle(ring, spin_for(pool->bus, w->vain), -1, &w->stop))
                w->vain = 0;
            else
                w->vain++;
        }
    }
    return NULL;
}

/* --- threads come and go ---------------------------------------------------------------- */

static int start(struct pool *pool, uint32_t i, struct lathe_error *err)
{
    struct worker *w = &pool->workers[i];
    sigset_t all, before;
    int failed;

    *w = (struct worker){ .pool = pool, .number = i + 1 };
    sigfillset(&all); /* signals are for the host's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return lathe_fail(err, LATHE_ENOMEM, "bus async: the system refused thread %u of service '%s' (error %d); "
                          "ask for fewer workers", i + 1, pool->name, failed);
    while (!atomic_load(&w->up))
        futex_wait(&w->up, 0, -1, 0);
    atomic_fetch_add(&pool->running, 1);
    envelope_tell(&pool->bus->envelope, LATHE_BUS_WORKER_STARTED, pool->name, w->number, "");
    envelope_tell(&pool->bus->envelope, LATHE_BUS_WORKER_READY, pool->name, w->number, "");
    pool_count(pool->bus, pool->slot + w->number);
    return LATHE_OK;
}

int pool_scale(struct pool *pool, uint32_t workers, enum stop how, struct lathe_error *err)
{
    uint32_t now = atomic_load(&pool->running), before = now;
    int status = LATHE_OK;

    atomic_store(&pool->wanted, workers);
    for (uint32_t i = workers; i < now; i++)
        atomic_store_explicit(&pool->workers[i].stop, (uint32_t)how, memory_order_release);
    if (workers < now)
        callring_ring(pool->ring, INT_MAX);
    for (uint32_t i = now; i-- > workers;) {
        pthread_join(pool->workers[i].thread, NULL);
        atomic_fetch_sub(&pool->running, 1);
        envelope_tell(&pool->bus->envelope, LATHE_BUS_WORKER_STOPPED, pool->name, i + 1, "");
        pool_count(pool->bus, pool->slot + i + 1);
    }
    if (workers < now) /* the ring that woke somebody for a call may have been spent on one that left */
        callring_ring(pool->ring, INT_MAX);
    while (now < workers && (status = start(pool, now, err)) == LATHE_OK)
        now++;
    if (status != LATHE_OK) { /* all or none */
        atomic_store(&pool->wanted, before);
        pool_scale(pool, before, STOP_NOW, NULL);
    }
    return status;
}

/* --- opening and closing ------------------------------------------------------------------ */

struct pool *pool_open(struct async *bus, const struct lathe_service *service, struct lathe_error *err)
{
    const struct lathe_host *host = bus->host;
    const bool local = service->flags & LATHE_SERVICE_LOCAL;
    const uint32_t queue = local ? LOCAL_QUEUE : bus->queue;
    struct pool *pool;
    uint32_t slot = 0;

    while (slot < MAX_POOLS && atomic_load(&bus->pools[slot]))
        slot++;
    if (slot == MAX_POOLS) {
        lathe_fail(err, LATHE_EFULL, "bus async: there are %d services with workers already; remove one first",
                   MAX_POOLS);
        return NULL;
    }
    pool = host->alloc(host->context, sizeof *pool, 64);
    if (pool) {
        pool->ring = host->alloc(host->context, callring_bytes(queue), 64);
        if (pool->ring) {
            callring_init(pool->ring, queue, 0);
            pool->posted = host->alloc(host->context, pool->ring->capacity * sizeof *pool->posted, 64);
            pool->errors = lathe_alloc_array(host, pool->ring->capacity, sizeof *pool->errors);
        }
    }
    if (!pool || !pool->ring || !pool->posted || !pool->errors) {
        lathe_fail(err, LATHE_ENOMEM, "bus async: no memory for a queue of %u calls of service '%s'; make option "
                   "queue smaller", queue, service->name);
        if (pool) {
            lathe_free(host, pool->errors);
            lathe_free(host, pool->posted);
            lathe_free(host, pool->ring);
            lathe_free(host, pool);
        }
        return NULL;
    }
    if (++bus->generations[slot] == 0)
        bus->generations[slot] = 1;
    pool->bus = bus;
    pool->name = service->name;
    pool->slot = slot;
    pool->ticket_base = (uint64_t)slot << 48 | (uint64_t)bus->generations[slot] << 32;
    atomic_store(&bus->pools[slot], pool);
    return pool;
}

void pool_collect_retry(struct pool *pool, uint32_t position)
{
    atomic_store_explicit(&pool->posted[position & (pool->ring->capacity - 1)].ticket, 0, memory_order_release);
    async_collect(pool->bus, pool, position);
}

static bool is_of(struct posted *posted, const struct desk *desk, uint32_t lines)
{
    const struct line *line = atomic_load_explicit(&posted->line, memory_order_acquire);
    return !desk || (line >= desk->lines && line < desk->lines + lines);
}

/* Looks at one cell: true if somebody is still busy with it. */
static bool busy(struct pool *pool, uint32_t position, const struct desk *desk, uint32_t lines)
{
    struct callring *ring = pool->ring;
    struct posted *posted = &pool->posted[position & (ring->capacity - 1)];
    uint32_t ahead = atomic_load_explicit(&callring_cell(ring, position)->turn, memory_order_acquire) - position;
    uint64_t ticket;

    if (ahead > 2)
        return false; /* collected */
    ticket = atomic_load_explicit(&posted->ticket, memory_order_acquire);
    if (ticket == TICKET_RETRY)
        return false; /* the record that retries looks after it */
    if (ahead < 2 || !ticket || atomic_load_explicit(&posted->waiting, memory_order_acquire))
        return true;
    if (is_of(posted, desk, lines)) { /* done, and nobody asked: its ticket is worth nothing from now on */
        if (posted->state == POSTED_QUEUED && posted->position != position) {
            if (!callring_answered(ring, posted->position))
                return true;
            pool_collect_retry(pool, posted->position);
        }
        atomic_store_explicit(&posted->ticket, 0, memory_order_release);
        async_collect(pool->bus, pool, position);
    }
    return false;
}

void pool_settle(struct pool *pool, const struct desk *desk, uint32_t lines)
{
    const uint32_t tail = atomic_load(&pool->ring->tail);
    const _Atomic uint32_t never = 0;
    for (uint32_t p = tail - pool->ring->capacity; p != tail; p++)
        while (busy(pool, p, desk, lines))
            futex_wait(&never, 0, NAP_NS, 0);
    while (atomic_load(&pool->lingering))
        futex_wait(&never, 0, NAP_NS, 0);
}

void pool_close(struct pool *pool)
{
    const struct lathe_host *host = pool->bus->host;
    atomic_store(&pool->bus->pools[pool->slot], NULL);
    lathe_free(host, pool->errors);
    lathe_free(host, pool->posted);
    lathe_free(host, pool->ring);
    lathe_free(host, pool);
}

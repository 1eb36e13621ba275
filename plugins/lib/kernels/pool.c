/* SPDX-License-Identifier: MIT */
/* The thread pool: see pool.h.
 *
 * A job is published as one 64-bit ticket:
 *
 *     generation (24 bits) | items (20) | next item (20)
 *
 * Taking an item is a compare-and-swap that adds 1 to the ticket. It succeeds only while the
 * job is that generation and has an item left, and from then until the item is done the job
 * can't end: so `work` and `arg`, which the caller writes before it publishes, are read after
 * the swap and can't be another job's. The items are in the ticket for the same reason. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <kernels/pool.h>

enum { SPINS = 4096, SPINS_A_YIELD = 256 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t number;
};

struct pool {
    const struct lathe_host *host;
    uint32_t threads;
    void (*work)(void *arg, uint32_t item, uint32_t thread);
    void *arg;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done; /* items of this job; release by who did one, acquire by the caller */
    _Alignas(64) _Atomic uint32_t sleepers;
    _Atomic uint32_t stop;
    pthread_mutex_t mutex;
    pthread_cond_t published;
    struct worker workers[];            /* threads − 1 */
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static uint32_t ticket_items(uint64_t ticket)
{
    return (uint32_t)(ticket >> 20) & POOL_MAX_ITEMS;
}

static uint32_t ticket_next(uint64_t ticket)
{
    return (uint32_t)ticket & POOL_MAX_ITEMS;
}

static int has_items(uint64_t ticket)
{
    return ticket_next(ticket) < ticket_items(ticket);
}

/* Takes and does items until none is left. */
static void take_items(struct pool *pool, uint32_t thread)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while (has_items(ticket)) {
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        pool->work(pool->arg, ticket_next(ticket), thread);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *pool = w->pool;
    while (!atomic_load(&pool->stop)) {
        for (int i = 0; i < SPINS && !has_items(atomic_load_explicit(&pool->ticket, memory_order_relaxed)); i++) {
            relax();
            if (i % SPINS_A_YIELD == SPINS_A_YIELD - 1)
                sched_yield();
        }
        if (!has_items(atomic_load(&pool->ticket))) {
            pthread_mutex_lock(&pool->mutex);
            atomic_fetch_add(&pool->sleepers, 1); /* before the look: the publisher looks after it published */
            while (!has_items(atomic_load(&pool->ticket)) && !atomic_load(&pool->stop))
                pthread_cond_wait(&pool->published, &pool->mutex);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->mutex);
        }
        take_items(pool, w->number);
    }
    return NULL;
}

static void wake(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->published);
    pthread_mutex_unlock(&pool->mutex);
}

void pool_run(struct pool *pool, uint32_t items, void (*work)(void *arg, uint32_t item, uint32_t thread), void *arg)
{
    if (items <= 1 || pool->threads == 1) {
        for (uint32_t i = 0; i < items; i++)
            work(arg, i, 0);
        return;
    }
    pool->work = work;
    pool->arg = arg;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 40) + 1;
    atomic_store(&pool->ticket, generation << 40 | (uint64_t)items << 20);
    if (atomic_load(&pool->sleepers))
        wake(pool);
    take_items(pool, 0);
    for (int i = 1; atomic_load_explicit(&pool->done, memory_order_acquire) != items; i++) {
        relax();
        if (i % SPINS_A_YIELD == 0)
            sched_yield();
    }
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, 1);
    wake(pool);
    for (uint32_t i = 0; i + 1 < pool->threads; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->published);
    pthread_mutex_destroy(&pool->mutex);
    lathe_free(pool->host, pool);
}

int pool_open(const struct lathe_host *host, uint32_t threads, struct pool **out, struct lathe_error *err)
{
    if (threads == 0 || threads > POOL_MAX_THREADS)
        return lathe_fail(err, LATHE_ERANGE, "a pool of %u threads; 1 to %d can be had", threads, POOL_MAX_THREADS);
    size_t bytes = sizeof(struct pool) + (threads - 1) * sizeof(struct worker);
    struct pool *pool = host->alloc(host->context, bytes, 64);
    if (!pool)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a pool of %u threads: %zu bytes wanted", threads, bytes);
    pool->host = host;
    pool->threads = threads;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->published, NULL);
    for (uint32_t i = 0; i + 1 < threads; i++) {
        struct worker *w = &pool->workers[i];
        w->pool = pool;
        w->number = i + 1;
        int failed = pthread_create(&w->thread, NULL, worker_main, w);
        if (failed) {
            pool->threads = i + 1;
            pool_close(pool);
            return lathe_fail(err, LATHE_EIO, "the system starts no thread %u of %u (error %d): ask for fewer threads",
                              i + 1, threads, failed);
        }
    }
    *out = pool;
    return 0;
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->threads;
}

uint32_t pool_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    return 1;
}

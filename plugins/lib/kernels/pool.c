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
 * the swap and can't be another job's. The items are in the ticket for the same reason.
 *
 * A worker whose core another process takes stops in the middle of an item, for a time slice of
 * milliseconds, and the caller waits for it: job after job, with jobs of 20 µs. Where the caller waits
 * far longer than its own items took, it rests the workers that are in an item: they sleep and take
 * nothing, and their core is free for the other process, instead of for half an item a slice.
 * They are tried again later, after twice as long each time that they are late again soon.
 *
 * Sleeping is a futex on `bell`: who waits reads it, looks for work, and sleeps while it has not changed. */
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <kernels/pool.h>

enum {
    SPINS_A_LOOK = 64,       /* pauses between looks at the clock: some µs */
    SPIN_NS = 400 * 1000,    /* a worker waits so long before it sleeps: waking takes up to 200 µs */
    YIELD_NS = 20 * 1000,    /* yields from then on */
    AWAY_NS = 150 * 1000,    /* between two looks: someone else had the core; it sleeps at once */
    LATE_NS = 200 * 1000,    /* the caller's patience with an item, beyond LATE_ITEMS of its own */
    LATE_ITEMS = 4,
    FIRST_REST_NS = 10 * 1000 * 1000,
    LAST_REST_NS = 320 * 1000 * 1000,
    FORGET_RESTS = 4         /* a rest's length without being late: the next one is short again */
};

struct worker {
    _Alignas(64) _Atomic uint32_t in_item; /* 1 from before it takes an item until that one has ended */
    _Atomic uint32_t resting;              /* takes nothing; written by the caller */
    int64_t rest_ns, until_ns;             /* the caller's: the length of its last rest, and that one's end */
    struct pool *pool;
    pthread_t thread;
    uint32_t number;
};

struct pool {
    const struct lathe_host *host;
    uint32_t threads, resting; /* resting: workers that are, the caller's count */
    void (*work)(void *arg, uint32_t item, uint32_t thread);
    void *arg;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done; /* items of this job; release by who did one, acquire by the caller */
    _Alignas(64) _Atomic uint32_t sleepers;
    _Atomic uint32_t bell, stop;
    struct worker workers[];            /* threads − 1 */
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
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

/* Takes one item and does it; 0: none was left. */
static int take_item(struct pool *pool, uint32_t thread, _Atomic uint32_t *in_item)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while (has_items(ticket)) {
        if (in_item)
            atomic_store_explicit(in_item, 1, memory_order_relaxed);
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        pool->work(pool->arg, ticket_next(ticket), thread);
        if (in_item)
            atomic_store_explicit(in_item, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
        return 1;
    }
    if (in_item)
        atomic_store_explicit(in_item, 0, memory_order_relaxed);
    return 0;
}

static int wanted(const struct worker *w)
{
    return !atomic_load_explicit(&w->resting, memory_order_relaxed) &&
           has_items(atomic_load_explicit(&w->pool->ticket, memory_order_relaxed));
}

/* Waits for work without sleeping; 0: there was none for long, or the core was someone else's meanwhile. */
static int spin(const struct worker *w)
{
    int64_t start = now_ns(), before = start;
    while (!atomic_load_explicit(&w->resting, memory_order_relaxed)) {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (wanted(w))
                return 1;
            relax();
        }
        int64_t now = now_ns();
        if (now - start > SPIN_NS || now - before > AWAY_NS || atomic_load_explicit(&w->pool->stop, memory_order_relaxed))
            return 0;
        if ((before = now) - start > YIELD_NS)
            sched_yield();
    }
    return 0;
}

/* Until the bell rings or there is work already. */
static void sleep_until_rung(struct worker *w)
{
    struct pool *pool = w->pool;
    uint32_t bell = atomic_load(&pool->bell);
    atomic_fetch_add(&pool->sleepers, 1); /* before the look: the caller looks for sleepers after it published */
    if (!(has_items(atomic_load(&pool->ticket)) && !atomic_load(&w->resting)) && !atomic_load(&pool->stop))
        syscall(SYS_futex, &pool->bell, FUTEX_WAIT_PRIVATE, bell, NULL, NULL, 0);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void ring(struct pool *pool)
{
    atomic_fetch_add(&pool->bell, 1);
    syscall(SYS_futex, &pool->bell, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->pool->stop)) {
        if (!spin(w))
            sleep_until_rung(w);
        while (!atomic_load_explicit(&w->resting, memory_order_relaxed) && take_item(w->pool, w->number, &w->in_item)) {
        }
    }
    return NULL;
}

/* Workers that are in an item now take no other; their rest is counted from this job's end. */
static void rest_the_late(struct pool *pool, int64_t now)
{
    for (uint32_t i = 0; i + 1 < pool->threads; i++) {
        struct worker *w = &pool->workers[i];
        if (!atomic_load_explicit(&w->in_item, memory_order_relaxed) || atomic_load_explicit(&w->resting, memory_order_relaxed))
            continue;
        if (w->rest_ns == 0 || now - w->until_ns > FORGET_RESTS * w->rest_ns)
            w->rest_ns = FIRST_REST_NS;
        else if (w->rest_ns < LAST_REST_NS)
            w->rest_ns *= 2;
        w->until_ns = INT64_MAX;
        atomic_store_explicit(&w->resting, 1, memory_order_relaxed);
        pool->resting++;
    }
}

static void begin_rests(struct pool *pool)
{
    int64_t now = now_ns();
    for (uint32_t i = 0; i + 1 < pool->threads; i++)
        if (pool->workers[i].until_ns == INT64_MAX)
            pool->workers[i].until_ns = now + pool->workers[i].rest_ns;
}

static void end_rests(struct pool *pool)
{
    int64_t now = now_ns();
    for (uint32_t i = 0; i + 1 < pool->threads; i++) {
        struct worker *w = &pool->workers[i];
        if (!atomic_load_explicit(&w->resting, memory_order_relaxed) || now < w->until_ns)
            continue;
        atomic_store_explicit(&w->resting, 0, memory_order_relaxed);
        pool->resting--;
    }
}

/* For items that others are in. */
static void wait_for_all(struct pool *pool, uint32_t items, uint32_t own, int64_t start)
{
    int64_t ended = 0, patience = 0;
    for (int i = 1; atomic_load_explicit(&pool->done, memory_order_acquire) != items; i++) {
        relax();
        if (i % SPINS_A_LOOK)
            continue;
        int64_t now = now_ns();
        if (!ended) {
            ended = now;
            patience = LATE_NS + (own ? LATE_ITEMS * (now - start) / own : 0);
        }
        if (now - ended > YIELD_NS)
            sched_yield();
        if (own && patience && now - ended > patience) {
            rest_the_late(pool, now);
            patience = 0;
        }
    }
    if (ended && !patience)
        begin_rests(pool);
}

void pool_run(struct pool *pool, uint32_t items, void (*work)(void *arg, uint32_t item, uint32_t thread), void *arg)
{
    if (pool->resting)
        end_rests(pool);
    if (items <= 1 || pool->resting + 1 == pool->threads) {
        for (uint32_t i = 0; i < items; i++)
            work(arg, i, 0);
        return;
    }
    int64_t start = now_ns();
    pool->work = work;
    pool->arg = arg;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 40) + 1;
    atomic_store(&pool->ticket, generation << 40 | (uint64_t)items << 20);
    if (atomic_load(&pool->sleepers) > pool->resting)
        ring(pool);
    uint32_t own = 0;
    while (take_item(pool, 0, NULL))
        own++;
    wait_for_all(pool, items, own, start);
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, 1);
    ring(pool);
    for (uint32_t i = 0; i + 1 < pool->threads; i++)
        pthread_join(pool->workers[i].thread, NULL);
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

int pool_pin(struct pool *pool, struct lathe_error *err)
{
    cpu_set_t all, one;
    uint32_t number = 0;
    if (sched_getaffinity(0, sizeof all, &all) || (uint32_t)CPU_COUNT(&all) < pool->threads)
        return lathe_fail(err, LATHE_ERANGE, "%u threads can't have a core each: this process may use %u", pool->threads,
                          pool_cores());
    for (int cpu = 0; cpu < CPU_SETSIZE && number < pool->threads; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        int failed = number ? pthread_setaffinity_np(pool->workers[number - 1].thread, sizeof one, &one) : 0;
        if (failed)
            return lathe_fail(err, LATHE_EIO, "the system keeps no thread on core %d (error %d): leave them free to move", cpu,
                              failed);
        number++;
    }
    return 0;
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->threads;
}

uint32_t pool_resting(const struct pool *pool)
{
    return pool->resting;
}

uint32_t pool_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    return 1;
}

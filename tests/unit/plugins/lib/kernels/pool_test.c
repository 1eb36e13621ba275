/* SPDX-License-Identifier: MIT */
/* The thread pool: every item once, no two calls with one thread's number at a time, and
 * thousands of short jobs of changing size, which is how a forward uses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kernels/pool.h>

static void *take(void *context, size_t bytes, size_t align)
{
    (void)context;
    void *memory = aligned_alloc(align < 64 ? 64 : align, (bytes + 63) & ~(size_t)63);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

static void give(void *context, void *memory)
{
    (void)context;
    free(memory);
}

static void *refuse(void *context, size_t bytes, size_t align)
{
    (void)context, (void)bytes, (void)align;
    return NULL;
}

static struct lathe_host host = { .size = sizeof host, .alloc = take, .free = give };

struct job {
    atomic_int seen[1000], busy[8];
    uint32_t threads;
};

static void mark(void *arg, uint32_t item, uint32_t thread)
{
    struct job *job = arg;
    if (thread >= job->threads || atomic_fetch_add(&job->busy[thread], 1) != 0)
        abort();
    atomic_fetch_add(&job->seen[item], 1);
    atomic_fetch_sub(&job->busy[thread], 1);
}

static void each_item_is_done_once(void **state)
{
    static struct job job;
    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads += 2) {
        struct pool *pool;
        struct lathe_error err;
        assert_int_equal(pool_open(&host, threads, &pool, &err), 0);
        assert_int_equal(pool_threads(pool), threads);
        for (uint32_t round = 0; round < 3000; round++) {
            uint32_t items = round * 7 % 40;
            memset(&job, 0, sizeof job);
            job.threads = threads;
            pool_run(pool, items, mark, &job);
            for (uint32_t i = 0; i < 1000; i++)
                assert_int_equal(atomic_load(&job.seen[i]), i < items);
            if (round % 1000 == 999)
                usleep(20000); /* until they sleep: the next job must wake them */
        }
        pool_close(pool);
    }
}

static void sleeping_workers_wake_or_are_not_waited_for(void **state)
{
    static struct job job;
    struct pool *pool;
    struct lathe_error err;
    (void)state;
    assert_int_equal(pool_open(&host, 3, &pool, &err), 0);
    for (int i = 0; i < 20; i++) {
        usleep(5000);
        memset(&job, 0, sizeof job);
        job.threads = 3;
        pool_run(pool, 1000, mark, &job);
        for (uint32_t k = 0; k < 1000; k++)
            assert_int_equal(atomic_load(&job.seen[k]), 1);
    }
    pool_close(pool);
}

/* A worker is held up in an item: the job waits for it, and then it rests while the caller goes on alone, and
 * is taken back. Each item is done once all the while. */
struct slow {
    struct job job;
    atomic_int hold, others; /* others: items that workers have done */
};

static void hold_a_worker(void *arg, uint32_t item, uint32_t thread)
{
    struct slow *slow = arg;
    if (thread != 0) {
        if (atomic_exchange(&slow->hold, 0))
            usleep(30000); /* as if its core were taken: 150 × the caller's patience */
        atomic_fetch_add(&slow->others, 1);
    }
    mark(&slow->job, item, thread);
}

static void a_late_worker_rests_and_comes_back(void **state)
{
    static struct slow slow;
    struct pool *pool;
    struct lathe_error err;
    int rested = 0, runs = 0;
    (void)state;
    assert_int_equal(pool_open(&host, 2, &pool, &err), 0);
    slow.job.threads = 2;
    for (int attempt = 0; attempt < 50 && !rested; attempt++) { /* on a busy machine the caller may be later still */
        atomic_store(&slow.hold, 1);
        for (int i = 0; i < 100000 && atomic_load(&slow.hold); i++, runs++)
            pool_run(pool, 200, hold_a_worker, &slow);
        rested = pool_resting(pool) == 1;
    }
    assert_true(rested);
    while (pool_resting(pool)) { /* ends: a rest is at most a third of a second */
        pool_run(pool, 200, hold_a_worker, &slow);
        runs++;
    }
    int before = atomic_load(&slow.others);
    for (; atomic_load(&slow.others) == before; runs++)
        pool_run(pool, 200, hold_a_worker, &slow);
    for (uint32_t k = 0; k < 1000; k++)
        assert_int_equal(atomic_load(&slow.job.seen[k]), k < 200 ? runs : 0);
    pool_close(pool);
}

/* More threads than cores by far: whoever takes items, all of them are done. */
static void an_oversubscribed_pool_goes_on(void **state)
{
    static struct job job;
    struct pool *pool;
    struct lathe_error err;
    uint32_t threads = 4 * pool_cores() < 8 ? 4 * pool_cores() : 8;
    (void)state;
    assert_int_equal(pool_open(&host, threads, &pool, &err), 0);
    memset(&job, 0, sizeof job);
    job.threads = threads;
    for (uint32_t round = 0; round < 2000; round++)
        pool_run(pool, 40, mark, &job);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(atomic_load(&job.seen[i]), 2000);
    pool_close(pool);
}

static void pins_as_many_threads_as_there_are_cores(void **state)
{
    static struct job job;
    struct pool *pool;
    struct lathe_error err;
    (void)state;
    assert_int_equal(pool_open(&host, pool_cores(), &pool, &err), 0);
    assert_int_equal(pool_pin(pool, &err), 0);
    memset(&job, 0, sizeof job);
    job.threads = pool_cores();
    pool_run(pool, 1000, mark, &job);
    for (uint32_t k = 0; k < 1000; k++)
        assert_int_equal(atomic_load(&job.seen[k]), 1);
    pool_close(pool);
    assert_int_equal(pool_open(&host, pool_cores() + 1, &pool, &err), 0);
    assert_int_equal(pool_pin(pool, &err), LATHE_ERANGE);
    pool_close(pool);
}

static void refuses_no_threads_and_no_memory(void **state)
{
    struct lathe_host poor = host;
    struct pool *pool = NULL;
    struct lathe_error err;
    (void)state;
    poor.alloc = refuse;
    assert_int_equal(pool_open(&host, 0, &pool, &err), LATHE_ERANGE);
    assert_int_equal(pool_open(&host, 100000, &pool, &err), LATHE_ERANGE);
    assert_int_equal(pool_open(&poor, 2, &pool, &err), LATHE_ENOMEM);
    pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_is_done_once),
        cmocka_unit_test(sleeping_workers_wake_or_are_not_waited_for),
        cmocka_unit_test(a_late_worker_rests_and_comes_back),
        cmocka_unit_test(an_oversubscribed_pool_goes_on),
        cmocka_unit_test(pins_as_many_threads_as_there_are_cores),
        cmocka_unit_test(refuses_no_threads_and_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

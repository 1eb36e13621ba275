/* SPDX-License-Identifier: MIT */
/* The ring of calls: what one thread can see of it, and many threads with every answer checked,
 * with spinning and without, in one mapping and in two mappings of the same memory. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <bus/callring.h>

static struct callring *ring_new(uint32_t capacity)
{
    struct callring *ring = aligned_alloc(64, callring_bytes(capacity));
    assert_non_null(ring);
    callring_init(ring, capacity, 0);
    return ring;
}

static void rounds_the_capacity_up_to_a_power_of_two(void **state)
{
    static const uint32_t asked[] = { 0, 1, 4, 5, 1000, 65536, 1000000 }, got[] = { 4, 4, 4, 8, 1024, 65536, 65536 };
    (void)state;
    for (int i = 0; i < 7; i++) {
        struct callring *ring = ring_new(asked[i]);
        assert_int_equal(ring->capacity, got[i]);
        assert_int_equal(callring_bytes(asked[i]), sizeof *ring + got[i] * sizeof(struct callring_cell));
        free(ring);
    }
    assert_int_equal(sizeof(struct callring_cell), 64);
}

static void a_call_goes_there_and_back(void **state)
{
    struct callring *ring = ring_new(4);
    uint32_t mine, theirs;
    struct callring_cell *cell;
    (void)state;
    assert_null(callring_next(ring, &theirs));
    for (uint64_t i = 0; i < 20; i++) {
        assert_non_null(cell = callring_take(ring, &mine));
        cell->words[0] = i;
        assert_null(callring_next(ring, &theirs)); /* taken, not filled */
        assert_int_equal(callring_depth(ring), 0);
        callring_fill(ring, mine, 0);
        assert_int_equal(callring_depth(ring), 1);
        assert_ptr_equal(callring_next(ring, &theirs), cell);
        assert_int_equal(theirs, mine);
        assert_int_equal(callring_depth(ring), 1);
        assert_int_equal(callring_wait(ring, mine, 1000, 2000), 0);
        cell->words[0] += 100;
        callring_answer(ring, theirs);
        assert_int_equal(callring_depth(ring), 0);
        assert_int_equal(callring_wait(ring, mine, 0, 0), 1);
        assert_int_equal(cell->words[0], i + 100);
        callring_collect(ring, mine);
    }
    free(ring);
}

static void is_full_until_the_oldest_is_collected(void **state)
{
    struct callring *ring = ring_new(4);
    uint32_t p, q, first;
    (void)state;
    assert_int_equal(callring_take_many(ring, 0, &first), 0);
    assert_int_equal(callring_take_many(ring, 100, &first), 4);
    assert_null(callring_take(ring, &p));
    for (uint32_t i = 0; i < 4; i++)
        callring_fill(ring, first + i, 1);
    for (uint32_t i = 0; i < 4; i++) {
        assert_non_null(callring_next(ring, &q));
        callring_answer(ring, q);
    }
    callring_collect(ring, first + 1); /* not the oldest */
    assert_null(callring_take(ring, &p));
    callring_collect(ring, first);
    assert_int_equal(callring_take_many(ring, 100, &p), 2);
    assert_int_equal(p, first + 4);
    free(ring);
}

static void positions_wrap(void **state)
{
    struct callring *ring = ring_new(8);
    uint32_t start = (uint32_t)-21, mine, theirs;
    (void)state;
    ring->head = ring->tail = start;
    for (uint32_t i = 0; i < 8; i++)
        callring_cell(ring, start + i)->turn = start + i;
    for (uint32_t i = 0; i < 100; i++) {
        assert_non_null(callring_take(ring, &mine));
        assert_int_equal(mine, start + i);
        callring_fill(ring, mine, 0);
        assert_int_equal(callring_depth(ring), 1);
        assert_non_null(callring_next(ring, &theirs));
        callring_answer(ring, theirs);
        assert_int_equal(callring_answered(ring, mine), 1);
        callring_collect(ring, mine);
    }
    free(ring);
}

/* --- threads ------------------------------------------------------------------------ */

enum { CALLERS = 3, WORKERS = 2, CALLS = 2000 };

struct office {
    struct callring *callers, *workers; /* the same ring, maybe mapped twice */
    int64_t spin_ns;
    _Atomic uint32_t stop;
    _Atomic uint64_t wrong, done;
};

static void *work(void *argument)
{
    struct office *o = argument;
    while (!atomic_load(&o->stop)) {
        uint32_t p;
        struct callring_cell *cell = callring_next(o->workers, &p);
        if (!cell) {
            callring_idle(o->workers, o->spin_ns, -1, &o->stop);
            continue;
        }
        cell->words[1] = cell->words[0] * 3 + 1;
        callring_answer(o->workers, p);
    }
    return NULL;
}

static void *call(void *argument)
{
    struct office *o = argument;
    uint64_t self = (uint64_t)(uintptr_t)&self;
    for (uint64_t i = 0; i < CALLS; i++) {
        uint32_t p;
        struct callring_cell *cell;
        while (!(cell = callring_take(o->callers, &p)))
            usleep(10);
        cell->words[0] = self + i;
        callring_fill(o->callers, p, 0);
        while (!callring_wait(o->callers, p, o->spin_ns, i % 3 ? -1 : 50000))
            ;
        o->wrong += cell->words[1] != (self + i) * 3 + 1;
        o->done++;
        callring_collect(o->callers, p);
    }
    return NULL;
}

static void run_office(struct office *o)
{
    pthread_t callers[CALLERS], workers[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&workers[i], NULL, work, o), 0);
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call, o), 0);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    atomic_store(&o->stop, 1);
    callring_ring(o->callers, UINT32_MAX >> 1);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    assert_int_equal(o->wrong, 0);
    assert_int_equal(o->done, CALLERS * CALLS);
    assert_int_equal(callring_depth(o->callers), 0);
}

static void many_threads_get_their_own_answers(void **state)
{
    static const int64_t spins[] = { 0, 1000, 50000 };
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct office o = { .spin_ns = spins[i] };
        o.callers = o.workers = ring_new(4);
        run_office(&o);
        free(o.callers);
    }
}

static void works_between_two_mappings_of_one_memory(void **state)
{
    struct office o = { .spin_ns = 0 };
    size_t bytes = callring_bytes(4);
    int fd = memfd_create("ring", MFD_CLOEXEC);
    (void)state;
    assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    o.callers = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    o.workers = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(o.callers != MAP_FAILED && o.workers != MAP_FAILED && o.callers != o.workers);
    callring_init(o.callers, 4, 1);
    run_office(&o);
    munmap(o.callers, bytes);
    munmap(o.workers, bytes);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_the_capacity_up_to_a_power_of_two),
        cmocka_unit_test(a_call_goes_there_and_back),
        cmocka_unit_test(is_full_until_the_oldest_is_collected),
        cmocka_unit_test(positions_wrap),
        cmocka_unit_test(many_threads_get_their_own_answers),
        cmocka_unit_test(works_between_two_mappings_of_one_memory),
    };
    return cmocka_run_group_tests_name("callring", tests, NULL, NULL);
}

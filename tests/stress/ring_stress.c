/* SPDX-License-Identifier: MIT */
/* The ring alone, as in shared memory: one memfd mapped twice, callers on one mapping, workers
 * on the other; batches, quiet fills, impatient waits, workers that come and go.
 *
 *     ring_stress SECONDS */
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bus/callring.h>

#include "stress.h"

enum { CALLERS = 4, WORKERS = 3, CAPACITY = 16, BATCH = 6 };

static struct callring *callers_ring, *workers_ring;
static _Atomic uint32_t leave[WORKERS];
static _Atomic uint64_t asked, worked;
static int64_t end_ns;

static uint64_t answer_to(uint64_t question)
{
    return question * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

static void *work(void *argument)
{
    uint32_t self = (uint32_t)(uintptr_t)argument, position;
    uint64_t dice = self + 77, done = 0;
    for (;;) {
        struct callring_cell *cell = callring_next(workers_ring, &position);
        if (cell) {
            for (int i = 1; i < CALLRING_WORDS; i++)
                cell->words[i] = answer_to(cell->words[0] + (uint64_t)i);
            stress_dawdle(&dice);
            callring_answer(workers_ring, position);
            done++;
        } else if (atomic_load(&leave[self])) {
            break;
        } else {
            callring_idle(workers_ring, stress_roll(&dice, 3) * 5000, stress_roll(&dice, 2) ? -1 : 1000000,
                          &leave[self]);
        }
    }
    atomic_fetch_add(&worked, done);
    return NULL;
}

static void *call(void *argument)
{
    uint64_t self = (uint64_t)(uintptr_t)argument, dice = self + 1, next = self << 56;
    uint64_t questions[BATCH];
    while (stress_now() < end_ns) {
        uint32_t first, n = callring_take_many(callers_ring, 1 + stress_roll(&dice, BATCH), &first), order;
        if (n == 0) {
            nanosleep(&(struct timespec){ .tv_nsec = 1000 }, NULL);
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            callring_cell(callers_ring, first + i)->words[0] = questions[i] = next++;
            stress_dawdle(&dice);
            callring_fill(callers_ring, first + i, n > 1);
        }
        if (n > 1)
            callring_ring(callers_ring, n);
        order = stress_roll(&dice, n); /* any of them first */
        for (uint32_t k = 0; k < n; k++) {
            uint32_t i = (order + k) % n;
            struct callring_cell *cell = callring_cell(callers_ring, first + i);
            while (!callring_wait(callers_ring, first + i, stress_roll(&dice, 3) * 5000,
                                  stress_roll(&dice, 2) ? -1 : 200000))
                ;
            for (int w = 1; w < CALLRING_WORDS; w++)
                CHECK(cell->words[w] == answer_to(questions[i] + (uint64_t)w), "word %d of call %llu is another's", w,
                      (unsigned long long)questions[i]);
            callring_collect(callers_ring, first + i);
        }
        atomic_fetch_add(&asked, n);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t callers[CALLERS], workers[WORKERS];
    size_t bytes = callring_bytes(CAPACITY);
    int fd = memfd_create("ring", MFD_CLOEXEC);
    uint64_t dice = 5;

    end_ns = stress_now() + (int64_t)(atof(argc > 1 ? argv[1] : "3") * 1e9);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "no shared memory");
    callers_ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    workers_ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(callers_ring != MAP_FAILED && workers_ring != MAP_FAILED, "no mapping");
    callring_init(callers_ring, CAPACITY, 1);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&workers[i], NULL, work, (void *)i) == 0, "no thread");
    for (uintptr_t i = 0; i < CALLERS; i++)
        CHECK(pthread_create(&callers[i], NULL, call, (void *)(i + 1)) == 0, "no thread");
    while (stress_now() < end_ns) { /* one of the others goes, and another comes; worker 0 stays */
        uintptr_t i = 1 + stress_roll(&dice, WORKERS - 1);
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        atomic_store(&leave[i], 1);
        callring_ring(workers_ring, WORKERS);
        pthread_join(workers[i], NULL);
        callring_ring(workers_ring, WORKERS);
        atomic_store(&leave[i], 0);
        CHECK(pthread_create(&workers[i], NULL, work, (void *)i) == 0, "no thread");
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    for (int i = 0; i < WORKERS; i++)
        atomic_store(&leave[i], 1);
    callring_ring(callers_ring, WORKERS);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    CHECK(asked == worked && asked > 0, "%llu calls were made, %llu worked on", (unsigned long long)asked,
          (unsigned long long)worked);
    CHECK(callring_depth(callers_ring) == 0, "something is left in the ring");
    printf("ok      %llu calls between two mappings\n", (unsigned long long)asked);
    return 0;
}

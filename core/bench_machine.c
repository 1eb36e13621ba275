/* SPDX-License-Identifier: MIT */
/* What this machine can do, with as many threads as the test has: bytes read and operations a second.
 *
 * Every thread reads its own share of a buffer of at least eight times the last cache (and 256 MiB),
 * front to back, again and again, eight vectors at once; pages are large where the kernel gives
 * them. Then the loops of bench_peak.c. A round begins for all at a barrier and lasts until the last
 * has ended; the best of the rounds counts, since a limit is what can be reached: what else
 * runs on the machine only takes from it. */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { READ_ROUNDS = 12, PEAK_ROUNDS = 8, SUMS = 8 };
static const size_t LEAST_BUFFER = (size_t)256 << 20;
static const int64_t PEAK_NS = 8000000; /* of one round of a loop */

typedef uint64_t words __attribute__((vector_size(16))); /* eight sums of it fit the registers of any processor */

enum { GATE_CLOSED = 0, GATE_OPEN = 1, GATE_GIVEN_UP = 2 };

struct crew {
    atomic_int gate; /* opened once all threads are there */
    pthread_barrier_t barrier;
    struct bench_loop loops[BENCH_ARITHMETICS];
    struct clock clock;
    uint32_t threads;
};

struct worker {
    struct crew *crew;
    pthread_t thread;
    const unsigned char *share;
    size_t bytes;
    int64_t began_ns[READ_ROUNDS + BENCH_ARITHMETICS * PEAK_ROUNDS];
    int64_t ended_ns[READ_ROUNDS + BENCH_ARITHMETICS * PEAK_ROUNDS];
    double operations[BENCH_ARITHMETICS]; /* of one round */
};

/* A sum of everything, which nobody wants: but it can't be had without reading. */
static void read_all(const unsigned char *from, size_t bytes)
{
    words sums[SUMS] = { { 0 } };
    const words *at = (const words *)(const void *)from;
    for (size_t i = 0; i + SUMS <= bytes / sizeof *at; i += SUMS)
        for (size_t k = 0; k < SUMS; k++)
            sums[k] ^= at[i + k];
    for (size_t k = 0; k < SUMS; k++)
        __asm__ volatile("" : : "m"(sums[k]));
}

/* Rounds of a loop that take about PEAK_NS. */
static uint64_t rounds_of(const struct crew *crew, const struct bench_loop *loop)
{
    for (uint64_t rounds = 10000;; rounds *= 2) {
        int64_t start = clock_now(&crew->clock);
        loop->run(rounds);
        int64_t took = clock_now(&crew->clock) - start;
        if (took > PEAK_NS / 4)
            return rounds * (uint64_t)PEAK_NS / (uint64_t)took + 1;
    }
}

static void *work(void *worker)
{
    struct worker *w = worker;
    struct crew *crew = w->crew;
    int at = 0, gate;
    while ((gate = atomic_load(&crew->gate)) == GATE_CLOSED)
        sched_yield();
    if (gate == GATE_GIVEN_UP)
        return NULL;
    for (int i = 0; i < READ_ROUNDS; i++, at++) {
        pthread_barrier_wait(&crew->barrier);
        w->began_ns[at] = clock_now(&crew->clock);
        read_all(w->share, w->bytes);
        w->ended_ns[at] = clock_now(&crew->clock);
    }
    for (int type = 0; type < BENCH_ARITHMETICS; type++) {
        const struct bench_loop *loop = &crew->loops[type];
        uint64_t rounds = loop->run ? rounds_of(crew, loop) : 0;
        for (int i = 0; i < PEAK_ROUNDS; i++, at++) {
            pthread_barrier_wait(&crew->barrier);
            w->began_ns[at] = clock_now(&crew->clock);
            w->operations[type] = loop->run ? loop->run(rounds) : 0;
            w->ended_ns[at] = clock_now(&crew->clock);
        }
    }
    return NULL;
}

/* The shortest of the rounds from `first` on: from the first thread's start to the last one's end. */
static double best_round(const struct worker *workers, uint32_t threads, int first, int count)
{
    int64_t best = INT64_MAX;
    for (int i = first; i < first + count; i++) {
        int64_t began = INT64_MAX, ended = 0;
        for (uint32_t k = 0; k < threads; k++) {
            began = workers[k].began_ns[i] < began ? workers[k].began_ns[i] : began;
            ended = workers[k].ended_ns[i] > ended ? workers[k].ended_ns[i] : ended;
        }
        best = ended - began < best ? ended - began : best;
    }
    return (double)(best > 0 ? best : 1) * 1e-9;
}

/* Of each thread its own best: loops share nothing, and a thread that waits for a core says nothing of the core. */
static double best_operations(const struct worker *workers, uint32_t threads, int type, int first)
{
    double sum = 0;
    for (uint32_t k = 0; k < threads; k++) {
        int64_t best = INT64_MAX;
        for (int i = first; i < first + PEAK_ROUNDS; i++) {
            int64_t took = workers[k].ended_ns[i] - workers[k].began_ns[i];
            best = took < best ? took : best;
        }
        sum += workers[k].operations[type] / ((double)(best > 0 ? best : 1) * 1e-9);
    }
    return sum;
}

/* The kernel's word first: the C library's is a multiple of it on some processors. */
static size_t last_cache_bytes(void)
{
    size_t largest = 0;
    for (int i = 0; i < 8; i++) {
        char path[80], unit = 0;
        size_t bytes = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *file = fopen(path, "r");
        if (!file)
            break;
        if (fscanf(file, "%zu%c", &bytes, &unit) >= 1)
            bytes <<= unit == 'K' ? 10 : unit == 'M' ? 20 : 0;
        fclose(file);
        largest = bytes > largest ? bytes : largest;
    }
    long l3 = largest ? 0 : sysconf(_SC_LEVEL3_CACHE_SIZE);
    return l3 > 0 ? (size_t)l3 : largest;
}

/* At most an eighth of the memory there is; a multiple of what a round of read_all takes a thread. */
static size_t buffer_size(size_t cache, uint32_t threads)
{
    struct sysinfo memory;
    size_t bytes = 8 * cache > LEAST_BUFFER ? 8 * cache : LEAST_BUFFER, unit = (size_t)threads * sizeof(words) * SUMS;
    if (!sysinfo(&memory) && bytes > (size_t)memory.totalram * memory.mem_unit / 8)
        bytes = (size_t)memory.totalram * memory.mem_unit / 8;
    return bytes < unit ? unit : bytes / unit * unit;
}

/* Runs `work` on all but the first worker's thread, which is the caller's. */
static int run_crew(struct worker *workers, struct crew *crew, struct lathe_error *err)
{
    uint32_t started = 1;
    int code = pthread_barrier_init(&crew->barrier, NULL, crew->threads);
    if (code)
        return lathe_fail(err, LATHE_EIO, "no barrier for %u threads: %s", crew->threads, strerror(code));
    while (started < crew->threads && !(code = pthread_create(&workers[started].thread, NULL, work, &workers[started])))
        started++;
    atomic_store(&crew->gate, code ? GATE_GIVEN_UP : GATE_OPEN);
    work(&workers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&crew->barrier);
    if (code)
        return lathe_fail(err, LATHE_EIO, "thread %u of %u could not be made: %s; ask for fewer with --threads", started + 1,
                          crew->threads, strerror(code));
    return LATHE_OK;
}

int bench_machine_measure(uint32_t threads, struct bench_machine *machine, struct lathe_error *err)
{
    struct crew crew = { .threads = threads };
    *machine = (struct bench_machine){ .threads = threads, .cache_bytes = last_cache_bytes() };
    machine->buffer_bytes = buffer_size(machine->cache_bytes, threads);
    struct worker *workers = calloc(threads, sizeof *workers);
    unsigned char *buffer = mmap(NULL, machine->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int status = workers && buffer != MAP_FAILED
                     ? LATHE_OK
                     : lathe_fail(err, LATHE_ENOMEM, "no memory for %zu bytes to read; --no-limits leaves the limits out",
                                  machine->buffer_bytes);
    if (!status) {
        madvise(buffer, machine->buffer_bytes, MADV_HUGEPAGE); /* if it can't be had: smaller pages */
        memset(buffer, 1, machine->buffer_bytes);
        for (int type = 0; type < BENCH_ARITHMETICS; type++)
            crew.loops[type] = bench_peak_loop(type);
        clock_start(&crew.clock, CLOCK_KIND_REAL);
        for (uint32_t i = 0; i < threads; i++) {
            workers[i].crew = &crew;
            workers[i].bytes = machine->buffer_bytes / threads;
            workers[i].share = buffer + i * workers[i].bytes;
        }
        status = run_crew(workers, &crew, err);
    }
    if (!status) {
        machine->read_bytes_s = (double)machine->buffer_bytes / best_round(workers, threads, 0, READ_ROUNDS);
        for (int type = 0; type < BENCH_ARITHMETICS; type++) {
            machine->set[type] = crew.loops[type].set;
            machine->ops_s[type] = best_operations(workers, threads, type, READ_ROUNDS + type * PEAK_ROUNDS);
        }
    }
    if (buffer != MAP_FAILED)
        munmap(buffer, machine->buffer_bytes);
    free(workers);
    return status;
}

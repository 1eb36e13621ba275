/* SPDX-License-Identifier: MIT */
/* A clock for measuring how long calls take: the processor's time-stamp counter where it runs
 * at one rate whatever the processor does ("invariant": CPUID 80000007h, EDX bit 8), scaled
 * to nanoseconds; clock_gettime elsewhere. Only differences mean anything: rows are stamped
 * with the host's clock. */
#ifndef LATHE_LIB_BUS_TICKS_H
#define LATHE_LIB_BUS_TICKS_H

#include <stdint.h>
#include <time.h>
#if defined __x86_64__
#include <x86intrin.h>
#endif

struct ticks {
    uint64_t scale; /* nanoseconds a tick, times 2^32; 0: clock_gettime */
};

/* Calibrates against CLOCK_MONOTONIC over about 2 ms, the best of several; once a process, later
 * calls copy the first's answer. [any] */
void ticks_open(struct ticks *ticks);

static inline uint64_t ticks_read(const struct ticks *ticks)
{
#if defined __x86_64__
    if (ticks->scale)
        return __rdtsc();
#endif
    struct timespec t;
    (void)ticks;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Never negative: counters of two cores may differ by a little. */
static inline int64_t ticks_ns(const struct ticks *ticks, uint64_t from, uint64_t to)
{
    uint64_t n = (int64_t)(to - from) > 0 ? to - from : 0;
    return (int64_t)(ticks->scale ? (uint64_t)(((unsigned __int128)n * ticks->scale) >> 32) : n);
}

#endif

/* SPDX-License-Identifier: MIT */
/* See ticks.h. A reading is a pair (counter, clock); the counter is read before and after the
 * clock, and of several tries the one with the narrowest bracket counts, so that a thread that
 * was put aside in between spoils nothing. Two pairs, 2 ms apart, give the rate; at a bracket
 * of 50 ns that is known to 0.005 %. */
#include "ticks.h"

#include <pthread.h>
#if defined __x86_64__
#include <cpuid.h>
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ticks measured;

#if defined __x86_64__
enum { TRIES = 16, SPAN_NS = 2000000 };

static int invariant(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & 1u << 8);
}

static void pair(uint64_t *ticks, uint64_t *ns)
{
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        struct timespec t;
        uint64_t from = __rdtsc(), to;
        clock_gettime(CLOCK_MONOTONIC, &t);
        to = __rdtsc();
        if (to - from < narrowest) {
            narrowest = to - from;
            *ticks = from + (to - from) / 2;
            *ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        }
    }
}

static void calibrate(void)
{
    uint64_t ticks[2] = { 0 }, ns[2] = { 0 };
    if (!invariant())
        return;
    pair(&ticks[0], &ns[0]);
    do
        pair(&ticks[1], &ns[1]);
    while (ns[1] - ns[0] < SPAN_NS);
    if ((int64_t)(ticks[1] - ticks[0]) > 0)
        measured.scale = (uint64_t)(((unsigned __int128)(ns[1] - ns[0]) << 32) / (ticks[1] - ticks[0]));
}
#else
static void calibrate(void)
{
}
#endif

void ticks_open(struct ticks *ticks)
{
    pthread_once(&once, calibrate);
    *ticks = measured;
}

/* SPDX-License-Identifier: MIT */
#include "clock.h"

#include <time.h>

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void clock_start(struct clock *clock, int kind)
{
    clock->kind = kind;
    clock->epoch_ns = kind == CLOCK_KIND_REAL ? monotonic_ns() : 0;
    clock->now_ns = 0;
}

int64_t clock_now(const struct clock *clock)
{
    return clock->kind == CLOCK_KIND_REAL ? monotonic_ns() - clock->epoch_ns : clock->now_ns;
}

void clock_wait_until(struct clock *clock, int64_t when_ns)
{
    if (clock->kind == CLOCK_KIND_VIRTUAL) {
        if (when_ns > clock->now_ns)
            clock->now_ns = when_ns;
        return;
    }
    int64_t absolute = clock->epoch_ns + when_ns;
    struct timespec t = { .tv_sec = absolute / 1000000000, .tv_nsec = absolute % 1000000000 };
    if (when_ns > clock_now(clock))
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The clock is asked, never assumed: `real` reads the machine's monotonic clock, `virtual`
 * stands where it was last put. Times are nanoseconds since the clock was started. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdint.h>

enum clock_kind { CLOCK_KIND_REAL = 0, CLOCK_KIND_VIRTUAL = 1 };

struct clock {
    int kind;
    int64_t epoch_ns; /* real: the machine's monotonic time at start */
    int64_t now_ns;   /* virtual: where it stands */
};

void clock_start(struct clock *clock, int kind);
int64_t clock_now(const struct clock *clock); /* [any] */
/* Real: sleeps until then (returns early on a signal). Virtual: jumps; never back. [engine] */
void clock_wait_until(struct clock *clock, int64_t when_ns);

#endif

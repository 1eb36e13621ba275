/* SPDX-License-Identifier: MIT */
/* A host whose clock stands still until the test, or somebody who waits, moves it. */
#ifndef TESTS_BUS_FAKE_HOST_H
#define TESTS_BUS_FAKE_HOST_H

#include "support/counting_host.h"

struct fake_host {
    struct counting_host counting; /* first: the host's context is both */
    int64_t time_ns;
    uint32_t waits;
    int64_t oversleep_ns;          /* added to every wait */
};

static int64_t fake_now(void *context)
{
    return ((struct fake_host *)context)->time_ns;
}

static void fake_wait_until(void *context, int64_t when_ns)
{
    struct fake_host *h = context;
    h->waits++;
    if (when_ns > h->time_ns)
        h->time_ns = when_ns;
    h->time_ns += h->oversleep_ns;
}

static inline const struct lathe_host *fake_host_init(struct fake_host *h)
{
    memset(h, 0, sizeof *h);
    counting_host_init(&h->counting);
    h->counting.host.now_ns = fake_now;
    h->counting.host.wait_until = fake_wait_until;
    h->time_ns = 1000;
    return &h->counting.host;
}

#endif

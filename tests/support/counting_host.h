/* SPDX-License-Identifier: MIT */
/* A host table for tests that use a library or plugin without the registry: memory that is
 * counted, may be limited, and may fail at the nth call; no log, no metrics. Its clock is virtual:
 * it ticks by one when it is read, jumps when somebody waits, and is the test's to set. */
#ifndef TESTS_COUNTING_HOST_H
#define TESTS_COUNTING_HOST_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/host.h>

struct counting_host {
    struct lathe_host host;
    atomic_size_t live_bytes, peak_bytes, calls, live_blocks;
    _Atomic int64_t now_ns;
    size_t fail_at;     /* the call that fails, from 1; 0: none */
    size_t limit_bytes; /* more than that fails; 0: no limit */
};

struct counted_block {
    size_t bytes;
    void *base;
};

static void *counting_alloc(void *context, size_t bytes, size_t align)
{
    struct counting_host *h = context;
    size_t call = atomic_fetch_add(&h->calls, 1) + 1;
    size_t room = align > 16 ? align : 16;
    if (h->fail_at && call == h->fail_at)
        return NULL;
    if (bytes > SIZE_MAX / 2 || (h->limit_bytes && bytes > h->limit_bytes - atomic_load(&h->live_bytes)))
        return NULL;
    void *base = calloc(1, bytes + room + sizeof(struct counted_block));
    if (!base)
        return NULL;
    uintptr_t at = ((uintptr_t)base + sizeof(struct counted_block) + room - 1) & ~(uintptr_t)(room - 1);
    ((struct counted_block *)at)[-1] = (struct counted_block){bytes, base};
    size_t live = atomic_fetch_add(&h->live_bytes, bytes) + bytes;
    size_t peak = atomic_load(&h->peak_bytes);
    while (live > peak && !atomic_compare_exchange_weak(&h->peak_bytes, &peak, live))
        ;
    atomic_fetch_add(&h->live_blocks, 1);
    return (void *)at;
}

static void counting_free(void *context, void *memory)
{
    struct counting_host *h = context;
    if (!memory)
        return;
    struct counted_block block = ((struct counted_block *)memory)[-1];
    atomic_fetch_sub(&h->live_bytes, block.bytes);
    atomic_fetch_sub(&h->live_blocks, 1);
    free(block.base);
}

static void counting_log(void *context, int level, uint64_t correlation, const char *message)
{
    (void)context, (void)level, (void)correlation, (void)message;
}

static int64_t counting_now(void *context)
{
    return atomic_fetch_add(&((struct counting_host *)context)->now_ns, 1) + 1;
}

static void counting_wait_until(void *context, int64_t when_ns)
{
    struct counting_host *h = context;
    int64_t now = atomic_load(&h->now_ns);
    while (now < when_ns && !atomic_compare_exchange_weak(&h->now_ns, &now, when_ns))
        ;
}

static int counting_metric(void *context, const char *name, const char *unit, const char *help)
{
    (void)context, (void)name, (void)unit, (void)help;
    return 0;
}

static void counting_record(void *context, int metric, double value)
{
    (void)context, (void)metric, (void)value;
}

static uint32_t counting_roles(void *context)
{
    (void)context;
    return LATHE_THREAD_MAIN | LATHE_THREAD_LOADER | LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER;
}

static void counting_set_roles(void *context, uint32_t roles)
{
    (void)context, (void)roles;
}

/* `h` stays where it is while the table is used. */
static inline const struct lathe_host *counting_host_init(struct counting_host *h)
{
    memset(h, 0, sizeof *h);
    h->host = (struct lathe_host){.size = sizeof h->host, .abi = LATHE_PLUGIN_ABI, .context = h,
                                  .log = counting_log, .now_ns = counting_now, .alloc = counting_alloc,
                                  .free = counting_free, .metric = counting_metric, .record = counting_record,
                                  .thread_roles = counting_roles, .set_thread_roles = counting_set_roles,
                                  .wait_until = counting_wait_until};
    return &h->host;
}

#endif

/* SPDX-License-Identifier: MIT */
#include "serve.h"

#include <time.h>

#include "bus/futex.h"

int64_t machine_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A few nanoseconds instead of twenty, behind by a tick of the scheduler at most: enough to say that a
 * call is stuck. */
static int64_t coarse_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void bell_ring(struct wire_bus *bus)
{
    atomic_fetch_add(&bus->bell, 1); /* seq_cst, as the look at sleepers: pairs with poll's */
    if (atomic_load(&bus->sleepers))
        futex_wake(&bus->bell, INT32_MAX, 1);
}

static const void *message_at(const struct serving *s, uint64_t offset)
{
    return offset % WIRE_ALIGN == 0 && offset <= s->bytes - sizeof(struct lathe_message) ? s->base + offset : NULL;
}

static int work(const struct serving *s, const uint64_t *words, struct lathe_error *err)
{
    uint32_t number = (uint32_t)words[WORD_METHOD];
    const struct lathe_message *in = message_at(s, words[WORD_IN]);
    void *out = (void *)(uintptr_t)message_at(s, words[WORD_OUT]);
    if (number >= atomic_load_explicit(s->method_count, memory_order_acquire) || !in || !out)
        return lathe_fail(err, LATHE_EINTERNAL, "bus shm: a call of method %u with messages at %llu and %llu is none",
                          number, (unsigned long long)words[WORD_IN], (unsigned long long)words[WORD_OUT]);
    int64_t deadline = in->deadline_ns;
    if (deadline && s->host->now_ns(s->host->context) > deadline)
        return lathe_fail(err, LATHE_EDEADLINE, "its deadline passed while it waited for a worker");
    return s->methods[number].function(s->methods[number].self, in, out, err);
}

void serve_ring(struct serving *s)
{
    for (;;) {
        uint32_t position, stop = atomic_load(&s->stop);
        struct callring_cell *cell = callring_next(s->ring, &position);
        if (!cell) {
            if (stop) /* it was set before the ring was found empty */
                return;
            callring_idle(s->ring, s->spin_ns, -1, &s->stop);
            continue;
        }
        uint64_t *words = cell->words, flags = words[WORD_METHOD] >> 32;
        struct lathe_error *err = &s->errors[position & (s->capacity - 1)];
        err->code = LATHE_OK;
        err->message[0] = '\0';
        atomic_store_explicit(&s->control->begun_ns, coarse_ns(), memory_order_relaxed);
        uint64_t started_ns = flags & WIRE_STAMPED ? (uint64_t)s->host->now_ns(s->host->context) : 0;
        words[WORD_STATUS] = (uint64_t)(int64_t)work(s, words, err);
        words[WORD_STARTED] = started_ns; /* not earlier: the caller polls the line */
        words[WORD_ENDED] = flags & WIRE_STAMPED ? (uint64_t)s->host->now_ns(s->host->context) : 0;
        atomic_store_explicit(&s->control->begun_ns, 0, memory_order_relaxed);
        callring_answer(s->ring, position);
        if (flags & WIRE_POSTED)
            bell_ring((struct wire_bus *)(void *)s->base);
    }
}

/* SPDX-License-Identifier: MIT */
/* See breaker.h. The window is a word of bits that is shifted at each attempt; while it holds
 * no failure and is full, a success changes nothing, so nothing is written. Every change of
 * state happens under the lock; `state` is read without it, and read again inside. */
#include "breaker.h"

#include <string.h>

#include <lathe/host.h>

void breaker_open(struct breaker *breaker, const struct breaker_options *options)
{
    memset(breaker, 0, sizeof *breaker);
    breaker->options = *options;
    pthread_mutex_init(&breaker->lock, NULL);
}

void breaker_close(struct breaker *breaker)
{
    pthread_mutex_destroy(&breaker->lock);
}

bool breaker_is_failure(int status)
{
    switch (status) {
    case LATHE_EIO:
    case LATHE_EBUSY:
    case LATHE_EUNAVAILABLE:
    case LATHE_ENOMEM:
    case LATHE_EINTERNAL:
    case LATHE_EDEADLINE:
    case LATHE_ELOST:
        return true;
    default:
        return status > 0; /* no status at all: a broken promise */
    }
}

static int64_t later(int64_t now_ns, int64_t by_ns)
{
    int64_t sum;
    return __builtin_add_overflow(now_ns, by_ns, &sum) ? INT64_MAX : sum;
}

static void set_state(struct breaker *b, int state)
{
    atomic_store_explicit(&b->state, state, memory_order_release);
}

bool breaker_admit(struct breaker *b, const struct lathe_host *host, uint64_t *trial, int64_t *retry_ns, int *event)
{
    bool admitted = true;
    *trial = 0;
    *event = 0;
    if (atomic_load_explicit(&b->state, memory_order_relaxed) == LATHE_BREAKER_CLOSED)
        return true;
    int64_t now_ns = host->now_ns(host->context);
    pthread_mutex_lock(&b->lock);
    int state = atomic_load_explicit(&b->state, memory_order_relaxed);
    if (state == LATHE_BREAKER_OPEN && now_ns < later(b->opened_ns, b->options.open_ns)) {
        *retry_ns = later(b->opened_ns, b->options.open_ns);
        admitted = false;
    } else if (state == LATHE_BREAKER_HALF_OPEN && b->trial) {
        *retry_ns = later(now_ns, b->options.open_ns); /* by then the trial is judged, mostly */
        admitted = false;
    } else if (state != LATHE_BREAKER_CLOSED) {
        if (state == LATHE_BREAKER_OPEN) {
            set_state(b, LATHE_BREAKER_HALF_OPEN);
            *event = LATHE_BUS_BREAKER_HALF_OPEN;
        }
        *trial = b->trial = ++b->next_trial;
    }
    pthread_mutex_unlock(&b->lock);
    return admitted;
}

/* Shifts the attempt in; the window as it is then. */
static uint64_t remember(struct breaker *b, bool failed)
{
    uint64_t mask = b->options.window >= 64 ? UINT64_MAX : (UINT64_C(1) << b->options.window) - 1;
    uint64_t old = atomic_load_explicit(&b->failures, memory_order_relaxed), new;
    uint32_t seen = atomic_load_explicit(&b->seen, memory_order_relaxed);
    while (seen < b->options.window &&
           !atomic_compare_exchange_weak_explicit(&b->seen, &seen, seen + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
    do {
        new = (old << 1 | failed) & mask;
        if (new == old && !failed)
            return new;
    } while (!atomic_compare_exchange_weak_explicit(&b->failures, &old, new, memory_order_relaxed,
                                                    memory_order_relaxed));
    return new;
}

static void open_again(struct breaker *b, int64_t now_ns, int *event)
{
    b->opened_ns = now_ns;
    b->trial = 0;
    set_state(b, LATHE_BREAKER_OPEN);
    *event = LATHE_BUS_BREAKER_OPENED;
}

void breaker_settle(struct breaker *b, const struct lathe_host *host, uint64_t trial, bool failed, int *event)
{
    *event = 0;
    if (b->options.window == 0)
        return;
    if (!failed && trial == 0) {
        if (atomic_load_explicit(&b->state, memory_order_relaxed) == LATHE_BREAKER_CLOSED)
            remember(b, false);
        return;
    }
    int64_t now_ns = failed ? host->now_ns(host->context) : 0;
    pthread_mutex_lock(&b->lock);
    int state = atomic_load_explicit(&b->state, memory_order_relaxed);
    if (state == LATHE_BREAKER_CLOSED && trial == 0) {
        int failures = __builtin_popcountll(remember(b, true));
        uint32_t seen = atomic_load_explicit(&b->seen, memory_order_relaxed);
        if (seen >= b->options.minimum && failures + 1e-9 >= b->options.share * seen)
            open_again(b, now_ns, event);
    } else if (state == LATHE_BREAKER_HALF_OPEN && trial != 0 && trial == b->trial) {
        if (failed) {
            open_again(b, now_ns, event);
        } else {
            b->trial = 0;
            atomic_store_explicit(&b->failures, 0, memory_order_relaxed);
            atomic_store_explicit(&b->seen, 0, memory_order_relaxed);
            set_state(b, LATHE_BREAKER_CLOSED);
            *event = LATHE_BUS_BREAKER_CLOSED;
        }
    }
    pthread_mutex_unlock(&b->lock);
}

void breaker_forget(struct breaker *b, uint64_t trial)
{
    if (trial == 0)
        return;
    pthread_mutex_lock(&b->lock);
    if (b->trial == trial)
        b->trial = 0;
    pthread_mutex_unlock(&b->lock);
}

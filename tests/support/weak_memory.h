/* SPDX-License-Identifier: MIT */
/* A simulator of C11's memory model, in the manner of relacy: it runs real code on simulated
 * threads and lets every load return any value that the model allows.
 *
 *   word     every store that was made to it, in order, each with the view it published
 *   view     for each word the oldest store that may still be read, and a vector clock
 *   load     picks a store not older than the thread's view; acquire joins what it published
 *   store    appended; a release publishes the thread's view, a relaxed one that of its last fence
 *   RMW      reads the newest store and goes on with what that one published (release sequence)
 *   fence    seq_cst: joins with a view that all such fences share, both ways
 *   plain    accesses are checked against the vector clocks: unordered ones are a data race
 *   futex    sleeps while the newest store is the value; asleep for ever is a deadlock
 *
 * Threads are coroutines (ucontext); a seeded random scheduler may switch before every access.
 * Stores enter their word's modification order as they are executed, and loads don't return
 * values from the future: less than C11 allows, as with relacy.
 *
 * A mutation makes one access of the code weaker: named by function, operation and the text
 * of its operand, so that the code under test needs no variants. Include in one .c only. */
#ifndef TESTS_WEAK_MEMORY_H
#define TESTS_WEAK_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { WM_THREADS = 6, WM_WORDS = 26, WM_STORES = 2048, WM_PLAIN = 64, WM_STEPS = 20000, WM_STACK = 64 * 1024 };

struct wm_view {
    uint16_t at[WM_WORDS + WM_THREADS]; /* the words' oldest readable stores, then the clock */
};

struct wm_word {
    const void *address;
    uint32_t count;
    struct wm_store {
        uint32_t value;
        struct wm_view view;
    } stores[WM_STORES];
};

struct wm_plain {
    const void *address;
    uint32_t value_writer;
    uint16_t written, read[WM_THREADS];
};

struct wm_thread {
    ucontext_t context;
    void (*run)(void *argument);
    void *argument;
    struct wm_view view, acquired, released; /* acquired: by relaxed loads, for the next fence */
    bool done;
    const struct wm_word *asleep;
    char stack[WM_STACK];
};

/* One access made weaker. `operation`: load, store, add, cas, fence, wake. */
struct wm_mutation {
    const char *function, *operation, *operand;
    enum { WM_RELAXED, WM_READS_ZERO, WM_DROPPED } how;
};

static struct {
    struct wm_word words[WM_WORDS];
    struct wm_plain plain[WM_PLAIN];
    struct wm_thread threads[WM_THREADS]; /* 0: the program that starts the others */
    struct wm_view fences;
    uint32_t word_count, plain_count, thread_count, current, steps;
    uint64_t random;
    int64_t now_ns;
    bool spurious;                        /* futexes return for no reason now and then */
    const struct wm_mutation *mutation;
    const char *failure;
} wm;

static uint32_t wm_roll(uint32_t below)
{
    wm.random ^= wm.random << 13;
    wm.random ^= wm.random >> 7;
    wm.random ^= wm.random << 17;
    return (uint32_t)((wm.random >> 32) * below >> 32);
}

static void wm_join(struct wm_view *view, const struct wm_view *other)
{
    for (int i = 0; i < WM_WORDS + WM_THREADS; i++)
        view->at[i] = view->at[i] > other->at[i] ? view->at[i] : other->at[i];
}

/* --- threads ------------------------------------------------------------------------- */

static void wm_switch(uint32_t to)
{
    uint32_t from = wm.current;
    if (to != from) {
        wm.current = to;
        swapcontext(&wm.threads[from].context, &wm.threads[to].context);
    }
}

/* Ends the schedule; the coroutines are left where they are. */
static void wm_fail(const char *what)
{
    if (!wm.failure)
        wm.failure = what;
    if (wm.current != 0)
        wm_switch(0);
}

/* Someone who can go on, the current one half of the time. */
static void wm_schedule(void)
{
    uint32_t able[WM_THREADS], n = 0, unfinished = 0;
    struct wm_thread *me = &wm.threads[wm.current];
    if (wm.current == 0)
        return;
    if (++wm.steps > WM_STEPS) {
        wm_fail("it goes on for ever");
        return;
    }
    if (!me->done && !me->asleep && wm_roll(2))
        return;
    for (uint32_t i = 1; i <= wm.thread_count; i++) {
        unfinished += !wm.threads[i].done;
        if (!wm.threads[i].done && !wm.threads[i].asleep)
            able[n++] = i;
    }
    if (n > 0)
        wm_switch(able[wm_roll(n)]);
    else if (unfinished)
        wm_fail("everybody sleeps: a wake-up was lost");
    else
        wm_switch(0);
}

static void wm_main(void)
{
    struct wm_thread *me = &wm.threads[wm.current];
    me->run(me->argument);
    me->done = true;
    wm_schedule();
    abort(); /* not reached: nobody resumes a finished thread */
}

static void wm_begin(uint64_t seed, const struct wm_mutation *mutation)
{
    for (uint32_t i = 0; i < wm.word_count; i++)
        wm.words[i].count = 0;
    wm.word_count = wm.plain_count = wm.thread_count = wm.current = wm.steps = 0;
    wm.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    wm.mutation = mutation;
    wm.failure = NULL;
    wm.spurious = false;
    memset(&wm.fences, 0, sizeof wm.fences);
    memset(&wm.threads[0].view, 0, sizeof wm.threads[0].view);
    wm.threads[0].acquired = wm.threads[0].released = wm.threads[0].view;
}

static void wm_start(void (*run)(void *), void *argument)
{
    uint32_t i = ++wm.thread_count;
    struct wm_thread *t = &wm.threads[i];
    t->run = run;
    t->argument = argument;
    t->done = false;
    t->asleep = NULL;
    t->view = wm.threads[0].view; /* what came before its start is seen */
    memset(&t->acquired, 0, sizeof t->acquired);
    memset(&t->released, 0, sizeof t->released);
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = t->stack;
    t->context.uc_stack.ss_size = sizeof t->stack;
    t->context.uc_link = NULL;
    makecontext(&t->context, wm_main, 0);
}

/* Until all are done, or something is wrong: NULL or what. */
static const char *wm_run(void)
{
    wm_switch(1 + wm_roll(wm.thread_count));
    return wm.failure;
}

/* --- accesses ------------------------------------------------------------------------ */

static struct wm_word *wm_word(const volatile void *address)
{
    const void *a = (const void *)(uintptr_t)address;
    for (uint32_t i = 0; i < wm.word_count; i++)
        if (wm.words[i].address == a)
            return &wm.words[i];
    if (wm.word_count == WM_WORDS)
        abort();
    wm.words[wm.word_count].address = a;
    wm.words[wm.word_count].count = 1; /* 0 at the beginning of time */
    memset(&wm.words[wm.word_count].stores[0], 0, sizeof wm.words[0].stores[0]);
    return &wm.words[wm.word_count++];
}

/* How this access is mutated, if it is: -1 if not. */
static int wm_mutated(const char *function, const char *operation, const char *operand)
{
    const struct wm_mutation *m = wm.mutation;
    return m && !strcmp(m->function, function) && !strcmp(m->operation, operation) &&
                   (!m->operand || !strcmp(m->operand, operand)) ? (int)m->how : -1;
}

static void wm_read(struct wm_thread *t, struct wm_word *w, uint32_t at, int order)
{
    const struct wm_store *s = &w->stores[at];
    t->view.at[w - wm.words] = (uint16_t)at;
    wm_join(order == memory_order_relaxed || order == memory_order_release ? &t->acquired : &t->view, &s->view);
}

static void wm_write(struct wm_thread *t, struct wm_word *w, uint32_t value, int order,
                     const struct wm_view *sequence)
{
    struct wm_store *s = &w->stores[w->count];
    if (w->count == WM_STORES - 1)
        abort();
    t->view.at[w - wm.words] = (uint16_t)w->count++;
    t->view.at[WM_WORDS + wm.current]++;
    s->value = value;
    s->view = order == memory_order_relaxed || order == memory_order_acquire ? t->released : t->view;
    s->view.at[w - wm.words] = t->view.at[w - wm.words];
    if (sequence)
        wm_join(&s->view, sequence);
    t->view.at[WM_WORDS + wm.current]++; /* what comes now isn't published by it */
}

/* Which store a load may return. */
static uint32_t wm_pick(const struct wm_thread *t, const struct wm_word *w)
{
    uint32_t oldest = t->view.at[w - wm.words], newest = w->count - 1;
    return oldest == newest || wm_roll(2) ? newest : oldest + wm_roll(newest - oldest + 1);
}

static uint32_t wm_load(const volatile void *address, int order, const char *function, const char *operand)
{
    int how = wm_mutated(function, "load", operand);
    struct wm_thread *t;
    struct wm_word *w;
    uint32_t at;
    wm_schedule();
    t = &wm.threads[wm.current];
    w = wm_word(address);
    at = wm_pick(t, w);
    wm_read(t, w, at, how == WM_RELAXED ? memory_order_relaxed : order);
    return how == WM_READS_ZERO ? 0 : w->stores[at].value;
}

static void wm_store(const volatile void *address, uint32_t value, int order, const char *function,
                     const char *operand)
{
    if (wm_mutated(function, "store", operand) == WM_RELAXED)
        order = memory_order_relaxed;
    wm_schedule();
    wm_write(&wm.threads[wm.current], wm_word(address), value, order, NULL);
}

static uint32_t wm_add(const volatile void *address, uint32_t value, int order, const char *function,
                       const char *operand)
{
    struct wm_thread *t;
    struct wm_word *w;
    uint32_t at;
    if (wm_mutated(function, "add", operand) == WM_RELAXED)
        order = memory_order_relaxed;
    wm_schedule();
    t = &wm.threads[wm.current];
    w = wm_word(address);
    at = w->count - 1;
    wm_read(t, w, at, order);
    wm_write(t, w, w->stores[at].value + value, order, &w->stores[at].view);
    return w->stores[at].value;
}

/* Weak: may fail for no reason; a failure is a relaxed load. */
static bool wm_cas(const volatile void *address, uint32_t *expected, uint32_t value, int order)
{
    struct wm_thread *t;
    struct wm_word *w;
    uint32_t at;
    wm_schedule();
    t = &wm.threads[wm.current];
    w = wm_word(address);
    at = wm_pick(t, w);
    if (w->stores[at].value == *expected)
        at = w->count - 1;
    if (w->stores[at].value != *expected || wm_roll(16) == 0) {
        *expected = w->stores[at].value;
        wm_read(t, w, at, memory_order_relaxed);
        return false;
    }
    wm_read(t, w, at, order);
    wm_write(t, w, value, order, &w->stores[at].view);
    return true;
}

static void wm_fence(const char *function)
{
    struct wm_thread *t;
    wm_schedule();
    if (wm_mutated(function, "fence", "") >= 0)
        return;
    t = &wm.threads[wm.current];
    wm_join(&t->view, &t->acquired);
    wm_join(&t->view, &wm.fences);
    wm.fences = t->view;
    t->released = t->view;
    t->view.at[WM_WORDS + wm.current]++;
}

static void wm_futex_wait(const volatile void *address, uint32_t value)
{
    struct wm_word *w;
    wm_schedule();
    w = wm_word(address);
    if (w->stores[w->count - 1].value != value || (wm.spurious && wm_roll(4) == 0))
        return;
    wm.threads[wm.current].asleep = w;
    wm_schedule();
}

static void wm_futex_wake(const volatile void *address, uint32_t count, const char *function)
{
    struct wm_word *w;
    uint32_t from;
    wm_schedule();
    if (wm_mutated(function, "wake", "") >= 0)
        return;
    w = wm_word(address);
    from = wm_roll(wm.thread_count);
    for (uint32_t i = 0; i < wm.thread_count && count; i++) {
        struct wm_thread *t = &wm.threads[1 + (from + i) % wm.thread_count];
        if (t->asleep == w) {
            t->asleep = NULL;
            count--;
        }
    }
}

/* --- plain words ---------------------------------------------------------------------- */

static void wm_plain_access(const void *address, bool writes)
{
    const struct wm_view *view = &wm.threads[wm.current].view;
    uint16_t now = view->at[WM_WORDS + wm.current];
    struct wm_plain *p = wm.plain;
    while (p < wm.plain + wm.plain_count && p->address != address)
        p++;
    if (p == wm.plain + wm.plain_count) {
        if (wm.plain_count == WM_PLAIN)
            abort();
        wm.plain_count++;
        *p = (struct wm_plain){ .address = address };
    }
    if (p->value_writer != wm.current && p->written > view->at[WM_WORDS + p->value_writer])
        wm_fail("a data race: a plain word was read or written before its last writer's work was seen");
    for (uint32_t i = 0; writes && i < WM_THREADS; i++)
        if (i != wm.current && p->read[i] > view->at[WM_WORDS + i])
            wm_fail("a data race: a plain word was written while somebody still read it");
    if (writes) {
        p->value_writer = wm.current;
        p->written = now + 1;
    } else {
        p->read[wm.current] = now + 1;
    }
    wm.threads[wm.current].view.at[WM_WORDS + wm.current]++;
}

#endif

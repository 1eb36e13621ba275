/* SPDX-License-Identifier: MIT */
/* The ring that callring.h describes.
 *
 * Which ordering pairs with which:
 *
 *     fill    turn = p + 1        release ─▶ acquire   next            the call's words
 *     answer  turn = p + 2        release ─▶ acquire   answered, wait  the answer's words
 *     collect turn = p + capacity release ─▶ acquire   take            who read them is done with them
 *
 * No other access orders anything; each of these is needed, and so is each fence: the model
 * test takes them away one by one, and sees calls torn or lost.
 *
 *     worker  sleepers + 1 │fence│ looks at turn, stop       wait: sleeper = 1 │fence│ looks at turn
 *     ring    turn or stop │fence│ looks at sleepers         answer: turn      │fence│ looks at sleeper
 *
 * Of two fences one comes first, so at least one of the two sides sees what the other did: the
 * sleeper stays up, or it is woken. What it then waits on has changed already or the system
 * call sees it change, since futex_wait looks at the word once more by itself.
 *
 * One waker for several calls. A worker that finds nothing at the head sleeps, though calls
 * behind the head may be filled (their callers were quicker); the head's caller then wakes one
 * worker for all of them. So a worker that takes a call looks at the next one, and wakes a
 * colleague for it. It looks only while somebody sleeps.
 *
 * Spinning begins with BRISK looks that nothing delays; then it relaxes the processor between
 * looks, asks the clock every LOOKS looks, the first time after as many, and yields every
 * YIELD_NS, so that of more spinning threads than processors each has its turn; one yield costs
 * about half a microsecond. Too many brisk looks pull the line away from whoever writes it
 * (there and back, median of about 140 and 110 rounds on an EPYC of family 26; bench_bus):
 *
 *     BRISK                             64      2
 *     cores near    ring alone          97     78 ns      bus/async  122    104 ns
 *     cores far     ring alone         348    394 ns      bus/async  390    406 ns */
#include "callring.h"

#ifndef CALLRING_LOAD /* a test brings its own */
#include <sched.h>

#include "futex.h"

#define CALLRING_LOAD(word, order) atomic_load_explicit(word, order)
#define CALLRING_STORE(word, value, order) atomic_store_explicit(word, value, order)
#define CALLRING_CAS(word, expected, value, order) \
    atomic_compare_exchange_weak_explicit(word, expected, value, order, memory_order_relaxed)
#define CALLRING_ADD(word, value, order) atomic_fetch_add_explicit(word, value, order)
#define CALLRING_FENCE() atomic_thread_fence(memory_order_seq_cst)
#define CALLRING_FUTEX_WAIT(word, value, timeout_ns, shared) futex_wait(word, value, timeout_ns, shared)
#define CALLRING_FUTEX_WAKE(word, count, shared) futex_wake(word, count, shared)
#define CALLRING_NOW() now_ns()
#define CALLRING_LOOK() ((void)0)
#define CALLRING_RELAX() cpu_relax()
#define CALLRING_YIELD() sched_yield()

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#if defined __SANITIZE_THREAD__ && !defined __clang__ /* it doesn't follow fences; no plain word relies on one here */
#pragma GCC diagnostic ignored "-Wtsan"
#endif
#endif

enum { BRISK = 2, LOOKS = 32, YIELD_NS = 4000 };

size_t callring_bytes(uint32_t capacity)
{
    uint32_t rounded = CALLRING_MIN;
    while (rounded < capacity && rounded < CALLRING_MAX)
        rounded *= 2;
    return sizeof(struct callring) + (size_t)rounded * sizeof(struct callring_cell);
}

void callring_init(struct callring *ring, uint32_t capacity, int shared)
{
    ring->capacity = (uint32_t)((callring_bytes(capacity) - sizeof *ring) / sizeof ring->cells[0]);
    ring->shared = shared != 0;
    CALLRING_STORE(&ring->tail, 0, memory_order_relaxed);
    CALLRING_STORE(&ring->head, 0, memory_order_relaxed);
    CALLRING_STORE(&ring->bell, 0, memory_order_relaxed);
    CALLRING_STORE(&ring->sleepers, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < ring->capacity; i++) {
        CALLRING_STORE(&ring->cells[i].turn, i, memory_order_relaxed);
        CALLRING_STORE(&ring->cells[i].sleeper, 0, memory_order_relaxed);
    }
}

/* --- spinning ---------------------------------------------------------------------- */

/* A wait that spins first, and may end. */
struct patience {
    uint32_t looks;
    int64_t begun_ns, yielded_ns, now_ns;
};

/* Called after a look in vain: 0 when spin_ns are over. */
static inline int spin_on(struct patience *p, int64_t spin_ns)
{
    if (spin_ns <= 0)
        return 0;
    if (p->looks < BRISK) {
        p->looks++;
        CALLRING_LOOK();
        return 1;
    }
    CALLRING_RELAX();
    if (p->looks++ % LOOKS)
        return 1;
    p->now_ns = CALLRING_NOW();
    if (p->begun_ns == 0)
        p->begun_ns = p->yielded_ns = p->now_ns;
    if (p->now_ns - p->begun_ns >= spin_ns)
        return 0;
    if (p->now_ns - p->yielded_ns >= YIELD_NS) {
        CALLRING_YIELD();
        p->yielded_ns = p->now_ns;
    }
    return 1;
}

/* When a timeout that begins now is over; it does not wrap. */
static int64_t until(int64_t timeout_ns)
{
    int64_t end;
    return timeout_ns <= 0 ? timeout_ns : __builtin_add_overflow(CALLRING_NOW(), timeout_ns, &end) ? INT64_MAX : end;
}

/* What is left of it for the next sleep: < 0 for ever, 0 over. */
static int64_t left(int64_t timeout_ns, int64_t end_ns)
{
    int64_t now;
    if (timeout_ns <= 0)
        return timeout_ns;
    now = CALLRING_NOW();
    return now >= end_ns ? 0 : end_ns - now;
}

/* --- the caller's side --------------------------------------------------------------- */

struct callring_cell *callring_take(struct callring *ring, uint32_t *position)
{
    return callring_take_many(ring, 1, position) ? callring_cell(ring, *position) : NULL;
}

uint32_t callring_take_many(struct callring *ring, uint32_t count, uint32_t *first)
{
    uint32_t p = CALLRING_LOAD(&ring->tail, memory_order_relaxed);
    for (;;) {
        uint32_t n = 0, turn = p;
        while (n < count && n < ring->capacity &&
               (turn = CALLRING_LOAD(&callring_cell(ring, p + n)->turn, memory_order_acquire)) == p + n)
            n++;
        if (n == 0 && (int32_t)(turn - p) <= 0) /* of the lap before: not collected yet, or count is 0 */
            return 0;
        if (n == 0) /* another caller took it */
            p = CALLRING_LOAD(&ring->tail, memory_order_relaxed);
        else if (CALLRING_CAS(&ring->tail, &p, p + n, memory_order_relaxed)) {
            *first = p;
            return n;
        }
    }
}

void callring_fill(struct callring *ring, uint32_t position, int quiet)
{
    CALLRING_STORE(&callring_cell(ring, position)->turn, position + 1, memory_order_release);
    if (!quiet)
        callring_ring(ring, 1);
}

void callring_ring(struct callring *ring, uint32_t count)
{
    CALLRING_FENCE(); /* pairs with idle's */
    if (CALLRING_LOAD(&ring->sleepers, memory_order_relaxed)) {
        CALLRING_ADD(&ring->bell, 1, memory_order_relaxed);
        CALLRING_FUTEX_WAKE(&ring->bell, count, (int)ring->shared);
    }
}

int callring_answered(struct callring *ring, uint32_t position)
{
    return CALLRING_LOAD(&callring_cell(ring, position)->turn, memory_order_acquire) == position + 2;
}

int callring_spin(struct callring *ring, uint32_t position, int64_t spin_ns)
{
    struct patience patience = { 0 };
    do {
        if (callring_answered(ring, position))
            return 1;
    } while (spin_on(&patience, spin_ns));
    return 0;
}

int callring_wait(struct callring *ring, uint32_t position, int64_t spin_ns, int64_t timeout_ns)
{
    struct callring_cell *cell = callring_cell(ring, position);
    int64_t end_ns, rest_ns;
    int done;

    if (callring_answered(ring, position))
        return 1;
    if (timeout_ns == 0)
        return 0;
    end_ns = until(timeout_ns);
    if (spin_ns > 0 && callring_spin(ring, position, timeout_ns > 0 && timeout_ns < spin_ns ? timeout_ns : spin_ns))
        return 1;

    CALLRING_STORE(&cell->sleeper, 1, memory_order_relaxed);
    CALLRING_FENCE(); /* pairs with answer's */
    while (!(done = callring_answered(ring, position)) && (rest_ns = left(timeout_ns, end_ns)) != 0)
        CALLRING_FUTEX_WAIT(&cell->turn, position + 1, rest_ns, (int)ring->shared);
    CALLRING_STORE(&cell->sleeper, 0, memory_order_relaxed);
    return done;
}

void callring_collect(struct callring *ring, uint32_t position)
{
    CALLRING_STORE(&callring_cell(ring, position)->turn, position + ring->capacity, memory_order_release);
}

/* --- the worker's side ---------------------------------------------------------------- */

/* A call may be had: the one at the head is filled, or the head has moved on since. */
static int may_have(struct callring *ring)
{
    uint32_t p = CALLRING_LOAD(&ring->head, memory_order_relaxed);
    return (int32_t)(CALLRING_LOAD(&callring_cell(ring, p)->turn, memory_order_relaxed) - (p + 1)) >= 0;
}

struct callring_cell *callring_next(struct callring *ring, uint32_t *position)
{
    uint32_t p = CALLRING_LOAD(&ring->head, memory_order_relaxed);
    for (;;) {
        struct callring_cell *cell = callring_cell(ring, p);
        int32_t ahead = (int32_t)(CALLRING_LOAD(&cell->turn, memory_order_acquire) - (p + 1));
        if (ahead < 0)
            return NULL;
        if (ahead > 0) /* another worker took it */
            p = CALLRING_LOAD(&ring->head, memory_order_relaxed);
        else if (CALLRING_CAS(&ring->head, &p, p + 1, memory_order_relaxed)) {
            *position = p;
            if (CALLRING_LOAD(&ring->sleepers, memory_order_relaxed) &&
                CALLRING_LOAD(&callring_cell(ring, p + 1)->turn, memory_order_relaxed) == p + 2)
                callring_ring(ring, 1);
            return cell;
        }
    }
}

int callring_idle(struct callring *ring, int64_t spin_ns, int64_t timeout_ns, const _Atomic uint32_t *stop)
{
    struct patience patience = { 0 };
    uint32_t bell;

    if (timeout_ns >= 0 && timeout_ns < spin_ns)
        spin_ns = timeout_ns;
    do {
        if (may_have(ring) || (stop && CALLRING_LOAD(stop, memory_order_relaxed)))
            return 1;
    } while (spin_on(&patience, spin_ns));
    if (timeout_ns >= 0 && (timeout_ns -= spin_ns > 0 ? spin_ns : 0) <= 0)
        return 0;

    bell = CALLRING_LOAD(&ring->bell, memory_order_relaxed);
    CALLRING_ADD(&ring->sleepers, 1, memory_order_relaxed);
    CALLRING_FENCE(); /* pairs with ring's */
    if (!may_have(ring) && !(stop && CALLRING_LOAD(stop, memory_order_relaxed)))
        CALLRING_FUTEX_WAIT(&ring->bell, bell, timeout_ns, (int)ring->shared);
    CALLRING_ADD(&ring->sleepers, (uint32_t)-1, memory_order_relaxed);
    return 0;
}

void callring_answer(struct callring *ring, uint32_t position)
{
    struct callring_cell *cell = callring_cell(ring, position);
    CALLRING_STORE(&cell->turn, position + 2, memory_order_release);
    CALLRING_FENCE(); /* pairs with wait's */
    if (CALLRING_LOAD(&cell->sleeper, memory_order_relaxed))
        CALLRING_FUTEX_WAKE(&cell->turn, 1, (int)ring->shared);
}

uint32_t callring_depth(struct callring *ring)
{
    uint32_t tail = CALLRING_LOAD(&ring->tail, memory_order_relaxed), depth = 0;
    for (uint32_t p = tail - ring->capacity; p != tail; p++)
        depth += CALLRING_LOAD(&callring_cell(ring, p)->turn, memory_order_relaxed) == p + 1;
    return depth;
}

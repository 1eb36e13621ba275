/* SPDX-License-Identifier: MIT */
/* The caller's side: cells written and read, waiting, calls that wait. The cell of a `call` is
 * its caller's until the answer was read and counted.
 *
 * A worker that calls a service of its own ring does the work itself: waiting for itself would
 * take for ever. One that waits for a posted call there works on what is queued meanwhile. */
#include "async.h"

#include <limits.h>
#include <sched.h>

#include <bus/futex.h>

enum { ROOM_YIELDS = 20, ROOM_NAP_NS = 1000000, HELP_NAP_NS = 200000 };

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* When a timeout > 0 is over, and what is left of it then; others stay what they are. */
int64_t async_end_of(int64_t timeout_ns)
{
    int64_t end;
    return timeout_ns <= 0 ? 0 : __builtin_add_overflow(monotonic_ns(), timeout_ns, &end) ? INT64_MAX : end;
}

int64_t async_left_of(int64_t timeout_ns, int64_t end_ns)
{
    int64_t left;
    if (timeout_ns <= 0)
        return timeout_ns;
    left = end_ns - monotonic_ns();
    return left > 0 ? left : 0;
}

int64_t async_host_now(const struct async *bus)
{
    return bus->host->now_ns(bus->host->context);
}

static bool on_own_worker(const struct pool *pool)
{
    return async_this_worker && async_this_worker->pool == pool;
}

/* --- room ---------------------------------------------------------------------------- */

/* The cell is free again. No fence stands between it and the look at who waits for room: a waiter
 * that is missed by it looks again by itself within ROOM_NAP_NS. */
void async_collect(struct async *bus, struct pool *pool, uint32_t position)
{
    callring_collect(pool->ring, position);
    if (atomic_load_explicit(&bus->room_wanted, memory_order_relaxed) && atomic_exchange(&bus->room_wanted, 0)) {
        atomic_fetch_add(&bus->room, 1);
        futex_wake(&bus->room, INT_MAX, 0);
    }
}

/* A cell, if need be when there is room; NULL when the deadline passed first: *err says so. */
static struct callring_cell *take(struct line *line, const struct lathe_message *in, uint32_t *position,
                                  struct envelope_attempt *attempt, struct lathe_error *err)
{
    struct pool *pool = line->pool;
    struct async *bus = pool->bus;
    struct callring_cell *cell = callring_take(pool->ring, position);

    if (cell)
        return cell;
    atomic_fetch_add(&pool->lingering, 1);
    for (uint32_t i = 0;; i++) {
        uint32_t seen = atomic_load(&bus->room);
        atomic_store(&bus->room_wanted, 1);
        if ((cell = callring_take(pool->ring, position)))
            break;
        if (in->deadline_ns && async_host_now(bus) >= in->deadline_ns) {
            envelope_withdraw(&line->envelope, attempt);
            lathe_fail(err, LATHE_EDEADLINE, "bus async: the queue of '%s' was full until the call's deadline had "
                       "passed; wait for posted calls, or make option queue larger than %u", pool->name,
                       pool->ring->capacity);
            break;
        }
        if (i < ROOM_YIELDS)
            sched_yield();
        else
            futex_wait(&bus->room, seen, ROOM_NAP_NS, 0);
    }
    atomic_fetch_sub(&pool->lingering, 1);
    return cell;
}

/* --- there and back ------------------------------------------------------------------- */

void async_write_cell(struct callring_cell *cell, struct line *line, const struct lathe_message *in, void *out,
                       struct lathe_error *err, bool posted)
{
    cell->words[WORD_LINE] = (uintptr_t)line;
    cell->words[WORD_IN] = (uintptr_t)in;
    cell->words[WORD_OUT] = (uintptr_t)out;
    cell->words[WORD_ERROR] = (uintptr_t)err;
    cell->words[WORD_STATUS] = posted;
    cell->words[WORD_DEADLINE] = (uint64_t)in->deadline_ns;
}

int async_read_cell(const struct callring_cell *cell, struct envelope_attempt *attempt)
{
    attempt->worker = (uint32_t)(cell->words[WORD_STATUS] >> 32);
    attempt->started_ns = (int64_t)cell->words[WORD_STARTED];
    attempt->ended_ns = (int64_t)cell->words[WORD_ENDED];
    return (int32_t)(uint32_t)cell->words[WORD_STATUS];
}

/* What a worker of this ring does instead of waiting. */
static int help(struct pool *pool, uint32_t position, int64_t timeout_ns)
{
    const int64_t end_ns = async_end_of(timeout_ns);
    while (!callring_answered(pool->ring, position)) {
        uint32_t other;
        struct callring_cell *cell;
        int64_t left = async_left_of(timeout_ns, end_ns);
        if (left == 0)
            return 0;
        if ((cell = callring_next(pool->ring, &other)))
            pool_serve(pool, cell, other, async_this_worker->number);
        else
            callring_wait(pool->ring, position, 0, left < 0 || left > HELP_NAP_NS ? HELP_NAP_NS : left);
    }
    return 1;
}

/* 1: answered. 0: timeout_ns (< 0: never) passed. */
int async_await(struct line *line, uint32_t position, int64_t timeout_ns)
{
    struct pool *pool = line->pool;
    const struct async *bus = pool->bus;
    uint32_t vain;
    int64_t spin_ns;

    if (callring_answered(pool->ring, position))
        return 1;
    if (timeout_ns == 0)
        return 0;
    if (on_own_worker(pool))
        return help(pool, position, timeout_ns);
    vain = atomic_load_explicit(&line->vain, memory_order_relaxed);
    spin_ns = spin_for(bus, vain);
    if (timeout_ns > 0 && timeout_ns <= spin_ns)
        return callring_spin(pool->ring, position, timeout_ns);
    if (spin_ns > 0 && callring_spin(pool->ring, position, spin_ns)) {
        if (vain)
            atomic_store_explicit(&line->vain, 0, memory_order_relaxed);
        return 1;
    }
    if (bus->spin_ns > 0)
        atomic_store_explicit(&line->vain, vain + 1, memory_order_relaxed);
    return callring_wait(pool->ring, position, 0, timeout_ns < 0 ? timeout_ns : timeout_ns - spin_ns);
}

int async_call(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct line *line = self;
    struct pool *pool = line->pool;
    struct async *bus = pool->bus;
    struct envelope_attempt attempt = { 0 };
    bool lingering = false, again = true;
    int status;

    if (line->local || on_own_worker(pool))
        return envelope_call(&line->envelope, line->function, line->self, in, out, err);
    while (again && (status = envelope_admit(&line->envelope, in, &attempt, err)) == LATHE_OK) {
        uint32_t position;
        struct callring_cell *cell = take(line, in, &position, &attempt, err);
        if (!cell) {
            status = LATHE_EDEADLINE;
            break;
        }
        async_write_cell(cell, line, in, out, err, false);
        callring_fill(pool->ring, position, 0);
        async_await(line, position, -1);
        status = async_read_cell(cell, &attempt);
        again = envelope_settle(&line->envelope, in, out, status, &attempt, err);
        if (again && !lingering) {
            lingering = true;
            atomic_fetch_add(&pool->lingering, 1);
        }
        async_collect(bus, pool, position); /* the last touch of what remove_service gives back */
        if (again)
            bus->host->wait_until(bus->host->context, attempt.retry_ns);
    }
    if (lingering)
        atomic_fetch_sub(&pool->lingering, 1);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* A bounded ring of calls: several callers put in, several workers take out, and the answer
 * comes back in the same cell. The one queue of all buses that have workers; it may lie in
 * shared memory, since it holds no pointer of its own.
 *
 *     caller   take ─▶ (write the cell's words) ─▶ fill ─▶ … ─▶ wait ─▶ (read them) ─▶ collect
 *     worker                               next ─▶ (work) ─▶ answer
 *
 * Position p, counted since the beginning modulo 2^32, lies in cell p % capacity. The cell's
 * `turn` says whose it is, so that no other word is shared for the hand-over:
 *
 *     p              free: the caller that takes position p may write it
 *     p + 1          filled: the worker that takes position p may read it
 *     p + 2          answered: the caller may read it and collect it
 *     p + capacity   free again, a lap later
 *
 * (Dmitry Vyukov's bounded queue, with the way back added.) One cache line there, one back:
 * a call costs what two cores need to pass a line to and fro. A cell that its caller has not
 * collected stops the ring a lap later: callers then find it full (LATHE_EFULL), which is the
 * back-pressure that is wanted.
 *
 * Ordering. A store of `turn` releases what its writer wrote to the cell; whoever reads that
 * turn acquires it. head and tail only count; they order nothing. Sleeping: the sleeper says
 * so, then looks once more; the waker changes the word, then looks for sleepers; a full fence
 * between the two on either side, so that one of them sees the other.
 *
 * The test includes this header's .c with the atomics replaced by a simulator of C11's memory
 * model: keep to the CALLRING_ macros for every access of shared words. */
#ifndef LATHE_LIB_BUS_CALLRING_H
#define LATHE_LIB_BUS_CALLRING_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { CALLRING_MIN = 4, CALLRING_MAX = 1 << 16, CALLRING_WORDS = 7 };

struct callring_cell {
    alignas(64) _Atomic uint32_t turn;
    _Atomic uint32_t sleeper;       /* 1: the caller sleeps on `turn` */
    uint64_t words[CALLRING_WORDS]; /* the call, then the answer: their meaning is the bus's */
};

struct callring {
    uint32_t capacity;              /* power of two, CALLRING_MIN … CALLRING_MAX */
    uint32_t shared;                /* 1: between processes (futexes are told so) */
    alignas(64) _Atomic uint32_t tail; /* the next position to take: callers */
    alignas(64) _Atomic uint32_t head; /* the next position to work on: workers */
    alignas(64) _Atomic uint32_t bell; /* what workers sleep on; changes when it rings */
    _Atomic uint32_t sleepers;         /* workers asleep or about to be */
    struct callring_cell cells[];
};

/* Bytes of a ring; 64-byte aligned memory is the caller's to provide. */
size_t callring_bytes(uint32_t capacity);
/* Before anybody else sees it. `capacity` is rounded up to a power of two. */
void callring_init(struct callring *ring, uint32_t capacity, int shared);

static inline struct callring_cell *callring_cell(struct callring *ring, uint32_t position)
{
    return &ring->cells[position & (ring->capacity - 1)];
}

/* The caller's side. [any] */

/* A cell of one's own to write, and its position; NULL: full. */
struct callring_cell *callring_take(struct callring *ring, uint32_t *position);
/* Up to `count` of them, one behind the other, from *first on: how many; 0: full. */
uint32_t callring_take_many(struct callring *ring, uint32_t count, uint32_t *first);
/* Hands it to the workers. Wakes one if any sleeps, unless `quiet`: the last of a batch rings. */
void callring_fill(struct callring *ring, uint32_t position, int quiet);
/* Wakes up to `count` sleeping workers. */
void callring_ring(struct callring *ring, uint32_t count);
/* 1 if it is answered. */
int callring_answered(struct callring *ring, uint32_t position);
/* 1 as soon as it is answered, 0 when spin_ns passed: never sleeps. */
int callring_spin(struct callring *ring, uint32_t position, int64_t spin_ns);
/* Until it is answered: 1; 0 when `timeout_ns` (monotonic; < 0: never) passed. Spins for spin_ns,
 * yielding now and then, before it sleeps. */
int callring_wait(struct callring *ring, uint32_t position, int64_t spin_ns, int64_t timeout_ns);
/* The answer was read: the cell is free. */
void callring_collect(struct callring *ring, uint32_t position);

/* The worker's side. [worker] */

/* The oldest call that nobody has taken; NULL: there is none now. */
struct callring_cell *callring_next(struct callring *ring, uint32_t *position);
/* Spins for spin_ns, then sleeps, until there may be a call, `*stop` is not 0, or timeout_ns
 * passed. `stop` may be NULL; whoever sets it rings. 1 if spinning was enough, so that a worker
 * may learn how long to spin. */
int callring_idle(struct callring *ring, int64_t spin_ns, int64_t timeout_ns, const _Atomic uint32_t *stop);
/* The answer is written: the caller may have it. Wakes it if it sleeps. */
void callring_answer(struct callring *ring, uint32_t position);

/* Taken from the ring and not answered, or filled and not taken. A guess while others work. */
uint32_t callring_depth(struct callring *ring);

#endif

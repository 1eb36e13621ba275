/* SPDX-License-Identifier: MIT */
/* A pool of threads for one forward's loops: short parallel loops, hundreds a forward.
 *
 *     caller     publish(items) ── takes items ── takes items ── waits for the last ─▶ return
 *     workers    spin ─────────── take items ──── take items ── spin … sleep
 *
 * Items are taken one at a time, so that a thread that the system holds up holds up no more
 * than its item, and nobody waits for a thread that hasn't begun. Waiting spins first (a
 * sleeping thread takes 70–200 µs to wake on small virtual machines), then yields,
 * since the processor may be shared, and then sleeps. A worker that is held up in the middle of an
 * item, since another process has its core, is left out for a while: with one of two cores
 * taken, two threads are about as quick as one, not a tenth of it (pool.c; measured.md). */
#ifndef LATHE_KERNELS_POOL_H
#define LATHE_KERNELS_POOL_H

#include <lathe/host.h>

struct pool;

enum { POOL_MAX_ITEMS = (1 << 20) - 1, POOL_MAX_THREADS = 1024 };

/* `threads` counts the caller: 1 starts none. [loader] */
int pool_open(const struct lathe_host *host, uint32_t threads, struct pool **pool, struct lathe_error *err);
void pool_close(struct pool *pool); /* joins; NULL is ignored. [loader] */

/* Keeps each worker on a core of its own, the second of the process's and so on; the caller may move. Of use
 * only to one pool that has the machine for itself. LATHE_ERANGE: more threads than cores. [loader] */
int pool_pin(struct pool *pool, struct lathe_error *err);

/* Calls work(arg, item, thread) for each item below `items`, `thread` below the pool's own
 * number and different for each call at one time; returns when all are done. One at a time
 * for a pool; a worker must not call it. [engine & running] */
void pool_run(struct pool *pool, uint32_t items, void (*work)(void *arg, uint32_t item, uint32_t thread), void *arg);

uint32_t pool_threads(const struct pool *pool);
uint32_t pool_resting(const struct pool *pool); /* how many of them are left out just now. [engine & running] */

/* How many threads the system lets this process run at once. */
uint32_t pool_cores(void);

#endif

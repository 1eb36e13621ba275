/* SPDX-License-Identifier: MIT */
/* What stands behind `struct lathe_host`: an instance's own context, thread roles, and an
 * allocator that tests can make fail. */
#ifndef CORE_HOST_H
#define CORE_HOST_H

#include <stdint.h>

#include "clock.h"
#include <lathe/host.h>

struct host_context;
struct producer;

enum { HOST_MAX_METRICS = 64, HOST_MAX_DEFERRED = 64 };

/* `name` ("scheduler/fcfs") is copied: it stands in log lines and metric rows. NULL when
 * memory ran out. The table is filled in place and holds the context. [main or loader] */
struct host_context *host_context_create(const char *name, struct clock *clock, struct lathe_host *host);
void host_context_destroy(struct host_context *context); /* NULL is ignored */

/* Clock and producer of a run; NULLs detach. Not while the instance is used. [main] */
void host_context_attach(struct host_context *context, struct clock *clock, struct producer *producer);

/* Writes what a bus's worker threads recorded since; one load when there is nothing. [engine] */
void host_context_drain(struct host_context *context);

/* What the plugin registered. `unit` and `help` may be "". */
struct host_metric {
    const char *name, *unit, *help;
};
int host_context_metrics(const struct host_context *context);
struct host_metric host_context_metric(const struct host_context *context, int number);

/* What is allocated between host_pack(1) and host_pack(0), by a plugin or by host_take, and is not
 * large, lies side by side in huge pages. For the replicas of a simulation: a thousand of them, each
 * with two dozen small arrays, make a step wait for the look-up of addresses more than for anything
 * else. Nothing of it is used again before all that lies beside it was freed, so it is for what lives
 * as long as its replica. [main] */
void host_pack(int on);
/* As a plugin's alloc: zeroed, for 64 bytes aligned, NULL when there is none. */
void *host_take(size_t bytes);
void host_give(void *memory); /* NULL is ignored */

/* Bits of enum lathe_thread for the calling thread. A thread that never said has, if it is
 * the process's first, all of them (the simple single-threaded face), else LOADER and WORKER. */
void host_set_thread_roles(uint32_t roles);
uint32_t host_thread_roles(void);

/* For tests, process-wide. After n more successful allocations through any host table, one
 * fails and the hook is off again; 0: the next one; −1: off. */
void host_fail_alloc_after(int64_t n);
/* 1 while the failure asked for has not happened yet. */
int host_fail_alloc_pending(void);
/* Allocations ever made, and those not yet freed: tests look for leaks and for allocations
 * inside the step loop. */
uint64_t host_alloc_count(void);
uint64_t host_alloc_live(void);

#endif

/* SPDX-License-Identifier: MIT */
/* The worker's side of a ring: the same loop in a worker process and on a worker thread. */
#ifndef SHM_SERVE_H
#define SHM_SERVE_H

#include "wire.h"

struct served_method {
    lathe_method *function;
    void *self;
};

struct serving {
    const struct lathe_host *host;
    unsigned char *base;               /* of the mapping */
    uint64_t bytes;
    struct callring *ring;
    uint32_t capacity;
    struct lathe_error *errors;
    struct wire_worker *control;
    const struct served_method *methods;
    const _Atomic uint32_t *method_count;
    int64_t spin_ns;
    _Atomic uint32_t stop;             /* 1: finish what was filled, then return; ring after setting it */
};

/* Until stop. [the worker's serving thread] */
void serve_ring(struct serving *serving);

int64_t machine_ns(void); /* CLOCK_MONOTONIC: the clock of what both processes measure */

/* A posted call is done, or a worker came or went. [any] */
void bell_ring(struct wire_bus *bus);

extern const struct lathe_bus_worker shm_bus_worker;

#endif

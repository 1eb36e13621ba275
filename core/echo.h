/* SPDX-License-Identifier: MIT */
/* Service "echo": what a bus is measured with. It does as little as a service can, so that what
 * is left is the bus.
 *
 *     ping   lathe_empty → lathe_empty        nothing at all
 *     sum    echo_in → echo_out               reads every byte of the payload where it lies
 *     take   echo_in → echo_out               copies the payload into memory of its own first
 *
 * A recipe of kind "echo" makes it in a worker process (recipe.c). */
#ifndef CORE_ECHO_H
#define CORE_ECHO_H

#include <lathe/bus.h>
#include <lathe/message.h>

enum { ECHO_MAX_BYTES = 1 << 28 };

struct echo_in {
    struct lathe_message head;
    struct lathe_span payload; /* uint64_t; at most ECHO_MAX_BYTES */
};

struct echo_out {
    struct lathe_message head;
    uint64_t sum;
};

struct echo; /* the memory that `take` copies into */
struct echo *echo_create(void); /* NULL: no memory */
void echo_destroy(struct echo *echo);

/* Its methods, for a service that somebody else names; `methods` has room for ECHO_METHODS. */
enum { ECHO_METHODS = 3 };
void echo_methods(struct echo *echo, struct lathe_service_method *methods);

uint64_t echo_sum(const uint64_t *words, uint64_t count);

#endif

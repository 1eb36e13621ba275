/* SPDX-License-Identifier: MIT */
/* What conformance programs share: a plugin opened as the host would, without the host.
 *
 *     <kind>_conformance plugin.so [option=value …]
 *
 * Each program is a list of behaviours that every plugin of its kind must show, and one
 * scenario, a whole life from create to destroy, which is repeated with an allocator whose
 * nth call fails, for n = 1, 2, … until it gets through: each time it must end in
 * LATHE_ENOMEM or succeed, and give all memory back.
 *
 * Exit status: 0, 1 (a broken promise, named), 77 (skipped: a required option is missing). */
#ifndef TESTS_CONFORMANCE_HARNESS_H
#define TESTS_CONFORMANCE_HARNESS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/counting_host.h"
#include <lathe/random.h>

/* A promise; ends the program when it is broken. */
#define CHECK(condition, ...) \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__))
__attribute__((noreturn, format(printf, 4, 5))) void check_failed(const char *file, int line, const char *condition,
                                                                  const char *format, ...);
/* Fails with the sentence of a plugin's error. */
#define CHECK_OK(call, err) \
    do { \
        int status_ = (call); \
        CHECK(status_ == LATHE_OK, "%d: %s", status_, (err)->message); \
    } while (0)
/* An error must have this code and a sentence. */
#define CHECK_FAILS(call, wanted, err) \
    do { \
        int status_; \
        (err)->message[0] = '\0'; \
        status_ = (call); \
        CHECK(status_ == (wanted), "status %d, expected %d: %s", status_, (int)(wanted), (err)->message); \
        CHECK((err)->message[0] != '\0', "status %d came without a sentence", status_); \
    } while (0)

/* A plugin under test. */
struct subject {
    const struct lathe_plugin *plugin;
    const struct lathe_api_head *head; /* cast to the kind's table */
    struct lathe_config config;        /* defaults, and what the command line said */
    struct counting_host host;
};

/* create with the subject's configuration; ends the program on failure. */
void *subject_create(struct subject *s);
/* create that may fail: for scenarios. */
int subject_try_create(struct subject *s, void **self, struct lathe_error *err);
/* Another value for an option, if the plugin has it; 1 if so. Valid until the next one of that name. */
int subject_set(struct subject *s, const char *option, const char *value);

struct behaviour {
    const char *name;
    void (*run)(struct subject *s);
};

/* Opens argv[1], checks the descriptor against `kind`, runs the behaviours, each with nothing
 * of the plugin's memory left over, then the scenario under failing allocators. `required`
 * bytes of the table must be there. */
int conformance(int argc, char **argv, int kind, uint32_t abi, uint32_t required, const struct behaviour *behaviours,
                size_t count, int (*scenario)(struct subject *s, struct lathe_error *err));

/* Seeded numbers for random sequences: [0, below). */
struct dice {
    uint64_t seed;
    uint32_t next;
};
static inline uint32_t roll(struct dice *d, uint32_t below)
{
    return (uint32_t)(lathe_random_u64(d->seed, LATHE_RANDOM_USER, 0, d->next++) % below);
}

#endif

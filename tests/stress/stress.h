/* SPDX-License-Identifier: MIT */
/* What the stress programs share: promises, a clock, random numbers of a thread's own. */
#ifndef TESTS_STRESS_H
#define TESTS_STRESS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A promise; ends the program when it is broken. */
#define CHECK(condition, ...)                                                        \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "not ok  %s:%d: %s\n  ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                            \
            fputc('\n', stderr);                                                     \
            abort();                                                                 \
        }                                                                            \
    } while (0)

static inline int64_t stress_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* [0, below); xorshift64. */
static inline uint32_t stress_roll(uint64_t *state, uint32_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)((*state >> 32) * below >> 32);
}

/* A thread that stands still for some microseconds, or gives way, or does neither. */
static inline void stress_dawdle(uint64_t *state)
{
    uint32_t r = stress_roll(state, 4000);
    if (r == 0)
        nanosleep(&(struct timespec){ .tv_nsec = 300000 }, NULL);
    else if (r < 20)
        nanosleep(&(struct timespec){ .tv_nsec = 1 }, NULL);
    else if (r < 100)
        for (volatile uint32_t i = 0; i < r * 20; i++)
            ;
}

#endif

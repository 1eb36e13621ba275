/* SPDX-License-Identifier: MIT */
/* The floor under every bus: two cores pass a cache line to and fro, and nothing else happens.
 *
 *     caller                            echo (a thread, or this program again as a process)
 *     there = n ──────────────────────▶ sees n [reads the payload]
 *     sees n   ◀────────────────────── back = n
 *
 * LINE: there and back are the same word, turned by each side: one line changes hands twice.
 * PAIR: a line each way. SLEEP: a line each way, and who waits sleeps on it (futex) at once. */
#ifndef BENCH_BUS_ECHO_H
#define BENCH_BUS_ECHO_H

#include <pthread.h>
#include <stdalign.h>

#include "bench.h"

enum echo_how { ECHO_LINE = 0, ECHO_PAIR = 1, ECHO_SLEEP = 2 };
enum { ECHO_STOP = UINT32_MAX, ECHO_PAYLOAD_AT = 4096 };

struct echo_shared {
    alignas(128) _Atomic uint32_t there; /* LINE: the only word: odd is the echo's turn */
    alignas(128) _Atomic uint32_t back;
    alignas(128) uint64_t sum; /* of the payload */
    int32_t how;
    uint32_t processes;
    uint64_t bytes; /* of payload, at ECHO_PAYLOAD_AT; 0: none is read */
};

struct echo {
    struct echo_shared *shared;
    uint64_t mapped;
    uint32_t n;
    int pid; /* 0: a thread */
    pthread_t thread;
};

int echo_open(struct echo *e, const struct bench *b, int how, int processes, uint64_t payload_bytes,
              struct lathe_error *err);
void echo_close(struct echo *e);
void *echo_payload(const struct echo *e);
void echo_once(struct echo *e);

/* The other side, as a process of its own: `bench_bus echo FD BYTES`. */
int echo_main(int fd, uint64_t mapped);

#endif

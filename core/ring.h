/* SPDX-License-Identifier: MIT */
/* A ring of variable records for one producer and one consumer thread. No lock, no system
 * call, no allocation between open and close.
 *
 *              tail ──▶                    head ──▶
 *     ┌───────────┬──────────┬───────┬───────┬──────────────┐┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┐
 *     │   free    │ record   │record │record │  reserved    ┊ … over the end  ┊
 *     └───────────┴──────────┴───────┴───────┴──────────────┘┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┘
 *     0                                                    size         size + largest
 *
 * head and tail count bytes since the beginning and never wrap; a place is the count modulo
 * the size. A record is always contiguous: one that begins before the end may run over it
 * into an apron as long as the largest record, and the next begins behind it, as if the
 * bytes had wrapped. No padding records, no second half: a record may be as large as the
 * ring. The apron is address space; pages of it are touched only by records at the end.
 *
 * The producer writes head (release) after the record's bytes; the consumer reads it
 * (acquire). The consumer writes tail (release) after it is done with the bytes; the
 * producer reads it (acquire) before it writes there again. Each keeps a copy of the
 * other's count on its own cache line, and looks again only when the copy says no. */
#ifndef CORE_RING_H
#define CORE_RING_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <lathe/status.h>

/* In front of each record, padded to the ring's alignment. */
struct ring_record {
    uint64_t bytes; /* of the data, as committed */
    int64_t tag;    /* the producer's */
};

struct ring {
    /* Set by ring_open. */
    uint8_t *data;
    size_t size, largest; /* power of two; most bytes of a record's data */
    size_t align;         /* of each record's data, ≥ 16, power of two */
    size_t mapped;
    /* The producer's line. */
    alignas(64) _Atomic uint64_t head;
    uint64_t tail_seen;
    /* The consumer's line. */
    alignas(64) _Atomic uint64_t tail;
    uint64_t head_seen;
};

/* `bytes` is rounded up to a power of two; `largest`, of a record's data, is cut to what fits. LATHE_ENOMEM. [main] */
int ring_open(struct ring *ring, size_t bytes, size_t largest, size_t align, struct lathe_error *err);
void ring_close(struct ring *ring); /* a zeroed one is ignored */

/* Room for `bytes` of data, contiguous; NULL when there is none now (or ever: bytes > largest).
 * Nothing is visible before the commit; a second reserve takes the first one's place. [producer] */
void *ring_reserve(struct ring *ring, size_t bytes);
/* The first `used` bytes of what was reserved become a record. [producer] */
void ring_commit(struct ring *ring, size_t used, int64_t tag);
/* More than half full? Looks at the consumer's count only when its copy says so. [producer] */
int ring_is_half_full(struct ring *ring);

/* How far the producer has come: a bound for ring_peek. [consumer] */
uint64_t ring_head(struct ring *ring);
/* The oldest record that was committed before `bound`, or NULL; its data in *data. It stays
 * valid until it is released. [consumer] */
const struct ring_record *ring_peek(struct ring *ring, uint64_t bound, const void **data);
/* The record that was peeked is done with. [consumer] */
void ring_release(struct ring *ring);

#endif

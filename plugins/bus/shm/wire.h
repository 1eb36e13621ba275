/* SPDX-License-Identifier: MIT */
/* What two processes agree on: the shared memory's layout, and what they say over the socket.
 * Everything is offsets from the mapping's beginning, since each maps it where it likes.
 *
 *     0          struct wire_bus: the bell of posted calls
 *     64 …       loans, and one block for each worker:
 *                  struct wire_worker │ errors[ring capacity] │ ring │ recipe
 *
 *     host ── hello + memfd ──▶ worker      worker ── report (ready, or failed and why) ──▶ host
 *     host ── stop ───────────▶ worker      (then the worker ends; EOF means the same)
 *
 * A call in a cell's seven words; the caller writes the first three, the worker the others:
 *
 *     0  number of the method (low 32 bits), flags (high)    3  status
 *     1  offset of in                                        4  begun, on the host's clock; 0: unasked
 *     2  offset of out                                       5  ended
 *
 * The sentence of a failure lies in errors[position % capacity], written by the worker before
 * it answers. Nothing that a worker wrote is believed: see host_take_back. */
#ifndef SHM_WIRE_H
#define SHM_WIRE_H

#include <stdalign.h>

#include "bus/callring.h"
#include <lathe/bus.h>

enum { WIRE_PROTOCOL = 1, WIRE_MAGIC = 0x6c626e64, WIRE_TEXT_BYTES = 16384, WIRE_BUS_BYTES = 4096, WIRE_BEAT_MS = 50,
       WIRE_ALIGN = 64 };

enum wire_call_flags {
    WIRE_POSTED = 1,  /* ring the bus's bell when it is answered */
    WIRE_STAMPED = 2, /* note when it was begun and ended */
};

enum { WORD_METHOD, WORD_IN, WORD_OUT, WORD_STATUS, WORD_STARTED, WORD_ENDED };

/* At offset 0. */
struct wire_bus {
    _Atomic uint32_t bell;     /* posted calls answered, and workers that came or went */
    _Atomic uint32_t sleepers; /* on the bell */
};

/* Of one worker process, written by it. */
struct wire_worker {
    alignas(64) _Atomic int64_t beat_ns; /* the machine's monotonic time; every WIRE_BEAT_MS */
    _Atomic int64_t begun_ns;            /* the same, when the call under way was taken; 0: none is */
};

enum wire_kind { WIRE_HELLO = 1, WIRE_READY = 2, WIRE_FAILED = 3, WIRE_STOP = 4 };

struct wire_hello {
    uint32_t magic, kind, protocol;
    uint32_t worker;           /* its number, for its log */
    uint64_t bytes;            /* of the memfd that comes with it */
    uint64_t control, errors, ring, recipe, recipe_bytes; /* offsets */
    int64_t spin_ns;
};

/* WIRE_READY: `count` names of methods, "service.method", each with its NUL, in the order of their
 * numbers. WIRE_FAILED: a sentence. */
struct wire_report {
    uint32_t magic, kind;
    int32_t code;
    uint32_t count, text_bytes;
    char text[WIRE_TEXT_BYTES];
};

struct wire_word {
    uint32_t magic, kind;
};

#endif

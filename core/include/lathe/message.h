/* SPDX-License-Identifier: MIT */
/* Flat messages: what services say to each other.
 *
 * A message is one run of bytes that opens with `struct lathe_message` and holds
 * no pointer. A variable part is a span: its offset from the message's own start
 * and how many elements it has. The same bytes lie in the heap (`direct`), in
 * shared memory (`shm`) and on a wire, so a tensor is written once, in its final
 * place, and never copied on the way.
 *
 *     ┌────────┬──────────────┬─────────┬──────────┬── … ──┐
 *     │ header │ fixed fields │ tokens  │ blocks   │ spare │
 *     └────────┴──────────────┴─────────┴──────────┴───────┘
 *     0        64             span.offset          bytes   capacity
 *
 * The header is one cache line: sizes, and the envelope that travels with the bytes.
 *
 * A region is like a span but its offset is signed and may lie outside the
 * message, in the same mapping: large outputs (logits read by the sampler, rows
 * written for the recorder) are reached where they lie.
 *
 * Every method of a service has one signature. `in` is the caller's and constant
 * until return; `out` is the caller's too: it sets `head.capacity`, the method
 * fills the rest and never writes past it. Too small is LATHE_EFULL, with the
 * number needed in the sentence and in the message's own `needed` field. */
#ifndef LATHE_MESSAGE_H
#define LATHE_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/status.h>

enum lathe_message_flags {
    LATHE_MESSAGE_ONCE = 1, /* not safe to repeat, whatever the method says of itself: never retried */
};

struct lathe_message {
    uint64_t capacity;    /* bytes that there is room for, this header included */
    uint64_t bytes;       /* bytes in use, this header included; ≤ capacity */
    /* The envelope, set by the caller of a method; zeroed is fine. */
    uint64_t correlation; /* of the request that it is for, or of the step; 0: none */
    int64_t deadline_ns;  /* on the host's clock; 0: none. Work whose time has passed is not begun
                             but answered with LATHE_EDEADLINE, by whoever takes it */
    uint32_t flags;       /* enum lathe_message_flags */
    /* Reply, filled by the bus (direct: left alone; the times only while somebody observes). */
    uint32_t worker;      /* who did it; 0: the caller's own thread */
    int64_t sent_ns;      /* the call was made, taken by a worker, done: on the host's clock; only */
    int64_t started_ns;   /* the host turns them into rows */
    int64_t ended_ns;     /* model.forward fills started_ns and ended_ns itself, on any bus */
};

struct lathe_span {
    uint64_t offset; /* bytes from the message's start; aligned for its element */
    uint64_t count;  /* elements */
};

struct lathe_region {
    int64_t offset;  /* bytes from the message's start; may be outside of it */
    uint64_t bytes;
};

typedef int lathe_method(void *self, const void *in, void *out, struct lathe_error *err);

/* The elements of a span; no check: see lathe_span_check. */
#define LATHE_SPAN(type, message, span) \
    ((type *)(void *)((unsigned char *)(uintptr_t)(const void *)(message) + (span).offset))
#define LATHE_REGION(type, message, region) \
    ((type *)(void *)((unsigned char *)(uintptr_t)(const void *)(message) + (region).offset))

/* 1 if the span lies wholly inside the message and is aligned. The receiver of a
 * message from another process checks every span with it before use. */
static inline int lathe_span_check(const struct lathe_message *m, struct lathe_span span,
                                   size_t element_bytes, size_t align)
{
    uint64_t bytes, end;
    if (span.count == 0)
        return 1;
    if (span.offset % align || __builtin_mul_overflow(span.count, (uint64_t)element_bytes, &bytes) ||
        __builtin_add_overflow(span.offset, bytes, &end))
        return 0;
    return span.offset >= sizeof *m && end <= m->bytes && m->bytes <= m->capacity;
}

/* Append room for `count` elements to a message being built; the span's offset is
 * aligned to 64. Returns NULL (span {0,0}) when it doesn't fit. */
static inline void *lathe_message_add(struct lathe_message *m, struct lathe_span *span,
                                      uint64_t count, size_t element_bytes)
{
    uint64_t offset = (m->bytes + 63) & ~(uint64_t)63, bytes, end;
    span->offset = span->count = 0;
    if (__builtin_mul_overflow(count, (uint64_t)element_bytes, &bytes) ||
        __builtin_add_overflow(offset, bytes, &end) || end > m->capacity)
        return NULL;
    span->offset = offset;
    span->count = count;
    m->bytes = end;
    return (unsigned char *)m + offset;
}

/* An input without fields, for methods such as `describe`. */
struct lathe_empty {
    struct lathe_message head;
};

#endif

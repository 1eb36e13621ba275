/* SPDX-License-Identifier: MIT */
/* The replicas of a simulation by what each does next: (time, kind, replica), the smallest on top.
 * Each replica has exactly one entry, so the heap is sized once and an entry is moved, never added.
 * Four children a node: fewer levels, and they lie on one cache line. */
#ifndef CORE_SIMULATE_HEAP_H
#define CORE_SIMULATE_HEAP_H

#include <stdint.h>
#include <stdlib.h>

#include <lathe/status.h>

/* At one instant steps end before others begin. */
enum event_kind { EVENT_FINISH = 0, EVENT_BEGIN = 1 };

struct event_entry {
    int64_t at_ns;     /* INT64_MAX: nothing */
    uint64_t order;    /* kind, then replica */
};
struct event_heap {
    struct event_entry *entries;
    uint32_t *places;  /* by replica */
    uint32_t count;
};

static inline void heap_close(struct event_heap *h)
{
    free(h->entries);
    free(h->places);
    h->entries = NULL;
    h->places = NULL;
}

static inline int heap_open(struct event_heap *h, uint32_t replicas, struct lathe_error *err)
{
    h->count = replicas;
    h->entries = calloc(replicas, sizeof *h->entries);
    h->places = calloc(replicas, sizeof *h->places);
    if (!h->entries || !h->places) {
        heap_close(h);
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the events of %u replicas", replicas);
    }
    for (uint32_t i = 0; i < replicas; i++) { /* nothing to do: all alike, which is in order */
        h->entries[i] = (struct event_entry){ INT64_MAX, (uint64_t)EVENT_BEGIN << 32 | i };
        h->places[i] = i;
    }
    return LATHE_OK;
}

static inline int heap_before(const struct event_entry *a, const struct event_entry *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static inline void heap_put(struct event_heap *h, uint32_t place, struct event_entry entry)
{
    h->entries[place] = entry;
    h->places[(uint32_t)entry.order] = place;
}

static inline void heap_set(struct event_heap *h, uint32_t replica, int64_t at_ns, int kind)
{
    struct event_entry moving = { at_ns, (uint64_t)kind << 32 | replica };
    uint32_t place = h->places[replica];
    while (place > 0 && heap_before(&moving, &h->entries[(place - 1) / 4])) {
        heap_put(h, place, h->entries[(place - 1) / 4]);
        place = (place - 1) / 4;
    }
    for (;;) {
        uint32_t first = 4 * place + 1, best = place;
        const struct event_entry *least = &moving;
        for (uint32_t c = first; c < first + 4 && c < h->count; c++)
            if (heap_before(&h->entries[c], least))
                least = &h->entries[c], best = c;
        if (best == place)
            break;
        heap_put(h, place, *least);
        place = best;
    }
    heap_put(h, place, moving);
}

static inline int64_t heap_time(const struct event_heap *h) { return h->entries[0].at_ns; }
static inline int64_t heap_time_of(const struct event_heap *h, uint32_t replica)
{
    return h->entries[h->places[replica]].at_ns;
}
static inline int heap_kind(const struct event_heap *h) { return (int)(h->entries[0].order >> 32); }
static inline uint32_t heap_top(const struct event_heap *h) { return (uint32_t)h->entries[0].order; }

#endif

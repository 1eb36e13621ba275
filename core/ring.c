/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include <string.h>
#include <sys/mman.h>

static size_t rounded(const struct ring *ring, size_t bytes)
{
    return (bytes + ring->align - 1) & ~(ring->align - 1);
}

int ring_open(struct ring *ring, size_t bytes, size_t largest, size_t align, struct lathe_error *err)
{
    size_t size = 4096;
    while (size < bytes && size < (size_t)1 << 40)
        size *= 2;
    memset(ring, 0, sizeof *ring);
    ring->size = size;
    ring->align = align < sizeof(struct ring_record) ? sizeof(struct ring_record) : align;
    if (largest > size - ring->align)
        largest = size - ring->align;
    ring->largest = largest & ~(ring->align - 1);
    ring->mapped = size + ring->align + ring->largest;
    if (size < bytes)
        return lathe_fail(err, LATHE_ENOMEM, "no machine has a ring of %zu bytes; ask for a smaller one", bytes);
    void *data = mmap(NULL, ring->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        memset(ring, 0, sizeof *ring);
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a ring of %zu bytes; ask for a smaller one", size);
    }
    ring->data = data;
    return LATHE_OK;
}

void ring_close(struct ring *ring)
{
    if (ring->data)
        munmap(ring->data, ring->mapped);
    ring->data = NULL;
}

/* ---- producer ------------------------------------------------------------------------- */

void *ring_reserve(struct ring *ring, size_t bytes)
{
    if (bytes > ring->largest)
        return NULL;
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t needed = ring->align + rounded(ring, bytes);
    if (head - ring->tail_seen > ring->size - needed) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire); /* pairs with ring_release */
        if (head - ring->tail_seen > ring->size - needed)
            return NULL;
    }
    return ring->data + (head & (ring->size - 1)) + ring->align;
}

void ring_commit(struct ring *ring, size_t used, int64_t tag)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    struct ring_record *record = (struct ring_record *)(void *)(ring->data + (head & (ring->size - 1)));
    record->bytes = used;
    record->tag = tag;
    atomic_store_explicit(&ring->head, head + ring->align + rounded(ring, used),
                          memory_order_release); /* pairs with ring_head */
}

int ring_is_half_full(struct ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - ring->tail_seen <= ring->size / 2)
        return 0;
    ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
    return head - ring->tail_seen > ring->size / 2;
}

/* ---- consumer ------------------------------------------------------------------------- */

uint64_t ring_head(struct ring *ring)
{
    ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire); /* pairs with ring_commit */
    return ring->head_seen;
}

const struct ring_record *ring_peek(struct ring *ring, uint64_t bound, const void **data)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail >= bound || (tail >= ring->head_seen && tail >= ring_head(ring)))
        return NULL;
    const uint8_t *place = ring->data + (tail & (ring->size - 1));
    *data = place + ring->align;
    return (const struct ring_record *)(const void *)place;
}

void ring_release(struct ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    const struct ring_record *record = (const struct ring_record *)(const void *)(ring->data + (tail & (ring->size - 1)));
    atomic_store_explicit(&ring->tail, tail + ring->align + rounded(ring, record->bytes),
                          memory_order_release); /* pairs with ring_reserve */
}

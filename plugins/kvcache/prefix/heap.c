/* SPDX-License-Identifier: MIT */
/* See heap.h. */
#include "heap.h"

static int before(const struct blocks *b, int32_t one, int32_t other)
{
    const struct block *x = &b->all[one], *y = &b->all[other];
    if (b->shape.lfu && x->uses != y->uses)
        return x->uses < y->uses;
    return x->left < y->left;
}

static void put(struct blocks *b, uint32_t at, int32_t block)
{
    b->heap[at] = block;
    b->all[block].place = at + 1;
}

static void up(struct blocks *b, uint32_t at, int32_t block)
{
    while (at > 0 && before(b, block, b->heap[(at - 1) / 2])) {
        put(b, at, b->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(b, at, block);
}

static void down(struct blocks *b, uint32_t at, int32_t block)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < b->heap_count && before(b, b->heap[child + 1], b->heap[child]))
            child++;
        if (child >= b->heap_count || !before(b, b->heap[child], block))
            break;
        put(b, at, b->heap[child]);
        at = child;
    }
    put(b, at, block);
}

void heap_push(struct blocks *b, int32_t block)
{
    up(b, b->heap_count++, block);
}

void heap_remove(struct blocks *b, int32_t block)
{
    uint32_t at = b->all[block].place - 1;
    int32_t last = b->heap[--b->heap_count];
    b->all[block].place = 0;
    if (last == block)
        return;
    if (at > 0 && before(b, last, b->heap[(at - 1) / 2]))
        up(b, at, last);
    else
        down(b, at, last);
}

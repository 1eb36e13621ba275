/* SPDX-License-Identifier: MIT */
/* See groups.h. */
#include "groups.h"

int groups_open(struct groups *g, const struct lathe_host *host, const struct order *order, uint32_t count)
{
    *g = (struct groups){ .host = host, .order = order, .count = count };
    g->first = lathe_alloc_array(host, count, sizeof *g->first);
    g->members = lathe_alloc_array(host, count, sizeof *g->members);
    g->place = lathe_alloc_array(host, count, sizeof *g->place);
    g->heap = lathe_alloc_array(host, count, sizeof *g->heap);
    if (!g->first || !g->members || !g->place || !g->heap) {
        groups_close(g);
        return LATHE_ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++)
        g->first[i] = order_end(order);
    return LATHE_OK;
}

void groups_close(struct groups *g)
{
    if (!g->host)
        return;
    lathe_free(g->host, g->first);
    lathe_free(g->host, g->members);
    lathe_free(g->host, g->place);
    lathe_free(g->host, g->heap);
    *g = (struct groups){ 0 };
}

static uint32_t group_of(const struct groups *g, uint32_t index)
{
    return (uint32_t)g->order->places[index].key.major;
}

void groups_join(struct groups *g, const struct lathe_request *req)
{
    uint32_t index = req->index, group = group_of(g, index), prev = order_prev(g->order, index);
    if (g->first[group] == order_end(g->order)) {
        g->place[group] = g->active;
        g->members[g->active++] = group;
    }
    if (prev == order_end(g->order) || group_of(g, prev) != group)
        g->first[group] = index;
}

/* The one behind it in its group, or the order's end. */
static uint32_t behind(const struct groups *g, uint32_t index, uint32_t group)
{
    uint32_t next = order_next(g->order, index);
    return next != order_end(g->order) && group_of(g, next) == group ? next : order_end(g->order);
}

void groups_leave(struct groups *g, const struct lathe_request *req)
{
    uint32_t index = req->index, group = group_of(g, index);
    if (g->first[group] != index)
        return;
    g->first[group] = behind(g, index, group);
    if (g->first[group] == order_end(g->order)) {
        uint32_t last = g->members[--g->active];
        g->members[g->place[group]] = last;
        g->place[last] = g->place[group];
    }
}

/* Without branches: which of two comes first can't be predicted. */
static uint32_t before(const struct groups_entry *a, const struct groups_entry *b)
{
    return (uint32_t)(a->score < b->score) | ((uint32_t)(a->score == b->score) & (uint32_t)(a->planned_ns < b->planned_ns));
}

/* Puts `moving` at `at` or below. */
static inline void sink(struct groups *g, uint32_t at, struct groups_entry moving)
{
    struct groups_entry *heap = g->heap;
    uint32_t child = 2 * at + 1;
    for (; child + 1 < g->heap_count; at = child, child = 2 * at + 1) {
        child += before(&heap[child + 1], &heap[child]);
        if (!before(&heap[child], &moving))
            break;
        heap[at] = heap[child];
    }
    if (child + 1 == g->heap_count && before(&heap[child], &moving)) {
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static struct groups_entry entry(const struct groups *g, groups_score *score, void *self, uint32_t group,
                                 uint32_t first)
{
    int64_t planned_ns = g->order->places[first].planned_ns;
    return (struct groups_entry){ score(self, group, planned_ns), planned_ns, group, first };
}

void groups_begin(struct groups *g, groups_score *score, void *self)
{
    g->heap_count = g->active;
    for (uint32_t i = 0; i < g->active; i++)
        g->heap[i] = entry(g, score, self, g->members[i], g->first[g->members[i]]);
    for (uint32_t i = g->heap_count / 2; i-- > 0;)
        sink(g, i, g->heap[i]);
}

void groups_pass(struct groups *g, groups_score *score, void *self)
{
    uint32_t group = g->heap[0].group, next = behind(g, g->heap[0].first, group);
    if (next != order_end(g->order))
        sink(g, 0, entry(g, score, self, group, next));
    else if (--g->heap_count)
        sink(g, 0, g->heap[g->heap_count]);
}

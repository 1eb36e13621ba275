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
static uint32_t behind(const struct groups *g, uint32_t index)
{
    uint32_t next = order_next(g->order, index);
    return next != order_end(g->order) && group_of(g, next) == group_of(g, index) ? next : order_end(g->order);
}

void groups_leave(struct groups *g, const struct lathe_request *req)
{
    uint32_t index = req->index, group = group_of(g, index);
    if (g->first[group] != index)
        return;
    g->first[group] = behind(g, index);
    if (g->first[group] == order_end(g->order)) {
        uint32_t last = g->members[--g->active];
        g->members[g->place[group]] = last;
        g->place[last] = g->place[group];
    }
}

static int before(const struct groups *g, const struct groups_entry *a, const struct groups_entry *b)
{
    const struct order_place *x = &g->order->places[a->first], *y = &g->order->places[b->first];
    if (a->score != b->score)
        return a->score < b->score;
    return x->planned_ns != y->planned_ns ? x->planned_ns < y->planned_ns : x->id < y->id;
}

static void sink(struct groups *g, uint32_t at)
{
    struct groups_entry moving = g->heap[at];
    for (uint32_t child; (child = 2 * at + 1) < g->heap_count; at = child) {
        if (child + 1 < g->heap_count && before(g, &g->heap[child + 1], &g->heap[child]))
            child++;
        if (!before(g, &g->heap[child], &moving))
            break;
        g->heap[at] = g->heap[child];
    }
    g->heap[at] = moving;
}

void groups_begin(struct groups *g, groups_score *score, void *self)
{
    g->heap_count = g->active;
    for (uint32_t i = 0; i < g->active; i++) {
        uint32_t group = g->members[i], first = g->first[group];
        g->heap[i] = (struct groups_entry){ score(self, group, g->order->links[first].req), group, first };
    }
    for (uint32_t i = g->heap_count / 2; i-- > 0;)
        sink(g, i);
}

void groups_pass(struct groups *g, groups_score *score, void *self)
{
    struct groups_entry *top = &g->heap[0];
    top->first = behind(g, top->first);
    if (top->first == order_end(g->order))
        *top = g->heap[--g->heap_count];
    else
        top->score = score(self, top->group, g->order->links[top->first].req);
    if (g->heap_count)
        sink(g, 0);
}

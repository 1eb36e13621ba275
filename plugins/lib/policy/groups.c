/* SPDX-License-Identifier: MIT */
/* See groups.h. */
#include "groups.h"

int groups_open(struct groups *g, const struct lathe_host *host, const struct order *order, uint32_t count)
{
    *g = (struct groups){ .host = host, .order = order, .count = count };
    g->first = lathe_alloc_array(host, count, sizeof *g->first);
    g->members = lathe_alloc_array(host, count, sizeof *g->members);
    g->place = lathe_alloc_array(host, count, sizeof *g->place);
    g->entries = lathe_alloc_array(host, count, sizeof *g->entries);
    g->winners = lathe_alloc_array(host, count, 2 * sizeof *g->winners);
    if (!g->first || !g->members || !g->place || !g->entries || !g->winners) {
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
    lathe_free(g->host, g->entries);
    lathe_free(g->host, g->winners);
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

/* Who comes behind is fetched with it, so that it is at hand when this one is passed. */
static struct groups_entry entry(const struct groups *g, groups_score *score, void *self, uint32_t group,
                                 uint32_t first, int64_t planned_ns)
{
    double number = score(self, group, planned_ns);
    uint32_t next = behind(g, first, group);
    return (struct groups_entry){ number, order_number(number), planned_ns, g->order->places[next].planned_ns,
                                  group, first, next };
}

/* The winners on the way from a leaf to the root, where its number changed. What it meets there doesn't
 * depend on who wins; and it is masks that choose, since a branch on which of two comes first is
 * predicted wrongly half of the time. */
static inline void play(struct groups *g, uint32_t leaf, uint64_t score, uint64_t planned_ns)
{
    uint64_t best = leaf;
    for (uint32_t node = g->entry_count + leaf; node > 1; node /= 2) {
        uint64_t other = g->winners[node ^ 1];
        const struct groups_entry *e = &g->entries[other];
        uint64_t mask = -(uint64_t)((e->key < (int64_t)score) |
                                    ((e->key == (int64_t)score) & (e->planned_ns < (int64_t)planned_ns)));
        best ^= (best ^ other) & mask;
        score ^= (score ^ (uint64_t)e->key) & mask;
        planned_ns ^= (planned_ns ^ (uint64_t)e->planned_ns) & mask;
        g->winners[node / 2] = (uint32_t)best;
    }
}

void groups_begin(struct groups *g, groups_score *score, void *self)
{
    uint32_t n = g->active;
    g->entry_count = g->left = n;
    for (uint32_t i = 0; i < n; i++) {
        g->entries[i] = entry(g, score, self, g->members[i], g->first[g->members[i]],
                              g->order->places[g->first[g->members[i]]].planned_ns);
        g->winners[n + i] = i;
    }
    for (uint32_t node = n; node-- > 1;) {
        uint32_t a = g->winners[2 * node], b = g->winners[2 * node + 1];
        const struct groups_entry *x = &g->entries[a], *y = &g->entries[b];
        g->winners[node] = x->key < y->key || (x->key == y->key && x->planned_ns <= y->planned_ns) ? a : b;
    }
}

void groups_pass(struct groups *g, groups_score *score, void *self)
{
    uint32_t leaf = g->winners[1];
    struct groups_entry *passed = &g->entries[leaf];
    if (passed->next != order_end(g->order)) {
        *passed = entry(g, score, self, passed->group, passed->next, passed->next_planned_ns);
    } else {
        passed->key = passed->planned_ns = INT64_MAX; /* behind all */
        g->left--;
    }
    play(g, leaf, (uint64_t)passed->key, (uint64_t)passed->planned_ns);
}

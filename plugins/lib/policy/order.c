/* SPDX-License-Identifier: MIT */
/* See order.h. */
#include "order.h"

int order_open(struct order *o, const struct lathe_host *host, uint32_t capacity)
{
    size_t nodes = (size_t)capacity + 1;
    *o = (struct order){ .host = host, .capacity = capacity };
    o->links = lathe_alloc_array(host, nodes, sizeof *o->links);
    o->places = lathe_alloc_array(host, nodes, sizeof *o->places);
    o->towers = lathe_alloc_array(host, nodes, (ORDER_LEVELS - 1) * sizeof *o->towers);
    if (!o->links || !o->places || !o->towers) {
        order_close(o);
        return LATHE_ENOMEM;
    }
    o->links[capacity].next = o->links[capacity].prev = capacity;
    for (int level = 0; level < ORDER_LEVELS - 1; level++)
        o->towers[(size_t)capacity * (ORDER_LEVELS - 1) + level] = capacity;
    return LATHE_OK;
}

void order_close(struct order *o)
{
    if (!o->host)
        return;
    lathe_free(o->host, o->links);
    lathe_free(o->host, o->places);
    lathe_free(o->host, o->towers);
    *o = (struct order){ 0 };
}

/* The next at a level above 0. */
static inline uint32_t *above(const struct order *o, uint32_t index, int level)
{
    return &o->towers[(size_t)index * (ORDER_LEVELS - 1) + level - 1];
}

/* How high the tower of an index is, 0 … ORDER_LEVELS − 1: a quarter goes on to each next level. */
static int height(uint32_t index)
{
    uint32_t h = index + 1;
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    h ^= h >> 16;
    return __builtin_ctz(h | 1u << 2 * (ORDER_LEVELS - 1)) / 2;
}

/* The last node before `place` at each level. */
static void find(const struct order *o, const struct order_place *place, uint32_t path[ORDER_LEVELS])
{
    uint32_t at = o->capacity, next;
    for (int level = ORDER_LEVELS - 1; level > 0; level--) {
        while ((next = *above(o, at, level)) != o->capacity && order_before(&o->places[next], place))
            at = next;
        path[level] = at;
    }
    while ((next = o->links[at].next) != o->capacity && order_before(&o->places[next], place))
        at = next;
    path[0] = at;
}

void order_insert(struct order *o, const struct lathe_request *req, struct order_key key)
{
    uint32_t path[ORDER_LEVELS], index = req->index;
    struct order_link *link = &o->links[index];
    o->places[index] = (struct order_place){ .key = key, .planned_ns = req->planned_ns, .id = req->id };
    find(o, &o->places[index], path);
    *link = (struct order_link){ .req = req, .next = o->links[path[0]].next, .prev = path[0] };
    o->links[link->next].prev = index;
    o->links[path[0]].next = index;
    for (int level = height(index); level > 0; level--) {
        *above(o, index, level) = *above(o, path[level], level);
        *above(o, path[level], level) = index;
    }
    o->count++;
}

void order_remove(struct order *o, uint32_t index)
{
    uint32_t path[ORDER_LEVELS];
    struct order_link *link = &o->links[index];
    int top = height(index);
    if (top > 0)
        find(o, &o->places[index], path);
    for (int level = top; level > 0; level--)
        *above(o, path[level], level) = *above(o, index, level);
    o->links[link->next].prev = link->prev;
    o->links[link->prev].next = link->next;
    link->req = NULL;
    o->count--;
}

void order_update(struct order *o, uint32_t index, struct order_key key)
{
    const struct order_link *link = &o->links[index];
    struct order_place place = o->places[index];
    place.key = key;
    if ((link->prev == o->capacity || order_before(&o->places[link->prev], &place)) &&
        (link->next == o->capacity || order_before(&place, &o->places[link->next]))) {
        o->places[index].key = key;
    } else {
        const struct lathe_request *req = link->req;
        order_remove(o, index);
        order_insert(o, req, key);
    }
}

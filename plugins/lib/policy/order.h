/* SPDX-License-Identifier: MIT */
/* An ordered set of live requests: what a scheduler ranks from.
 *
 * A skip list whose nodes are the requests' indexes, so that nothing is allocated after
 * `order_open` and to be in the set is one look. The height of a node's tower is a hash of
 * its index: the same requests make the same list in every run.
 *
 *     level 2   end ──────────────▶ 7 ────────────────────▶ end
 *     level 1   end ──────▶ 4 ────▶ 7 ──────────▶ 9 ──────▶ end
 *     level 0   end ◀─▶ 2 ◀─▶ 4 ◀─▶ 7 ◀─▶ 0 ◀─▶ 9 ◀─▶ 3 ◀─▶ end        (both ways)
 *
 * insert, remove: O(log n). first, last, next, prev, contains: O(1). Smaller keys come first;
 * equal ones by planned arrival, then id, so that no two are equal. A key is copied when its
 * request comes in and stays as it is: `order_update` changes it, in O(1) if the request keeps
 * its place, since most keys that move with each token move together.
 *
 * The level-0 links lie apart from keys and towers: ranking walks them only (16 bytes a
 * request). A balanced tree was rejected for its walk, a sorted array for its inserts at
 * 20,000 requests.
 *
 * Pugh, "Skip lists: a probabilistic alternative to balanced trees", CACM 33(6), 1990. */
#ifndef POLICY_ORDER_H
#define POLICY_ORDER_H

#include <string.h>

#include <lathe/host.h>
#include <lathe/request.h>

enum { ORDER_LEVELS = 9 }; /* a quarter of each level goes on to the next: 4⁹ requests */

struct order_key {
    int64_t major, minor;
};

/* Where in the order: all that is compared. */
struct order_place {
    struct order_key key;
    int64_t planned_ns;
    uint64_t id;
};

struct order_link {
    const struct lathe_request *req; /* NULL: not in the set */
    uint32_t next, prev;
};

struct order {
    const struct lathe_host *host;
    uint32_t capacity, count;
    struct order_link *links;   /* (capacity + 1); the last is the list's end, and its beginning */
    struct order_place *places; /* (capacity + 1); the last is nobody's */
    uint32_t *towers;           /* (capacity + 1, ORDER_LEVELS − 1): next at the levels above 0 */
};

/* An empty set for indexes below `capacity`, all of its memory taken here; LATHE_ENOMEM without a
 * sentence when there is none. */
int order_open(struct order *o, const struct lathe_host *host, uint32_t capacity);
void order_close(struct order *o); /* one that was never opened (zeroed) is ignored */

/* `req` isn't in the set, and no other request of its index is. */
void order_insert(struct order *o, const struct lathe_request *req, struct order_key key);
/* The request of this index is in the set. */
void order_remove(struct order *o, uint32_t index);
void order_update(struct order *o, uint32_t index, struct order_key key);

/* for (uint32_t i = order_first(o); i != order_end(o); i = order_next(o, i)) … o->links[i].req */
static inline uint32_t order_end(const struct order *o)
{
    return o->capacity;
}

static inline uint32_t order_next(const struct order *o, uint32_t index)
{
    return o->links[index].next;
}

static inline uint32_t order_prev(const struct order *o, uint32_t index)
{
    return o->links[index].prev;
}

static inline uint32_t order_first(const struct order *o)
{
    return o->links[o->capacity].next;
}

static inline uint32_t order_last(const struct order *o)
{
    return o->links[o->capacity].prev;
}

static inline int order_contains(const struct order *o, const struct lathe_request *req)
{
    return req->index < o->capacity && o->links[req->index].req == req;
}

static inline int order_before(const struct order_place *a, const struct order_place *b)
{
    if (a->key.major != b->key.major)
        return a->key.major < b->key.major;
    if (a->key.minor != b->key.minor)
        return a->key.minor < b->key.minor;
    return a->planned_ns != b->planned_ns ? a->planned_ns < b->planned_ns : a->id < b->id;
}

/* A number as half a key: the same order as the doubles' own (no NaN). */
static inline int64_t order_number(double number)
{
    int64_t bits;
    number += 0.0; /* −0 is 0 */
    memcpy(&bits, &number, sizeof bits);
    return bits < 0 ? bits ^ INT64_MAX : bits;
}

#endif

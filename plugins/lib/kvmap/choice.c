/* SPDX-License-Identifier: MIT */
/* See choice.h. */
#include "choice.h"

#include <string.h>

#include <lathe/random.h>

void kvchoice_destroy(void *self)
{
    struct kvchoice *c = self;
    if (!c)
        return;
    void *const all[] = { c->counts, c->positions, c->scores, c->marks, c->set_positions, c->set_scores, c->set_order };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        lathe_free(c->map.host, all[i]);
    kvmap_close(&c->map);
    lathe_free(c->map.host, c);
}

int kvchoice_create(const struct lathe_host *host, const struct lathe_config *config, const char *name, size_t bytes,
                    void **self, struct lathe_error *err)
{
    void *made;
    int status = kvmap_create(host, config, name, 1, bytes, &made, err);
    if (status != LATHE_OK)
        return status;
    struct kvchoice *c = made;
    c->map.truncate = kvchoice_truncate;
    c->recent_share = config->values[KVCHOICE_RECENT_SHARE].number;
    c->scope = (int32_t)config->values[KVCHOICE_SCOPE].integer;
    *self = made;
    return LATHE_OK;
}

int kvchoice_layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry,
                    struct lathe_error *err)
{
    struct kvchoice *c = self;
    const struct lathe_host *host = c->map.host;
    size_t each, lists, blocks, room;
    int status = kvmap_layout(self, demand, geometry, err);
    if (status != LATHE_OK)
        return status;
    if ((c->most = kvmap_most_kept(&c->map)) == 0)
        return LATHE_OK;
    c->sets = lathe_kv_sets(c->scope, demand->layers, demand->kv_heads);
    if (c->sets == 0)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache %s: this model tells no layers and heads that could choose each "
                          "for itself; say scope = request", c->map.name);
    geometry->kv_scope = c->scope;
    if (__builtin_mul_overflow((size_t)c->sets, (size_t)c->most, &each) ||
        __builtin_mul_overflow(each, (size_t)c->map.max_requests, &lists) ||
        __builtin_mul_overflow((size_t)c->map.table_blocks, (size_t)c->map.max_requests, &blocks))
        return lathe_fail(err, LATHE_ERANGE, "kvcache %s: %u requests × %u sets × %u positions are more than can be counted; "
                          "lower the budget", c->map.name, c->map.max_requests, c->sets, c->most);
    room = (size_t)c->map.table_blocks * c->map.block_tokens;
    c->counts = lathe_alloc_array(host, c->map.max_requests, sizeof *c->counts);
    c->positions = lathe_alloc_array(host, lists, sizeof *c->positions);
    c->scores = lathe_alloc_array(host, lists, sizeof *c->scores);
    c->marks = lathe_alloc_array(host, blocks, sizeof *c->marks);
    c->set_positions = lathe_alloc_array(host, room, sizeof *c->set_positions);
    c->set_scores = lathe_alloc_array(host, room, sizeof *c->set_scores);
    c->set_order = lathe_alloc_array(host, room, sizeof *c->set_order);
    if (!c->counts || !c->positions || !c->scores || !c->marks || !c->set_positions || !c->set_scores || !c->set_order)
        return lathe_fail(err, LATHE_ENOMEM, "kvcache %s: no memory for %u requests × %u sets × %u positions; lower the budget",
                          c->map.name, c->map.max_requests, c->sets, c->most);
    return LATHE_OK;
}

static uint32_t *marks_of(const struct kvchoice *c, const struct kvmap_slot *s)
{
    return c->marks + (size_t)(s - c->map.slots) * c->map.table_blocks;
}

static size_t lists_of(const struct kvchoice *c, const struct kvmap_slot *s)
{
    return (size_t)(s - c->map.slots) * c->sets * c->most;
}

int kvchoice_admit(void *self, const struct lathe_request *req, uint32_t *cached, struct lathe_error *err)
{
    struct kvchoice *c = self;
    int status = kvmap_admit(self, req, cached, err);
    if (status != LATHE_OK || !c->most)
        return status;
    c->counts[req->index] = 0;
    memset(marks_of(c, &c->map.slots[req->index]), 0, c->map.table_blocks * sizeof *c->marks);
    return LATHE_OK;
}

/* --- a step's end ---------------------------------------------------------------- */

struct going {
    struct kvchoice *choice;
    struct kvmap_slot *slot;
};

static void gone(void *user, int32_t position)
{
    const struct going *g = user;
    uint32_t entry = (uint32_t)position / g->choice->map.block_tokens;
    if (--marks_of(g->choice, g->slot)[entry] == 0)
        kvmap_evict_block(&g->choice->map, g->slot, entry);
}

static float first_score(const struct kvchoice *c, const struct kvmap_slot *s, uint32_t set, uint32_t position)
{
    if (!c->draws)
        return 0;
    uint64_t stream = s->id + ((uint64_t)set << 40);
    return (float)(lathe_random_u64(c->seed, LATHE_RANDOM_EVICTION, stream, position) >> 40) * 0x1p-24f;
}

/* The scratch becomes set number `set`: what is kept of it, then positions from … to − 1. */
static void gather(struct kvchoice *c, const struct kvmap_slot *s, uint32_t set, uint32_t count, uint32_t from, uint32_t to,
                   const float *mass)
{
    size_t at = lists_of(c, s) + (size_t)set * count;
    memcpy(c->set_positions, c->positions + at, count * sizeof *c->set_positions);
    memcpy(c->set_scores, c->scores + at, count * sizeof *c->set_scores);
    for (uint32_t p = from; p < to; p++) {
        c->set_positions[count + p - from] = (int32_t)p;
        c->set_scores[count + p - from] = first_score(c, s, set, p);
    }
    for (uint32_t i = 0; mass && i < count + (to - from); i++)
        c->set_scores[i] += mass[i] >= 0 ? mass[i] : 0; /* not a number: nothing */
}

static void put_back(struct kvchoice *c, const struct kvmap_slot *s, uint32_t set, uint32_t count)
{
    size_t at = lists_of(c, s) + (size_t)set * count;
    memcpy(c->positions + at, c->set_positions, count * sizeof *c->positions);
    memcpy(c->scores + at, c->set_scores, count * sizeof *c->scores);
}

static uint32_t recent_of(const struct kvchoice *c, uint32_t budget)
{
    uint32_t recent = (uint32_t)(c->recent_share * budget + 0.5);
    return recent < 1 ? 1 : recent > budget ? budget : recent;
}

/* Positions up to `tokens` are stored, and were looked at as `mass` says: (sets, listed and new). */
static void advance(struct kvchoice *c, const struct lathe_request *req, uint32_t tokens, const float *mass)
{
    struct kvmap_slot *s = kvmap_slot(&c->map, req);
    uint32_t from = s->filled, count = c->counts[req->index], limit = kvmap_limit(&c->map);
    kvmap_filled(c, req, tokens);
    uint32_t to = s->filled, all = count + (to - from), left = all < limit ? all : limit, over = all - left;
    struct going going = { c, s };
    if (to == from && over == 0)
        return;
    for (uint32_t p = from; p < to; p++) /* of all sets at first, so that a block that falls to 0 is done with */
        marks_of(c, s)[p / c->map.block_tokens] += c->sets;
    for (uint32_t i = 0; i < c->sets; i++) {
        uint32_t set = left > count ? c->sets - 1 - i : i; /* a set that grows must not overwrite the next one */
        gather(c, s, set, count, from, to, mass ? mass + (size_t)set * all : NULL);
        kvchoice_evict(c->set_positions, c->set_scores, c->set_order, all, over, recent_of(c, left), gone, &going);
        put_back(c, s, set, left);
    }
    c->counts[req->index] = left;
    if (over)
        kvmap_evict_tokens(&c->map, s, over);
}

void kvchoice_observe(void *self, const struct lathe_request *req, const float *mass, uint32_t keys)
{
    struct kvchoice *c = self;
    const struct kvmap_slot *s = kvmap_slot(&c->map, req);
    if (!c->most || c->draws || !s || s->swapped.count)
        return;
    uint32_t rows = keys - c->counts[req->index];
    uint64_t room = (uint64_t)s->count * c->map.block_tokens;
    if (keys > c->counts[req->index] && s->filled + (uint64_t)rows <= room)
        advance(c, req, s->filled + rows, mass);
}

void kvchoice_filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct kvchoice *c = self;
    const struct kvmap_slot *s = kvmap_slot(&c->map, req);
    if (!c->most)
        kvmap_filled(self, req, tokens);
    else if (s && !s->swapped.count)
        advance(c, req, tokens, NULL);
}

void kvchoice_kept(void *self, const struct lathe_request *req, const int32_t **positions, uint32_t *count)
{
    struct kvchoice *c = self;
    const struct kvmap_slot *s = kvmap_slot(&c->map, req);
    int all = !c->most || !s || s->kept == s->filled;
    *positions = all ? NULL : c->positions + lists_of(c, s);
    *count = all ? 0 : c->counts[req->index];
}

/* --- truncation, forks ----------------------------------------------------------- */

void kvchoice_truncate(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct kvchoice *c = self;
    struct kvmap_slot *s = kvmap_slot(&c->map, req);
    if (!c->most || !s || s->swapped.count || tokens >= s->filled) {
        kvmap_truncate(self, req, tokens);
        return;
    }
    uint32_t count = c->counts[req->index], left = count;
    struct going going = { c, s };
    for (uint32_t set = 0; set < c->sets; set++) { /* the shortest */
        const int32_t *list = c->positions + lists_of(c, s) + (size_t)set * count;
        while (left > 0 && (uint32_t)list[left - 1] >= tokens)
            left--;
    }
    kvmap_cut(&c->map, s, tokens, left);
    for (uint32_t set = 0; set < c->sets; set++) {
        uint32_t n = count;
        gather(c, s, set, count, 0, 0, NULL);
        while (n > 0 && (uint32_t)c->set_positions[n - 1] >= tokens)
            gone(&going, c->set_positions[--n]);
        kvchoice_evict(c->set_positions, c->set_scores, c->set_order, n, n - left, left ? recent_of(c, left) : 0, gone, &going);
        put_back(c, s, set, left);
    }
    c->counts[req->index] = left;
}

int kvchoice_fork(void *self, const struct lathe_request *parent, const struct lathe_request *child,
                  struct lathe_error *err)
{
    struct kvchoice *c = self;
    int status = kvmap_fork(self, parent, child, err);
    if (status != LATHE_OK || !c->most)
        return status;
    const struct kvmap_slot *from = &c->map.slots[parent->index], *to = &c->map.slots[child->index];
    uint32_t count = c->counts[child->index] = c->counts[parent->index];
    memcpy(c->positions + lists_of(c, to), c->positions + lists_of(c, from), (size_t)count * c->sets * sizeof *c->positions);
    memcpy(c->scores + lists_of(c, to), c->scores + lists_of(c, from), (size_t)count * c->sets * sizeof *c->scores);
    memcpy(marks_of(c, to), marks_of(c, from), c->map.table_blocks * sizeof *c->marks);
    return LATHE_OK;
}

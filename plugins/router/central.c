/* SPDX-License-Identifier: MIT */
/* Central: one queue in front of all replicas, which pull. A request is held back while every
 * replica has `places` requests already, and goes to the one that has had a free place longest.
 *
 *     free   [ 4 ][ 0 ][ 7 ]                 replicas with a free place, oldest first: a ring
 *     route  takes 4; gives it back at the end if it has another place, else none free: HOLD
 *     finished(5)  5 has a place again: to the end
 *
 * No request ever waits behind a busy replica while another is idle, so that with places = 1 and
 * exponential service it is the M/M/n queue: the probability of waiting is Erlang's C formula
 * (1917), at load 0.9 0.669 for 10 replicas, 0.217 for 100. It is the bound that the others are
 * measured against; its price is that a replica asks for work when it is idle, and that nothing is
 * known of prefixes. With batching, `places` is how many requests a replica runs at once.
 *
 * Places taken are counted here, by route and finished, so that both are O(1). Only when every
 * free one turns out not to be ready are all of them looked at. Should a request vanish without
 * finished (refused on its way), its place comes back when its replica is seen empty. */
#include "routing/routing.h"

enum { OPT_PLACES, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "places", LATHE_OPTION_INTEGER, "1", 1, 1 << 20, "requests", NULL, "A replica has at most so many at once; the rest waits in front." },
};

struct central {
    const struct lathe_host *host;
    uint32_t places, capacity, known; /* known: replicas of the last route */
    uint32_t *taken;                  /* places in use; (capacity) */
    uint32_t *free;                   /* ring of replicas with a free place; (capacity) */
    uint8_t *is_free;                 /* it is in the ring; (capacity) */
    uint32_t head, length;            /* of the ring */
    uint32_t audit;                   /* the next one to be looked at while all are taken */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct central *c = lathe_alloc(host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "router central: no memory for %zu bytes", sizeof *c);
    c->host = host;
    c->places = (uint32_t)config->values[OPT_PLACES].integer;
    *self = c;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct central *c = self;
    if (!c)
        return;
    lathe_free(c->host, c->taken);
    lathe_free(c->host, c->free);
    lathe_free(c->host, c->is_free);
    lathe_free(c->host, c);
}

static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    struct central *c = self;
    c->taken = lathe_alloc_array(c->host, limits->max_replicas, sizeof *c->taken);
    c->free = lathe_alloc_array(c->host, limits->max_replicas, sizeof *c->free);
    c->is_free = lathe_alloc_array(c->host, limits->max_replicas, sizeof *c->is_free);
    if (!c->taken || !c->free || !c->is_free)
        return lathe_fail(err, LATHE_ENOMEM, "router central: no memory for %u replicas", limits->max_replicas);
    c->capacity = limits->max_replicas;
    return LATHE_OK;
}

static void push(struct central *c, uint32_t replica)
{
    if (c->is_free[replica])
        return;
    c->free[(c->head + c->length++) % c->capacity] = replica;
    c->is_free[replica] = 1;
}

static uint32_t pop(struct central *c)
{
    uint32_t replica = c->free[c->head];
    c->head = (c->head + 1) % c->capacity;
    c->length--;
    c->is_free[replica] = 0;
    return replica;
}

/* A request that was refused on its way left its place taken: one replica a held request. */
static void look_for_lost_places(struct central *c, const struct lathe_replica *replicas, uint32_t count)
{
    uint32_t at = c->audit++ % count;
    if (routing_requests(&replicas[at]) == 0 && c->taken[at] > 0) {
        c->taken[at] = 0;
        push(c, at);
    }
}

/* From the ring, the first that is ready; those that aren't go to its end. */
static uint32_t take_free(struct central *c, const struct lathe_replica *replicas, uint32_t count)
{
    for (uint32_t left = c->length; left > 0; left--) {
        uint32_t at = pop(c);
        if (at >= count)
            continue; /* scaled away; back when it is known again */
        if (replicas[at].ready) {
            if (++c->taken[at] < c->places)
                push(c, at);
            return at;
        }
        push(c, at);
    }
    return ROUTING_NONE;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct central *c = self;
    count = count < c->capacity ? count : c->capacity;
    for (; c->known < count; c->known++) {
        c->taken[c->known] = 0;
        push(c, c->known);
    }
    c->known = count;
    *choice = take_free(c, replicas, count);
    if (*choice == ROUTING_NONE && count > 0) {
        look_for_lost_places(c, replicas, count);
        *choice = take_free(c, replicas, count);
    }
    if (*choice != ROUTING_NONE)
        return LATHE_OK;
    if (routing_next_ready(replicas, count, c->audit) == ROUTING_NONE)
        return routing_none_ready("central", req, count, err);
    *choice = LATHE_ROUTER_HOLD;
    return LATHE_OK;
}

static void finished(void *self, const struct lathe_request *req, uint32_t replica)
{
    struct central *c = self;
    (void)req;
    if (replica >= c->known)
        return;
    if (c->taken[replica] > 0)
        c->taken[replica]--;
    if (c->taken[replica] < c->places)
        push(c, replica);
}

static const struct lathe_router_api api = {
    .size = sizeof api,
    .abi = LATHE_ROUTER_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .route = route,
    .finished = finished,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_ROUTER,
    .concurrency = LATHE_SERIAL,
    .name = "central",
    .version = "1.0.0",
    .summary = "one queue in front; a replica with a free place pulls the first",
    .citation = "@article{erlang1917solution, title={Solution of some Problems in the Theory of Probabilities of Significance in "
                "Automatic Telephone Exchanges}, author={Erlang, A. K.}, journal={Elektroteknikeren}, volume={13}, year={1917}}",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

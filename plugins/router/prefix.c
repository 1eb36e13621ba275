/* SPDX-License-Identifier: MIT */
/* Prefix affinity: prompts that begin alike go to the same replica, whose KV cache then has their
 * beginning already. What counts as alike is the first `prefix_tokens` tokens; of a request whose
 * tokens aren't known here, its session; without one, the request itself, which is a random choice.
 *
 * The hash of that, with probe number k = 0, 1, 2, …, gives a replica by jump consistent hashing (a
 * handful of multiplications, no table; one replica more moves 1/n of the keys). The first that is
 * ready and not too loaded gets it: a replica takes no more than `bound` × the mean load, rounded
 * up, so that a popular prefix overflows onto a second replica and not onto everybody. Mirrokni,
 * Thorup and Zadimoghaddam (2018) go to the next one on a ring, which then is the one that overflows
 * next; an independent probe for each k (Chen, Coleman, Shrivastava 2021) has no such cascades. A
 * key so popular that PROBES of them are full goes on from the last one's neighbour to neighbour,
 * of which a share of 1 − 1 / bound has room.
 *
 *     key ─▶ k = 0: replica 17   too loaded
 *            k = 1: replica 4    not ready
 *            k = 2: replica 29   takes it; the next with this key tries 17 first, again
 *
 * The mean is kept, not computed: what each replica had when it was last seen, summed. One is seen
 * when it is probed, and LOOKS more in turn at each request, so that the sum is at most n / LOOKS
 * requests old; all of them are only when there are more than before. O(1 + probes × log n). */
#include <math.h>

#include "routing/routing.h"

enum { OPT_PREFIX_TOKENS, OPT_BOUND, OPT_COUNT };
enum { LOOKS = 4, PROBES = 32 };

static const struct lathe_option options[OPT_COUNT] = {
    { "prefix_tokens", LATHE_OPTION_INTEGER, "256", 1, 1 << 20, "tokens", NULL,
      "Prompts with the same first tokens, so many, belong together; shorter ones are hashed whole." },
    { "bound", LATHE_OPTION_NUMBER, "1.25", 1, 1e6, "", NULL, "A replica takes at most so many times the mean load." },
};

struct seen {
    uint32_t requests;
    uint8_t ready;
};

struct prefix {
    const struct lathe_host *host;
    uint32_t prefix_tokens, capacity, known, hand;
    double bound;
    uint64_t seed;
    struct seen *seen;        /* of each replica, when it was last looked at; (capacity) */
    uint64_t requests, ready; /* sums over the known ones */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct prefix *p = lathe_alloc(host, sizeof *p);
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "router prefix: no memory for %zu bytes", sizeof *p);
    p->host = host;
    p->prefix_tokens = (uint32_t)config->values[OPT_PREFIX_TOKENS].integer;
    p->bound = config->values[OPT_BOUND].number;
    *self = p;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct prefix *p = self;
    if (!p)
        return;
    lathe_free(p->host, p->seen);
    lathe_free(p->host, p);
}

static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    struct prefix *p = self;
    p->seen = lathe_alloc_array(p->host, limits->max_replicas, sizeof *p->seen);
    if (!p->seen)
        return lathe_fail(err, LATHE_ENOMEM, "router prefix: no memory for %u replicas", limits->max_replicas);
    p->capacity = limits->max_replicas;
    p->seed = routing_hash(limits->seed + 1);
    return LATHE_OK;
}

/* ── the mean load ─────────────────────────────────────────────────────────────────── */

static void note(struct prefix *p, uint32_t at, uint32_t requests, uint8_t ready)
{
    p->requests += (uint64_t)requests - p->seen[at].requests; /* wraps and comes back */
    p->ready += (uint64_t)ready - p->seen[at].ready;
    p->seen[at] = (struct seen){ requests, ready };
}

static void look(struct prefix *p, const struct lathe_replica *replicas, uint32_t at)
{
    note(p, at, routing_requests(&replicas[at]), replicas[at].ready != 0);
}

static void look_around(struct prefix *p, const struct lathe_replica *replicas, uint32_t count)
{
    for (; p->known > count; p->known--)
        note(p, p->known - 1, 0, 0);
    for (; p->known < count; p->known++)
        look(p, replicas, p->known);
    for (uint32_t i = 0; i < LOOKS && i < count; i++) {
        p->hand = p->hand + 1 < count ? p->hand + 1 : 0;
        look(p, replicas, p->hand);
    }
}

/* How many requests one may have, this one included. */
static uint64_t most_requests(const struct prefix *p)
{
    return (uint64_t)ceil(p->bound * (double)(p->requests + 1) / (double)(p->ready ? p->ready : 1));
}

/* ── the choice ────────────────────────────────────────────────────────────────────── */

static uint64_t key_of(const struct prefix *p, const struct lathe_request *req)
{
    uint64_t key = p->seed;
    if (!req->tokens)
        return routing_hash(key ^ routing_hash(req->session ? req->session : req->id + ((uint64_t)1 << 63)));
    uint32_t count = req->prompt_tokens < p->prefix_tokens ? req->prompt_tokens : p->prefix_tokens;
    for (uint32_t i = 0; i < count; i++)
        key = routing_hash(key + 0x9E3779B97F4A7C15u + (uint32_t)req->tokens[i]);
    return key;
}

/* Lamping and Veach, "A fast, minimal memory, consistent hash algorithm" (2014). */
static uint32_t jump(uint64_t key, uint32_t count)
{
    int64_t at = -1, next = 0;
    while (next < (int64_t)count) {
        at = next;
        key = key * 2862933555777941757u + 1;
        next = (int64_t)((double)(at + 1) * (0x1p31 / (double)((key >> 33) + 1)));
    }
    return (uint32_t)at;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct prefix *p = self;
    uint32_t best = ROUTING_NONE, at = 0;
    count = count < p->capacity ? count : p->capacity;
    look_around(p, replicas, count);
    uint64_t key = key_of(p, req), most = most_requests(p);
    for (uint64_t k = 0; count > 0 && k < (uint64_t)PROBES + count; k++) {
        at = k < PROBES ? jump(routing_hash(key + k * 0x9E3779B97F4A7C15u), count) : at + 1 < count ? at + 1 : 0;
        look(p, replicas, at);
        if (!replicas[at].ready)
            continue;
        if (best == ROUTING_NONE || routing_less(ROUTING_REQUESTS, &replicas[at], &replicas[best]))
            best = at; /* of those that are too loaded, the least: for want of a better */
        if (p->seen[at].requests < most) {
            best = at;
            break;
        }
    }
    if (best == ROUTING_NONE)
        return routing_none_ready("prefix", req, count, err);
    note(p, best, routing_requests(&replicas[best]) + 1, 1);
    *choice = best;
    return LATHE_OK;
}

static void finished(void *self, const struct lathe_request *req, uint32_t replica)
{
    struct prefix *p = self;
    (void)req;
    if (replica < p->known && p->seen[replica].requests > 0)
        note(p, replica, p->seen[replica].requests - 1, p->seen[replica].ready);
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
    .name = "prefix",
    .version = "1.0.0",
    .summary = "prompts that begin alike to the same replica, unless it has too much to do",
    .citation =
        "@inproceedings{mirrokni2018consistent, title={Consistent Hashing with Bounded Loads}, author={Mirrokni, Vahab and "
        "Thorup, Mikkel and Zadimoghaddam, Morteza}, booktitle={SODA}, pages={587--604}, year={2018}}\n"
        "@inproceedings{chen2021revisiting, title={Revisiting Consistent Hashing with Bounded Loads}, author={Chen, John and "
        "Coleman, Benjamin and Shrivastava, Anshumali}, booktitle={AAAI}, year={2021}}",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

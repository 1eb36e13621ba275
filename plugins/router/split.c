/* SPDX-License-Identifier: MIT */
/* Split: an experiment on live traffic. Each side gets its share of the requests: a side is a
 * replica, or (`by = "model"`) all replicas of one model or version, among which the less loaded of
 * two that are drawn goes.
 *
 *     weights = "0:9,1:1"   ├────────── side 0 ──────────┼ 1 ┤
 *                                       ▲ where the request's point falls decides
 *
 * The point is a hash of what is `sticky`: a tenant, session, correlation id or request then always
 * goes to one side, and the shares are exact in expectation over those. Not sticky, requests take
 * the points n × 0.618… mod 1 in turn, which are as even as points can be: of any n requests each
 * side has its share to within a few. (Kohavi, Longbotham, Sommerfield, Henne 2009, on assigning by
 * hashes.) Without `weights` the replicas' own weights hold, or every model's alike.
 *
 * A side of which none is ready loses its share to the others, in their proportion, until one is: the
 * point is hashed again. A side without a weight gets nothing, whatever happens.
 *
 * The table of sides is made again when a replica has come, gone or changed its model or weight,
 * which is looked for at one replica a request and at the one that is chosen. O(log sides). */
#include <stdlib.h>

#include "routing/routing.h"

enum { OPT_WEIGHTS, OPT_BY, OPT_STICKY, OPT_COUNT };
enum { BY_REPLICA, BY_MODEL };
enum { STICKY_NONE, STICKY_TENANT, STICKY_SESSION, STICKY_CORRELATION, STICKY_REQUEST };

static const struct lathe_option options[OPT_COUNT] = {
    { "weights", LATHE_OPTION_STRING, "", 0, 0, "", NULL,
      "Shares, as \"0:9,1:1\": the number of a replica or model, and its weight. Empty: all that there are." },
    { "by", LATHE_OPTION_CHOICE, "replica", 0, 0, "", "replica|model", "What a side is." },
    { "sticky", LATHE_OPTION_CHOICE, "none", 0, 0, "", "none|tenant|session|correlation|request",
      "Whose requests all go to one side." },
};

struct wish {
    uint32_t number;
    double weight;
};

struct side {
    uint32_t number;      /* of the replica or model */
    uint32_t first, size; /* its replicas in members */
    double until;         /* running sum of the weights */
};

struct split {
    const struct lathe_host *host;
    int by, sticky;
    struct wish *wishes;
    uint32_t wish_count;
    uint32_t capacity, known, side_count, hand;
    uint64_t seed, routed;
    struct side *sides;       /* (capacity) */
    uint32_t *members;        /* replicas, side by side; (capacity) */
    uint64_t *traits;         /* of each replica, when the table was made: model and weight; (capacity) */
};

static void destroy(void *self)
{
    struct split *s = self;
    if (!s)
        return;
    lathe_free(s->host, s->wishes);
    lathe_free(s->host, s->sides);
    lathe_free(s->host, s->members);
    lathe_free(s->host, s->traits);
    lathe_free(s->host, s);
}

/* "0:9,1:1" */
static int read_weights(struct split *s, const char *text, struct lathe_error *err)
{
    size_t entries = 1;
    double sum = 0;
    if (!text || !*text)
        return LATHE_OK;
    for (const char *c = text; *c; c++)
        entries += *c == ',';
    s->wishes = lathe_alloc_array(s->host, entries, sizeof *s->wishes);
    if (!s->wishes)
        return lathe_fail(err, LATHE_ENOMEM, "router split: no memory for %zu weights", entries);
    for (const char *at = text; s->wish_count < entries; at++) {
        char *end;
        unsigned long number = strtoul(at, &end, 10);
        int good = *at >= '0' && *at <= '9' && *end == ':' && number < UINT32_MAX;
        double weight = good ? strtod(at = end + 1, &end) : -1;
        if (!good || end == at || (*end && *end != ',') || !(weight >= 0 && weight <= 1e9))
            return lathe_fail(err, LATHE_EINVAL, "weights should be like \"0:9,1:1\", numbers of 0 to 1e9, not \"%.60s\"",
                              text);
        s->wishes[s->wish_count++] = (struct wish){ (uint32_t)number, weight };
        sum += weight;
        at = end;
    }
    if (!(sum > 0))
        return lathe_fail(err, LATHE_EINVAL, "one of the weights \"%.60s\" should be more than 0", text);
    return LATHE_OK;
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct split *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "router split: no memory for %zu bytes", sizeof *s);
    s->host = host;
    s->by = (int)config->values[OPT_BY].integer;
    s->sticky = (int)config->values[OPT_STICKY].integer;
    int status = read_weights(s, config->values[OPT_WEIGHTS].text, err);
    if (status != LATHE_OK) {
        destroy(s);
        return status;
    }
    *self = s;
    return LATHE_OK;
}

static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    struct split *s = self;
    s->sides = lathe_alloc_array(s->host, limits->max_replicas, sizeof *s->sides);
    s->members = lathe_alloc_array(s->host, limits->max_replicas, sizeof *s->members);
    s->traits = lathe_alloc_array(s->host, limits->max_replicas, sizeof *s->traits);
    if (!s->sides || !s->members || !s->traits)
        return lathe_fail(err, LATHE_ENOMEM, "router split: no memory for %u replicas", limits->max_replicas);
    s->capacity = limits->max_replicas;
    s->seed = limits->seed;
    return LATHE_OK;
}

/* ── the table of sides ────────────────────────────────────────────────────────────── */

static uint64_t traits_of(const struct lathe_replica *r)
{
    return (uint64_t)r->model << 32 | r->weight;
}

static uint32_t number_of(const struct split *s, const struct lathe_replica *r, uint32_t at)
{
    return s->by == BY_MODEL ? r->model : at;
}

static double weight_of(const struct split *s, const struct lathe_replica *r, uint32_t number)
{
    if (s->wish_count == 0)
        return s->by == BY_MODEL ? 1 : r->weight;
    for (uint32_t i = 0; i < s->wish_count; i++)
        if (s->wishes[i].number == number)
            return s->wishes[i].weight;
    return 0;
}

/* The side of that number; sides are few by model, and in order by replica. */
static struct side *find_side(struct split *s, uint32_t number)
{
    if (s->by == BY_REPLICA)
        return NULL; /* each is new */
    for (uint32_t i = 0; i < s->side_count; i++)
        if (s->sides[i].number == number)
            return &s->sides[i];
    return NULL;
}

static void make_table(struct split *s, const struct lathe_replica *replicas, uint32_t count)
{
    double sum = 0;
    uint32_t members = 0;
    s->side_count = 0;
    s->known = count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = number_of(s, &replicas[i], i);
        double weight = weight_of(s, &replicas[i], number);
        s->traits[i] = traits_of(&replicas[i]);
        if (weight <= 0 || find_side(s, number))
            continue;
        s->sides[s->side_count++] = (struct side){ .number = number, .until = sum += weight };
    }
    for (uint32_t k = 0; k < s->side_count; k++) {
        struct side *side = &s->sides[k];
        side->first = members;
        if (s->by == BY_REPLICA)
            s->members[members++] = side->number;
        for (uint32_t i = 0; s->by == BY_MODEL && i < count; i++)
            if (replicas[i].model == side->number)
                s->members[members++] = i;
        side->size = members - side->first;
    }
}

/* Has this one changed since? */
static int is_stale(const struct split *s, const struct lathe_replica *replicas, uint32_t at)
{
    return traits_of(&replicas[at]) != s->traits[at];
}

/* ── the choice ────────────────────────────────────────────────────────────────────── */

/* In [0, 1); again with the next probe, where the side that it falls on has nobody. */
static double point(struct split *s, const struct lathe_request *req, uint32_t probe)
{
    uint64_t key = req->id;
    switch (s->sticky) {
    case STICKY_NONE:
        if (probe == 0) /* the golden ratio's fraction, in 64 bits */
            return (double)((s->routed++ * 0x9E3779B97F4A7C15u) >> 11) * 0x1p-53;
        break;
    case STICKY_TENANT: key = req->tenant; break;
    case STICKY_SESSION: key = req->session ? req->session : req->id; break;
    case STICKY_CORRELATION: key = req->correlation ? req->correlation : req->id; break;
    default: break;
    }
    /* A stream for each kind of key: tenant 7 and request 7 have nothing to do with each other. */
    return lathe_random_unit(s->seed, LATHE_RANDOM_ROUTING, routing_hash(key + 1) ^ (uint64_t)s->sticky, probe);
}

static const struct side *side_at(const struct split *s, double at)
{
    uint32_t low = 0, high = s->side_count - 1;
    at *= s->sides[high].until;
    while (low < high) { /* the first whose sum is beyond */
        uint32_t middle = low + (high - low) / 2;
        if (s->sides[middle].until > at)
            high = middle;
        else
            low = middle + 1;
    }
    return &s->sides[low];
}

/* The less loaded of two ready replicas of a side, ROUTING_NONE if none is ready. */
static uint32_t member(const struct split *s, const struct side *side, const struct lathe_request *req,
                       const struct lathe_replica *replicas)
{
    const uint32_t *members = s->members + side->first;
    struct routing_draws draws = { .seed = s->seed, .stream = req->id, .counter = 1 << 16 };
    uint32_t best = ROUTING_NONE, found = 0;
    if (side->size == 1)
        return replicas[members[0]].ready ? members[0] : ROUTING_NONE;
    for (int i = 0; i < ROUTING_TRIES && found < 2; i++) {
        uint32_t at = members[routing_draw(&draws, side->size)];
        if (!replicas[at].ready || at == best)
            continue;
        found++;
        if (best == ROUTING_NONE || routing_less(ROUTING_REQUESTS, &replicas[at], &replicas[best]))
            best = at;
    }
    for (uint32_t i = 0; i < side->size && best == ROUTING_NONE; i++)
        if (replicas[members[i]].ready)
            best = members[i];
    return best;
}

/* Few sides have anybody: the first after the point that has. */
static uint32_t any_member(const struct split *s, const struct side *from, const struct lathe_request *req,
                           const struct lathe_replica *replicas)
{
    uint32_t start = (uint32_t)(from - s->sides), at = ROUTING_NONE;
    for (uint32_t i = 0; i < s->side_count && at == ROUTING_NONE; i++)
        at = member(s, &s->sides[((uint64_t)start + i) % s->side_count], req, replicas);
    return at;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct split *s = self;
    uint32_t at = ROUTING_NONE;
    count = count < s->capacity ? count : s->capacity;
    if (count == 0)
        return routing_none_ready("split", req, count, err);
    s->hand = s->hand + 1 < count ? s->hand + 1 : 0;
    if (s->known != count || is_stale(s, replicas, s->hand))
        make_table(s, replicas, count);
    if (s->side_count == 0)
        return lathe_fail(err, LATHE_EBUSY, "router split: none of %u replicas has a weight, so request %llu can go nowhere: "
                          "option weights should name them", count, (unsigned long long)req->id);
    const struct side *side = NULL;
    for (uint32_t probe = 0; probe < ROUTING_TRIES && at == ROUTING_NONE; probe++) {
        side = side_at(s, point(s, req, probe));
        at = member(s, side, req, replicas);
    }
    if (at == ROUTING_NONE)
        at = any_member(s, side, req, replicas);
    if (at == ROUTING_NONE)
        return lathe_fail(err, LATHE_EBUSY, "router split: of %u replicas none that has a weight is ready for request %llu; try later",
                          count, (unsigned long long)req->id);
    if (is_stale(s, replicas, at))
        s->known = 0; /* the table is made again for the next one */
    *choice = at;
    return LATHE_OK;
}

static const struct lathe_router_api api = {
    .size = sizeof api,
    .abi = LATHE_ROUTER_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .route = route,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_ROUTER,
    .concurrency = LATHE_SERIAL,
    .name = "split",
    .version = "1.0.0",
    .summary = "each replica or model its share of the requests, by weights",
    .citation = "@article{kohavi2009controlled, title={Controlled experiments on the web: survey and practical guide}, author={Kohavi, "
                "Ron and Longbotham, Roger and Sommerfield, Dan and Henne, Randal M.}, journal={Data Mining and Knowledge "
                "Discovery}, volume={18}, number={1}, pages={140--181}, year={2009}}",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

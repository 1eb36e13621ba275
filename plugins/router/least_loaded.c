/* SPDX-License-Identifier: MIT */
/* Least loaded: the replica with the least work at hand, counted in requests that live there, or
 * by option `load` in tokens still to be computed; among equals the other measure decides, then
 * whose turn it is, so that idle replicas share a trickle of requests. (Join the shortest queue;
 * Winston 1977: best for equal servers with exponential service and no knowledge of sizes.)
 *
 * It looks at every replica for each request: among thousands p2c comes near to it at a fraction. */
#include "routing/routing.h"

enum { OPT_LOAD, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = { ROUTING_LOAD_OPTION("requests") };

struct least_loaded {
    const struct lathe_host *host;
    uint32_t next; /* where the search begins: the one after the last choice */
    int load;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct least_loaded *l = lathe_alloc(host, sizeof *l);
    if (!l)
        return lathe_fail(err, LATHE_ENOMEM, "router least_loaded: no memory for %zu bytes", sizeof *l);
    l->host = host;
    l->load = (int)config->values[OPT_LOAD].integer;
    *self = l;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct least_loaded *l = self;
    if (l)
        lathe_free(l->host, l);
}

static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    (void)self, (void)limits, (void)err; /* it keeps nothing of a replica */
    return LATHE_OK;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct least_loaded *l = self;
    const struct lathe_replica *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct lathe_replica *r = &replicas[((uint64_t)l->next + i) % count];
        if (r->ready && (!best || routing_less(l->load, r, best)))
            best = r;
    }
    if (!best)
        return routing_none_ready("least_loaded", req, count, err);
    *choice = (uint32_t)(best - replicas);
    l->next = (*choice + 1) % count;
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
    .name = "least_loaded",
    .version = "1.1.0",
    .summary = "the replica with the fewest requests, then the fewest tokens to compute",
    .citation = "@article{winston1977optimality, title={Optimality of the Shortest Line Discipline}, author={Winston, Wayne}, "
                "journal={Journal of Applied Probability}, volume={14}, number={1}, pages={181--189}, year={1977}}",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

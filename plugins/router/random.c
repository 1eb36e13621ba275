/* SPDX-License-Identifier: MIT */
/* Random: any ready replica, each alike. A Poisson stream, drawn apart, is a Poisson stream at each
 * replica, so that n replicas are n single queues (M/G/1 of the same load): what choosing at all is
 * measured against. The draw is a function of (seed, request): the same request goes to the same
 * replica, whatever else was routed. O(1). */
#include "routing/routing.h"

struct random_router {
    const struct lathe_host *host;
    uint64_t seed;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct random_router *r = lathe_alloc(host, sizeof *r);
    (void)config;
    if (!r)
        return lathe_fail(err, LATHE_ENOMEM, "router random: no memory for %zu bytes", sizeof *r);
    r->host = host;
    *self = r;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct random_router *r = self;
    if (r)
        lathe_free(r->host, r);
}

static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    (void)err;
    ((struct random_router *)self)->seed = limits->seed;
    return LATHE_OK;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct routing_draws draws = { .seed = ((struct random_router *)self)->seed, .stream = req->id };
    uint32_t at = routing_draw_ready(&draws, replicas, count);
    if (at == ROUTING_NONE)
        return routing_none_ready("random", req, count, err);
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
    .name = "random",
    .version = "1.0.0",
    .summary = "any ready replica, each alike",
    .api = &api,
};

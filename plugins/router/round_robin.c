/* SPDX-License-Identifier: MIT */
/* Round robin: each replica in turn, passing over those that aren't ready. Knows nothing of load,
 * and spreads requests more evenly than drawing them: the arrivals of one replica are an Erlang
 * process instead of a Poisson one. The baseline of every other router; O(1). */
#include "routing/routing.h"

struct round_robin {
    const struct lathe_host *host;
    uint32_t next; /* the replica whose turn it is */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct round_robin *r = lathe_alloc(host, sizeof *r);
    (void)config;
    if (!r)
        return lathe_fail(err, LATHE_ENOMEM, "router round_robin: no memory for %zu bytes", sizeof *r);
    r->host = host;
    *self = r;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct round_robin *r = self;
    if (r)
        lathe_free(r->host, r);
}

static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    (void)limits, (void)err;
    ((struct round_robin *)self)->next = 0;
    return LATHE_OK;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct round_robin *r = self;
    uint32_t at = routing_next_ready(replicas, count, r->next);
    if (at == ROUTING_NONE)
        return routing_none_ready("round_robin", req, count, err);
    *choice = at;
    r->next = (at + 1) % count;
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
    .name = "round_robin",
    .version = "1.0.0",
    .summary = "each ready replica in turn",
    .api = &api,
};

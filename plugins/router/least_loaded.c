/* SPDX-License-Identifier: MIT */
/* Least loaded: the replica with the least work at hand, counted in requests that live there;
 * among equals the one with the fewest tokens still to be computed, then the next in turn, so
 * that idle replicas share a trickle of requests. (Join the shortest queue; Winston 1977: best
 * for equal servers with exponential service and no knowledge of sizes.) */
#include <lathe/router.h>

struct least_loaded {
    const struct lathe_host *host;
    uint32_t next; /* where the search begins: the one after the last choice */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct least_loaded *l = lathe_alloc(host, sizeof *l);
    (void)config;
    if (!l)
        return lathe_fail(err, LATHE_ENOMEM, "router least_loaded: no memory for %zu bytes", sizeof *l);
    l->host = host;
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

static int is_less(const struct lathe_replica *a, const struct lathe_replica *b)
{
    uint64_t of_a = (uint64_t)a->waiting + a->running, of_b = (uint64_t)b->waiting + b->running;
    return of_a != of_b ? of_a < of_b : a->pending_tokens < b->pending_tokens;
}

static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct least_loaded *l = self;
    const struct lathe_replica *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct lathe_replica *r = &replicas[((uint64_t)l->next + i) % count];
        if (r->ready && (!best || is_less(r, best)))
            best = r;
    }
    if (!best)
        return lathe_fail(err, LATHE_EBUSY, "router least_loaded: none of %u replicas is ready for request %llu; try later",
                          count, (unsigned long long)req->id);
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
    .version = "1.0.0",
    .summary = "the replica with the fewest requests, then the fewest tokens to compute",
    .api = &api,
};

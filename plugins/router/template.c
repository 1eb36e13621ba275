/* SPDX-License-Identifier: MIT */
/* A router to copy. It works: round robin over the replicas that are ready.
 *
 *   1. Say in this comment what your policy does, and cite its paper below.
 *   2. Declare options, if you need any, as plugins/scheduler/template.c does.
 *   3. route: choose from what the replicas say of themselves. Allocate nothing.
 *   4. Name it in lathe_plugin, at the end, as the file is named.
 *
 * Build, and the conformance tests run on it by themselves. */
#include <lathe/router.h>

struct mine {
    const struct lathe_host *host;
    uint32_t next; /* the replica whose turn it is */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    (void)config;
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "router template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (m)
        lathe_free(m->host, m);
}

/* What depends on max_replicas or the seed is made here; round robin needs neither. */
static int bind_limits(void *self, const struct lathe_router_limits *limits, struct lathe_error *err)
{
    (void)self, (void)limits, (void)err;
    return LATHE_OK;
}

/* Step 3. */
static int route(void *self, const struct lathe_request *req, const struct lathe_replica *replicas, uint32_t count,
                 uint32_t *choice, struct lathe_error *err)
{
    struct mine *m = self;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)(((uint64_t)m->next + i) % count);
        if (replicas[at].ready) {
            *choice = at;
            m->next = (at + 1) % count;
            return LATHE_OK;
        }
    }
    return lathe_fail(err, LATHE_EBUSY, "router template: none of %u replicas is ready for request %llu; try later",
                      count, (unsigned long long)req->id);
}

static const struct lathe_router_api api = {
    .size = sizeof api,
    .abi = LATHE_ROUTER_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .route = route,
};

/* Step 4. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_ROUTER,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a router to copy: round robin over the ready replicas",
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* The bus seam: how do services reach each other?
 *
 * A service is a name ("model"), methods and one or more instances to call them on. A
 * name such as "model.forward" is resolved once, to an endpoint; a call is then
 *
 *     endpoint->call(endpoint->self, in, out, err)
 *
 * whatever the bus: `direct` hands out the service's own function and self, so the call
 * is one indirect call and nothing else; other buses hand out a function of their own
 * that brings the same bytes to a worker and waits. Messages are flat
 * (<lathe/message.h>) and are built in memory loaned by the bus.
 *
 *     create → add_service … → resolve … → loan, call, give_back … → remove_service → destroy */
#ifndef LATHE_BUS_H
#define LATHE_BUS_H

#include <lathe/host.h>
#include <lathe/message.h>

enum { LATHE_BUS_ABI = 1 };

struct lathe_service_method {
    const char *name; /* "forward" */
    lathe_method *function;
    void *self;       /* what the function's first argument is */
};

struct lathe_service {
    uint32_t size;
    uint32_t method_count;
    const char *name; /* "model" */
    const struct lathe_service_method *methods;
    int32_t concurrency; /* enum lathe_concurrency of the plugin behind it */
    uint32_t workers;    /* wished for; a bus without workers ignores it */
};

/* Made by resolve, owned by the bus, valid until its service is removed. */
struct lathe_endpoint {
    lathe_method *call;
    void *self;
    uint32_t id;
    uint32_t reserved;
    const char *name; /* "model.forward" */
};

struct lathe_endpoint_stats {
    uint64_t calls, failures, bytes;
    int64_t total_ns, max_ns; /* 0 on buses that don't time */
};

struct lathe_bus_api {
    LATHE_API_HEAD;

    /* The service and its strings are borrowed until remove_service. A second of the same
     * name is LATHE_EBUSY. [main] */
    int (*add_service)(void *self, const struct lathe_service *service, struct lathe_error *err);
    int (*remove_service)(void *self, const char *name, struct lathe_error *err);

    /* "service.method" → endpoint; unknown is LATHE_ENOTFOUND, naming the nearest. [main] */
    int (*resolve)(void *self, const char *name, const struct lathe_endpoint **endpoint,
                   struct lathe_error *err);

    /* Memory for messages of up to `bytes`, 64-byte aligned, head.capacity set, head.bytes
     * = 0, the rest undefined. Held from step to step by the engine. [main] */
    struct lathe_message *(*loan)(void *self, size_t bytes, struct lathe_error *err);
    void (*give_back)(void *self, struct lathe_message *message);

    /* Start a call without waiting; `ticket` names it. A bus without workers does it at
     * once. [engine & running] */
    int (*post)(void *self, const struct lathe_endpoint *endpoint, const void *in, void *out,
                uint64_t *ticket, struct lathe_error *err);
    /* The call's own status. timeout_ns < 0: as long as it takes; 0: LATHE_EBUSY if it is
     * not done. A ticket is spent by any other answer. [engine & running] */
    int (*wait)(void *self, uint64_t ticket, int64_t timeout_ns, struct lathe_error *err);

    /* [any] */
    void (*stats)(void *self, const struct lathe_endpoint *endpoint, struct lathe_endpoint_stats *stats);
};

#endif

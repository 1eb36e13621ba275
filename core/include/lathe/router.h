/* SPDX-License-Identifier: MIT */
/* The router seam: which replica, which model, which version?
 *
 * Asked once for each arriving request, before it belongs to an engine. Only counts and
 * names are seen, so the same plugin routes among threads in real time and among
 * thousands of simulated replicas in virtual time.
 *
 *     create → bind → route, route, … (finished as they end) → destroy */
#ifndef LATHE_ROUTER_H
#define LATHE_ROUTER_H

#include <lathe/host.h>
#include <lathe/request.h>

enum { LATHE_ROUTER_ABI = 2 };

/* A choice that is none: the request waits in front of the replicas, first come first served, and
 * is offered again whenever a request ended somewhere or a replica became ready. since abi 2 */
#define LATHE_ROUTER_HOLD UINT32_MAX

/* One replica as it is now. */
struct lathe_replica {
    uint32_t id;              /* its place in the array */
    uint32_t model;           /* interned model and version */
    uint32_t waiting, running;
    uint64_t pending_tokens;  /* prompt tokens not yet computed, of all its requests */
    uint32_t blocks_used, blocks_total;
    uint32_t weight;          /* share wished for, in thousandths */
    int32_t ready;            /* 0: takes no work */
};

struct lathe_router_limits {
    uint32_t size;
    uint32_t max_replicas;
    uint64_t seed;
};

struct lathe_router_api {
    LATHE_API_HEAD;
    int (*bind)(void *self, const struct lathe_router_limits *limits, struct lathe_error *err); /* [main] */
    /* Write the chosen replica's place (or LATHE_ROUTER_HOLD) to *choice. None ready:
     * LATHE_EBUSY. `req` is as the sender described it: its id, tenant (numbered by the deployment),
     * session, lengths; tokens are NULL if it came as text or by its lengths. Allocates nothing, and
     * is quick among thousands: it need not look at all of them. [engine & running] */
    int (*route)(void *self, const struct lathe_request *req, const struct lathe_replica *replicas,
                 uint32_t count, uint32_t *choice, struct lathe_error *err);
    /* (optional) It ended on that replica. [engine & running] */
    void (*finished)(void *self, const struct lathe_request *req, uint32_t replica);
};

#endif

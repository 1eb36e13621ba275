/* SPDX-License-Identifier: MIT */
/* See routing.h. */
#include "routing.h"

uint32_t routing_draw_ready(struct routing_draws *draws, const struct lathe_replica *replicas, uint32_t count)
{
    uint32_t ready = 0, at = 0;
    for (int i = 0; count > 0 && i < ROUTING_TRIES; i++)
        if (replicas[at = routing_draw(draws, count)].ready)
            return at;
    for (uint32_t i = 0; i < count; i++)
        ready += replicas[i].ready != 0;
    if (ready == 0)
        return ROUTING_NONE;
    uint32_t left = routing_draw(draws, ready);
    for (at = 0; !replicas[at].ready || left-- > 0; at++)
        ;
    return at;
}

uint32_t routing_next_ready(const struct lathe_replica *replicas, uint32_t count, uint32_t from)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)(((uint64_t)from + i) % count);
        if (replicas[at].ready)
            return at;
    }
    return ROUTING_NONE;
}

int routing_none_ready(const char *router, const struct lathe_request *req, uint32_t count, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EBUSY, "router %s: none of %u replicas is ready for request %llu; try later", router, count,
                      (unsigned long long)req->id);
}

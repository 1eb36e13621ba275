/* SPDX-License-Identifier: MIT */
/* What routers share: how loaded a replica is, draws that a replay repeats, and looking for a
 * replica that is ready without looking at all of them.
 *
 * Among thousands of replicas a router that reads them all for each request is what is slow. Draws
 * find a ready one in 1 / (share that is ready) tries; only when TRIES of them missed is everybody
 * counted, so that the draw stays uniform and none ready is noticed. */
#ifndef LIB_ROUTING_H
#define LIB_ROUTING_H

#include <lathe/random.h>
#include <lathe/router.h>

enum { ROUTING_TRIES = 16 };
#define ROUTING_NONE UINT32_MAX

/* What "load" means: an option of several routers. */
enum routing_load { ROUTING_REQUESTS = 0, ROUTING_TOKENS = 1 };
#define ROUTING_LOAD_OPTION(default_text)                                                      \
    { "load", LATHE_OPTION_CHOICE, default_text, 0, 0, "", "requests|tokens",                  \
      "What is compared: requests that live there, or prompt tokens still to be computed." }

static inline uint32_t routing_requests(const struct lathe_replica *r)
{
    return r->waiting + r->running;
}

/* a has less to do than b; equal in the measure, the other one decides. */
static inline int routing_less(int load, const struct lathe_replica *a, const struct lathe_replica *b)
{
    uint32_t of_a = routing_requests(a), of_b = routing_requests(b);
    if (load == ROUTING_TOKENS && a->pending_tokens != b->pending_tokens)
        return a->pending_tokens < b->pending_tokens;
    return of_a != of_b ? of_a < of_b : a->pending_tokens < b->pending_tokens;
}

/* Draws of one request: a function of (seed, request), whatever was routed before. */
struct routing_draws {
    uint64_t seed, stream;
    uint32_t counter;
};

static inline uint32_t routing_draw(struct routing_draws *d, uint32_t below)
{
    return (uint32_t)(lathe_random_unit(d->seed, LATHE_RANDOM_ROUTING, d->stream, d->counter++) * below);
}

/* One of those that are ready, each alike; ROUTING_NONE if none is. */
uint32_t routing_draw_ready(struct routing_draws *draws, const struct lathe_replica *replicas, uint32_t count);

/* The first that is ready from `from` on, around; ROUTING_NONE if none is. */
uint32_t routing_next_ready(const struct lathe_replica *replicas, uint32_t count, uint32_t from);

/* 64 bits that depend on each bit of x (the finaliser of splitmix64). */
static inline uint64_t routing_hash(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* LATHE_EBUSY, with its sentence. */
int routing_none_ready(const char *router, const struct lathe_request *req, uint32_t count, struct lathe_error *err);

#endif

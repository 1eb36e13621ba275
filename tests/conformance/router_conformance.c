/* SPDX-License-Identifier: MIT */
/* What every router must keep: the choice is a replica that is ready, none ready is said so,
 * and over many requests no ready replica is left out. */
#include <lathe/router.h>

#include "harness.h"

enum { REPLICAS = 8 };

static const struct lathe_router_api *api;

static void *open_router(struct subject *s)
{
    struct lathe_router_limits limits = { .size = sizeof limits, .max_replicas = REPLICAS, .seed = 4 };
    struct lathe_error err = { 0 };
    void *self = subject_create(s);
    api = (const void *)s->head;
    CHECK_OK(api->bind(self, &limits, &err), &err);
    return self;
}

static uint32_t replicas(struct lathe_replica *r, struct dice *d)
{
    uint32_t count = 1 + roll(d, REPLICAS);
    for (uint32_t i = 0; i < count; i++)
        r[i] = (struct lathe_replica){ .id = i, .waiting = roll(d, 20), .running = roll(d, 8), .blocks_total = 100,
                                       .blocks_used = roll(d, 101), .pending_tokens = roll(d, 5000), .weight = 1000,
                                       .ready = roll(d, 3) > 0 };
    return count;
}

static void chooses_only_a_ready_replica(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 1 };
    void *self = open_router(s);
    for (uint64_t id = 1; id < 5000; id++) {
        struct lathe_replica r[REPLICAS];
        struct lathe_request req = { .size = sizeof req, .id = id, .session = roll(&d, 50), .prompt_tokens = 10 };
        uint32_t count = replicas(r, &d), ready = 0, choice = UINT32_MAX;
        int status;
        for (uint32_t i = 0; i < count; i++)
            ready += r[i].ready != 0;
        err.message[0] = '\0';
        status = api->route(self, &req, r, count, &choice, &err);
        if (ready == 0) {
            CHECK(status == LATHE_EBUSY && err.message[0], "none ready: status %d", status);
            continue;
        }
        CHECK_OK(status, &err);
        CHECK(choice < count && r[choice].ready, "replica %u of %u was chosen", choice, count);
        if (api->finished && roll(&d, 2))
            api->finished(self, &req, choice);
    }
    CHECK_FAILS(api->route(self, &(struct lathe_request){ .id = 1 }, NULL, 0, &(uint32_t){ 0 }, &err), LATHE_EBUSY, &err);
    api->destroy(self);
}

static void leaves_no_ready_replica_out(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *self = open_router(s);
    struct lathe_replica r[REPLICAS] = { 0 };
    uint32_t times[REPLICAS] = { 0 };
    for (uint32_t i = 0; i < REPLICAS; i++)
        r[i] = (struct lathe_replica){ .id = i, .blocks_total = 100, .weight = 1000, .ready = i != 3 };
    for (uint64_t id = 1; id <= 800; id++) {
        struct lathe_request req = { .size = sizeof req, .id = id, .session = id, .prompt_tokens = 10 };
        uint32_t choice;
        CHECK_OK(api->route(self, &req, r, REPLICAS, &choice, &err), &err);
        times[choice]++;
        r[choice].waiting++; /* so that those that look at load see it */
        r[choice].pending_tokens += 10;
    }
    for (uint32_t i = 0; i < REPLICAS; i++)
        CHECK((times[i] > 0) == (i != 3), "replica %u got %u of 800 requests", i, times[i]);
    api->destroy(self);
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_router_limits limits = { .size = sizeof limits, .max_replicas = REPLICAS, .seed = 4 };
    struct lathe_replica r = { .ready = 1 };
    struct lathe_request req = { .size = sizeof req, .id = 1 };
    uint32_t choice;
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    if ((status = api->bind(self, &limits, err)) == LATHE_OK)
        status = api->route(self, &req, &r, 1, &choice, err);
    api->destroy(self);
    return status;
}

int main(int argc, char **argv)
{
    static const struct behaviour behaviours[] = {
        { "chooses_only_a_ready_replica", chooses_only_a_ready_replica },
        { "leaves_no_ready_replica_out", leaves_no_ready_replica_out },
    };
    return conformance(argc, argv, LATHE_KIND_ROUTER, LATHE_ROUTER_ABI,
                       offsetof(struct lathe_router_api, route) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

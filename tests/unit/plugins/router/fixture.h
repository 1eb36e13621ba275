/* SPDX-License-Identifier: MIT */
/* A router from the build tree and a fleet that it routes among: what the replicas say of
 * themselves is true after each call, as the deployment keeps it. For tests. */
#ifndef TESTS_ROUTER_FIXTURE_H
#define TESTS_ROUTER_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "registry.h"
#include <lathe/random.h>
#include <lathe/router.h>

enum { FLEET_MOST = 2000 };

struct fleet {
    struct registry *registry;
    struct instance *instance;
    const struct lathe_router_api *api;
    struct lathe_replica r[FLEET_MOST];
    uint32_t count;
    uint64_t id; /* of the last request */
};

/* `options`: name, text, name, text, …, NULL. */
static inline struct fleet *fleet_open(const char *router, uint32_t count, const char *const *options)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct option_setting settings[8];
    struct lathe_error err = { 0 };
    size_t given = 0;
    struct fleet *f = calloc(1, sizeof *f);
    assert_non_null(f);
    for (; options && options[2 * given]; given++)
        settings[given] = (struct option_setting){ options[2 * given], options[2 * given + 1] };
    struct lathe_router_limits limits = { .size = sizeof limits, .max_replicas = count, .seed = 7 };
    if (registry_open(folders, &f->registry, &err) ||
        instance_create(f->registry, LATHE_KIND_ROUTER, router, settings, given, &f->instance, &err))
        fail_msg("%s", err.message);
    f->api = f->instance->api;
    if (f->api->bind(f->instance->self, &limits, &err))
        fail_msg("%s", err.message);
    f->count = count;
    for (uint32_t i = 0; i < count; i++)
        f->r[i] = (struct lathe_replica){ .id = i, .weight = 1000, .ready = 1 };
    return f;
}

static inline void fleet_close(struct fleet *f)
{
    instance_destroy(f->instance);
    registry_close(f->registry);
    free(f);
}

/* Where it went, or LATHE_ROUTER_HOLD; it is then waiting there. An id of 0: the next. */
static inline uint32_t fleet_route(struct fleet *f, struct lathe_request req)
{
    struct lathe_error err = { 0 };
    uint32_t choice = 0;
    req.size = sizeof req;
    req.id = req.id ? req.id : ++f->id;
    if (f->api->route(f->instance->self, &req, f->r, f->count, &choice, &err))
        fail_msg("%s", err.message);
    if (choice == LATHE_ROUTER_HOLD)
        return choice;
    assert_true(choice < f->count && f->r[choice].ready);
    f->r[choice].waiting++;
    f->r[choice].pending_tokens += req.prompt_tokens;
    return choice;
}

static inline void fleet_end(struct fleet *f, uint32_t replica)
{
    struct lathe_request req = { .size = sizeof req };
    f->r[replica].waiting--;
    if (f->api->finished)
        f->api->finished(f->instance->self, &req, replica);
}

static inline double fleet_unit(uint64_t stream, uint32_t counter)
{
    return lathe_random_unit(11, LATHE_RANDOM_USER, stream, counter);
}

static inline void near(double found, double expected, double share, const char *what)
{
    if (!(fabs(found - expected) <= share * fabs(expected)))
        fail_msg("%s: found %g, expected %g within %g%%", what, found, expected, 100 * share);
}

/* Mean time in the system, in service times, with Poisson arrivals of `load` a replica and exponential
 * service: the uniformised chain (each event is an arrival, or a service that may find nobody), and
 * Little's law. `span` in service times, of which the first fifth isn't counted. */
static inline double fleet_mean_time(struct fleet *f, double load, double span)
{
    uint32_t events = (uint32_t)(span * (1 + load) * f->count);
    double present = 0, sum = 0;
    for (uint32_t i = 0; i < events; i++) {
        if (fleet_unit(1, i) * (1 + load) < load) {
            present += fleet_route(f, (struct lathe_request){ .prompt_tokens = 1 }) != LATHE_ROUTER_HOLD;
        } else {
            uint32_t at = (uint32_t)(fleet_unit(2, i) * f->count);
            if (f->r[at].waiting > 0) {
                fleet_end(f, at);
                present--;
            }
        }
        sum += i >= events / 5 ? present : 0;
    }
    return sum / (0.8 * events) / (load * f->count);
}

#endif

/* SPDX-License-Identifier: MIT */
/* How an engine of lathe.engine fares: engine:health() and engine:stats(). */
#include "lua_internal.h"

static void push_service(lua_State *L, const struct lathe_service_health *h, int64_t now_ns)
{
    static const char *const breakers[] = { "closed", "open", "half_open" };
    lua_createtable(L, 0, 12);
    lua_set_boolean(L, "alive", h->alive);
    lua_set_boolean(L, "ready", h->ready);
    lua_set_text(L, "breaker", h->breaker >= 0 && h->breaker < 3 ? breakers[h->breaker] : "unknown");
    lua_set_integer(L, "workers", h->workers);
    lua_set_integer(L, "workers_wanted", h->workers_wanted);
    lua_set_integer(L, "queued", h->queued);
    lua_set_integer(L, "restarts", h->restarts);
    if (h->pid)
        lua_set_integer(L, "pid", h->pid);
    if (h->last_beat_ns)
        lua_set_number(L, "beat_age_s", (double)(now_ns - h->last_beat_ns) * 1e-9);
    if (h->last_error_ns || h->last_error.message[0]) {
        lua_set_text(L, "last_error", h->last_error.message);
        lua_set_number(L, "last_error_age_s", (double)(now_ns - h->last_error_ns) * 1e-9);
    }
}

/* engine:health() → { ready, degraded, replicas, losses, refused, services = { model = { … }, … } } */
int lua_engine_health(lua_State *L)
{
    static const char *const degraded[] = { "normal", "probes_off", "refusing" };
    const struct run_job *job = lua_engine_job(L, 1, "engine:health");
    struct deployment *d = job->deployment;
    void *bus_self;
    const struct lathe_bus_api *bus = deployment_bus(d, &bus_self);
    int64_t now = clock_now(&job->clock);
    struct engine_stats stats;
    bool ready = true;

    deployment_get_stats(d, &stats);
    lua_createtable(L, 0, 6);
    lua_newtable(L);
    for (uint32_t r = 0; r < deployment_replicas(d); r++) {
        const struct engine *engine = deployment_engine(d, r);
        const char *name;
        for (uint32_t i = 0; (name = engine_service(engine, i)) != NULL; i++) {
            struct lathe_service_health health = { .size = sizeof health };
            struct lathe_error err;
            if (bus->health(bus_self, name, &health, &err) != LATHE_OK)
                continue;
            ready = ready && health.ready;
            push_service(L, &health, now);
            lua_setfield(L, -2, name);
        }
    }
    lua_setfield(L, -2, "services");
    lua_set_boolean(L, "ready", ready);
    lua_set_text(L, "degraded", degraded[stats.degraded]);
    lua_set_integer(L, "replicas", deployment_replicas(d));
    lua_set_integer(L, "losses", (int64_t)stats.losses);
    lua_set_integer(L, "refused", (int64_t)stats.refused);
    return 1;
}

static void push_endpoints(lua_State *L, struct deployment *d)
{
    static const char *const methods[][2] = { { "tokenizer", "encode" }, { "tokenizer", "decode" }, { "model", "forward" },
                                              { "sampler", "sample" },   { "scheduler", "rank" },   { "batching", "fill" },
                                              { "memory", "reserve" } };
    void *bus_self;
    const struct lathe_bus_api *bus = deployment_bus(d, &bus_self);
    lua_newtable(L);
    for (uint32_t r = 0; r < deployment_replicas(d); r++) {
        for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
            const struct lathe_endpoint *endpoint;
            struct lathe_endpoint_stats stats;
            struct lathe_error err;
            char name[64];
            bool shared = i < 2;
            if (shared && r > 0)
                continue;
            if (r == 0)
                snprintf(name, sizeof name, "%s.%s", methods[i][0], methods[i][1]);
            else
                snprintf(name, sizeof name, "%s:%u.%s", methods[i][0], r, methods[i][1]);
            if (bus->resolve(bus_self, name, &endpoint, &err) != LATHE_OK)
                continue;
            bus->stats(bus_self, endpoint, &stats);
            lua_createtable(L, 0, 10);
            lua_set_integer(L, "calls", (int64_t)stats.calls);
            lua_set_integer(L, "failures", (int64_t)stats.failures);
            lua_set_integer(L, "retries", (int64_t)stats.retries);
            lua_set_integer(L, "refused", (int64_t)stats.refused);
            lua_set_integer(L, "expired", (int64_t)stats.expired);
            lua_set_integer(L, "bytes", (int64_t)stats.bytes);
            lua_set_number(L, "total_s", (double)stats.total_ns * 1e-9);
            lua_set_number(L, "p50_us", (double)stats.p50_ns * 1e-3);
            lua_set_number(L, "p99_us", (double)stats.p99_ns * 1e-3);
            lua_set_number(L, "max_us", (double)stats.max_ns * 1e-3);
            lua_setfield(L, -2, name);
        }
    }
}

/* engine:stats() → counts since it was opened, and of each endpoint of the bus. */
int lua_engine_stats(lua_State *L)
{
    struct deployment *d = lua_engine_job(L, 1, "engine:stats")->deployment;
    struct engine_stats s;
    deployment_get_stats(d, &s);
    lua_createtable(L, 0, 14);
    lua_set_integer(L, "waiting", s.waiting);
    lua_set_integer(L, "running", s.running);
    lua_set_integer(L, "steps", (int64_t)s.steps);
    lua_set_integer(L, "finished", (int64_t)s.finished);
    lua_set_integer(L, "failed", (int64_t)s.failed);
    lua_set_integer(L, "preemptions", (int64_t)s.preemptions);
    lua_set_integer(L, "prompt_tokens", (int64_t)s.prompt_tokens);
    lua_set_integer(L, "output_tokens", (int64_t)s.output_tokens);
    lua_set_integer(L, "kv_blocks_used", s.kv.used);
    lua_set_integer(L, "kv_blocks_total", s.kv.total);
    push_endpoints(L, d);
    lua_setfield(L, -2, "endpoints");
    return 1;
}

/* SPDX-License-Identifier: MIT */
/* lathe.bus { "shm", spin_us = 50 }: a bus by itself, with service "echo" on it (echo.h), for
 * experiments that ask what a call costs.
 *
 *     local bus <close> = lathe.bus "async"
 *     bus:ping(10000)                           → seconds for 10,000 calls that do nothing
 *     bus:send { bytes = 65536, calls = 100 }   → seconds: write the payload, have it summed
 *     bus:send { bytes = 65536, calls = 100, copy = true }   written elsewhere, copied in, copied out
 *     bus:scale(2)   bus:kill()                 more workers; the end of the first one's process
 *
 * Every sum is checked: a wrong one is an error. */
#include "lua_internal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "echo.h"
#include "recipe.h"

#define LUA_LATHE_BUS "lathe.bus"

struct lua_bus {
    struct instance *instance;
    const struct lathe_bus_api *api;
    void *self;
    struct echo *echo;
    struct lathe_service_method methods[ECHO_METHODS];
    struct lathe_service service;
    char *recipe;
    const struct lathe_endpoint *ping, *sum, *take;
    bool added;
    struct stage stage;
    struct echo_in *in; /* loaned; grown to the largest payload */
    struct echo_out *out;
    uint64_t *elsewhere;
    uint64_t capacity;
    bool open;
};

static int bus_close(lua_State *L)
{
    struct lua_bus *b = luaL_checkudata(L, 1, LUA_LATHE_BUS);
    struct lathe_error ignored;
    if (b->instance) {
        if (b->in)
            b->api->give_back(b->self, &b->in->head);
        if (b->out)
            b->api->give_back(b->self, &b->out->head);
        if (b->added)
            b->api->remove_service(b->self, "echo", &ignored);
        instance_destroy(b->instance);
    }
    stage_clear(&b->stage);
    echo_destroy(b->echo);
    free(b->recipe);
    free(b->elsewhere);
    memset(b, 0, sizeof *b);
    return 0;
}

static struct lua_bus *check_bus(lua_State *L, const char *what)
{
    char text[128];
    struct lua_bus *b = luaL_testudata(L, 1, LUA_LATHE_BUS);
    if (!b)
        lua_fail(L, "%s: should be called with a colon on a bus, not on %s", what, lua_describe(L, 1, text, sizeof text));
    if (!b->open)
        lua_fail(L, "%s: the bus is used after it was closed", what);
    return b;
}

static int open_echo(struct lua_bus *b, struct lathe_error *err)
{
    int status = LATHE_OK;
    b->api = b->instance->api;
    b->self = b->instance->self;
    b->echo = echo_create();
    if (!b->echo)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for service echo");
    echo_methods(b->echo, b->methods);
    b->service = (struct lathe_service){ .size = sizeof b->service, .name = "echo", .methods = b->methods,
                                         .method_count = ECHO_METHODS, .workers = 1, .concurrency = LATHE_SERIAL };
    if (b->api->get_extension && b->api->get_extension(NULL, LATHE_BUS_WORKER)) {
        if ((status = recipe_of_echo(&b->recipe, err)) != LATHE_OK)
            return status;
        b->service.recipe = b->recipe;
        b->service.recipe_bytes = strlen(b->recipe);
    }
    if ((status = b->api->add_service(b->self, &b->service, err)) != LATHE_OK)
        return status;
    b->added = true;
    if ((status = b->api->resolve(b->self, "echo.ping", &b->ping, err)) != LATHE_OK ||
        (status = b->api->resolve(b->self, "echo.sum", &b->sum, err)) != LATHE_OK ||
        (status = b->api->resolve(b->self, "echo.take", &b->take, err)) != LATHE_OK)
        return status;
    b->in = (void *)b->api->loan(b->self, sizeof *b->in + 64, err);
    b->out = b->in ? (void *)b->api->loan(b->self, sizeof *b->out, err) : NULL;
    return b->out ? LATHE_OK : err->code;
}

int lua_bus_new(lua_State *L)
{
    struct lua_lathe *lathe = lua_lathe_of(L);
    struct lathe_error err;
    lua_stop_if_help(L);
    lua_settop(L, 1);
    struct lua_bus *b = lua_newuserdatauv(L, sizeof *b, 0);
    memset(b, 0, sizeof *b);
    luaL_setmetatable(L, LUA_LATHE_BUS);
    lua_check_stage(L, 1, "lathe.bus", LATHE_KIND_BUS, &b->stage);
    if (stage_create(lathe->registry, LATHE_KIND_BUS, &b->stage, &b->instance, &err) || open_echo(b, &err))
        lua_fail_error(L, "lathe.bus", &err);
    b->open = true;
    return 1;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fresh(struct lua_bus *b)
{
    b->in->head.bytes = sizeof *b->in;
    b->in->payload = (struct lathe_span){ 0 };
    b->out->head.bytes = sizeof *b->out;
}

static int bus_ping(lua_State *L)
{
    struct lua_bus *b = check_bus(L, "bus:ping");
    lua_Integer calls = luaL_optinteger(L, 2, 1);
    struct lathe_error err;
    if (calls < 1 || calls > 1000000000)
        lua_fail(L, "bus:ping: 1 to 1000000000 calls, not %lld", (long long)calls);
    fresh(b);
    double from = seconds();
    for (lua_Integer i = 0; i < calls; i++)
        if (b->ping->call(b->ping->self, b->in, b->out, &err) != LATHE_OK)
            lua_fail_error(L, "bus:ping", &err);
    lua_pushnumber(L, seconds() - from);
    return 1;
}

/* Room for a payload, every page of it touched. */
static int make_room(struct lua_bus *b, uint64_t bytes, struct lathe_error *err)
{
    if (bytes <= b->capacity)
        return LATHE_OK;
    struct echo_in *larger = (void *)b->api->loan(b->self, sizeof *larger + 64 + bytes, err);
    if (!larger)
        return err->code;
    b->api->give_back(b->self, &b->in->head);
    b->in = larger;
    memset((char *)larger + sizeof(struct lathe_message), 0, larger->head.capacity - sizeof(struct lathe_message));
    free(b->elsewhere);
    b->capacity = 0;
    b->elsewhere = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!b->elsewhere)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a payload of %llu bytes", (unsigned long long)bytes);
    memset(b->elsewhere, 0, bytes);
    b->capacity = bytes;
    return LATHE_OK;
}

/* A payload whose sum is known: count words, the first `first`, all others ones. */
static void write_payload(uint64_t *words, uint64_t count, uint64_t first)
{
    for (uint64_t i = 0; i < count; i++)
        words[i] = 1;
    words[0] = first;
}

static int bus_send(lua_State *L)
{
    static const char *const what = "bus:send", *const fields[] = { "bytes", "calls", "copy", NULL };
    struct lua_bus *b = check_bus(L, what);
    struct lathe_error err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_check_fields(L, 2, what, fields, 0);
    uint64_t bytes = (uint64_t)lua_field_integer(L, 2, what, "bytes", 8, ECHO_MAX_BYTES, 64) & ~(uint64_t)7;
    lua_Integer calls = lua_field_integer(L, 2, what, "calls", 1, 1000000000, 1);
    bool copy = lua_field_boolean(L, 2, what, "copy", false);
    if (make_room(b, bytes, &err))
        lua_fail_error(L, what, &err);
    const struct lathe_endpoint *endpoint = copy ? b->take : b->sum;
    uint64_t count = bytes / sizeof(uint64_t);
    double from = seconds();
    for (lua_Integer i = 0; i < calls; i++) {
        fresh(b);
        uint64_t *words = lathe_message_add(&b->in->head, &b->in->payload, count, sizeof *words);
        uint64_t first = (uint64_t)i + 17;
        write_payload(copy ? b->elsewhere : words, count, first);
        if (copy)
            memcpy(words, b->elsewhere, bytes);
        if (endpoint->call(endpoint->self, b->in, b->out, &err) != LATHE_OK)
            lua_fail_error(L, what, &err);
        if (b->out->sum != first + count - 1)
            lua_fail(L, "%s: the sum of %llu words came back as %llu, not %llu", what, (unsigned long long)count,
                     (unsigned long long)b->out->sum, (unsigned long long)(first + count - 1));
    }
    lua_pushnumber(L, seconds() - from);
    return 1;
}

static int bus_scale(lua_State *L)
{
    struct lua_bus *b = check_bus(L, "bus:scale");
    struct lathe_error err;
    lua_Integer workers = luaL_checkinteger(L, 2);
    if (workers < 1 || workers > 64)
        lua_fail(L, "bus:scale: 1 to 64 workers, not %lld", (long long)workers);
    if (b->api->scale(b->self, "echo", (uint32_t)workers, &err))
        lua_fail_error(L, "bus:scale", &err);
    return 0;
}

/* → the pid that was sent SIGKILL; nil: this bus's workers are no processes. */
static int bus_kill(lua_State *L)
{
    struct lua_bus *b = check_bus(L, "bus:kill");
    struct lathe_service_health health = { .size = sizeof health };
    struct lathe_error err;
    if (b->api->health(b->self, "echo", &health, &err))
        lua_fail_error(L, "bus:kill", &err);
    if (health.pid <= 1 || kill((pid_t)health.pid, SIGKILL) != 0)
        return 0;
    lua_pushinteger(L, (lua_Integer)health.pid);
    return 1;
}

static const luaL_Reg methods[] = {
    { "ping", bus_ping },   { "send", bus_send },   { "scale", bus_scale },
    { "kill", bus_kill },   { "close", bus_close }, { NULL, NULL },
};

void lua_bus_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_BUS, methods, bus_close);
}

/* SPDX-License-Identifier: MIT */
/* Messages as Lua tables: a source whose current value is the top of the stack, and a sink that
 * builds tables there. See lua_payload.h.
 *
 * Access is raw: metamethods would let a script run in the middle of a walk. What may raise for
 * want of memory runs in protected calls, so that loans always go back. */
#include "lua_payload.h"

#include <stdlib.h>
#include <string.h>

#include "lua_internal.h"

enum { STACK_SLOTS = 64, DEPTH_MAX = 16 };

/* ── source ────────────────────────────────────────────────────────────────────────── */

static int value_kind(void *L)
{
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN: return PAYLOAD_IS_BOOLEAN;
    case LUA_TNUMBER: return lua_isinteger(L, -1) ? PAYLOAD_IS_INTEGER : PAYLOAD_IS_NUMBER;
    case LUA_TSTRING: return PAYLOAD_IS_TEXT;
    default: return PAYLOAD_IS_OTHER;
    }
}

static int64_t value_integer(void *L)
{
    return lua_isboolean(L, -1) ? lua_toboolean(L, -1) : lua_tointeger(L, -1);
}

static double value_number(void *L)
{
    return lua_tonumber(L, -1);
}

static const char *value_text(void *L, size_t *bytes)
{
    return lua_tolstring(L, -1, bytes);
}

static char *value_json(void *L)
{
    return lua_json_text(L, -1);
}

static int value_table(void *L)
{
    return lua_istable(L, -1);
}

/* Keys are exactly 1 … n. */
static int value_list(void *L, size_t *length)
{
    size_t count = 0;
    if (!lua_istable(L, -1))
        return 0;
    *length = lua_rawlen(L, -1);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 || (lua_Unsigned)lua_tointeger(L, -2) > *length) {
            lua_pop(L, 2);
            return 0;
        }
        count++;
    }
    return count == *length;
}

/* lathe.json.null, a null pointer, is as good as nil. */
static int value_field(void *L, const char *name)
{
    lua_pushstring(L, name);
    int type = lua_rawget(L, -2);
    if (type != LUA_TNIL && !(type == LUA_TLIGHTUSERDATA && !lua_touserdata(L, -1)))
        return 1;
    lua_pop(L, 1);
    return 0;
}

static void value_element(void *L, size_t index)
{
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
}

static void value_leave(void *L)
{
    lua_pop(L, 1);
}

static int value_each_name(void *L, int (*visit)(void *who, const char *name), void *who)
{
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        char other[80] = "[…]", text[64];
        const char *name = other;
        if (lua_type(L, -2) == LUA_TSTRING)
            name = lua_tostring(L, -2);
        else
            snprintf(other, sizeof other, "[%s]", lua_describe(L, -2, text, sizeof text));
        if (visit(who, name)) {
            lua_pop(L, 2);
            return 1;
        }
    }
    return 0;
}

static void value_describe(void *L, char *text, size_t capacity)
{
    lua_describe(L, -1, text, capacity);
}

int lua_payload_read(lua_State *L, int index, const struct payload *what, const struct lathe_model_info *model,
                     struct payload_parts *parts, struct lathe_error *err)
{
    struct payload_source source = {
        .context = L, .first = 1, .kind = value_kind, .integer = value_integer, .number = value_number,
        .text = value_text, .json = value_json, .list = value_list, .table = value_table, .field = value_field,
        .element = value_element, .leave = value_leave, .each_name = value_each_name, .describe = value_describe,
    };
    int top = lua_gettop(L);
    luaL_checkstack(L, STACK_SLOTS, "a message's table");
    if (lua_isnoneornil(L, index))
        lua_newtable(L);
    else
        lua_pushvalue(L, index);
    int rc = payload_read(what, &source, model, parts, err);
    lua_settop(L, top);
    return rc;
}

/* ── sink ──────────────────────────────────────────────────────────────────────────── */

struct building {
    lua_State *L;
    lua_Integer filled[DEPTH_MAX]; /* of the open list; −1: it is a table */
    size_t depth;
};

/* The value on top goes where it belongs. */
static void place(struct building *b)
{
    if (b->depth == 0)
        return; /* the reply itself stays */
    lua_Integer *filled = &b->filled[b->depth - 1];
    if (*filled < 0)
        lua_rawset(b->L, -3);
    else
        lua_rawseti(b->L, -2, ++*filled);
}

static void open_list(void *context, size_t count)
{
    struct building *b = context;
    lua_createtable(b->L, count < INT32_MAX ? (int)count : 0, 0);
    b->filled[b->depth++] = 0;
}

static void open_table(void *context)
{
    struct building *b = context;
    lua_newtable(b->L);
    b->filled[b->depth++] = -1;
}

static void close_one(void *context)
{
    struct building *b = context;
    b->depth--;
    place(b);
}

static void put_name(void *context, const char *name)
{
    lua_pushstring(((struct building *)context)->L, name);
}

static void put_integer(void *context, int64_t value)
{
    struct building *b = context;
    lua_pushinteger(b->L, value);
    place(b);
}

/* Lua's integers are signed: the bits of one beyond 2^63 stay (math.ult compares them, "%x" shows
 * them). */
static void put_natural(void *context, uint64_t value)
{
    struct building *b = context;
    lua_pushinteger(b->L, (lua_Integer)value);
    place(b);
}

static void put_number(void *context, float value)
{
    struct building *b = context;
    lua_pushnumber(b->L, (lua_Number)value);
    place(b);
}

static void put_boolean(void *context, int value)
{
    struct building *b = context;
    lua_pushboolean(b->L, value);
    place(b);
}

static void put_text(void *context, const char *text, size_t bytes)
{
    struct building *b = context;
    lua_pushlstring(b->L, text, bytes);
    place(b);
}

int lua_payload_push(lua_State *L, const struct payload_call *call, struct lathe_error *err)
{
    struct building building = { .L = L };
    struct payload_sink sink = {
        .context = &building, .list = open_list, .table = open_table, .close = close_one, .name = put_name,
        .integer = put_integer, .natural = put_natural, .number = put_number, .boolean = put_boolean, .text = put_text,
    };
    int top = lua_gettop(L);
    luaL_checkstack(L, STACK_SLOTS, "a reply's table");
    int rc = payload_write(call, &sink, err);
    if (rc != LATHE_OK)
        lua_settop(L, top);
    return rc;
}

/* ── the call ──────────────────────────────────────────────────────────────────────── */

struct job {
    struct payload_call call;
    struct payload_parts parts;
    struct lathe_error err;
    int rc;
};

static int read_protected(lua_State *L)
{
    struct job *job = lua_touserdata(L, 1);
    job->rc = lua_payload_read(L, 2, job->call.what, job->call.model, &job->parts, &job->err);
    return 0;
}

static int push_protected(lua_State *L)
{
    struct job *job = lua_touserdata(L, 1);
    job->rc = lua_payload_push(L, &job->call, &job->err);
    if (job->rc != LATHE_OK)
        lua_pushnil(L);
    return 1;
}

static int call_with(lua_State *L, struct job *job, int index)
{
    lua_pushcfunction(L, read_protected);
    lua_pushlightuserdata(L, job);
    lua_pushvalue(L, index);
    int status = lua_pcall(L, 2, 0, 0);
    if (status == LUA_OK && job->rc == LATHE_OK)
        job->rc = payload_call_run(&job->call, &job->parts, &job->err);
    if (status == LUA_OK && job->rc == LATHE_OK) {
        lua_pushcfunction(L, push_protected);
        lua_pushlightuserdata(L, job);
        status = lua_pcall(L, 1, 1, 0);
    }
    return status;
}

static int refused(lua_State *L, int code, const struct lathe_error *err)
{
    lua_pushnil(L);
    lua_pushstring(L, err->message);
    lua_pushinteger(L, code);
    return 3;
}

int lua_payload_call(lua_State *L, const struct lua_payload_bus *bus, const char *service, const char *method,
                     int index)
{
    struct job job = { .call = { .bus = bus->bus, .bus_self = bus->bus_self, .model = bus->model,
                                 .correlation = bus->correlation, .deadline_ns = bus->deadline_ns } };
    char name[128];
    luaL_checkstack(L, 8, "a call of a service");
    index = lua_absindex(L, index);
    if (lua_isnone(L, index)) {
        lua_pushnil(L);
        index = lua_gettop(L);
    }
    char described[64]; /* "model:1" is replica 1's: its messages are the model's */
    snprintf(described, sizeof described, "%.*s", (int)strcspn(service, ":"), service);
    int rc = payload_find(described, method, &job.call.what, &job.err);
    if (rc != LATHE_OK)
        return refused(L, rc, &job.err);
    snprintf(name, sizeof name, "%s.%s", service, method);
    if ((rc = bus->bus->resolve(bus->bus_self, name, &job.call.endpoint, &job.err)) != LATHE_OK)
        return refused(L, rc, &job.err);
    int status = call_with(L, &job, index);
    payload_call_close(&job.call);
    payload_parts_free(&job.parts);
    if (status != LUA_OK)
        return lua_error(L);
    return job.rc == LATHE_OK ? 1 : refused(L, job.rc, &job.err);
}

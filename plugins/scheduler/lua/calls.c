/* SPDX-License-Identifier: MIT */
/* See calls.h. The functions that end in _body run inside a protected call: they may raise. */
#include "calls.h"

#include <math.h>

struct call {
    struct lua_scheduler *s;
    struct seat *seat;
    uint32_t tokens;
};

void calls_push_function(lua_State *L, const struct lua_scheduler *s, int function)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->policy.functions[function]);
}

void calls_push_seat(lua_State *L, const struct lua_scheduler *s, const struct seat *seat)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->objects);
    lua_rawgeti(L, -1, (lua_Integer)(seat - s->seats) + 1);
    lua_remove(L, -2);
}

static bool has(const struct lua_scheduler *s, int function)
{
    return s->policy.functions[function] != LUA_NOREF;
}

void calls_blame(lua_State *L, const struct lua_scheduler *s, int function, const char *why)
{
    calls_push_function(L, s, function);
    sandbox_blame(L, "%s", why);
}

/* ── admit and key ───────────────────────────────────────────────────────────────── */

static void ask_key(lua_State *L, const struct lua_scheduler *s, struct seat *seat)
{
    int64_t now_ns = s->now_ns > seat->req->arrival_ns ? s->now_ns : seat->req->arrival_ns;
    calls_push_function(L, s, POLICY_KEY);
    calls_push_seat(L, s, seat);
    lua_pushnumber(L, (double)now_ns / 1e9);
    lua_call(L, 2, 2);
    for (int i = -2; i < 0; i++) {
        bool absent = i == -1 && lua_isnil(L, i);
        if (!absent && (lua_type(L, i) != LUA_TNUMBER || isnan(lua_tonumber(L, i)))) {
            char why[128];
            snprintf(why, sizeof why, "the key of request %llu is %s, but must be a number", (unsigned long long)seat->req->id,
                     lua_type(L, i) == LUA_TNUMBER ? "not a number (0/0)" : luaL_typename(L, i));
            calls_blame(L, s, POLICY_KEY, why);
        }
    }
    seat->key = lua_tonumber(L, -2);
    seat->second = lua_tonumber(L, -1);
    seat->stale = false;
    lua_pop(L, 2);
}

static int admit_body(lua_State *L)
{
    struct call *c = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->s->objects);
    c->seat->object = request_object_push(L, c->seat->req);
    lua_rawseti(L, -2, (lua_Integer)(c->seat - c->s->seats) + 1);
    if (has(c->s, POLICY_ADMIT)) {
        calls_push_function(L, c->s, POLICY_ADMIT);
        calls_push_seat(L, c->s, c->seat);
        lua_call(L, 1, 0);
    }
    if (has(c->s, POLICY_KEY))
        ask_key(L, c->s, c->seat);
    return 0;
}

int calls_admit(struct lua_scheduler *s, struct seat *seat, struct lathe_error *err)
{
    struct call c = { .s = s, .seat = seat };
    return sandbox_call(&s->sandbox, admit_body, &c, has(s, POLICY_ADMIT) ? "admit" : "key", err);
}

static int keys_body(lua_State *L)
{
    const struct call *c = lua_touserdata(L, 1);
    for (uint32_t i = 0; i < c->s->count; i++)
        if (c->s->line[i]->stale)
            ask_key(L, c->s, c->s->line[i]);
    return 0;
}

int calls_keys(struct lua_scheduler *s, struct lathe_error *err)
{
    struct call c = { .s = s };
    return sandbox_call(&s->sandbox, keys_body, &c, "key", err);
}

/* ── progress and retire ─────────────────────────────────────────────────────────── */

static int progress_body(lua_State *L)
{
    const struct call *c = lua_touserdata(L, 1);
    calls_push_function(L, c->s, POLICY_PROGRESS);
    calls_push_seat(L, c->s, c->seat);
    lua_pushinteger(L, c->tokens);
    lua_call(L, 2, 0);
    return 0;
}

int calls_progress(struct lua_scheduler *s, struct seat *seat, uint32_t tokens, struct lathe_error *err)
{
    struct call c = { .s = s, .seat = seat, .tokens = tokens };
    return has(s, POLICY_PROGRESS) ? sandbox_call(&s->sandbox, progress_body, &c, "progress", err) : LATHE_OK;
}

static int retire_body(lua_State *L)
{
    const struct call *c = lua_touserdata(L, 1);
    calls_push_function(L, c->s, POLICY_RETIRE);
    calls_push_seat(L, c->s, c->seat);
    lua_call(L, 1, 0);
    return 0;
}

int calls_retire(struct lua_scheduler *s, struct seat *seat, struct lathe_error *err)
{
    struct call c = { .s = s, .seat = seat };
    return has(s, POLICY_RETIRE) ? sandbox_call(&s->sandbox, retire_body, &c, "retire", err) : LATHE_OK;
}

/* ── the tables ──────────────────────────────────────────────────────────────────── */

/* view.cached_prefix(r) → tokens of its prompt that the KV cache holds now; nil: it can't tell. */
static int cached_prefix(lua_State *L)
{
    const struct lua_scheduler *s = lua_touserdata(L, lua_upvalueindex(1));
    const struct request_object *object = request_object_at(L, 1);
    if (!object || !object->req)
        return luaL_error(L, "view.cached_prefix takes a live request");
    if (s->view && s->view->cached_prefix)
        lua_pushinteger(L, s->view->cached_prefix(s->view->engine, object->req));
    else
        lua_pushnil(L);
    return 1;
}

static int open_body(lua_State *L)
{
    struct lua_scheduler *s = ((struct call *)lua_touserdata(L, 1))->s;
    int *const tables[] = { &s->objects, &s->requests, &s->running };
    request_object_open(L);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        lua_newtable(L);
        *tables[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_newtable(L);
    lua_pushlightuserdata(L, s);
    lua_pushcclosure(L, cached_prefix, 1);
    lua_setfield(L, -2, "cached_prefix");
    s->look = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

int calls_open(struct lua_scheduler *s, struct lathe_error *err)
{
    struct call c = { .s = s };
    return sandbox_call(&s->sandbox, open_body, &c, "opening the state", err);
}

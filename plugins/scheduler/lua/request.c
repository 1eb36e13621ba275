/* SPDX-License-Identifier: MIT */
/* See request.h. */
#include "request.h"

#include <math.h>

#include <lauxlib.h>

enum field {
    ID = 1, INDEX, STATE, PRIORITY, TENANT, CLASS, SESSION, WEIGHT, PLANNED, ARRIVAL, ADMITTED, FIRST_TOKEN, DEADLINE,
    SLO_TTFT, SLO_TPOT, PROMPT_TOKENS, CACHED_TOKENS, COMPUTED_TOKENS, OUTPUT_TOKENS, MAX_OUTPUT_TOKENS, PREDICTED,
    PENDING, PREEMPTIONS, NOTES, FIELDS
};

static const char *const field_names[FIELDS] = {
    NULL, "id", "index", "state", "priority", "tenant", "class", "session", "weight", "planned", "arrival", "admitted",
    "first_token", "deadline", "slo_ttft", "slo_tpot", "prompt_tokens", "cached_tokens", "computed_tokens",
    "output_tokens", "max_output_tokens", "predicted", "pending", "preemptions", "notes",
};

static const char *const state_names[] = { "none", "waiting", "running", "preempted", "swapped", "finished" };
enum { STATES = sizeof state_names / sizeof *state_names };

/* Upvalues of __index: the metatable, name → field, then the states' names, made once. */
enum { UP_METATABLE = 1, UP_FIELDS, UP_STATES };

static const char metatable_key; /* its address names the registry slot */

static int push_seconds(lua_State *L, int64_t ns)
{
    lua_pushnumber(L, (double)ns / 1e9);
    return 1;
}

/* nil: it hasn't happened yet. */
static int push_moment(lua_State *L, int64_t ns)
{
    if (ns >= 0)
        return push_seconds(L, ns);
    lua_pushnil(L);
    return 1;
}

static int push_notes(lua_State *L)
{
    if (lua_getiuservalue(L, 1, 1) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, 1, 1);
    }
    return 1;
}

static int push_field(lua_State *L, const struct lathe_request *r, enum field field)
{
    lua_Integer n = 0;
    switch (field) {
    case ID: n = (lua_Integer)r->id; break;
    case INDEX: n = r->index; break;
    case STATE:
        lua_pushvalue(L, lua_upvalueindex(UP_STATES + (r->state > 0 && r->state < STATES ? r->state : 0)));
        return 1;
    case PRIORITY: n = r->priority; break;
    case TENANT: n = r->tenant; break;
    case CLASS: n = r->class_id; break;
    case SESSION: n = (lua_Integer)r->session; break;
    case WEIGHT:
        lua_pushnumber(L, r->weight ? r->weight / 1000.0 : 1.0);
        return 1;
    case PLANNED: return push_seconds(L, r->planned_ns);
    case ARRIVAL: return push_seconds(L, r->arrival_ns);
    case ADMITTED: return push_moment(L, r->admitted_ns);
    case FIRST_TOKEN: return push_moment(L, r->first_token_ns);
    case DEADLINE:
        lua_pushnumber(L, r->deadline_ns == INT64_MAX ? HUGE_VAL : (double)r->deadline_ns / 1e9);
        return 1;
    case SLO_TTFT: return push_seconds(L, r->slo_ttft_ns);
    case SLO_TPOT: return push_seconds(L, r->slo_tpot_ns);
    case PROMPT_TOKENS: n = r->prompt_tokens; break;
    case CACHED_TOKENS: n = r->cached_tokens; break;
    case COMPUTED_TOKENS: n = r->computed_tokens; break;
    case OUTPUT_TOKENS: n = r->output_tokens; break;
    case MAX_OUTPUT_TOKENS: n = r->max_output_tokens; break;
    case PREDICTED: n = r->predicted_output_tokens; break;
    case PENDING: n = lathe_request_pending(r); break;
    case PREEMPTIONS: n = r->preemptions; break;
    case NOTES: return push_notes(L);
    case FIELDS: break;
    }
    lua_pushinteger(L, n);
    return 1;
}

/* Only the interpreter calls it, on an object of ours: its metatable can't be had by a policy. */
static int index_field(lua_State *L)
{
    const struct request_object *object = lua_touserdata(L, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(UP_FIELDS)) != LUA_TNUMBER)
        return luaL_error(L, "a request has no field %s; what a policy notes of it goes into r.notes",
                          lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2));
    if (!object->req)
        return luaL_error(L, "a request that has finished is asked for its %s: forget it in retire", lua_tostring(L, 2));
    return push_field(L, object->req, (enum field)lua_tointeger(L, -1));
}

static int refuse_assignment(lua_State *L)
{
    return luaL_error(L, "a request's fields are the engine's; what a policy notes of it goes into r.notes");
}

static int describe(lua_State *L)
{
    const struct request_object *object = lua_touserdata(L, 1);
    if (object->req)
        lua_pushfstring(L, "request %I", (LUAI_UACINT)object->req->id);
    else
        lua_pushliteral(L, "a request that has finished");
    return 1;
}

void request_object_open(lua_State *L)
{
    lua_createtable(L, 0, 5);
    lua_pushvalue(L, -1);
    lua_createtable(L, 0, FIELDS);
    for (int i = 1; i < FIELDS; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, field_names[i]);
    }
    for (int i = 0; i < STATES; i++)
        lua_pushstring(L, state_names[i]);
    lua_pushcclosure(L, index_field, UP_FIELDS + STATES);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, refuse_assignment);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, describe);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "request");
    lua_setfield(L, -2, "__metatable");
    lua_pushliteral(L, "request");
    lua_setfield(L, -2, "__name");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
}

struct request_object *request_object_push(lua_State *L, const struct lathe_request *req)
{
    struct request_object *object = lua_newuserdatauv(L, sizeof *object, 1);
    object->req = req;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
    lua_setmetatable(L, -2);
    return object;
}

struct request_object *request_object_at(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TUSERDATA ? lua_touserdata(L, index) : NULL; /* there is no other kind */
}

/* SPDX-License-Identifier: MIT */
/* See calls.h. The functions that end in _body run inside a protected call: they may raise. */
#include "calls.h"

#include <math.h>
#include <string.h>

struct call {
    struct lua_scheduler *s;
    struct seat *seat;
    const struct lathe_step_view *view;
    struct lathe_ranking *ranking;
    const struct lathe_request *needy, *victim;
    uint32_t tokens;
};

static void push_function(lua_State *L, const struct lua_scheduler *s, int function)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->policy.functions[function]);
}

/* The object of a seat's request. */
static void push_seat(lua_State *L, const struct lua_scheduler *s, const struct seat *seat)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->objects);
    lua_rawgeti(L, -1, (lua_Integer)(seat - s->seats) + 1);
    lua_remove(L, -2);
}

static bool has(const struct lua_scheduler *s, int function)
{
    return s->policy.functions[function] != LUA_NOREF;
}

__attribute__((noreturn)) static void blame(lua_State *L, const struct lua_scheduler *s, int function, const char *why)
{
    push_function(L, s, function);
    sandbox_blame(L, "%s", why);
}

/* ── admit and key ───────────────────────────────────────────────────────────────── */

static void ask_key(lua_State *L, const struct lua_scheduler *s, struct seat *seat)
{
    int64_t now_ns = s->now_ns > seat->req->arrival_ns ? s->now_ns : seat->req->arrival_ns;
    push_function(L, s, POLICY_KEY);
    push_seat(L, s, seat);
    lua_pushnumber(L, (double)now_ns / 1e9);
    lua_call(L, 2, 2);
    for (int i = -2; i < 0; i++) {
        bool absent = i == -1 && lua_isnil(L, i);
        if (!absent && (lua_type(L, i) != LUA_TNUMBER || isnan(lua_tonumber(L, i)))) {
            char why[128];
            snprintf(why, sizeof why, "the key of request %llu is %s, but must be a number", (unsigned long long)seat->req->id,
                     lua_type(L, i) == LUA_TNUMBER ? "not a number (0/0)" : luaL_typename(L, i));
            blame(L, s, POLICY_KEY, why);
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
        push_function(L, c->s, POLICY_ADMIT);
        push_seat(L, c->s, c->seat);
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

/* ── rank ────────────────────────────────────────────────────────────────────────── */

static int cached_prefix(lua_State *L)
{
    const struct lua_scheduler *s = lua_touserdata(L, lua_upvalueindex(1));
    const struct request_object *object = request_object_at(L, 1);
    if (!object || !object->req)
        return luaL_error(L, "view.cached_prefix takes a live request");
    if (s->view && s->view->cached_prefix)
        lua_pushinteger(L, s->view->cached_prefix(s->view->engine, object->req));
    else
        lua_pushnil(L); /* this cache can't tell */
    return 1;
}

static void set(lua_State *L, const char *name, uint64_t value)
{
    lua_pushstring(L, name);
    lua_pushinteger(L, (lua_Integer)value);
    lua_rawset(L, -3);
}

static void push_view(lua_State *L, const struct lua_scheduler *s, const struct lathe_step_view *v)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->look);
    lua_pushliteral(L, "now");
    lua_pushnumber(L, (double)v->now_ns / 1e9);
    lua_rawset(L, -3);
    set(L, "step", v->step);
    set(L, "live", s->count);
    set(L, "waiting", v->waiting);
    set(L, "running", v->running);
    set(L, "max_batch_tokens", v->max_batch_tokens);
    set(L, "max_batch_requests", v->max_batch_requests);
    set(L, "blocks_available", v->blocks_available);
    set(L, "blocks_total", v->blocks_total);
    set(L, "block_tokens", v->block_tokens);
    set(L, "ranking_wanted", v->ranking_wanted);
}

/* The table on top holds `count` elements and, whatever a policy did to it, no more. */
static void cut_array(lua_State *L, lua_Integer count)
{
    for (lua_Integer i = count + 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
        lua_pop(L, 1);
        lua_pushnil(L);
        lua_rawseti(L, -2, i);
    }
    lua_pop(L, 1);
}

/* The line, or of it those that run, as an array that is used again. */
static void push_line(lua_State *L, const struct lua_scheduler *s, int table, bool running)
{
    lua_Integer n = 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, table);
    for (uint32_t i = 0; i < s->count; i++) {
        if (running && s->line[i]->req->state != LATHE_REQUEST_RUNNING)
            continue;
        push_seat(L, s, s->line[i]);
        lua_rawseti(L, -2, ++n);
    }
    cut_array(L, n);
}

/* The request that is element `i` of the array at `array`. */
static struct seat *take_element(lua_State *L, const struct lua_scheduler *s, int array, lua_Integer i, const char *of)
{
    char why[128];
    lua_rawgeti(L, array, i);
    const struct request_object *object = request_object_at(L, -1);
    if (!object || !object->req) {
        snprintf(why, sizeof why, "element %lld of the %s is %s, but must be a live request", (long long)i, of,
                 object ? "a request that has finished" : luaL_typename(L, -1));
        blame(L, s, POLICY_RANK, why);
    }
    lua_pop(L, 1);
    return &s->seats[object->req->index];
}

static void take_order(lua_State *L, struct lua_scheduler *s, int array, struct lathe_ranking *ranking)
{
    lua_Unsigned n = lua_rawlen(L, array);
    uint32_t count = 0, left = 0;
    char why[128];
    for (lua_Unsigned i = 1; i <= n; i++) {
        struct seat *seat = take_element(L, s, array, (lua_Integer)i, "order");
        if (seat->seen == s->rankings) {
            snprintf(why, sizeof why, "request %llu stands in the order twice", (unsigned long long)seat->req->id);
            blame(L, s, POLICY_RANK, why);
        }
        seat->seen = s->rankings;
        s->next_line[count++] = seat;
    }
    ranking->count = count < ranking->capacity ? count : ranking->capacity;
    for (uint32_t i = 0; i < ranking->count; i++)
        ranking->requests[i] = s->next_line[i]->req;
    for (; left < s->count; left++) /* whom the policy left out stands behind */
        if (s->line[left]->seen != s->rankings)
            s->next_line[count++] = s->line[left];
    struct seat **line = s->line;
    s->line = s->next_line;
    s->next_line = line;
}

static void take_preempted(lua_State *L, struct lua_scheduler *s, int array, struct lathe_ranking *ranking)
{
    lua_Unsigned n = lua_rawlen(L, array);
    for (lua_Unsigned i = 1; i <= n; i++) {
        const struct lathe_request *req = take_element(L, s, array, (lua_Integer)i, "list to preempt")->req;
        if (req->state != LATHE_REQUEST_RUNNING || ranking->preempt_count == ranking->preempt_capacity)
            blame(L, s, POLICY_RANK, "a request that doesn't run is to be preempted");
        ranking->preempt[ranking->preempt_count++] = req;
    }
}

static int rank_body(lua_State *L)
{
    struct call *c = lua_touserdata(L, 1);
    struct lua_scheduler *s = c->s;
    push_function(L, s, POLICY_RANK);
    push_view(L, s, c->view);
    push_line(L, s, s->requests, false);
    lua_call(L, 2, 3);
    int order = lua_gettop(L) - 2, preempt = order + 1, wake = order + 2;
    if (lua_type(L, order) != LUA_TTABLE)
        blame(L, s, POLICY_RANK, "rank must return an array of requests, best first");
    if (lua_type(L, preempt) != LUA_TTABLE && !lua_isnil(L, preempt))
        blame(L, s, POLICY_RANK, "rank's second result must be an array of requests to preempt, or nil");
    if (lua_type(L, wake) == LUA_TNUMBER && !isnan(lua_tonumber(L, wake)))
        c->ranking->wake_ns = lua_tonumber(L, wake) < 9e9 ? (int64_t)(fmax(lua_tonumber(L, wake), 0.0) * 1e9) : INT64_MAX;
    else if (!lua_isnil(L, wake))
        blame(L, s, POLICY_RANK, "rank's third result must be when to ask again, in seconds, or nil");
    take_order(L, s, order, c->ranking);
    if (lua_type(L, preempt) == LUA_TTABLE)
        take_preempted(L, s, preempt, c->ranking);
    return 0;
}

int calls_rank(struct lua_scheduler *s, const struct lathe_step_view *view, struct lathe_ranking *ranking,
               struct lathe_error *err)
{
    struct call c = { .s = s, .view = view, .ranking = ranking };
    s->view = view;
    int status = sandbox_call(&s->sandbox, rank_body, &c, "rank", err);
    s->view = NULL;
    return status;
}

/* ── victim, progress, retire ────────────────────────────────────────────────────── */

static int victim_body(lua_State *L)
{
    struct call *c = lua_touserdata(L, 1);
    struct lua_scheduler *s = c->s;
    push_function(L, s, POLICY_VICTIM);
    push_line(L, s, s->running, true);
    if (c->needy->index < s->capacity && s->seats[c->needy->index].req == c->needy)
        push_seat(L, s, &s->seats[c->needy->index]);
    else
        lua_pushnil(L);
    lua_call(L, 2, 1);
    if (lua_isnil(L, -1))
        return 0;
    const struct request_object *object = request_object_at(L, -1);
    if (!object || !object->req || object->req->state != LATHE_REQUEST_RUNNING)
        blame(L, s, POLICY_VICTIM, "victim must return one of the running requests, or nil");
    c->victim = object->req;
    return 0;
}

int calls_victim(struct lua_scheduler *s, const struct lathe_step_view *view, const struct lathe_request *needy,
                 const struct lathe_request **victim, struct lathe_error *err)
{
    struct call c = { .s = s, .needy = needy };
    s->view = view;
    int status = sandbox_call(&s->sandbox, victim_body, &c, "victim", err);
    s->view = NULL;
    *victim = status == LATHE_OK ? c.victim : NULL;
    return status;
}

static int progress_body(lua_State *L)
{
    const struct call *c = lua_touserdata(L, 1);
    push_function(L, c->s, POLICY_PROGRESS);
    push_seat(L, c->s, c->seat);
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
    push_function(L, c->s, POLICY_RETIRE);
    push_seat(L, c->s, c->seat);
    lua_call(L, 1, 0);
    return 0;
}

int calls_retire(struct lua_scheduler *s, struct seat *seat, struct lathe_error *err)
{
    struct call c = { .s = s, .seat = seat };
    return has(s, POLICY_RETIRE) ? sandbox_call(&s->sandbox, retire_body, &c, "retire", err) : LATHE_OK;
}

/* ── the tables ──────────────────────────────────────────────────────────────────── */

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

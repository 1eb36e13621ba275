/* SPDX-License-Identifier: MIT */
/* Rankings and victims that a policy makes itself; see calls.h. What it returns is checked before
 * anything is built on it. */
#include "calls.h"

#include <math.h>

struct call {
    struct lua_scheduler *s;
    const struct lathe_step_view *view;
    struct lathe_ranking *ranking;
    const struct lathe_request *needy, *victim;
};

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
        calls_push_seat(L, s, s->line[i]);
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
        calls_blame(L, s, POLICY_RANK, why);
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
            calls_blame(L, s, POLICY_RANK, why);
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
            calls_blame(L, s, POLICY_RANK, "a request that doesn't run is to be preempted");
        ranking->preempt[ranking->preempt_count++] = req;
    }
}

static int rank_body(lua_State *L)
{
    struct call *c = lua_touserdata(L, 1);
    struct lua_scheduler *s = c->s;
    calls_push_function(L, s, POLICY_RANK);
    push_view(L, s, c->view);
    push_line(L, s, s->requests, false);
    lua_call(L, 2, 3);
    int order = lua_gettop(L) - 2, preempt = order + 1, wake = order + 2;
    if (lua_type(L, order) != LUA_TTABLE)
        calls_blame(L, s, POLICY_RANK, "rank must return an array of requests, best first");
    if (lua_type(L, preempt) != LUA_TTABLE && !lua_isnil(L, preempt))
        calls_blame(L, s, POLICY_RANK, "rank's second result must be an array of requests to preempt, or nil");
    if (lua_type(L, wake) == LUA_TNUMBER && !isnan(lua_tonumber(L, wake)))
        c->ranking->wake_ns = lua_tonumber(L, wake) < 9e9 ? (int64_t)(fmax(lua_tonumber(L, wake), 0.0) * 1e9) : INT64_MAX;
    else if (!lua_isnil(L, wake))
        calls_blame(L, s, POLICY_RANK, "rank's third result must be when to ask again, in seconds, or nil");
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

static int victim_body(lua_State *L)
{
    struct call *c = lua_touserdata(L, 1);
    struct lua_scheduler *s = c->s;
    calls_push_function(L, s, POLICY_VICTIM);
    push_line(L, s, s->running, true);
    if (c->needy->index < s->capacity && s->seats[c->needy->index].req == c->needy)
        calls_push_seat(L, s, &s->seats[c->needy->index]);
    else
        lua_pushnil(L);
    lua_call(L, 2, 1);
    if (lua_isnil(L, -1))
        return 0;
    const struct request_object *object = request_object_at(L, -1);
    if (!object || !object->req || object->req->state != LATHE_REQUEST_RUNNING)
        calls_blame(L, s, POLICY_VICTIM, "victim must return one of the running requests, or nil");
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

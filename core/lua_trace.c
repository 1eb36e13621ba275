/* SPDX-License-Identifier: MIT */
/* `trace = …` of lathe.run: what is written down.
 *
 *     trace = false                          nothing at all
 *     trace = { attention = "summary" }      beside the latency rows, every head of every token
 *     trace = { attention = { format = "full", layers = { 0, 5 }, heads = { 2 },
 *               positions = { 10, 20 }, every = 2, requests = { 1, 3 } }, tokens = "all" }
 *     trace = { probes = { { format = "hidden", layers = { 5 } }, { format = "lens", top_k = 3 } } }
 *     trace = { kv = 10 }                    how the KV pool is used, a row every so many steps; true: 1
 *     trace = { rows = "requests" }          a row a request; "steps": and a row a step; "step_requests":
 *                                            and who was in it; "tokens", the default: and every token
 *
 * Layers, heads and positions count from 0, as in the tables; requests from 1, as in the
 * workload. */
#include "lua_internal.h"

#include <string.h>

static const char *const trace_fields[] = { "attention", "tokens", "latency", "on_full", "flush_s", "hops", "rows",
                                           "probes", "kv", NULL };

/* rows = "tokens" and so on: which tables are written at all, each level with those before it. */
static void read_rows(lua_State *L, int index, const char *what, struct run_job *job)
{
    static const char *const levels[] = { "tokens", "step_requests", "steps", "requests" }; /* enum engine_rows */
    const char *rows = lua_field_string(L, index, what, "rows", levels[0]);
    for (int i = 0; i < 4; i++) {
        if (!strcmp(rows, levels[i])) {
            job->engine.rows = i;
            return;
        }
    }
    lua_fail(L, "%s: \"rows\" is \"requests\", \"steps\", \"step_requests\" or \"tokens\", not \"%s\"", what, rows);
}

/* kv = n: every so many steps; true: every one. */
static void read_kv(lua_State *L, int index, const char *what, struct run_job *job)
{
    lua_getfield(L, index, "kv");
    if (lua_isboolean(L, -1))
        job->engine.kv_every = (uint32_t)lua_toboolean(L, -1);
    else
        job->engine.kv_every = (uint32_t)lua_field_integer(L, index, what, "kv", 1, INT32_MAX, 0);
    lua_pop(L, 1);
}

/* probes = { { format = … }, … }: numbers 1, 2, … in the tables; trace.attention is numbered after them. */
static void read_probes(lua_State *L, int index, const char *what, struct run_job *job)
{
    char text[128], inner[96];
    if (lua_getfield(L, index, "probes") != LUA_TNIL) {
        if (!lua_istable(L, -1) || (luaL_len(L, -1) == 0 && (lua_pushnil(L), lua_next(L, -2))))
            lua_fail(L, "%s: \"probes\" should be an array { { format = … }, … }, not %s", what,
                     lua_describe(L, -1, text, sizeof text));
        int array = lua_gettop(L);
        lua_Integer count = luaL_len(L, array);
        if (count >= LATHE_MAX_PROBES)
            lua_fail(L, "%s: %lld probes are more than %d", what, (long long)count, LATHE_MAX_PROBES - 1);
        for (lua_Integer i = 1; i <= count; i++) {
            snprintf(inner, sizeof inner, "%s: probe %lld", what, (long long)i);
            lua_rawgeti(L, array, i);
            if (!lua_istable(L, -1))
                lua_fail(L, "%s: should be { format = …, layers = … }, not %s", inner, lua_describe(L, -1, text, sizeof text));
            lua_read_probe(L, lua_gettop(L), inner, job, LATHE_PROBE_FORMATS - 1);
            lua_settop(L, array);
        }
    }
    lua_pop(L, 1);
}

void lua_check_trace(lua_State *L, int index, struct run_job *job)
{
    char text[128], what[64];
    snprintf(what, sizeof what, "%s: trace", job->who);
    int top = lua_gettop(L);
    job->recording = true;
    job->probe_count = 0;
    if (lua_isboolean(L, index)) {
        job->recording = lua_toboolean(L, index);
    } else if (lua_istable(L, index)) {
        lua_check_fields(L, index, what, trace_fields, 0);
        if (!lua_field_boolean(L, index, what, "latency", true))
            lua_fail(L, "%s: latency rows are what the others refer to: trace = false records nothing", what);
        const char *tokens = lua_field_string(L, index, what, "tokens", "output");
        if (strcmp(tokens, "output") && strcmp(tokens, "all"))
            lua_fail(L, "%s: \"tokens\" is \"output\" or \"all\", not \"%s\"", what, tokens);
        job->engine.record_prompt_tokens = !strcmp(tokens, "all");
        const char *on_full = lua_field_string(L, index, what, "on_full", "wait");
        if (strcmp(on_full, "wait") && strcmp(on_full, "drop"))
            lua_fail(L, "%s: \"on_full\" is \"wait\" or \"drop\", not \"%s\"", what, on_full);
        job->recorder.on_full = strcmp(on_full, "drop") ? RECORDER_WAIT : RECORDER_DROP;
        read_rows(L, index, what, job);
        job->hops = lua_field_boolean(L, index, what, "hops", false);
        job->recorder.flush_interval_ns = lua_field_seconds(L, index, what, "flush_s", 0);
        read_kv(L, index, what, job);
        read_probes(L, index, what, job);
        lua_getfield(L, index, "attention");
        int attention = lua_gettop(L);
        if (lua_type(L, attention) == LUA_TSTRING || lua_istable(L, attention)) {
            snprintf(text, sizeof text, "%s: attention", what);
            lua_read_probe(L, attention, text, job, LATHE_PROBE_FULL);
        } else if (!lua_isnil(L, attention) && !(lua_isboolean(L, attention) && !lua_toboolean(L, attention))) {
            lua_fail(L, "%s: \"attention\" is \"summary\", \"top\", \"full\" or a table, not %s", what,
                     lua_describe(L, attention, text, sizeof text));
        }
    } else if (!lua_isnil(L, index)) {
        lua_fail(L, "%s: should be false or a table, not %s", what, lua_describe(L, index, text, sizeof text));
    }
    for (size_t i = 0; i < job->count; i++)
        job->requests[i].submit.probes &= lua_all_probes(job);
    lua_settop(L, top);
}

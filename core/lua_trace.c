/* SPDX-License-Identifier: MIT */
/* `trace = …` of lathe.run: what is written down.
 *
 *     trace = false                          nothing at all
 *     trace = { attention = "summary" }      beside the latency rows, every head of every token
 *     trace = { attention = { format = "full", layers = { 0, 5 }, heads = { 2 },
 *               positions = { 10, 20 }, every = 2, requests = { 1, 3 } }, tokens = "all" }
 *     trace = { rows = "requests" }          a row a request; "steps": and a row a step; "step_requests":
 *                                            and who was in it; "tokens", the default: and every token
 *
 * Layers, heads and positions count from 0, as in the tables; requests from 1, as in the
 * workload. */
#include "lua_internal.h"

#include <string.h>

#include <lathe/attention.h>

static const char *const trace_fields[] = { "attention", "tokens", "latency", "on_full", "flush_s", "hops", "rows", NULL };
static const char *const attention_fields[] = { "format", "layers",  "heads",  "positions", "every",
                                                "top_k",  "recent", "requests", NULL };
static const char *const formats[] = { "summary", "top", "full", NULL }; /* enum lathe_probe_format, less one */

static uint32_t format_from_name(lua_State *L, const struct run_job *job, const char *name)
{
    size_t count = 0;
    for (; formats[count]; count++)
        if (!strcmp(formats[count], name))
            return (uint32_t)count + 1;
    const char *near = nearest_name(name, formats, count);
    lua_fail(L, "%s: trace: attention is \"summary\", \"top\" or \"full\", not \"%s\"%s%s%s", job->who, name,
             near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* Bits for the array of numbers in field `name`; all of `limit` if it is absent. */
static void read_mask(lua_State *L, const struct run_job *job, int table, const char *name, uint32_t limit, uint64_t mask[4])
{
    char text[128];
    if (lua_getfield(L, table, name) == LUA_TNIL) {
        for (uint32_t i = 0; i < limit && i < 256; i++)
            mask[i / 64] |= (uint64_t)1 << (i % 64);
    } else if (!lua_istable(L, -1) || luaL_len(L, -1) < 1) {
        lua_fail(L, "%s: trace: \"%s\" should be an array of numbers from 0, not %s", job->who, name,
                 lua_describe(L, -1, text, sizeof text));
    } else {
        lua_Integer count = luaL_len(L, -1);
        for (lua_Integer i = 1; i <= count; i++) {
            int whole;
            lua_rawgeti(L, -1, i);
            lua_Integer value = lua_tointegerx(L, -1, &whole);
            if (!whole || value < 0 || value >= (lua_Integer)limit)
                lua_fail(L, "%s: trace: \"%s\" of this model are 0 to %u, not %s", job->who, name, limit - 1,
                         lua_describe(L, -1, text, sizeof text));
            mask[value / 64] |= (uint64_t)1 << (value % 64);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

static void read_positions(lua_State *L, const struct run_job *job, int table, struct lathe_probe *probe)
{
    char text[128];
    probe->first_position = 0;
    probe->last_position = -1;
    if (lua_getfield(L, table, "positions") != LUA_TNIL) {
        int first_ok, last_ok = 1;
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: trace: \"positions\" should be { first, last } or { first }, not %s", job->who,
                     lua_describe(L, -1, text, sizeof text));
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        lua_Integer first = lua_tointegerx(L, -2, &first_ok), last = -1;
        if (!lua_isnil(L, -1))
            last = lua_tointegerx(L, -1, &last_ok);
        if (!first_ok || !last_ok || first < 0 || first > INT32_MAX || (last != -1 && last < first) || last > INT32_MAX)
            lua_fail(L, "%s: trace: \"positions\" should be { first, last }, counted from 0, first ≤ last", job->who);
        probe->first_position = (int32_t)first;
        probe->last_position = (int32_t)last;
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static void read_attention(lua_State *L, int index, struct run_job *job)
{
    char what[64];
    snprintf(what, sizeof what, "%s: trace: attention", job->who);
    const struct lathe_model_info *info = &job->model->info;
    struct lathe_probe *probe = &job->probes[0];
    memset(probe, 0, sizeof *probe);
    probe->id = 1;
    probe->top_k = 8;
    probe->recent_window = 16;
    probe->last_position = -1;
    probe->every = 1;
    const char *format = "summary";
    if (lua_type(L, index) == LUA_TSTRING) {
        format = lua_tostring(L, index);
        lua_newtable(L); /* no further wishes */
    } else {
        lua_check_fields(L, index, what, attention_fields, 0);
        format = lua_field_string(L, index, what, "format", format);
        lua_pushvalue(L, index);
    }
    int table = lua_gettop(L);
    probe->format = format_from_name(L, job, format);
    if (!(info->probe_formats >> probe->format & 1))
        lua_fail(L, "%s: model \"%s\" doesn't offer \"%s\"", what, job->model->model->entry->name, format);
    read_mask(L, job, table, "layers", info->layers, probe->layers);
    read_mask(L, job, table, "heads", info->heads, probe->heads);
    read_positions(L, job, table, probe);
    probe->every = (uint32_t)lua_field_integer(L, table, what, "every", 1, INT32_MAX, probe->every);
    probe->top_k = (uint32_t)lua_field_integer(L, table, what, "top_k", 1, 1024, probe->top_k);
    probe->recent_window = (uint32_t)lua_field_integer(L, table, what, "recent", 1, INT32_MAX, probe->recent_window);
    job->probe_count = 1;
    lua_pop(L, 1);
}

/* attention.requests = { 1, 3 }: the others are not probed. */
static void read_probed(lua_State *L, int attention, struct run_job *job)
{
    char text[128];
    if (!lua_istable(L, attention) || lua_getfield(L, attention, "requests") == LUA_TNIL)
        return;
    if (lua_type(L, -1) == LUA_TSTRING && !strcmp(lua_tostring(L, -1), "all"))
        return;
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: trace: \"requests\" should be \"all\" or an array of request numbers, not %s", job->who,
                 lua_describe(L, -1, text, sizeof text));
    bool *probed = lua_newuserdatauv(L, job->count, 0);
    memset(probed, 0, job->count);
    lua_Integer count = luaL_len(L, -2);
    for (lua_Integer i = 1; i <= count; i++) {
        int whole;
        lua_rawgeti(L, -2, i);
        lua_Integer number = lua_tointegerx(L, -1, &whole);
        if (!whole || number < 1 || number > (lua_Integer)job->count)
            lua_fail(L, "%s: trace: \"requests\" of this workload are 1 to %zu, not %s", job->who, job->count,
                     lua_describe(L, -1, text, sizeof text));
        probed[number - 1] = true;
        lua_pop(L, 1);
    }
    for (size_t i = 0; i < job->count; i++)
        job->requests[i].submit.probes &= probed[i];
}

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
        lua_getfield(L, index, "attention");
        int attention = lua_gettop(L);
        if (lua_type(L, attention) == LUA_TSTRING || lua_istable(L, attention)) {
            read_attention(L, attention, job);
            read_probed(L, attention, job);
        } else if (!lua_isnil(L, attention) && !(lua_isboolean(L, attention) && !lua_toboolean(L, attention))) {
            lua_fail(L, "%s: \"attention\" is \"summary\", \"top\", \"full\" or a table, not %s", what,
                     lua_describe(L, attention, text, sizeof text));
        }
    } else if (!lua_isnil(L, index)) {
        lua_fail(L, "%s: should be false or a table, not %s", what, lua_describe(L, index, text, sizeof text));
    }
    for (size_t i = 0; i < job->count && !job->probe_count; i++)
        job->requests[i].submit.probes = 0;
    lua_settop(L, top);
}

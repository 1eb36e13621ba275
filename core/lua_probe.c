/* SPDX-License-Identifier: MIT */
/* One probe as a table, and what probes and interventions both say: which layers, heads, positions and requests.
 *
 *     { format = "hidden", layers = { 5 }, positions = { 10, 20 }, every = 2, requests = { 1, 3 } }
 *
 * Layers, heads and positions count from 0, as in the tables; requests from 1, as in the workload. */
#include "lua_internal.h"

#include <string.h>

#include <lathe/attention.h>

static const char *const probe_fields[] = { "format", "layers", "heads",    "positions", "every",
                                            "top_k",  "recent", "requests", NULL };
/* enum lathe_probe_format, less one */
static const char *const formats[] = { "summary", "top", "full", "scores", "values", "norms", "lens", "hidden", NULL };

uint32_t lua_all_probes(const struct run_job *job)
{
    return job->probe_count ? UINT32_MAX >> (32 - job->probe_count) : 0;
}

uint64_t lua_all_interventions(const struct run_job *job)
{
    return job->intervention_count ? UINT64_MAX >> (64 - job->intervention_count) : 0;
}

static uint32_t format_from_name(lua_State *L, const char *what, const char *name, uint32_t most)
{
    char list[160] = "";
    for (size_t i = 0; i < most; i++)
        if (!strcmp(formats[i], name))
            return (uint32_t)i + 1;
    const char *near = nearest_name(name, formats, most);
    for (size_t i = 0, used = 0; i < most; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s\"%s\"", i == 0 ? "" : i + 1 == most ? " or " : ", ",
                                 formats[i]);
    lua_fail(L, "%s is %s, not \"%s\"%s%s%s", what, list, name, near ? ": did you mean \"" : "", near ? near : "",
             near ? "\"?" : "");
}

void lua_read_mask(lua_State *L, int table, const char *what, const char *name, uint32_t limit, uint64_t mask[4])
{
    char text[128];
    if (lua_getfield(L, table, name) == LUA_TNIL) {
        for (uint32_t i = 0; i < limit && i < 256; i++)
            mask[i / 64] |= (uint64_t)1 << (i % 64);
    } else if (!lua_istable(L, -1) || luaL_len(L, -1) < 1) {
        lua_fail(L, "%s: \"%s\" should be an array of numbers from 0, not %s", what, name,
                 lua_describe(L, -1, text, sizeof text));
    } else {
        lua_Integer count = luaL_len(L, -1);
        for (lua_Integer i = 1; i <= count; i++) {
            int whole;
            lua_rawgeti(L, -1, i);
            lua_Integer value = lua_tointegerx(L, -1, &whole);
            if (!whole || value < 0 || value >= (lua_Integer)limit || value >= 256)
                lua_fail(L, "%s: \"%s\" of this model are 0 to %u, not %s", what, name, limit - 1,
                         lua_describe(L, -1, text, sizeof text));
            mask[value / 64] |= (uint64_t)1 << (value % 64);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

bool lua_read_positions(lua_State *L, int table, const char *what, int32_t *first_position, int32_t *last_position)
{
    char text[128];
    bool given = lua_getfield(L, table, "positions") != LUA_TNIL;
    *first_position = 0;
    *last_position = -1;
    if (given) {
        int first_ok, last_ok = 1;
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: \"positions\" should be { first, last } or { first }, not %s", what,
                     lua_describe(L, -1, text, sizeof text));
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        lua_Integer first = lua_tointegerx(L, -2, &first_ok), last = -1;
        if (!lua_isnil(L, -1))
            last = lua_tointegerx(L, -1, &last_ok);
        if (!first_ok || !last_ok || first < 0 || first > INT32_MAX || (last != -1 && last < first) || last > INT32_MAX)
            lua_fail(L, "%s: \"positions\" should be { first, last }, counted from 0, first ≤ last", what);
        *first_position = (int32_t)first;
        *last_position = (int32_t)last;
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
    return given;
}

const bool *lua_read_requests(lua_State *L, int table, const char *what, const struct run_job *job)
{
    char text[128];
    if (!lua_istable(L, table) || lua_getfield(L, table, "requests") == LUA_TNIL ||
        (lua_type(L, -1) == LUA_TSTRING && !strcmp(lua_tostring(L, -1), "all")))
        return NULL;
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: \"requests\" should be \"all\" or an array of request numbers, not %s", what,
                 lua_describe(L, -1, text, sizeof text));
    if (job->count == 0)
        lua_fail(L, "%s: \"requests\" are the workload's numbers, and here no request is known beforehand", what);
    bool *named = lua_newuserdatauv(L, job->count, 0);
    memset(named, 0, job->count);
    lua_Integer count = luaL_len(L, -2);
    for (lua_Integer i = 1; i <= count; i++) {
        int whole;
        lua_rawgeti(L, -2, i);
        lua_Integer number = lua_tointegerx(L, -1, &whole);
        if (!whole || number < 1 || number > (lua_Integer)job->count)
            lua_fail(L, "%s: \"requests\" of this workload are 1 to %zu, not %s", what, job->count,
                     lua_describe(L, -1, text, sizeof text));
        named[number - 1] = true;
        lua_pop(L, 1);
    }
    return named;
}

void lua_read_probe(lua_State *L, int index, const char *what, struct run_job *job, uint32_t most)
{
    const struct lathe_model_info *info = &job->model->info;
    const int top = lua_gettop(L);
    const uint32_t bit = UINT32_C(1) << job->probe_count;
    struct lathe_probe *probe = &job->probes[job->probe_count++];
    const char *format = most == LATHE_PROBE_FULL ? "summary" : NULL; /* of trace.attention */
    if (lua_type(L, index) == LUA_TSTRING) {
        format = lua_tostring(L, index);
        lua_newtable(L); /* no further wishes */
    } else {
        lua_check_fields(L, index, what, probe_fields, 0);
        format = lua_field_string(L, index, what, "format", format);
        lua_pushvalue(L, index);
    }
    int table = lua_gettop(L);
    if (!format)
        lua_fail(L, "%s: should say its format, { format = \"hidden\" }", what);
    *probe = (struct lathe_probe){ .id = job->probe_count, .format = format_from_name(L, what, format, most),
                                   .width = info->embedding_width };
    if (!(info->probe_formats >> probe->format & 1))
        lua_fail(L, "%s: model \"%s\" doesn't offer \"%s\"", what, job->model->model->entry->name, format);
    lua_read_mask(L, table, what, "layers", info->layers, probe->layers);
    lua_read_mask(L, table, what, "heads", info->heads, probe->heads);
    lua_read_positions(L, table, what, &probe->first_position, &probe->last_position);
    probe->every = (uint32_t)lua_field_integer(L, table, what, "every", 1, INT32_MAX, 1);
    probe->top_k = (uint32_t)lua_field_integer(L, table, what, "top_k", 1, 1024, 8);
    probe->recent_window = (uint32_t)lua_field_integer(L, table, what, "recent", 1, INT32_MAX, 16);
    if (probe->format == LATHE_PROBE_LENS && probe->top_k > info->vocab_tokens)
        lua_fail(L, "%s: \"top_k\" is %u, but this model has %u tokens", what, probe->top_k, info->vocab_tokens);
    for (uint32_t i = 1; i < job->model_count; i++) { /* one row in the database describes it for all of them */
        const struct lathe_model_info *next = &job->models[i]->info;
        if (next->layers != info->layers || next->heads != info->heads || next->embedding_width != info->embedding_width)
            lua_fail(L, "%s: the models differ in layers, heads or width: probe runs of one of them", what);
    }
    const bool *named = lua_read_requests(L, table, what, job);
    for (size_t i = 0; named && i < job->count; i++)
        if (!named[i])
            job->requests[i].submit.probes &= ~bit;
    lua_settop(L, top);
}

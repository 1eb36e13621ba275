/* SPDX-License-Identifier: MIT */
/* Workloads that are drawn in C, for scripts/lathe/workload.lua and lengths.lua:
 *
 *     core.length("lognormal", { a = 120, b = 1.0, max = 4000 })   a distribution: draw, mean
 *     core.workload_trace(path, { from = 1, window = 600 })        a trace's rows: count
 *     core.workload { arrivals = "poisson", rate = 4, … }          the source: count, requests
 *
 * The source is what a run draws from as it goes; `requests` shows the same requests as tables,
 * to a script that wants to see them. */
#include "lua_internal.h"

#include <stdlib.h>
#include <string.h>

#include "workload_draw.h"
#include "workload_trace.h"
#include <lathe/random.h>

#define LATHE_LENGTH "lathe.length"
#define LATHE_TRACE "lathe.trace"

static const char *const length_kinds[] = { "fixed", "uniform", "lognormal", "exponential", "empirical", "trace", NULL };
static const char *const arrival_kinds[] = { "constant", "poisson", "gamma", "mmpp", "burst", "replay", "closed", NULL };
static const char *const predictions[] = { "none", "true", "noisy", "mean", NULL };

/* ── lengths ───────────────────────────────────────────────────────────────────────── */

static int length_collect(lua_State *L)
{
    struct workload_length *length = luaL_checkudata(L, 1, LATHE_LENGTH);
    free((void *)length->values);
    memset(length, 0, sizeof *length);
    return 0;
}

/* The array of numbers on top of the stack, as lengths. */
static void read_values(lua_State *L, struct workload_length *length)
{
    static const struct workload_length any = { .kind = WORKLOAD_FIXED };
    size_t count = (size_t)luaL_len(L, -1);
    uint32_t *values = calloc(count ? count : 1, sizeof *values);
    if (!values)
        lua_fail(L, "lathe.workload: no memory left for %zu lengths", count);
    length->values = values; /* the userdata's from here on */
    length->value_count = count;
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        values[i] = workload_length_cut(&any, lua_tonumber(L, -1));
        lua_pop(L, 1);
    }
}

/* core.length(kind, { a =, b =, min =, max =, values = }) */
static int length_new(lua_State *L)
{
    static const char *const what = "lathe.workload";
    struct lathe_error err;
    int kind = luaL_checkoption(L, 1, NULL, length_kinds);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct workload_length *length = lua_newuserdatauv(L, sizeof *length, 0);
    *length = (struct workload_length){ .kind = kind };
    luaL_setmetatable(L, LATHE_LENGTH);
    length->a = lua_field_number(L, 2, what, "a", 0, WORKLOAD_MAX_TOKENS, 0);
    length->b = lua_field_number(L, 2, what, "b", 0, WORKLOAD_MAX_TOKENS, 0);
    length->min = (uint32_t)lua_field_integer(L, 2, what, "min", 0, WORKLOAD_MAX_TOKENS, 0);
    length->max = (uint32_t)lua_field_integer(L, 2, what, "max", 0, WORKLOAD_MAX_TOKENS, 0);
    if (lua_getfield(L, 2, "values") == LUA_TTABLE)
        read_values(L, length);
    lua_pop(L, 1);
    if (workload_length_check(length, length_kinds[kind], &err))
        lua_fail_error(L, what, &err);
    return 1;
}

/* length:draw(seed, stream, counter) */
static int length_draw(lua_State *L)
{
    const struct workload_length *length = luaL_checkudata(L, 1, LATHE_LENGTH);
    struct workload_key key = { .seed = (uint64_t)luaL_checkinteger(L, 2), .stream = (uint64_t)luaL_checkinteger(L, 3),
                                .purpose = LATHE_RANDOM_LENGTHS };
    lua_Integer counter = luaL_checkinteger(L, 4);
    luaL_argcheck(L, counter >= 0 && counter <= INT32_MAX, 4, "a counter of lengths has 31 bits");
    luaL_argcheck(L, length->kind != WORKLOAD_OF_TRACE, 1, "a trace's lengths are drawn with its rows");
    lua_pushinteger(L, workload_length_draw(length, key, (uint32_t)counter, 0));
    return 1;
}

static int length_mean(lua_State *L)
{
    lua_pushnumber(L, workload_length_mean(luaL_checkudata(L, 1, LATHE_LENGTH)));
    return 1;
}

/* ── traces ────────────────────────────────────────────────────────────────────────── */

struct trace {
    struct workload_trace_row *rows;
    size_t count;
};

static int trace_collect(lua_State *L)
{
    struct trace *trace = luaL_checkudata(L, 1, LATHE_TRACE);
    free(trace->rows);
    *trace = (struct trace){ 0 };
    return 0;
}

/* core.workload_trace(path, { from =, rows =, window =, lengths = }) */
static int trace_new(lua_State *L)
{
    static const char *const what = "workload.replay";
    struct lathe_error err;
    struct workload_trace_file file = { .path = luaL_checkstring(L, 1) };
    luaL_checktype(L, 2, LUA_TTABLE);
    file.from = (size_t)lua_field_integer(L, 2, what, "from", 1, INT32_MAX, 1);
    file.rows = (size_t)lua_field_integer(L, 2, what, "rows", 0, INT32_MAX, 0);
    file.window_s = lua_field_number(L, 2, what, "window", 0, 1e9, 0);
    file.scale = lua_field_number(L, 2, what, "lengths", 0, 1e9, 0);
    struct trace *trace = lua_newuserdatauv(L, sizeof *trace, 0);
    *trace = (struct trace){ 0 };
    luaL_setmetatable(L, LATHE_TRACE);
    if (workload_trace_read(&file, &trace->rows, &trace->count, &err))
        lua_fail_error(L, what, &err);
    return 1;
}

static int trace_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)((struct trace *)luaL_checkudata(L, 1, LATHE_TRACE))->count);
    return 1;
}

/* ── the source ────────────────────────────────────────────────────────────────────── */

struct source {
    struct workload *workload;
};

static int source_collect(lua_State *L)
{
    struct source *source = luaL_checkudata(L, 1, LUA_LATHE_WORKLOAD);
    workload_close(source->workload);
    source->workload = NULL;
    return 0;
}

struct workload *lua_check_drawn(lua_State *L, int index, const char *what)
{
    char text[128];
    struct source *source = luaL_testudata(L, index, LUA_LATHE_WORKLOAD);
    if (!source)
        lua_fail(L, "%s: \"draw\" should be what a lathe.workload function makes, not %s", what,
                 lua_describe(L, index, text, sizeof text));
    if (!source->workload)
        lua_fail(L, "%s: the workload was closed", what);
    return source->workload;
}

static int choice(lua_State *L, int table, const char *what, const char *name, const char *const *names)
{
    const char *text = lua_field_string(L, table, what, name, names[0]);
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], text))
            return i;
    lua_fail(L, "%s: there is no %s \"%s\"", what, name, text);
}

static uint64_t seed_field(lua_State *L, int table, const char *what, const char *name)
{
    return (uint64_t)lua_field_integer(L, table, what, name, 0, INT64_MAX, 1);
}

static void read_seeds(lua_State *L, const char *what, struct workload_params *p)
{
    lua_getfield(L, 1, "seeds");
    luaL_checktype(L, -1, LUA_TTABLE);
    int table = lua_gettop(L);
    p->seed_arrivals = seed_field(L, table, what, "arrivals");
    p->seed_prompts = seed_field(L, table, what, "prompts");
    p->seed_outputs = seed_field(L, table, what, "outputs");
    p->seed_classes = seed_field(L, table, what, "classes");
    p->seed_predictions = seed_field(L, table, what, "predictions");
    lua_pop(L, 1);
}

/* An array of numbers, one for each state; its length is said. */
static uint32_t read_states(lua_State *L, const char *name, double values[WORKLOAD_MAX_STATES])
{
    uint32_t count = 0;
    if (lua_getfield(L, 1, name) == LUA_TTABLE)
        for (; count < WORKLOAD_MAX_STATES && lua_rawgeti(L, -1, (lua_Integer)count + 1) == LUA_TNUMBER; lua_pop(L, 1))
            values[count++] = lua_tonumber(L, -1);
    lua_settop(L, 1);
    return count;
}

static struct workload_length length_field(lua_State *L, int table, const char *name)
{
    lua_getfield(L, table, name);
    struct workload_length length = *(struct workload_length *)luaL_checkudata(L, -1, LATHE_LENGTH);
    lua_pop(L, 1); /* the class's table holds it */
    return length;
}

static void read_class(lua_State *L, int table, const char *what, struct workload_class *c)
{
    c->name = lua_field_string(L, table, what, "name", NULL);
    c->tenant = lua_field_string(L, table, what, "tenant", NULL);
    c->share = lua_field_number(L, table, what, "share", 0, 1e9, 1);
    c->prompt = length_field(L, table, "prompt");
    c->output = length_field(L, table, "output");
    c->prediction = choice(L, table, what, "prediction", predictions);
    c->noise = lua_field_number(L, table, what, "noise", 0, 20, 0);
    c->bias = lua_field_number(L, table, what, "bias", -20, 20, 0);
    c->priority = (int32_t)lua_field_integer(L, table, what, "priority", INT32_MIN, INT32_MAX, 0);
    c->weight = lua_field_weight(L, table, what);
    c->slo_ttft_ns = lua_field_seconds(L, table, what, "ttft", 0);
    c->slo_tpot_ns = lua_field_seconds(L, table, what, "tpot", 0);
    c->deadline_ns = lua_field_seconds(L, table, what, "deadline_s", 0);
}

/* Leaves the classes' memory, a userdata, on the stack. */
static void read_classes(lua_State *L, const char *what, struct workload_params *p)
{
    char inner[96];
    lua_getfield(L, 1, "classes");
    luaL_checktype(L, -1, LUA_TTABLE);
    int array = lua_gettop(L);
    p->class_count = (size_t)luaL_len(L, array);
    struct workload_class *classes = lua_newuserdatauv(L, (p->class_count + 1) * sizeof *classes, 0);
    memset(classes, 0, (p->class_count + 1) * sizeof *classes);
    for (size_t i = 0; i < p->class_count; i++) {
        lua_rawgeti(L, array, (lua_Integer)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        snprintf(inner, sizeof inner, "%.64s: class %zu", what, i + 1);
        read_class(L, lua_gettop(L), inner, &classes[i]);
        lua_pop(L, 1);
    }
    p->classes = classes;
}

/* core.workload { what =, arrivals =, requests =, seeds =, rate =, …, trace =, classes = } */
static int source_new(lua_State *L)
{
    struct lathe_error err;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    const char *what = lua_field_string(L, 1, "lathe.workload", "what", "lathe.workload");
    struct workload_params p = { .arrivals = choice(L, 1, what, "arrivals", arrival_kinds) };
    p.requests = (size_t)lua_field_integer(L, 1, what, "requests", 0, INT32_MAX, 0);
    p.rate = lua_field_number(L, 1, what, "rate", 0, 1e9, 0);
    p.cv = lua_field_number(L, 1, what, "cv", 0, 1e9, 0);
    p.size = (uint32_t)lua_field_integer(L, 1, what, "size", 0, UINT32_MAX, 0);
    p.every_s = lua_field_number(L, 1, what, "every", 0, 1e9, 0);
    p.speed = lua_field_number(L, 1, what, "speed", 0, 1e9, 0);
    p.states = read_states(L, "rates", p.rates);
    if (read_states(L, "stays", p.stays_s) != p.states)
        lua_fail(L, "%s: \"rates\" and \"stays\" should be as many, at most %d", what, WORKLOAD_MAX_STATES);
    read_seeds(L, what, &p);
    if (lua_getfield(L, 1, "trace") != LUA_TNIL) {
        const struct trace *trace = luaL_checkudata(L, -1, LATHE_TRACE);
        p.rows = trace->rows;
        p.row_count = trace->count;
    }
    read_classes(L, what, &p);
    struct source *source = lua_newuserdatauv(L, sizeof *source, 0);
    source->workload = NULL;
    luaL_setmetatable(L, LUA_LATHE_WORKLOAD);
    if (workload_open(&p, &source->workload, &err))
        lua_fail_error(L, what, &err);
    return 1;
}

static int source_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)workload_count(lua_check_drawn(L, 1, "lathe.workload")));
    return 1;
}

static void push_request(lua_State *L, const struct workload_request *r)
{
    lua_createtable(L, 0, 8);
    if (r->planned_ns >= 0)
        lua_set_number(L, "at", (double)r->planned_ns / 1e9); /* back in nanoseconds it is the same number */
    lua_set_integer(L, "prompt_tokens", r->prompt_tokens);
    lua_set_integer(L, "output_tokens", r->output_tokens);
    if (r->predicted_output_tokens)
        lua_set_integer(L, "predicted", r->predicted_output_tokens);
    if (*r->class_name)
        lua_set_text(L, "class", r->class_name);
    if (*r->tenant)
        lua_set_text(L, "tenant", r->tenant);
    if (r->priority)
        lua_set_integer(L, "priority", r->priority);
    if (r->weight != 1000)
        lua_set_number(L, "weight", r->weight / 1e3);
    if (r->deadline_ns)
        lua_set_number(L, "deadline_s", (double)r->deadline_ns / 1e9);
    if (r->slo_ttft_ns || r->slo_tpot_ns) {
        lua_createtable(L, 0, 2);
        if (r->slo_ttft_ns)
            lua_set_number(L, "ttft", (double)r->slo_ttft_ns / 1e9);
        if (r->slo_tpot_ns)
            lua_set_number(L, "tpot", (double)r->slo_tpot_ns / 1e9);
        lua_setfield(L, -2, "slo");
    }
}

/* source:requests() → the requests as tables, and of each the number of its class. */
static int source_requests(lua_State *L)
{
    struct workload *workload = lua_check_drawn(L, 1, "lathe.workload");
    struct workload_request request;
    int count = (int)workload_count(workload);
    lua_createtable(L, count, 0);
    lua_createtable(L, count, 0);
    workload_rewind(workload);
    for (lua_Integer i = 1; workload_next(workload, &request); i++) {
        push_request(L, &request);
        lua_rawseti(L, -3, i);
        lua_pushinteger(L, (lua_Integer)request.class_number + 1);
        lua_rawseti(L, -2, i);
    }
    workload_rewind(workload);
    return 2;
}

void lua_workload_register(lua_State *L)
{
    static const luaL_Reg lengths[] = { { "draw", length_draw }, { "mean", length_mean }, { NULL, NULL } };
    static const luaL_Reg traces[] = { { "count", trace_count }, { NULL, NULL } };
    static const luaL_Reg sources[] = { { "count", source_count }, { "requests", source_requests }, { NULL, NULL } };
    lua_class(L, LATHE_LENGTH, lengths, length_collect);
    lua_class(L, LATHE_TRACE, traces, trace_collect);
    lua_class(L, LUA_LATHE_WORKLOAD, sources, source_collect);
}

const luaL_Reg lua_workload_functions[] = {
    { "length", length_new },
    { "workload", source_new },
    { "workload_trace", trace_new },
    { NULL, NULL },
};

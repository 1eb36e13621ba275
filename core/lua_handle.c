/* SPDX-License-Identifier: MIT */
/* What a run leaves in the script's hands, and questions to a database.
 *
 *     r.id  r.label  r.elapsed_s  r.requests  r.database
 *     r:query("select … where run_id = :run and ttft_ms > ?", 100) → { { column = value }, … }
 *     r.summary                  of a run on a virtual clock: { requests, response = { mean, p50, … }, … }, without SQL
 *     r:percentile("ttft", 0.99) likewise, in seconds
 *     r:outputs() → { { text = …, tokens = { … }, finish_reason = … }, … }, as the workload lists them
 *     r:perplexity()   r:activations { … }   r:write_npy(path, { … }): lua_activations.c
 *     r.resumed   true: an earlier run with the same key (its outputs stayed with the process that made them)
 *     lathe.sql "results/x.db":query "select …"
 *
 * Connections only read, and are opened when first asked. `:run` is the handle's run; other
 * parameters are bound in order, or by name from a table. NULL is an absent field; the
 * columns' order stands in the result's field `columns`. */
#include "lua_handle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sqlite_extension.h"

static int handle_close(lua_State *L)
{
    struct lua_handle *handle = luaL_testudata(L, 1, LUA_LATHE_RUN);
    if (!handle)
        handle = luaL_checkudata(L, 1, LUA_LATHE_SQL);
    if (handle->open) {
        sqlite3_close(handle->connection);
        run_requests_free(handle->requests, handle->count);
        if (handle->figures)
            figures_close(handle->figures);
        free(handle->figures);
    }
    handle->connection = NULL;
    handle->requests = NULL;
    handle->figures = NULL;
    handle->open = false;
    return 0;
}

struct lua_handle *lua_check_handle(lua_State *L, const char *what)
{
    char text[128];
    struct lua_handle *handle = luaL_testudata(L, 1, LUA_LATHE_RUN);
    if (!handle)
        handle = luaL_testudata(L, 1, LUA_LATHE_SQL);
    if (!handle)
        lua_fail(L, "%s: should be called with a colon on a run or a database, not on %s", what,
                 lua_describe(L, 1, text, sizeof text));
    if (!handle->open)
        lua_fail(L, "%s: the %s is used after it was closed", what, handle->run ? "run" : "database");
    return handle;
}

int64_t lua_handle_request(lua_State *L, const struct lua_handle *handle, const char *what, lua_Integer number)
{
    if (number < 1 || (handle->count && number > (lua_Integer)handle->count))
        lua_fail(L, "%s: this run's requests are 1 to %zu, not %lld", what, handle->count, (long long)number);
    return handle->requests ? (int64_t)handle->requests[number - 1].id : number;
}

/* ── questions ─────────────────────────────────────────────────────────────────────── */

void lua_handle_connect(lua_State *L, struct lua_handle *handle, const char *what)
{
    if (!handle->recorded)
        lua_fail(L, "%s: this run recorded nothing (trace = false)", what);
    if (handle->connection)
        return;
    /* Not SQLITE_OPEN_READONLY: such a connection, closed last, leaves the write-ahead log beside the
     * file, and whoever copies the file alone loses what is in the log. */
    int status = sqlite3_open_v2(handle->path, &handle->connection, SQLITE_OPEN_READWRITE, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_exec(handle->connection, "pragma query_only = on; select 1 from sqlite_schema", NULL, NULL, NULL);
    if (status == SQLITE_OK) /* tables `attention`, `attention_weights`, percentile() */
        status = lathe_sqlite_init_static(handle->connection);
    if (status != SQLITE_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", sqlite3_errmsg(handle->connection));
        sqlite3_close(handle->connection);
        handle->connection = NULL;
        lua_fail(L, "can't read the database %s: %s", handle->path, why);
    }
    sqlite3_busy_timeout(handle->connection, 5000);
}

static void bind_value(lua_State *L, sqlite3_stmt *statement, int parameter, int index)
{
    size_t bytes;
    const char *text;
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            sqlite3_bind_int64(statement, parameter, lua_tointeger(L, index));
        else
            sqlite3_bind_double(statement, parameter, lua_tonumber(L, index));
        break;
    case LUA_TBOOLEAN: sqlite3_bind_int(statement, parameter, lua_toboolean(L, index)); break;
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &bytes);
        sqlite3_bind_text64(statement, parameter, text, bytes, SQLITE_TRANSIENT, SQLITE_UTF8);
        break;
    default: sqlite3_bind_null(statement, parameter);
    }
}

/* Arguments 3 … top: in order for nameless parameters; named ones from a table in last
 * place. Returns a problem's sentence in `why`, or "". */
static void bind_all(lua_State *L, const struct lua_handle *handle, sqlite3_stmt *statement, int top, char *why,
                     size_t capacity)
{
    char text[128];
    int names = top >= 3 && lua_istable(L, top) ? top : 0, given = names ? top - 1 : top, next = 3;
    why[0] = '\0';
    int count = sqlite3_bind_parameter_count(statement);
    for (int i = 1; i <= count && !why[0]; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (name && *name != '?') {
            bool own = !strcmp(name, ":run") && handle->run;
            int type = LUA_TNIL;
            if (names) {
                lua_pushstring(L, name + 1);
                type = lua_rawget(L, names);
            }
            if (type != LUA_TNIL)
                bind_value(L, statement, i, -1);
            else if (own)
                sqlite3_bind_int64(statement, i, handle->run);
            else
                snprintf(why, capacity, "parameter %s has no value: give { %s = … }", name, name + 1);
            if (names)
                lua_pop(L, 1);
            continue;
        }
        if (next > given)
            snprintf(why, capacity, "parameter %d has no value: %d given", i, given - 2);
        else if (lua_istable(L, next) || lua_isfunction(L, next) || lua_isuserdata(L, next))
            snprintf(why, capacity, "parameter %d can't be %s", i, lua_describe(L, next, text, sizeof text));
        else
            bind_value(L, statement, i, next++);
    }
    if (!why[0] && next <= given)
        snprintf(why, capacity, "%d values given, but the question has only %d places (?)", given - 2, next - 3);
}

static void push_column(lua_State *L, sqlite3_stmt *statement, int i)
{
    switch (sqlite3_column_type(statement, i)) {
    case SQLITE_INTEGER: lua_pushinteger(L, sqlite3_column_int64(statement, i)); break;
    case SQLITE_FLOAT: lua_pushnumber(L, sqlite3_column_double(statement, i)); break;
    case SQLITE_NULL: lua_pushnil(L); break;
    default: {
        const void *bytes = sqlite3_column_blob(statement, i);
        lua_pushlstring(L, bytes ? bytes : "", (size_t)sqlite3_column_bytes(statement, i));
    }
    }
}

/* Called protected, so that the statement is finalized whatever happens: (handle, sql, …, statement). */
static int query_rows(lua_State *L)
{
    sqlite3_stmt *statement = lua_touserdata(L, -1);
    const struct lua_handle *handle = lua_touserdata(L, 1);
    char why[256];
    lua_pop(L, 1);
    bind_all(L, handle, statement, lua_gettop(L), why, sizeof why);
    if (why[0])
        lua_fail(L, "query: %s", why);
    int columns = sqlite3_column_count(statement), status;
    lua_newtable(L);
    int rows = lua_gettop(L);
    lua_createtable(L, columns, 0);
    for (int i = 0; i < columns; i++) {
        lua_pushstring(L, sqlite3_column_name(statement, i));
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, rows, "columns");
    lua_Integer count = 0;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        if (interrupt_wanted())
            lua_fail(L, "query: interrupted");
        lua_createtable(L, 0, columns);
        for (int i = 0; i < columns; i++) {
            lua_pushstring(L, sqlite3_column_name(statement, i));
            push_column(L, statement, i);
            lua_rawset(L, -3);
        }
        lua_rawseti(L, rows, ++count);
    }
    if (status != SQLITE_DONE)
        lua_fail(L, "query: %s", sqlite3_errmsg(handle->connection));
    return 1;
}

static int handle_query(lua_State *L)
{
    struct lua_handle *handle = lua_check_handle(L, "query");
    char text[128];
    sqlite3_stmt *statement;
    const char *tail;
    size_t bytes;
    if (lua_type(L, 2) != LUA_TSTRING)
        lua_fail(L, "query: takes SQL, not %s", lua_describe(L, 2, text, sizeof text));
    const char *sql = lua_tolstring(L, 2, &bytes);
    lua_handle_connect(L, handle, "query");
    if (sqlite3_prepare_v2(handle->connection, sql, (int)(bytes < INT32_MAX ? bytes + 1 : INT32_MAX), &statement, &tail))
        lua_fail(L, "query: %s", sqlite3_errmsg(handle->connection));
    if (!statement)
        lua_fail(L, "query: there is no statement in it");
    if (tail[strspn(tail, " \t\r\n;")]) {
        sqlite3_finalize(statement);
        lua_fail(L, "query: one statement at a time");
    }
    lua_pushcfunction(L, query_rows);
    lua_insert(L, 1);
    lua_pushlightuserdata(L, statement);
    int status = lua_pcall(L, lua_gettop(L) - 1, 1, 0);
    sqlite3_finalize(statement);
    return status ? lua_error(L) : 1;
}

/* ── outputs ───────────────────────────────────────────────────────────────────────── */

static const char *finish_name(int reason)
{
    static const char *const names[] = { "none", "stop", "length", "abort", "error", "deadline" };
    return reason >= 0 && reason < 6 ? names[reason] : "unknown";
}

void lua_push_output(lua_State *L, const struct planned_request *request)
{
    lua_createtable(L, 0, 6);
    lua_pushinteger(L, (lua_Integer)request->id);
    lua_setfield(L, -2, "id");
    lua_pushlstring(L, request->text ? request->text : "", request->text ? request->text_bytes : 0);
    lua_setfield(L, -2, "text");
    lua_pushstring(L, finish_name(request->finish_reason));
    lua_setfield(L, -2, "finish_reason");
    if (request->error[0]) {
        lua_pushstring(L, request->error);
        lua_setfield(L, -2, "error");
    }
    lua_createtable(L, (int)request->output_count, 0);
    lua_createtable(L, (int)request->output_count, 0);
    for (uint32_t j = 0; j < request->output_count; j++) {
        lua_pushinteger(L, request->output[j]);
        lua_rawseti(L, -3, (lua_Integer)j + 1);
        lua_pushnumber(L, request->logprobs ? (double)request->logprobs[j] : 0);
        lua_rawseti(L, -2, (lua_Integer)j + 1);
    }
    lua_setfield(L, -3, "logprobs");
    lua_setfield(L, -2, "tokens");
}

static int handle_outputs(lua_State *L)
{
    const struct lua_handle *handle = lua_check_handle(L, "outputs");
    if (handle->resumed)
        lua_fail(L, "outputs: run %lld was done by an earlier process, which kept its texts to itself: ask the table "
                    "token, or run it again without resume", (long long)handle->run);
    lua_createtable(L, (int)handle->count, 0);
    for (size_t i = 0; i < handle->count; i++) {
        lua_push_output(L, &handle->requests[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* ── figures of a simulation ───────────────────────────────────────────────────────── */

static const char *const figure_names[FIGURE_COUNT + 1] = { "response", "ttft", "queue", "tpot", NULL }; /* enum figure_of */

static void put_number(lua_State *L, const char *name, double value)
{
    if (value != value) /* of nothing: absent */
        return;
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

static void put_integer(lua_State *L, const char *name, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

static void push_figure(lua_State *L, const struct figure *f)
{
    double mean = f->count ? f->sum / (double)f->count * 1e-9 : NAN;
    double variance = f->count ? f->sum_of_squares / (double)f->count * 1e-18 - mean * mean : NAN;
    lua_createtable(L, 0, 8);
    put_integer(L, "count", f->count);
    put_number(L, "mean", mean);
    put_number(L, "sd", variance > 0 ? sqrt(variance) : variance);
    put_number(L, "p50", figure_percentile(f, 0.5) * 1e-9);
    put_number(L, "p90", figure_percentile(f, 0.9) * 1e-9);
    put_number(L, "p99", figure_percentile(f, 0.99) * 1e-9);
    put_number(L, "max", f->count ? (double)f->max * 1e-9 : NAN);
}

/* Times in seconds. busy: the share of the time, a replica's mean, in which a step was under way. */
static void push_summary(lua_State *L, const struct lua_handle *handle)
{
    const struct figures *f = handle->figures;
    double span = (double)(f->last_ns - f->first_ns);
    lua_newtable(L);
    put_integer(L, "requests", f->requests);
    put_integer(L, "failed", f->failed);
    put_integer(L, "refused", f->refused);
    if (f->refused) {
        lua_pushstring(L, f->first_refusal);
        lua_setfield(L, -2, "first_refusal");
    }
    put_integer(L, "steps", f->steps);
    put_integer(L, "preemptions", f->preemptions);
    put_integer(L, "prompt_tokens", f->prompt_tokens);
    put_integer(L, "output_tokens", f->output_tokens);
    put_integer(L, "with_slo", f->with_slo);
    put_integer(L, "met_slo", f->met_slo);
    put_number(L, "span_s", span * 1e-9);
    put_number(L, "wall_s", handle->wall_s);
    put_number(L, "tokens_per_s", span > 0 ? (double)f->output_tokens / span * 1e9 : NAN);
    put_number(L, "requests_per_s", span > 0 ? (double)f->requests / span * 1e9 : NAN);
    put_number(L, "goodput", span > 0 && f->with_slo ? (double)f->met_slo / span * 1e9 : NAN);
    put_number(L, "mean_in_system", span > 0 ? f->area_ns / span : NAN);
    put_number(L, "busy", span > 0 ? f->busy_ns / span / f->replicas : NAN);
    for (int i = 0; i < FIGURE_COUNT; i++) {
        push_figure(L, &f->of[i]);
        lua_setfield(L, -2, figure_names[i]);
    }
}

static void check_figures(lua_State *L, const struct lua_handle *handle, const char *what)
{
    if (!handle->figures)
        lua_fail(L, "%s: %s: ask its rows, with query", what,
                 handle->resumed ? "the run was done by an earlier process" : "the run's clock was real");
}

static int handle_percentile(lua_State *L)
{
    const struct lua_handle *handle = lua_check_handle(L, "percentile");
    int which = luaL_checkoption(L, 2, NULL, figure_names);
    double p = luaL_checknumber(L, 3);
    check_figures(L, handle, "percentile");
    if (!(p >= 0 && p <= 1))
        lua_fail(L, "percentile: takes a share from 0 to 1, such as 0.99, not %f", p);
    lua_pushnumber(L, figure_percentile(&handle->figures->of[which], p) * 1e-9);
    return 1;
}

/* r.id and the like; anything else is a method. */
static int handle_index(lua_State *L)
{
    static const char *const names[] = { "id",    "label",   "elapsed_s", "requests", "database",
                                         "query", "outputs", "close",     "summary",  "percentile",
                                         "resumed", "perplexity", "activations", "write_npy" };
    const struct lua_handle *handle = lua_touserdata(L, 1);
    const char *name = luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
        return 1;
    if (!strcmp(name, "database"))
        lua_pushstring(L, handle->path);
    else if (!strcmp(name, "id"))
        handle->run ? lua_pushinteger(L, handle->run) : lua_pushnil(L);
    else if (!strcmp(name, "resumed"))
        lua_pushboolean(L, handle->resumed);
    else if (!strcmp(name, "label"))
        lua_pushstring(L, handle->label);
    else if (!strcmp(name, "elapsed_s"))
        lua_pushnumber(L, handle->elapsed_s);
    else if (!strcmp(name, "summary")) {
        check_figures(L, handle, "summary");
        push_summary(L, handle);
    } else if (!strcmp(name, "requests"))
        lua_pushinteger(L, (lua_Integer)handle->count);
    else {
        const char *near = nearest_name(name, names, sizeof names / sizeof names[0]);
        lua_fail(L, "a run has no \"%s\"%s%s%s", name, near ? ", did you mean \"" : "", near ? near : "",
                 near ? "\"?" : "");
    }
    return 1;
}

void lua_handle_push(lua_State *L, struct run_job *job)
{
    struct lua_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    memset(handle, 0, sizeof *handle);
    luaL_setmetatable(L, LUA_LATHE_RUN);
    handle->open = true;
    handle->recorded = job->recording;
    handle->run = job->id;
    handle->elapsed_s = job->elapsed_s;
    snprintf(handle->label, sizeof handle->label, "%s", job->info.label ? job->info.label : "");
    snprintf(handle->path, sizeof handle->path, "%s", job->database_path);
    handle->wall_s = job->wall_s;
    handle->figures = job->figures;   /* the job's no longer */
    job->figures = NULL;
    handle->requests = job->requests; /* the same */
    handle->count = job->count;
    job->requests = NULL;
    job->count = 0;
}

/* Requests and seconds are the rows'. */
static void describe_earlier(lua_State *L, struct lua_handle *handle)
{
    sqlite3_stmt *statement = NULL;
    static const char sql[] = "select ifnull(label, ''), (select count(*) from request where run_id = r.id),"
                              " (select ifnull(max(finish_ns), 0) / 1e9 from request where run_id = r.id)"
                              " from run r where id = ?1";
    bool found = sqlite3_prepare_v2(handle->connection, sql, -1, &statement, NULL) == SQLITE_OK &&
                 sqlite3_bind_int64(statement, 1, handle->run) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    if (found) {
        snprintf(handle->label, sizeof handle->label, "%s", (const char *)sqlite3_column_text(statement, 0));
        handle->count = (size_t)sqlite3_column_int64(statement, 1);
        handle->elapsed_s = sqlite3_column_double(statement, 2);
    }
    sqlite3_finalize(statement);
    if (!found)
        lua_fail(L, "%s has no run %lld", handle->path, (long long)handle->run);
}

int lua_handle_earlier(lua_State *L)
{
    struct lua_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    memset(handle, 0, sizeof *handle);
    luaL_setmetatable(L, LUA_LATHE_RUN);
    handle->open = handle->recorded = handle->resumed = true;
    snprintf(handle->path, sizeof handle->path, "%s", luaL_checkstring(L, 1));
    handle->run = luaL_checkinteger(L, 2);
    lua_handle_connect(L, handle, "lathe.run");
    describe_earlier(L, handle);
    return 1;
}

int lua_sql_open(lua_State *L)
{
    char text[128];
    if (lua_type(L, 1) != LUA_TSTRING)
        lua_fail(L, "lathe.sql: takes a database's path, not %s", lua_describe(L, 1, text, sizeof text));
    struct lua_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    memset(handle, 0, sizeof *handle);
    luaL_setmetatable(L, LUA_LATHE_SQL);
    handle->open = handle->recorded = true;
    snprintf(handle->path, sizeof handle->path, "%s", lua_tostring(L, 1));
    lua_handle_connect(L, handle, "lathe.sql");
    return 1;
}

static const luaL_Reg run_methods[] = {
    { "query", handle_query }, { "outputs", handle_outputs },
    { "percentile", handle_percentile }, { "perplexity", lua_handle_perplexity },
    { "activations", lua_handle_activations }, { "write_npy", lua_handle_write_npy },
    { "close", handle_close }, { NULL, NULL },
};
static const luaL_Reg sql_methods[] = {
    { "query", handle_query }, { "close", handle_close }, { NULL, NULL },
};

void lua_handle_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_SQL, sql_methods, handle_close);
    lua_class(L, LUA_LATHE_RUN, run_methods, handle_close);
    luaL_getmetatable(L, LUA_LATHE_RUN); /* fields beside methods: __index becomes a function over them */
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, handle_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

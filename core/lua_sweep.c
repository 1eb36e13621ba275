/* SPDX-License-Identifier: MIT */
/* What lathe.sweep needs of the core beside its runs (lua_task.c):
 *
 *     core.database([wanted]) → where rows land
 *     core.hold(database) → an open recorder, which the runs to come share, until it is closed
 *     core.failed { database = …, sweep = …, seed = …, factors = …, message = … } → run's number
 *     core.interrupted() → was Ctrl-C pressed? From then on Lua goes on, and the caller must stop.
 *
 * A point whose description is wrong never becomes a run; the row says that it was tried. */
#include "lua_internal.h"

#include <string.h>

#define LUA_LATHE_HOLD "lathe.hold"

enum { MAX_FACTORS = 64 };

int lua_sweep_database(lua_State *L)
{
    char path[4096];
    lua_database_path(lua_lathe_of(L), luaL_optstring(L, 1, NULL), path, sizeof path);
    lua_pushstring(L, path);
    return 1;
}

int lua_sweep_interrupted(lua_State *L)
{
    bool wanted = interrupt_wanted();
    if (wanted)
        lua_sethook(L, NULL, 0, 0);
    lua_pushboolean(L, wanted);
    return 1;
}

/* ── the recorder ──────────────────────────────────────────────────────────────────── */

static int hold_close(lua_State *L)
{
    struct recorder **held = luaL_checkudata(L, 1, LUA_LATHE_HOLD);
    struct lathe_error err;
    struct recorder *recorder = *held;
    *held = NULL;
    if (recorder && recorder_return(recorder, &err))
        lua_fail_error(L, "lathe.sweep", &err);
    return 0;
}

int lua_sweep_hold(lua_State *L)
{
    struct lathe_error err;
    struct recorder_params params = { .path = luaL_checkstring(L, 1) };
    lua_stop_if_help(L);
    struct recorder **held = lua_newuserdatauv(L, sizeof *held, 0);
    *held = NULL;
    luaL_setmetatable(L, LUA_LATHE_HOLD);
    if (make_folders(params.path, &err) || recorder_borrow(&params, held, &err))
        lua_fail_error(L, "lathe.sweep", &err);
    return 1;
}

/* ── a point that never ran ────────────────────────────────────────────────────────── */

/* Rows of a failed run; `factors` is name, JSON, name, JSON, … */
static int write_failed(struct recorder *recorder, const struct run_info *info, const char *const *factors,
                        size_t count, const char *message, int64_t *id, struct lathe_error *err)
{
    struct recorder_run *run;
    struct producer *producer;
    int status = recorder_run_begin(recorder, info, &run, err);
    if (status)
        return status;
    *id = recorder_run_id(run);
    for (size_t i = 0; !status && i < count; i++)
        status = recorder_factor(run, factors[2 * i], factors[2 * i + 1], err);
    if (!status)
        status = recorder_producer(run, &producer, err);
    if (!status) {
        struct record_event event = { .correlation_id = RECORD_NULL };
        snprintf(event.level, sizeof event.level, "error");
        snprintf(event.message, sizeof event.message, "%.*s", (int)sizeof event.message - 1, message);
        record_event(producer, &event);
    }
    struct lathe_error closing;
    int ended = recorder_run_end(run, "failed", &closing);
    if (ended && !status)
        *err = closing;
    return status ? status : ended;
}

int lua_sweep_failed(lua_State *L)
{
    static const char what[] = "lathe.sweep";
    const struct lua_lathe *lathe = lua_lathe_of(L);
    const char *factors[2 * MAX_FACTORS];
    size_t count = 0;
    struct lathe_error err;
    lua_settop(L, 1);
    luaL_checktype(L, 1, LUA_TTABLE);
    struct run_info info = {
        .label = lua_field_string(L, 1, what, "label", NULL), .sweep = lua_field_string(L, 1, what, "sweep", NULL),
        .seed = (uint64_t)lua_field_integer(L, 1, what, "seed", 0, INT64_MAX, 1),
        .seed_index = lua_field_integer(L, 1, what, "seed_index", 0, INT64_MAX, -1), .experiment = lathe->name,
        .question = lathe->question, .argv_json = lathe->argv_json,
    };
    info.commit_id = build_commit(&info.dirty);
    const char *message = lua_field_string(L, 1, what, "message", "");
    struct recorder_params params = { .path = lua_field_string(L, 1, what, "database", "") };
    lua_getfield(L, 1, "factors");
    lua_newtable(L); /* holds the texts */
    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_pushnil(L); count < MAX_FACTORS && lua_next(L, 2); lua_pop(L, 1)) {
        factors[2 * count] = lua_tostring(L, -2); /* names are texts: the library checked */
        lua_json_push(L, -1, what);
        factors[2 * count + 1] = lua_tostring(L, -1);
        luaL_ref(L, 3);
        count++;
    }
    struct recorder *recorder;
    int64_t id = 0;
    int status = recorder_borrow(&params, &recorder, &err);
    if (!status) {
        struct lathe_error closing;
        status = write_failed(recorder, &info, factors, count, message, &id, &err);
        if (recorder_return(recorder, &closing) && !status)
            err = closing, status = closing.code;
    }
    if (status)
        lua_fail_error(L, what, &err);
    lua_pushinteger(L, id);
    return 1;
}

void lua_sweep_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_HOLD, NULL, hold_close);
}

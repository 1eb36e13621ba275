/* SPDX-License-Identifier: MIT */
/* One Lua state for one `lathe run`.
 *
 * Experiments are trusted: they have io, os and debug. What is guarded is the reader's
 * time: a global that nobody declared is an error where it is read or assigned, `require`
 * looks in the Lua library's folder and the script's own, nowhere else, and an error is
 * one line with the script's line in front. LATHE_LOG=debug adds the traceback.
 *
 * Ctrl-C sets a flag and a Lua hook: whichever runs, the step loop or Lua, sees it soon.
 * A second Ctrl-C ends the process at once (the run is then found `cut_short`). */
#include "lua_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lualib.h>

#include "log.h"
#include "sha256.h"
#include <lathe/random.h>

static const char lathe_key; /* its address names the registry slot */

struct lua_lathe *lua_lathe_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &lathe_key);
    struct lua_lathe *lathe = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return lathe;
}

/* ── Ctrl-C ────────────────────────────────────────────────────────────────────────── */

static lua_State *volatile interrupted_state; /* process-wide, as signals are */

static void stop_hook(lua_State *L, lua_Debug *frame)
{
    (void)frame;
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "interrupted");
}

/* lua_sethook is made to be called from a signal handler. */
static void stop_lua(void)
{
    lua_sethook(interrupted_state, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

void lua_interrupt_watch(lua_State *L)
{
    interrupted_state = L;
    interrupt_watch(stop_lua);
}

/* ── small functions for the Lua library ───────────────────────────────────────────── */

/* core.fail(message): an error at the line of whoever called the library. */
static int core_fail(lua_State *L)
{
    lua_fail(L, "%s", luaL_checkstring(L, 1));
}

/* core.stop(): ends the script as if it had been run to its end. */
static int core_stop(lua_State *L)
{
    lua_lathe_of(L)->stopped = true;
    return luaL_error(L, "stopped");
}

/* core.usage(message): ends the script with status 2; no line, since it is the command line's fault. */
static int core_usage(lua_State *L)
{
    lua_lathe_of(L)->usage = true;
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    return lua_error(L);
}

void lua_stop_if_help(lua_State *L)
{
    if (!lua_lathe_of(L)->help)
        return;
    puts("It has no options.");
    core_stop(L);
}

/* core.question(text): what the runs to come ask, instead of the script's first line. */
static int core_question(lua_State *L)
{
    struct lua_lathe *lathe = lua_lathe_of(L);
    char *copy = strdup(luaL_checkstring(L, 1));
    if (copy) {
        free(lathe->question);
        lathe->question = copy;
    }
    return 0;
}

/* core.nearest(name, names) → name or nil */
static int core_nearest(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1), *names[256];
    size_t count = 0;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer length = luaL_len(L, 2);
    luaL_checkstack(L, 260, NULL);
    for (lua_Integer i = 1; i <= length && count < 256; i++) {
        lua_rawgeti(L, 2, i);
        if (lua_type(L, -1) == LUA_TSTRING)
            names[count++] = lua_tostring(L, -1); /* stays on the stack, so it stays alive */
    }
    lua_pushstring(L, nearest_name(name, names, count));
    return 1;
}

/* core.random_unit(seed, purpose, stream, counter) → [0, 1): Philox, no state. */
static int core_random_unit(lua_State *L)
{
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 1), stream = (uint64_t)luaL_checkinteger(L, 3);
    lua_Integer purpose = luaL_checkinteger(L, 2), counter = luaL_checkinteger(L, 4);
    luaL_argcheck(L, purpose >= 0 && purpose <= UINT32_MAX, 2, "a purpose has 32 bits");
    luaL_argcheck(L, counter >= 0 && counter <= UINT32_MAX, 4, "a counter has 32 bits");
    lua_pushnumber(L, lathe_random_unit(seed, (uint32_t)purpose, stream, (uint32_t)counter));
    return 1;
}

/* core.sha256(bytes) → 64 hexadecimal digits */
static int core_sha256(lua_State *L)
{
    size_t bytes;
    char hex[SHA256_HEX_BYTES];
    const char *data = luaL_checklstring(L, 1, &bytes);
    sha256_bytes(data, bytes, hex);
    lua_pushstring(L, hex);
    return 1;
}

/* core.now() → seconds of the machine's monotonic clock. */
static int core_now(lua_State *L)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    lua_pushnumber(L, (double)now.tv_sec + (double)now.tv_nsec * 1e-9);
    return 1;
}

/* core.is_terminal() → is standard output one? */
static int core_is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(STDOUT_FILENO));
    return 1;
}

static const luaL_Reg core_functions[] = {
    { "model", lua_model_new },
    { "run", lua_run },
    { "task", lua_task_new },
    { "wait_any", lua_task_wait_any },
    { "earlier", lua_handle_earlier },
    { "hold", lua_sweep_hold },
    { "failed", lua_sweep_failed },
    { "database", lua_sweep_database },
    { "interrupted", lua_sweep_interrupted },
    { "engine", lua_engine_new },
    { "bus", lua_bus_new },
    { "sql", lua_sql_open },
    { "fail", core_fail },
    { "question", core_question },
    { "stop", core_stop },
    { "usage", core_usage },
    { "nearest", core_nearest },
    { "random_unit", core_random_unit },
    { "sha256", core_sha256 },
    { "now", core_now },
    { "is_terminal", core_is_terminal },
    { "json_encode", lua_json_encode },
    { "json_decode", lua_json_decode },
    { NULL, NULL },
};

static int open_core(lua_State *L)
{
    const struct lua_lathe *lathe = lua_lathe_of(L);
    luaL_newlib(L, core_functions);
    luaL_setfuncs(L, lua_workload_functions, 0);
    lua_pushstring(L, LATHE_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushstring(L, lathe->script);
    lua_setfield(L, -2, "script");
    char executable[4096];
    ssize_t bytes = readlink("/proc/self/exe", executable, sizeof executable);
    lua_pushlstring(L, executable, bytes > 0 ? (size_t)bytes : 0);
    lua_setfield(L, -2, "executable");
    lua_pushboolean(L, lathe->help);
    lua_setfield(L, -2, "help");
    lua_set_boolean(L, "resume", lathe->resume);
    lua_set_boolean(L, "quiet", lathe->quiet);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}

/* ── strict globals ────────────────────────────────────────────────────────────────── */

static int undeclared_read(lua_State *L)
{
    char text[128];
    return luaL_error(L, "there is no variable %s here: is it spelled right, and declared with \"local\" above?",
                      lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : lua_describe(L, 2, text, sizeof text));
}

static int undeclared_write(lua_State *L)
{
    char text[128];
    return luaL_error(L, "assignment to the undeclared global %s: write \"local\" in front",
                      lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : lua_describe(L, 2, text, sizeof text));
}

static void make_strict(lua_State *L)
{
    lua_pushglobaltable(L);
    lua_createtable(L, 0, 3);
    lua_pushcfunction(L, undeclared_read);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, undeclared_write);
    lua_setfield(L, -2, "__newindex");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

/* ── require ───────────────────────────────────────────────────────────────────────── */

/* The library's folder, then the script's; C modules from nowhere. */
static void set_package_path(lua_State *L, const char *scripts, const char *script)
{
    const char *slash = strrchr(script, '/');
    lua_getglobal(L, "package");
    if (slash)
        lua_pushlstring(L, script, slash > script ? (size_t)(slash - script) : 1);
    else
        lua_pushliteral(L, ".");
    const char *folder = lua_tostring(L, -1);
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s/?.lua;%s/?/init.lua", scripts, scripts, folder, folder);
    lua_setfield(L, -3, "path");
    lua_pushliteral(L, "");
    lua_setfield(L, -3, "cpath");
    lua_pop(L, 2);
}

/* Chunks are text: Lua's bytecode is not checked when it is loaded, and a wrong byte of it can
 * crash the process. */
static const char text_only[] =
    "local load, loadfile, searchpath = load, loadfile, package.searchpath\n"
    "rawset(_G, 'load', function(chunk, name, _, ...) return load(chunk, name, 't', ...) end)\n"
    "rawset(_G, 'loadfile', function(path, _, ...) return loadfile(path, 't', ...) end)\n"
    "rawset(_G, 'dofile', function(path) return assert(loadfile(path, 't'))() end)\n"
    "package.searchers[2] = function(name)\n"
    "  local path, tried = searchpath(name, package.path)\n"
    "  if not path then return tried end\n"
    "  local chunk, why = loadfile(path, 't')\n"
    "  if not chunk then error(why, 0) end\n"
    "  return chunk, path\n"
    "end\n";

static int setup(lua_State *L)
{
    struct lua_lathe *lathe = lua_touserdata(L, 1);
    const char *scripts = lua_touserdata(L, 2);
    luaL_openlibs(L);
    lua_pushlightuserdata(L, lathe);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &lathe_key);
    set_package_path(L, scripts, lathe->script);
    if (luaL_loadbufferx(L, text_only, sizeof text_only - 1, "=lathe", "t"))
        return lua_error(L);
    lua_call(L, 0, 0);
    luaL_requiref(L, "lathe.core", open_core, 0);
    lua_model_register(L);
    lua_run_register(L);
    lua_task_register(L);
    lua_sweep_register(L);
    lua_engine_register(L);
    lua_bus_register(L);
    lua_handle_register(L);
    lua_workload_register(L);
    make_strict(L);
    return 0;
}

/* Half of the machine's memory is the script's at most: a slip such as ("x"):rep(1e11) is then an
 * error at its line, and not the end of the process. `user` is what is left, in bytes. */
static void *allocate(void *user, void *memory, size_t before, size_t bytes)
{
    size_t *left = user;
    size_t held = memory ? before : 0; /* `before` is a type tag for new blocks */
    if (bytes > held && bytes - held > *left)
        return NULL;
    void *result = NULL;
    if (bytes == 0)
        free(memory);
    else if (!(result = realloc(memory, bytes)))
        return NULL;
    *left += held;
    *left -= bytes;
    return result;
}

lua_State *lua_lathe_open(struct lua_lathe *lathe, struct lathe_error *err)
{
    char scripts[4000];
    if (product_path("scripts", scripts, sizeof scripts, err))
        return NULL;
    lathe->memory_left = (size_t)sysconf(_SC_PHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE);
    lua_State *L = lua_newstate(allocate, &lathe->memory_left);
    if (!L) {
        lathe_fail(err, LATHE_ENOMEM, "no memory left for a Lua state");
        return NULL;
    }
    snprintf(lathe->library, sizeof lathe->library, "%s/lathe/", scripts);
    lua_pushcfunction(L, setup);
    lua_pushlightuserdata(L, lathe);
    lua_pushlightuserdata(L, scripts);
    if (lua_lathe_call(L, 2, 0, err)) {
        lua_close(L);
        return NULL;
    }
    return L;
}

/* ── calling ───────────────────────────────────────────────────────────────────────── */

/* Makes any error value a text; with LATHE_LOG=debug the traceback follows. */
static int on_error(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TSTRING) {
        if (!luaL_callmeta(L, 1, "__tostring") || lua_type(L, -1) != LUA_TSTRING)
            lua_pushfstring(L, "an error that is no text but a %s", luaL_typename(L, 1));
        lua_replace(L, 1);
        lua_settop(L, 1);
    }
    if (log_enabled(LATHE_LOG_DEBUG)) {
        luaL_traceback(L, L, lua_tostring(L, 1), 1);
        log_write(LATHE_LOG_DEBUG, "lua", NULL, NULL, "%s", lua_tostring(L, -1));
        lua_settop(L, 1);
    }
    return 1;
}

int lua_lathe_call(lua_State *L, int arguments, int results, struct lathe_error *err)
{
    int base = lua_gettop(L) - arguments;
    lua_pushcfunction(L, on_error);
    lua_insert(L, base);
    int status = lua_pcall(L, arguments, results, base);
    lua_remove(L, base);
    if (!status)
        return LATHE_OK;
    const char *message = lua_tostring(L, -1);
    int code = status == LUA_ERRMEM ? LATHE_ENOMEM : interrupt_wanted() ? LATHE_ECANCELLED : LATHE_EINVAL;
    lathe_fail(err, code, "%s", message ? message : "an error without a message");
    lua_pop(L, 1);
    return code;
}

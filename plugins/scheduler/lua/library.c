/* SPDX-License-Identifier: MIT */
/* What a policy finds in its state: base, math, string and table, less what sandbox.h says. */
#include "library.h"

#include <stdbool.h>
#include <string.h>

#include <lualib.h>

#include "sandbox.h"

/* Before the library's own function, in its place: string and table functions cost by the size of
 * what they are given. Tables with a metatable may claim any length, so they are refused. */
static int charged(lua_State *L)
{
    bool repeats = lua_toboolean(L, lua_upvalueindex(2));
    uint64_t size = 0;
    if (lua_type(L, 1) == LUA_TTABLE && lua_getmetatable(L, 1))
        return luaL_error(L, "a table with a metatable, where a policy must give a plain one");
    if (lua_type(L, 1) == LUA_TSTRING || lua_type(L, 1) == LUA_TTABLE)
        size = lua_rawlen(L, 1);
    lua_Integer times = repeats ? lua_tointeger(L, 2) : 0; /* of 1e10 and "1e10", too */
    if (times > 0) {
        uint64_t each = size + (lua_type(L, 3) == LUA_TSTRING ? lua_rawlen(L, 3) : 0) + 1;
        if (__builtin_mul_overflow(each, (uint64_t)times, &size))
            size = UINT64_MAX;
    }
    sandbox_charge(L, size / 8);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* setmetatable without what would run or linger where no hook looks. */
static int plain_setmetatable(lua_State *L)
{
    static const char *const refused[] = { "__gc", "__mode" };
    if (lua_type(L, 2) == LUA_TTABLE) {
        for (int i = 0; i < 2; i++) {
            lua_pushstring(L, refused[i]);
            if (lua_rawget(L, 2) != LUA_TNIL)
                return luaL_error(L, "a policy's metatable can't have %s", refused[i]);
            lua_pop(L, 1);
        }
    }
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

static int absent_name(lua_State *L)
{
    const char *of = lua_tostring(L, lua_upvalueindex(1));
    return luaL_error(L, "a policy has no %s%s%s", of, lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2),
                      *of ? "" : ": is it spelled right, and declared with \"local\" above?");
}

static int undeclared_write(lua_State *L)
{
    return luaL_error(L, "assignment to the undeclared global %s: write \"local\" in front",
                      lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2));
}

/* Reading a name that the table on top hasn't got is an error that says so. */
static void make_strict(lua_State *L, const char *prefix)
{
    lua_createtable(L, 0, 3);
    lua_pushstring(L, prefix);
    lua_pushcclosure(L, absent_name, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, undeclared_write);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

/* In the table on top. */
static void remove_names(lua_State *L, const char *const *names)
{
    for (; *names; names++) {
        lua_pushnil(L);
        lua_setfield(L, -2, *names);
    }
}

static void wrap(lua_State *L, const char *name, lua_CFunction with)
{
    lua_getfield(L, -1, name);
    lua_pushboolean(L, !strcmp(name, "rep"));
    lua_pushcclosure(L, with, 2);
    lua_setfield(L, -2, name);
}

static void open_base(lua_State *L)
{
    static const char *const removed[] = { "collectgarbage", "dofile", "load", "loadfile", "print", "warn", "xpcall", NULL };
    luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
    remove_names(L, removed);
    wrap(L, "setmetatable", plain_setmetatable);
    wrap(L, "tonumber", charged);
    lua_pop(L, 1);
}

static void open_string(lua_State *L)
{
    static const char *const removed[] = { "dump", "find", "gmatch", "gsub", "match", NULL };
    static const char *const kept[] = { "byte", "char", "format", "len", "lower", "pack", "packsize", "rep", "reverse", "sub",
                                        "unpack", "upper", NULL };
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    remove_names(L, removed);
    for (const char *const *name = kept; *name; name++)
        wrap(L, *name, charged);
    make_strict(L, "string.");
    lua_pop(L, 1);
}

static void open_table(lua_State *L)
{
    static const char *const removed[] = { "move", NULL }; /* its range is free, and C walks it */
    static const char *const kept[] = { "concat", "insert", "remove", "sort", "unpack", NULL };
    luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
    remove_names(L, removed);
    for (const char *const *name = kept; *name; name++)
        wrap(L, *name, charged);
    make_strict(L, "table.");
    lua_pop(L, 1);
}

static const char randomseed_key; /* its address names the registry slot */

static void open_math(lua_State *L)
{
    static const char *const removed[] = { "randomseed", NULL };
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
    lua_getfield(L, -1, "randomseed");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &randomseed_key);
    remove_names(L, removed);
    make_strict(L, "math.");
    lua_pop(L, 1);
}

int library_open(lua_State *L)
{
    open_base(L);
    open_string(L);
    open_table(L);
    open_math(L);
    lua_pushglobaltable(L);
    make_strict(L, "");
    return 0;
}

int library_seed(lua_State *L)
{
    uint64_t seed = *(const uint64_t *)lua_touserdata(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &randomseed_key);
    lua_pushinteger(L, (lua_Integer)seed);
    lua_call(L, 1, 0);
    return 0;
}

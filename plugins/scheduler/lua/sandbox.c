/* SPDX-License-Identifier: MIT */
/* See sandbox.h. */
#include "sandbox.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <lualib.h>

enum {
    GRAIN = 128,           /* instructions between two looks of the hook */
    BYTES_A_INSTRUCTION = 64, /* of memory that is copied or filled */
    SMALLEST_LARGEST = 64 * 1024, /* a block may be this large whatever the region */
};

static struct sandbox *sandbox_of(lua_State *L)
{
    return *(struct sandbox **)lua_getextraspace(L);
}

/* ── the budget ──────────────────────────────────────────────────────────────────── */

/* Raises without making anything: there may be no memory. */
static void raise_spent(lua_State *L)
{
    struct sandbox *s = sandbox_of(L);
    lua_Debug frame;
    for (int level = 0; !s->where[0] && lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "Sl", &frame);
        if (frame.currentline > 0)
            snprintf(s->where, sizeof s->where, "%s:%d", frame.short_src, frame.currentline);
    }
    lua_pushnil(L);
    lua_error(L);
}

static void charge(struct sandbox *s, uint64_t instructions);

static void count_hook(lua_State *L, lua_Debug *frame)
{
    struct sandbox *s = sandbox_of(L);
    (void)frame;
    if (!s->spent) {
        s->instructions += GRAIN;
        charge(s, GRAIN);
    }
    if (s->spent)
        raise_spent(L);
}

static void charge(struct sandbox *s, uint64_t instructions)
{
    s->left = instructions > (uint64_t)INT64_MAX / 2 ? -1 : s->left - (int64_t)instructions;
    if (s->left < 0 && !s->spent) {
        s->spent = 1;
        if (s->L)
            lua_sethook(s->L, count_hook, LUA_MASKCOUNT, 1);
    }
}

/* A full region makes Lua collect everything, which takes time by what is in it. */
static void *allocate(void *user, void *memory, size_t before, size_t bytes)
{
    struct sandbox *s = user;
    size_t largest = s->pool.bytes / 16 < SMALLEST_LARGEST ? SMALLEST_LARGEST : s->pool.bytes / 16;
    if (!memory)
        before = 0; /* of a new block it says the type */
    if (bytes > before) {
        charge(s, bytes / BYTES_A_INSTRUCTION);
        if (s->spent || bytes > largest)
            return NULL;
    }
    void *result = pool_resize(&s->pool, memory, before, bytes);
    if (!result && bytes)
        charge(s, s->pool.used / BYTES_A_INSTRUCTION);
    return result;
}

/* ── what a policy finds ─────────────────────────────────────────────────────────── */

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
    charge(sandbox_of(L), size / 8);
    if (sandbox_of(L)->spent)
        raise_spent(L);
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

static int open_all(lua_State *L)
{
    open_base(L);
    open_string(L);
    open_table(L);
    open_math(L);
    lua_pushglobaltable(L);
    make_strict(L, "");
    return 0;
}

static int seed_random(lua_State *L)
{
    uint64_t seed = *(const uint64_t *)lua_touserdata(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &randomseed_key);
    lua_pushinteger(L, (lua_Integer)seed);
    lua_call(L, 1, 0);
    return 0;
}

/* ── calls ───────────────────────────────────────────────────────────────────────── */

void sandbox_blame(lua_State *L, const char *format, ...)
{
    char message[256];
    lua_Debug frame;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    lua_getinfo(L, ">S", &frame);
    lua_pushfstring(L, "%s:%d: %s", frame.short_src, frame.linedefined, message);
    lua_error(L);
    __builtin_unreachable();
}

/* One line, whatever the policy wrote into its error. */
static void one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ')
            *text = ' ';
}

static int failed(const struct sandbox *s, int status, const char *what, struct lathe_error *err)
{
    const char *text = lua_type(s->L, -1) == LUA_TSTRING ? lua_tostring(s->L, -1) : NULL;
    int code = LATHE_EINVAL;
    if (s->spent)
        lathe_error_set(err, code, "scheduler lua: %s%s%s took more than the %lld instructions that a call may take; "
                        "do less in it, or raise `instructions`", s->where, s->where[0] ? ": " : "", what, (long long)s->limit);
    else if (status == LUA_ERRMEM)
        lathe_error_set(err, code = LATHE_ENOMEM, "scheduler lua: %s needs more memory than its %g MB (of which one "
                        "value may take a sixteenth); keep less, or raise `memory_mb`", what, s->memory_mb);
    else if (text)
        lathe_error_set(err, code, "scheduler lua: %s", text);
    else
        lathe_error_set(err, code, "scheduler lua: %s ended with an error that is no text but a %s", what,
                        lua_typename(s->L, lua_type(s->L, -1)));
    one_line(err->message);
    return code;
}

int sandbox_call(struct sandbox *s, lua_CFunction f, void *argument, const char *what, struct lathe_error *err)
{
    int status, top = lua_gettop(s->L);
    s->left = s->limit;
    s->where[0] = '\0';
    if (s->spent)
        lua_sethook(s->L, count_hook, LUA_MASKCOUNT, GRAIN);
    s->spent = 0;
    s->calls++;
    if (!lua_checkstack(s->L, 4))
        return lathe_fail(err, LATHE_ENOMEM, "scheduler lua: no memory to call %s", what);
    lua_pushcfunction(s->L, f);
    lua_pushlightuserdata(s->L, argument);
    status = lua_pcall(s->L, 1, 0, 0);
    status = status == LUA_OK ? LATHE_OK : failed(s, status, what, err);
    lua_settop(s->L, top);
    return status;
}

void sandbox_collect(struct sandbox *s)
{
    lua_gc(s->L, LUA_GCSTEP, 1);
}

int sandbox_seed(struct sandbox *s, uint64_t seed, struct lathe_error *err)
{
    return sandbox_call(s, seed_random, &seed, "seeding", err);
}

int sandbox_open(struct sandbox *s, const struct lathe_host *host, double memory_mb, int64_t instructions,
                 struct lathe_error *err)
{
    size_t bytes = (size_t)(memory_mb * 1048576.0);
    *s = (struct sandbox){ .host = host, .memory_mb = memory_mb, .limit = instructions, .left = instructions };
    s->memory = lathe_alloc(host, pool_needs(bytes));
    if (!s->memory)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler lua: no memory for the %g MB of `memory_mb`", memory_mb);
    pool_open(&s->pool, s->memory, bytes);
    s->L = lua_newstate(allocate, s);
    if (!s->L)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler lua: %g MB hold no Lua state; raise `memory_mb`", memory_mb);
    *(struct sandbox **)lua_getextraspace(s->L) = s;
    lua_gc(s->L, LUA_GCSTOP);
    lua_sethook(s->L, count_hook, LUA_MASKCOUNT, GRAIN);
    return sandbox_call(s, open_all, NULL, "opening the state", err);
}

void sandbox_close(struct sandbox *s)
{
    if (s->L)
        lua_close(s->L);
    lathe_free(s->host, s->memory);
}

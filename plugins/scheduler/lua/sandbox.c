/* SPDX-License-Identifier: MIT */
/* See sandbox.h. */
#include "sandbox.h"

#include <stdarg.h>

#include "library.h"

enum {
    GRAIN = 128,                  /* instructions between two looks of the hook */
    BYTES_A_INSTRUCTION = 64,     /* of memory that is copied or filled */
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
    if (s->spent)
        return;
    s->left = instructions > (uint64_t)INT64_MAX ? -1 : s->left - (int64_t)instructions;
    if (s->left < 0) {
        s->spent = 1;
        if (s->L)
            lua_sethook(s->L, count_hook, LUA_MASKCOUNT, 1);
    }
}

void sandbox_charge(lua_State *L, uint64_t instructions)
{
    struct sandbox *s = sandbox_of(L);
    charge(s, instructions);
    if (s->spent)
        raise_spent(L);
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
        s->made += bytes - before;
    }
    void *result = pool_resize(&s->pool, memory, before, bytes);
    if (!result && bytes)
        charge(s, s->pool.used / BYTES_A_INSTRUCTION);
    return result;
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

/* From Lua 5.4.5 on, a stopped collector forgets its debt each 2000 bytes: so what was made is
 * counted here. */
void sandbox_collect(struct sandbox *s)
{
    if (s->made == 0)
        return;
    lua_gc(s->L, LUA_GCSTEP, (int)(s->made / 1024) + 2);
    s->made = 0;
}

int sandbox_seed(struct sandbox *s, uint64_t seed, struct lathe_error *err)
{
    return sandbox_call(s, library_seed, &seed, "seeding", err);
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
    return sandbox_call(s, library_open, NULL, "opening the state", err);
}

void sandbox_close(struct sandbox *s)
{
    if (s->L)
        lua_close(s->L);
    lathe_free(s->host, s->memory);
}

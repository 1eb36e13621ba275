/* SPDX-License-Identifier: MIT */
/* See policy.h. */
#include "policy.h"

#include <string.h>

#include <lathe/scheduler.h>

static const char *const function_names[POLICY_FUNCTIONS] = { "key", "rank", "victim", "admit", "progress", "retire" };

static const struct {
    const char *name;
    uint32_t bit;
} promise_names[] = {
    { "work_conserving", LATHE_PROMISE_WORK_CONSERVING },
    { "no_starvation", LATHE_PROMISE_NO_STARVATION },
    { "no_preemption", LATHE_PROMISE_NO_PREEMPTION },
};
enum { PROMISES = sizeof promise_names / sizeof *promise_names };

struct loading {
    struct policy *policy;
    const char *file, *text, *options;
};

/* "1" is a number, "true" a boolean, anything else a text. */
static void push_value(lua_State *L, const char *text, size_t length)
{
    lua_pushlstring(L, text, length);
    if (lua_stringtonumber(L, lua_tostring(L, -1)) == length + 1)
        lua_remove(L, -2);
    else if (!strcmp(lua_tostring(L, -1), "true") || !strcmp(lua_tostring(L, -1), "false")) {
        lua_pushboolean(L, lua_tostring(L, -1)[0] == 't');
        lua_remove(L, -2);
    }
}

/* The global `options`. */
static void read_options(lua_State *L, const char *options)
{
    lua_pushglobaltable(L);
    lua_pushliteral(L, "options");
    lua_newtable(L);
    for (const char *at = options; *at;) {
        size_t length = strcspn(at, ",;"), name = strcspn(at, "=,;");
        if (length > 0 && (name == 0 || name == length)) {
            lua_pushlstring(L, at, length);
            luaL_error(L, "option `options`: \"%s\" is no name=value; write \"a=1,b=x\"", lua_tostring(L, -1));
        }
        if (length > 0) {
            lua_pushlstring(L, at, name);
            push_value(L, at + name + 1, length - name - 1);
            lua_rawset(L, -3);
        }
        at += length + (at[length] != '\0');
    }
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* Pushes what the file returned: it must be a table. */
static void run_chunk(lua_State *L, const struct loading *l)
{
    int status = *l->file ? luaL_loadfilex(L, l->file, "t") : luaL_loadbufferx(L, l->text, strlen(l->text), "=policy", "t");
    if (status)
        lua_error(L);
    lua_pushvalue(L, -1);
    lua_call(L, 0, 1);
    if (lua_type(L, -1) != LUA_TTABLE) {
        const char *type = luaL_typename(L, -1);
        lua_pushvalue(L, -2);
        sandbox_blame(L, "a policy returns a table { key = function(r, now) … end }, not a %s", type);
    }
    lua_remove(L, -2);
}

static bool known(const char *name)
{
    static const char *const others[] = { "name", "dynamic", "preemptive", "promises" };
    for (int i = 0; i < POLICY_FUNCTIONS; i++)
        if (!strcmp(name, function_names[i]))
            return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strcmp(name, others[i]))
            return true;
    return false;
}

/* A slip of the pen must not be a policy without a victim. */
static void check_names(lua_State *L, int table, const char *file)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        if (!name || !known(name))
            luaL_error(L, "%s: a policy has no field %s; it has name, key, rank, victim, admit, progress, retire, dynamic, "
                       "preemptive, promises", file, name ? name : luaL_typename(L, -2));
    }
}

static void read_functions(lua_State *L, int table, const char *file, struct policy *policy)
{
    for (int i = 0; i < POLICY_FUNCTIONS; i++) {
        lua_pushstring(L, function_names[i]);
        int type = lua_rawget(L, table);
        if (type == LUA_TFUNCTION && !lua_iscfunction(L, -1))
            policy->functions[i] = luaL_ref(L, LUA_REGISTRYINDEX);
        else if (type == LUA_TNIL)
            lua_pop(L, 1);
        else
            luaL_error(L, "%s: the policy's %s must be a function of its own, not a %s", file, function_names[i],
                       type == LUA_TFUNCTION ? "library's" : lua_typename(L, type));
    }
    if ((policy->functions[POLICY_KEY] == LUA_NOREF) == (policy->functions[POLICY_RANK] == LUA_NOREF))
        luaL_error(L, "%s: a policy has either a key or a rank, this one has %s", file,
                   policy->functions[POLICY_KEY] == LUA_NOREF ? "neither" : "both");
}

static void read_promises(lua_State *L, int table, const char *file, struct policy *policy)
{
    lua_pushliteral(L, "promises");
    int type = lua_rawget(L, table);
    if (type != LUA_TTABLE && type != LUA_TNIL)
        luaL_error(L, "%s: the policy's promises must be a table of names, not a %s", file, lua_typename(L, type));
    for (lua_Unsigned n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0, i = 1; i <= n; i++) {
        int p = 0;
        const char *name = lua_rawgeti(L, -1, (lua_Integer)i) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
        while (p < PROMISES && strcmp(name, promise_names[p].name))
            p++;
        if (p == PROMISES)
            luaL_error(L, "%s: there is no promise %s; they are work_conserving, no_starvation, no_preemption", file, name);
        policy->promises |= promise_names[p].bit;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_settings(lua_State *L, int table, const char *file, struct policy *policy)
{
    lua_pushliteral(L, "name");
    int type = lua_rawget(L, table);
    if (type != LUA_TSTRING && type != LUA_TNIL)
        luaL_error(L, "%s: the policy's name must be a text, not a %s", file, lua_typename(L, type));
    snprintf(policy->name, sizeof policy->name, "%s", type == LUA_TSTRING ? lua_tostring(L, -1) : "policy");
    for (char *c = policy->name; *c; c++)
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    lua_pushliteral(L, "preemptive");
    type = lua_rawget(L, table);
    if (type != LUA_TBOOLEAN && type != LUA_TNIL)
        luaL_error(L, "%s: the policy's preemptive must be true or false, not a %s", file, lua_typename(L, type));
    policy->preemptive = lua_toboolean(L, -1);
    lua_pushliteral(L, "dynamic");
    type = lua_rawget(L, table);
    if (type == LUA_TSTRING && !strcmp(lua_tostring(L, -1), "step"))
        policy->dynamic = DYNAMIC_STEP;
    else if (type == LUA_TBOOLEAN || type == LUA_TNIL)
        policy->dynamic = lua_toboolean(L, -1) ? DYNAMIC_PROGRESS : DYNAMIC_NEVER;
    else
        luaL_error(L, "%s: the policy's dynamic must be true, false or \"step\"", file);
    lua_pop(L, 3);
}

static int load_body(lua_State *L)
{
    struct loading *l = lua_touserdata(L, 1);
    const char *file = *l->file ? l->file : "policy";
    read_options(L, l->options);
    run_chunk(L, l);
    int table = lua_gettop(L);
    check_names(L, table, file);
    read_functions(L, table, file, l->policy);
    read_promises(L, table, file, l->policy);
    read_settings(L, table, file, l->policy);
    return 0;
}

int policy_load(struct policy *policy, struct sandbox *sandbox, const char *file, const char *text, const char *options,
                struct lathe_error *err)
{
    struct loading l = { .policy = policy, .file = file, .text = text, .options = options };
    *policy = (struct policy){ .dynamic = DYNAMIC_NEVER };
    for (int i = 0; i < POLICY_FUNCTIONS; i++)
        policy->functions[i] = LUA_NOREF;
    return sandbox_call(sandbox, load_body, &l, "loading the policy", err);
}

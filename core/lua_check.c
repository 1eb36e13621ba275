/* SPDX-License-Identifier: MIT */
/* Arguments from Lua: which fields, of which type, in which range; and errors that point
 * at the script's line. See lua_internal.h.
 *
 * luaL_error names the function that called; but lathe.run is called through a few lines
 * of the Lua library, and a line there tells the reader nothing. So frames whose source
 * lies in the library's folder, and C frames, are passed over. */
#include "lua_internal.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

static void push_where(lua_State *L)
{
    const char *library = lua_lathe_of(L)->library;
    size_t length = strlen(library);
    lua_Debug frame;
    for (int level = 0; lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "Sl", &frame);
        if (frame.currentline <= 0 || (frame.source[0] == '@' && !strncmp(frame.source + 1, library, length)))
            continue;
        lua_pushfstring(L, "%s:%d: ", frame.short_src, frame.currentline);
        return;
    }
    lua_pushliteral(L, "");
}

void lua_fail(lua_State *L, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    push_where(L);
    lua_pushstring(L, message);
    lua_concat(L, 2);
    lua_error(L);
    __builtin_unreachable();
}

void lua_fail_error(lua_State *L, const char *what, const struct lathe_error *err)
{
    lua_fail(L, "%s: %s", what, err->message);
}

const char *lua_describe(lua_State *L, int index, char *text, size_t capacity)
{
    switch (lua_type(L, index)) {
    case LUA_TNONE:
    case LUA_TNIL: snprintf(text, capacity, "nothing"); break;
    case LUA_TSTRING: snprintf(text, capacity, "the text \"%.60s\"", lua_tostring(L, index)); break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            snprintf(text, capacity, "%lld", (long long)lua_tointeger(L, index));
        else
            snprintf(text, capacity, "%.14g", lua_tonumber(L, index));
        break;
    case LUA_TBOOLEAN: snprintf(text, capacity, "%s", lua_toboolean(L, index) ? "true" : "false"); break;
    case LUA_TUSERDATA:
        if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) {
            snprintf(text, capacity, "a %s", lua_tostring(L, -1));
            lua_pop(L, 1);
            break;
        }
        /* fall through */
    default: snprintf(text, capacity, "a %s", luaL_typename(L, index));
    }
    return text;
}

void lua_check_fields(lua_State *L, int table, const char *what, const char *const *names, lua_Integer positional)
{
    size_t count = 0;
    while (names[count])
        count++;
    table = lua_absindex(L, table);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_isinteger(L, -2)) {
            lua_Integer i = lua_tointeger(L, -2);
            if (i >= 1 && i <= positional)
                continue;
            lua_fail(L, "%s: there is no element %lld", what, (long long)i);
        }
        char text[128];
        if (lua_type(L, -2) != LUA_TSTRING)
            lua_fail(L, "%s: a field's name can't be %s", what, lua_describe(L, -2, text, sizeof text));
        const char *name = lua_tostring(L, -2);
        size_t i = 0;
        while (i < count && strcmp(names[i], name))
            i++;
        if (i < count)
            continue;
        const char *near = nearest_name(name, names, count);
        if (near)
            lua_fail(L, "%s: there is no field \"%s\", did you mean \"%s\"?", what, name, near);
        luaL_Buffer buffer;
        luaL_buffinit(L, &buffer);
        for (i = 0; i < count; i++) {
            luaL_addstring(&buffer, i ? ", " : "");
            luaL_addstring(&buffer, names[i]);
        }
        luaL_pushresult(&buffer);
        lua_fail(L, "%s: there is no field \"%s\": it has %s", what, name, lua_tostring(L, -1));
    }
}

/* Pushes the field; false (and nothing pushed) if it is nil. */
static bool push_field(lua_State *L, int table, const char *name)
{
    if (lua_getfield(L, table, name) != LUA_TNIL)
        return true;
    lua_pop(L, 1);
    return false;
}

const char *lua_field_string(lua_State *L, int table, const char *what, const char *name, const char *absent)
{
    char text[128];
    if (!push_field(L, table, name))
        return absent;
    if (lua_type(L, -1) != LUA_TSTRING)
        lua_fail(L, "%s: \"%s\" should be a text, not %s", what, name, lua_describe(L, -1, text, sizeof text));
    const char *string = lua_tostring(L, -1);
    lua_pop(L, 1);
    return string;
}

lua_Integer lua_field_integer(lua_State *L, int table, const char *what, const char *name, lua_Integer min,
                              lua_Integer max, lua_Integer absent)
{
    char text[128];
    int whole;
    if (!push_field(L, table, name))
        return absent;
    lua_Integer value = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : (whole = 0);
    if (!whole)
        lua_fail(L, "%s: \"%s\" should be a whole number, not %s", what, name, lua_describe(L, -1, text, sizeof text));
    if (value < min || value > max)
        lua_fail(L, "%s: \"%s\" is %lld, but should be %lld to %lld", what, name, (long long)value, (long long)min,
                 (long long)max);
    lua_pop(L, 1);
    return value;
}

double lua_field_number(lua_State *L, int table, const char *what, const char *name, double min, double max,
                        double absent)
{
    char text[128];
    if (!push_field(L, table, name))
        return absent;
    if (lua_type(L, -1) != LUA_TNUMBER)
        lua_fail(L, "%s: \"%s\" should be a number, not %s", what, name, lua_describe(L, -1, text, sizeof text));
    double value = lua_tonumber(L, -1);
    if (!(value >= min && value <= max)) /* NaN is in no range */
        lua_fail(L, "%s: \"%s\" is %.14g, but should be %.14g to %.14g", what, name, value, min, max);
    lua_pop(L, 1);
    return value;
}

bool lua_field_boolean(lua_State *L, int table, const char *what, const char *name, bool absent)
{
    char text[128];
    if (!push_field(L, table, name))
        return absent;
    if (!lua_isboolean(L, -1))
        lua_fail(L, "%s: \"%s\" should be true or false, not %s", what, name, lua_describe(L, -1, text, sizeof text));
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

int64_t lua_field_seconds(lua_State *L, int table, const char *what, const char *name, double absent)
{
    return llround(lua_field_number(L, table, what, name, 0, 9.2e9, absent) * 1e9);
}

uint32_t lua_field_weight(lua_State *L, int table, const char *what)
{
    return (uint32_t)llround(lua_field_number(L, table, what, "weight", 0.001, 1e6, 0) * 1e3);
}

/* ── stages ────────────────────────────────────────────────────────────────────────── */

static void set_option(lua_State *L, const char *what, int kind, struct stage *stage, const char *option)
{
    char text[64];
    const char *value = text;
    struct lathe_error err;
    switch (lua_type(L, -1)) {
    case LUA_TSTRING: value = lua_tostring(L, -1); break;
    case LUA_TBOOLEAN: value = lua_toboolean(L, -1) ? "true" : "false"; break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(L, -1));
        else
            snprintf(text, sizeof text, "%.17g", lua_tonumber(L, -1));
        break;
    default:
        lua_fail(L, "%s: option \"%s\" should be a text, a number or true or false, not %s", what, option,
                 lua_describe(L, -1, text, sizeof text));
    }
    stage->kind = kind;
    if (stage_set(stage, option, value, &err))
        lua_fail_error(L, what, &err);
}

void lua_check_stage(lua_State *L, int index, const char *what, int kind, struct stage *stage)
{
    struct lathe_error err;
    char text[128];
    index = lua_absindex(L, index);
    if (lua_isnil(L, index))
        return;
    if (lua_type(L, index) == LUA_TSTRING) {
        if (stage_choose(stage, kind, lua_tostring(L, index), &err))
            lua_fail_error(L, what, &err);
        return;
    }
    if (!lua_istable(L, index))
        lua_fail(L, "%s: should be a plugin's name or { \"name\", option = value }, not %s", what,
                 lua_describe(L, index, text, sizeof text));
    lua_rawgeti(L, index, 1);
    if (lua_type(L, -1) == LUA_TSTRING) {
        if (stage_choose(stage, kind, lua_tostring(L, -1), &err))
            lua_fail_error(L, what, &err);
    } else if (!lua_isnil(L, -1) || !stage_default(kind)) {
        lua_fail(L, "%s: the table should open with the plugin's name, { \"name\", option = value }, not %s", what,
                 lua_describe(L, -1, text, sizeof text));
    }
    lua_pop(L, 1);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1)
            continue;
        if (lua_type(L, -2) != LUA_TSTRING)
            lua_fail(L, "%s: an option's name can't be %s", what, lua_describe(L, -2, text, sizeof text));
        set_option(L, what, kind, stage, lua_tostring(L, -2));
    }
}

/* ── classes ───────────────────────────────────────────────────────────────────────── */

static int class_tostring(lua_State *L)
{
    luaL_getmetafield(L, 1, "__name");
    lua_pushfstring(L, "%s: %p", lua_tostring(L, -1), lua_topointer(L, 1));
    return 1;
}

void lua_set_integer(lua_State *L, const char *name, int64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

void lua_set_number(lua_State *L, const char *name, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

void lua_set_boolean(lua_State *L, const char *name, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

void lua_set_text(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

void lua_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction collect)
{
    luaL_newmetatable(L, name); /* sets __name */
    lua_pushcfunction(L, collect);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, collect);
    lua_setfield(L, -2, "__close");
    lua_pushcfunction(L, class_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_newtable(L);
    if (methods)
        luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

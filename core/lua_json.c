/* SPDX-License-Identifier: MIT */
/* Lua values to JSON and back: for messages of a chat, a run's configuration and factors.
 *
 * A table with keys 1 … n and no others is an array, the empty table an object; other
 * tables need text keys. Keys are written sorted, so that equal values give equal text.
 * Integers stay integers. `null` is read as lathe.json.null, a light userdata. */
#include "lua_internal.h"

#include <stdlib.h>

#include <jansson.h>

enum { MAX_DEPTH = 64 };

static json_t *to_json(lua_State *L, int index, int depth, const char **why);

/* 0: not an array; n: keys are exactly 1 … n. */
static lua_Integer array_length(lua_State *L, int table)
{
    lua_Integer count = 0, length = (lua_Integer)lua_rawlen(L, table);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 || lua_tointeger(L, -2) > length) {
            lua_pop(L, 2);
            return 0;
        }
        count++;
    }
    return count == length ? length : 0;
}

static json_t *array_to_json(lua_State *L, int table, lua_Integer length, int depth, const char **why)
{
    json_t *array = json_array();
    for (lua_Integer i = 1; array && i <= length; i++) {
        lua_rawgeti(L, table, i);
        json_t *value = to_json(L, -1, depth + 1, why);
        lua_pop(L, 1);
        if (!value || json_array_append_new(array, value)) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *object_to_json(lua_State *L, int table, int depth, const char **why)
{
    json_t *object = json_object();
    for (lua_pushnil(L); object && lua_next(L, table); lua_pop(L, 1)) {
        json_t *value = NULL;
        if (lua_type(L, -2) == LUA_TSTRING)
            value = to_json(L, -1, depth + 1, why);
        else
            *why = "a table's keys must be texts, or 1 … n";
        if (!value || json_object_set_new(object, lua_tostring(L, -2), value)) {
            if (!*why)
                *why = "a key is not valid UTF-8";
            lua_pop(L, 2);
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static json_t *to_json(lua_State *L, int index, int depth, const char **why)
{
    json_t *value = NULL;
    size_t bytes;
    const char *text;
    index = lua_absindex(L, index);
    switch (lua_type(L, index)) {
    case LUA_TNIL: return json_null();
    case LUA_TLIGHTUSERDATA: return json_null();
    case LUA_TBOOLEAN: return json_boolean(lua_toboolean(L, index));
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            return json_integer(lua_tointeger(L, index));
        value = json_real(lua_tonumber(L, index));
        *why = value ? NULL : "JSON has no infinity and no NaN";
        return value;
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &bytes);
        value = json_stringn(text, bytes);
        *why = value ? NULL : "a text is not valid UTF-8";
        return value;
    case LUA_TTABLE:
        if (depth >= MAX_DEPTH || !lua_checkstack(L, 8)) {
            *why = "it is nested too deeply, or contains itself";
            return NULL;
        }
        lua_Integer length = array_length(L, index);
        return length ? array_to_json(L, index, length, depth, why) : object_to_json(L, index, depth, why);
    default: *why = "JSON has only texts, numbers, booleans and tables of them"; return NULL;
    }
}

char *lua_json_text(lua_State *L, int index)
{
    const char *why = NULL;
    json_t *value = to_json(L, index, 0, &why);
    char *text = value ? json_dumps(value, JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    json_decref(value);
    return text;
}

void lua_json_push(lua_State *L, int index, const char *what)
{
    const char *why = NULL;
    json_t *value = to_json(L, index, 0, &why);
    char *text = value ? json_dumps(value, JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    json_decref(value);
    if (!text)
        lua_fail(L, "%s: can't be written as JSON: %s", what, why ? why : "no memory left");
    /* The only call that may throw while `text` is ours. Running out of memory here ends the
     * script anyway. */
    lua_pushstring(L, text);
    free(text);
}

int lua_json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_json_push(L, 1, "lathe.json.encode");
    return 1;
}

static void push_json(lua_State *L, const json_t *value)
{
    luaL_checkstack(L, 8, "JSON nested too deeply");
    switch (json_typeof(value)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *member;
        lua_newtable(L);
        json_object_foreach((json_t *)value, key, member) {
            push_json(L, member);
            lua_setfield(L, -2, key);
        }
        break;
    }
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(value), 0);
        for (size_t i = 0; i < json_array_size(value); i++) {
            push_json(L, json_array_get(value, i));
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(value), json_string_length(value)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    default: lua_pushlightuserdata(L, NULL);
    }
}

static int push_json_protected(lua_State *L)
{
    push_json(L, lua_touserdata(L, 1));
    return 1;
}

int lua_json_decode(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    json_error_t error;
    json_t *value = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value)
        lua_fail(L, "lathe.json.decode: line %d, column %d: %s", error.line, error.column, error.text);
    lua_pushcfunction(L, push_json_protected); /* so that an error can't leak the tree */
    lua_pushlightuserdata(L, value);
    int status = lua_pcall(L, 1, 1, 0);
    json_decref(value);
    return status ? lua_error(L) : 1;
}

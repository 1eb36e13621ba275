/* SPDX-License-Identifier: MIT */
/* `interventions = …` of lathe.run: what is changed in the forward (<lathe/intervention.h>).
 *
 *     interventions = { { "head_scale", layers = { 5 }, heads = { 3 }, factor = 0 },        a head removed
 *                       { "keys_drop", keys = { 0, 1 }, positions = { 64 } },               from position 64 on
 *                       { "patch", layers = { 5 }, values = r:activations { probe = 1, request = 2 }, requests = { 1 } } }
 *
 * Layers and heads absent: all. A patch has the width of a hidden state for each of its positions, or is what
 * r:activations gave, which knows its own positions. */
#include "lua_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"

enum { HEADS = 1, FACTOR = 2, VALUES = 4, KEYS = 8 };
enum { CONFIG_VALUES = 4096 }; /* more of them are stood for by their sum */

/* enum lathe_intervention_kind, less one */
static const char *const kinds[] = { "head_scale", "head_set", "head_uniform", "keys_drop", "keys_keep", "attention_scale",
                                     "mlp_scale", "patch", NULL };
static const int takes[] = { HEADS | FACTOR, HEADS | VALUES, HEADS, HEADS | KEYS, HEADS | KEYS, FACTOR, FACTOR, VALUES };

static uint32_t kind_of(lua_State *L, int table, const char *what)
{
    char text[128];
    lua_rawgeti(L, table, 1);
    if (lua_type(L, -1) != LUA_TSTRING)
        lua_fail(L, "%s: should open with its kind, { \"head_scale\", … }, not %s", what, lua_describe(L, -1, text, sizeof text));
    const char *name = lua_tostring(L, -1);
    size_t count = 0;
    for (; kinds[count]; count++)
        if (!strcmp(kinds[count], name)) {
            lua_pop(L, 1);
            return (uint32_t)count + 1;
        }
    const char *near = nearest_name(name, kinds, count);
    lua_fail(L, "%s: there is no \"%s\"%s%s%s", what, name, near ? ", did you mean \"" : ": see <lathe/intervention.h>",
             near ? near : "", near ? "\"?" : "");
}

static void check_fields(lua_State *L, int table, const char *what, int taken)
{
    const char *names[8] = { "layers", "positions", "requests" };
    size_t count = 3;
    if (taken & HEADS)
        names[count++] = "heads";
    if (taken & FACTOR)
        names[count++] = "factor";
    if (taken & VALUES)
        names[count++] = "values";
    if (taken & KEYS)
        names[count++] = "keys";
    names[count] = NULL;
    lua_check_fields(L, table, what, names, 1);
}

/* A field that must be there, pushed. */
static void push_needed(lua_State *L, int table, const char *what, const char *name, const char *shape)
{
    char text[128];
    lua_getfield(L, table, name);
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: \"%s\" should be %s, not %s", what, name, shape, lua_describe(L, -1, text, sizeof text));
}

static void *grown(lua_State *L, void *memory, size_t count, const char *what)
{
    void *more = realloc(memory, (count ? count : 1) * 4);
    if (!more)
        lua_fail(L, "%s: no memory left for %zu numbers", what, count);
    return more;
}

/* A patch by r:activations says where it belongs, unless the script did. */
static void place_patch(lua_State *L, int values, const char *what, bool given, struct lathe_intervention *v)
{
    int whole;
    if (given && v->last_position < 0)
        lua_fail(L, "%s: \"positions\" of a patch should be { first, last }: it doesn't go on to the end", what);
    if (given)
        return;
    lua_getfield(L, values, "first");
    lua_getfield(L, values, "count");
    lua_Integer first = lua_tointegerx(L, -2, &whole), count = lua_tointeger(L, -1);
    if (!whole || first < 0 || count < 1 || first + count > INT32_MAX)
        lua_fail(L, "%s: a patch should say its positions, { first, last }", what);
    v->first_position = (int32_t)first;
    v->last_position = (int32_t)(first + count - 1);
    lua_pop(L, 2);
}

static void read_values(lua_State *L, int table, const char *what, bool given, struct run_job *job, struct lathe_intervention *v)
{
    const struct lathe_model_info *info = &job->model->info;
    char text[128];
    push_needed(L, table, what, "values", "an array of numbers");
    int values = lua_gettop(L);
    uint64_t wanted = info->head_width, count = (uint64_t)luaL_len(L, values);
    if (v->kind == LATHE_PATCH) {
        place_patch(L, values, what, given, v);
        wanted = ((uint64_t)(v->last_position - v->first_position) + 1) * info->embedding_width;
    }
    if (count != wanted)
        lua_fail(L, "%s: \"values\" should be %llu numbers (%u %s), but are %llu", what, (unsigned long long)wanted,
                 v->kind == LATHE_PATCH ? info->embedding_width : info->head_width,
                 v->kind == LATHE_PATCH ? "a position" : "an element of the head each", (unsigned long long)count);
    if (job->intervention_float_count + count > INT32_MAX)
        lua_fail(L, "%s: all interventions together have more than %d values", what, INT32_MAX);
    job->intervention_floats = grown(L, job->intervention_floats, job->intervention_float_count + count, what);
    v->float_first = job->intervention_float_count;
    v->float_count = (uint32_t)count;
    for (uint64_t i = 0; i < count; i++) {
        if (lua_rawgeti(L, values, (lua_Integer)i + 1) != LUA_TNUMBER || !isfinite((float)lua_tonumber(L, -1)))
            lua_fail(L, "%s: element %llu of \"values\" should be a number that float32 holds, not %s", what,
                     (unsigned long long)i + 1, lua_describe(L, -1, text, sizeof text));
        job->intervention_floats[job->intervention_float_count++] = (float)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void read_keys(lua_State *L, int table, const char *what, struct run_job *job, struct lathe_intervention *v)
{
    char text[128];
    push_needed(L, table, what, "keys", "an array of positions from 0");
    int array = lua_gettop(L);
    size_t count = (size_t)luaL_len(L, array), kept = 0;
    if (count > 1 << 20)
        lua_fail(L, "%s: %zu keys are more than %d", what, count, 1 << 20);
    job->intervention_keys = grown(L, job->intervention_keys, job->intervention_key_count + count, what);
    int32_t *keys = job->intervention_keys + job->intervention_key_count;
    for (size_t i = 0; i < count; i++) {
        int whole;
        lua_rawgeti(L, array, (lua_Integer)i + 1);
        lua_Integer key = lua_tointegerx(L, -1, &whole);
        if (!whole || key < 0 || key > INT32_MAX)
            lua_fail(L, "%s: element %zu of \"keys\" should be a position from 0, not %s", what, i + 1,
                     lua_describe(L, -1, text, sizeof text));
        keys[i] = (int32_t)key;
        lua_pop(L, 1);
    }
    qsort(keys, count, sizeof *keys, ascending);
    for (size_t i = 0; i < count; i++) /* each once */
        if (kept == 0 || keys[i] != keys[kept - 1])
            keys[kept++] = keys[i];
    v->key_first = job->intervention_key_count;
    v->key_count = (uint32_t)kept;
    job->intervention_key_count += (uint32_t)kept;
    lua_pop(L, 1);
}

static void read_intervention(lua_State *L, int table, const char *what, struct run_job *job)
{
    const struct lathe_model_info *info = &job->model->info;
    const uint64_t bit = UINT64_C(1) << job->intervention_count;
    struct lathe_intervention *v = &job->interventions[job->intervention_count++];
    char inner[128];
    *v = (struct lathe_intervention){ .kind = kind_of(L, table, what) };
    const int taken = takes[v->kind - 1];
    snprintf(inner, sizeof inner, "%s (%s)", what, kinds[v->kind - 1]);
    if (!(info->interventions >> v->kind & 1))
        lua_fail(L, "%s: model \"%s\" doesn't offer it", inner, job->model->model->entry->name);
    check_fields(L, table, inner, taken);
    lua_read_mask(L, table, inner, "layers", info->layers, v->layers);
    if (taken & HEADS)
        lua_read_mask(L, table, inner, "heads", info->heads, v->heads);
    bool given = lua_read_positions(L, table, inner, &v->first_position, &v->last_position);
    if (taken & FACTOR) {
        if (lua_getfield(L, table, "factor") == LUA_TNIL)
            lua_fail(L, "%s: should say its factor; 0 removes what it scales", inner);
        lua_pop(L, 1);
        v->factor = (float)lua_field_number(L, table, inner, "factor", -1e30, 1e30, 0);
    }
    if (taken & VALUES)
        read_values(L, table, inner, given, job, v);
    if (taken & KEYS)
        read_keys(L, table, inner, job, v);
    const bool *named = lua_read_requests(L, table, inner, job);
    for (size_t i = 0; named && i < job->count; i++)
        if (!named[i])
            job->requests[i].submit.interventions &= ~bit;
}

void lua_check_interventions(lua_State *L, int index, struct run_job *job)
{
    char what[64], text[128];
    const int top = lua_gettop(L);
    snprintf(what, sizeof what, "%s: interventions", job->who);
    job->intervention_count = 0;
    if (lua_istable(L, index)) {
        lua_Integer count = luaL_len(L, index);
        lua_check_fields(L, index, what, (const char *const[]){ NULL }, count);
        if (count > LATHE_MAX_INTERVENTIONS)
            lua_fail(L, "%s: %lld are more than %d", what, (long long)count, LATHE_MAX_INTERVENTIONS);
        for (lua_Integer i = 1; i <= count; i++) {
            char inner[96];
            snprintf(inner, sizeof inner, "%s: intervention %lld", job->who, (long long)i);
            lua_rawgeti(L, index, i);
            if (!lua_istable(L, -1))
                lua_fail(L, "%s: should be { \"head_scale\", … }, not %s", inner, lua_describe(L, -1, text, sizeof text));
            read_intervention(L, lua_gettop(L), inner, job);
            lua_settop(L, top);
        }
    } else if (!lua_isnil(L, index)) {
        lua_fail(L, "%s: should be an array { { \"head_scale\", … }, … }, not %s", what, lua_describe(L, index, text, sizeof text));
    }
    for (size_t i = 0; i < job->count; i++)
        job->requests[i].submit.interventions &= lua_all_interventions(job);
    lua_settop(L, top);
}

/* ── for the configuration ─────────────────────────────────────────────────────────── */

/* The numbers of the array on top of the stack, in its place: as plain numbers, or their sum. */
static void plain_values(lua_State *L)
{
    int values = lua_gettop(L);
    size_t count = (size_t)luaL_len(L, values);
    if (count <= CONFIG_VALUES) {
        lua_createtable(L, (int)count, 0);
        for (size_t i = 1; i <= count; i++) {
            lua_rawgeti(L, values, (lua_Integer)i);
            lua_rawseti(L, -2, (lua_Integer)i);
        }
    } else {
        char hex[65];
        struct sha256 sha;
        sha256_begin(&sha);
        for (size_t i = 1; i <= count; i++) {
            lua_rawgeti(L, values, (lua_Integer)i);
            float value = (float)lua_tonumber(L, -1);
            sha256_add(&sha, &value, sizeof value);
            lua_pop(L, 1);
        }
        sha256_end(&sha, hex);
        lua_createtable(L, 0, 2);
        lua_set_text(L, "sha256", hex);
        lua_set_integer(L, "count", (int64_t)count);
    }
    lua_replace(L, values);
}

/* Positions that the values of a patch say themselves, as a field of the table `to`. */
static void plain_positions(lua_State *L, int values, int to)
{
    bool placed = lua_getfield(L, values, "first") == LUA_TNUMBER;
    placed &= lua_getfield(L, values, "count") == LUA_TNUMBER;
    if (placed) {
        lua_Integer first = lua_tointeger(L, -2), count = lua_tointeger(L, -1);
        lua_createtable(L, 2, 0);
        lua_pushinteger(L, first);
        lua_rawseti(L, -2, 1);
        lua_pushinteger(L, first + count - 1);
        lua_rawseti(L, -2, 2);
        lua_setfield(L, to, "positions");
    }
    lua_pop(L, 2);
}

void lua_push_interventions(lua_State *L, int index)
{
    static const char *const names[] = { "layers", "heads", "factor", "requests", "keys" };
    lua_Integer count = luaL_len(L, index);
    lua_createtable(L, (int)count, 0);
    const int list = lua_gettop(L), from = list + 1, to = list + 2;
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, index, i);
        lua_newtable(L);
        lua_rawgeti(L, from, 1);
        lua_setfield(L, to, "kind");
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            lua_getfield(L, from, names[k]);
            lua_setfield(L, to, names[k]);
        }
        if (lua_getfield(L, from, "values") == LUA_TTABLE) {
            plain_positions(L, to + 1, to);
            plain_values(L);
            lua_setfield(L, to, "values");
        } else {
            lua_pop(L, 1);
        }
        if (lua_getfield(L, from, "positions") != LUA_TNIL)
            lua_setfield(L, to, "positions");
        lua_settop(L, to);
        lua_rawseti(L, list, i);
        lua_settop(L, list);
    }
}

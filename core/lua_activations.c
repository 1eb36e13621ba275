/* SPDX-License-Identifier: MIT */
/* Figures of what the model computed, back from a run's rows:
 *
 *     r:perplexity()    exp(Σ nll / Σ n) of the answers that were given (`forced`); r:perplexity(2): of request 2
 *     r:activations { probe = 1, request = 2, layer = 5 } → { first = 10, count = 3, width = 576, every = 1, … }
 *     r:write_npy("x.npy", { probe = 1, request = 2 })   (count, layers, width) float32; of one layer (count, width)
 *
 * Of a probe of format hidden a row is the residual stream after the layer; of format norms it is what
 * struct lathe_layer_norms has and then the probed heads' norms. `probe` is its number in trace.probes, and may be
 * left out where there is only one of layers. */
#include "lua_handle.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* ── perplexity ────────────────────────────────────────────────────────────────────── */

/* From the database; a run that recorded nothing has its tokens' log-probabilities in memory. */
static void likelihood(lua_State *L, struct lua_handle *handle, const char *what, lua_Integer number, double *nll, int64_t *n)
{
    static const char sql[] = "select ifnull(sum(value), 0), ifnull(sum(n), 0) from score"
                              " where run_id = ?1 and name = 'nll' and (?2 is null or request_id = ?2)";
    sqlite3_stmt *statement = NULL;
    int64_t request = number ? lua_handle_request(L, handle, what, number) : 0;
    *nll = 0;
    *n = 0;
    if (!handle->recorded) {
        for (size_t i = 0; i < handle->count; i++) {
            const struct planned_request *r = &handle->requests[i];
            if (!r->submit.forced_tokens || !r->logprobs || (number && (size_t)number != i + 1))
                continue;
            for (uint32_t k = 0; k < r->output_count; k++)
                *nll -= (double)r->logprobs[k];
            *n += r->output_count;
        }
        return;
    }
    lua_handle_connect(L, handle, what);
    int rc = sqlite3_prepare_v2(handle->connection, sql, -1, &statement, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_int64(statement, 1, handle->run);
        if (number)
            sqlite3_bind_int64(statement, 2, request);
        rc = sqlite3_step(statement);
    }
    if (rc == SQLITE_ROW) {
        *nll = sqlite3_column_double(statement, 0);
        *n = sqlite3_column_int64(statement, 1);
    }
    sqlite3_finalize(statement);
    if (rc != SQLITE_ROW)
        lua_fail(L, "%s: %s", what, sqlite3_errmsg(handle->connection));
}

int lua_handle_perplexity(lua_State *L)
{
    struct lua_handle *handle = lua_check_handle(L, "perplexity");
    double nll;
    int64_t n;
    lua_Integer number = 0;
    if (!lua_isnoneornil(L, 2)) {
        char text[128];
        int whole;
        number = lua_tointegerx(L, 2, &whole);
        if (!whole || number < 1)
            lua_fail(L, "perplexity: takes a request's number, 1 or above, not %s", lua_describe(L, 2, text, sizeof text));
    }
    likelihood(L, handle, "perplexity", number, &nll, &n);
    if (n == 0)
        lua_fail(L, "perplexity: %s no answer that was given: say forced = { ids } in its request",
                 number ? "the request has" : "the run has");
    lua_pushnumber(L, exp(nll / (double)n));
    return 1;
}

/* ── what a probe of layers recorded ───────────────────────────────────────────────── */

struct asked {
    const char *what;
    struct lua_handle *handle;
    lua_Integer probe, layer; /* layer −1: all */
    int64_t request;
    /* Of the probe. */
    bool norms;
    uint32_t layers, at, width, every; /* layers of a record; the asked one's place; floats a layer */
};

static int field_count(const char *json)
{
    json_t *array = json ? json_loads(json, 0, NULL) : NULL;
    int count = (int)json_array_size(array);
    json_decref(array);
    return count;
}

static int place_in(const char *json, lua_Integer number)
{
    json_t *array = json ? json_loads(json, 0, NULL) : NULL, *one;
    size_t i;
    int place = -1;
    json_array_foreach(array, i, one)
        if (json_integer_value(one) == number)
            place = (int)i;
    json_decref(array);
    return place;
}

static sqlite3_stmt *prepared(lua_State *L, const struct asked *a, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(a->handle->connection, sql, -1, &statement, NULL) != SQLITE_OK)
        lua_fail(L, "%s: %s", a->what, sqlite3_errmsg(a->handle->connection));
    sqlite3_bind_int64(statement, 1, a->handle->run);
    return statement;
}

/* Its row: format, width, and where the asked layer stands. Texts are copied out before an error is raised. */
static void find_probe(lua_State *L, struct asked *a)
{
    char why[256] = "";
    sqlite3_stmt *statement = prepared(L, a, "select id, format, layers, heads, width, every_n_positions, count(*) over ()"
                                             " from layer_probe where run_id = ?1 and (?2 = 0 or id = ?2) order by id");
    sqlite3_bind_int64(statement, 2, a->probe);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_DONE && a->probe)
        snprintf(why, sizeof why, "probe %lld is no probe of layers of this run", (long long)a->probe);
    else if (rc == SQLITE_DONE)
        snprintf(why, sizeof why, "the run has no probe of layers: say trace = { probes = { { format = \"hidden\" } } }");
    else if (rc != SQLITE_ROW)
        snprintf(why, sizeof why, "%.200s", sqlite3_errmsg(a->handle->connection));
    else if (!a->probe && sqlite3_column_int(statement, 6) > 1)
        snprintf(why, sizeof why, "the run has %d probes of layers: say which, probe = %d", sqlite3_column_int(statement, 6),
                 sqlite3_column_int(statement, 0));
    if (!why[0]) {
        const char *format = (const char *)sqlite3_column_text(statement, 1);
        const char *layers = (const char *)sqlite3_column_text(statement, 2);
        a->probe = sqlite3_column_int64(statement, 0);
        a->norms = !strcmp(format, "norms");
        a->layers = (uint32_t)field_count(layers);
        a->width = a->norms ? 4 + (uint32_t)field_count((const char *)sqlite3_column_text(statement, 3))
                            : (uint32_t)sqlite3_column_int64(statement, 4);
        a->every = (uint32_t)sqlite3_column_int64(statement, 5);
        int place = a->layer >= 0 ? place_in(layers, a->layer) : 0;
        a->at = place > 0 ? (uint32_t)place : 0;
        if (!strcmp(format, "lens"))
            snprintf(why, sizeof why, "probe %lld is of format lens, which has tokens: ask the table layer_lens",
                     (long long)a->probe);
        else if (place < 0)
            snprintf(why, sizeof why, "probe %lld has the layers %.120s, not %lld", (long long)a->probe, layers,
                     (long long)a->layer);
    }
    sqlite3_finalize(statement);
    if (why[0])
        lua_fail(L, "%s: %s", a->what, why);
}

static void read_asked(lua_State *L, int index, struct asked *a)
{
    static const char *const fields[] = { "probe", "request", "layer", NULL };
    char text[128];
    if (!lua_istable(L, index))
        lua_fail(L, "%s: takes { probe = n, request = n, layer = n }, not %s", a->what, lua_describe(L, index, text, sizeof text));
    lua_check_fields(L, index, a->what, fields, 0);
    a->probe = lua_field_integer(L, index, a->what, "probe", 1, LATHE_MAX_PROBES, 0);
    a->layer = lua_field_integer(L, index, a->what, "layer", 0, LATHE_PROBE_MAX_LAYERS - 1, -1);
    lua_Integer number = lua_field_integer(L, index, a->what, "request", 1, INT64_MAX, 0);
    if (!number)
        lua_fail(L, "%s: should say which request, { request = 1 }", a->what);
    a->request = lua_handle_request(L, a->handle, a->what, number);
    lua_handle_connect(L, a->handle, a->what);
    find_probe(L, a);
}

/* Bytes of one record, and the part of it that was asked for. */
static size_t record_floats(const struct asked *a)
{
    return (size_t)a->layers * a->width;
}

static size_t wanted_floats(const struct asked *a)
{
    return a->layer >= 0 ? a->width : record_floats(a);
}

/* Whole rows, in memory that is pushed as userdata: an error on the way leaks nothing. */
static float *read_rows(lua_State *L, const struct asked *a, int64_t *first, size_t *count)
{
    char why[256] = "";
    int rc;
    *first = 0;
    *count = 0;
    sqlite3_stmt *statement = prepared(L, a, "select count(*) from layer_token where run_id = ?1 and request_id = ?2 and probe_id = ?3");
    sqlite3_bind_int64(statement, 2, a->request);
    sqlite3_bind_int64(statement, 3, a->probe);
    size_t rows = sqlite3_step(statement) == SQLITE_ROW ? (size_t)sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    if (rows == 0)
        lua_fail(L, "%s: probe %lld recorded nothing of that request", a->what, (long long)a->probe);
    float *values = lua_newuserdatauv(L, rows * wanted_floats(a) * sizeof *values, 0);
    statement = prepared(L, a, "select position, data from layer_token where run_id = ?1 and request_id = ?2 and probe_id = ?3"
                               " order by position");
    sqlite3_bind_int64(statement, 2, a->request);
    sqlite3_bind_int64(statement, 3, a->probe);
    while (!why[0] && (rc = sqlite3_step(statement)) == SQLITE_ROW && *count < rows) {
        int64_t position = sqlite3_column_int64(statement, 0);
        *first = *count ? *first : position;
        if ((size_t)sqlite3_column_bytes(statement, 1) != record_floats(a) * sizeof *values)
            snprintf(why, sizeof why, "the row of position %lld is not as long as its probe makes it", (long long)position);
        else if (position != *first + (int64_t)*count * a->every)
            snprintf(why, sizeof why, "the row of position %lld is missing (dropped, or the run was cut short)",
                     (long long)(*first + (int64_t)*count * a->every));
        else
            memcpy(values + *count * wanted_floats(a),
                   (const float *)sqlite3_column_blob(statement, 1) + (a->layer >= 0 ? (size_t)a->at * a->width : 0),
                   wanted_floats(a) * sizeof *values);
        ++*count;
    }
    sqlite3_finalize(statement);
    if (why[0])
        lua_fail(L, "%s: %s", a->what, why);
    return values;
}

int lua_handle_activations(lua_State *L)
{
    struct asked a = { .what = "activations", .handle = lua_check_handle(L, "activations") };
    int64_t first;
    size_t count;
    lua_settop(L, 2);
    read_asked(L, 2, &a);
    if (a.layer < 0 && a.layers > 1)
        lua_fail(L, "activations: probe %lld has %u layers: say which, layer = n", (long long)a.probe, a.layers);
    a.layer = a.layer < 0 ? 0 : a.layer;
    const float *values = read_rows(L, &a, &first, &count);
    size_t numbers = count * a.width;
    lua_createtable(L, numbers < INT32_MAX ? (int)numbers : 0, 4);
    for (size_t i = 0; i < numbers; i++) {
        lua_pushnumber(L, (double)values[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_set_integer(L, "first", first);
    lua_set_integer(L, "count", (int64_t)count);
    lua_set_integer(L, "width", a.width);
    lua_set_integer(L, "every", a.every);
    return 1;
}

/* The .npy format, version 1.0: a magic, the header's length, the header as a Python literal padded to 64 bytes,
 * the numbers in C order, little-endian. */
static bool write_npy(FILE *file, const char *shape, const float *values, size_t count)
{
    char header[128];
    int length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    uint8_t opening[10] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0 };
    while ((10 + length + 1) % 64)
        header[length++] = ' ';
    header[length++] = '\n';
    opening[8] = (uint8_t)length;
    return fwrite(opening, 1, sizeof opening, file) == sizeof opening &&
           fwrite(header, 1, (size_t)length, file) == (size_t)length && fwrite(values, sizeof *values, count, file) == count;
}

int lua_handle_write_npy(lua_State *L)
{
    struct asked a = { .what = "write_npy", .handle = lua_check_handle(L, "write_npy") };
    char text[128], shape[80];
    int64_t first;
    size_t count;
    lua_settop(L, 3);
    if (lua_type(L, 2) != LUA_TSTRING)
        lua_fail(L, "write_npy: takes a path and { probe = n, request = n, layer = n }, not %s", lua_describe(L, 2, text, sizeof text));
    const char *path = lua_tostring(L, 2);
    read_asked(L, 3, &a);
    const float *values = read_rows(L, &a, &first, &count);
    if (a.layer >= 0)
        snprintf(shape, sizeof shape, "(%zu, %u)", count, a.width);
    else
        snprintf(shape, sizeof shape, "(%zu, %u, %u)", count, a.layers, a.width);
    FILE *file = fopen(path, "wb");
    bool written = file && write_npy(file, shape, values, count * wanted_floats(&a));
    int why = errno;
    if (file && fclose(file) != 0 && written)
        written = false, why = errno;
    if (!written)
        lua_fail(L, "write_npy: can't write %s: %s", path, strerror(why));
    lua_pushinteger(L, (lua_Integer)first);
    return 1;
}

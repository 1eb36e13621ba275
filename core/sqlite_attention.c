/* SPDX-License-Identifier: MIT */
/* The packed rows of attention_token, read like tables: `attention` has a row a head,
 * `attention_weights` a row a key. Nothing needs creating; both are there by name.
 *
 * A scan is an SQL query on attention_token and probe, and a walk through each blob:
 *
 *     constraint on          goes to
 *     run_id, request_id =   the query (index attention_token_at)
 *     position = < ≤ > ≥     the query
 *     layer, head =          the walk, which steps over the rest of the blob
 *
 * SQLite checks every constraint again, so the walk may let too much through, never too little.
 *
 * The blobs' layout is in schemas/001_tables.sql. A blob whose length is not what its probe
 * makes it is an error that names the row: nothing beyond its end is ever read. */
#include "sqlite_extension.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/attention.h>

#ifdef LATHE_SQLITE_LOADABLE
SQLITE_EXTENSION_INIT3
#endif

enum { BY_HEAD = 0, BY_KEY = 1 };

/* Columns; the first five are the same in both. */
enum { RUN_ID, REQUEST_ID, POSITION, LAYER, HEAD, SHARED_COLUMNS };
enum { ENTROPY = SHARED_COLUMNS, FIRST_MASS, RECENT_MASS, SELF_MASS, TOP_KEY, TOP_WEIGHT, HEAD_STEP_ID, HEAD_PROBE_ID, HEAD_KEYS };
enum { KEY = SHARED_COLUMNS, WEIGHT, KEY_STEP_ID, KEY_PROBE_ID, KEY_KEYS };

/* Constraints that are pushed down, in the order of the query's parameters. */
enum { EQ_RUN, EQ_REQUEST, EQ_POSITION, GT_POSITION, GE_POSITION, LT_POSITION, LE_POSITION, EQ_LAYER, EQ_HEAD, PUSHED };

struct table {
    sqlite3_vtab base;
    sqlite3 *db;
    int kind;
};

struct cursor {
    sqlite3_vtab_cursor base;
    sqlite3_stmt *rows;
    int64_t only_layer, only_head; /* −1: any */
    /* The blob at hand. */
    const uint8_t *data;
    int64_t run, request, position, step, probe_id;
    uint32_t keys;
    struct lathe_probe probe;
    int64_t probe_run; /* whose row `probe` is; the id is in it */
    int probe_known;
    uint16_t layers[LATHE_PROBE_MAX_LAYERS], heads[LATHE_PROBE_MAX_HEADS];
    uint32_t layer_count, head_count;
    uint32_t layer, head, key; /* where the walk is */
    /* attention: figures of the head at hand, computed once. */
    int figures_known;
    double entropy, first_mass, recent_mass, self_mass, top_weight;
    int64_t top_key;
    int64_t rowid;
    int done;
};

/* Half precision: shifted into a float's place, its exponent is 112 short. */
static float half(const uint8_t *p)
{
    uint16_t h;
    float value;
    memcpy(&h, p, sizeof h);
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    if (value >= 65536) /* infinity, or no number */
        value = h & 1023 ? NAN : INFINITY;
    return h & 0x8000 ? -value : value;
}

static int problem(struct cursor *c, const char *what)
{
    sqlite3_free(c->base.pVtab->zErrMsg);
    c->base.pVtab->zErrMsg = sqlite3_mprintf("attention_token of run %lld, request %lld, position %lld: %s",
                                             (long long)c->run, (long long)c->request, (long long)c->position, what);
    return SQLITE_ERROR;
}

/* "[0,3,4]" to a mask and a list; numbers must be below 256. 0 or −1. */
static int parse_numbers(const char *text, uint64_t mask[4], uint16_t *list, uint32_t *count)
{
    memset(mask, 0, 4 * sizeof *mask);
    *count = 0;
    if (!text || *text++ != '[')
        return -1;
    while (*text && *text != ']') {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (end == text || n > 255)
            return -1;
        mask[n / 64] |= (uint64_t)1 << (n % 64);
        text = end;
        while (*text == ',' || *text == ' ')
            text++;
    }
    for (uint32_t i = 0; i < 256; i++)
        if (mask[i / 64] >> (i % 64) & 1)
            list[(*count)++] = (uint16_t)i;
    return *text == ']' ? 0 : -1;
}

static size_t head_bytes(const struct cursor *c)
{
    return lathe_attention_head_bytes(&c->probe, c->keys);
}

static const uint8_t *head_data(const struct cursor *c)
{
    return c->data + ((size_t)c->layer * c->head_count + c->head) * head_bytes(c);
}

/* ---- the walk ------------------------------------------------------------------------- */

/* From here on: is (layer, head, key) a row? Moves to the next that is, or says 0. */
static int settle(struct cursor *c, int kind)
{
    for (; c->layer < c->layer_count; c->layer++, c->head = 0, c->key = 0) {
        if (c->only_layer >= 0 && c->layers[c->layer] != c->only_layer)
            continue;
        for (; c->head < c->head_count; c->head++, c->key = 0) {
            if (c->only_head >= 0 && c->heads[c->head] != c->only_head)
                continue;
            if (kind == BY_HEAD) {
                if (c->key == 0)
                    return 1;
                continue;
            }
            if (c->probe.format == LATHE_PROBE_FULL && c->key < c->keys)
                return 1;
            if (c->probe.format == LATHE_PROBE_TOP && c->key < c->probe.top_k) {
                uint32_t key;
                memcpy(&key, head_data(c) + (size_t)c->key * 8, sizeof key);
                if (key != UINT32_MAX)
                    return 1; /* unused ones come last */
            }
        }
    }
    return 0;
}

/* Reads the probe that the row at hand names, unless it is the last one again. */
static int read_probe(struct cursor *c)
{
    sqlite3_stmt *s = c->rows;
    if (c->probe_known && c->probe_run == c->run && c->probe.id == (uint32_t)c->probe_id)
        return SQLITE_OK;
    const char *format = (const char *)sqlite3_column_text(s, 7);
    int64_t top_k = sqlite3_column_int64(s, 10);
    c->probe_known = 0;
    memset(&c->probe, 0, sizeof c->probe);
    if (!format)
        return problem(c, "its probe is missing");
    c->probe.format = !strcmp(format, "summary") ? LATHE_PROBE_SUMMARY
                      : !strcmp(format, "top")   ? LATHE_PROBE_TOP
                      : !strcmp(format, "full")  ? LATHE_PROBE_FULL
                                                 : 0;
    if (!c->probe.format || (c->probe.format == LATHE_PROBE_TOP && (top_k < 1 || top_k > 1 << 20)) ||
        parse_numbers((const char *)sqlite3_column_text(s, 8), c->probe.layers, c->layers, &c->layer_count) ||
        parse_numbers((const char *)sqlite3_column_text(s, 9), c->probe.heads, c->heads, &c->head_count))
        return problem(c, "its probe's row makes no sense");
    c->probe.id = (uint32_t)c->probe_id;
    c->probe.top_k = (uint32_t)top_k;
    int64_t window = sqlite3_column_int64(s, 11);
    c->probe.recent_window = window < 0 ? 0 : window > UINT32_MAX ? UINT32_MAX : (uint32_t)window;
    c->probe_run = c->run;
    c->probe_known = 1;
    return SQLITE_OK;
}

/* Goes to the next row of attention_token, until one has something for the walk. */
static int next_blob(struct cursor *c)
{
    int kind = ((struct table *)c->base.pVtab)->kind;
    for (;;) {
        sqlite3_stmt *s = c->rows;
        int rc = sqlite3_step(s);
        if (rc == SQLITE_DONE) {
            c->done = 1;
            return SQLITE_OK;
        }
        if (rc != SQLITE_ROW)
            return rc;
        c->run = sqlite3_column_int64(s, 0);
        c->request = sqlite3_column_int64(s, 1);
        c->position = sqlite3_column_int64(s, 2);
        c->step = sqlite3_column_int64(s, 3);
        c->probe_id = sqlite3_column_int64(s, 4);
        int64_t keys = sqlite3_column_int64(s, 5);
        if (keys < 0 || keys > INT32_MAX)
            return problem(c, "its number of keys is out of range");
        c->keys = (uint32_t)keys;
        rc = read_probe(c);
        if (rc != SQLITE_OK)
            return rc;
        /* At most 2^16 heads of 2^33 bytes: no wrap in 64 bits. */
        uint64_t expected = (uint64_t)c->layer_count * c->head_count * head_bytes(c);
        c->data = sqlite3_column_blob(s, 6);
        if ((uint64_t)sqlite3_column_bytes(s, 6) != expected)
            return problem(c, "its data is not as long as its probe makes it; the row is damaged");
        c->layer = c->head = c->key = 0;
        c->figures_known = 0;
        if (expected > 0 && settle(c, kind))
            return SQLITE_OK;
    }
}

static void figures_of_full(struct cursor *c, const uint8_t *p)
{
    uint32_t recent_from = c->probe.recent_window && c->probe.recent_window < c->keys ? c->keys - c->probe.recent_window : 0;
    double entropy = 0, recent = 0, top = -1;
    for (uint32_t k = 0; k < c->keys; k++) {
        double w = half(p + (size_t)k * 2);
        if (w > 0)
            entropy -= w * log(w);
        if (k >= recent_from)
            recent += w;
        if (w > top) {
            top = w;
            c->top_key = k;
        }
    }
    if (c->keys == 0)
        return;
    c->entropy = entropy;
    c->first_mass = half(p);
    c->recent_mass = c->probe.recent_window ? recent : NAN;
    /* Key numbers are positions only as long as none was dropped. */
    c->self_mass = (int64_t)c->keys == c->position + 1 ? half(p + (size_t)(c->keys - 1) * 2) : NAN;
    c->top_weight = top;
}

/* NaN means: this format doesn't say. */
static void find_figures(struct cursor *c)
{
    const uint8_t *p = head_data(c);
    c->entropy = c->first_mass = c->recent_mass = c->self_mass = c->top_weight = NAN;
    c->top_key = -1;
    c->figures_known = 1;
    if (c->probe.format == LATHE_PROBE_SUMMARY) {
        float entropy;
        uint32_t key;
        memcpy(&entropy, p, 4);
        memcpy(&key, p + 12, 4);
        c->entropy = entropy;
        c->first_mass = half(p + 4);
        c->recent_mass = half(p + 6);
        c->self_mass = half(p + 8);
        c->top_weight = half(p + 10);
        c->top_key = key;
    } else if (c->probe.format == LATHE_PROBE_TOP) {
        uint32_t key;
        float weight;
        memcpy(&key, p, 4);
        memcpy(&weight, p + 4, 4);
        if (key != UINT32_MAX) {
            c->top_key = key;
            c->top_weight = weight;
        }
    } else {
        figures_of_full(c, p);
    }
}

/* ---- the module's methods ------------------------------------------------------------- */

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
    static const char *const schemas[] = {
        "CREATE TABLE x (run_id INTEGER, request_id INTEGER, position INTEGER, layer INTEGER, head INTEGER,"
        " entropy REAL, first_mass REAL, recent_mass REAL, self_mass REAL, top_key INTEGER, top_weight REAL,"
        " step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN, keys INTEGER HIDDEN)",
        "CREATE TABLE x (run_id INTEGER, request_id INTEGER, position INTEGER, layer INTEGER, head INTEGER,"
        " key INTEGER, weight REAL, step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN, keys INTEGER HIDDEN)",
    };
    (void)argc, (void)argv, (void)error;
    int kind = aux ? BY_KEY : BY_HEAD;
    int rc = sqlite3_declare_vtab(db, schemas[kind]);
    if (rc != SQLITE_OK)
        return rc;
    struct table *t = sqlite3_malloc(sizeof *t);
    if (!t)
        return SQLITE_NOMEM;
    memset(t, 0, sizeof *t);
    t->db = db;
    t->kind = kind;
    *out = &t->base;
    return sqlite3_vtab_config(db, SQLITE_VTAB_INNOCUOUS); /* it only reads: views may use it */
}

static int table_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

static int which_constraint(const struct sqlite3_index_constraint *c)
{
    switch (c->iColumn) {
    case RUN_ID: return c->op == SQLITE_INDEX_CONSTRAINT_EQ ? EQ_RUN : -1;
    case REQUEST_ID: return c->op == SQLITE_INDEX_CONSTRAINT_EQ ? EQ_REQUEST : -1;
    case LAYER: return c->op == SQLITE_INDEX_CONSTRAINT_EQ ? EQ_LAYER : -1;
    case HEAD: return c->op == SQLITE_INDEX_CONSTRAINT_EQ ? EQ_HEAD : -1;
    case POSITION:
        switch (c->op) {
        case SQLITE_INDEX_CONSTRAINT_EQ: return EQ_POSITION;
        case SQLITE_INDEX_CONSTRAINT_GT: return GT_POSITION;
        case SQLITE_INDEX_CONSTRAINT_GE: return GE_POSITION;
        case SQLITE_INDEX_CONSTRAINT_LT: return LT_POSITION;
        case SQLITE_INDEX_CONSTRAINT_LE: return LE_POSITION;
        }
    }
    return -1;
}

/* idxNum: a bit for each constraint that is handed to filter, whose values come in that order. */
static int table_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    static const double narrows[PUSHED] = { 4, 50, 200, 2, 2, 2, 2, 20, 9 };
    int of[PUSHED], arguments = 0, pushed = 0;
    double rows = ((struct table *)table)->kind == BY_KEY ? 1e8 : 1e7;
    double blobs = 1e5;
    memset(of, -1, sizeof of);
    for (int i = 0; i < info->nConstraint; i++) {
        int which = info->aConstraint[i].usable ? which_constraint(&info->aConstraint[i]) : -1;
        if (which >= 0 && of[which] < 0)
            of[which] = i;
    }
    for (int which = 0; which < PUSHED; which++)
        if (of[which] >= 0) {
            pushed |= 1 << which;
            info->aConstraintUsage[of[which]].argvIndex = ++arguments;
            rows /= narrows[which];
            if (which < EQ_LAYER)
                blobs /= narrows[which];
        }
    info->idxNum = pushed;
    info->estimatedRows = rows < 1 ? 1 : (sqlite3_int64)rows;
    info->estimatedCost = rows + 20 * blobs;
    return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *table, sqlite3_vtab_cursor **out)
{
    (void)table;
    struct cursor *c = sqlite3_malloc(sizeof *c);
    if (!c)
        return SQLITE_NOMEM;
    memset(c, 0, sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *cursor)
{
    struct cursor *c = (struct cursor *)cursor;
    sqlite3_finalize(c->rows);
    sqlite3_free(c);
    return SQLITE_OK;
}

/* A layer or head to look for; what is no such number is left for SQLite to judge. */
static int64_t only(sqlite3_value *value)
{
    if (sqlite3_value_numeric_type(value) != SQLITE_INTEGER || sqlite3_value_int64(value) < 0)
        return -1;
    return sqlite3_value_int64(value);
}

static int cursor_filter(sqlite3_vtab_cursor *cursor, int pushed, const char *name, int argc, sqlite3_value **argv)
{
    static const char *const terms[EQ_LAYER] = {
        " AND a.run_id = ?1",   " AND a.request_id = ?2", " AND a.position = ?3", " AND a.position > ?4",
        " AND a.position >= ?5", " AND a.position < ?6",   " AND a.position <= ?7",
    };
    struct cursor *c = (struct cursor *)cursor;
    struct table *t = (struct table *)cursor->pVtab;
    int argument = 0;
    (void)name;
    sqlite3_finalize(c->rows);
    c->rows = NULL;
    c->only_layer = c->only_head = -1;
    c->probe_known = c->done = 0;
    c->rowid = 0;

    char sql[640] = "SELECT a.run_id, a.request_id, a.position, a.step_id, a.probe_id, a.keys, a.data,"
                    " p.format, p.layers, p.heads, p.top_k, p.recent_window"
                    " FROM main.attention_token a LEFT JOIN main.probe p ON p.run_id = a.run_id AND p.id = a.probe_id"
                    " WHERE 1";
    for (int which = 0; which < EQ_LAYER; which++)
        if (pushed >> which & 1)
            strcat(sql, terms[which]);
    int rc = sqlite3_prepare_v2(t->db, sql, -1, &c->rows, NULL);
    if (rc != SQLITE_OK) {
        sqlite3_free(t->base.zErrMsg);
        t->base.zErrMsg = sqlite3_mprintf("not a database of lathe's: %s", sqlite3_errmsg(t->db));
        return rc;
    }
    for (int which = 0; which < PUSHED && argument < argc; which++)
        if (pushed >> which & 1) {
            sqlite3_value *value = argv[argument++];
            if (which == EQ_LAYER)
                c->only_layer = only(value);
            else if (which == EQ_HEAD)
                c->only_head = only(value);
            else
                sqlite3_bind_value(c->rows, which + 1, value);
        }
    return next_blob(c);
}

static int cursor_next(sqlite3_vtab_cursor *cursor)
{
    struct cursor *c = (struct cursor *)cursor;
    c->key++;
    c->rowid++;
    c->figures_known = 0;
    return settle(c, ((struct table *)cursor->pVtab)->kind) ? SQLITE_OK : next_blob(c);
}

static int cursor_eof(sqlite3_vtab_cursor *cursor)
{
    return ((struct cursor *)cursor)->done;
}

static void result_real(sqlite3_context *context, double value)
{
    if (!isnan(value))
        sqlite3_result_double(context, value);
}

static void head_column(struct cursor *c, sqlite3_context *context, int column)
{
    if (!c->figures_known)
        find_figures(c);
    switch (column) {
    case ENTROPY: result_real(context, c->entropy); break;
    case FIRST_MASS: result_real(context, c->first_mass); break;
    case RECENT_MASS: result_real(context, c->recent_mass); break;
    case SELF_MASS: result_real(context, c->self_mass); break;
    case TOP_WEIGHT: result_real(context, c->top_weight); break;
    case TOP_KEY:
        if (c->top_key >= 0)
            sqlite3_result_int64(context, c->top_key);
        break;
    }
}

static void key_column(struct cursor *c, sqlite3_context *context, int column)
{
    const uint8_t *p = head_data(c);
    if (c->probe.format == LATHE_PROBE_FULL) {
        if (column == KEY)
            sqlite3_result_int64(context, c->key);
        else
            result_real(context, half(p + (size_t)c->key * 2));
        return;
    }
    uint32_t key;
    float weight;
    memcpy(&key, p + (size_t)c->key * 8, 4);
    memcpy(&weight, p + (size_t)c->key * 8 + 4, 4);
    if (column == KEY)
        sqlite3_result_int64(context, key);
    else
        result_real(context, weight);
}

static int cursor_column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column)
{
    struct cursor *c = (struct cursor *)cursor;
    int kind = ((struct table *)cursor->pVtab)->kind;
    int hidden = column - (kind == BY_KEY ? KEY_STEP_ID : HEAD_STEP_ID);
    switch (column) {
    case RUN_ID: sqlite3_result_int64(context, c->run); break;
    case REQUEST_ID: sqlite3_result_int64(context, c->request); break;
    case POSITION: sqlite3_result_int64(context, c->position); break;
    case LAYER: sqlite3_result_int64(context, c->layers[c->layer]); break;
    case HEAD: sqlite3_result_int64(context, c->heads[c->head]); break;
    default:
        if (hidden >= 0)
            sqlite3_result_int64(context, hidden == 0 ? c->step : hidden == 1 ? c->probe_id : c->keys);
        else if (kind == BY_HEAD)
            head_column(c, context, column);
        else
            key_column(c, context, column);
    }
    return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *rowid)
{
    *rowid = ((struct cursor *)cursor)->rowid;
    return SQLITE_OK;
}

/* xCreate is NULL: eponymous only, there without CREATE VIRTUAL TABLE. */
static const sqlite3_module module = {
    .iVersion = 0,
    .xConnect = table_connect,
    .xBestIndex = table_best_index,
    .xDisconnect = table_disconnect,
    .xOpen = cursor_open,
    .xClose = cursor_close,
    .xFilter = cursor_filter,
    .xNext = cursor_next,
    .xEof = cursor_eof,
    .xColumn = cursor_column,
    .xRowid = cursor_rowid,
};

int sqlite_attention_init(sqlite3 *db)
{
    static char by_key;
    int rc = sqlite3_create_module(db, "attention", &module, NULL);
    return rc == SQLITE_OK ? sqlite3_create_module(db, "attention_weights", &module, &by_key) : rc;
}

/* SPDX-License-Identifier: MIT */
/* The module behind all tables of packed rows: see sqlite_packed.h. Nothing needs creating; all are
 * there by name. */
#include "sqlite_packed.h"

#include <string.h>

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
    const struct packed_kind *kind = aux;
    (void)argc, (void)argv, (void)error;
    char *sql = sqlite3_mprintf("CREATE TABLE x (run_id INTEGER, request_id INTEGER, position INTEGER, layer INTEGER, %s)",
                                kind->columns);
    int rc = sql ? sqlite3_declare_vtab(db, sql) : SQLITE_NOMEM;
    sqlite3_free(sql);
    if (rc != SQLITE_OK)
        return rc;
    struct packed_table *t = sqlite3_malloc(sizeof *t);
    if (!t)
        return SQLITE_NOMEM;
    memset(t, 0, sizeof *t);
    t->db = db;
    t->kind = kind;
    *out = &t->base;
    return sqlite3_vtab_config(db, SQLITE_VTAB_INNOCUOUS); /* it only reads: views may use it */
}

/* SQLite disconnects before it looks whether statements are left open. */
static int table_disconnect(sqlite3_vtab *table)
{
    struct packed_table *t = (struct packed_table *)table;
    for (int i = 0; i < PACKED_STATEMENTS; i++)
        sqlite3_finalize(t->statements[i].rows);
    sqlite3_finalize(t->probe);
    sqlite3_free(t);
    return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *table, sqlite3_vtab_cursor **out)
{
    struct packed_cursor *c = sqlite3_malloc(sizeof *c);
    if (!c)
        return SQLITE_NOMEM;
    memset(c, 0, sizeof *c);
    c->kind = ((struct packed_table *)table)->kind;
    *out = &c->base;
    return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *cursor)
{
    struct packed_cursor *c = (struct packed_cursor *)cursor;
    packed_give(c);
    for (int i = 0; i < PACKED_PROBES; i++)
        sqlite3_free(c->probes[i]);
    sqlite3_free(c);
    return SQLITE_OK;
}

/* Is the row that is wanted the one at hand? argv opens with run, request, probe, position. */
static int at_hand(const struct packed_cursor *c, int query, sqlite3_value **argv)
{
    if (!c->at_row || query != PACKED_ALONE || c->pushed != PACKED_ALONE)
        return 0;
    const int64_t here[] = { c->run, c->request, c->probe->id, c->position };
    for (int i = 0; i < 4; i++)
        if (sqlite3_value_type(argv[i]) != SQLITE_INTEGER || sqlite3_value_int64(argv[i]) != here[i])
            return 0;
    return 1;
}

static int cursor_filter(sqlite3_vtab_cursor *cursor, int pushed, const char *name, int argc, sqlite3_value **argv)
{
    struct packed_cursor *c = (struct packed_cursor *)cursor;
    int argument = 0, query = pushed & ((1 << PACKED_SQL) - 1), again = at_hand(c, query, argv);
    (void)name;
    c->done = 0;
    c->items_chosen = 0;
    c->measure = MEASURE_NONE;
    memset(c->among, 0xff, sizeof c->among);
    for (int axis = 0; axis < PACKED_AXES; axis++)
        c->range[axis] = (struct packed_range){ INT64_MIN, INT64_MAX };
    int rc = again ? SQLITE_OK : packed_take(c, query);
    if (rc != SQLITE_OK)
        return rc;
    for (int slot = 0; slot < PACKED_SLOTS && argument < argc; slot++)
        if (pushed >> slot & 1) {
            if (slot < PACKED_SQL && !again)
                sqlite3_bind_value(c->rows, slot + 1, argv[argument]);
            else if (slot >= PACKED_SQL)
                packed_narrow(c, slot, argv[argument]);
            argument++;
        }
    return again ? packed_again(c) : packed_next_blob(c);
}

static int cursor_next(sqlite3_vtab_cursor *cursor)
{
    return packed_next((struct packed_cursor *)cursor);
}

static int cursor_eof(sqlite3_vtab_cursor *cursor)
{
    return ((struct packed_cursor *)cursor)->done;
}

static int cursor_column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column)
{
    static const char *const measures[] = { NULL, "weight", "score", "value" };
    struct packed_cursor *c = (struct packed_cursor *)cursor;
    const struct packed_kind *kind = c->kind;
    switch (column) {
    case PACKED_RUN: sqlite3_result_int64(context, c->run); break;
    case PACKED_REQUEST: sqlite3_result_int64(context, c->request); break;
    case PACKED_POSITION: sqlite3_result_int64(context, c->position); break;
    case PACKED_LAYER: sqlite3_result_int(context, c->probe->layers[c->layer]); break;
    default:
        if (column == kind->head_column)
            sqlite3_result_int(context, c->probe->heads[c->head]);
        else if (column == kind->step_column)
            sqlite3_result_int64(context, c->step);
        else if (column == kind->probe_column)
            sqlite3_result_int64(context, c->probe->id);
        else if (column == kind->keys_column)
            sqlite3_result_int64(context, c->keys);
        else if (column == kind->measure_column)
            sqlite3_result_text(context, measures[c->probe->measure], -1, SQLITE_STATIC);
        else
            kind->value(c, context, column);
    }
    return SQLITE_OK;
}

/* The same whatever the scan, and no other row's: SQLite tells by it what two scans of an OR both found. */
static int cursor_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *rowid)
{
    struct packed_cursor *c = (struct packed_cursor *)cursor;
    uint64_t heads = c->kind->heads ? c->probe->head_count : 1, part = c->layer * heads + c->head;
    *rowid = (sqlite3_int64)((uint64_t)sqlite3_column_int64(c->rows, 7) << 32 | (uint32_t)(part * c->kind->items(c) + c->item));
    return SQLITE_OK;
}

/* xCreate is NULL: eponymous only, there without CREATE VIRTUAL TABLE. */
static const sqlite3_module module = {
    .iVersion = 0,
    .xConnect = table_connect,
    .xBestIndex = packed_best_index,
    .xDisconnect = table_disconnect,
    .xOpen = cursor_open,
    .xClose = cursor_close,
    .xFilter = cursor_filter,
    .xNext = cursor_next,
    .xEof = cursor_eof,
    .xColumn = cursor_column,
    .xRowid = cursor_rowid,
};

int sqlite_packed_init(sqlite3 *db)
{
    static const struct packed_kind *const kinds[] = {
        &packed_attention, &packed_weights, &packed_norms, &packed_head_norms, &packed_lens, &packed_hidden,
    };
    int rc = SQLITE_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && rc == SQLITE_OK; i++)
        rc = sqlite3_create_module(db, kinds[i]->name, &module, (void *)(uintptr_t)kinds[i]);
    return rc;
}

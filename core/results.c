/* SPDX-License-Identifier: MIT */
#include "results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recorder_schema.h"
#include "sql.h"

/* sql_open is lenient, for people who look; whoever copies rows must have them all, and know them. */
static int check_whole(sqlite3 *db, const char *path, bool told, struct lathe_error *err)
{
    int state, version, status = schema_inspect(db, path, &state, &version, err);
    if (status)
        return status;
    switch (state) {
    case SCHEMA_FOREIGN: return lathe_fail(err, LATHE_EFORMAT, "%s wasn't made by lathe; name a results database", path);
    case SCHEMA_EMPTY: return lathe_fail(err, LATHE_EFORMAT, "%s has no tables: no run was recorded in it", path);
    case SCHEMA_NEWER:
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%s was made by a newer lathe (schema %d, this one knows %d); use that one",
                          path, version, schema_file_count);
    default:
        if (told) /* the one thing that is left to tell */
            return lathe_fail(err, LATHE_EIO, "%s: its newest rows, in %s-wal, can't be read in a folder that can't be "
                                              "written; copy both files elsewhere first", path, path);
        return LATHE_OK;
    }
}

int results_open(const char *path, sqlite3 **db, struct lathe_error *err)
{
    char *told = NULL;
    size_t count = 0;
    FILE *warnings = open_memstream(&told, &count);
    if (!warnings)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory to open it", path);
    int status = sql_open(path, warnings, db, err);
    fclose(warnings);
    free(told);
    if (status)
        return status;
    if ((status = check_whole(*db, path, count > 0, err))) {
        sqlite3_close(*db);
        *db = NULL;
    }
    return status;
}

const struct table_column *table_find(const struct table *table, const char *column)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (strcmp(table->columns[i].name, column) == 0)
            return &table->columns[i];
    return NULL;
}

static int read_columns(sqlite3 *db, const char *path, struct table *table, struct lathe_error *err)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, "SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_bind_text(statement, 1, table->name, -1, SQLITE_STATIC);
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW && table->column_count < TABLE_MAX_COLUMNS) {
        struct table_column *column = &table->columns[table->column_count++];
        snprintf(column->name, sizeof column->name, "%s", (const char *)sqlite3_column_text(statement, 0));
        column->blob = strcmp((const char *)sqlite3_column_text(statement, 1), "BLOB") == 0;
        column->key = sqlite3_column_int(statement, 2);
        table->key_count += column->key > 0;
        code = SQLITE_OK;
    }
    int status = code == SQLITE_DONE ? LATHE_OK
        : code == SQLITE_ROW ? lathe_fail(err, LATHE_EUNSUPPORTED, "%s: table %s has more than %d columns", path, table->name,
                                          TABLE_MAX_COLUMNS)
                             : schema_fail(db, path, "reading its tables", err);
    sqlite3_finalize(statement);
    return status;
}

int results_tables(sqlite3 *db, const char *path, struct table **tables, size_t *count, struct lathe_error *err)
{
    sqlite3_stmt *statement = NULL;
    int status = LATHE_OK, code = sqlite3_prepare_v2(db, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT GLOB '*[^A-Za-z0-9_]*' AND length(name) < 64 ORDER BY name",
        -1, &statement, NULL);
    *tables = NULL;
    *count = 0;
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW && !status) {
        struct table *more = realloc(*tables, (*count + 1) * sizeof *more);
        if (!more) {
            status = lathe_fail(err, LATHE_ENOMEM, "%s: no memory to list its tables", path);
            break;
        }
        *tables = more;
        struct table *table = &more[(*count)++];
        memset(table, 0, sizeof *table);
        snprintf(table->name, sizeof table->name, "%s", (const char *)sqlite3_column_text(statement, 0));
        status = read_columns(db, path, table, err);
        code = SQLITE_OK;
    }
    if (!status && code != SQLITE_DONE)
        status = schema_fail(db, path, "reading its tables", err);
    sqlite3_finalize(statement);
    if (status) {
        free(*tables);
        *tables = NULL;
        *count = 0;
    }
    return status;
}

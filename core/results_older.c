/* SPDX-License-Identifier: MIT */
/* A database of an older lathe lacks tables and columns that later ones added. Whoever reads it sees them all the same: a
 * table that isn't there as an empty one, a column with the value that adding it would have given, by temporary tables
 * and views of this connection, which stand before the file's own by name. Nothing is written to the file. What there
 * should be is found by making an empty database of today's schema in memory. */
#include "results.h"

#include <stdlib.h>
#include <string.h>

#include "recorder_schema.h"
#include "text.h"

/* One table, as it should be, beside the same as it is: the SQL that makes the difference good. */
static int add_difference(sqlite3 *today, const struct table *wanted, const struct table *found, struct text *sql)
{
    sqlite3_stmt *row = NULL;
    int code = sqlite3_prepare_v2(today, "SELECT name, ifnull(dflt_value, 'NULL') FROM pragma_table_info(?1) ORDER BY cid", -1, &row, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_bind_text(row, 1, wanted->name, -1, SQLITE_STATIC);
    bool any = false;
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        if ((code = sqlite3_step(row)) != SQLITE_ROW)
            break;
        const char *name = (const char *)sqlite3_column_text(row, 0), *value = (const char *)sqlite3_column_text(row, 1);
        if (found && table_find(found, name))
            continue;
        if (!any && found)
            text_print(sql, "CREATE TEMP VIEW \"%s\" AS SELECT *", wanted->name);
        else if (!any)
            text_print(sql, "CREATE TEMP TABLE \"%s\" (", wanted->name);
        if (found)
            text_print(sql, ", %s AS \"%s\"", value, name);
        else
            text_print(sql, "%s\"%s\"", any ? ", " : "", name);
        any = true;
    }
    sqlite3_finalize(row);
    if (any && found)
        text_print(sql, " FROM main.\"%s\";\n", wanted->name);
    else if (any)
        text_print(sql, ");\n");
    return code == SQLITE_DONE ? LATHE_OK : LATHE_ENOMEM;
}

static const struct table *find(const struct table *tables, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(tables[i].name, name) == 0)
            return &tables[i];
    return NULL;
}

static int make_differences(sqlite3 *db, sqlite3 *today, const char *path, struct text *sql, struct lathe_error *err)
{
    struct table *wanted = NULL, *found = NULL;
    size_t wanted_count, found_count;
    int status = schema_apply(today, ":memory:", 0, err);
    if (!status)
        status = results_tables(today, ":memory:", &wanted, &wanted_count, err);
    if (!status)
        status = results_tables(db, path, &found, &found_count, err);
    for (size_t i = 0; !status && i < wanted_count; i++)
        if (add_difference(today, &wanted[i], find(found, found_count, wanted[i].name), sql))
            status = schema_fail(today, ":memory:", "reading the schema", err);
    if (!status && sql->failed)
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for the schema");
    free(wanted);
    free(found);
    return status;
}

int results_complete(sqlite3 *db, const char *path, struct lathe_error *err)
{
    sqlite3 *today = NULL;
    struct text sql = { 0 };
    int state, version, status = schema_inspect(db, path, &state, &version, err);
    if (status || version == schema_file_count)
        return status;
    if (sqlite3_open(":memory:", &today) != SQLITE_OK)
        status = schema_fail(today, ":memory:", "making an empty database", err);
    if (!status)
        status = make_differences(db, today, path, &sql, err);
    if (!status && sql.count &&
        (sqlite3_exec(db, "PRAGMA query_only = 0", NULL, NULL, NULL) != SQLITE_OK || sqlite3_exec(db, sql.bytes, NULL, NULL, NULL) != SQLITE_OK ||
         sqlite3_exec(db, "PRAGMA query_only = 1", NULL, NULL, NULL) != SQLITE_OK)) /* the file itself was opened for reading */
        status = schema_fail(db, path, "reading an older schema", err);
    text_free(&sql);
    sqlite3_close(today);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* lathe export --format csv: a database's tables as files that anything reads.
 *
 * Rows are sorted by primary key, or by every column where there is none, so that two exports of
 * the same rows are the same bytes. --stable leaves out what names a run or tells the host's time:
 * then two runs by the virtual clock with the same seed export alike, which is how a repetition
 * is checked by people who have only diff.
 *
 * Requests and runs have a last column more than their tables: trace_id, by which the other formats know them. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "export.h"
#include "recorder_schema.h"
#include "results.h"
#include "sql.h"

/* What --stable leaves out. */
static const struct { const char *table, *column; } unstable[] = {
    { "run", "uid" },       { "run", "started_at" },    { "run", "machine" },      { "run", "commit_id" },
    { "run", "dirty" },     { "run", "argv" },          { "artifact", "uri" },     { "step", "schedule_ns" },
    { "step", "reserve_ns" }, { "step", "sample_ns" },
};

static const struct { const char *table, *value; } traced[] = {
    { "run", "w3c_trace(uid, 0, NULL)" },
    { "request", "w3c_trace((SELECT uid FROM run WHERE run.id = request.run_id), id, correlation_id)" },
};

static bool left_out(const struct export_arguments *a, const struct table *table, const struct table_column *column)
{
    for (size_t i = 0; a->stable && i < sizeof unstable / sizeof *unstable; i++)
        if (strcmp(unstable[i].table, table->name) == 0 && strcmp(unstable[i].column, column->name) == 0)
            return true;
    return false;
}

/* SELECT "a", hex("b") AS "b" FROM "table" ORDER BY "key", … */
static void make_query(const struct export_arguments *a, const struct table *table, struct text *sql)
{
    const char *between = "SELECT ";
    for (size_t i = 0; i < table->column_count; i++) {
        const struct table_column *column = &table->columns[i];
        if (left_out(a, table, column))
            continue;
        text_print(sql, column->blob ? "%shex(\"%s\") AS \"%s\"" : "%s\"%s\"", between, column->name, column->name);
        between = ", ";
    }
    for (size_t i = 0; !a->stable && i < sizeof traced / sizeof *traced; i++)
        if (strcmp(traced[i].table, table->name) == 0)
            text_print(sql, ", %s AS trace_id", traced[i].value);
    text_print(sql, " FROM \"%s\"", table->name);
    between = " ORDER BY ";
    for (int key = 1; key <= table->key_count; key++)
        for (size_t i = 0; i < table->column_count; i++)
            if (table->columns[i].key == key) {
                text_print(sql, "%s\"%s\"", between, table->columns[i].name);
                between = ", ";
            }
    for (size_t i = 0; table->key_count == 0 && i < table->column_count; i++)
        if (!left_out(a, table, &table->columns[i])) {
            text_print(sql, "%s\"%s\"", between, table->columns[i].name);
            between = ", ";
        }
}

static int write_file(sqlite3 *db, const struct export_arguments *a, const char *name, const char *query, int64_t *rows,
                      struct lathe_error *err)
{
    char path[PATH_MAX];
    bool more;
    sqlite3_stmt *statement = NULL;
    if (snprintf(path, sizeof path, "%s/%s.csv", a->output, name) >= (int)sizeof path)
        return lathe_fail(err, LATHE_EINVAL, "the path of %s.csv is too long; name a folder with a shorter one", name);
    if (sqlite3_prepare_v2(db, query, -1, &statement, NULL) != SQLITE_OK)
        return schema_fail(db, a->path, "reading its rows", err);
    FILE *out = fopen(path, "w");
    int status = out ? LATHE_OK : lathe_fail(err, LATHE_EIO, "%s can't be written: %s", path, strerror(errno));
    if (!status) {
        int code = sql_table_write(out, SQL_CSV, statement, 0, rows, &more);
        bool failed = ferror(out) != 0; /* bitwise: the file is closed whatever came before */
        if ((fclose(out) != 0) | failed)
            status = lathe_fail(err, LATHE_EIO, "%s can't be written: %s", path, strerror(errno));
        else if (code != SQLITE_DONE)
            status = schema_fail(db, a->path, "reading its rows", err);
    }
    sqlite3_finalize(statement);
    return status;
}

static int write_tables(sqlite3 *db, const struct export_arguments *a, const struct table *tables, size_t count, struct lathe_error *err)
{
    int64_t rows, all = 0;
    int status = LATHE_OK;
    for (size_t i = 0; i < count && !status; i++) {
        struct text query = { 0 };
        make_query(a, &tables[i], &query);
        status = query.failed ? lathe_fail(err, LATHE_ENOMEM, "no memory for a query")
                              : write_file(db, a, tables[i].name, query.bytes, &rows, err);
        text_free(&query);
        if (!status)
            all += rows;
    }
    static const struct { const char *name, *query; } packed[] = {
        { "attention", "SELECT * FROM attention ORDER BY run_id, request_id, position, layer, head, probe_id" },
        { "attention_weights", "SELECT * FROM attention_weights ORDER BY run_id, request_id, position, layer, head, key, probe_id, number" },
    };
    for (size_t i = 0; a->plain && i < sizeof packed / sizeof *packed && !status; i++, count++) {
        status = write_file(db, a, packed[i].name, packed[i].query, &rows, err);
        if (!status)
            all += rows;
    }
    if (!status)
        printf("%zu tables, %lld rows in %s\n", count, (long long)all, a->output);
    return status;
}

int export_csv(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err)
{
    struct table *tables = NULL;
    size_t count;
    if (mkdir(a->output, 0777) && errno != EEXIST)
        return lathe_fail(err, LATHE_EIO, "can't make the folder %s: %s", a->output, strerror(errno));
    int status = results_tables(db, a->path, &tables, &count, err);
    if (!status)
        status = write_tables(db, a, tables, count, err);
    free(tables);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* lathe export: a database's tables as files that anything reads.
 *
 * Rows are sorted by primary key, or by every column where there is none, so that two exports of
 * the same rows are the same bytes. --stable leaves out what names a run or tells the host's time:
 * then two runs by the virtual clock with the same seed export alike, which is how a repetition
 * is checked by people who have only diff. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "recorder_schema.h"
#include "registry.h"
#include "results.h"
#include "sql.h"
#include "text.h"

static const char usage[] =
    "usage: lathe export DB -o FOLDER [options]\n"
    "\n"
    "Writes every table of DB to FOLDER/TABLE.csv, sorted by primary key: RFC 4180, a line of names\n"
    "first, NULL empty, an empty text \"\", blobs in hexadecimal. FOLDER is made if need be.\n"
    "\n"
    "  -o, --output FOLDER  where the files land\n"
    "  -f, --format FORMAT  csv\n"
    "      --stable         leave out the columns that differ between two runs of the same thing: what\n"
    "                       names a run (uid, started_at, machine, commit, command line), where files\n"
    "                       lay, and times that are the host's. Two runs by the virtual clock with\n"
    "                       the same seed are then the same bytes\n"
    "      --plain          the tables of packed attention (attention, attention_weights) too, as\n"
    "                       `lathe sql` shows them; large\n"
    "  -h, --help\n"
    "\n"
    "  lathe export results/x.db -o x-csv\n";

struct arguments {
    const char *path, *folder;
    bool stable, plain;
};

/* What --stable leaves out. */
static const struct { const char *table, *column; } unstable[] = {
    { "run", "uid" },       { "run", "started_at" },    { "run", "machine" },      { "run", "commit_id" },
    { "run", "dirty" },     { "run", "argv" },          { "artifact", "uri" },     { "step", "schedule_ns" },
    { "step", "reserve_ns" }, { "step", "sample_ns" },
};

static bool left_out(const struct arguments *a, const struct table *table, const struct table_column *column)
{
    for (size_t i = 0; a->stable && i < sizeof unstable / sizeof *unstable; i++)
        if (strcmp(unstable[i].table, table->name) == 0 && strcmp(unstable[i].column, column->name) == 0)
            return true;
    return false;
}

/* SELECT "a", hex("b") AS "b" FROM "table" ORDER BY "key", … */
static void make_query(const struct arguments *a, const struct table *table, struct text *sql)
{
    const char *between = "SELECT ";
    for (size_t i = 0; i < table->column_count; i++) {
        const struct table_column *column = &table->columns[i];
        if (left_out(a, table, column))
            continue;
        text_print(sql, column->blob ? "%shex(\"%s\") AS \"%s\"" : "%s\"%s\"", between, column->name, column->name);
        between = ", ";
    }
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

static int write_file(sqlite3 *db, const struct arguments *a, const char *name, const char *query, int64_t *rows,
                      struct lathe_error *err)
{
    char path[PATH_MAX];
    bool more;
    sqlite3_stmt *statement = NULL;
    if (snprintf(path, sizeof path, "%s/%s.csv", a->folder, name) >= (int)sizeof path)
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

static int write_tables(sqlite3 *db, const struct arguments *a, const struct table *tables, size_t count, struct lathe_error *err)
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
        { "attention", "SELECT * FROM attention ORDER BY run_id, request_id, position, layer, head" },
        { "attention_weights", "SELECT * FROM attention_weights ORDER BY run_id, request_id, position, layer, head, key" },
    };
    for (size_t i = 0; a->plain && i < sizeof packed / sizeof *packed && !status; i++, count++) {
        status = write_file(db, a, packed[i].name, packed[i].query, &rows, err);
        if (!status)
            all += rows;
    }
    if (!status)
        printf("%zu tables, %lld rows in %s\n", count, (long long)all, a->folder);
    return status;
}

static int export(const struct arguments *a, struct lathe_error *err)
{
    sqlite3 *db;
    struct table *tables = NULL;
    size_t count;
    int status = results_open(a->path, &db, err);
    if (status)
        return status;
    if (mkdir(a->folder, 0777) && errno != EEXIST)
        status = lathe_fail(err, LATHE_EIO, "can't make the folder %s: %s", a->folder, strerror(errno));
    if (!status && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) /* one moment, if a run is writing */
        status = schema_fail(db, a->path, "reading it", err);
    if (!status)
        status = results_tables(db, a->path, &tables, &count, err);
    if (!status)
        status = write_tables(db, a, tables, count, err);
    free(tables);
    sqlite3_close(db);
    return status;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--output", "--format", "--stable", "--plain", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("export", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "",
                         near ? "?" : "");
}

int cmd_export(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "format", required_argument, NULL, 'f' },
        { "stable", no_argument, NULL, 's' },       { "plain", no_argument, NULL, 'p' },
        { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
    };
    struct arguments a = { 0 };
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":o:f:h", options, NULL)) != -1)
        switch (option) {
        case 'o': a.folder = optarg; break;
        case 's': a.stable = true; break;
        case 'p': a.plain = true; break;
        case 'f':
            if (strcmp(optarg, "csv"))
                status = command_usage("export", "--format %.40s: csv is the only one", optarg);
            break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("export", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (optind + 1 != argc)
        return command_usage("export", "one database is expected, such as results/x.db");
    if (!a.folder)
        return command_usage("export", "where to? name a folder with -o");
    a.path = argv[optind];
    return export(&a, &err) ? command_fail("export", 1, &err) : 0;
}

/* SPDX-License-Identifier: MIT */
/* lathe merge: runs of several databases, of several machines perhaps, in one.
 *
 *     a.db  run 1 (uid A), run 2 (uid B)  ─▶  all.db  run 1 (A), run 2 (B)
 *     b.db  run 1 (uid B), run 2 (uid C)  ─▶          run 3 (C); B was there already
 *
 * A run is its uid. It gets the next free number there, and so do the rows of every table that has
 * a column run_id: which tables those are the schema says, so that one added later needs nothing
 * here. A source is only read. One with an older schema has fewer columns, and the missing ones take
 * their defaults, which is what migrating it would have given. One transaction a source: a source
 * that turns out damaged leaves nothing of itself.
 *
 * The destination is opened by the recorder, which makes or migrates it and holds it against others. */
#include "command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "recorder.h"
#include "recorder_schema.h"
#include "registry.h"
#include "results.h"
#include "text.h"

static const char usage[] =
    "usage: lathe merge DB DB … -o ALL\n"
    "\n"
    "Copies the runs of each DB into the database ALL, with everything recorded of them, under the next\n"
    "free run numbers. A run that is there already (run.uid says) is left out, so the same merge may be\n"
    "done again after more runs. ALL is made if need be, and may hold runs of its own. The sources are\n"
    "only read; a run that is still under way is left out.\n"
    "\n"
    "  -o, --output ALL  the database that the runs are copied into\n"
    "  -h, --help\n"
    "\n"
    "  lathe merge results/monday.db results/tuesday.db -o results/all.db\n";

struct merge {
    const char *output;
    sqlite3 *to;
    struct table *tables; /* the destination's */
    size_t table_count;
};

struct counts {
    int64_t runs, rows, there, under_way;
};

static int sql_fail(sqlite3 *db, const char *path, sqlite3_stmt *statement, const char *doing, struct lathe_error *err)
{
    sqlite3_finalize(statement);
    return schema_fail(db, path, doing, err);
}

/* "a", "b" of the columns that both sides have, but for `not`. */
static void list_columns(const struct table *to, const struct table *from, const char *not, struct text *names, struct text *places)
{
    for (size_t i = 0; i < to->column_count; i++) {
        const char *name = to->columns[i].name;
        if (strcmp(name, not) == 0 || !table_find(from, name))
            continue;
        text_print(names, ", \"%s\"", name);
        text_print(places, ", ?");
    }
}

/* Rows of one run from one table to the other; `key` is the column that holds the run's number. */
static int copy_rows(const struct merge *m, sqlite3 *from, const char *path, const struct table *to, const struct table *source,
                     const char *key, int64_t old_run, int64_t new_run, int64_t *rows, struct lathe_error *err)
{
    struct text names = { 0 }, places = { 0 }, select = { 0 }, insert = { 0 };
    sqlite3_stmt *in = NULL, *out = NULL;
    int status = LATHE_OK, code = SQLITE_OK;
    text_add(&names, "", 0);
    text_add(&places, "", 0);
    list_columns(to, source, key, &names, &places);
    text_print(&select, "SELECT NULL%s FROM \"%s\" WHERE \"%s\" = ?1", names.failed ? "" : names.bytes, source->name, key);
    text_print(&insert, "INSERT INTO \"%s\" (\"%s\"%s) VALUES (?%s)", to->name, key, names.failed ? "" : names.bytes,
               places.failed ? "" : places.bytes);
    if (names.failed || places.failed || select.failed || insert.failed)
        status = lathe_fail(err, LATHE_ENOMEM, "%s: no memory to copy table %s", path, to->name);
    else if (sqlite3_prepare_v2(from, select.bytes, -1, &in, NULL) != SQLITE_OK)
        status = schema_fail(from, path, "reading its rows", err);
    else if (sqlite3_prepare_v2(m->to, insert.bytes, -1, &out, NULL) != SQLITE_OK)
        status = schema_fail(m->to, m->output, "writing rows", err);
    if (!status) {
        sqlite3_bind_int64(in, 1, old_run);
        sqlite3_bind_int64(out, 1, new_run);
        int columns = sqlite3_column_count(in);
        while (!status && (code = sqlite3_step(in)) == SQLITE_ROW) {
            for (int i = 1; i < columns; i++)
                sqlite3_bind_value(out, i + 1, sqlite3_column_value(in, i));
            if (sqlite3_step(out) != SQLITE_DONE)
                status = schema_fail(m->to, m->output, "writing rows", err);
            sqlite3_reset(out);
            ++*rows;
        }
        if (!status && code != SQLITE_DONE)
            status = schema_fail(from, path, "reading its rows", err);
    }
    sqlite3_finalize(in);
    sqlite3_finalize(out);
    text_free(&names);
    text_free(&places);
    text_free(&select);
    text_free(&insert);
    return status;
}

static const struct table *table_named(const struct table *tables, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(tables[i].name, name) == 0)
            return &tables[i];
    return NULL;
}

static int copy_run(const struct merge *m, sqlite3 *from, const char *path, const struct table *sources, size_t source_count,
                    int64_t old_run, int64_t new_run, int64_t *rows, struct lathe_error *err)
{
    int64_t run_rows = 0;
    const struct table *to = table_named(m->tables, m->table_count, "run"), *source = table_named(sources, source_count, "run");
    int status = copy_rows(m, from, path, to, source, "id", old_run, new_run, &run_rows, err);
    for (size_t i = 0; i < m->table_count && !status; i++) {
        source = table_named(sources, source_count, m->tables[i].name);
        if (source && table_find(&m->tables[i], "run_id") && table_find(source, "run_id"))
            status = copy_rows(m, from, path, &m->tables[i], source, "run_id", old_run, new_run, rows, err);
    }
    return status;
}

/* The number that the run has there; 0: it isn't there. */
static int find_uid(const struct merge *m, sqlite3_value *uid, bool *there, struct lathe_error *err)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(m->to, "SELECT 1 FROM run WHERE uid = ?1", -1, &statement, NULL) != SQLITE_OK)
        return sql_fail(m->to, m->output, statement, "reading its runs", err);
    sqlite3_bind_value(statement, 1, uid);
    int code = sqlite3_step(statement);
    *there = code == SQLITE_ROW;
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return sql_fail(m->to, m->output, statement, "reading its runs", err);
    sqlite3_finalize(statement);
    return LATHE_OK;
}

static int next_run(const struct merge *m, int64_t *run, struct lathe_error *err)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(m->to, "SELECT coalesce(max(id), 0) + 1 FROM run", -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW)
        return sql_fail(m->to, m->output, statement, "reading its runs", err);
    *run = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return LATHE_OK;
}

static int copy_runs(const struct merge *m, sqlite3 *from, const char *path, struct counts *counts, struct lathe_error *err)
{
    struct table *sources = NULL;
    size_t count = 0;
    sqlite3_stmt *runs = NULL;
    int code = SQLITE_OK, status = results_tables(from, path, &sources, &count, err);
    if (!status && sqlite3_prepare_v2(from, "SELECT id, uid, state FROM run ORDER BY id", -1, &runs, NULL) != SQLITE_OK)
        status = schema_fail(from, path, "reading its runs", err);
    while (!status && (code = sqlite3_step(runs)) == SQLITE_ROW) {
        bool there = false;
        int64_t run = sqlite3_column_int64(runs, 0), number = 0;
        const char *state = (const char *)sqlite3_column_text(runs, 2);
        if (state && strcmp(state, "running") == 0) {
            counts->under_way++;
            continue;
        }
        if ((status = find_uid(m, sqlite3_column_value(runs, 1), &there, err)))
            break;
        counts->there += there;
        if (there)
            continue;
        if ((status = next_run(m, &number, err)) == LATHE_OK)
            status = copy_run(m, from, path, sources, count, run, number, &counts->rows, err);
        counts->runs++;
    }
    if (!status && code != SQLITE_DONE)
        status = schema_fail(from, path, "reading its runs", err);
    sqlite3_finalize(runs);
    free(sources);
    return status;
}

/* One source, whole or not at all. */
static int merge_source(const struct merge *m, const char *path, struct lathe_error *err)
{
    struct counts counts = { 0 };
    sqlite3 *from = NULL;
    int status = results_open(path, &from, err);
    if (status)
        return status;
    if (sqlite3_exec(from, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) /* one moment of it */
        status = schema_fail(from, path, "reading it", err);
    else if (sqlite3_exec(m->to, "BEGIN IMMEDIATE; PRAGMA defer_foreign_keys = 1", NULL, NULL, NULL) != SQLITE_OK)
        status = schema_fail(m->to, m->output, "writing to it", err);
    if (!status)
        status = copy_runs(m, from, path, &counts, err);
    if (!status && sqlite3_exec(m->to, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        status = schema_fail(m->to, m->output, "writing to it", err);
    if (status)
        sqlite3_exec(m->to, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(from);
    if (status)
        return status;
    printf("%s: %lld run%s copied, %lld rows", path, (long long)counts.runs, counts.runs == 1 ? "" : "s", (long long)counts.rows);
    if (counts.there)
        printf("; %lld there already", (long long)counts.there);
    if (counts.under_way)
        printf("; %lld under way, left out", (long long)counts.under_way);
    putchar('\n');
    return LATHE_OK;
}

/* Before anything is made: every source can be read, and none is the destination. */
static int check_sources(const char *output, char **paths, int count, struct lathe_error *err)
{
    struct stat there, source;
    bool exists = stat(output, &there) == 0;
    for (int i = 0; i < count; i++) {
        sqlite3 *db;
        int status = results_open(paths[i], &db, err);
        if (status)
            return status;
        sqlite3_close(db);
        if (exists && stat(paths[i], &source) == 0 && source.st_dev == there.st_dev && source.st_ino == there.st_ino)
            return lathe_fail(err, LATHE_EINVAL, "%s can't be merged into itself; name another file with -o", paths[i]);
    }
    return LATHE_OK;
}

static int merge(const char *output, char **paths, int count, struct lathe_error *err)
{
    struct merge m = { .output = output };
    struct recorder_params params = { .path = output };
    struct recorder *recorder;
    struct lathe_error closing;
    int status = check_sources(output, paths, count, err);
    if (!status)
        status = recorder_open(&params, &recorder, err);
    if (status)
        return status;
    if (sqlite3_open_v2(recorder_path(recorder), &m.to, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        status = schema_fail(m.to, output, "opening it", err);
    if (!status)
        status = schema_harden(m.to, err);
    if (!status)
        status = results_tables(m.to, output, &m.tables, &m.table_count, err);
    for (int i = 0; i < count && !status; i++)
        status = merge_source(&m, paths[i], err);
    sqlite3_close(m.to);
    free(m.tables);
    if (recorder_close(recorder, &closing) && !status)
        *err = closing, status = closing.code;
    return status;
}

static int unknown_option(const char *word)
{
    static const char *const names[] = { "--output", "--help" };
    const char *near = nearest_name(word, names, sizeof names / sizeof *names);
    return command_usage("merge", "there is no option %.60s%s%s%s", word, near ? ", did you mean " : "", near ? near : "",
                         near ? "?" : "");
}

int cmd_merge(int argc, char **argv)
{
    static const struct option options[] = {
        { "output", required_argument, NULL, 'o' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    const char *output = NULL;
    struct lathe_error err = { 0 };
    int option, status = 0;
    optind = 1;
    opterr = 0;
    while (!status && (option = getopt_long(argc, argv, ":o:h", options, NULL)) != -1)
        switch (option) {
        case 'o': output = optarg; break;
        case 'h': fputs(usage, stdout); return 0;
        case ':': status = command_usage("merge", "%s needs a value", argv[optind - 1]); break;
        default: status = unknown_option(argv[optind - 1]);
        }
    if (status)
        return status;
    if (optind == argc)
        return command_usage("merge", "no databases: lathe merge a.db b.db -o all.db");
    if (!output)
        return command_usage("merge", "into what? name a database with -o");
    return merge(output, argv + optind, argc - optind, &err) ? command_fail("merge", 1, &err) : 0;
}

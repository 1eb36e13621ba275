/* SPDX-License-Identifier: MIT */
/* A results database opened for reading only. Runs may be writing to it meanwhile: WAL lets one
 * write while many read. A reader of a WAL database needs the -shm file beside it, or a
 * folder where it may make one; in a folder that can't be written the file is read as if
 * nothing could change it (immutable), which is true there unless somebody else can write. */
#include "sql.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "recorder_schema.h"
#include "sqlite_extension.h"
#include "text.h"

enum { BUSY_MS = 5000 };

static int look_at_file(const char *path, struct lathe_error *err)
{
    struct stat found;
    if (stat(path, &found) != 0)
        return errno == ENOENT
            ? lathe_fail(err, LATHE_ENOTFOUND, "there is no database %s; `lathe run EXPERIMENT` makes one", path)
            : lathe_fail(err, LATHE_EIO, "%s can't be opened: %s", path, strerror(errno));
    if (S_ISDIR(found.st_mode))
        return lathe_fail(err, LATHE_EINVAL, "%s is a folder; name a database in it", path);
    if (S_ISREG(found.st_mode) && found.st_size == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s is empty: no run was recorded in it", path);
    return 0;
}

/* file:PATH?immutable=1, with what a URI gives a meaning to written as %XX. */
static int open_immutable(const char *path, sqlite3 **db)
{
    struct text uri = { 0 };
    text_print(&uri, "file:");
    for (const char *c = path; *c; c++)
        text_print(&uri, strchr("%?# ", *c) ? "%%%02X" : "%c", (unsigned char)*c);
    text_print(&uri, "?immutable=1");
    int code = uri.failed ? SQLITE_NOMEM : sqlite3_open_v2(uri.bytes, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
    text_free(&uri);
    return code;
}

static int touch(sqlite3 *db)
{
    sqlite3_busy_timeout(db, BUSY_MS);
    return sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
}

static int open_file(const char *path, FILE *warnings, sqlite3 **db)
{
    char file[PATH_MAX + 2], wal[PATH_MAX + 8];
    struct stat found;
    snprintf(file, sizeof file, "%s%s", path[0] == '/' ? "" : "./", path); /* ":memory:" and "file:" are names here */
    int code = sqlite3_open_v2(file, db, SQLITE_OPEN_READONLY, NULL);
    if (code == SQLITE_OK)
        code = touch(*db);
    if (code != SQLITE_CANTOPEN && code != SQLITE_READONLY) /* nothing else speaks of the folder */
        return code;
    sqlite3 *again = NULL;
    if (open_immutable(file, &again) != SQLITE_OK || touch(again) != SQLITE_OK) {
        sqlite3_close(again);
        return code;
    }
    sqlite3_close(*db);
    *db = again;
    snprintf(wal, sizeof wal, "%s-wal", file);
    if (stat(wal, &found) == 0 && found.st_size > 0)
        fprintf(warnings, "lathe sql: the newest rows, in %s-wal, are left out: its folder can't be written; "
                          "copy both files elsewhere to read them\n", path);
    return SQLITE_OK;
}

static int warn_of_oddities(sqlite3 *db, const char *path, FILE *warnings, struct lathe_error *err)
{
    int state, version, status = schema_inspect(db, path, &state, &version, err);
    if (status)
        return status;
    if (state == SCHEMA_FOREIGN)
        fprintf(warnings, "lathe sql: %s wasn't made by lathe (its application_id differs); it is read all the same\n", path);
    else if (state == SCHEMA_EMPTY)
        fprintf(warnings, "lathe sql: %s has no tables: no run was recorded in it\n", path);
    else if (state == SCHEMA_NEWER)
        fprintf(warnings, "lathe sql: %s was made by a newer lathe (schema %d, this one knows %d); it is read all the same\n",
                path, version, schema_file_count);
    return 0;
}

int sql_open(const char *path, FILE *warnings, sqlite3 **db, struct lathe_error *err)
{
    *db = NULL;
    int status = look_at_file(path, err);
    if (status)
        return status;
    int code = open_file(path, warnings, db);
    if (code == SQLITE_OK)
        code = lathe_sqlite_init_static(*db);
    if (code == SQLITE_OK)
        code = sqlite3_exec(*db, "PRAGMA query_only = 1", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        status = schema_fail(*db, path, "opening it for reading", err);
    if (!status)
        status = schema_harden(*db, err);
    if (!status)
        status = warn_of_oddities(*db, path, warnings, err);
    if (status) {
        sqlite3_close(*db);
        *db = NULL;
    }
    return status;
}

/* ---- statements ---- */

bool sql_where(const struct sql_position *at, int *line, int *column)
{
    *line = *column = 1;
    for (int64_t i = 0; i < at->offset; i++) {
        if (at->text[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (((unsigned char)at->text[i] & 0xC0) != 0x80) {
            ++*column;
        }
    }
    return at->offset >= 0;
}

int sql_step_fail(sqlite3 *db, int code, struct lathe_error *err)
{
    code &= 0xff; /* without what the extended code adds */
    if (code == SQLITE_NOMEM)
        return lathe_fail(err, LATHE_ENOMEM, "memory ran out");
    if (code == SQLITE_INTERRUPT)
        return lathe_fail(err, LATHE_ECANCELLED, "interrupted");
    if (code == SQLITE_BUSY)
        return lathe_fail(err, LATHE_EBUSY, "another process holds the database; try again when it has let go");
    return lathe_fail(err, LATHE_EIO, "%s", sqlite3_errmsg(db));
}

static const char *skip_blanks(const char *s)
{
    for (;;) {
        const char *end;
        if (isspace((unsigned char)*s) || *s == ';')
            s++;
        else if (s[0] == '-' && s[1] == '-')
            s += strcspn(s, "\n");
        else if (s[0] == '/' && s[1] == '*' && (end = strstr(s + 2, "*/")))
            s = end + 2;
        else
            return s;
    }
}

/* The connection can't write, whatever is asked; this says so in a person's words, before anything runs. */
static int refuse_writes(sqlite3_stmt *statement, const char *words, struct lathe_error *err)
{
    int letters = 0;
    while (isalpha((unsigned char)words[letters]) && letters < 20)
        letters++;
    bool pragma = letters == 6 && sqlite3_strnicmp(words, "pragma", 6) == 0;
    if (!sqlite3_stmt_readonly(statement) && !sqlite3_stmt_isexplain(statement) && !pragma)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "%.*s would write, and results are open for reading only here; "
                          "use the sqlite3 program to change them", letters, words);
    if (sqlite3_bind_parameter_count(statement) > 0) {
        const char *name = sqlite3_bind_parameter_name(statement, 1);
        return lathe_fail(err, LATHE_EINVAL, "the query has a parameter, %s, and nothing gives it a value; write the value instead",
                          name ? name : "?");
    }
    return 0;
}

int sql_prepare(sqlite3 *db, struct sql_position *at, sqlite3_stmt **statement, struct lathe_error *err)
{
    const char *start = at->next = skip_blanks(at->next ? at->next : at->text);
    *statement = NULL;
    at->offset = -1;
    if (!*start)
        return 0;
    int code = sqlite3_prepare_v2(db, start, -1, statement, &at->next);
    if (code != SQLITE_OK) {
        int offset = sqlite3_error_offset(db);
        at->offset = offset < 0 ? -1 : start - at->text + offset;
        return sql_step_fail(db, code, err);
    }
    int status = *statement ? refuse_writes(*statement, start, err) : 0;
    if (status) {
        at->offset = start - at->text;
        sqlite3_finalize(*statement);
        *statement = NULL;
    }
    return status;
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int run_one(sqlite3 *db, sqlite3_stmt *statement, const struct sql_output *o, struct lathe_error *err)
{
    int64_t rows;
    bool more;
    double from = now_ms();
    int code = sql_table_write(o->out, o->format, statement, o->limit, &rows, &more);
    if (code != SQLITE_DONE)
        return sql_step_fail(db, code, err);
    if (fflush(o->out) || ferror(o->out))
        return lathe_fail(err, LATHE_EIO, "the output can't be written: %s", strerror(errno));
    if (o->notes && more)
        fprintf(o->notes, "the first %lld rows; .limit 0 shows all, .limit N another number\n", (long long)rows);
    else if (o->notes && sqlite3_column_count(statement) > 0)
        fprintf(o->notes, "%lld %s, %.1f ms\n", (long long)rows, rows == 1 ? "row" : "rows", now_ms() - from);
    return 0;
}

int sql_run(sqlite3 *db, struct sql_position *at, const struct sql_output *output, struct lathe_error *err)
{
    bool apart = output->format != SQL_CSV && output->format != SQL_JSON, blank = false;
    sqlite3_stmt *statement;
    int status;
    while ((status = sql_prepare(db, at, &statement, err)) == 0 && statement) {
        bool shown = sqlite3_column_count(statement) > 0;
        if (apart && blank && shown)
            fputc('\n', output->out);
        blank = blank || shown;
        status = run_one(db, statement, output, err);
        sqlite3_finalize(statement);
        if (status)
            break;
    }
    return status;
}

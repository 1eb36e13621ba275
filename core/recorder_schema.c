/* SPDX-License-Identifier: MIT */
#include "recorder_schema.h"

#include <stdio.h>
#include <string.h>

int schema_fail(sqlite3 *db, const char *path, const char *doing, struct lathe_error *err)
{
    int extended = db ? sqlite3_extended_errcode(db) : SQLITE_NOMEM;
    const char *text = db ? sqlite3_errmsg(db) : "out of memory";
    switch (extended & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return lathe_fail(err, LATHE_EBUSY,
                          "%s: %s: another process holds the database; close it there and try again", path, doing);
    case SQLITE_FULL:
        return lathe_fail(err, LATHE_EIO, "%s: %s: the disk is full; make room, what was committed before is kept",
                          path, doing);
    case SQLITE_NOTADB:
        return lathe_fail(err, LATHE_EFORMAT, "%s is not an SQLite database; name another file", path);
    case SQLITE_CORRUPT:
        return lathe_fail(err, LATHE_EFORMAT,
                          "%s: %s: the database is damaged (%s); move it away, sqlite3's .recover may save rows", path,
                          doing, text);
    case SQLITE_READONLY:
        return lathe_fail(err, LATHE_EIO,
                          "%s: %s: the file or its folder can't be written; change its permissions or name another",
                          path, doing);
    case SQLITE_CANTOPEN:
        return lathe_fail(err, LATHE_EIO, "%s: %s: can't open it or the files beside it; check the folder exists and can be written",
                          path, doing);
    case SQLITE_NOMEM:
        return lathe_fail(err, LATHE_ENOMEM, "%s: %s: out of memory", path, doing);
    case SQLITE_IOERR:
        return lathe_fail(err, LATHE_EIO, "%s: %s: the system refused (%s, code %d); check the disk", path, doing,
                          text, extended);
    default:
        return lathe_fail(err, LATHE_EIO, "%s: %s: %s", path, doing, text);
    }
}

int schema_harden(sqlite3 *db, struct lathe_error *err)
{
    /* The schema stays trusted: SQLite 3.40 holds json_valid() in a CHECK to be unsafe otherwise. No
     * connection of ours has a function that could harm. */
    static const struct { int option, value; } settings[] = {
        { SQLITE_DBCONFIG_DQS_DDL, 0 },        { SQLITE_DBCONFIG_DQS_DML, 0 },
        { SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 }, { SQLITE_DBCONFIG_DEFENSIVE, 1 },
        { SQLITE_DBCONFIG_ENABLE_FKEY, 1 },
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (sqlite3_db_config(db, settings[i].option, settings[i].value, NULL) != SQLITE_OK)
            return lathe_fail(err, LATHE_EUNSUPPORTED, "this SQLite (%s) is too old; 3.40 or later is needed",
                              sqlite3_libversion());
    sqlite3_extended_result_codes(db, 1);
    return LATHE_OK;
}

/* The one integer that a query gives. */
static int integer_of(sqlite3 *db, const char *path, const char *sql, sqlite3_int64 *value, struct lathe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int status = LATHE_OK;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW)
        status = schema_fail(db, path, "reading its header", err);
    else
        *value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return status;
}

int schema_inspect(sqlite3 *db, const char *path, int *state, int *version, struct lathe_error *err)
{
    sqlite3_int64 application = 0, user = 0, objects = 0;
    int status = integer_of(db, path, "PRAGMA application_id", &application, err);
    if (status == LATHE_OK)
        status = integer_of(db, path, "PRAGMA user_version", &user, err);
    if (status != LATHE_OK)
        return status;
    *version = (int)user;
    if (application == SCHEMA_APPLICATION_ID && user > 0) {
        *state = user > schema_file_count ? SCHEMA_NEWER : SCHEMA_OURS;
        return LATHE_OK;
    }
    /* Only now: this parses the schema, and a foreign one is nobody's business above. */
    status = integer_of(db, path, "SELECT count(*) FROM sqlite_schema", &objects, err);
    if (status == LATHE_OK)
        *state = objects == 0 && user == 0 ? SCHEMA_EMPTY : SCHEMA_FOREIGN;
    return status;
}

int schema_apply(sqlite3 *db, const char *path, int version, struct lathe_error *err)
{
    for (int i = version; i < schema_file_count; i++) {
        char done[64], doing[96];
        snprintf(done, sizeof done, "PRAGMA user_version = %d; COMMIT", i + 1);
        snprintf(doing, sizeof doing, "applying schema %s", schema_files[i].name);
        if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
            sqlite3_exec(db, schema_files[i].sql, NULL, NULL, NULL) != SQLITE_OK ||
            sqlite3_exec(db, done, NULL, NULL, NULL) != SQLITE_OK) {
            int status = schema_fail(db, path, doing, err);
            sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
            return status;
        }
    }
    return LATHE_OK;
}

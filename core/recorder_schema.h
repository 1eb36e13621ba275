/* SPDX-License-Identifier: MIT */
/* The database's schema: the files of schemas/, in order, as the build put them into the
 * executable. PRAGMA user_version counts how many of them a database has. */
#ifndef CORE_RECORDER_SCHEMA_H
#define CORE_RECORDER_SCHEMA_H

#include <sqlite3.h>

#include <lathe/status.h>

struct schema_file {
    const char *name; /* "001_tables" */
    const char *sql;
};

extern const struct schema_file schema_files[]; /* made by core/embed_schemas.cmake */
extern const int schema_file_count;

enum { SCHEMA_APPLICATION_ID = 0x4C415448 }; /* 'LATH' */

/* What a file is. Reads its header only, and whether it has any table. */
enum schema_state {
    SCHEMA_EMPTY,   /* a new or empty file */
    SCHEMA_OURS,    /* version in *version, maybe older */
    SCHEMA_NEWER,   /* ours, by a later version of lathe: *version */
    SCHEMA_FOREIGN, /* another program's */
};

/* LATHE_EFORMAT: not a database, or damaged. LATHE_EBUSY: held by another process. [any] */
int schema_inspect(sqlite3 *db, const char *path, int *state, int *version, struct lathe_error *err);

/* Makes or migrates: each missing file in a transaction of its own. [any] */
int schema_apply(sqlite3 *db, const char *path, int version, struct lathe_error *err);

/* Settings that every connection of ours has: double-quoted strings off, triggers off,
 * defensive, foreign keys on. A hostile file can then change nothing. [any] */
int schema_harden(sqlite3 *db, struct lathe_error *err);

/* One sentence for an SQLite failure on this connection: what, the file, what to do. [any] */
int schema_fail(sqlite3 *db, const char *path, const char *doing, struct lathe_error *err);

#endif

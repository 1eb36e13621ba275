/* SPDX-License-Identifier: MIT */
/* A results database that a verb reads whole (export, merge, cite): ours, by this version of lathe or
 * an older one, with every row that was committed. And what its tables are made of, so that a table
 * that is added to schemas/ needs no code there. */
#ifndef CORE_RESULTS_H
#define CORE_RESULTS_H

#include <stdbool.h>
#include <stddef.h>

#include <sqlite3.h>

#include <lathe/status.h>

/* Opens for reading only. Not there, no database, damaged, another program's, empty, newer than this
 * lathe, or with rows that can't be reached: one sentence. [main] */
int results_open(const char *path, sqlite3 **db, struct lathe_error *err);

/* Makes tables and columns that an older lathe's database lacks readable on this connection: empty, and with their
 * defaults. For who asks more than its own rows: csv and merge take it as it is. [main] */
int results_complete(sqlite3 *db, const char *path, struct lathe_error *err);

struct table_column {
    char name[64];
    bool blob;
    int key; /* place in the primary key from 1; 0: not in it */
};

enum { TABLE_MAX_COLUMNS = 64 };

struct table {
    char name[64];
    struct table_column columns[TABLE_MAX_COLUMNS];
    size_t column_count;
    int key_count;
};

/* The column of that name, or NULL. */
const struct table_column *table_find(const struct table *table, const char *column);

/* All tables (no views, nothing of SQLite's own, none with a name that would mean something to a file
 * system), by name, in an array to be freed. [main] */
int results_tables(sqlite3 *db, const char *path, struct table **tables, size_t *count, struct lathe_error *err);

#endif

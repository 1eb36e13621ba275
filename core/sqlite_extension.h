/* SPDX-License-Identifier: MIT */
/* What Lathe adds to SQLite: the tables `attention` and `attention_weights`, and the aggregates
 * percentile(x, p) and median(x). Built twice: into lathe, and as lathe_sqlite.so, which
 * sqlite3 (.load) and Python (load_extension) load by name. */
#ifndef CORE_SQLITE_EXTENSION_H
#define CORE_SQLITE_EXTENSION_H

#ifdef LATHE_SQLITE_LOADABLE
#include <sqlite3ext.h>
#else
#include <sqlite3.h>
#endif

/* For a connection of lathe's own: SQLITE_OK or an SQLite error code. [any] */
int lathe_sqlite_init_static(sqlite3 *db);

/* sqlite_attention.c: both virtual tables. */
int sqlite_attention_init(sqlite3 *db);

#endif

/* SPDX-License-Identifier: MIT */
/* `lathe sql`, shared by its files: a results database opened for reading only, statements run
 * on it, results written as text. One thread; SQLite itself is the judge of what is SQL.
 *
 *     cmd_sql.c ─────┬── sql_database.c   open, prepare, refuse what writes
 *     └ sql_prompt.c ┘   └ sql_table.c    a result as column, csv, json, markdown or line
 *       ├ sql_edit.c         └ sql_text.c  characters and their widths
 *       └ sql_catalog.c  views, tables, words to complete */
#ifndef CORE_SQL_H
#define CORE_SQL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <sqlite3.h>

#include <lathe/status.h>

enum sql_format { SQL_COLUMN, SQL_CSV, SQL_JSON, SQL_MARKDOWN, SQL_LINE, SQL_FORMATS };

extern const char *const sql_format_names[SQL_FORMATS];

/* The format of that name, or −1. */
int sql_format_find(const char *name);

/* Steps `statement` (prepared, at its beginning) to its end, or to `limit` rows (0: all), and
 * writes what it gives to `out`. *rows is how many were written, *more whether others were left.
 * column and markdown hold the first rows back until they know how wide they are. Returns
 * SQLITE_DONE, the status that step() failed with, or SQLITE_NOMEM; the caller looks at
 * ferror(out). [main] */
int sql_table_write(FILE *out, enum sql_format format, sqlite3_stmt *statement, int64_t limit, int64_t *rows, bool *more);

/* Decodes the character at s, of at least 1 byte and at most `count`. Returns its bytes; 1 and U+FFFD for
 * what is no UTF-8. [any] */
size_t sql_character(const unsigned char *s, size_t count, uint32_t *code);

/* Text for a terminal: what isn't UTF-8 becomes U+FFFD, control characters \n or \x1b. `bytes` need
 * no end mark. Returns the columns written, which are at most `most` (0: no limit): a text that is cut
 * ends in "…". Without `out` it only measures. Widths are those of LC_CTYPE. [any] */
int sql_print_text(FILE *out, const char *bytes, size_t count, int most);

/* A statement that is prepared and known to read only; NULL at the end of the text. */
struct sql_position {
    const char *text, *next; /* what was given; what of it is still to run */
    int64_t offset;          /* of what went wrong, in bytes from `text`, or −1 */
};

/* Opens for reading only, with the extension's tables. A file that isn't there, no database, or
 * damaged is a sentence in err. What is merely odd (a newer lathe's, another program's) is
 * a line of its own on `warnings`. [main] */
int sql_open(const char *path, FILE *warnings, sqlite3 **db, struct lathe_error *err);

/* Prepares the next statement of at->text. *statement is NULL when there is none left. [main] */
int sql_prepare(sqlite3 *db, struct sql_position *at, sqlite3_stmt **statement, struct lathe_error *err);

struct sql_output {
    FILE *out;
    enum sql_format format;
    int64_t limit; /* rows of each result; 0: all */
    FILE *notes;   /* gets a line after each result: how many rows, how long; NULL: nothing does */
};

/* Runs every statement of at->text, and stops at the first that fails. [main] */
int sql_run(sqlite3 *db, struct sql_position *at, const struct sql_output *output, struct lathe_error *err);

/* The sentence for a failed step. [main] */
int sql_step_fail(sqlite3 *db, int code, struct lathe_error *err);

/* Line and column, from 1, of the character at at->offset; false if there is no offset. */
bool sql_where(const struct sql_position *at, int *line, int *column);

/* ---- sql_catalog.c: what there is to ask ---- */

enum sql_relation { SQL_TABLES, SQL_VIEWS };

/* A line each: name and what its comment says first. `columns` is the terminal's width (0: no limit); a
 * longer comment is cut there, or goes on below if `whole`. Returns how many there are. [main] */
int sql_list(sqlite3 *db, FILE *out, enum sql_relation relation, int columns, bool whole);

/* The SQL that made `name`, or everything if NULL. [main] */
int sql_schema(sqlite3 *db, FILE *out, const char *name, struct lathe_error *err);

enum { SQL_WORD_RELATIONS = 1, SQL_WORD_OTHERS = 2 };

/* Words of `which` kinds that begin with `prefix`, whatever its case: an array of strings that ends with NULL;
 * free each, and the array. Others are columns, functions and keywords. NULL: no memory. [main] */
char **sql_words(sqlite3 *db, const char *prefix, int which);

/* ---- sql_edit.c: lines from a terminal ---- */

/* Starts line editing, history and Ctrl-C for one prompt at a time: editing, like signals, is the process's. [main] */
void sql_edit_begin(sqlite3 *db, const char *const *commands, size_t count);
void sql_edit_end(void);

/* A line without its end, to be freed; NULL at the end of input, or when *interrupted. [main] */
char *sql_edit_line(const char *prompt, bool *interrupted);

/* Adds to the history, here and in the file. [main] */
void sql_edit_remember(const char *text);

/* Talks until the end of input or .quit. Returns the exit status. [main] */
int sql_prompt(sqlite3 *db, const char *path, enum sql_format format);

#endif

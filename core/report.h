/* SPDX-License-Identifier: MIT */
/* `lathe report`, shared by its files: what of a results database goes into one self-contained page.
 *
 *     cmd_report.c ── report_runs.c       which runs, and a row of each
 *                     report_latency.c    distributions: exact percentiles, thinned steps of the ECDF
 *                     report_requests.c   a row a request: for timelines and paired comparison
 *                     report_steps.c      steps, who was in them, the KV pool over time
 *                     report_attention.c  which requests' attention, means of heads, tokens
 *                       report_weights.c  packed rows of weights, as the database has them
 *                     report_data.c       JSON and columns that all of them write
 *                     report_page.c       the page around it, from report/ (embedded by the build)
 *
 * What is small is JSON. What is many is a column: little-endian 32-bit numbers (or bytes) in base64,
 * each in an element of its own, which the page decodes when it first looks at it. JSON refers to
 * it as {"column": number, "type": "u32" | "f32" | "u8", "count": n}.
 *
 * A page must open at once, so everything many has a budget. What exceeds it is thinned, and a sentence on the
 * page says so. Figures are of all rows, whatever is drawn; only those of the comparison are computed by the page, of
 * the pairs that it has, and say so if those are not all. */
#ifndef CORE_REPORT_H
#define CORE_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <sqlite3.h>

#include <lathe/status.h>

#include "text.h"

/* Budgets of a page, shared evenly by its runs. A run of 100,000 requests makes a page of 6 MB, which opens in
 * half a second on two cores. */
enum {
    REPORT_ECDF_POINTS = 1000,       /* a curve, if there are few runs; */
    REPORT_ECDF_POINTS_ALL = 240000, /* of all curves */
    REPORT_REQUESTS = 120000,
    REPORT_STEPS = 60000,
    REPORT_STEP_REQUESTS = 250000,
    REPORT_KV_ROWS = 40000,
    REPORT_ATTENTION_BYTES = 4 << 20,
    REPORT_MAX_RUNS = 1000,
    REPORT_MAX_NAMED = 64, /* runs or requests named on the command line */
};

#define REPORT_NONE UINT32_MAX /* NULL in a column of times or numbers */

struct report_run {
    int64_t id;
    double unit_ns; /* times in columns are multiples of it, so that the run fits 32 bits */
};

struct report {
    sqlite3 *db;
    const char *path;
    struct report_run *runs;
    size_t run_count;
    int64_t named_runs[REPORT_MAX_NAMED], named_requests[REPORT_MAX_NAMED], compare[2];
    size_t named_run_count, named_request_count;
    bool comparing;
    int64_t from_ns, to_ns; /* steps that touch this window only */
    struct text json;    /* one object, in pieces */
    struct text columns; /* elements of the page */
    int column_count;
};

/* ---- report_data.c ---- */

/* A comma if one is due, then "name": in an object, or nothing in an array (name NULL). */
void report_key(struct report *r, const char *name);
void report_string(struct report *r, const char *name, const char *value); /* NULL: null */
void report_number(struct report *r, const char *name, double value);      /* NaN: null */
/* A column of a statement's row: text, number or null. */
void report_value(struct report *r, const char *name, sqlite3_stmt *statement, int column);
void report_open(struct report *r, const char *name, char bracket); /* { or [ */
void report_close(struct report *r, char bracket);

/* 32-bit numbers that grow; zero-initialise, add, write. */
struct column {
    uint32_t *values;
    size_t count, capacity;
    bool failed;
};

void column_add(struct column *c, uint32_t value);
void column_add_float(struct column *c, double value); /* NaN: nothing there */
/* From a row. NULL is NaN, or REPORT_NONE; whole numbers are clamped. */
void column_add_float_row(struct column *c, sqlite3_stmt *statement, int at);
void column_add_row(struct column *c, sqlite3_stmt *statement, int at);
/* Nanoseconds of a row in the run's unit; REPORT_NONE for NULL. */
void column_add_time(struct column *c, const struct report_run *run, sqlite3_stmt *statement, int at);
/* Writes it as "name" and frees it. */
void report_column(struct report *r, const char *name, const char *type, struct column *c);
void report_bytes(struct report *r, const char *name, const void *bytes, size_t count);

/* Prepares `sql`, with ?1 = the run's id if there is a run. */
int report_prepare(struct report *r, const struct report_run *run, const char *sql, sqlite3_stmt **statement,
                   struct lathe_error *err);
/* What sqlite3_step said last: LATHE_OK if the rows came to their end. Finalizes. */
int report_finish(struct report *r, sqlite3_stmt *statement, int code, struct lathe_error *err);
/* One whole number. */
int report_count(struct report *r, const struct report_run *run, const char *sql, int64_t *value, struct lathe_error *err);
/* The smallest power of two that divides `count` rows to at most `budget`: equal in two runs, or the finer
 * contains the coarser, so that thinned runs still pair. */
int64_t report_stride(int64_t count, int64_t budget);

/* ---- the sections: each writes its key into the object that is open ---- */

int report_runs(struct report *r, struct lathe_error *err);
int report_latency(struct report *r, const struct report_run *run, struct lathe_error *err);
int report_requests(struct report *r, const struct report_run *run, struct lathe_error *err);
int report_steps(struct report *r, const struct report_run *run, struct lathe_error *err);
int report_memory(struct report *r, const struct report_run *run, struct lathe_error *err);
int report_attention(struct report *r, struct lathe_error *err);

/* ---- report_page.c ---- */

struct report_file {
    const char *name; /* "page.html" */
    const char *bytes;
    size_t count;
};

extern const struct report_file report_files[]; /* made by core/embed_report.cmake: scripts in the order of their names */
extern const int report_file_count;

/* The whole page. Failed writes are the caller's to find by ferror(). */
int report_page(const struct report *r, FILE *out, struct lathe_error *err);

#endif

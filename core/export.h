/* SPDX-License-Identifier: MIT */
/* `lathe export`, shared by its files.
 *
 *     cmd_export.c ── export_csv.c       every table as a file
 *                  ├─ export_chrome.c    Trace Event JSON, for Perfetto and chrome://tracing
 *                  │    └ export_tracks.c  its events, and lanes for what overlaps
 *                  └─ export_otlp.c      spans as OTLP/JSON, into a file
 *                       ├ export_spans.c   a span's JSON
 *                       └ otlp_push.c      or to a collector, over HTTP
 *     export_phases.c   a request's life in phases, for both
 *     export_ids.c      W3C trace and span ids, for all three
 *
 * Ids are made from what a run and a request are known by, so that the same row has the same id in every
 * format and at every export: the trace of request 4 is found in Perfetto, in a collector and in
 * request.csv by one number. */
#ifndef CORE_EXPORT_H
#define CORE_EXPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <sqlite3.h>

#include <lathe/status.h>

#include "text.h"

enum { EXPORT_MAX_HEADERS = 16 };

struct export_arguments {
    const char *path;   /* of the database */
    const char *output; /* folder (csv) or file; NULL: none */
    int64_t run;        /* this one only; 0: all */
    bool stable, plain; /* csv */
    const char *push;   /* otlp: the collector's URL; NULL: none */
    const char *headers[EXPORT_MAX_HEADERS]; /* "name: value", sent along */
    size_t header_count;
};

int export_csv(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err);
int export_chrome(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err);
int export_otlp(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err);

/* Prepares `sql` with ?1 = `run`, and ?2 = `second` if it has that. */
int export_prepare(sqlite3 *db, const struct export_arguments *a, const char *sql, int64_t run, sqlite3_stmt **statement,
                   struct lathe_error *err);
/* What sqlite3_step said last: LATHE_OK if the rows came to their end. Finalizes. */
int export_finish(sqlite3 *db, const struct export_arguments *a, sqlite3_stmt *statement, int code, struct lathe_error *err);
/* Opens and closes what is written to; a file that can't be finished is taken away. */
int export_create(const struct export_arguments *a, FILE **out, struct lathe_error *err);
int export_close(const struct export_arguments *a, FILE *out, int status, struct lathe_error *err);

/* ---- export_ids.c ---- */

/* SQL functions of this connection:
 *   w3c_trace(uid, request, correlation_id)   32 hexadecimal digits; request 0 is the run itself. A request whose
 *                                             correlation id is a traceparent goes on in that trace.
 *   w3c_span(uid, kind, a, b)                 16 digits: of the thing of that kind with those numbers
 *   w3c_parent(correlation_id)                the span that a traceparent names, or NULL
 *   correlation(correlation_id)               the number that stands for it in hop.correlation_id */
int export_ids_register(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err);

/* ---- export_phases.c ---- */

/* What a request did in one step. */
struct export_slice {
    int64_t step_id, from_ns, to_ns, first_position, tokens;
    bool prefill;
};

/* A stretch of a request's life. `slices` of it, from `first` on, lie inside. */
struct export_phase {
    const char *name; /* queue, prefill, decode, preempted, swapped */
    int64_t from_ns, to_ns;
    size_t first, slices;
};

struct export_life {
    struct export_phase *phases;
    struct export_slice *slices;
    size_t phase_count, phase_capacity, slice_count, slice_capacity;
    int64_t from_ns, to_ns; /* of the whole: everything lies inside, in order of time */
    sqlite3_stmt *spans, *steps;
};

/* Times of a request; INT64_MIN: it has none. */
struct export_times {
    int64_t planned_ns, admitted_ns, first_token_ns, finish_ns;
};

int export_life_open(struct export_life *life, sqlite3 *db, const struct export_arguments *a, int64_t run, struct lathe_error *err);
/* Fills it with this request's; `end_ns` is when the run ended, for one that had not. */
int export_life_read(struct export_life *life, sqlite3 *db, const struct export_arguments *a, int64_t request,
                     const struct export_times *times, int64_t end_ns, struct lathe_error *err);
void export_life_close(struct export_life *life);

/* ---- export_tracks.c: Trace Event JSON ---- */

struct export_lane {
    int64_t group, end_ns;
};

/* Things that may overlap, each group (a replica, an endpoint) on as many threads as it needs at once. */
struct export_lanes {
    struct export_lane *lanes;
    size_t count, capacity;
};

struct chrome {
    FILE *out;
    bool any; /* an event was written */
    struct text args;
};

/* The lane, from 0, that has room for `group` from `from_ns` to `to_ns`; *fresh if it is new. −1: no memory. */
int export_lane(struct export_lanes *lanes, int64_t group, int64_t from_ns, int64_t to_ns, bool *fresh, int *of_group);

/* `args`, what was put in c->args since the last event, goes along and is emptied. */
void chrome_begin(struct chrome *c, int64_t pid, int64_t tid, int64_t at_ns, const char *category, const char *name);
void chrome_end(struct chrome *c, int64_t pid, int64_t tid, int64_t at_ns);
/* phase s: an arrow begins here; f: it ends here. Both bind to the slice that is open. */
void chrome_flow(struct chrome *c, char phase, int64_t pid, int64_t tid, int64_t at_ns, int64_t run, int64_t id);
void chrome_counter(struct chrome *c, int64_t pid, int64_t at_ns, const char *name);
void chrome_instant(struct chrome *c, int64_t pid, int64_t at_ns, const char *name);
/* process_name (tid 0), thread_name */
void chrome_name(struct chrome *c, int64_t pid, int64_t tid, const char *name);
void chrome_arg_text(struct chrome *c, const char *name, const char *value);
void chrome_arg_number(struct chrome *c, const char *name, int64_t value);

/* ---- export_spans.c: OTLP/JSON ---- */

enum { SPAN_INTERNAL = 1, SPAN_SERVER = 2, SPAN_CLIENT = 3 }; /* opentelemetry.proto.trace.v1.Span.SpanKind */

struct span {
    const char *trace_id, *span_id, *parent_id; /* parent NULL or "": none */
    const char *name;
    int kind;
    int64_t from_ns, to_ns; /* since 1970 */
    const char *failure;    /* NULL: it went well */
};

/* Spans of one run, in batches: each is one ExportTraceServiceRequest, a line of the file or the body of a POST. */
struct spans {
    FILE *out;              /* NULL: no file */
    struct otlp_push *push; /* NULL: none */
    struct text resource;   /* attributes of the run, each with its comma */
    struct text batch, attributes, links;
    size_t in_batch;
    int64_t all, batches;
};

/* Puts the span, with what was added to `attributes` and `links` since the last one, into the batch; a full one goes out. */
int span_add(struct spans *s, const struct span *span, struct lathe_error *err);
int spans_flush(struct spans *s, struct lathe_error *err);
void span_text(struct text *attributes, const char *name, const char *value); /* NULL: nothing */
void span_number(struct text *attributes, const char *name, int64_t value);
void span_link(struct spans *s, const char *trace_id, const char *span_id);

/* ---- otlp_push.c ---- */

struct otlp_push;

int otlp_push_open(const struct export_arguments *a, struct otlp_push **push, struct lathe_error *err);
int otlp_push_send(struct otlp_push *push, const char *json, size_t bytes, struct lathe_error *err);
/* Spans that the collector said it didn't take, over all batches; *why is the last reason it gave. */
int64_t otlp_push_rejected(const struct otlp_push *push, const char **why);
void otlp_push_close(struct otlp_push *push);

#endif

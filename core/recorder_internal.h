/* SPDX-License-Identifier: MIT */
/* What the recorder's own files share: recorder.c (open, close, flush), recorder_run.c (runs,
 * cold rows), recorder_probes.c (what was asked for of layers and heads), recorder_events.c (producers, what a record looks like), recorder_writer.c (the
 * thread that owns the connection), recorder_lock.c (one writer a file), recorder_share.c (one
 * recorder a file, for all runs of this process). */
#ifndef CORE_RECORDER_INTERNAL_H
#define CORE_RECORDER_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "recorder.h"
#include "ring.h"

enum { RECORDER_MAX_PRODUCERS = 64, RECORDER_MAX_PROBES = 64 };

/* Rows that are written now and then, by [main], with texts of any length. */
enum cold_kind { COLD_RUN, COLD_RUN_END, COLD_FACTOR, COLD_ARTIFACT, COLD_PLUGIN, COLD_PROBE, COLD_LAYER_PROBE, COLD_INTERVENTION,
                 COLD_TOKEN_TEXT, COLD_COUNT };

struct bytes {
    uint8_t *data;
    size_t used, capacity;
};

struct producer {
    struct recorder *recorder;
    int on_full;                      /* enum recorder_on_full */
    struct ring small, bulk;
    uint64_t small_bound, bulk_bound; /* the writer's: how far this pass goes */
    _Atomic uint64_t dropped_events, dropped_attention;
};

struct recorder_run {
    struct recorder *recorder;
    struct recorder_run *next;
    int64_t id;
    struct recorder_params rings;     /* of producers to come */
    struct producer *producers[RECORDER_MAX_PRODUCERS];
    atomic_uint producer_count;
    struct lathe_probe probes[RECORDER_MAX_PROBES]; /* under list_lock */
    unsigned probe_count;
    _Atomic uint64_t rejected_events, rejected_attention; /* rows that SQLite would not take */
    struct lathe_error complaint; /* the first such, under lock */
};

struct recorder {
    char *path;      /* as it was named, for sentences */
    char *lock_path;
    int lock_fd;
    struct recorder_params params;
    sqlite3 *db;     /* the writer's, once it runs */
    sqlite3_stmt *begin, *commit, *attention, *layers;
    sqlite3_stmt *events[RECORD_EVENT_COUNT], *cold_rows[COLD_COUNT];
    int in_transaction;
    int64_t next_run;

    pthread_t writer;
    atomic_int stopped; /* a failure ended recording: producers drop */
    atomic_int pressed; /* a ring is filling: don't wait for the interval */

    /* Lock order: list_lock, then lock. The writer holds list_lock through a pass, lock only
     * for moments. */
    pthread_mutex_t list_lock;
    struct recorder_run *runs;

    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    uint64_t requested, completed; /* flushes */
    int stop;
    struct bytes cold;
    struct lathe_error failure;    /* code 0: none */
};

/* recorder_lock.c: a lock on PATH-lock that lasts as long as the process. LATHE_EBUSY names the holder. */
int recorder_lock(struct recorder *recorder, const char *real_path, struct lathe_error *err);
void recorder_unlock(struct recorder *recorder);

/* recorder_events.c */
int producer_open(struct recorder *recorder, const struct recorder_params *rings, struct producer **producer,
                  struct lathe_error *err);
void producer_close(struct producer *producer);
/* The INSERT of an event's table; malloc'd. */
char *event_insert_sql(int event);
const char *event_table(int event);
/* Binds a record's columns from parameter 2 on; 0, or −1 if the bytes are not a record. */
int event_bind(sqlite3_stmt *stmt, int event, const uint8_t *data, size_t bytes);
/* Text of any bytes: what is no UTF-8, and NUL, becomes U+FFFD. `data` must live until the statement is reset. */
int bind_text(sqlite3_stmt *stmt, int index, const void *data, size_t bytes);

/* recorder_run.c */
/* Appends a row. `shape` has a letter a value: i int64_t, n int64_t or RECORD_NULL, r double (NaN: NULL), s string
 * or NULL, b bytes (const void *, size_t). */
int cold_put(struct recorder_run *run, int kind, struct lathe_error *err, const char *shape, ...);
extern const char *const cold_sql[COLD_COUNT];
/* Binds and steps each row of `cold`, calling back with its run's number and SQLite's answer. */
typedef int cold_done(struct recorder *recorder, int64_t run_id, int kind, int rc);
int cold_write(struct recorder *recorder, const struct bytes *cold, cold_done *done);
void run_free(struct recorder_run *run);

/* recorder_writer.c */
void *writer_main(void *recorder);

#endif

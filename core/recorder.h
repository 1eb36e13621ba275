/* SPDX-License-Identifier: MIT */
/* The recorder: events in, rows in SQLite out.
 *
 *     engine thread ──ring──▶┐
 *     worker thread ──ring──▶├─ writer thread ─ two transactions a flush interval ─▶ WAL
 *     probe (bulk)  ──ring──▶┘
 *
 * A producer is one thread's pair of rings (small variable records; bulk for attention):
 * no lock, no allocation, no system call to record. The writer thread owns the only
 * writing connection; everything else that must be written (runs, factors, artifacts)
 * goes through it too. A run that is killed loses at most the last flush interval, and
 * is marked `cut_short` when the database is next opened. The writer begins to write twice an
 * interval, so that what was recorded is committed before it is an interval old (while one
 * transaction, and a checkpoint behind it, take less than half the interval). */
#ifndef CORE_RECORDER_H
#define CORE_RECORDER_H

#include <stddef.h>
#include <stdint.h>

#include "events.h"
#include <lathe/attention.h>
#include <lathe/intervention.h>
#include <lathe/status.h>

struct recorder;
struct recorder_run;
struct producer;

enum recorder_on_full { RECORDER_WAIT = 0, RECORDER_DROP = 1 };

struct recorder_params {
    const char *path;            /* made if absent, migrated if older, refused if newer */
    int64_t flush_interval_ns;   /* the oldest that an uncommitted row may be; 0: 200 ms */
    size_t ring_bytes;           /* a producer's small ring; 0: 4 MiB */
    size_t bulk_bytes;           /* a producer's bulk ring; 0: 16 MiB; must hold the worst step */
    int on_full;                 /* enum recorder_on_full */
};

/* Opens or makes the database, marks runs left `running` by a dead process `cut_short`,
 * starts the writer. An unwritable, foreign or newer file is one sentence. [main] */
int recorder_open(const struct recorder_params *params, struct recorder **recorder, struct lathe_error *err);
/* Everything recorded is on disk, or the error says what is not. [main] */
int recorder_close(struct recorder *recorder, struct lathe_error *err);
/* Waits until all that was recorded before the call can be read by another connection. [main] */
int recorder_flush(struct recorder *recorder, struct lathe_error *err);
const char *recorder_path(const struct recorder *recorder);

/* A run's row. Strings may be NULL and are copied. */
struct run_info {
    const char *label, *experiment, *question, *sweep;
    int64_t seed_index;          /* −1: none */
    const char *clock;           /* "real", "virtual" */
    uint64_t seed;
    const char *config_json, *machine_json, *argv_json; /* valid JSON or NULL */
    const char *config_hash, *commit_id;
    const char *key;             /* equal for runs of the same experiment (run_key.h); NULL: none */
    int dirty;                   /* the build's tree: 1 changed, 0 clean, −1 unknown */
};

int recorder_run_begin(struct recorder *recorder, const struct run_info *info, struct recorder_run **run,
                       struct lathe_error *err);
/* state: "done" or "failed". Drains, writes dropped_events, frees the run and its producers. [main] */
int recorder_run_end(struct recorder_run *run, const char *state, struct lathe_error *err);
int64_t recorder_run_id(const struct recorder_run *run);
/* The rings of the run's producers to come: ring_bytes, bulk_bytes and on_full of `params`, for a
 * run that shares a recorder which was opened for another. [main] */
void recorder_run_rings(struct recorder_run *run, const struct recorder_params *params);

/* One recorder a file is shared by the runs of this process: opened by the first to borrow it,
 * closed by the last to give it back. The first decides the flush interval; rings are each run's
 * own (recorder_run_rings). [any] */
int recorder_borrow(const struct recorder_params *params, struct recorder **recorder, struct lathe_error *err);
int recorder_return(struct recorder *recorder, struct lathe_error *err);

/* Cold rows, through the writer, in order with the rest. [main] */
int recorder_factor(struct recorder_run *run, const char *name, const char *value_json, struct lathe_error *err);
int recorder_artifact(struct recorder_run *run, const char *kind, const char *name, const char *version,
                      const char *uri, const char *sha256, struct lathe_error *err);
int recorder_plugin(struct recorder_run *run, const char *kind, const char *name, const char *version, uint32_t abi,
                    const char *sha256, const char *options_json, int64_t from_ns, int64_t to_ns /* or RECORD_NULL */,
                    struct lathe_error *err);
/* A row of `probe` or, of the formats of layers, of `layer_probe`. */
int recorder_probe(struct recorder_run *run, const struct lathe_probe *probe, struct lathe_error *err);
/* A row of `intervention`, number `id`; `keys` is what its key_first counts into. */
int recorder_intervention(struct recorder_run *run, int64_t id, const struct lathe_intervention *intervention,
                          const int32_t *keys, struct lathe_error *err);
/* The vocabulary, once a run, so that SQL can show a token's text (table token_text). `text`
 * is any bytes; stored as TEXT after U+FFFD replacement. May be called for each id used. */
int recorder_token_text(struct recorder_run *run, int32_t token, const char *text, size_t bytes,
                        struct lathe_error *err);

/* A ring pair for one thread; it lives until run_end. [main] */
int recorder_producer(struct recorder_run *run, struct producer **producer, struct lathe_error *err);

/* void record_step(struct producer *, const struct record_step *) and so on, one for each event.
 * NULL producer: nothing recorded. Full: waits or drops, as the recorder was opened.
 * [the producer's thread; engine & running] */
#define RECORD_DECLARE(table, key, COLUMNS) \
    void record_##table(struct producer *producer, const struct record_##table *event);
RECORD_EVENTS(RECORD_DECLARE)
#undef RECORD_DECLARE

/* Room for up to `bytes` of attention records (<lathe/attention.h>), contiguous, 64-aligned;
 * NULL when dropped (counted) or when `bytes` is more than the bulk ring holds. At most
 * one reservation at a time; commit says how much of it was used (0: nothing), and by which step. */
void *record_attention_reserve(struct producer *producer, size_t bytes);
void record_attention_commit(struct producer *producer, size_t used, int64_t step_id);
size_t record_attention_capacity(const struct producer *producer);

/* Dropped so far, of small events and of attention bytes. [any] */
void recorder_dropped(const struct recorder_run *run, uint64_t *events, uint64_t *attention_rows);

#endif

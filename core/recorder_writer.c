/* SPDX-License-Identifier: MIT */
/* The writer thread: twice a flush interval, when a ring is filling, or when somebody waits
 * for a flush, it makes one pass:
 *
 *     note how far each ring has come (bulk first) → take the cold rows → one transaction:
 *     cold rows, small events, attention → commit → tell who waits
 *
 * Twice, and counted from where a pass begins: a row that a pass just missed waits for the
 * next one to begin (half an interval, or as long as this pass takes) and then to commit. So
 * it is committed within the interval while a pass takes less than half of it. Were passes a
 * whole interval apart, or counted from their ends, it would wait for the interval and a pass.
 *
 * The order matters: what is noted first may refer to what is taken later, never the other
 * way round. A row that the schema refuses is counted and told of, and the rest goes on; a
 * failure of the file ends recording, with what was committed before it kept. */
#include "recorder_internal.h"
#include "recorder_schema.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct recorder_run *find_run(struct recorder *recorder, int64_t id)
{
    struct recorder_run *run = recorder->runs;
    while (run && run->id != id)
        run = run->next;
    return run;
}

/* The file itself failed: nothing more is recorded. */
static int fail(struct recorder *recorder, const char *doing)
{
    struct lathe_error err;
    int status = schema_fail(recorder->db, recorder->path, doing, &err);
    if (!sqlite3_get_autocommit(recorder->db))
        sqlite3_exec(recorder->db, "ROLLBACK", NULL, NULL, NULL);
    recorder->in_transaction = 0;
    pthread_mutex_lock(&recorder->lock);
    recorder->failure = err;
    pthread_mutex_unlock(&recorder->lock);
    atomic_store_explicit(&recorder->stopped, 1, memory_order_release);
    return status;
}

static void complain(struct recorder_run *run, const char *table, const char *why)
{
    if (!run)
        return;
    pthread_mutex_lock(&run->recorder->lock);
    if (!run->complaint.code)
        lathe_fail(&run->complaint, LATHE_EINVAL, "%s: run %lld: a row of table %s was refused: %s", run->recorder->path,
                   (long long)run->id, table, why);
    pthread_mutex_unlock(&run->recorder->lock);
}

static int begin(struct recorder *recorder)
{
    if (recorder->in_transaction)
        return LATHE_OK;
    int rc = sqlite3_step(recorder->begin);
    sqlite3_reset(recorder->begin);
    if (rc != SQLITE_DONE)
        return fail(recorder, "beginning to write");
    recorder->in_transaction = 1;
    return LATHE_OK;
}

/* Judges a statement's answer: fine, the row's fault, or the file's. */
static int judge(struct recorder *recorder, struct recorder_run *run, const char *table, int rc,
                 _Atomic uint64_t *rejected)
{
    if (rc == SQLITE_DONE || rc == SQLITE_ROW)
        return LATHE_OK;
    int basic = rc & 0xff;
    if (basic == SQLITE_CONSTRAINT || basic == SQLITE_TOOBIG || basic == SQLITE_MISMATCH) {
        if (rejected)
            atomic_fetch_add(rejected, 1);
        complain(run, table, sqlite3_errmsg(recorder->db));
        return LATHE_OK;
    }
    return fail(recorder, "writing rows");
}

static int cold_judge(struct recorder *recorder, int64_t run_id, int kind, int rc)
{
    static const char *const tables[COLD_COUNT] = { "run",    "run",   "run_factor", "artifact",
                                                    "plugin", "probe", "layer_probe", "intervention",
                                                    "token_text" };
    struct recorder_run *run = find_run(recorder, run_id);
    return judge(recorder, run, tables[kind], rc, run ? &run->rejected_events : NULL);
}

static int write_events(struct recorder *recorder, struct recorder_run *run, struct producer *producer)
{
    const struct ring_record *record;
    const void *data;
    while ((record = ring_peek(&producer->small, producer->small_bound, &data)) != NULL) {
        int event = (int)record->tag;
        sqlite3_stmt *stmt = recorder->events[event];
        sqlite3_bind_int64(stmt, 1, run->id);
        event_bind(stmt, event, data, record->bytes);
        int rc = sqlite3_step(stmt);
        int status = judge(recorder, run, event_table(event), rc, &run->rejected_events);
        sqlite3_reset(stmt);
        ring_release(&producer->small);
        if (status != LATHE_OK)
            return status;
    }
    return LATHE_OK;
}

static const struct lathe_probe *find_probe(const struct recorder_run *run, uint32_t id)
{
    for (unsigned i = 0; i < run->probe_count; i++)
        if (run->probes[i].id == id)
            return &run->probes[i];
    return NULL;
}

/* One committed region: records head to tail. */
static int write_attention(struct recorder *recorder, struct recorder_run *run, const uint8_t *data, size_t bytes,
                           int64_t step_id)
{
    while (bytes > 0) {
        struct lathe_attention_row row;
        const struct lathe_probe *probe = NULL;
        size_t length = 0;
        if (bytes >= sizeof row) {
            memcpy(&row, data, sizeof row);
            probe = find_probe(run, row.probe);
        }
        if (probe)
            length = lathe_probe_count(probe->layers) * lathe_probe_layer_bytes(probe, row.keys);
        int of_layers = probe && lathe_probe_of_layers(probe->format);
        const char *table = of_layers ? "layer_token" : "attention_token";
        sqlite3_stmt *stmt = of_layers ? recorder->layers : recorder->attention;
        if (!probe || row.bytes % 16 || row.bytes > bytes || length > row.bytes - sizeof row ||
            row.bytes < sizeof row) {
            atomic_fetch_add(&run->rejected_attention, 1);
            complain(run, table,
                     probe ? "its record is not as long as its probe makes it" : "its probe is not in table probe");
            return LATHE_OK; /* where the next record begins can't be known */
        }
        sqlite3_bind_int64(stmt, 1, run->id);
        sqlite3_bind_int64(stmt, 2, (int64_t)row.request);
        sqlite3_bind_int64(stmt, 3, row.position);
        sqlite3_bind_int64(stmt, 4, step_id);
        sqlite3_bind_int64(stmt, 5, row.probe);
        sqlite3_bind_blob64(stmt, 6, data + sizeof row, length, SQLITE_STATIC);
        if (!of_layers)
            sqlite3_bind_int64(stmt, 7, row.keys);
        int rc = sqlite3_step(stmt);
        int status = judge(recorder, run, table, rc, &run->rejected_attention);
        sqlite3_reset(stmt);
        if (status != LATHE_OK)
            return status;
        data += row.bytes;
        bytes -= row.bytes;
    }
    return LATHE_OK;
}

static int write_bulk(struct recorder *recorder, struct recorder_run *run, struct producer *producer)
{
    const struct ring_record *record;
    const void *data;
    while ((record = ring_peek(&producer->bulk, producer->bulk_bound, &data)) != NULL) {
        int status = write_attention(recorder, run, data, record->bytes, record->tag);
        ring_release(&producer->bulk);
        if (status != LATHE_OK)
            return status;
    }
    return LATHE_OK;
}

static int commit(struct recorder *recorder)
{
    if (!recorder->in_transaction)
        return LATHE_OK;
    int rc = sqlite3_step(recorder->commit);
    sqlite3_reset(recorder->commit);
    if (rc != SQLITE_DONE)
        return fail(recorder, "committing");
    recorder->in_transaction = 0;
    return LATHE_OK;
}

static void pass(struct recorder *recorder)
{
    struct bytes cold;
    int any = 0;

    pthread_mutex_lock(&recorder->list_lock);
    for (struct recorder_run *run = recorder->runs; run; run = run->next)
        for (unsigned i = 0, n = atomic_load(&run->producer_count); i < n; i++) {
            struct producer *p = run->producers[i];
            const void *data;
            p->bulk_bound = ring_head(&p->bulk);
            p->small_bound = ring_head(&p->small);
            any |= ring_peek(&p->bulk, p->bulk_bound, &data) || ring_peek(&p->small, p->small_bound, &data);
        }
    pthread_mutex_lock(&recorder->lock);
    cold = recorder->cold;
    recorder->cold = (struct bytes){ 0 };
    pthread_mutex_unlock(&recorder->lock);
    any |= cold.used > 0;

    if (any && !atomic_load(&recorder->stopped)) {
        int status = begin(recorder);
        if (status == LATHE_OK)
            status = cold_write(recorder, &cold, cold_judge);
        /* All small rows first: a thread's attention may follow a request that another recorded. */
        for (struct recorder_run *run = recorder->runs; status == LATHE_OK && run; run = run->next)
            for (unsigned i = 0, n = atomic_load(&run->producer_count); status == LATHE_OK && i < n; i++)
                status = write_events(recorder, run, run->producers[i]);
        for (struct recorder_run *run = recorder->runs; status == LATHE_OK && run; run = run->next)
            for (unsigned i = 0, n = atomic_load(&run->producer_count); status == LATHE_OK && i < n; i++)
                status = write_bulk(recorder, run, run->producers[i]);
        if (status == LATHE_OK)
            commit(recorder);
    }
    pthread_mutex_unlock(&recorder->list_lock);
    free(cold.data);
}

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void *writer_main(void *argument)
{
    struct recorder *recorder = argument;
    const int64_t period = recorder->params.flush_interval_ns / 2;
    int64_t next = monotonic_ns() + period;
    for (;;) {
        struct timespec until = { .tv_sec = next / 1000000000, .tv_nsec = next % 1000000000 };
        pthread_mutex_lock(&recorder->lock);
        while (!recorder->stop && recorder->requested == recorder->completed && !atomic_load(&recorder->pressed) &&
               monotonic_ns() < next)
            pthread_cond_timedwait(&recorder->wake, &recorder->lock, &until);
        uint64_t wanted = recorder->requested;
        int stop = recorder->stop;
        pthread_mutex_unlock(&recorder->lock);

        atomic_store(&recorder->pressed, 0);
        next = monotonic_ns() + period;
        pass(recorder);

        pthread_mutex_lock(&recorder->lock);
        recorder->completed = wanted;
        pthread_cond_broadcast(&recorder->done);
        pthread_mutex_unlock(&recorder->lock);
        if (stop)
            return NULL;
    }
}

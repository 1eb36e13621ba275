/* SPDX-License-Identifier: MIT */
/* Opening, flushing and closing a recorder. How rows get from a producer into the file is in
 * recorder_events.c and recorder_writer.c.
 *
 * Opening takes the file's lock first (recorder_lock.c): then any run that is still marked
 * `running` lost its process, and is marked `cut_short`. */
#include "recorder_internal.h"
#include "recorder_schema.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define DEFAULT_FLUSH_NS 200000000 /* what a kill may lose: a fifth of a second */
#define BUSY_MS 5000               /* how long another's lock is waited for */

/* The path with its folder resolved, so that every name of a file has one lock. Makes the
 * folder if only that is missing. */
static int real_path_of(const char *path, char *real, struct lathe_error *err)
{
    struct stat st;
    char folder[PATH_MAX], copy[PATH_MAX];
    if (!path || !*path)
        return lathe_fail(err, LATHE_EINVAL, "the database needs a file name");
    if (strlen(path) >= PATH_MAX - 8)
        return lathe_fail(err, LATHE_EINVAL, "the database's file name is too long");
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return lathe_fail(err, LATHE_EINVAL, "%s is a folder; name a file in it, such as %s/x.db", path, path);
        if (!S_ISREG(st.st_mode))
            return lathe_fail(err, LATHE_EINVAL, "%s is not a regular file; name another", path);
        if (realpath(path, real))
            return LATHE_OK;
    }
    strcpy(copy, path);
    const char *parent = dirname(copy);
    if (stat(parent, &st) != 0 && errno == ENOENT && mkdir(parent, 0777) != 0)
        return lathe_fail(err, LATHE_EIO, "%s: can't make the folder %s: %s; make it, or name another file", path, parent,
                          strerror(errno));
    if (!realpath(parent, folder))
        return lathe_fail(err, LATHE_EIO, "%s: can't reach the folder %s: %s", path, parent, strerror(errno));
    strcpy(copy, path);
    if (path[strlen(path) - 1] == '/' || snprintf(real, PATH_MAX, "%s/%s", folder, basename(copy)) >= PATH_MAX)
        return lathe_fail(err, LATHE_EINVAL, "%s is no file name; name a file", path);
    return LATHE_OK;
}

static int exec(struct recorder *recorder, const char *sql, const char *doing, struct lathe_error *err)
{
    return sqlite3_exec(recorder->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? LATHE_OK
               : schema_fail(recorder->db, recorder->path, doing, err);
}

static int prepare(struct recorder *recorder, const char *sql, sqlite3_stmt **stmt, struct lathe_error *err)
{
    return sqlite3_prepare_v3(recorder->db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL) == SQLITE_OK
               ? LATHE_OK
               : schema_fail(recorder->db, recorder->path, "preparing to write", err);
}

static int prepare_all(struct recorder *recorder, struct lathe_error *err)
{
    int status = prepare(recorder, "BEGIN IMMEDIATE", &recorder->begin, err);
    if (status == LATHE_OK)
        status = prepare(recorder, "COMMIT", &recorder->commit, err);
    /* A position that is computed again, after its request was preempted, stays what it was when its token came out. */
    if (status == LATHE_OK)
        status = prepare(recorder,
                         "INSERT INTO attention_token (run_id, request_id, position, step_id, probe_id, data, keys)"
                         " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                         &recorder->attention, err);
    if (status == LATHE_OK)
        status = prepare(recorder,
                         "INSERT INTO layer_token (run_id, request_id, position, step_id, probe_id, data)"
                         " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                         &recorder->layers, err);
    for (int i = 0; status == LATHE_OK && i < COLD_COUNT; i++)
        status = prepare(recorder, cold_sql[i], &recorder->cold_rows[i], err);
    for (int i = 0; status == LATHE_OK && i < RECORD_EVENT_COUNT; i++) {
        char *sql = event_insert_sql(i);
        if (!sql)
            return lathe_fail(err, LATHE_ENOMEM, "%s: out of memory", recorder->path);
        status = prepare(recorder, sql, &recorder->events[i], err);
        free(sql);
    }
    return status;
}

static int open_database(struct recorder *recorder, const char *real, struct lathe_error *err)
{
    int state, version, status;
    int rc = sqlite3_open_v2(real, &recorder->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                             NULL);
    if (rc != SQLITE_OK)
        return schema_fail(recorder->db, recorder->path, "opening it", err);
    sqlite3_busy_timeout(recorder->db, BUSY_MS);
    status = schema_harden(recorder->db, err);
    if (status == LATHE_OK)
        status = schema_inspect(recorder->db, recorder->path, &state, &version, err);
    if (status != LATHE_OK)
        return status;
    if (state == SCHEMA_NEWER)
        return lathe_fail(err, LATHE_EUNSUPPORTED,
                          "%s was made by a newer lathe (schema %d, this one knows %d); update lathe, or name another file",
                          recorder->path, version, schema_file_count);
    if (state == SCHEMA_FOREIGN)
        return lathe_fail(err, LATHE_EFORMAT, "%s is another program's SQLite database; name another file", recorder->path);
    if (sqlite3_db_readonly(recorder->db, "main") == 1)
        return lathe_fail(err, LATHE_EIO, "%s can't be written; change its permissions, or name another file",
                          recorder->path);
    status = exec(recorder,
                  "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = OFF;"
                  "PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;",
                  "preparing it", err);
    if (status == LATHE_OK)
        status = schema_apply(recorder->db, recorder->path, version, err);
    if (status == LATHE_OK)
        status = exec(recorder, "UPDATE run SET state = 'cut_short' WHERE state = 'running'", "marking runs that were cut short",
                      err);
    if (status == LATHE_OK)
        status = prepare_all(recorder, err);
    if (status != LATHE_OK)
        return status;

    sqlite3_stmt *stmt = NULL;
    status = prepare(recorder, "SELECT ifnull(max(id), 0) + 1 FROM run", &stmt, err);
    if (status == LATHE_OK && sqlite3_step(stmt) == SQLITE_ROW)
        recorder->next_run = sqlite3_column_int64(stmt, 0);
    else if (status == LATHE_OK)
        status = schema_fail(recorder->db, recorder->path, "reading its runs", err);
    sqlite3_finalize(stmt);
    return status;
}

static void dispose(struct recorder *recorder)
{
    while (recorder->runs) {
        struct recorder_run *run = recorder->runs;
        recorder->runs = run->next;
        run_free(run);
    }
    sqlite3_finalize(recorder->begin);
    sqlite3_finalize(recorder->commit);
    sqlite3_finalize(recorder->attention);
    sqlite3_finalize(recorder->layers);
    for (int i = 0; i < RECORD_EVENT_COUNT; i++)
        sqlite3_finalize(recorder->events[i]);
    for (int i = 0; i < COLD_COUNT; i++)
        sqlite3_finalize(recorder->cold_rows[i]);
    sqlite3_close(recorder->db);
    recorder_unlock(recorder);
    pthread_mutex_destroy(&recorder->list_lock);
    pthread_mutex_destroy(&recorder->lock);
    pthread_cond_destroy(&recorder->wake);
    pthread_cond_destroy(&recorder->done);
    free(recorder->cold.data);
    free(recorder->lock_path);
    free(recorder->path);
    free(recorder);
}

int recorder_open(const struct recorder_params *params, struct recorder **recorder, struct lathe_error *err)
{
    char real[PATH_MAX];
    pthread_condattr_t monotonic;
    int status = real_path_of(params->path, real, err);
    if (status != LATHE_OK)
        return status;
    struct recorder *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(params->path))) {
        free(r);
        return lathe_fail(err, LATHE_ENOMEM, "%s: out of memory", params->path);
    }
    r->lock_fd = -1;
    r->params = *params;
    r->params.path = r->path;
    if (r->params.flush_interval_ns <= 0)
        r->params.flush_interval_ns = DEFAULT_FLUSH_NS;
    if (r->params.ring_bytes == 0)
        r->params.ring_bytes = 4 << 20;
    if (r->params.bulk_bytes == 0)
        r->params.bulk_bytes = 16 << 20;
    pthread_mutex_init(&r->list_lock, NULL);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_cond_init(&r->done, NULL);
    pthread_condattr_destroy(&monotonic);

    status = recorder_lock(r, real, err);
    if (status == LATHE_OK)
        status = open_database(r, real, err);
    if (status == LATHE_OK && pthread_create(&r->writer, NULL, writer_main, r) != 0)
        status = lathe_fail(err, LATHE_ENOMEM, "%s: no thread to write it with", r->path);
    if (status != LATHE_OK) {
        dispose(r);
        return status;
    }
    *recorder = r;
    return LATHE_OK;
}

int recorder_flush(struct recorder *recorder, struct lathe_error *err)
{
    int code;
    pthread_mutex_lock(&recorder->lock);
    uint64_t mine = ++recorder->requested;
    pthread_cond_signal(&recorder->wake);
    while (recorder->completed < mine)
        pthread_cond_wait(&recorder->done, &recorder->lock);
    code = recorder->failure.code;
    if (code && err)
        *err = recorder->failure;
    pthread_mutex_unlock(&recorder->lock);
    return code;
}

int recorder_close(struct recorder *recorder, struct lathe_error *err)
{
    int status;
    if (!recorder)
        return LATHE_OK;
    pthread_mutex_lock(&recorder->lock);
    recorder->stop = 1;
    pthread_cond_signal(&recorder->wake);
    pthread_mutex_unlock(&recorder->lock);
    pthread_join(recorder->writer, NULL); /* after a last pass */
    status = recorder->failure.code;
    if (status && err)
        *err = recorder->failure;
    if (recorder->runs && status == LATHE_OK) /* nobody ended them */
        status = exec(recorder, "UPDATE run SET state = 'cut_short' WHERE state = 'running'", "closing it", err);
    dispose(recorder);
    return status;
}

const char *recorder_path(const struct recorder *recorder)
{
    return recorder->path;
}

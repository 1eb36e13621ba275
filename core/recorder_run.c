/* SPDX-License-Identifier: MIT */
/* Runs, and the cold rows that describe them: factors, artifacts, plugins, the words of the
 * vocabulary (probes and interventions: recorder_probes.c). They have texts of any length and come from [main], so they wait in a
 * buffer under a lock instead of a ring; the writer takes the buffer before the rings, and
 * so a run's row is there before the rows that refer to it. */
#include "recorder_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { COLD_LIMIT_BYTES = 16 << 20 };

/* ?1 is the run everywhere. */
const char *const cold_sql[COLD_COUNT] = {
    [COLD_RUN] = "INSERT INTO run (id, uid, label, experiment, question, sweep, seed_index, config_hash, started_at, state,"
                 " clock, seed, config, machine, commit_id, dirty, argv, key)"
                 " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'running', ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    [COLD_RUN_END] = "UPDATE run SET state = ?2, dropped_events = ?3 WHERE id = ?1",
    [COLD_FACTOR] = "INSERT INTO run_factor (run_id, name, value) VALUES (?1, ?2, ?3)"
                    " ON CONFLICT DO UPDATE SET value = excluded.value",
    [COLD_ARTIFACT] = "INSERT INTO artifact (run_id, kind, name, version, uri, sha256) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
                      " ON CONFLICT DO UPDATE SET version = excluded.version, uri = excluded.uri, sha256 = excluded.sha256",
    [COLD_PLUGIN] = "INSERT INTO plugin (run_id, kind, name, version, abi, sha256, options, from_ns, to_ns)"
                    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
                    " ON CONFLICT DO UPDATE SET options = excluded.options, to_ns = excluded.to_ns",
    [COLD_PROBE] = "INSERT INTO probe (run_id, id, layers, heads, format, top_k, recent_window, first_position,"
                   " last_position, every_n_positions, measure) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [COLD_LAYER_PROBE] = "INSERT INTO layer_probe (run_id, id, layers, heads, format, top_k, width, first_position,"
                         " last_position, every_n_positions) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    [COLD_INTERVENTION] = "INSERT INTO intervention (run_id, id, kind, layers, heads, factor, keys, first_position,"
                          " last_position) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [COLD_TOKEN_TEXT] = "INSERT INTO token_text (run_id, token, text) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
};

/* ---- the buffer ----------------------------------------------------------------------- */

/* A row: its whole length, kind, run; then values, each a letter and what it says:
 * n nothing, i and r 8 bytes, t length (8 bytes) and bytes. */
struct cold_row {
    uint64_t bytes;
    int64_t run_id;
    uint64_t kind;
};

static int grow(struct bytes *b, size_t more)
{
    if (more > SIZE_MAX / 4 || b->used > SIZE_MAX / 4)
        return -1;
    if (b->used + more > b->capacity) {
        size_t capacity = 2 * (b->used + more);
        uint8_t *data = realloc(b->data, capacity);
        if (!data)
            return -1;
        b->data = data;
        b->capacity = capacity;
    }
    return 0;
}

static int put(struct bytes *b, const void *data, size_t bytes)
{
    if (grow(b, bytes) != 0)
        return -1;
    memcpy(b->data + b->used, data, bytes);
    b->used += bytes;
    return 0;
}

int cold_put(struct recorder_run *run, int kind, struct lathe_error *err, const char *shape, ...)
{
    struct recorder *recorder = run->recorder;
    struct cold_row row = { 0, run->id, (uint64_t)kind };
    int failed = 0;
    va_list args;

    pthread_mutex_lock(&recorder->lock);
    if (recorder->failure.code) {
        *err = recorder->failure;
        pthread_mutex_unlock(&recorder->lock);
        return err->code;
    }
    int crowded = recorder->cold.used > COLD_LIMIT_BYTES;
    pthread_mutex_unlock(&recorder->lock);
    if (crowded) {
        int status = recorder_flush(recorder, err);
        if (status != LATHE_OK)
            return status;
    }

    pthread_mutex_lock(&recorder->lock);
    struct bytes *b = &recorder->cold;
    size_t start = b->used;
    failed |= put(b, &row, sizeof row);
    va_start(args, shape);
    for (const char *s = shape; *s; s++) {
        if (*s == 'r') {
            double value = va_arg(args, double);
            failed |= put(b, value == value ? "r" : "n", 1);
            if (value == value)
                failed |= put(b, &value, sizeof value);
        } else if (*s == 'i' || *s == 'n') {
            int64_t value = va_arg(args, int64_t);
            char letter = *s == 'n' && value == RECORD_NULL ? 'n' : 'i';
            failed |= put(b, &letter, 1);
            if (letter == 'i')
                failed |= put(b, &value, sizeof value);
        } else {
            const void *data = va_arg(args, const void *);
            uint64_t n = *s == 'b' ? va_arg(args, size_t) : data ? strlen(data) : 0;
            char letter = data ? 't' : 'n';
            failed |= put(b, &letter, 1);
            if (data) {
                failed |= put(b, &n, sizeof n);
                failed |= put(b, data, n);
            }
        }
    }
    va_end(args);
    if (failed)
        b->used = start;
    else {
        row.bytes = b->used - start;
        memcpy(b->data + start, &row, sizeof row);
    }
    pthread_mutex_unlock(&recorder->lock);
    return failed ? lathe_fail(err, LATHE_ENOMEM, "%s: no memory to keep a row", recorder->path) : LATHE_OK;
}

int cold_write(struct recorder *recorder, const struct bytes *cold, cold_done *done)
{
    for (size_t at = 0; at < cold->used;) {
        struct cold_row row;
        memcpy(&row, cold->data + at, sizeof row);
        const uint8_t *p = cold->data + at + sizeof row, *end = cold->data + at + row.bytes;
        sqlite3_stmt *stmt = recorder->cold_rows[row.kind];
        int index = 1;
        sqlite3_bind_int64(stmt, index++, row.run_id);
        while (p < end) {
            uint8_t letter = *p++;
            uint64_t n = 0;
            if (letter == 'n') {
                sqlite3_bind_null(stmt, index++);
                continue;
            }
            memcpy(&n, p, sizeof n);
            p += sizeof n;
            double real;
            memcpy(&real, &n, sizeof real);
            if (letter == 'i')
                sqlite3_bind_int64(stmt, index++, (int64_t)n);
            else if (letter == 'r')
                sqlite3_bind_double(stmt, index++, real);
            else {
                bind_text(stmt, index++, p, n);
                p += n;
            }
        }
        int rc = sqlite3_step(stmt);
        int status = done(recorder, row.run_id, (int)row.kind, rc);
        sqlite3_reset(stmt);
        sqlite3_clear_bindings(stmt);
        if (status != LATHE_OK)
            return status;
        at += row.bytes;
    }
    return LATHE_OK;
}

/* ---- runs ----------------------------------------------------------------------------- */

static int make_uid(char uid[37], struct lathe_error *err)
{
    uint8_t b[16];
    if (getrandom(b, sizeof b, 0) != sizeof b)
        return lathe_fail(err, LATHE_EIO, "the system gives no random numbers, so a run can't be named");
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    snprintf(uid, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return LATHE_OK;
}

void run_free(struct recorder_run *run)
{
    if (!run)
        return;
    unsigned count = atomic_load(&run->producer_count);
    for (unsigned i = 0; i < count; i++)
        producer_close(run->producers[i]);
    free(run);
}

static void leave(struct recorder_run *run)
{
    struct recorder *recorder = run->recorder;
    pthread_mutex_lock(&recorder->list_lock);
    for (struct recorder_run **at = &recorder->runs; *at; at = &(*at)->next)
        if (*at == run) {
            *at = run->next;
            break;
        }
    pthread_mutex_unlock(&recorder->list_lock);
    run_free(run);
}

/* What SQLite refused of this run's rows so far, as a status. */
static int complaint_of(struct recorder_run *run, struct lathe_error *err)
{
    int code;
    pthread_mutex_lock(&run->recorder->lock);
    code = run->complaint.code;
    if (code)
        *err = run->complaint;
    pthread_mutex_unlock(&run->recorder->lock);
    return code;
}

int recorder_run_begin(struct recorder *recorder, const struct run_info *info, struct recorder_run **run,
                       struct lathe_error *err)
{
    char uid[37];
    struct timespec t;
    int status = make_uid(uid, err);
    if (status != LATHE_OK)
        return status;
    struct recorder_run *r = calloc(1, sizeof *r);
    if (!r)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for a run", recorder->path);
    clock_gettime(CLOCK_REALTIME, &t);
    r->recorder = recorder;
    r->rings = recorder->params;
    pthread_mutex_lock(&recorder->list_lock);
    r->id = recorder->next_run++;
    r->next = recorder->runs;
    recorder->runs = r;
    pthread_mutex_unlock(&recorder->list_lock);

    status = cold_put(r, COLD_RUN, err, "sssssnsisisssnss", uid, info->label, info->experiment, info->question,
                      info->sweep, info->seed_index < 0 ? RECORD_NULL : info->seed_index, info->config_hash,
                      (int64_t)t.tv_sec * 1000000000 + t.tv_nsec, info->clock, (int64_t)info->seed, info->config_json,
                      info->machine_json, info->commit_id, info->dirty < 0 ? RECORD_NULL : (int64_t)info->dirty,
                      info->argv_json, info->key);
    if (status == LATHE_OK)
        status = recorder_flush(recorder, err);
    if (status == LATHE_OK)
        status = complaint_of(r, err);
    if (status != LATHE_OK) {
        leave(r);
        return status;
    }
    *run = r;
    return LATHE_OK;
}

int recorder_run_end(struct recorder_run *run, const char *state, struct lathe_error *err)
{
    struct recorder *recorder = run->recorder;
    uint64_t events, attention;
    int status = recorder_flush(recorder, err);
    if (status == LATHE_OK) {
        recorder_dropped(run, &events, &attention);
        status = cold_put(run, COLD_RUN_END, err, "si", state, (int64_t)(events + attention));
    }
    if (status == LATHE_OK)
        status = recorder_flush(recorder, err);
    if (status == LATHE_OK)
        status = complaint_of(run, err);
    leave(run);
    return status;
}

void recorder_run_rings(struct recorder_run *run, const struct recorder_params *params)
{
    run->rings.on_full = params->on_full;
    if (params->ring_bytes)
        run->rings.ring_bytes = params->ring_bytes;
    if (params->bulk_bytes)
        run->rings.bulk_bytes = params->bulk_bytes;
}

int64_t recorder_run_id(const struct recorder_run *run)
{
    return run->id;
}

void recorder_dropped(const struct recorder_run *run, uint64_t *events, uint64_t *attention_rows)
{
    unsigned count = atomic_load(&run->producer_count);
    *events = atomic_load(&run->rejected_events);
    *attention_rows = atomic_load(&run->rejected_attention);
    for (unsigned i = 0; i < count; i++) {
        *events += atomic_load(&run->producers[i]->dropped_events);
        *attention_rows += atomic_load(&run->producers[i]->dropped_attention);
    }
}

int recorder_producer(struct recorder_run *run, struct producer **producer, struct lathe_error *err)
{
    unsigned count = atomic_load(&run->producer_count);
    if (count == RECORDER_MAX_PRODUCERS)
        return lathe_fail(err, LATHE_EFULL, "a run has at most %d recording threads", RECORDER_MAX_PRODUCERS);
    int status = producer_open(run->recorder, &run->rings, producer, err);
    if (status != LATHE_OK)
        return status;
    pthread_mutex_lock(&run->recorder->list_lock);
    run->producers[count] = *producer;
    atomic_store(&run->producer_count, count + 1);
    pthread_mutex_unlock(&run->recorder->list_lock);
    return LATHE_OK;
}

/* ---- cold rows ------------------------------------------------------------------------ */

int recorder_factor(struct recorder_run *run, const char *name, const char *value_json, struct lathe_error *err)
{
    return cold_put(run, COLD_FACTOR, err, "ss", name, value_json);
}

int recorder_artifact(struct recorder_run *run, const char *kind, const char *name, const char *version,
                      const char *uri, const char *sha256, struct lathe_error *err)
{
    return cold_put(run, COLD_ARTIFACT, err, "sssss", kind, name, version, uri, sha256);
}

int recorder_plugin(struct recorder_run *run, const char *kind, const char *name, const char *version, uint32_t abi,
                    const char *sha256, const char *options_json, int64_t from_ns, int64_t to_ns,
                    struct lathe_error *err)
{
    return cold_put(run, COLD_PLUGIN, err, "sssissin", kind, name, version, (int64_t)abi, sha256, options_json,
                    from_ns, to_ns);
}

int recorder_token_text(struct recorder_run *run, int32_t token, const char *text, size_t bytes,
                        struct lathe_error *err)
{
    return cold_put(run, COLD_TOKEN_TEXT, err, "ib", (int64_t)token, (const void *)text, bytes);
}

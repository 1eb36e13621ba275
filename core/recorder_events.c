/* SPDX-License-Identifier: MIT */
/* The producer's half, and what an event looks like in a ring: its columns in the order of
 * core/events.h, numbers as their 8 bytes, texts as a 2-byte length and their bytes. Encoder,
 * INSERT and decoder are made from the same list, so they can't disagree. */
#include "recorder_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- names and SQL -------------------------------------------------------------------- */

#define COLUMN_NAME(name) #name,
#define COLUMN_NAMES(table, key, COLUMNS)                                                         \
    static const char *const columns_of_##table[] = {                                             \
        COLUMNS(COLUMN_NAME, COLUMN_NAME, COLUMN_NAME, COLUMN_NAME, COLUMN_NAME) NULL             \
    };
RECORD_EVENTS(COLUMN_NAMES)

#define EVENT_ROW(table, key, COLUMNS) { #table, key, columns_of_##table },
static const struct {
    const char *table, *key;
    const char *const *columns;
} event_rows[RECORD_EVENT_COUNT] = { RECORD_EVENTS(EVENT_ROW) };

const char *event_table(int event)
{
    return event_rows[event].table;
}

char *event_insert_sql(int event)
{
    const char *const *columns = event_rows[event].columns;
    char *sql = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&sql, &size);
    if (!out)
        return NULL;
    fprintf(out, "INSERT INTO %s (run_id", event_rows[event].table);
    for (int i = 0; columns[i]; i++)
        fprintf(out, ", %s", columns[i]);
    fprintf(out, ") VALUES (?1");
    for (int i = 0; columns[i]; i++)
        fprintf(out, ", ?%d", i + 2);
    fprintf(out, ")");
    if (event_rows[event].key[0]) {
        fprintf(out, " ON CONFLICT (run_id, %s) DO UPDATE SET ", event_rows[event].key);
        for (int i = 0; columns[i]; i++)
            fprintf(out, "%s%s = excluded.%s", i ? ", " : "", columns[i], columns[i]);
    }
    if (fclose(out) != 0) {
        free(sql);
        return NULL;
    }
    return sql;
}

/* ---- decoding, on the writer ---------------------------------------------------------- */

/* Bytes of the UTF-8 character at p, or 0 and *bad: the maximal ill-formed part to replace. */
static size_t character(const uint8_t *p, size_t n, size_t *bad)
{
    uint8_t low = 0x80, high = 0xbf;
    size_t more;
    *bad = 1;
    if (p[0] < 0x80)
        return p[0] != 0;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    more = p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    if (p[0] == 0xe0) low = 0xa0;
    if (p[0] == 0xed) high = 0x9f;
    if (p[0] == 0xf0) low = 0x90;
    if (p[0] == 0xf4) high = 0x8f;
    for (size_t i = 1; i <= more; i++) {
        if (i >= n || p[i] < low || p[i] > high)
            return 0;
        low = 0x80, high = 0xbf;
        *bad = i + 1;
    }
    return more + 1;
}

int bind_text(sqlite3_stmt *stmt, int index, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    size_t good = 0, bad;
    while (good < bytes) {
        size_t n = character(p + good, bytes - good, &bad);
        if (n == 0)
            break;
        good += n;
    }
    if (good == bytes)
        return sqlite3_bind_text64(stmt, index, data, bytes, SQLITE_STATIC, SQLITE_UTF8);
    char *repaired = malloc(3 * bytes);
    size_t used = 0;
    if (!repaired)
        return SQLITE_NOMEM;
    for (size_t i = 0; i < bytes;) {
        size_t n = character(p + i, bytes - i, &bad);
        memcpy(repaired + used, n ? (const char *)p + i : "\xef\xbf\xbd", n ? n : 3);
        used += n ? n : 3;
        i += n ? n : bad;
    }
    return sqlite3_bind_text64(stmt, index, repaired, used, free, SQLITE_UTF8);
}

struct reader {
    const uint8_t *at, *end;
    sqlite3_stmt *stmt;
    int index, failed;
};

static void get(struct reader *r, void *value, size_t bytes)
{
    if ((size_t)(r->end - r->at) < bytes) {
        r->failed = 1;
        memset(value, 0, bytes);
        return;
    }
    memcpy(value, r->at, bytes);
    r->at += bytes;
}

static void bind_i(struct reader *r)
{
    int64_t value;
    get(r, &value, sizeof value);
    sqlite3_bind_int64(r->stmt, r->index++, value);
}

static void bind_n(struct reader *r)
{
    int64_t value;
    get(r, &value, sizeof value);
    if (value == RECORD_NULL)
        sqlite3_bind_null(r->stmt, r->index++);
    else
        sqlite3_bind_int64(r->stmt, r->index++, value);
}

static void bind_r(struct reader *r)
{
    double value;
    get(r, &value, sizeof value);
    sqlite3_bind_double(r->stmt, r->index++, value); /* NaN becomes NULL */
}

static void bind_t(struct reader *r)
{
    uint16_t n;
    get(r, &n, sizeof n);
    if (n == 0 || (size_t)(r->end - r->at) < n) {
        r->failed |= n != 0;
        sqlite3_bind_null(r->stmt, r->index++);
        return;
    }
    bind_text(r->stmt, r->index++, r->at, n);
    r->at += n;
}

#define BIND_I(name) bind_i(&r);
#define BIND_N(name) bind_n(&r);
#define BIND_R(name) bind_r(&r);
#define BIND_T(name) bind_t(&r);
#define BIND_CASE(table, key, COLUMNS) \
    case RECORD_EVENT_##table: COLUMNS(BIND_I, BIND_N, BIND_R, BIND_T, BIND_T) break;

int event_bind(sqlite3_stmt *stmt, int event, const uint8_t *data, size_t bytes)
{
    struct reader r = { data, data + bytes, stmt, 2, 0 };
    switch (event) {
        RECORD_EVENTS(BIND_CASE)
    default: return -1;
    }
    return r.failed || r.at != r.end ? -1 : 0;
}

/* ---- recording, on the producer ------------------------------------------------------- */

/* The one place with a system call: a ring half full wakes the writer, once until it looks. */
static void press(struct recorder *recorder)
{
    if (atomic_exchange_explicit(&recorder->pressed, 1, memory_order_acq_rel))
        return;
    pthread_mutex_lock(&recorder->lock);
    pthread_cond_signal(&recorder->wake);
    pthread_mutex_unlock(&recorder->lock);
}

/* Full: spin a little, then sleep in small naps until the writer has made room. NULL: drop it. */
static __attribute__((noinline)) void *reserve_slowly(struct producer *producer, struct ring *ring, size_t bytes)
{
    struct recorder *recorder = producer->recorder;
    if (producer->on_full == RECORDER_DROP || bytes > ring->largest) {
        press(recorder);
        return NULL;
    }
    for (unsigned turn = 0; !atomic_load_explicit(&recorder->stopped, memory_order_acquire); turn++) {
        void *room = ring_reserve(ring, bytes);
        if (room)
            return room;
        press(recorder);
        if (turn > 64) {
            struct timespec nap = { 0, turn < 256 ? 50000 : 500000 };
            nanosleep(&nap, NULL);
        }
    }
    return NULL;
}

static uint8_t *event_begin(struct producer *producer, size_t bytes)
{
    uint8_t *room = NULL;
    if (!atomic_load_explicit(&producer->recorder->stopped, memory_order_relaxed)) {
        room = ring_reserve(&producer->small, bytes);
        if (!room)
            room = reserve_slowly(producer, &producer->small, bytes);
    }
    if (!room)
        atomic_fetch_add_explicit(&producer->dropped_events, 1, memory_order_relaxed);
    return room;
}

static void event_end(struct producer *producer, size_t used, int event)
{
    ring_commit(&producer->small, used, event);
    if (ring_is_half_full(&producer->small))
        press(producer->recorder);
}

static uint8_t *put_text(uint8_t *at, const char *text, size_t capacity)
{
    uint16_t n = (uint16_t)strnlen(text, capacity);
    memcpy(at, &n, sizeof n);
    memcpy(at + sizeof n, text, n);
    return at + sizeof n + n;
}

#define PUT_8(name) memcpy(at, &event->name, 8), at += 8;
#define PUT_T(name) at = put_text(at, event->name, sizeof event->name);
#define COUNT_ONE(name) +1
#define RECORD_DEFINE(table, key, COLUMNS)                                                                    \
    void record_##table(struct producer *producer, const struct record_##table *event)                        \
    {                                                                                                         \
        if (!producer)                                                                                        \
            return;                                                                                           \
        uint8_t *room = event_begin(                                                                          \
            producer, sizeof *event + 2 * (COLUMNS(COUNT_ONE, COUNT_ONE, COUNT_ONE, COUNT_ONE, COUNT_ONE)));  \
        if (!room)                                                                                            \
            return;                                                                                           \
        uint8_t *at = room;                                                                                   \
        COLUMNS(PUT_8, PUT_8, PUT_8, PUT_T, PUT_T)                                                            \
        event_end(producer, (size_t)(at - room), RECORD_EVENT_##table);                                       \
    }
RECORD_EVENTS(RECORD_DEFINE)

void *record_attention_reserve(struct producer *producer, size_t bytes)
{
    void *room = NULL;
    if (!producer || bytes == 0)
        return NULL;
    if (!atomic_load_explicit(&producer->recorder->stopped, memory_order_relaxed)) {
        room = ring_reserve(&producer->bulk, bytes);
        if (!room)
            room = reserve_slowly(producer, &producer->bulk, bytes);
    }
    if (!room)
        atomic_fetch_add_explicit(&producer->dropped_attention, 1, memory_order_relaxed);
    return room;
}

void record_attention_commit(struct producer *producer, size_t used, int64_t step_id)
{
    if (!producer || used == 0)
        return;
    ring_commit(&producer->bulk, used, step_id);
    if (ring_is_half_full(&producer->bulk))
        press(producer->recorder);
}

size_t record_attention_capacity(const struct producer *producer)
{
    return producer ? producer->bulk.largest : 0;
}

int producer_open(struct recorder *recorder, const struct recorder_params *rings, struct producer **producer,
                  struct lathe_error *err)
{
    struct producer *p = aligned_alloc(64, sizeof *p);
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for a producer", recorder->path);
    memset(p, 0, sizeof *p);
    p->recorder = recorder;
    p->on_full = rings->on_full;
    int status = ring_open(&p->small, rings->ring_bytes, 4096, 16, err);
    if (status == LATHE_OK)
        status = ring_open(&p->bulk, rings->bulk_bytes, SIZE_MAX, 64, err);
    if (status != LATHE_OK) {
        producer_close(p);
        return status;
    }
    *producer = p;
    return LATHE_OK;
}

void producer_close(struct producer *producer)
{
    if (!producer)
        return;
    ring_close(&producer->small);
    ring_close(&producer->bulk);
    free(producer);
}

/* SPDX-License-Identifier: MIT */
/* What the heads looked at: packed rows of attention_token, a part of the page a request and probe.
 *
 * Summaries and heaviest keys go in as they are (layout: schemas/001_tables.sql), every n-th position if they
 * are too many. Whole rows are a triangle of positions × keys, half precision. One that is too large is
 * pooled: a cell is then the largest of n × n weights, n a power of two, so that no spike is lost.
 *
 * Keys of whole rows are numbered in the order in which the query saw them: positions, unless the KV cache had dropped
 * some. `dropped` counts the rows of which that is true; which keys were left isn't recorded.
 *
 *     written rows, one after the other:   layer a, head 0: cells │ layer a, head 1: cells │ …
 *
 * The heads' means come from the table `attention`, so that they are what SQL answers. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SUMMARY_BYTES = 16, TOP_BYTES = 8, CELL_BYTES = 2, MAX_TOKENS = 1 << 16 };

/* A request under a probe. */
struct part {
    int64_t run, request, probe, rows, bytes;
};

struct shape {
    bool full, weights; /* a whole row a head; of weights, not scores or values */
    size_t heads;      /* layers × heads */
    size_t head_bytes; /* 0: as many as there are keys */
};

/* The rows that are written, and what of them is one column. */
struct pool {
    struct column positions, keys;
    uint16_t *cells; /* [head][cell] of the group at hand */
    size_t width;    /* cells a head that there is room for */
    struct text data;
    int64_t dropped;
};

/* Half precision orders like this. */
static uint16_t order_of(uint16_t half)
{
    return half & 0x8000 ? (uint16_t)~half : (uint16_t)(half | 0x8000);
}

static int damaged(const struct part *p, int64_t position, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFORMAT, "attention_token of run %lld, request %lld, position %lld is damaged; leave its run out with --run",
                      (long long)p->run, (long long)p->request, (long long)position);
}

/* ---- whole rows, pooled ------------------------------------------------------------------ */

static int make_room(struct pool *pool, const struct shape *shape, size_t width, struct lathe_error *err)
{
    if (width <= pool->width)
        return LATHE_OK;
    uint16_t *more = calloc(shape->heads * width, sizeof *more);
    if (!more)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a row of %zu weights", shape->heads * width);
    for (size_t h = 0; pool->cells && h < shape->heads; h++)
        memcpy(more + h * width, pool->cells + h * pool->width, pool->width * sizeof *more);
    free(pool->cells);
    pool->cells = more;
    pool->width = width;
    return LATHE_OK;
}

static void flush(struct pool *pool, const struct shape *shape, size_t cells)
{
    for (size_t h = 0; h < shape->heads; h++)
        text_add(&pool->data, (const char *)(pool->cells + h * pool->width), cells * sizeof *pool->cells);
    if (cells)
        memset(pool->cells, 0, shape->heads * pool->width * sizeof *pool->cells);
}

/* `fresh`: cells that no row of this group has reached yet take whatever comes. */
static void add_row(struct pool *pool, const struct shape *shape, const uint8_t *row, size_t keys, int64_t n, size_t fresh)
{
    for (size_t h = 0; h < shape->heads; h++) {
        uint16_t *cells = pool->cells + h * pool->width;
        for (size_t k = 0; k < keys; k++) {
            uint16_t value;
            size_t cell = k / (size_t)n;
            memcpy(&value, row + (h * keys + k) * CELL_BYTES, sizeof value);
            if ((cell >= fresh && k % (size_t)n == 0) || order_of(value) > order_of(cells[cell]))
                cells[cell] = value;
        }
    }
}

static int pool_rows(const struct part *p, const struct shape *shape, sqlite3_stmt *s, int64_t n, struct pool *pool,
                     int *code, struct lathe_error *err)
{
    size_t cells = 0;
    int64_t rows = 0;
    int status = LATHE_OK;
    while (!status && (*code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t keys = sqlite3_column_int64(s, 1);
        const uint8_t *row = sqlite3_column_blob(s, 2);
        if (keys < 1 || keys > INT32_MAX || (uint64_t)sqlite3_column_bytes(s, 2) != shape->heads * (uint64_t)keys * CELL_BYTES)
            return damaged(p, sqlite3_column_int64(s, 0), err);
        pool->dropped += keys != sqlite3_column_int64(s, 0) + 1;
        if (rows % n == 0) {
            if (rows > 0) {
                flush(pool, shape, cells);
                column_add(&pool->keys, (uint32_t)cells);
            }
            cells = 0;
            column_add_row(&pool->positions, s, 0);
        }
        size_t reached = ((size_t)keys + (size_t)n - 1) / (size_t)n;
        if ((status = make_room(pool, shape, reached, err)))
            break;
        add_row(pool, shape, row, (size_t)keys, n, cells);
        cells = reached > cells ? reached : cells;
        rows++;
    }
    if (!status && rows > 0) {
        flush(pool, shape, cells);
        column_add(&pool->keys, (uint32_t)cells);
    }
    return status;
}

/* ---- packed rows, every n-th ------------------------------------------------------------- */

static int copy_rows(const struct part *p, const struct shape *shape, sqlite3_stmt *s, int64_t n, struct pool *pool, int *code,
                     struct lathe_error *err)
{
    for (int64_t rows = 0; (*code = sqlite3_step(s)) == SQLITE_ROW; rows++) {
        if ((size_t)sqlite3_column_bytes(s, 2) != shape->heads * shape->head_bytes)
            return damaged(p, sqlite3_column_int64(s, 0), err);
        if (rows % n)
            continue;
        column_add_row(&pool->positions, s, 0);
        column_add_row(&pool->keys, s, 1);
        text_add(&pool->data, sqlite3_column_blob(s, 2), shape->heads * shape->head_bytes);
    }
    return LATHE_OK;
}

static int write_rows(struct report *r, const struct part *p, const struct shape *shape, int64_t n, struct lathe_error *err)
{
    struct report_run run = { .id = p->run };
    struct pool pool = { 0 };
    sqlite3_stmt *s;
    int code = SQLITE_DONE, status = report_prepare(r, &run, "SELECT position, keys, data FROM attention_token WHERE run_id = ?1 AND request_id = ?2"
                                                             " AND probe_id = ?3 ORDER BY position", &s, err);
    if (status)
        return status;
    sqlite3_bind_int64(s, 2, p->request);
    sqlite3_bind_int64(s, 3, p->probe);
    status = shape->full ? pool_rows(p, shape, s, n, &pool, &code, err) : copy_rows(p, shape, s, n, &pool, &code, err);
    if (!status)
        status = report_finish(r, s, code, err);
    else
        sqlite3_finalize(s);
    report_number(r, "dropped", (double)pool.dropped);
    report_column(r, "positions", "u32", &pool.positions);
    report_column(r, "cells", "u32", &pool.keys);
    report_bytes(r, "data", pool.data.bytes, pool.data.count);
    r->columns.failed |= pool.data.failed;
    text_free(&pool.data);
    free(pool.cells);
    return status;
}

/* ---- means a head, and what the tokens are ------------------------------------------------ */

/* Queries at position 0 are left out: they can look at nothing else. */
static int write_heads(struct report *r, const struct part *p, struct lathe_error *err)
{
    static const char *const names[] = { "layer", "head", "entropy", "first_mass", "recent_mass", "self_mass", "top_weight" };
    enum { NAMES = sizeof names / sizeof *names };
    struct report_run run = { .id = p->run };
    struct column c[NAMES];
    sqlite3_stmt *s;
    int status = report_prepare(r, &run, "SELECT layer, head, avg(entropy), avg(first_mass), avg(recent_mass), avg(self_mass), avg(top_weight)"
                                         "  FROM attention WHERE run_id = ?1 AND request_id = ?2 AND position > 0 AND probe_id = ?3"
                                         " GROUP BY layer, head ORDER BY layer, head", &s, err);
    if (status)
        return status;
    memset(c, 0, sizeof c);
    sqlite3_bind_int64(s, 2, p->request);
    int code = sqlite3_bind_int64(s, 3, p->probe);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        for (int i = 0; i < NAMES; i++)
            if (i < 2)
                column_add_row(&c[i], s, i);
            else
                column_add_float(&c[i], sqlite3_column_type(s, i) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(s, i));
        code = SQLITE_OK;
    }
    report_open(r, "means", '{');
    for (int i = 0; i < NAMES; i++)
        report_column(r, names[i], i < 2 ? "u32" : "f32", &c[i]);
    report_close(r, '}');
    return report_finish(r, s, code, err);
}

/* Texts by position; null where the run kept no row of the token. Gaps are the latency of the same tokens. */
static int write_tokens(struct report *r, const struct part *p, struct lathe_error *err)
{
    struct report_run run = { .id = p->run };
    struct column gaps = { 0 };
    sqlite3_stmt *s;
    int status = report_prepare(r, &run, "SELECT t.position, x.text, t.gap_ns / 1e6 FROM token t LEFT JOIN token_text x ON x.run_id = t.run_id AND"
                                         " x.token = t.token WHERE t.run_id = ?1 AND t.request_id = ?2 ORDER BY t.position LIMIT ?3", &s, err);
    if (status)
        return status;
    sqlite3_bind_int64(s, 2, p->request);
    int64_t next = 0;
    int code = sqlite3_bind_int(s, 3, MAX_TOKENS);
    report_open(r, "tokens", '[');
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        code = SQLITE_OK;
        for (; next < sqlite3_column_int64(s, 0) && next < MAX_TOKENS; next++) {
            report_string(r, NULL, NULL);
            column_add_float(&gaps, (double)NAN);
        }
        if (next++ >= MAX_TOKENS)
            continue;
        report_value(r, NULL, s, 1);
        column_add_float(&gaps, sqlite3_column_type(s, 2) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(s, 2));
    }
    report_close(r, ']');
    report_column(r, "gaps", "f32", &gaps);
    return report_finish(r, s, code, err);
}

/* ---- one part ---------------------------------------------------------------------------- */

static int read_probe(struct report *r, const struct part *p, struct shape *shape, struct lathe_error *err)
{
    struct report_run run = { .id = p->run };
    sqlite3_stmt *s;
    int measured = sqlite3_table_column_metadata(r->db, NULL, "probe", "measure", NULL, NULL, NULL, NULL, NULL) == SQLITE_OK;
    int status = report_prepare(r, &run, measured
            ? "SELECT format, top_k, json_array_length(layers) * json_array_length(heads), layers, heads, measure FROM probe WHERE run_id = ?1 AND id = ?2"
            : "SELECT format, top_k, json_array_length(layers) * json_array_length(heads), layers, heads, 'weight' FROM probe WHERE run_id = ?1 AND id = ?2",
        &s, err);
    if (status)
        return status;
    sqlite3_bind_int64(s, 2, p->probe);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        const char *format = (const char *)sqlite3_column_text(s, 0);
        int64_t top_k = sqlite3_column_int64(s, 1), heads = sqlite3_column_int64(s, 2);
        shape->full = format && strcmp(format, "full") == 0;
        shape->heads = heads > 0 && heads <= 1 << 16 ? (size_t)heads : 0;
        shape->head_bytes = shape->full ? 0 : format && strcmp(format, "summary") == 0 ? SUMMARY_BYTES
                            : top_k > 0 && top_k <= 1 << 20                         ? (size_t)top_k * TOP_BYTES
                                                                                    : 0;
        if (shape->heads == 0 || (!shape->full && shape->head_bytes == 0))
            code = SQLITE_CORRUPT;
        report_value(r, "format", s, 0);
        report_value(r, "top_k", s, 1);
        report_key(r, "layers");
        text_print(&r->json, "%s", (const char *)sqlite3_column_text(s, 3)); /* checked JSON */
        report_key(r, "heads");
        text_print(&r->json, "%s", (const char *)sqlite3_column_text(s, 4));
        report_value(r, "measure", s, 5);
        const char *measure = (const char *)sqlite3_column_text(s, 5);
        shape->weights = measure && strcmp(measure, "weight") == 0;
    }
    sqlite3_finalize(s);
    return code == SQLITE_ROW ? LATHE_OK
                              : lathe_fail(err, LATHE_EFORMAT, "probe %lld of run %lld is missing or makes no sense; leave the run out with --run",
                                           (long long)p->probe, (long long)p->run);
}

/* Pooled by n a triangle has an n²-th of the cells, thinned to every n-th an n-th of the rows. */
static int64_t divisor_for(const struct part *p, const struct shape *shape, int64_t budget)
{
    int64_t n = 1;
    while (p->bytes / (shape->full ? n * n : n) > budget && n < 1 << 20)
        n *= 2;
    return n;
}

static int write_part(struct report *r, const struct part *p, int64_t budget, struct lathe_error *err)
{
    struct shape shape = { 0 };
    report_open(r, NULL, '{');
    report_number(r, "run", (double)p->run);
    report_number(r, "request", (double)p->request);
    report_number(r, "probe", (double)p->probe);
    report_number(r, "rows", (double)p->rows);
    int status = read_probe(r, p, &shape, err);
    if (!status) {
        int64_t n = divisor_for(p, &shape, budget);
        report_number(r, shape.full ? "pool" : "every", (double)n);
        status = write_rows(r, p, &shape, n, err);
    }
    if (!status && shape.weights)
        status = write_heads(r, p, err);
    if (!status)
        status = write_tokens(r, p, err);
    report_close(r, '}');
    return status;
}

static bool is_wanted(const struct report *r, int64_t request)
{
    for (size_t i = 0; i < r->named_request_count; i++)
        if (r->named_requests[i] == request)
            return true;
    return r->named_request_count == 0;
}

/* The parts of one run that its share of the budget has room for, in the requests' order. Whoever comes first may
 * take half of it, thinned if need be; whoever doesn't fit any more is counted. */
static int write_run(struct report *r, const struct report_run *run, int64_t budget, int64_t *left_out, struct lathe_error *err)
{
    sqlite3_stmt *s;
    int code, status = report_prepare(r, run, "SELECT request_id, probe_id, count(*), sum(length(data)) FROM attention_token"
                                              " WHERE run_id = ?1 GROUP BY request_id, probe_id", &s, err);
    if (status)
        return status;
    int64_t left = budget;
    while ((code = sqlite3_step(s)) == SQLITE_ROW && !status) {
        struct part part = { run->id, sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1), sqlite3_column_int64(s, 2),
                             sqlite3_column_int64(s, 3) };
        if (!is_wanted(r, part.request))
            continue;
        int64_t takes = part.bytes < budget / 2 ? part.bytes : budget / 2;
        if (takes > left || part.bytes == 0) {
            ++*left_out;
            continue;
        }
        left -= takes;
        status = write_part(r, &part, budget / 2, err);
    }
    if (status) {
        sqlite3_finalize(s);
        return status;
    }
    return report_finish(r, s, code, err);
}

int report_attention(struct report *r, struct lathe_error *err)
{
    int64_t runs = 0, left_out = 0, any;
    int status = LATHE_OK;
    for (size_t i = 0; i < r->run_count && !status; i++) {
        status = report_count(r, &r->runs[i], "SELECT EXISTS (SELECT 1 FROM attention_token WHERE run_id = ?1)", &any, err);
        runs += any;
    }
    report_open(r, "attention", '[');
    for (size_t i = 0; i < r->run_count && runs > 0 && !status; i++)
        status = write_run(r, &r->runs[i], REPORT_ATTENTION_BYTES / runs, &left_out, err);
    report_close(r, ']');
    report_number(r, "attention_left_out", (double)left_out);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* Summaries and heaviest keys go into the page as the database has them (layout: schemas/001_tables.sql), every n-th
 * position if they are too many. Whole rows are a triangle of positions × keys, half precision. One that is too large
 * is pooled: a cell is then the largest of n × n weights, n a power of two, so that no spike is lost.
 *
 * Keys of whole rows are numbered in the order in which the query saw them: positions, unless the KV cache had dropped
 * some. `dropped` counts the rows of which that is true; which keys were left isn't recorded.
 *
 *     written rows, one after the other:   layer a, head 0: cells │ layer a, head 1: cells │ …
 */
#include "report_weights.h"

#include <stdlib.h>
#include <string.h>

enum { CELL_BYTES = 2 };

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

static int damaged(const struct report_part *p, int64_t position, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EFORMAT, "attention_token of run %lld, request %lld, position %lld is damaged; "
                                          "leave its run out with --run", (long long)p->run, (long long)p->request,
                      (long long)position);
}

/* ---- whole rows, pooled ------------------------------------------------------------------ */

static int make_room(struct pool *pool, const struct report_shape *shape, size_t width, struct lathe_error *err)
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

static void flush(struct pool *pool, const struct report_shape *shape, size_t cells)
{
    for (size_t h = 0; h < shape->heads; h++)
        text_add(&pool->data, (const char *)(pool->cells + h * pool->width), cells * sizeof *pool->cells);
    if (cells)
        memset(pool->cells, 0, shape->heads * pool->width * sizeof *pool->cells);
}

/* `fresh`: cells that no row of this group has reached yet take whatever comes. */
static void add_row(struct pool *pool, const struct report_shape *shape, const uint8_t *row, size_t keys, int64_t n, size_t fresh)
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

static int pool_rows(const struct report_part *p, const struct report_shape *shape, sqlite3_stmt *s, int64_t n, struct pool *pool,
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

static int copy_rows(const struct report_part *p, const struct report_shape *shape, sqlite3_stmt *s, int64_t n, struct pool *pool,
                     int *code, struct lathe_error *err)
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

int report_weights(struct report *r, const struct report_part *p, const struct report_shape *shape, int64_t n,
                   struct lathe_error *err)
{
    struct report_run run = { .id = p->run };
    struct pool pool = { 0 };
    sqlite3_stmt *s;
    int code = SQLITE_DONE, status = report_prepare(r, &run, "SELECT position, keys, data FROM attention_token WHERE run_id = ?1"
                                                             " AND request_id = ?2 AND probe_id = ?3 ORDER BY position", &s, err);
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

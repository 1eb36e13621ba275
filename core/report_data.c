/* SPDX-License-Identifier: MIT */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "recorder_schema.h"

/* ---- JSON ------------------------------------------------------------------------------ */

void report_key(struct report *r, const char *name)
{
    char last = r->json.count ? r->json.bytes[r->json.count - 1] : '{';
    if (last != '{' && last != '[')
        text_add(&r->json, ",", 1);
    if (name) {
        text_json(&r->json, name);
        text_add(&r->json, ":", 1);
    }
}

void report_string(struct report *r, const char *name, const char *value)
{
    report_key(r, name);
    text_json(&r->json, value);
}

void report_number(struct report *r, const char *name, double value)
{
    report_key(r, name);
    text_json_number(&r->json, value);
}

void report_value(struct report *r, const char *name, sqlite3_stmt *statement, int column)
{
    report_key(r, name);
    switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER: text_print(&r->json, "%lld", (long long)sqlite3_column_int64(statement, column)); break;
    case SQLITE_FLOAT: text_json_number(&r->json, sqlite3_column_double(statement, column)); break;
    case SQLITE_TEXT: {
        const char *text = (const char *)sqlite3_column_text(statement, column);
        text_json_bytes(&r->json, text ? text : "", (size_t)sqlite3_column_bytes(statement, column));
        break;
    }
    default: text_print(&r->json, "null");
    }
}

void report_open(struct report *r, const char *name, char bracket)
{
    report_key(r, name);
    text_add(&r->json, &bracket, 1);
}

void report_close(struct report *r, char bracket)
{
    text_add(&r->json, &bracket, 1);
}

/* ---- columns --------------------------------------------------------------------------- */

void column_add(struct column *c, uint32_t value)
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 1024;
        uint32_t *more = c->failed ? NULL : realloc(c->values, capacity * sizeof *more);
        if (!more) {
            c->failed = true;
            return;
        }
        c->values = more;
        c->capacity = capacity;
    }
    c->values[c->count++] = value;
}

void column_add_float(struct column *c, double value)
{
    float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    column_add(c, bits);
}

void column_add_row(struct column *c, sqlite3_stmt *statement, int at)
{
    int64_t value = sqlite3_column_int64(statement, at);
    if (sqlite3_column_type(statement, at) == SQLITE_NULL)
        column_add(c, REPORT_NONE);
    else
        column_add(c, value < 0 ? 0 : value >= REPORT_NONE ? REPORT_NONE - 1 : (uint32_t)value);
}

void column_add_time(struct column *c, const struct report_run *run, sqlite3_stmt *statement, int at)
{
    double units = sqlite3_column_double(statement, at) / run->unit_ns;
    if (sqlite3_column_type(statement, at) == SQLITE_NULL)
        column_add(c, REPORT_NONE);
    else
        column_add(c, units < 0 ? 0 : units >= REPORT_NONE ? REPORT_NONE - 1 : (uint32_t)(units + 0.5));
}

void column_add_float_row(struct column *c, sqlite3_stmt *statement, int at)
{
    column_add_float(c, sqlite3_column_type(statement, at) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(statement, at));
}

static void add_base64(struct text *text, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char piece[4096];
    size_t used = 0;
    for (size_t i = 0; i < count; i += 3) {
        uint32_t word = (uint32_t)bytes[i] << 16 | (i + 1 < count ? (uint32_t)bytes[i + 1] << 8 : 0) |
                        (i + 2 < count ? bytes[i + 2] : 0);
        piece[used++] = digits[word >> 18];
        piece[used++] = digits[word >> 12 & 63];
        piece[used++] = i + 1 < count ? digits[word >> 6 & 63] : '=';
        piece[used++] = i + 2 < count ? digits[word & 63] : '=';
        if (used == sizeof piece) {
            text_add(text, piece, used);
            used = 0;
        }
    }
    text_add(text, piece, used);
}

static void write_column(struct report *r, const char *name, const char *type, const void *bytes, size_t count, size_t width)
{
    report_key(r, name);
    text_print(&r->json, "{\"column\":%d,\"type\":\"%s\",\"count\":%zu}", r->column_count, type, count);
    text_print(&r->columns, "<script type=\"text/plain\" id=\"column-%d\">", r->column_count++);
    add_base64(&r->columns, bytes, count * width);
    text_print(&r->columns, "</script>\n");
}

void report_column(struct report *r, const char *name, const char *type, struct column *c)
{
    r->columns.failed |= c->failed;
    write_column(r, name, type, c->values, c->count, sizeof *c->values);
    free(c->values);
    memset(c, 0, sizeof *c);
}

void report_bytes(struct report *r, const char *name, const void *bytes, size_t count)
{
    write_column(r, name, "u8", bytes, count, 1);
}

/* ---- SQL ------------------------------------------------------------------------------- */

int report_prepare(struct report *r, const struct report_run *run, const char *sql, sqlite3_stmt **statement,
                   struct lathe_error *err)
{
    if (sqlite3_prepare_v2(r->db, sql, -1, statement, NULL) != SQLITE_OK ||
        (run && sqlite3_bind_int64(*statement, 1, run->id) != SQLITE_OK)) {
        sqlite3_finalize(*statement);
        *statement = NULL;
        return schema_fail(r->db, r->path, "reading its rows", err);
    }
    return LATHE_OK;
}

int report_finish(struct report *r, sqlite3_stmt *statement, int code, struct lathe_error *err)
{
    int status = code == SQLITE_DONE ? LATHE_OK : schema_fail(r->db, r->path, "reading its rows", err);
    sqlite3_finalize(statement);
    return status;
}

int report_count(struct report *r, const struct report_run *run, const char *sql, int64_t *value, struct lathe_error *err)
{
    sqlite3_stmt *statement;
    int status = report_prepare(r, run, sql, &statement, err);
    if (status)
        return status;
    int code = sqlite3_step(statement);
    *value = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    return report_finish(r, statement, code == SQLITE_ROW ? SQLITE_DONE : code, err);
}

int64_t report_stride(int64_t count, int64_t budget)
{
    int64_t stride = 1;
    while ((count + stride - 1) / stride > (budget > 0 ? budget : 1))
        stride *= 2;
    return stride;
}

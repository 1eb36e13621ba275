/* SPDX-License-Identifier: MIT */
/* W3C trace context (https://www.w3.org/TR/trace-context/): a trace id of 16 bytes, span ids of 8, in lower-case
 * hexadecimal, never all zero.
 *
 * Each is the beginning of a SHA-256 over names: the run's UUID, then kind and numbers. So they need no column, are
 * the same at each export, and differ between runs of merged databases. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "export.h"
#include "recorder_schema.h"
#include "sha256.h"

enum { TRACE_DIGITS = 32, SPAN_DIGITS = 16, TRACEPARENT_BYTES = 55 };

static const char *text_of(sqlite3_value *value)
{
    const char *text = (const char *)sqlite3_value_text(value);
    return text ? text : "";
}

static bool hexadecimal(const char *s, int digits)
{
    bool zero = true;
    for (int i = 0; i < digits; i++) {
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
            return false;
        zero = zero && s[i] == '0';
    }
    return !zero;
}

/* 00-<32 digits>-<16 digits>-<2 digits>; neither id all zero, and no version ff. */
static bool is_traceparent(const char *s)
{
    return strlen(s) == TRACEPARENT_BYTES && s[2] == '-' && s[35] == '-' && s[52] == '-' && strncmp(s, "00", 2) == 0 &&
           hexadecimal(s + 3, TRACE_DIGITS) && hexadecimal(s + 36, SPAN_DIGITS);
}

static void digest(sqlite3_context *context, int argc, sqlite3_value **argv, int digits)
{
    struct sha256 sha;
    char hex[SHA256_HEX_BYTES];
    sha256_begin(&sha);
    for (int i = 0; i < argc; i++) {
        const char *text = text_of(argv[i]);
        sha256_add(&sha, text, strlen(text) + 1);
    }
    sha256_end(&sha, hex);
    hex[digits - 1] = hex[digits - 1] == '0' ? '1' : hex[digits - 1]; /* so that it can't be all zero */
    sqlite3_result_text(context, hex, digits, SQLITE_TRANSIENT);
}

static void w3c_trace(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    const char *given = text_of(argv[2]);
    (void)argc;
    if (is_traceparent(given))
        sqlite3_result_text(context, given + 3, TRACE_DIGITS, SQLITE_TRANSIENT);
    else
        digest(context, 2, argv, TRACE_DIGITS);
}

static void w3c_span(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    digest(context, argc, argv, SPAN_DIGITS);
}

static void w3c_parent(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    const char *given = text_of(argv[0]);
    (void)argc;
    if (is_traceparent(given))
        sqlite3_result_text(context, given + 36, SPAN_DIGITS, SQLITE_TRANSIENT);
}

/* The 64 bits that stand for a correlation id in messages: the engine's own ids are their digits. */
static void correlation(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    const char *text = text_of(argv[0]);
    (void)argc;
    if (strlen(text) == SPAN_DIGITS && hexadecimal(text, SPAN_DIGITS))
        sqlite3_result_int64(context, (int64_t)strtoull(text, NULL, 16));
    else if (*text)
        sqlite3_result_int64(context, (int64_t)engine_correlation(text));
}

int export_ids_register(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err)
{
    const int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC;
    if (sqlite3_create_function_v2(db, "w3c_trace", 3, flags, NULL, w3c_trace, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_create_function_v2(db, "w3c_span", 4, flags, NULL, w3c_span, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_create_function_v2(db, "w3c_parent", 1, flags, NULL, w3c_parent, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_create_function_v2(db, "correlation", 1, flags, NULL, correlation, NULL, NULL, NULL) != SQLITE_OK)
        return schema_fail(db, a->path, "adding functions", err);
    return LATHE_OK;
}

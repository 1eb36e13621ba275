/* SPDX-License-Identifier: MIT */
/* What the heads looked at: a part of the page a request and probe, with means of the heads and what the tokens are.
 * The means come from the table `attention`, so that they are what SQL answers. */
#include "report_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SUMMARY_BYTES = 16, TOP_BYTES = 8, MAX_TOKENS = 1 << 16 };

/* ---- means a head, and what the tokens are ------------------------------------------------ */

/* Queries at position 0 are left out: they can look at nothing else. */
static int write_heads(struct report *r, const struct report_part *p, struct lathe_error *err)
{
    static const char *const names[] = { "layer", "head", "entropy", "first_mass", "recent_mass", "self_mass", "top_weight" };
    enum { NAMES = sizeof names / sizeof *names };
    struct report_run run = { .id = p->run };
    struct column c[NAMES];
    sqlite3_stmt *s;
    int status = report_prepare(r, &run, "SELECT layer, head, avg(entropy), avg(first_mass), avg(recent_mass), avg(self_mass),"
                                         " avg(top_weight) FROM attention WHERE run_id = ?1 AND request_id = ?2 AND position > 0"
                                         " AND probe_id = ?3 GROUP BY layer, head ORDER BY layer, head", &s, err);
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
                column_add_float_row(&c[i], s, i);
        code = SQLITE_OK;
    }
    report_open(r, "means", '{');
    for (int i = 0; i < NAMES; i++)
        report_column(r, names[i], i < 2 ? "u32" : "f32", &c[i]);
    report_close(r, '}');
    return report_finish(r, s, code, err);
}

/* Texts by position; null where the run kept no row of the token. Gaps are the latency of the same tokens. */
static int write_tokens(struct report *r, const struct report_part *p, struct lathe_error *err)
{
    struct report_run run = { .id = p->run };
    struct column gaps = { 0 };
    sqlite3_stmt *s;
    int status = report_prepare(r, &run, "SELECT t.position, x.text, t.gap_ns / 1e6 FROM token t"
                                         " LEFT JOIN token_text x ON x.run_id = t.run_id AND x.token = t.token WHERE t.run_id = ?1"
                                         " AND t.request_id = ?2 ORDER BY t.position LIMIT ?3", &s, err);
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
        column_add_float_row(&gaps, s, 2);
    }
    report_close(r, ']');
    report_column(r, "gaps", "f32", &gaps);
    return report_finish(r, s, code, err);
}

/* ---- one part ---------------------------------------------------------------------------- */

static int read_probe(struct report *r, const struct report_part *p, struct report_shape *shape, struct lathe_error *err)
{
    struct report_run run = { .id = p->run };
    sqlite3_stmt *s;
    int measured = sqlite3_table_column_metadata(r->db, NULL, "probe", "measure", NULL, NULL, NULL, NULL, NULL) == SQLITE_OK;
    int status = report_prepare(r, &run, measured
            ? "SELECT format, top_k, json_array_length(layers) * json_array_length(heads), layers, heads, measure"
              "  FROM probe WHERE run_id = ?1 AND id = ?2"
            : "SELECT format, top_k, json_array_length(layers) * json_array_length(heads), layers, heads, 'weight'"
              "  FROM probe WHERE run_id = ?1 AND id = ?2",
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
    return code == SQLITE_ROW ? LATHE_OK : lathe_fail(err, LATHE_EFORMAT, "probe %lld of run %lld is missing or makes no sense; "
                                                      "leave the run out with --run", (long long)p->probe, (long long)p->run);
}

/* Pooled by n a triangle has an n²-th of the cells, thinned to every n-th an n-th of the rows. */
static int64_t divisor_for(const struct report_part *p, const struct report_shape *shape, int64_t budget)
{
    int64_t n = 1;
    while (p->bytes / (shape->full ? n * n : n) > budget && n < 1 << 20)
        n *= 2;
    return n;
}

static int write_part(struct report *r, const struct report_part *p, int64_t budget, struct lathe_error *err)
{
    struct report_shape shape = { 0 };
    report_open(r, NULL, '{');
    report_number(r, "run", (double)p->run);
    report_number(r, "request", (double)p->request);
    report_number(r, "probe", (double)p->probe);
    report_number(r, "rows", (double)p->rows);
    int status = read_probe(r, p, &shape, err);
    if (!status) {
        int64_t n = divisor_for(p, &shape, budget);
        report_number(r, shape.full ? "pool" : "every", (double)n);
        status = report_weights(r, p, &shape, n, err);
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
        struct report_part part = { run->id, sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1), sqlite3_column_int64(s, 2),
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

/* SPDX-License-Identifier: MIT */
/* Steps over time, who was in them, and what they left of the KV pool.
 *
 * Too many steps are thinned to every n-th, each with all of its requests: a step is never
 * shown with a part of its company. */
#include "report.h"

#include <string.h>

enum { ID, START, END, REQUESTS, PREFILL, DECODE, WAITING, USED, TOTAL, REPLICA, FORWARD, STEP_COLUMNS };

static const char *const step_columns[STEP_COLUMNS] = {
    "id", "start", "end", "requests", "prefill", "decode", "waiting", "kv_used", "kv_total", "replica", "forward",
};

enum { MEMBER_STEP, MEMBER_REQUEST, MEMBER_TOKENS, MEMBER_CONTEXT, MEMBER_COLUMNS };

static const char *const member_columns[MEMBER_COLUMNS] = { "step", "request", "tokens", "context" };

/* The prefill's mark is the top bit of `tokens`. */
#define PREFILL_BIT (1u << 31)

static void bind_window(const struct report *r, sqlite3_stmt *s)
{
    sqlite3_bind_int64(s, 3, r->from_ns);
    sqlite3_bind_int64(s, 4, r->to_ns);
}

/* Steps and their requests in the window. */
static int count_rows(struct report *r, const struct report_run *run, int64_t *steps, int64_t *members, struct lathe_error *err)
{
    sqlite3_stmt *s;
    int status = report_prepare(r, run, "SELECT count(*), ifnull(sum((SELECT count(*) FROM step_request c WHERE c.run_id = s.run_id AND"
                                        " c.step_id = s.id)), 0) FROM step s WHERE run_id = ?1 AND end_ns >= ?3 AND start_ns <= ?4", &s, err);
    if (status)
        return status;
    bind_window(r, s);
    int code = sqlite3_step(s);
    *steps = code == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    *members = code == SQLITE_ROW ? sqlite3_column_int64(s, 1) : 0;
    return report_finish(r, s, code == SQLITE_ROW ? SQLITE_DONE : code, err);
}

static int write_steps(struct report *r, const struct report_run *run, int64_t stride, struct lathe_error *err)
{
    sqlite3_stmt *s;
    int status = report_prepare(r, run,
        "SELECT id, start_ns, end_ns, requests, prefill_tokens, decode_tokens, waiting, kv_blocks_used, kv_blocks_total, replica,"
        " forward_ns FROM step WHERE run_id = ?1 AND id % ?2 = 0 AND end_ns >= ?3 AND start_ns <= ?4 ORDER BY start_ns, id", &s, err);
    if (status)
        return status;
    struct column c[STEP_COLUMNS] = { 0 };
    bind_window(r, s);
    int code = sqlite3_bind_int64(s, 2, stride);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        for (int i = 0; i < STEP_COLUMNS; i++)
            if (i == START || i == END || i == FORWARD)
                column_add_time(&c[i], run, s, i);
            else
                column_add_row(&c[i], s, i);
        code = SQLITE_OK;
    }
    for (int i = 0; i < STEP_COLUMNS; i++)
        report_column(r, step_columns[i], "u32", &c[i]);
    return report_finish(r, s, code, err);
}

static int write_members(struct report *r, const struct report_run *run, int64_t stride, struct lathe_error *err)
{
    sqlite3_stmt *s;
    int status = report_prepare(r, run, "SELECT c.step_id, c.request_id, c.tokens, c.context, c.phase FROM step_request c"
                                        " JOIN step s ON s.run_id = c.run_id AND s.id = c.step_id WHERE c.run_id = ?1"
                                        " AND c.step_id % ?2 = 0 AND s.end_ns >= ?3 AND s.start_ns <= ?4"
                                        " ORDER BY c.step_id, c.request_id", &s, err);
    if (status)
        return status;
    struct column c[MEMBER_COLUMNS] = { 0 };
    bind_window(r, s);
    int code = sqlite3_bind_int64(s, 2, stride);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        for (int i = 0; i < MEMBER_COLUMNS; i++)
            column_add_row(&c[i], s, i);
        const char *phase = (const char *)sqlite3_column_text(s, MEMBER_COLUMNS);
        if (phase && phase[0] == 'p' && !c[MEMBER_TOKENS].failed)
            c[MEMBER_TOKENS].values[c[MEMBER_TOKENS].count - 1] |= PREFILL_BIT;
        code = SQLITE_OK;
    }
    report_open(r, "members", '{');
    for (int i = 0; i < MEMBER_COLUMNS; i++)
        report_column(r, member_columns[i], "u32", &c[i]);
    report_close(r, '}');
    return report_finish(r, s, code, err);
}

int report_steps(struct report *r, const struct report_run *run, struct lathe_error *err)
{
    int64_t steps, members, runs = (int64_t)r->run_count;
    int status = count_rows(r, run, &steps, &members, err);
    if (status)
        return status;
    int64_t of_steps = report_stride(steps, REPORT_STEPS / runs);
    int64_t of_members = report_stride(members, REPORT_STEP_REQUESTS / runs);
    int64_t stride = of_steps > of_members ? of_steps : of_members;
    report_open(r, "steps", '{');
    report_number(r, "count", (double)steps);
    report_number(r, "every", (double)stride);
    status = write_steps(r, run, stride, err);
    if (!status)
        status = write_members(r, run, stride, err);
    report_close(r, '}');
    return status;
}

/* Databases of before table kv_usage have none. */
static int has_usage(struct report *r, int64_t *has, struct lathe_error *err)
{
    return report_count(r, NULL, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'kv_usage'", has, err);
}

/* A replica's pool over the whole run, a row a replica; averages are float32. */
static int write_figures(struct report *r, const struct report_run *run, const char *name, const char *sql,
                         const char *const *names, int count, struct lathe_error *err)
{
    struct column c[8];
    sqlite3_stmt *s;
    int code, status = report_prepare(r, run, sql, &s, err);
    if (status)
        return status;
    memset(c, 0, sizeof c);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        for (int i = 0; i < count; i++)
            if (i == 1)
                column_add_float_row(&c[i], s, i);
            else
                column_add_row(&c[i], s, i);
    report_open(r, name, '{');
    for (int i = 0; i < count; i++)
        report_column(r, names[i], i == 1 ? "f32" : "u32", &c[i]);
    report_close(r, '}');
    return report_finish(r, s, code, err);
}

int report_memory(struct report *r, const struct report_run *run, struct lathe_error *err)
{
    static const char *const names[] = { "time", "replica", "total", "used", "cached", "shared", "reserved", "filled" };
    enum { NAMES = sizeof names / sizeof *names };
    int64_t has, count = 0;
    sqlite3_stmt *s;
    static const char *const pool[] = { "replica", "mean", "most", "total", "waiting" };
    static const char *const usage[] = { "replica", "filled_share", "evicted", "hit", "looked_up" };
    int status = write_figures(r, run, "pool",
        "SELECT replica, avg(kv_blocks_used), max(kv_blocks_used), max(kv_blocks_total), max(waiting)"
        "  FROM step WHERE run_id = ?1 GROUP BY replica", pool, 5, err);
    if (!status)
        status = has_usage(r, &has, err);
    if (!status && has)
        status = report_count(r, run, "SELECT count(*) FROM kv_usage WHERE run_id = ?1", &count, err);
    if (status || count == 0)
        return status;
    int64_t stride = report_stride(count, REPORT_KV_ROWS / (int64_t)r->run_count);
    status = report_prepare(r, run,
        "SELECT time_ns, replica, blocks_total, blocks_used, blocks_cached, blocks_shared, reserved_tokens, filled_tokens"
        "  FROM (SELECT *, row_number() OVER (ORDER BY step_id) AS place FROM kv_usage WHERE run_id = ?1)"
        " WHERE place % ?2 = 0 ORDER BY time_ns, step_id", &s, err);
    if (status)
        return status;
    struct column c[NAMES];
    memset(c, 0, sizeof c);
    int code = sqlite3_bind_int64(s, 2, stride);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        column_add_time(&c[0], run, s, 0);
        for (int i = 1; i < NAMES; i++)
            column_add_row(&c[i], s, i);
        code = SQLITE_OK;
    }
    report_open(r, "memory", '{');
    status = write_figures(r, run, "figures",
        "SELECT replica, sum(filled_tokens) * 1.0 / nullif(sum(reserved_tokens), 0), max(evicted_tokens), max(hit_tokens),"
        " max(looked_up_tokens) FROM kv_usage WHERE run_id = ?1 GROUP BY replica", usage, 5, err);
    report_number(r, "count", (double)count);
    report_number(r, "every", (double)stride);
    for (int i = 0; i < NAMES; i++)
        report_column(r, names[i], "u32", &c[i]);
    report_close(r, '}');
    if (status) {
        sqlite3_finalize(s);
        return status;
    }
    return report_finish(r, s, code, err);
}

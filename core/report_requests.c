/* SPDX-License-Identifier: MIT */
/* A row a request, in columns: for its bar in the timeline, and for pairing it with the same request of
 * another run (requests are paired by id: a workload gives the same ids whatever serves it). */
#include "report.h"

enum { ID, PLANNED, ADMITTED, FIRST, FINISH, PROMPT, OUTPUT, REPLICA, TTFT, TPOT, E2E, COLUMNS };

static const struct { const char *name, *type; } columns[COLUMNS] = {
    { "id", "u32" },     { "planned", "u32" }, { "admitted", "u32" }, { "first", "u32" }, { "finish", "u32" }, { "prompt", "u32" },
    { "output", "u32" }, { "replica", "u32" }, { "ttft", "f32" },     { "tpot", "f32" },  { "e2e", "f32" },
};

static void add_row(struct column *c, const struct report_run *run, sqlite3_stmt *s)
{
    for (int i = 0; i < COLUMNS; i++)
        if (i >= TTFT)
            column_add_float_row(&c[i], s, i);
        else if (i >= PLANNED && i <= FINISH)
            column_add_time(&c[i], run, s, i);
        else
            column_add_row(&c[i], s, i);
}

int report_requests(struct report *r, const struct report_run *run, struct lathe_error *err)
{
    int64_t count;
    sqlite3_stmt *statement;
    int status = report_count(r, run, "SELECT count(*) FROM request WHERE run_id = ?1", &count, err);
    if (!status)
        status = report_prepare(r, run,
            "SELECT id, planned_ns, admitted_ns, first_token_ns, finish_ns, prompt_tokens, output_tokens, replica,"
            " (first_token_ns - planned_ns) / 1e6,"
            " CASE WHEN output_tokens > 1 THEN (finish_ns - first_token_ns) / 1e6 / (output_tokens - 1) END,"
            " CASE WHEN finish_reason IN ('stop', 'length') THEN (finish_ns - planned_ns) / 1e6 END"
            "  FROM request WHERE run_id = ?1 AND id % ?2 = 0 ORDER BY planned_ns, id", &statement, err);
    if (status)
        return status;
    int64_t stride = report_stride(count, REPORT_REQUESTS / (int64_t)r->run_count);
    struct column c[COLUMNS] = { 0 };
    int code = sqlite3_bind_int64(statement, 2, stride);
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        add_row(c, run, statement);
        code = SQLITE_OK;
    }
    report_open(r, "requests_shown", '{');
    report_number(r, "count", (double)count);
    report_number(r, "every", (double)stride);
    for (int i = 0; i < COLUMNS; i++)
        report_column(r, columns[i].name, columns[i].type, &c[i]);
    report_close(r, '}');
    return report_finish(r, statement, code, err);
}

/* SPDX-License-Identifier: MIT */
/* Which runs a page is about, and a row of each: what the views run_latency and which_run_is_which say. */
#include "report.h"

#include <stdlib.h>
#include <string.h>

#include "recorder_schema.h"

/* 2^32 units from the run's beginning to its last row: a nanosecond each in runs below 4.29 s. */
static int find_unit(struct report *r, struct report_run *run, struct lathe_error *err)
{
    int64_t last;
    int status = report_count(r, run,
        "SELECT max(ifnull((SELECT max(max(planned_ns, arrival_ns, ifnull(finish_ns, 0))) FROM request WHERE run_id = ?1), 0),"
        " ifnull((SELECT max(end_ns) FROM step WHERE run_id = ?1), 0))", &last, err);
    run->unit_ns = last < 4200000000 ? 1 : (double)last / 4.2e9;
    return status;
}

static bool is_named(const struct report *r, int64_t id)
{
    bool named = r->named_run_count == 0;
    for (size_t i = 0; i < r->named_run_count; i++)
        named |= r->named_runs[i] == id;
    return named || (r->comparing && (id == r->compare[0] || id == r->compare[1]));
}

static bool is_there(const struct report *r, int64_t id)
{
    for (size_t i = 0; i < r->run_count; i++)
        if (r->runs[i].id == id)
            return true;
    return false;
}

static int require(const struct report *r, const char *option, int64_t id, struct lathe_error *err)
{
    return is_there(r, id) ? LATHE_OK
        : lathe_fail(err, LATHE_ENOTFOUND, "%s: %s has no run %lld; `lathe sql %s \"select * from which_run_is_which\"` lists them",
                     option, r->path, (long long)id, r->path);
}

static int check_named(const struct report *r, struct lathe_error *err)
{
    int status = LATHE_OK;
    for (size_t i = 0; i < r->named_run_count && !status; i++)
        status = require(r, "--run", r->named_runs[i], err);
    for (int i = 0; r->comparing && i < 2 && !status; i++)
        status = require(r, "--compare", r->compare[i], err);
    return status;
}

/* The newest REPORT_MAX_RUNS, if no runs are named. */
static int choose(struct report *r, struct lathe_error *err)
{
    sqlite3_stmt *statement;
    int code, status = report_prepare(r, NULL, "SELECT id FROM run ORDER BY id DESC", &statement, err);
    if (status)
        return status;
    r->runs = calloc(REPORT_MAX_RUNS, sizeof *r->runs);
    int64_t left_out = 0;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && r->runs) {
        int64_t id = sqlite3_column_int64(statement, 0);
        if (!is_named(r, id))
            continue;
        if (r->run_count < REPORT_MAX_RUNS)
            r->runs[r->run_count++].id = id;
        else
            left_out++;
    }
    if (!r->runs) {
        sqlite3_finalize(statement);
        return lathe_fail(err, LATHE_ENOMEM, "no memory to list the runs of %s", r->path);
    }
    if ((status = report_finish(r, statement, code, err)) || (status = check_named(r, err)))
        return status;
    if (r->run_count == 0)
        return lathe_fail(err, LATHE_ENOTFOUND, "%s has no run in it; `lathe run EXPERIMENT` makes one", r->path);
    for (size_t i = 0; i < r->run_count / 2; i++) { /* ascending */
        struct report_run swap = r->runs[i];
        r->runs[i] = r->runs[r->run_count - 1 - i];
        r->runs[r->run_count - 1 - i] = swap;
    }
    for (size_t i = 0; i < r->run_count && !status; i++)
        status = find_unit(r, &r->runs[i], err);
    report_open(r, "notes", '[');
    if (left_out > 0) {
        report_key(r, NULL);
        text_print(&r->json, "\"The newest %d runs are here; %lld older ones are left out. "
                   "Name those that you want with --run.\"", REPORT_MAX_RUNS, (long long)left_out);
    }
    report_close(r, ']');
    return LATHE_OK;
}

static const struct report_run *find_run(const struct report *r, int64_t id)
{
    for (size_t i = 0; i < r->run_count; i++)
        if (r->runs[i].id == id)
            return &r->runs[i];
    return NULL;
}

static int write_sections(struct report *r, const struct report_run *run, struct lathe_error *err)
{
    int status = report_latency(r, run, err);
    if (!status)
        status = report_requests(r, run, err);
    if (!status)
        status = report_steps(r, run, err);
    if (!status)
        status = report_memory(r, run, err);
    return status;
}

/* Each column of the row by its name, then the sections. */
int report_runs(struct report *r, struct lathe_error *err)
{
    sqlite3_stmt *statement;
    int status = choose(r, err);
    if (!status) /* both views are computed once, not once a run */
        status = report_prepare(r, NULL,
            "SELECT r.id, r.label, r.experiment, r.question, r.sweep, r.seed_index, r.seed, r.clock, r.state, r.dropped_events,"
            " w.started_at, w.factors, w.plugins, l.requests, l.failed, l.output_tokens, l.seconds, l.tokens_per_s, l.goodput"
            "  FROM run r JOIN which_run_is_which w ON w.run_id = r.id JOIN run_latency l ON l.run_id = r.id ORDER BY r.id",
            &statement, err);
    if (status)
        return status;
    report_open(r, "runs", '[');
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && !status) {
        const struct report_run *run = find_run(r, sqlite3_column_int64(statement, 0));
        if (!run)
            continue;
        report_open(r, NULL, '{');
        for (int i = 0; i < sqlite3_column_count(statement); i++)
            report_value(r, sqlite3_column_name(statement, i), statement, i);
        report_number(r, "unit_ns", run->unit_ns);
        status = write_sections(r, run, err);
        report_close(r, '}');
    }
    report_close(r, ']');
    if (status) {
        sqlite3_finalize(statement);
        return status;
    }
    return report_finish(r, statement, code, err);
}

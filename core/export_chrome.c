/* SPDX-License-Identifier: MIT */
/* lathe export --format chrome: runs as Trace Event JSON, which ui.perfetto.dev and chrome://tracing open.
 *
 *     process                   its threads           slices
 *     run 1 (label): steps      a replica             step ▸ schedule, reserve, forward, sample;  counters of the pool
 *     run 1 (label): requests   a request             request ▸ queue, prefill, decode, preempted ▸ its part of each step
 *     run 1 (label): bus        an endpoint           hop ▸ waits, works
 *
 * An arrow leads from each step to its part in each request. What overlaps (two calls of one endpoint at once) gets
 * threads of its own, as many as are needed at once. Every run begins at 0, so that two runs of a comparison lie
 * under each other; when that was is in otherData.
 *
 * Under the virtual clock schedule, reserve and sample are the host's time and not the step's: only forward is drawn. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "product.h"
#include "recorder_schema.h"

/* Three processes a run, and one number of an arrow for each step and request. */
enum { STEPS = 1, REQUESTS = 2, BUS = 3, PROCESSES = 10 };
enum { REQUEST_BITS = 21 };
#define MAX_STEP (INT64_C(1) << 31)

struct run {
    sqlite3 *db;
    const struct export_arguments *a;
    struct chrome *c;
    int64_t id, pid, end_ns;
    bool is_virtual;
    char title[128], uid[64];
};

static int64_t arrow(int64_t step, int64_t request)
{
    bool fits = step >= 0 && step < MAX_STEP && request >= 0 && request < INT64_C(1) << REQUEST_BITS;
    return fits ? step << REQUEST_BITS | request : -1;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The components of a step one after another, as far as they fit into it. */
static void write_components(struct run *r, int64_t tid, int64_t from_ns, int64_t to_ns, sqlite3_stmt *row)
{
    static const char *const names[] = { "schedule", "reserve", "forward", "sample" };
    for (int i = 0; i < 4; i++) {
        int64_t took = sqlite3_column_int64(row, 4 + i), end_ns = took < to_ns - from_ns ? from_ns + took : to_ns;
        if (took <= 0 || end_ns == from_ns || (r->is_virtual && i != 2))
            continue;
        chrome_begin(r->c, r->pid + STEPS, tid, from_ns, "component", names[i]);
        chrome_end(r->c, r->pid + STEPS, tid, end_ns);
        from_ns = end_ns;
    }
}

static void write_counters(struct run *r, int64_t replica, int64_t at_ns, sqlite3_stmt *row)
{
    char name[64];
    snprintf(name, sizeof name, "KV blocks, replica %" PRId64, replica);
    chrome_arg_number(r->c, "used", sqlite3_column_int64(row, 12));
    chrome_counter(r->c, r->pid + STEPS, at_ns, name);
    snprintf(name, sizeof name, "requests, replica %" PRId64, replica);
    chrome_arg_number(r->c, "in the batch", sqlite3_column_int64(row, 8));
    chrome_arg_number(r->c, "waiting", sqlite3_column_int64(row, 11));
    chrome_counter(r->c, r->pid + STEPS, at_ns, name);
}

/* From the open step to each of its requests. */
static int write_arrows(struct run *r, sqlite3_stmt *company, int64_t step, int64_t tid, int64_t at_ns)
{
    sqlite3_reset(company);
    sqlite3_bind_int64(company, 2, step);
    int code;
    while ((code = sqlite3_step(company)) == SQLITE_ROW) {
        int64_t id = arrow(step, sqlite3_column_int64(company, 0));
        if (id >= 0)
            chrome_flow(r->c, 's', r->pid + STEPS, tid, at_ns, r->id, id);
    }
    return code;
}

static int write_steps(struct run *r, struct lathe_error *err)
{
    struct export_lanes lanes = { 0 };
    sqlite3_stmt *row = NULL, *company = NULL;
    char name[64];
    int code = SQLITE_DONE, company_code = SQLITE_DONE;
    int status = export_prepare(r->db, r->a,
                                "SELECT id, replica, start_ns, end_ns, schedule_ns, reserve_ns, forward_ns, sample_ns, requests, "
                                "prefill_tokens, decode_tokens, waiting, kv_blocks_used FROM step WHERE run_id = ?1 "
                                "ORDER BY start_ns, id", r->id, &row, err);
    if (!status)
        status = export_prepare(r->db, r->a, "SELECT request_id FROM step_request WHERE run_id = ?1 AND step_id = ?2", r->id, &company, err);
    while (!status && company_code == SQLITE_DONE && (code = sqlite3_step(row)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(row, 0), replica = sqlite3_column_int64(row, 1);
        int64_t start_ns = sqlite3_column_int64(row, 2), end_ns = sqlite3_column_int64(row, 3);
        bool fresh;
        int number, lane = export_lane(&lanes, replica, start_ns, end_ns, &fresh, &number);
        if (lane < 0) {
            status = lathe_fail(err, LATHE_ENOMEM, "no memory for the tracks of %s", r->a->path);
            break;
        }
        if (fresh) {
            snprintf(name, sizeof name, number ? "replica %" PRId64 " (%d)" : "replica %" PRId64, replica, number + 1);
            chrome_name(r->c, r->pid + STEPS, lane + 1, name);
        }
        snprintf(name, sizeof name, "step %" PRId64, id);
        chrome_arg_number(r->c, "requests", sqlite3_column_int64(row, 8));
        chrome_arg_number(r->c, "prefill_tokens", sqlite3_column_int64(row, 9));
        chrome_arg_number(r->c, "decode_tokens", sqlite3_column_int64(row, 10));
        chrome_begin(r->c, r->pid + STEPS, lane + 1, start_ns, "step", name);
        company_code = write_arrows(r, company, id, lane + 1, start_ns);
        write_components(r, lane + 1, start_ns, end_ns, row);
        chrome_end(r->c, r->pid + STEPS, lane + 1, end_ns < start_ns ? start_ns : end_ns);
        write_counters(r, replica, end_ns, row);
    }
    free(lanes.lanes);
    sqlite3_finalize(company);
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(r->db, r->a, row, company_code != SQLITE_DONE ? company_code : code, err);
}

static void write_life(struct run *r, const struct export_life *life, int64_t request, int64_t tid)
{
    char name[64];
    for (size_t p = 0; p < life->phase_count; p++) {
        const struct export_phase *phase = &life->phases[p];
        chrome_begin(r->c, r->pid + REQUESTS, tid, phase->from_ns, "phase", phase->name);
        for (size_t i = phase->first; i < phase->first + phase->slices; i++) {
            const struct export_slice *slice = &life->slices[i];
            if (slice->prefill || slice->tokens != 1)
                snprintf(name, sizeof name, "%" PRId64 " tokens", slice->tokens);
            else
                snprintf(name, sizeof name, "token %" PRId64, slice->first_position + 1);
            chrome_arg_number(r->c, "step", slice->step_id);
            chrome_arg_number(r->c, "first_position", slice->first_position);
            chrome_begin(r->c, r->pid + REQUESTS, tid, slice->from_ns, "step_request", name);
            int64_t id = arrow(slice->step_id, request);
            if (id >= 0)
                chrome_flow(r->c, 'f', r->pid + REQUESTS, tid, slice->from_ns, r->id, id);
            chrome_end(r->c, r->pid + REQUESTS, tid, slice->to_ns);
        }
        chrome_end(r->c, r->pid + REQUESTS, tid, phase->to_ns);
    }
}

static int64_t time_of(sqlite3_stmt *row, int column)
{
    return sqlite3_column_type(row, column) == SQLITE_NULL ? INT64_MIN : sqlite3_column_int64(row, column);
}

static int write_requests(struct run *r, struct lathe_error *err)
{
    struct export_life life;
    sqlite3_stmt *row = NULL;
    int code = SQLITE_DONE, status = export_life_open(&life, r->db, r->a, r->id, err);
    if (!status)
        status = export_prepare(r->db, r->a,
                                "SELECT id, planned_ns, admitted_ns, first_token_ns, finish_ns, finish_reason, prompt_tokens, output_tokens, "
                                "cached_tokens, preemptions, tenant, class, correlation_id, w3c_trace(run.uid, request.id, correlation_id), "
                                "w3c_span(run.uid, 'request', request.id, 0) FROM request JOIN (SELECT id AS run_id, uid FROM run) run "
                                "USING (run_id) WHERE run_id = ?1 ORDER BY id", r->id, &row, err);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(row, 0);
        struct export_times times = { time_of(row, 1), time_of(row, 2), time_of(row, 3), time_of(row, 4) };
        char name[64];
        if ((status = export_life_read(&life, r->db, r->a, id, &times, r->end_ns, err)))
            break;
        snprintf(name, sizeof name, "request %" PRId64, id);
        chrome_name(r->c, r->pid + REQUESTS, id, name);
        static const char *const texts[] = { "tenant", "class", "correlation_id", "trace_id", "span_id" };
        static const char *const numbers[] = { "prompt_tokens", "output_tokens", "cached_tokens", "preemptions" };
        for (int i = 0; i < 4; i++)
            chrome_arg_number(r->c, numbers[i], sqlite3_column_int64(row, 6 + i));
        for (int i = 0; i < 5; i++)
            if (sqlite3_column_type(row, 10 + i) != SQLITE_NULL)
                chrome_arg_text(r->c, texts[i], (const char *)sqlite3_column_text(row, 10 + i));
        if (sqlite3_column_type(row, 5) != SQLITE_NULL)
            chrome_arg_text(r->c, "finish_reason", (const char *)sqlite3_column_text(row, 5));
        chrome_begin(r->c, r->pid + REQUESTS, id, life.from_ns, "request", name);
        write_life(r, &life, id, id);
        chrome_end(r->c, r->pid + REQUESTS, id, life.to_ns);
    }
    export_life_close(&life);
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(r->db, r->a, row, code, err);
}

static int write_hops(struct run *r, struct lathe_error *err)
{
    struct export_lanes lanes = { 0 };
    sqlite3_stmt *row = NULL;
    int code = SQLITE_DONE;
    int status = export_prepare(r->db, r->a,
                                "SELECT id, endpoint, sent_ns, started_ns, ended_ns, bytes, status, worker, step_id, "
                                "dense_rank() OVER (ORDER BY endpoint) FROM hop WHERE run_id = ?1 ORDER BY sent_ns, id", r->id, &row, err);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        const char *endpoint = (const char *)sqlite3_column_text(row, 1);
        int64_t sent_ns = sqlite3_column_int64(row, 2), ended_ns = sqlite3_column_int64(row, 4);
        ended_ns = ended_ns < sent_ns ? sent_ns : ended_ns;
        int64_t started_ns = least(sqlite3_column_int64(row, 3) < sent_ns ? sent_ns : sqlite3_column_int64(row, 3), ended_ns);
        bool fresh;
        int number, lane = export_lane(&lanes, sqlite3_column_int64(row, 9), sent_ns, ended_ns, &fresh, &number);
        if (lane < 0) {
            status = lathe_fail(err, LATHE_ENOMEM, "no memory for the tracks of %s", r->a->path);
            break;
        }
        if (fresh) {
            char name[128];
            snprintf(name, sizeof name, number ? "%.100s (%d)" : "%.100s", endpoint ? endpoint : "", number + 1);
            chrome_name(r->c, r->pid + BUS, lane + 1, name);
        }
        static const char *const numbers[] = { "bytes", "status", "worker" };
        for (int i = 0; i < 3; i++)
            chrome_arg_number(r->c, numbers[i], sqlite3_column_int64(row, 5 + i));
        if (sqlite3_column_type(row, 8) != SQLITE_NULL)
            chrome_arg_number(r->c, "step", sqlite3_column_int64(row, 8));
        chrome_begin(r->c, r->pid + BUS, lane + 1, sent_ns, "hop", endpoint ? endpoint : "");
        if (started_ns > sent_ns) {
            chrome_begin(r->c, r->pid + BUS, lane + 1, sent_ns, "hop_part", "waits");
            chrome_end(r->c, r->pid + BUS, lane + 1, started_ns);
        }
        if (ended_ns > started_ns) {
            chrome_begin(r->c, r->pid + BUS, lane + 1, started_ns, "hop_part", "works");
            chrome_end(r->c, r->pid + BUS, lane + 1, ended_ns);
        }
        chrome_end(r->c, r->pid + BUS, lane + 1, ended_ns);
    }
    free(lanes.lanes);
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(r->db, r->a, row, code, err);
}

/* What was told of the run and of its services. */
static int write_events(struct run *r, struct lathe_error *err)
{
    sqlite3_stmt *row = NULL;
    int code, status = export_prepare(r->db, r->a,
                                      "SELECT time_ns, message FROM event WHERE run_id = ?1 AND level IS NOT 'debug' UNION ALL "
                                      "SELECT time_ns, ifnull(service || ': ', '') || what || ifnull(': ' || detail, '') FROM service_event "
                                      "WHERE run_id = ?1 ORDER BY 1", r->id, &row, err);
    if (status)
        return status;
    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        const char *message = (const char *)sqlite3_column_text(row, 1);
        chrome_instant(r->c, r->pid + STEPS, sqlite3_column_int64(row, 0), message ? message : "");
    }
    return export_finish(r->db, r->a, row, code, err);
}

static int write_run(struct run *r, struct lathe_error *err)
{
    static const struct { int place; const char *what; } processes[] = { { STEPS, "steps" }, { REQUESTS, "requests" }, { BUS, "bus" } };
    for (size_t i = 0; i < sizeof processes / sizeof *processes; i++) {
        char name[192];
        snprintf(name, sizeof name, "%s: %s", r->title, processes[i].what);
        chrome_name(r->c, r->pid + processes[i].place, 0, name);
    }
    int status = write_steps(r, err);
    if (!status)
        status = write_requests(r, err);
    if (!status)
        status = write_hops(r, err);
    return status ? status : write_events(r, err);
}

static int write_runs(sqlite3 *db, const struct export_arguments *a, struct chrome *c, struct text *other, int64_t *runs, struct lathe_error *err)
{
    sqlite3_stmt *row = NULL;
    int code = SQLITE_DONE;
    int status = export_prepare(db, a,
                                "SELECT id, label, uid, started_at, clock = 'virtual', w3c_trace(uid, 0, NULL), max("
                                "ifnull((SELECT max(end_ns) FROM step WHERE run_id = run.id), 0), "
                                "ifnull((SELECT max(ifnull(finish_ns, arrival_ns)) FROM request WHERE run_id = run.id), 0)) "
                                "FROM run WHERE ?1 IN (0, id) ORDER BY id", a->run, &row, err);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        const char *label = (const char *)sqlite3_column_text(row, 1), *uid = (const char *)sqlite3_column_text(row, 2);
        struct run r = { .db = db, .a = a, .c = c, .id = sqlite3_column_int64(row, 0), .is_virtual = sqlite3_column_int(row, 4) != 0,
                         .end_ns = sqlite3_column_int64(row, 6), .pid = ++*runs * PROCESSES };
        snprintf(r.title, sizeof r.title, label ? "run %" PRId64 " (%.90s)" : "run %" PRId64, r.id, label);
        text_print(other, ",\n\"run %" PRId64 "\":{\"uid\":", r.id);
        text_json(other, uid);
        text_print(other, ",\"trace_id\":\"%s\",\"started_at_unix_ns\":\"%lld\"}", (const char *)sqlite3_column_text(row, 5),
                   (long long)sqlite3_column_int64(row, 3));
        status = write_run(&r, err);
    }
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(db, a, row, code, err);
}

int export_chrome(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err)
{
    struct chrome c = { 0 };
    struct text other = { 0 };
    int64_t runs = 0;
    int status = export_create(a, &c.out, err);
    if (status)
        return status;
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", c.out);
    status = write_runs(db, a, &c, &other, &runs, err);
    if (!status && (c.args.failed || other.failed))
        status = lathe_fail(err, LATHE_ENOMEM, "no memory for an event of %s", a->path);
    fprintf(c.out, "\n],\"otherData\":{\"producer\":\"lathe %s\"%s}}\n", product_version(), other.bytes ? other.bytes : "");
    status = export_close(a, c.out, status, err);
    if (!status)
        printf("%s: %lld %s; open it at ui.perfetto.dev or chrome://tracing\n", a->output, (long long)runs, runs == 1 ? "run" : "runs");
    text_free(&c.args);
    text_free(&other);
    return status;
}

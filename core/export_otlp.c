/* SPDX-License-Identifier: MIT */
/* lathe export --format otlp: runs as spans of OpenTelemetry.
 *
 *     trace of the run        run ▸ step (links to its requests) ▸ hop ▸ hop that it called
 *     trace of each request   request ▸ queue, prefill, decode, preempted …
 *                             request ▸ hop on its behalf (tokenizer.encode)
 *
 * A request has a trace of its own, because that is what other systems know of it: one whose correlation id is a
 * traceparent goes on in the caller's trace. Steps serve many requests at once, hence links. Attributes follow
 * the semantic conventions for generative AI (gen_ai.*) where they have a word, and are lathe.* otherwise. */
#include <inttypes.h>
#include <string.h>

#include "export.h"
#include "product.h"
#include "recorder_schema.h"

struct run {
    sqlite3 *db;
    const struct export_arguments *a;
    struct spans *s;
    int64_t id, started_at, end_ns;
    const char *uid, *trace_id, *span_id;
};

static const char *text_at(sqlite3_stmt *row, int column)
{
    return (const char *)sqlite3_column_text(row, column); /* NULL for NULL */
}

static int64_t time_of(sqlite3_stmt *row, int column)
{
    return sqlite3_column_type(row, column) == SQLITE_NULL ? INT64_MIN : sqlite3_column_int64(row, column);
}

static void number_at(struct run *r, const char *name, sqlite3_stmt *row, int column)
{
    if (sqlite3_column_type(row, column) != SQLITE_NULL)
        span_number(&r->s->attributes, name, sqlite3_column_int64(row, column));
}

static int write_phases(struct run *r, const struct export_life *life, const char *trace_id, const char *parent_id, int64_t request,
                        sqlite3_stmt *name_span, struct lathe_error *err)
{
    int status = LATHE_OK;
    for (size_t i = 0; i < life->phase_count && !status; i++) {
        const struct export_phase *phase = &life->phases[i];
        int64_t tokens = 0;
        for (size_t k = phase->first; k < phase->first + phase->slices; k++)
            tokens += life->slices[k].tokens;
        sqlite3_reset(name_span);
        sqlite3_bind_text(name_span, 1, r->uid, -1, SQLITE_STATIC);
        sqlite3_bind_int64(name_span, 2, request);
        sqlite3_bind_int64(name_span, 3, (int64_t)i);
        if (sqlite3_step(name_span) != SQLITE_ROW)
            return schema_fail(r->db, r->a->path, "reading its rows", err);
        if (phase->slices) {
            span_number(&r->s->attributes, "lathe.steps", (int64_t)phase->slices);
            span_number(&r->s->attributes, "lathe.tokens", tokens);
        }
        const struct span span = { .trace_id = trace_id, .span_id = text_at(name_span, 0), .parent_id = parent_id, .name = phase->name,
                                   .kind = SPAN_INTERNAL, .from_ns = r->started_at + phase->from_ns, .to_ns = r->started_at + phase->to_ns };
        status = span_add(r->s, &span, err);
    }
    return status;
}

/* Columns of the requests' query, in its order. */
enum { ID, PLANNED, ADMITTED, FIRST_TOKEN, FINISH, REASON, MODEL, TENANT, CLASS, SESSION, CORRELATION, TRACE, SPAN, PARENT, PROMPT, OUTPUT,
       CACHED, PREEMPTIONS, REPLICA, MOST_TOKENS, TEMPERATURE, TOP_P };

static int write_request(struct run *r, const struct export_life *life, sqlite3_stmt *row, struct lathe_error *err)
{
    struct text *to = &r->s->attributes;
    const char *reason = text_at(row, REASON), *model = text_at(row, MODEL);
    char name[96];
    span_text(to, "gen_ai.operation.name", "text_completion");
    span_text(to, "gen_ai.provider.name", "lathe");
    span_text(to, "gen_ai.request.model", model);
    span_text(to, "gen_ai.response.model", model);
    number_at(r, "gen_ai.usage.input_tokens", row, PROMPT);
    number_at(r, "gen_ai.usage.output_tokens", row, OUTPUT);
    number_at(r, "gen_ai.usage.cache_read.input_tokens", row, CACHED);
    number_at(r, "gen_ai.request.max_tokens", row, MOST_TOKENS);
    static const struct { const char *name; int column; } wishes[] = { { "gen_ai.request.temperature", TEMPERATURE }, { "gen_ai.request.top_p", TOP_P } };
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++)
        if (sqlite3_column_type(row, wishes[i].column) != SQLITE_NULL) {
            text_print(to, ",{\"key\":\"%s\",\"value\":{\"doubleValue\":", wishes[i].name);
            text_json_number(to, sqlite3_column_double(row, wishes[i].column));
            text_print(to, "}}");
        }
    if (reason) {
        text_print(to, ",{\"key\":\"gen_ai.response.finish_reasons\",\"value\":{\"arrayValue\":{\"values\":[{\"stringValue\":");
        text_json(to, reason);
        text_print(to, "}]}}}");
    }
    span_text(to, "gen_ai.conversation.id", text_at(row, SESSION));
    span_text(to, "lathe.tenant", text_at(row, TENANT));
    span_text(to, "lathe.class", text_at(row, CLASS));
    span_text(to, "lathe.correlation_id", text_at(row, CORRELATION));
    span_number(to, "lathe.run", r->id);
    number_at(r, "lathe.request", row, ID);
    number_at(r, "lathe.replica", row, REPLICA);
    number_at(r, "lathe.preemptions", row, PREEMPTIONS);
    if (sqlite3_column_type(row, FIRST_TOKEN) != SQLITE_NULL)
        span_number(to, "lathe.ttft_ns", sqlite3_column_int64(row, FIRST_TOKEN) - life->from_ns);
    bool failed = reason && strcmp(reason, "stop") != 0 && strcmp(reason, "length") != 0;
    span_text(to, "error.type", failed ? reason : NULL);
    snprintf(name, sizeof name, "text_completion %.70s", model ? model : "");
    const struct span span = { .trace_id = text_at(row, TRACE), .span_id = text_at(row, SPAN), .parent_id = text_at(row, PARENT), .name = name,
                               .kind = SPAN_SERVER, .from_ns = r->started_at + life->from_ns, .to_ns = r->started_at + life->to_ns,
                               .failure = failed ? reason : NULL };
    return span_add(r->s, &span, err);
}

static int write_requests(struct run *r, struct lathe_error *err)
{
    struct export_life life;
    sqlite3_stmt *row = NULL, *name_span = NULL;
    int code = SQLITE_DONE, status = export_life_open(&life, r->db, r->a, r->id, err);
    if (!status && sqlite3_prepare_v2(r->db, "SELECT w3c_span(?1, 'phase', ?2, ?3)", -1, &name_span, NULL) != SQLITE_OK)
        status = schema_fail(r->db, r->a->path, "reading its rows", err);
    if (!status)
        status = export_prepare(r->db, r->a,
                                "SELECT q.id, planned_ns, admitted_ns, first_token_ns, finish_ns, finish_reason, model, tenant, class, session, "
                                "correlation_id, w3c_trace(uid, q.id, correlation_id), w3c_span(uid, 'request', q.id, 0), w3c_parent(correlation_id), "
                                "prompt_tokens, output_tokens, cached_tokens, preemptions, replica, max_tokens, sampling ->> '$.temperature', "
                                "sampling ->> '$.top_p' FROM request q JOIN run ON run.id = q.run_id WHERE q.run_id = ?1 ORDER BY q.id",
                                r->id, &row, err);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        struct export_times times = { time_of(row, PLANNED), time_of(row, ADMITTED), time_of(row, FIRST_TOKEN), time_of(row, FINISH) };
        int64_t id = sqlite3_column_int64(row, ID);
        status = export_life_read(&life, r->db, r->a, id, &times, r->end_ns, err);
        if (!status)
            status = write_request(r, &life, row, err);
        if (!status)
            status = write_phases(r, &life, text_at(row, TRACE), text_at(row, SPAN), id, name_span, err);
    }
    export_life_close(&life);
    sqlite3_finalize(name_span);
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(r->db, r->a, row, code, err);
}

static int write_steps(struct run *r, struct lathe_error *err)
{
    static const char *const numbers[] = { "lathe.step", "lathe.replica", "lathe.schedule_ns", "lathe.reserve_ns", "lathe.forward_ns", "lathe.sample_ns",
                                           "lathe.requests", "lathe.prefill_tokens", "lathe.decode_tokens", "lathe.waiting", "lathe.kv_blocks_used" };
    sqlite3_stmt *row = NULL, *company = NULL;
    int code = SQLITE_DONE, company_code = SQLITE_DONE;
    int status = export_prepare(r->db, r->a,
                                "SELECT s.id, replica, schedule_ns, reserve_ns, forward_ns, sample_ns, requests, prefill_tokens, decode_tokens, "
                                "waiting, kv_blocks_used, start_ns, end_ns, w3c_span(uid, 'step', s.id, 0) FROM step s "
                                "JOIN run ON run.id = s.run_id WHERE s.run_id = ?1 ORDER BY start_ns, s.id", r->id, &row, err);
    if (!status)
        status = export_prepare(r->db, r->a,
                                "SELECT w3c_trace(uid, q.id, correlation_id), w3c_span(uid, 'request', q.id, 0) FROM step_request c "
                                "JOIN request q ON q.run_id = c.run_id AND q.id = c.request_id JOIN run ON run.id = c.run_id "
                                "WHERE c.run_id = ?1 AND c.step_id = ?2", r->id, &company, err);
    while (!status && company_code == SQLITE_DONE && (code = sqlite3_step(row)) == SQLITE_ROW) {
        for (int i = 0; i < (int)(sizeof numbers / sizeof *numbers); i++)
            number_at(r, numbers[i], row, i);
        sqlite3_reset(company);
        sqlite3_bind_int64(company, 2, sqlite3_column_int64(row, 0));
        while ((company_code = sqlite3_step(company)) == SQLITE_ROW)
            span_link(r->s, text_at(company, 0), text_at(company, 1));
        const struct span span = { .trace_id = r->trace_id, .span_id = text_at(row, 13), .parent_id = r->span_id, .name = "step",
                                   .kind = SPAN_INTERNAL, .from_ns = r->started_at + sqlite3_column_int64(row, 11),
                                   .to_ns = r->started_at + sqlite3_column_int64(row, 12) };
        status = span_add(r->s, &span, err);
    }
    sqlite3_finalize(company);
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(r->db, r->a, row, company_code != SQLITE_DONE ? company_code : code, err);
}

/* A hop's parent is the hop that called it, else the request that its message names, else its step, else the run. The
 * engine's own calls before a step has its row carry the step's number as their correlation. */
static int write_hops(struct run *r, struct lathe_error *err)
{
    sqlite3_stmt *row = NULL;
    int code = SQLITE_DONE;
    int status = export_prepare(r->db, r->a,
                                "WITH named AS MATERIALIZED (SELECT id, correlation_id AS text, correlation(correlation_id) AS number FROM request WHERE run_id = ?1) "
                                "SELECT h.endpoint, h.sent_ns, h.ended_ns, h.bytes, h.status, h.worker, h.started_ns - h.sent_ns, w3c_span(uid, 'hop', h.id, 0), "
                                "CASE WHEN p.id IS NULL AND q.id IS NOT NULL THEN w3c_trace(uid, q.id, q.text) END, "
                                "CASE WHEN p.id IS NOT NULL THEN w3c_span(uid, 'hop', p.id, 0) WHEN q.id IS NOT NULL THEN w3c_span(uid, 'request', q.id, 0) "
                                "WHEN s.id IS NOT NULL THEN w3c_span(uid, 'step', s.id, 0) END, h.id "
                                "FROM hop h JOIN run ON run.id = h.run_id "
                                "LEFT JOIN hop p ON p.run_id = h.run_id AND p.id = h.parent_id "
                                "LEFT JOIN step s ON s.run_id = h.run_id AND s.id = ifnull(h.step_id, h.correlation_id) "
                                "AND (h.step_id IS NOT NULL OR h.sent_ns BETWEEN s.start_ns AND s.end_ns) "
                                "LEFT JOIN named q ON q.number = h.correlation_id "
                                "WHERE h.run_id = ?1 ORDER BY h.sent_ns, h.id", r->id, &row, err);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        char failure[48];
        const char *trace_id = text_at(row, 8), *parent_id = text_at(row, 9), *endpoint = text_at(row, 0);
        int failed = sqlite3_column_int(row, 4);
        span_text(&r->s->attributes, "rpc.system.name", "lathe");
        span_text(&r->s->attributes, "rpc.method", endpoint);
        number_at(r, "lathe.hop", row, 10);
        number_at(r, "lathe.bytes", row, 3);
        number_at(r, "lathe.worker", row, 5);
        number_at(r, "lathe.wait_ns", row, 6);
        snprintf(failure, sizeof failure, "status %d", failed);
        span_text(&r->s->attributes, "error.type", failed ? failure : NULL);
        const struct span span = { .trace_id = trace_id ? trace_id : r->trace_id, .span_id = text_at(row, 7), .parent_id = parent_id ? parent_id : r->span_id,
                                   .name = endpoint ? endpoint : "", .kind = SPAN_CLIENT, .from_ns = r->started_at + sqlite3_column_int64(row, 1),
                                   .to_ns = r->started_at + sqlite3_column_int64(row, 2), .failure = failed ? failure : NULL };
        status = span_add(r->s, &span, err);
    }
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(r->db, r->a, row, code, err);
}

static int write_run(struct run *r, sqlite3_stmt *row, struct lathe_error *err)
{
    struct text *to = &r->s->resource;
    to->count = 0;
    span_text(to, "service.name", "lathe");
    span_text(to, "service.version", product_version());
    span_text(to, "service.instance.id", r->uid);
    span_text(to, "lathe.run.label", text_at(row, 5));
    span_text(to, "lathe.run.experiment", text_at(row, 6));
    span_text(to, "lathe.run.clock", text_at(row, 7));
    number_at(r, "lathe.run", row, 0);
    const char *label = text_at(row, 5);
    const struct span span = { .trace_id = r->trace_id, .span_id = r->span_id, .name = label ? label : "run", .kind = SPAN_INTERNAL,
                               .from_ns = r->started_at, .to_ns = r->started_at + r->end_ns,
                               .failure = strcmp(text_at(row, 8), "failed") == 0 ? "the run failed" : NULL };
    int status = span_add(r->s, &span, err);
    if (!status)
        status = write_steps(r, err);
    if (!status)
        status = write_requests(r, err);
    if (!status)
        status = write_hops(r, err);
    return status ? status : spans_flush(r->s, err); /* another run is another resource */
}

static int write_runs(sqlite3 *db, const struct export_arguments *a, struct spans *s, struct lathe_error *err)
{
    sqlite3_stmt *row = NULL;
    int code = SQLITE_DONE;
    int status = export_prepare(db, a,
                                "SELECT id, uid, started_at, w3c_trace(uid, 0, NULL), w3c_span(uid, 'run', 0, 0), label, experiment, clock, state, max("
                                "ifnull((SELECT max(end_ns) FROM step WHERE run_id = run.id), 0), "
                                "ifnull((SELECT max(ifnull(finish_ns, arrival_ns)) FROM request WHERE run_id = run.id), 0)) "
                                "FROM run WHERE ?1 IN (0, id) ORDER BY id", a->run, &row, err);
    while (!status && (code = sqlite3_step(row)) == SQLITE_ROW) {
        struct run r = { .db = db, .a = a, .s = s, .id = sqlite3_column_int64(row, 0), .uid = text_at(row, 1), .started_at = sqlite3_column_int64(row, 2),
                         .trace_id = text_at(row, 3), .span_id = text_at(row, 4), .end_ns = sqlite3_column_int64(row, 9) };
        status = write_run(&r, row, err);
    }
    if (status) {
        sqlite3_finalize(row);
        return status;
    }
    return export_finish(db, a, row, code, err);
}

int export_otlp(sqlite3 *db, const struct export_arguments *a, struct lathe_error *err)
{
    struct spans s = { 0 };
    const char *why = NULL;
    int status = a->push ? otlp_push_open(a, &s.push, err) : LATHE_OK;
    if (!status && a->output)
        status = export_create(a, &s.out, err);
    if (!status)
        status = write_runs(db, a, &s, err);
    if (s.out)
        status = export_close(a, s.out, status, err);
    if (!status && a->push && otlp_push_rejected(s.push, &why) > 0)
        status = lathe_fail(err, LATHE_EIO, "%s took %lld of %lld spans and says: %.200s", a->push,
                            (long long)(s.all - otlp_push_rejected(s.push, &why)), (long long)s.all, why);
    if (!status)
        printf("%lld spans in %lld %s%s%s%s%s\n", (long long)s.all, (long long)s.batches, s.batches == 1 ? "batch" : "batches",
               a->output ? " in " : "", a->output ? a->output : "", a->push ? ", taken by " : "", a->push ? a->push : "");
    otlp_push_close(s.push);
    text_free(&s.resource);
    text_free(&s.batch);
    text_free(&s.attributes);
    text_free(&s.links);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* Who shared the step that decided, and whether they joined in it; who was served while it waited; and what was told
 * about the run at that time. */
#include "why.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int find_members(struct why *w, struct lathe_error *err)
{
    double found[4];
    int64_t step = w->step;
    sqlite3_stmt *row;
    w->step = w->decisive.id;
    int status = why_row(w, "WITH before(id) AS (SELECT max(id) FROM step WHERE run_id = ?1 AND replica = ?6 AND id < ?5), "
                            "other AS (SELECT phase, tokens, NOT EXISTS (SELECT 1 FROM step_request p, before b WHERE p.run_id = ?1 AND p.step_id = b.id AND p.request_id = c.request_id) AS joined "
                            "FROM step_request c WHERE run_id = ?1 AND step_id = ?5 AND request_id <> ?2) "
                            "SELECT count(*), sum(tokens) FILTER (WHERE phase = 'prefill'), sum(tokens) FILTER (WHERE phase = 'prefill' AND joined), "
                            "count(*) FILTER (WHERE phase = 'decode') FROM other", found, 4, err);
    if (!status) {
        w->others = found[0];
        w->others_prefill = isnan(found[1]) ? 0 : found[1];
        w->joined_prefill = isnan(found[2]) ? 0 : found[2];
        w->others_decode = found[3];
        status = why_ask(w, "WITH before(id) AS (SELECT max(id) FROM step WHERE run_id = ?1 AND replica = ?6 AND id < ?5) "
                            "SELECT c.request_id, c.tokens, c.context, c.phase = 'prefill', NOT EXISTS (SELECT 1 FROM step_request p, before b "
                            "WHERE p.run_id = ?1 AND p.step_id = b.id AND p.request_id = c.request_id) FROM step_request c "
                            "WHERE c.run_id = ?1 AND c.step_id = ?5 AND c.request_id <> ?2 ORDER BY 4 DESC, 2 DESC, 3 DESC, 1", &row, err);
    }
    w->step = step;
    if (status)
        return status;
    int code;
    while ((code = sqlite3_step(row)) == SQLITE_ROW && w->company_count < WHY_COMPANY)
        w->company[w->company_count++] = (struct why_member){ sqlite3_column_int64(row, 0), sqlite3_column_double(row, 1), sqlite3_column_double(row, 2),
                                                              sqlite3_column_int(row, 3) != 0, sqlite3_column_int(row, 4) != 0 };
    return why_done(w, row, code, err);
}

/* Those whose steps lay in the stretch in which it was in `state`, and in the window. */
static int find_meanwhile(struct why *w, const char *state, struct lathe_error *err)
{
    char sql[1280];
    sqlite3_stmt *row;
    static const char between[] =
        "FROM step s JOIN step_request c ON c.run_id = ?1 AND c.step_id = s.id WHERE s.run_id = ?1 AND s.replica = ?6 AND s.end_ns > ?3 AND s.start_ns < ?4 AND c.request_id <> ?2 "
        "AND NOT EXISTS (SELECT 1 FROM step_request m WHERE m.run_id = ?1 AND m.step_id = s.id AND m.request_id = ?2) "
        "AND (NOT EXISTS (SELECT 1 FROM request_span WHERE run_id = ?1 AND request_id = ?2 AND state = '%s') OR EXISTS (SELECT 1 FROM request_span p WHERE p.run_id = ?1 AND "
        "p.request_id = ?2 AND p.state = '%s' AND p.to_ns > s.start_ns AND p.from_ns < s.end_ns))";
    int used = snprintf(sql, sizeof sql, "SELECT count(DISTINCT c.request_id) ");
    snprintf(sql + used, sizeof sql - (size_t)used, between, state, state);
    int status = why_row(w, sql, &w->meanwhile_requests, 1, err);
    if (status)
        return status;
    used = snprintf(sql, sizeof sql, "SELECT c.request_id, sum(c.tokens), max(c.phase = 'prefill') ");
    used += snprintf(sql + used, sizeof sql - (size_t)used, between, state, state);
    snprintf(sql + used, sizeof sql - (size_t)used, " GROUP BY 1 ORDER BY 2 DESC, 1");
    if ((status = why_ask(w, sql, &row, err)))
        return status;
    int code;
    while ((code = sqlite3_step(row)) == SQLITE_ROW && w->meanwhile_count < WHY_COMPANY)
        w->meanwhile[w->meanwhile_count++] = (struct why_member){ .request = sqlite3_column_int64(row, 0), .tokens = sqlite3_column_double(row, 1),
                                                                  .context = (double)NAN, .prefill = sqlite3_column_int(row, 2) != 0 };
    return why_done(w, row, code, err);
}

static int find_reason(struct why *w, struct lathe_error *err)
{
    sqlite3_stmt *row;
    int status = why_ask(w, "SELECT cause FROM request_span WHERE run_id = ?1 AND request_id = ?2 AND state IN ('preempted', 'swapped') AND to_ns > ?3 AND from_ns < ?4 "
                            "ORDER BY to_ns - from_ns DESC LIMIT 1", &row, err);
    if (status)
        return status;
    int code = sqlite3_step(row);
    const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(row, 0) : NULL;
    snprintf(w->preempted_for, sizeof w->preempted_for, "%s", text ? text : "");
    return why_done(w, row, code, err);
}

/* Services first: a worker that died explains more than any figure. */
static int find_told(struct why *w, struct lathe_error *err)
{
    sqlite3_stmt *row;
    int status = why_ask(w, "SELECT text FROM (SELECT 0 AS rank, time_ns, ifnull(service || ': ', '') || replace(what, '_', ' ') || ifnull(': ' || detail, '') AS text "
                            "FROM service_event WHERE run_id = ?1 UNION ALL SELECT 1, time_ns, message FROM event WHERE run_id = ?1 AND level IN ('warn', 'error')) "
                            "WHERE time_ns BETWEEN ?3 AND ?4 AND text IS NOT NULL ORDER BY rank, time_ns", &row, err);
    if (status)
        return status;
    int code;
    while ((code = sqlite3_step(row)) == SQLITE_ROW && w->told_count < WHY_EVENTS)
        snprintf(w->told[w->told_count++], sizeof w->told[0], "%s", (const char *)sqlite3_column_text(row, 0));
    return why_done(w, row, code, err);
}

int why_company(struct why *w, struct lathe_error *err)
{
    int status = w->decisive.id && w->has_members ? find_members(w, err) : LATHE_OK;
    if (!status && w->unusual && (w->cause == WHY_WAITING || w->cause == WHY_PREEMPTED || w->cause == WHY_SWAPPED || w->cause == WHY_OTHERS))
        status = find_meanwhile(w, w->cause == WHY_WAITING ? "waiting" : w->cause == WHY_PREEMPTED ? "preempted" : w->cause == WHY_SWAPPED ? "swapped" : "running", err);
    if (!status && w->subject != WHY_STEP)
        status = find_reason(w, err);
    return status ? status : find_told(w, err);
}

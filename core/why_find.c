/* SPDX-License-Identifier: MIT */
/* What is asked about: the run, and in it the token, request or step, with its window of time and how it lies among
 * others of its kind. Without a wish it is the largest gap between two tokens of the newest run, or, where no tokens
 * were recorded, its slowest step or request. */
#include "why.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "recorder_schema.h"

int why_ask(struct why *w, const char *sql, sqlite3_stmt **statement, struct lathe_error *err)
{
    *statement = NULL;
    if (sqlite3_prepare_v2(w->db, sql, -1, statement, NULL) != SQLITE_OK)
        return schema_fail(w->db, w->path, "reading its rows", err);
    const int64_t numbers[] = { w->run, w->request, 0, 0, w->step, w->replica, w->position };
    int most = sqlite3_bind_parameter_count(*statement);
    for (int i = 0; i < most; i++) {
        if (i == 2 || i == 3)
            sqlite3_bind_double(*statement, i + 1, i == 2 ? w->from_ns : w->to_ns);
        else
            sqlite3_bind_int64(*statement, i + 1, numbers[i]);
    }
    return LATHE_OK;
}

int why_done(struct why *w, sqlite3_stmt *statement, int code, struct lathe_error *err)
{
    int status = code == SQLITE_DONE || code == SQLITE_ROW ? LATHE_OK : schema_fail(w->db, w->path, "reading its rows", err);
    sqlite3_finalize(statement);
    return status;
}

int why_row(struct why *w, const char *sql, double *values, int count, struct lathe_error *err)
{
    sqlite3_stmt *row;
    int status = why_ask(w, sql, &row, err);
    if (status)
        return status;
    int code = sqlite3_step(row);
    for (int i = 0; i < count; i++)
        values[i] = code != SQLITE_ROW || sqlite3_column_type(row, i) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(row, i);
    return why_done(w, row, code, err);
}

static void copy(char *to, size_t capacity, sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    snprintf(to, capacity, "%s", text ? text : "");
}

static int find_run(struct why *w, const struct why_asked *asked, struct lathe_error *err)
{
    sqlite3_stmt *row;
    w->run = asked->run;
    int status = why_ask(w, "SELECT id, label, clock = 'virtual', (SELECT count(*) FROM run), (SELECT max(id) FROM run), "
                            "EXISTS (SELECT 1 FROM step WHERE run_id = r.id), EXISTS (SELECT 1 FROM step_request WHERE run_id = r.id), "
                            "EXISTS (SELECT 1 FROM hop WHERE run_id = r.id AND step_id IS NOT NULL), "
                            "EXISTS (SELECT 1 FROM request_span WHERE run_id = r.id), "
                            "EXISTS (SELECT 1 FROM token WHERE run_id = r.id AND kind = 'output') "
                            "FROM run r WHERE ?1 IN (0, id) ORDER BY started_at DESC, id DESC LIMIT 1", &row, err);
    if (status)
        return status;
    int code = sqlite3_step(row);
    if (code == SQLITE_DONE) {
        sqlite3_finalize(row);
        return asked->run ? lathe_fail(err, LATHE_ENOTFOUND, "%s has no run %lld; `lathe sql %s \"select id, label from run\"` lists them", w->path,
                                       (long long)asked->run, w->path)
                          : lathe_fail(err, LATHE_ENOTFOUND, "%s has no run", w->path);
    }
    if (code == SQLITE_ROW) {
        w->run = sqlite3_column_int64(row, 0);
        copy(w->label, sizeof w->label, row, 1);
        w->is_virtual = sqlite3_column_int(row, 2) != 0;
        w->run_count = sqlite3_column_int64(row, 3);
        w->has_steps = sqlite3_column_int(row, 5) != 0;
        w->has_members = sqlite3_column_int(row, 6) != 0;
        w->has_hops = sqlite3_column_int(row, 7) != 0;
        w->has_spans = sqlite3_column_int(row, 8) != 0;
        w->has_tokens = sqlite3_column_int(row, 9) != 0;
    }
    return why_done(w, row, code, err);
}

/* The slowest of what there are rows of. */
static int choose(struct why *w, struct lathe_error *err)
{
    double found[2];
    w->chosen = true;
    int status = why_row(w, "SELECT request_id, position FROM token WHERE run_id = ?1 AND kind = 'output' ORDER BY gap_ns DESC LIMIT 1", found, 2, err);
    if (status)
        return status;
    if (!isnan(found[0])) {
        w->subject = WHY_GAP; /* or the first, if no request has a second: find_token sees to it */
        w->request = (int64_t)found[0];
        w->position = (int64_t)found[1];
        return LATHE_OK;
    }
    if ((status = why_row(w, "SELECT id FROM step WHERE run_id = ?1 ORDER BY end_ns - start_ns DESC, id LIMIT 1", found, 1, err)))
        return status;
    if (!isnan(found[0])) {
        w->subject = WHY_STEP;
        w->step = (int64_t)found[0];
        return LATHE_OK;
    }
    if ((status = why_row(w, "SELECT id FROM request WHERE run_id = ?1 AND finish_ns IS NOT NULL ORDER BY finish_ns - planned_ns DESC, id LIMIT 1", found, 1, err)))
        return status;
    if (isnan(found[0]))
        return lathe_fail(err, LATHE_ENOTFOUND, "run %lld of %s has no token, step or finished request to ask about", (long long)w->run, w->path);
    w->subject = WHY_REQUEST;
    w->request = (int64_t)found[0];
    return LATHE_OK;
}

/* Its request's row. */
static int find_request(struct why *w, struct lathe_error *err)
{
    sqlite3_stmt *row;
    int status = why_ask(w, "SELECT planned_ns, finish_ns, replica, prompt_tokens, output_tokens, preemptions, finish_reason "
                            "FROM request WHERE run_id = ?1 AND id = ?2", &row, err);
    if (status)
        return status;
    int code = sqlite3_step(row);
    if (code == SQLITE_DONE) {
        sqlite3_finalize(row);
        return lathe_fail(err, LATHE_ENOTFOUND, "run %lld of %s has no request %lld", (long long)w->run, w->path, (long long)w->request);
    }
    if (code == SQLITE_ROW && w->subject == WHY_REQUEST && sqlite3_column_type(row, 1) == SQLITE_NULL) {
        sqlite3_finalize(row);
        return lathe_fail(err, LATHE_ENOTFOUND, "request %lld of run %lld had not ended; ask about a token of it", (long long)w->request, (long long)w->run);
    }
    if (code == SQLITE_ROW) {
        w->from_ns = sqlite3_column_double(row, 0);
        w->to_ns = sqlite3_column_double(row, 1);
        w->replica = sqlite3_column_int64(row, 2);
        w->prompt_tokens = sqlite3_column_double(row, 3);
        w->output_tokens = sqlite3_column_double(row, 4);
        w->preemptions = sqlite3_column_double(row, 5);
        copy(w->reason, sizeof w->reason, row, 6);
    }
    if ((status = why_done(w, row, code, err)) || w->subject != WHY_REQUEST)
        return status;
    double typical[3];
    status = why_row(w, "SELECT median(finish_ns - planned_ns), count(*), count(*) FILTER (WHERE finish_ns - planned_ns >= ?4 - ?3) "
                        "FROM request WHERE run_id = ?1 AND finish_ns IS NOT NULL", typical, 3, err);
    w->typical_ns = typical[0];
    w->population = typical[1];
    w->as_slow = typical[2];
    return status;
}

static int no_token(const struct why *w, struct lathe_error *err)
{
    if (!w->has_tokens)
        return lathe_fail(err, LATHE_ENOTFOUND, "run %lld recorded no tokens: trace = { rows = \"tokens\", tokens = \"output\" } in lathe.run does; "
                                                "ask about a --request or a --step", (long long)w->run);
    return lathe_fail(err, LATHE_ENOTFOUND, "request %lld of run %lld has no token of its answer at position %lld; its answer begins at %.0f and "
                                            "has %.0f tokens", (long long)w->request, (long long)w->run, (long long)w->position, w->prompt_tokens, w->output_tokens);
}

static int find_token(struct why *w, struct lathe_error *err)
{
    sqlite3_stmt *row;
    int status = why_ask(w, "SELECT t.time_ns, t.gap_ns, t.step_id, x.text, s.replica FROM token t LEFT JOIN token_text x ON x.run_id = t.run_id AND x.token = t.token "
                            "LEFT JOIN step s ON s.run_id = t.run_id AND s.id = t.step_id "
                            "WHERE t.run_id = ?1 AND t.request_id = ?2 AND t.position = ?7 AND t.kind = 'output'", &row, err);
    if (status)
        return status;
    int code = sqlite3_step(row);
    if (code == SQLITE_DONE) {
        sqlite3_finalize(row);
        return no_token(w, err);
    }
    if (code == SQLITE_ROW) {
        w->to_ns = sqlite3_column_double(row, 0);
        w->subject = sqlite3_column_type(row, 1) == SQLITE_NULL ? WHY_FIRST : WHY_GAP;
        if (w->subject == WHY_GAP)
            w->from_ns = w->to_ns - sqlite3_column_double(row, 1);
        w->step = sqlite3_column_int64(row, 2);
        copy(w->token, sizeof w->token, row, 3);
        if (sqlite3_column_type(row, 4) != SQLITE_NULL)
            w->replica = sqlite3_column_int64(row, 4);
    }
    if ((status = why_done(w, row, code, err)))
        return status;
    double typical[3];
    status = why_row(w, w->subject == WHY_GAP ? "SELECT median(gap_ns), count(*), count(*) FILTER (WHERE gap_ns >= ?4 - ?3) "
                                                "FROM token WHERE run_id = ?1 AND kind = 'output' AND gap_ns IS NOT NULL"
                                              : "SELECT median(first_token_ns - planned_ns), count(*), count(*) FILTER (WHERE first_token_ns - planned_ns >= ?4 - ?3) "
                                                "FROM request WHERE run_id = ?1 AND first_token_ns IS NOT NULL", typical, 3, err);
    w->typical_ns = typical[0];
    w->population = typical[1];
    w->as_slow = typical[2];
    return status;
}

static int find_step(struct why *w, struct lathe_error *err)
{
    double found[6];
    int status = why_row(w, "SELECT s.start_ns, s.end_ns, s.replica, (SELECT median(end_ns - start_ns) FROM step WHERE run_id = ?1), "
                            "(SELECT count(*) FROM step WHERE run_id = ?1), (SELECT count(*) FROM step o WHERE o.run_id = ?1 AND o.end_ns - o.start_ns >= s.end_ns - s.start_ns) "
                            "FROM step s WHERE s.run_id = ?1 AND s.id = ?5", found, 6, err);
    if (status)
        return status;
    if (isnan(found[0]) && !w->has_steps)
        return lathe_fail(err, LATHE_ENOTFOUND, "run %lld recorded no steps: trace = { rows = \"step_requests\" } in lathe.run does; ask about a --request", (long long)w->run);
    if (isnan(found[0]))
        return lathe_fail(err, LATHE_ENOTFOUND, "run %lld of %s has no step %lld", (long long)w->run, w->path, (long long)w->step);
    w->from_ns = found[0];
    w->to_ns = found[1];
    w->replica = (int64_t)found[2];
    w->typical_ns = found[3];
    w->population = found[4];
    w->as_slow = found[5];
    return LATHE_OK;
}

int why_find(struct why *w, const struct why_asked *asked, struct lathe_error *err)
{
    int status = find_run(w, asked, err);
    if (status)
        return status;
    w->request = asked->request;
    w->position = asked->position;
    w->step = asked->step;
    w->subject = asked->token ? WHY_GAP : asked->request ? WHY_REQUEST : WHY_STEP;
    if (!asked->request && !asked->step && (status = choose(w, err)))
        return status;
    if (w->subject == WHY_STEP)
        return find_step(w, err);
    status = find_request(w, err);
    return !status && w->subject != WHY_REQUEST ? find_token(w, err) : status;
}

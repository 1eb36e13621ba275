/* SPDX-License-Identifier: MIT */
/* What the heads looked at when the token was predicted: by the query at the position before it. For a request it is
 * all queries of its answer, for a step those that were in it. What is usual is the mean over the queries that predicted
 * the request's answer (of all requests, for a step), and only where one probe saw both. */
#include "why.h"

#include <math.h>
#include <stdio.h>

/* The probe whose rows are used: of weights, and the first that has any here. */
#define TOKEN_QUERIES "a.run_id = ?1 AND a.request_id = ?2 AND a.position = ?7 - 1"
#define ANSWER_QUERIES "a.run_id = ?1 AND a.request_id = ?2 AND a.position >= (SELECT prompt_tokens - 1 FROM request WHERE run_id = ?1 AND id = ?2)"
#define STEP_QUERIES "a.run_id = ?1 AND a.request_id = c.request_id AND a.position BETWEEN c.first_position AND c.first_position + c.tokens - 1"

static const char *from(const struct why *w)
{
    return w->subject == WHY_STEP ? "FROM step_request c JOIN attention a ON " STEP_QUERIES " WHERE c.run_id = ?1 AND c.step_id = ?5"
           : w->subject == WHY_REQUEST ? "FROM attention a WHERE " ANSWER_QUERIES
                                       : "FROM attention a WHERE " TOKEN_QUERIES;
}

static int find_probe(struct why *w, double *probe, struct lathe_error *err)
{
    static const char *const queries[] = {
        [WHY_GAP] = "FROM attention_token a WHERE " TOKEN_QUERIES " AND ",
        [WHY_FIRST] = "FROM attention_token a WHERE " TOKEN_QUERIES " AND ",
        [WHY_REQUEST] = "FROM attention_token a WHERE " ANSWER_QUERIES " AND ",
        [WHY_STEP] = "FROM step_request c JOIN attention_token a ON " STEP_QUERIES " WHERE c.run_id = ?1 AND c.step_id = ?5 AND ",
    };
    char sql[1024];
    snprintf(sql, sizeof sql, "SELECT min(a.probe_id) %s a.probe_id IN (SELECT id FROM probe WHERE run_id = ?1 AND measure = 'weight')", queries[w->subject]);
    return why_row(w, sql, probe, 1, err);
}

static int find_top(struct why *w, int64_t probe, struct lathe_error *err)
{
    char sql[1400];
    sqlite3_stmt *row;
    snprintf(sql, sizeof sql, "SELECT a.layer, a.head, a.top_weight, a.top_key, (SELECT x.text FROM token t JOIN token_text x ON x.run_id = t.run_id AND x.token = t.token "
                              "WHERE t.run_id = ?1 AND t.request_id = a.request_id AND t.position = a.top_key) %s AND a.probe_id = %lld AND a.top_key > 0 "
                              "ORDER BY a.top_weight DESC, a.layer, a.head LIMIT %d", from(w), (long long)probe, WHY_HEADS);
    int code, status = why_ask(w, sql, &row, err);
    if (status)
        return status;
    while ((code = sqlite3_step(row)) == SQLITE_ROW && w->head_count < WHY_HEADS) {
        struct why_head *head = &w->heads[w->head_count++];
        const char *text = (const char *)sqlite3_column_text(row, 4);
        head->layer = sqlite3_column_int(row, 0);
        head->head = sqlite3_column_int(row, 1);
        head->weight = sqlite3_column_double(row, 2);
        head->key = sqlite3_column_int64(row, 3);
        snprintf(head->text, sizeof head->text, "%s", text ? text : "");
    }
    return why_done(w, row, code, err);
}

int why_heads(struct why *w, struct lathe_error *err)
{
    char sql[1024];
    double found[3], probe;
    int status = why_row(w, "SELECT 1 FROM probe WHERE run_id = ?1 AND measure = 'weight'", found, 1, err);
    if (status)
        return status;
    w->traced = !isnan(found[0]);
    w->entropy = w->usual_entropy = w->first_mass = w->usual_first_mass = w->heads_traced = (double)NAN;
    if (!w->traced || (status = find_probe(w, &probe, err)) || isnan(probe))
        return status;
    w->traced_here = true;
    snprintf(sql, sizeof sql, "SELECT count(DISTINCT a.layer * 65536 + a.head), avg(a.entropy), avg(a.first_mass) %s AND a.probe_id = %lld", from(w), (long long)probe);
    if ((status = why_row(w, sql, found, 3, err)))
        return status;
    w->heads_traced = found[0];
    w->entropy = found[1];
    w->first_mass = found[2];
    if (w->subject == WHY_GAP || w->subject == WHY_FIRST) {
        snprintf(sql, sizeof sql, "SELECT avg(a.entropy), avg(a.first_mass) FROM attention a WHERE " ANSWER_QUERIES " AND a.probe_id = %lld AND ?7 >= 0", (long long)probe);
        if ((status = why_row(w, sql, found, 2, err)))
            return status;
        w->usual_entropy = found[0];
        w->usual_first_mass = found[1];
    }
    return find_top(w, (int64_t)probe, err);
}

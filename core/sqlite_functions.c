/* SPDX-License-Identifier: MIT */
/* entropy(w): Shannon's, in nats, of the shares that the weights w have in their sum, so that counts
 * do as well: ln S − Σ w ln w / S with S = Σ w. Numbers from 0, or blobs of numbers in half precision,
 * each of which counts. NULLs are left out; of nothing, or of zeros alone, it is NULL.
 *
 * jensen_shannon(p, q), cosine(p, q): how alike two rows of weights are, over rows of their pairs: the
 * divergence in nats (0 the same, ln 2 nothing in common; Lin 1991), and the cosine between them. NULL
 * counts as 0, so that a LEFT JOIN may lack keys; of nothing, or of zeros alone, they are NULL.
 *
 * half(blob, i): the i-th number, from 0, of a blob in half precision: of attention_token.data, say.
 *
 * token_text(run, id): a token's text in a run; NULL where the run has none. */
#include "sqlite_extension.h"

#include <math.h>
#include <stdint.h>

#include "sqlite_half.h"

/* A negative number of auxiliary data is SQLite's (json.c uses it, too) for what all calls within a
 * statement share, and is gone when the statement is done: no table is held open after it. */
enum { TEXT_STATEMENT = -2026 };

struct entropy {
    double sum, weighted; /* Σ w, Σ w ln w */
};

static int entropy_add(struct entropy *e, double w)
{
    if (!(w >= 0) || isinf(w))
        return -1;
    if (w > 0) {
        e->sum += w;
        e->weighted += w * log(w);
    }
    return 0;
}

static void entropy_step(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    struct entropy *e = sqlite3_aggregate_context(context, sizeof *e);
    int wrong = 0;
    (void)argc;
    if (!e) {
        sqlite3_result_error_nomem(context);
        return;
    }
    switch (sqlite3_value_numeric_type(argv[0])) {
    case SQLITE_NULL: break;
    case SQLITE_INTEGER:
    case SQLITE_FLOAT: wrong = entropy_add(e, sqlite3_value_double(argv[0])); break;
    case SQLITE_BLOB: {
        const uint8_t *blob = sqlite3_value_blob(argv[0]);
        int bytes = sqlite3_value_bytes(argv[0]);
        wrong = bytes % 2;
        for (int i = 0; i + 1 < bytes && !wrong; i += 2)
            wrong = entropy_add(e, sqlite_half(blob + i));
        break;
    }
    default: wrong = 1;
    }
    if (wrong)
        sqlite3_result_error(context, "entropy(w): w must be a finite number from 0, NULL, or a blob of such in half precision", -1);
}

static void entropy_final(sqlite3_context *context)
{
    struct entropy *e = sqlite3_aggregate_context(context, 0);
    if (e && e->sum > 0) {
        double entropy = log(e->sum) - e->weighted / e->sum;
        sqlite3_result_double(context, entropy > 0 ? entropy : 0); /* rounding */
    }
}

struct pairs {
    double p, q, pp, qq, pq, divergence; /* sums */
};

static void pairs_step(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    struct pairs *s = sqlite3_aggregate_context(context, sizeof *s);
    double p = sqlite3_value_double(argv[0]), q = sqlite3_value_double(argv[1]);
    (void)argc;
    if (!s) {
        sqlite3_result_error_nomem(context);
        return;
    }
    if (!(p >= 0) || !(q >= 0) || isinf(p) || isinf(q)) {
        sqlite3_result_error(context, "jensen_shannon(p, q), cosine(p, q): both must be finite numbers from 0, or NULL", -1);
        return;
    }
    s->p += p;
    s->q += q;
    s->pp += p * p;
    s->qq += q * q;
    s->pq += p * q;
    if (p > 0)
        s->divergence += p / 2 * log(2 * p / (p + q));
    if (q > 0)
        s->divergence += q / 2 * log(2 * q / (p + q));
}

/* Of weights that sum to 1, but for rounding. */
static void divergence_final(sqlite3_context *context)
{
    const struct pairs *s = sqlite3_aggregate_context(context, 0);
    if (s && s->p > 0 && s->q > 0)
        sqlite3_result_double(context, s->divergence > 0 ? s->divergence : 0);
}

static void cosine_final(sqlite3_context *context)
{
    const struct pairs *s = sqlite3_aggregate_context(context, 0);
    if (s && s->p > 0 && s->q > 0)
        sqlite3_result_double(context, s->pq / sqrt(s->pp * s->qq));
}

static void half_of(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    char text[96];
    (void)argc;
    if (sqlite3_value_type(argv[0]) == SQLITE_NULL || sqlite3_value_type(argv[1]) == SQLITE_NULL)
        return;
    if (sqlite3_value_type(argv[0]) != SQLITE_BLOB || sqlite3_value_numeric_type(argv[1]) != SQLITE_INTEGER) {
        sqlite3_result_error(context, "half(blob, i): takes a blob and a whole number", -1);
        return;
    }
    const uint8_t *blob = sqlite3_value_blob(argv[0]);
    sqlite3_int64 i = sqlite3_value_int64(argv[1]), count = sqlite3_value_bytes(argv[0]) / 2;
    if (i < 0 || i >= count) {
        sqlite3_snprintf(sizeof text, text, "half(blob, i): i is %lld, and the blob has %lld numbers, from 0", i, count);
        sqlite3_result_error(context, text, -1);
        return;
    }
    double value = sqlite_half(blob + 2 * i);
    if (value == value)
        sqlite3_result_double(context, value);
}

static void finalize(void *statement)
{
    sqlite3_finalize(statement);
}

static void token_text(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    sqlite3_stmt *statement = sqlite3_get_auxdata(context, TEXT_STATEMENT);
    int fresh = !statement;
    (void)argc;
    if (fresh && sqlite3_prepare_v2(sqlite3_context_db_handle(context), "SELECT text FROM main.token_text WHERE run_id = ?1 AND token = ?2",
                                    -1, &statement, NULL) != SQLITE_OK) {
        sqlite3_result_error(context, "token_text(run, id): not a database of lathe's", -1);
        return;
    }
    sqlite3_bind_value(statement, 1, argv[0]);
    sqlite3_bind_value(statement, 2, argv[1]);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        sqlite3_result_value(context, sqlite3_column_value(statement, 0));
    sqlite3_reset(statement);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        sqlite3_result_error_code(context, rc);
    if (fresh)
        sqlite3_set_auxdata(context, TEXT_STATEMENT, statement, finalize);
}

int sqlite_functions_init(sqlite3 *db)
{
    const int flags = SQLITE_UTF8 | SQLITE_INNOCUOUS;
    int rc = sqlite3_create_function_v2(db, "entropy", 1, flags | SQLITE_DETERMINISTIC, NULL, NULL, entropy_step, entropy_final, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function_v2(db, "jensen_shannon", 2, flags | SQLITE_DETERMINISTIC, NULL, NULL, pairs_step, divergence_final, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function_v2(db, "cosine", 2, flags | SQLITE_DETERMINISTIC, NULL, NULL, pairs_step, cosine_final, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function_v2(db, "half", 2, flags | SQLITE_DETERMINISTIC, NULL, half_of, NULL, NULL, NULL);
    return rc == SQLITE_OK ? sqlite3_create_function_v2(db, "token_text", 2, flags, NULL, token_text, NULL, NULL, NULL) : rc;
}

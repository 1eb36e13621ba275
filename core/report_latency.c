/* SPDX-License-Identifier: MIT */
/* Distributions of latency: percentiles of all values, as the extension's percentile() and the view
 * run_latency have them, and the empirical distribution function for drawing.
 *
 * The function is a staircase with a step a value. Beyond the budget of points it is thinned: every
 * n-th rank, and the last hundred ranks whole, since the tail is what people look at. Each kept point lies
 * exactly on the staircase. Its confidence band (Dvoretzky–Kiefer–Wolfowitz, with Massart's constant) needs the
 * number of values only; the page adds it. */
#include "report.h"

#include <math.h>
#include <stdlib.h>

enum { TAIL = 100 };

static const struct { const char *name, *sql; } figures[] = {
    { "ttft", "SELECT (first_token_ns - planned_ns) / 1e6 FROM request WHERE run_id = ?1 AND first_token_ns IS NOT NULL" },
    { "tpot", "SELECT (finish_ns - first_token_ns) / 1e6 / (output_tokens - 1) FROM request WHERE run_id = ?1 AND output_tokens > 1"
              " AND first_token_ns IS NOT NULL AND finish_ns IS NOT NULL" },
    { "itl", "SELECT gap_ns / 1e6 FROM token WHERE run_id = ?1 AND gap_ns IS NOT NULL" },
    { "e2e", "SELECT (finish_ns - planned_ns) / 1e6 FROM request WHERE run_id = ?1 AND finish_reason IN ('stop', 'length')"
             " AND finish_ns IS NOT NULL" },
};

struct values {
    double *values;
    size_t count, capacity;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int read_values(struct report *r, const struct report_run *run, const char *sql, struct values *v, struct lathe_error *err)
{
    sqlite3_stmt *statement;
    int code, status = report_prepare(r, run, sql, &statement, err);
    if (status)
        return status;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (v->count == v->capacity) {
            size_t capacity = v->capacity ? 2 * v->capacity : 4096;
            double *more = realloc(v->values, capacity * sizeof *more);
            if (!more) {
                sqlite3_finalize(statement);
                return lathe_fail(err, LATHE_ENOMEM, "no memory for %zu values of run %lld; name fewer runs with --run", capacity,
                                  (long long)run->id);
            }
            v->values = more;
            v->capacity = capacity;
        }
        v->values[v->count++] = sqlite3_column_double(statement, 0);
    }
    if (v->count > 0)
        qsort(v->values, v->count, sizeof *v->values, by_value);
    return report_finish(r, statement, code, err);
}

static double percentile(const struct values *v, double p)
{
    if (v->count == 0)
        return NAN;
    double place = p * (double)(v->count - 1);
    size_t low = (size_t)place, high = low + 1 < v->count ? low + 1 : low;
    return v->values[low] + (v->values[high] - v->values[low]) * (place - (double)low);
}

static double mean(const struct values *v)
{
    double sum = 0;
    for (size_t i = 0; i < v->count; i++)
        sum += v->values[i];
    return v->count ? sum / (double)v->count : NAN;
}

static void write_curve(struct report *r, const struct values *v, size_t points)
{
    struct column value = { 0 }, rank = { 0 };
    size_t every = v->count > points ? (v->count + points - 1) / points : 1;
    for (size_t i = 0; i < v->count; i++)
        if (i % every == 0 || i + TAIL >= v->count) {
            column_add_float(&value, v->values[i]);
            column_add(&rank, (uint32_t)(i + 1)); /* values up to and including this one */
        }
    report_number(r, "every", (double)every);
    report_column(r, "values", "f32", &value);
    report_column(r, "ranks", "u32", &rank);
}

int report_latency(struct report *r, const struct report_run *run, struct lathe_error *err)
{
    size_t points = REPORT_ECDF_POINTS_ALL / 4 / r->run_count;
    int status = LATHE_OK;
    points = points > REPORT_ECDF_POINTS ? REPORT_ECDF_POINTS : points;
    report_open(r, "latency", '{');
    for (size_t i = 0; i < sizeof figures / sizeof *figures && !status; i++) {
        struct values v = { 0 };
        status = read_values(r, run, figures[i].sql, &v, err);
        if (!status && v.count > 0) {
            report_open(r, figures[i].name, '{');
            report_number(r, "n", (double)v.count);
            report_number(r, "mean", mean(&v));
            report_number(r, "p50", percentile(&v, 0.5));
            report_number(r, "p90", percentile(&v, 0.9));
            report_number(r, "p99", v.count >= 368 ? percentile(&v, 0.99) : NAN); /* as in run_latency */
            report_number(r, "max", v.values[v.count - 1]);
            write_curve(r, &v, points);
            report_close(r, '}');
        }
        free(v.values);
    }
    report_close(r, '}');
    return status;
}

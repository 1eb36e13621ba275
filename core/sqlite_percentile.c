/* SPDX-License-Identifier: MIT */
/* percentile(x, p): the p-th percentile (0 … 100) of the numbers x, interpolated between the two
 * nearest, as SQLite's own percentile extension defines it and numpy's default does. NULLs are left
 * out; of no numbers it is NULL. p must be the same in each row. median(x) is percentile(x, 50).
 * Exact, and holds all numbers: hdr_percentile of sqlite_hdr.c doesn't. */
#include "sqlite_extension.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct percentile {
    double *values;
    size_t count, capacity;
    double p;
    int started;
};

static void percentile_step(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    struct percentile *state = sqlite3_aggregate_context(context, sizeof *state);
    double p = 50;
    if (!state) {
        sqlite3_result_error_nomem(context);
        return;
    }
    if (argc == 2) {
        int type = sqlite3_value_numeric_type(argv[1]);
        p = sqlite3_value_double(argv[1]);
        if ((type != SQLITE_INTEGER && type != SQLITE_FLOAT) || !(p >= 0 && p <= 100)) {
            sqlite3_result_error(context, "percentile(x, p): p must be a number from 0 to 100", -1);
            return;
        }
    }
    if (state->started && fabs(state->p - p) > 0.001) {
        sqlite3_result_error(context, "percentile(x, p): p must be the same in every row", -1);
        return;
    }
    state->started = 1;
    state->p = p;
    int type = sqlite3_value_type(argv[0]);
    if (type == SQLITE_NULL)
        return;
    type = sqlite3_value_numeric_type(argv[0]);
    double x = sqlite3_value_double(argv[0]);
    if ((type != SQLITE_INTEGER && type != SQLITE_FLOAT) || isinf(x)) {
        sqlite3_result_error(context, "percentile(x, p): x must be a finite number or NULL", -1);
        return;
    }
    if (state->count == state->capacity) {
        size_t capacity = state->capacity ? 2 * state->capacity : 256;
        double *values = sqlite3_realloc64(state->values, capacity * sizeof *values);
        if (!values) {
            sqlite3_result_error_nomem(context);
            return;
        }
        state->values = values;
        state->capacity = capacity;
    }
    state->values[state->count++] = x;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void percentile_final(sqlite3_context *context)
{
    struct percentile *state = sqlite3_aggregate_context(context, 0);
    if (!state)
        return;
    if (state->count > 0) {
        qsort(state->values, state->count, sizeof *state->values, by_value);
        double place = state->p / 100 * (double)(state->count - 1);
        size_t low = (size_t)place;
        size_t high = low + 1 < state->count ? low + 1 : low;
        sqlite3_result_double(context, state->values[low] + (state->values[high] - state->values[low]) * (place - (double)low));
    }
    sqlite3_free(state->values);
    memset(state, 0, sizeof *state);
}

int sqlite_percentile_init(sqlite3 *db)
{
    const int flags = SQLITE_UTF8 | SQLITE_INNOCUOUS | SQLITE_DETERMINISTIC;
    int rc = sqlite3_create_function_v2(db, "percentile", 2, flags, NULL, NULL, percentile_step, percentile_final, NULL);
    return rc == SQLITE_OK
               ? sqlite3_create_function_v2(db, "median", 1, flags, NULL, NULL, percentile_step, percentile_final, NULL)
               : rc;
}

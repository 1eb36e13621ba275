/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cost.h"

static int refuse(const char *where, const char *text, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EINVAL, "%s should be at:microseconds, such as 1:3100, 8:4000, \"at\" whole and rising from 1, "
                      "microseconds 0 to 1e12; not \"%.60s\"", where, text);
}

int sim_table_read(const char *where, const char *text, struct sim_table *table, struct lathe_error *err)
{
    const char *at = text;
    *table = (struct sim_table){ 0 };
    at += strspn(at, " \t");
    while (*at) {
        char *end;
        double least = table->count ? table->at[table->count - 1] : 0.0, rows = strtod(at, &end);
        if (table->count == SIM_TABLE_MOST)
            return lathe_fail(err, LATHE_ERANGE, "%s has more than %d entries", where, SIM_TABLE_MOST);
        if (end == at || !(rows > least && rows <= 1e9) || rows != floor(rows) || *end != ':')
            return refuse(where, text, err);
        at = end + 1;
        double us = strtod(at, &end);
        if (end == at || !(us >= 0.0 && us <= 1e12))
            return refuse(where, text, err);
        table->at[table->count] = rows;
        table->us[table->count++] = us;
        at = end + strspn(end, " \t");
        if (*at == ',') {
            at++;
            at += strspn(at, " \t");
            if (!*at)
                return refuse(where, text, err);
        } else if (*at) {
            return refuse(where, text, err);
        }
    }
    return LATHE_OK;
}

/* The first knot at x or beyond. */
static uint32_t knot_of(const struct sim_table *table, double x)
{
    uint32_t low = 0, high = table->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (table->at[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

double sim_table_at(const struct sim_table *table, double x)
{
    if (table->count == 0 || x <= 0.0)
        return 0.0;
    uint32_t right = knot_of(table, x);
    if (right == 0 || table->count == 1)
        return table->us[0] * x / table->at[0];
    if (right == table->count)
        right--; /* beyond the last: on along the last piece */
    double share = (x - table->at[right - 1]) / (table->at[right] - table->at[right - 1]);
    double us = table->us[right - 1] + share * (table->us[right] - table->us[right - 1]);
    return us > 0.0 ? us : 0.0;
}

int sim_rest_check(const char *where, const struct sim_table *rest, struct lathe_error *err)
{
    for (uint32_t i = 0; i < rest->count; i++)
        if (rest->at[i] != (double)(i + 1))
            return lathe_fail(err, LATHE_EINVAL, "%s should name every remainder from 1 on: %u is missing", where, i + 1);
    return LATHE_OK;
}

double sim_rest_at(const struct sim_table *rest, const struct sim_table *rows, uint64_t x)
{
    uint64_t left = x % (rest->count + 1);
    if (left == 0)
        return 0.0;
    uint32_t knot = knot_of(rows, (double)x);
    return knot < rows->count && rows->at[knot] == (double)x ? 0.0 : rest->us[left - 1];
}

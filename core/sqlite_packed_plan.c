/* SPDX-License-Identifier: MIT */
/* Which constraints a scan of packed rows takes, what it then costs, and what their values let pass.
 *
 * What is taken is judged exactly as SQLite would, and SQLite is told so (omit): it would otherwise
 * ask for each constrained column of each row again. IN alone is only narrowed here, and left for
 * SQLite to judge.
 *
 * Costs are in SQLite's unit, about a row of a table that is read. They are guesses, as the blobs'
 * number isn't known; what matters is their order: a scan that names the position is cheap enough to
 * be repeated for each token, one that doesn't goes through all blobs of a request and should be
 * driven from. */
#include "sqlite_packed.h"

#include <math.h>
#include <string.h>

static int axis_of(const struct packed_kind *kind, int column)
{
    if (column == PACKED_LAYER)
        return AXIS_LAYER;
    if (column == kind->head_column)
        return AXIS_HEAD;
    return column == kind->item_column ? AXIS_ITEM : -1;
}

static int operator_of(unsigned char op)
{
    switch (op) {
    case SQLITE_INDEX_CONSTRAINT_EQ: return OF_EQ;
    case SQLITE_INDEX_CONSTRAINT_GT: return OF_GT;
    case SQLITE_INDEX_CONSTRAINT_GE: return OF_GE;
    case SQLITE_INDEX_CONSTRAINT_LT: return OF_LT;
    case SQLITE_INDEX_CONSTRAINT_LE: return OF_LE;
    default: return -1;
    }
}

/* The whole set of an IN can be had at once, from SQLite 3.38 on. */
static int is_set(sqlite3_index_info *info, int i, int take)
{
    return sqlite3_libversion_number() >= 3038000 && sqlite3_vtab_in(info, i, take);
}

/* The slot of a constraint, or −1 for what SQLite has to judge by itself. */
static int slot_of(const struct packed_kind *kind, sqlite3_index_info *info, int i)
{
    const struct sqlite3_index_constraint *constraint = &info->aConstraint[i];
    int op = operator_of(constraint->op), column = constraint->iColumn;
    if (!constraint->usable || op < 0 || column < 0)
        return -1;
    if (column == PACKED_POSITION)
        return op == OF_EQ ? POSITION_EQ : POSITION_GT + (op - OF_GT);
    int axis = axis_of(kind, column);
    if (axis >= 0)
        return PACKED_SQL + axis * PACKED_OPERATORS + (op == OF_EQ && is_set(info, i, -1) ? OF_IN : op);
    if (op != OF_EQ)
        return -1;
    if (column == PACKED_RUN)
        return RUN_EQ;
    if (column == PACKED_REQUEST)
        return REQUEST_EQ;
    if (column == kind->probe_column)
        return PROBE_EQ;
    if (column == kind->measure_column && !is_set(info, i, -1) && !strcmp(sqlite3_vtab_collation(info, i), "BINARY"))
        return MEASURE_EQ;
    return -1;
}

/* How many times fewer rows there are with it. */
static double narrows(int slot)
{
    static const double query[PACKED_SQL] = { 4, 50, 2, 500, 2, 2, 2, 2 };
    static const double walk[PACKED_AXES][PACKED_OPERATORS] = {
        { 30, 8, 2, 2, 2, 2 }, { 9, 3, 2, 2, 2, 2 }, { 100, 20, 2, 2, 2, 2 },
    };
    if (slot < PACKED_SQL)
        return query[slot];
    if (slot == MEASURE_EQ)
        return 1.5;
    slot -= PACKED_SQL;
    return walk[slot / PACKED_OPERATORS][slot % PACKED_OPERATORS];
}

int packed_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    const struct packed_kind *kind = ((struct packed_table *)table)->kind;
    int of[PACKED_SLOTS], arguments = 0, pushed = 0;
    double blobs = 1e5, parts = kind->heads ? 270 : 30, rows = blobs * parts * kind->typical_items;
    memset(of, -1, sizeof of);
    for (int i = 0; i < info->nConstraint; i++) {
        int slot = slot_of(kind, info, i);
        if (slot >= 0 && of[slot] < 0)
            of[slot] = i;
    }
    for (int slot = 0; slot < PACKED_SLOTS; slot++) {
        if (of[slot] < 0)
            continue;
        int op = slot < PACKED_SQL || slot == MEASURE_EQ ? OF_EQ : (slot - PACKED_SQL) % PACKED_OPERATORS;
        pushed |= 1 << slot;
        info->aConstraintUsage[of[slot]].argvIndex = ++arguments;
        info->aConstraintUsage[of[slot]].omit = op != OF_IN;
        if (op == OF_IN)
            is_set(info, of[slot], 1);
        rows /= narrows(slot);
        if (slot < PACKED_SQL)
            blobs /= narrows(slot);
    }
    info->idxNum = pushed;
    info->estimatedRows = rows < 1 ? 1 : (sqlite3_int64)rows;
    info->estimatedCost = 10 * (blobs < 1 ? 1 : blobs) + 0.3 * (rows < 1 ? 1 : rows);
    return SQLITE_OK;
}

/* ---- what the values let pass ----------------------------------------------------------- */

static void at_least(struct packed_range *r, int64_t low)
{
    r->low = low > r->low ? low : r->low;
}

static void at_most(struct packed_range *r, int64_t high)
{
    r->high = high < r->high ? high : r->high;
}

static void nothing(struct packed_range *r)
{
    *r = (struct packed_range){ 1, 0 };
}

/* An integer column beside a number that need not be one. */
static void narrow_real(struct packed_range *r, int op, double value)
{
    double low = op == OF_GT ? floor(value) + 1 : ceil(value), high = op == OF_LT ? ceil(value) - 1 : floor(value);
    if (op != OF_LT && op != OF_LE) {
        if (low >= 0x1p63)
            nothing(r);
        else if (low > -0x1p63)
            at_least(r, (int64_t)low);
    }
    if (op != OF_GT && op != OF_GE) {
        if (high < -0x1p63)
            nothing(r);
        else if (high < 0x1p63)
            at_most(r, (int64_t)high);
    }
}

/* As SQLite compares an INTEGER column: NULL is beside nothing, text and blobs are greater than any number. */
static void narrow(struct packed_range *r, int op, sqlite3_value *value)
{
    int64_t n;
    switch (sqlite3_value_numeric_type(value)) {
    case SQLITE_FLOAT: narrow_real(r, op, sqlite3_value_double(value)); return;
    case SQLITE_INTEGER: break;
    case SQLITE_NULL: nothing(r); return;
    default:
        if (op != OF_LT && op != OF_LE)
            nothing(r);
        return;
    }
    n = sqlite3_value_int64(value);
    if ((op == OF_GT && n == INT64_MAX) || (op == OF_LT && n == INT64_MIN)) {
        nothing(r);
        return;
    }
    if (op != OF_LT && op != OF_LE)
        at_least(r, op == OF_GT ? n + 1 : n);
    if (op != OF_GT && op != OF_GE)
        at_most(r, op == OF_LT ? n - 1 : n);
}

/* The range that a set spans, and of layers and heads which in it. What isn't an integer is left to SQLite. */
static void narrow_to_set(struct packed_cursor *c, int axis, sqlite3_value *set)
{
    struct packed_range *r = &c->range[axis], span = { INT64_MAX, INT64_MIN };
    uint64_t among[256 / 64] = { 0 };
    sqlite3_value *value;
    int rc;
    for (rc = sqlite3_vtab_in_first(set, &value); rc == SQLITE_OK; rc = sqlite3_vtab_in_next(set, &value)) {
        if (sqlite3_value_type(value) != SQLITE_INTEGER)
            return;
        int64_t n = sqlite3_value_int64(value);
        span.low = n < span.low ? n : span.low;
        span.high = n > span.high ? n : span.high;
        if (n >= 0 && n < 256)
            among[n / 64] |= (uint64_t)1 << (n % 64);
    }
    if (rc != SQLITE_DONE)
        return;
    at_least(r, span.low);
    at_most(r, span.high);
    if (axis != AXIS_ITEM)
        for (int i = 0; i < 256 / 64; i++)
            c->among[axis][i] &= among[i];
}

static int measure_named(const char *name)
{
    static const char *const names[] = { "weight", "score", "value" };
    for (int i = 0; name && i < 3; i++)
        if (!strcmp(name, names[i]))
            return MEASURE_WEIGHT + i;
    return MEASURE_UNKNOWN;
}

void packed_narrow(struct packed_cursor *c, int slot, sqlite3_value *value)
{
    if (slot == MEASURE_EQ) {
        c->measure = sqlite3_value_type(value) == SQLITE_TEXT ? measure_named((const char *)sqlite3_value_text(value))
                                                             : MEASURE_UNKNOWN;
        return;
    }
    int axis = (slot - PACKED_SQL) / PACKED_OPERATORS, op = (slot - PACKED_SQL) % PACKED_OPERATORS;
    c->items_chosen |= axis == AXIS_ITEM;
    if (op == OF_IN)
        narrow_to_set(c, axis, value);
    else
        narrow(&c->range[axis], op, value);
}

/* SPDX-License-Identifier: MIT */
/* From packed row to packed row, and through each: see sqlite_packed.h.
 *
 * The blobs' layout is in schemas/001_tables.sql and 006_memory.sql. A blob whose length is not what
 * its probe makes it is an error that names the row: nothing beyond its end is ever read. */
#include "sqlite_packed.h"

#include <string.h>

int packed_problem(struct packed_cursor *c, const char *what)
{
    sqlite3_free(c->base.pVtab->zErrMsg);
    c->base.pVtab->zErrMsg = sqlite3_mprintf("%s of run %lld, request %lld, position %lld: %s", c->kind->packed, (long long)c->run,
                                             (long long)c->request, (long long)c->position, what);
    return SQLITE_ERROR;
}

int packed_not_ours(struct packed_table *t, int rc)
{
    sqlite3_free(t->base.zErrMsg);
    t->base.zErrMsg = sqlite3_mprintf("not a database of lathe's: %s", sqlite3_errmsg(t->db));
    return rc;
}

static int prepare_rows(struct packed_table *t, int pushed, sqlite3_stmt **rows)
{
    static const char *const terms[PACKED_SQL] = {
        " AND run_id = ?1",   " AND request_id = ?2", " AND probe_id = ?3", " AND position = ?4",
        " AND position > ?5", " AND position >= ?6",  " AND position < ?7", " AND position <= ?8",
    };
    char sql[512];
    sqlite3_snprintf(sizeof sql, sql, "SELECT run_id, request_id, position, step_id, probe_id, data, %s, rowid FROM main.%s WHERE 1",
                     t->kind->keys_column >= 0 ? "keys" : "0", t->kind->packed);
    for (int slot = 0; slot < PACKED_SQL; slot++)
        if (pushed >> slot & 1)
            strcat(sql, terms[slot]);
    int rc = sqlite3_prepare_v3(t->db, sql, -1, SQLITE_PREPARE_PERSISTENT, rows, NULL);
    return rc == SQLITE_OK ? rc : packed_not_ours(t, rc);
}

void packed_give(struct packed_cursor *c)
{
    struct packed_table *t = (struct packed_table *)c->base.pVtab;
    if (c->rows && c->slot >= 0) {
        sqlite3_reset(c->rows);
        t->statements[c->slot].taken = 0;
    } else {
        sqlite3_finalize(c->rows);
    }
    c->rows = NULL;
}

int packed_take(struct packed_cursor *c, int pushed)
{
    struct packed_table *t = (struct packed_table *)c->base.pVtab;
    c->at_row = 0;
    if (c->rows && c->pushed == pushed) {
        sqlite3_reset(c->rows);
        return SQLITE_OK;
    }
    packed_give(c);
    c->pushed = pushed;
    c->slot = -1;
    for (int i = 0; i < PACKED_STATEMENTS; i++) {
        struct packed_statement *s = &t->statements[i];
        if (s->rows && !s->taken && s->pushed == pushed) {
            c->rows = s->rows;
            c->slot = i;
            s->taken = 1;
            return SQLITE_OK;
        }
        if (!s->rows && c->slot < 0)
            c->slot = i;
    }
    int rc = prepare_rows(t, pushed, &c->rows);
    if (rc != SQLITE_OK)
        c->slot = -1;
    else if (c->slot >= 0)
        t->statements[c->slot] = (struct packed_statement){ c->rows, pushed, 1 };
    return rc;
}

/* ---- the walk --------------------------------------------------------------------------- */

static int passes(const struct packed_cursor *c, int axis, uint8_t number)
{
    return number >= c->range[axis].low && number <= c->range[axis].high && lathe_probe_has(c->among[axis], number);
}

/* Keys of format top are listed by weight: each is looked at. Unused ones come last. */
static int settle_on_top(struct packed_cursor *c)
{
    for (; c->item < c->end; c->item++) {
        uint32_t key;
        memcpy(&key, c->part + (size_t)c->item * sizeof(struct lathe_attention_top), sizeof key);
        if (key == UINT32_MAX)
            return 0;
        if (key >= c->range[AXIS_ITEM].low && key <= c->range[AXIS_ITEM].high)
            return 1;
    }
    return 0;
}

/* From here on: is (layer, head, item) a row? Moves to the next that is, or says 0. */
static int settle(struct packed_cursor *c)
{
    const struct packed_probe *p = c->probe;
    const int listed = c->kind->item_column >= 0 && p->probe.format == LATHE_PROBE_TOP;
    const uint32_t heads = c->kind->heads ? p->head_count : 1;
    for (; c->layer < p->layer_count; c->layer++, c->head = 0, c->item = c->first) {
        if (!passes(c, AXIS_LAYER, p->layers[c->layer]))
            continue;
        for (; c->head < heads; c->head++, c->item = c->first) {
            if (c->item >= c->end || (c->kind->heads && !passes(c, AXIS_HEAD, p->heads[c->head])))
                continue;
            c->part = c->data + c->layer * c->layer_bytes + c->head * c->head_bytes;
            if (!listed || settle_on_top(c))
                return 1;
        }
    }
    return 0;
}

/* The items that may pass, from their numbers. */
static void choose_items(struct packed_cursor *c)
{
    uint32_t items = c->kind->items(c);
    c->first = 0;
    c->end = items;
    if (!c->items_chosen || c->probe->probe.format == LATHE_PROBE_TOP)
        return;
    struct packed_range r = c->range[AXIS_ITEM];
    int64_t base = c->kind->first_item, last = base + items - 1;
    if (r.low > last || r.high < base || r.low > r.high ||
        (c->probe->probe.format == LATHE_PROBE_FULL && !packed_keys_are_positions(c))) {
        c->end = 0;
        return;
    }
    c->first = r.low > base ? (uint32_t)(r.low - base) : 0;
    c->end = r.high < last ? (uint32_t)(r.high - base + 1) : items;
}

/* The row at hand: *any says whether the walk has something in it. */
static int enter(struct packed_cursor *c, int *any)
{
    const struct packed_probe *p = c->probe;
    *any = 0;
    if (!(c->kind->formats >> p->probe.format & 1) || (c->measure && c->measure != p->measure) ||
        (c->kind->measure_column < 0 && p->measure > MEASURE_WEIGHT))
        return SQLITE_OK;
    int64_t keys = sqlite3_column_int64(c->rows, 6);
    if (keys < 0 || keys > INT32_MAX)
        return packed_problem(c, "its number of keys is out of range");
    c->keys = (uint32_t)keys;
    c->head_bytes = lathe_attention_head_bytes(&p->probe, c->keys);
    c->layer_bytes = lathe_probe_layer_bytes(&p->probe, c->keys);
    c->data = sqlite3_column_blob(c->rows, 5);
    /* At most 256 layers of 2^41 bytes: no wrap in 64 bits. */
    if ((uint64_t)sqlite3_column_bytes(c->rows, 5) != (uint64_t)p->layer_count * c->layer_bytes)
        return packed_problem(c, "its data is not as long as its probe makes it; the row is damaged");
    if (!c->layer_bytes)
        return SQLITE_OK;
    choose_items(c);
    c->layer = c->head = 0;
    c->item = c->first;
    *any = settle(c);
    return SQLITE_OK;
}

int packed_next_blob(struct packed_cursor *c)
{
    int any = 0;
    while (!any) {
        sqlite3_stmt *s = c->rows;
        /* Where there can be one row only it is kept at hand, for a scan that asks for it again. */
        int alone = c->at_row && (c->pushed & PACKED_ALONE) == PACKED_ALONE, rc = alone ? SQLITE_DONE : sqlite3_step(s);
        if (rc == SQLITE_DONE) {
            c->at_row = alone;
            c->done = 1;
            return SQLITE_OK;
        }
        c->at_row = rc == SQLITE_ROW;
        if (rc != SQLITE_ROW)
            return rc;
        c->run = sqlite3_column_int64(s, 0);
        c->request = sqlite3_column_int64(s, 1);
        c->position = sqlite3_column_int64(s, 2);
        c->step = sqlite3_column_int64(s, 3);
        rc = packed_find_probe(c, sqlite3_column_int64(s, 4));
        if (rc == SQLITE_OK)
            rc = enter(c, &any);
        if (rc != SQLITE_OK) {
            c->at_row = 0;
            return rc;
        }
    }
    return SQLITE_OK;
}

int packed_again(struct packed_cursor *c)
{
    int any, rc = enter(c, &any);
    c->done = !any;
    return rc;
}

int packed_next(struct packed_cursor *c)
{
    c->item++;
    return settle(c) ? SQLITE_OK : packed_next_blob(c);
}

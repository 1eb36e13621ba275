/* SPDX-License-Identifier: MIT */
/* From packed row to packed row, and through each: see sqlite_packed.h.
 *
 * The blobs' layout is in schemas/001_tables.sql and 006_memory.sql. A blob whose length is not what
 * its probe makes it is an error that names the row: nothing beyond its end is ever read. */
#include "sqlite_packed.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_TOP = 1 << 20, MOST_WIDTH = 1 << 24 };

int packed_problem(struct packed_cursor *c, const char *what)
{
    sqlite3_free(c->base.pVtab->zErrMsg);
    c->base.pVtab->zErrMsg = sqlite3_mprintf("%s of run %lld, request %lld, position %lld: %s", c->kind->packed, (long long)c->run,
                                             (long long)c->request, (long long)c->position, what);
    return SQLITE_ERROR;
}

/* ---- statements ------------------------------------------------------------------------- */

static int not_ours(struct packed_table *t, int rc)
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
    return rc == SQLITE_OK ? rc : not_ours(t, rc);
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

/* ---- probes ----------------------------------------------------------------------------- */

/* "[0,3,4]" to a mask and a list; numbers must be below 256. 0 or −1. */
static int parse_numbers(const char *text, uint64_t mask[4], uint8_t *list, uint32_t *count)
{
    *count = 0;
    if (!text || *text++ != '[')
        return -1;
    while (*text && *text != ']') {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (end == text || n > 255)
            return -1;
        mask[n / 64] |= (uint64_t)1 << (n % 64);
        text = end;
        while (*text == ',' || *text == ' ')
            text++;
    }
    for (uint32_t i = 0; i < 256; i++)
        if (lathe_probe_has(mask, i))
            list[(*count)++] = (uint8_t)i;
    return *text == ']' ? 0 : -1;
}

static uint32_t format_named(const char *name)
{
    static const char *const names[LATHE_PROBE_FORMATS] = { NULL, "summary", "top", "full", NULL, NULL, "norms", "lens", "hidden" };
    for (uint32_t i = 1; i < LATHE_PROBE_FORMATS; i++)
        if (names[i] && !strcmp(name, names[i]))
            return i;
    return 0;
}

/* Whether the row makes sense. */
static int parse_probe(sqlite3_stmt *row, int of_layers, struct packed_probe *p)
{
    const char *format = (const char *)sqlite3_column_text(row, 0);
    int64_t top_k = sqlite3_column_int64(row, 3), more = sqlite3_column_int64(row, 4);
    memset(&p->probe, 0, sizeof p->probe);
    p->probe.format = format ? format_named(format) : 0;
    p->probe.top_k = (uint32_t)top_k;
    p->measure = MEASURE_NONE;
    if (of_layers) {
        p->probe.width = (uint32_t)more;
        if (p->probe.format == LATHE_PROBE_HIDDEN && (more < 1 || more > MOST_WIDTH))
            return 0;
    } else {
        const char *measure = (const char *)sqlite3_column_text(row, 5);
        p->probe.recent_window = more < 0 ? 0 : more > UINT32_MAX ? UINT32_MAX : (uint32_t)more;
        p->measure = measure && *measure == 's' ? MEASURE_SCORE : measure && *measure == 'v' ? MEASURE_VALUE : MEASURE_WEIGHT;
    }
    if ((p->probe.format == LATHE_PROBE_TOP || p->probe.format == LATHE_PROBE_LENS) && (top_k < 1 || top_k > MOST_TOP))
        return 0;
    return p->probe.format && lathe_probe_of_layers(p->probe.format) == of_layers &&
           !parse_numbers((const char *)sqlite3_column_text(row, 1), p->probe.layers, p->layers, &p->layer_count) &&
           !parse_numbers((const char *)sqlite3_column_text(row, 2), p->probe.heads, p->heads, &p->head_count);
}

static int prepare_probe(struct packed_table *t, const char *columns)
{
    char sql[256];
    sqlite3_snprintf(sizeof sql, sql, "SELECT format, layers, heads, top_k, %s FROM main.%s WHERE run_id = ?1 AND id = ?2", columns,
                     t->kind->probes);
    return sqlite3_prepare_v3(t->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &t->probe, NULL);
}

/* The probe's row, from the database. */
static int read_probe(struct packed_cursor *c, int64_t id, struct packed_probe *p)
{
    struct packed_table *t = (struct packed_table *)c->base.pVtab;
    int of_layers = c->kind->keys_column < 0;
    if (!t->probe) {
        int failed = prepare_probe(t, of_layers ? "width" : "recent_window, measure");
        if (failed && !of_layers) /* a database older than schema 6 */
            failed = prepare_probe(t, "recent_window, 'weight'");
        if (failed)
            return not_ours(t, failed);
    }
    sqlite3_bind_int64(t->probe, 1, c->run);
    sqlite3_bind_int64(t->probe, 2, id);
    int rc = sqlite3_step(t->probe), sound = rc == SQLITE_ROW && parse_probe(t->probe, of_layers, p);
    sqlite3_reset(t->probe);
    if (rc == SQLITE_DONE)
        return packed_problem(c, "its probe is missing");
    if (rc != SQLITE_ROW)
        return rc;
    if (!sound)
        return packed_problem(c, "its probe's row makes no sense");
    p->run = c->run;
    p->id = id;
    return SQLITE_OK;
}

static int find_probe(struct packed_cursor *c, int64_t id)
{
    struct packed_probe **place = &c->probes[((uint64_t)c->run * 7 + (uint64_t)id) % PACKED_PROBES];
    if (!*place || (*place)->run != c->run || (*place)->id != id) {
        if (!*place && !(*place = sqlite3_malloc(sizeof **place)))
            return SQLITE_NOMEM;
        (*place)->run = INT64_MIN; /* of none, if it can't be read */
        int rc = read_probe(c, id, *place);
        if (rc != SQLITE_OK)
            return rc;
    }
    c->probe = *place;
    return SQLITE_OK;
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

int packed_next_blob(struct packed_cursor *c)
{
    for (;;) {
        sqlite3_stmt *s = c->rows;
        int rc = sqlite3_step(s);
        if (rc == SQLITE_DONE) {
            c->done = 1;
            return SQLITE_OK;
        }
        if (rc != SQLITE_ROW)
            return rc;
        c->run = sqlite3_column_int64(s, 0);
        c->request = sqlite3_column_int64(s, 1);
        c->position = sqlite3_column_int64(s, 2);
        c->step = sqlite3_column_int64(s, 3);
        rc = find_probe(c, sqlite3_column_int64(s, 4));
        if (rc != SQLITE_OK)
            return rc;
        const struct packed_probe *p = c->probe;
        if (!(c->kind->formats >> p->probe.format & 1) || (c->measure && c->measure != p->measure) ||
            (c->kind->measure_column < 0 && p->measure > MEASURE_WEIGHT))
            continue;
        int64_t keys = sqlite3_column_int64(s, 6);
        if (keys < 0 || keys > INT32_MAX)
            return packed_problem(c, "its number of keys is out of range");
        c->keys = (uint32_t)keys;
        c->head_bytes = lathe_attention_head_bytes(&p->probe, c->keys);
        c->layer_bytes = lathe_probe_layer_bytes(&p->probe, c->keys);
        c->data = sqlite3_column_blob(s, 5);
        /* At most 256 layers of 2^41 bytes: no wrap in 64 bits. */
        if ((uint64_t)sqlite3_column_bytes(s, 5) != (uint64_t)p->layer_count * c->layer_bytes)
            return packed_problem(c, "its data is not as long as its probe makes it; the row is damaged");
        if (!c->layer_bytes)
            continue;
        choose_items(c);
        c->layer = c->head = 0;
        c->item = c->first;
        if (settle(c))
            return SQLITE_OK;
    }
}

int packed_next(struct packed_cursor *c)
{
    c->item++;
    return settle(c) ? SQLITE_OK : packed_next_blob(c);
}

/* SPDX-License-Identifier: MIT */
/* What a packed row holds, from its probe's row: parsed once a scan. What makes no sense is an error that
 * names the packed row. */
#include "sqlite_packed.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_TOP = 1 << 20, MOST_WIDTH = 1 << 24 };

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
            return packed_not_ours(t, failed);
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

int packed_find_probe(struct packed_cursor *c, int64_t id)
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

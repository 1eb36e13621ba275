/* SPDX-License-Identifier: MIT */
/* The packed rows of attention_token and layer_token, read like tables: what the files share.
 *
 *     sqlite_packed.c          the module's methods, and the list of tables
 *     sqlite_packed_plan.c     which constraints go where, and what a scan costs
 *     sqlite_packed_probe.c    what a probe's row says
 *     sqlite_packed_walk.c     rows of the database; the walk through a blob
 *     sqlite_packed_heads.c    values of attention, attention_weights
 *     sqlite_packed_layers.c   values of layer_norms, head_norms, layer_lens, layer_hidden
 *
 * A scan is an SQL query on the packed table, and a walk through each blob by layer, head and item
 * (a key, a rank, a dimension):
 *
 *     constraint on                         goes to
 *     run_id, request_id, probe_id =        the query (index attention_token_at, layer_token_at)
 *     position = < ≤ > ≥                    the query
 *     layer, head, item = IN < ≤ > ≥        the walk, which steps over the rest of the blob
 *     measure =                             the walk, which passes over the blob unread
 *
 * The statement is prepared once and kept for the next scan with the same constraints (a join makes
 * one for each row on its other side), a probe is parsed once a scan, a blob that the next scan wants again
 * stays at hand, and a row allocates nothing. */
#ifndef CORE_SQLITE_PACKED_H
#define CORE_SQLITE_PACKED_H

#include <stdint.h>

#include <lathe/attention.h>

#include "sqlite_extension.h"

/* Columns that all the tables open with. */
enum { PACKED_RUN, PACKED_REQUEST, PACKED_POSITION, PACKED_LAYER, PACKED_OWN };

/* Constraints that are taken, as bits of idxNum and in the order of filter's values. Those before
 * PACKED_SQL are parameters of the query, by number from 1. The rest are of the walk: six of each axis. */
enum { RUN_EQ, REQUEST_EQ, PROBE_EQ, POSITION_EQ, POSITION_GT, POSITION_GE, POSITION_LT, POSITION_LE, PACKED_SQL };
enum { PACKED_ALONE = 1 << RUN_EQ | 1 << REQUEST_EQ | 1 << PROBE_EQ | 1 << POSITION_EQ }; /* there is at most one such row */
enum packed_axis { AXIS_LAYER, AXIS_HEAD, AXIS_ITEM, PACKED_AXES };
enum packed_operator { OF_EQ, OF_IN, OF_GT, OF_GE, OF_LT, OF_LE, PACKED_OPERATORS };
enum { MEASURE_EQ = PACKED_SQL + PACKED_AXES * PACKED_OPERATORS, PACKED_SLOTS };

enum packed_measure { MEASURE_NONE, MEASURE_WEIGHT, MEASURE_SCORE, MEASURE_VALUE, MEASURE_UNKNOWN };

struct packed_cursor;

/* One of the tables. Columns that it hasn't are −1. */
struct packed_kind {
    const char *name;
    const char *columns;  /* after those that all have */
    const char *packed;   /* table of the blobs */
    const char *probes;   /* table that says what is in them */
    uint32_t formats;     /* bit mask of enum lathe_probe_format: blobs of others are passed over */
    int heads;            /* a row is of a head */
    int8_t head_column, item_column, measure_column;
    int8_t step_column, probe_column, keys_column; /* hidden */
    int64_t first_item;   /* number of the first */
    uint32_t typical_items;
    uint32_t (*items)(const struct packed_cursor *c); /* of each head, or of each layer */
    void (*value)(struct packed_cursor *c, sqlite3_context *context, int column);
};

extern const struct packed_kind packed_attention, packed_weights; /* sqlite_packed_heads.c */
extern const struct packed_kind packed_norms, packed_head_norms, packed_lens, packed_hidden; /* sqlite_packed_layers.c */

/* A probe's row, parsed. */
struct packed_probe {
    int64_t run, id;
    int measure;
    struct lathe_probe probe;
    uint32_t layer_count, head_count;
    uint8_t layers[LATHE_PROBE_MAX_LAYERS], heads[LATHE_PROBE_MAX_HEADS];
};

enum { PACKED_STATEMENTS = 8, PACKED_PROBES = 16 };

struct packed_table {
    sqlite3_vtab base;
    sqlite3 *db;
    const struct packed_kind *kind;
    sqlite3_stmt *probe; /* of one run and id */
    struct packed_statement {
        sqlite3_stmt *rows;
        int pushed; /* the constraints that it was made for */
        int taken;
    } statements[PACKED_STATEMENTS]; /* made once for each set of constraints, while there is room */
};

struct packed_range {
    int64_t low, high;    /* inclusive; low > high: nothing */
};

struct packed_cursor {
    sqlite3_vtab_cursor base;
    const struct packed_kind *kind;
    sqlite3_stmt *rows;
    int pushed, slot;     /* what `rows` was made for, and its place among the table's, or −1 */
    int at_row;           /* it stands at the row at hand */
    /* What the walk lets pass. */
    struct packed_range range[PACKED_AXES];
    uint64_t among[2][256 / 64]; /* layers and heads: those of IN */
    int items_chosen, measure;
    struct packed_probe *probes[PACKED_PROBES]; /* by run and id; one pushes another out */
    /* The blob at hand. */
    int64_t run, request, position, step;
    const struct packed_probe *probe;
    const uint8_t *data;
    uint32_t keys;
    size_t layer_bytes, head_bytes;
    uint32_t first, end;  /* items that may pass */
    /* Where the walk is. */
    uint32_t layer, head, item;
    const uint8_t *part;  /* the layer's bytes, or the head's */
    int done;
};

/* sqlite_packed_plan.c: xBestIndex; and what filter was given, put into the cursor's ranges. */
int packed_best_index(sqlite3_vtab *table, sqlite3_index_info *info);
void packed_narrow(struct packed_cursor *c, int slot, sqlite3_value *value);

/* sqlite_packed_walk.c: the cursor's statement, in its table's keeping; and from row to row. */
int packed_take(struct packed_cursor *c, int pushed);
void packed_give(struct packed_cursor *c);
int packed_next_blob(struct packed_cursor *c);
int packed_again(struct packed_cursor *c); /* the row at hand from its beginning, with other ranges */
int packed_next(struct packed_cursor *c);

/* sqlite_packed_probe.c: the probe `id` of the run at hand. */
int packed_find_probe(struct packed_cursor *c, int64_t id);

/* Errors: one that names the row at hand, one of a database that lacks the tables. */
int packed_problem(struct packed_cursor *c, const char *what);
int packed_not_ours(struct packed_table *t, int rc);

/* Are the keys' numbers their positions? Of whole rows not, once the KV cache dropped some. */
static inline int packed_keys_are_positions(const struct packed_cursor *c)
{
    return (int64_t)c->keys == c->position + 1;
}

/* NaN is NULL. */
static inline void packed_real(sqlite3_context *context, double value)
{
    if (value == value)
        sqlite3_result_double(context, value);
}

#endif

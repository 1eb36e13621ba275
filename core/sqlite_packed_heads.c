/* SPDX-License-Identifier: MIT */
/* Tables `attention` (a row a head) and `attention_weights` (a row a key).
 *
 * `attention` is of weights alone: probes of scores and values are passed over. In `attention_weights`
 * the column measure says which of the three a row is. Keys are positions. Of a whole row of which the
 * KV cache had dropped keys, which were left isn't recorded: key is NULL then, and the hidden
 * column `number` counts them (format top has the positions in any case). */
#include <math.h>
#include <string.h>

#include "sqlite_half.h"
#include "sqlite_packed.h"

enum { HEAD = PACKED_OWN };
enum { ENTROPY = HEAD + 1, FIRST_MASS, RECENT_MASS, SELF_MASS, TOP_KEY, TOP_WEIGHT, HEAD_STEP, HEAD_PROBE, HEAD_KEYS };
enum { KEY = HEAD + 1, WEIGHT, MEASURE, KEY_STEP, KEY_PROBE, KEY_KEYS, NUMBER };

static uint32_t one(const struct packed_cursor *c)
{
    (void)c;
    return 1;
}

/* ---- a row a head ----------------------------------------------------------------------- */

static void summary_value(const uint8_t *p, sqlite3_context *context, int column)
{
    float entropy;
    uint32_t key;
    switch (column) {
    case ENTROPY:
        memcpy(&entropy, p, sizeof entropy);
        packed_real(context, (double)entropy);
        break;
    case TOP_KEY:
        memcpy(&key, p + 12, sizeof key);
        sqlite3_result_int64(context, key);
        break;
    case TOP_WEIGHT: packed_real(context, sqlite_half(p + 10)); break;
    default: packed_real(context, sqlite_half(p + 4 + 2 * (column - FIRST_MASS)));
    }
}

/* Only the heaviest: the figures are over all keys, which aren't here. */
static void top_value(const uint8_t *p, sqlite3_context *context, int column)
{
    struct lathe_attention_top top;
    memcpy(&top, p, sizeof top);
    if (top.key == UINT32_MAX)
        return;
    if (column == TOP_KEY)
        sqlite3_result_int64(context, top.key);
    else if (column == TOP_WEIGHT)
        packed_real(context, (double)top.weight);
}

static double sum_of_last(const uint8_t *p, uint32_t keys, uint32_t count)
{
    double sum = 0;
    for (uint32_t k = count < keys ? keys - count : 0; k < keys; k++)
        sum += sqlite_half(p + (size_t)k * 2);
    return sum;
}

static double entropy_of(const uint8_t *p, uint32_t keys)
{
    double entropy = 0;
    for (uint32_t k = 0; k < keys; k++) {
        double w = sqlite_half(p + (size_t)k * 2);
        if (w > 0)
            entropy -= w * log(w);
    }
    return entropy;
}

static uint32_t heaviest(const uint8_t *p, uint32_t keys)
{
    uint32_t best = 0;
    for (uint32_t k = 1; k < keys; k++)
        if (sqlite_half(p + (size_t)k * 2) > sqlite_half(p + (size_t)best * 2))
            best = k;
    return best;
}

static void full_value(const struct packed_cursor *c, sqlite3_context *context, int column)
{
    const uint8_t *p = c->part;
    if (c->keys == 0)
        return;
    switch (column) {
    case ENTROPY: packed_real(context, entropy_of(p, c->keys)); break;
    case FIRST_MASS:
        if (packed_keys_are_positions(c))
            packed_real(context, sqlite_half(p));
        break;
    case RECENT_MASS:
        if (c->probe->probe.recent_window)
            packed_real(context, sum_of_last(p, c->keys, c->probe->probe.recent_window));
        break;
    case SELF_MASS: packed_real(context, sqlite_half(p + (size_t)(c->keys - 1) * 2)); break; /* itself is the last it sees */
    case TOP_KEY:
        if (packed_keys_are_positions(c))
            sqlite3_result_int64(context, heaviest(p, c->keys));
        break;
    case TOP_WEIGHT: packed_real(context, sqlite_half(p + (size_t)heaviest(p, c->keys) * 2)); break;
    }
}

static void head_value(struct packed_cursor *c, sqlite3_context *context, int column)
{
    if (c->probe->probe.format == LATHE_PROBE_SUMMARY)
        summary_value(c->part, context, column);
    else if (c->probe->probe.format == LATHE_PROBE_TOP)
        top_value(c->part, context, column);
    else
        full_value(c, context, column);
}

const struct packed_kind packed_attention = {
    .name = "attention",
    .columns = "head INTEGER, entropy REAL, first_mass REAL, recent_mass REAL, self_mass REAL, top_key INTEGER, top_weight REAL,"
               " step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN, keys INTEGER HIDDEN",
    .packed = "attention_token",
    .probes = "probe",
    .formats = 1u << LATHE_PROBE_SUMMARY | 1u << LATHE_PROBE_TOP | 1u << LATHE_PROBE_FULL,
    .heads = 1,
    .head_column = HEAD,
    .item_column = -1,
    .measure_column = -1,
    .step_column = HEAD_STEP,
    .probe_column = HEAD_PROBE,
    .keys_column = HEAD_KEYS,
    .typical_items = 1,
    .items = one,
    .value = head_value,
};

/* ---- a row a key ------------------------------------------------------------------------ */

static uint32_t keys_of(const struct packed_cursor *c)
{
    return c->probe->probe.format == LATHE_PROBE_FULL ? c->keys : c->probe->probe.top_k;
}

static void key_value(struct packed_cursor *c, sqlite3_context *context, int column)
{
    if (column == NUMBER) {
        sqlite3_result_int64(context, c->item);
    } else if (c->probe->probe.format == LATHE_PROBE_FULL) {
        if (column == WEIGHT)
            packed_real(context, sqlite_half(c->part + (size_t)c->item * 2));
        else if (packed_keys_are_positions(c))
            sqlite3_result_int64(context, c->item);
    } else {
        struct lathe_attention_top top;
        memcpy(&top, c->part + (size_t)c->item * sizeof top, sizeof top);
        if (column == WEIGHT)
            packed_real(context, (double)top.weight);
        else
            sqlite3_result_int64(context, top.key);
    }
}

const struct packed_kind packed_weights = {
    .name = "attention_weights",
    .columns = "head INTEGER, key INTEGER, weight REAL, measure TEXT,"
               " step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN, keys INTEGER HIDDEN, number INTEGER HIDDEN",
    .packed = "attention_token",
    .probes = "probe",
    .formats = 1u << LATHE_PROBE_TOP | 1u << LATHE_PROBE_FULL,
    .heads = 1,
    .head_column = HEAD,
    .item_column = KEY,
    .measure_column = MEASURE,
    .step_column = KEY_STEP,
    .probe_column = KEY_PROBE,
    .keys_column = KEY_KEYS,
    .typical_items = 100,
    .items = keys_of,
    .value = key_value,
};

/* SPDX-License-Identifier: MIT */
/* What layer_token has packed: `layer_norms` (a row a layer), `head_norms` (a row a head), `layer_lens`
 * (a row a token that the layer would say, rank 1 the likeliest) and `layer_hidden` (a row a dimension).
 * To take whole vectors out is r:activations' and r:write_npy's work. */
#include <string.h>

#include "sqlite_packed.h"

enum { BEFORE = PACKED_OWN, ATTENTION, FEED, AFTER, NORMS_STEP, NORMS_PROBE };
enum { HEAD = PACKED_OWN, NORM, HEAD_STEP, HEAD_PROBE };
enum { RANK = PACKED_OWN, TOKEN, LOGPROB, LENS_STEP, LENS_PROBE };
enum { DIMENSION = PACKED_OWN, VALUE, HIDDEN_STEP, HIDDEN_PROBE };

static double float_at(const uint8_t *p, size_t i)
{
    float value;
    memcpy(&value, p + i * sizeof value, sizeof value);
    return (double)value;
}

static uint32_t one(const struct packed_cursor *c)
{
    (void)c;
    return 1;
}

static void norms_value(struct packed_cursor *c, sqlite3_context *context, int column)
{
    packed_real(context, float_at(c->part, (size_t)(column - BEFORE)));
}

static void head_norms_value(struct packed_cursor *c, sqlite3_context *context, int column)
{
    (void)column;
    packed_real(context, float_at(c->part + sizeof(struct lathe_layer_norms), c->head));
}

static uint32_t ranks(const struct packed_cursor *c)
{
    return c->probe->probe.top_k;
}

static void lens_value(struct packed_cursor *c, sqlite3_context *context, int column)
{
    struct lathe_lens lens;
    memcpy(&lens, c->part + (size_t)c->item * sizeof lens, sizeof lens);
    if (column == RANK)
        sqlite3_result_int64(context, (int64_t)c->item + 1);
    else if (column == TOKEN)
        sqlite3_result_int(context, lens.token);
    else
        packed_real(context, (double)lens.logprob);
}

static uint32_t dimensions(const struct packed_cursor *c)
{
    return c->probe->probe.width;
}

static void hidden_value(struct packed_cursor *c, sqlite3_context *context, int column)
{
    if (column == DIMENSION)
        sqlite3_result_int64(context, c->item);
    else
        packed_real(context, float_at(c->part, c->item));
}

#define OF_LAYERS .packed = "layer_token", .probes = "layer_probe", .measure_column = -1, .keys_column = -1

const struct packed_kind packed_norms = {
    OF_LAYERS,
    .name = "layer_norms",
    .columns = "before REAL, attention REAL, feed REAL, after REAL, step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN",
    .formats = 1u << LATHE_PROBE_NORMS,
    .head_column = -1,
    .item_column = -1,
    .step_column = NORMS_STEP,
    .probe_column = NORMS_PROBE,
    .typical_items = 1,
    .items = one,
    .value = norms_value,
};

const struct packed_kind packed_head_norms = {
    OF_LAYERS,
    .name = "head_norms",
    .columns = "head INTEGER, norm REAL, step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN",
    .formats = 1u << LATHE_PROBE_NORMS,
    .heads = 1,
    .head_column = HEAD,
    .item_column = -1,
    .step_column = HEAD_STEP,
    .probe_column = HEAD_PROBE,
    .typical_items = 1,
    .items = one,
    .value = head_norms_value,
};

const struct packed_kind packed_lens = {
    OF_LAYERS,
    .name = "layer_lens",
    .columns = "rank INTEGER, token INTEGER, logprob REAL, step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN",
    .formats = 1u << LATHE_PROBE_LENS,
    .head_column = -1,
    .item_column = RANK,
    .step_column = LENS_STEP,
    .probe_column = LENS_PROBE,
    .first_item = 1,
    .typical_items = 5,
    .items = ranks,
    .value = lens_value,
};

const struct packed_kind packed_hidden = {
    OF_LAYERS,
    .name = "layer_hidden",
    .columns = "dimension INTEGER, value REAL, step_id INTEGER HIDDEN, probe_id INTEGER HIDDEN",
    .formats = 1u << LATHE_PROBE_HIDDEN,
    .head_column = -1,
    .item_column = DIMENSION,
    .step_column = HIDDEN_STEP,
    .probe_column = HIDDEN_PROBE,
    .typical_items = 500,
    .items = dimensions,
    .value = hidden_value,
};

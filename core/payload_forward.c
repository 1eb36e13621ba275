/* SPDX-License-Identifier: MIT */
/* What model.forward needs beyond its description: which rows give outputs when nothing is
 * said, how large the reply's regions are, and attention records as tables.
 *
 * A record is decoded by the probe that asked for it: probes are numbered by the walk, from 1
 * in the order of the slices, so that a record names its probe without doubt. */
#include "payload.h"

#include <string.h>

/* A slice that wants logits and says of no row gives its last. */
int payload_finish_slice(struct payload_parts *parts, void *element, struct lathe_error *err)
{
    struct lathe_slice *slice = element;
    int target = payload_member(parts->what->in, "outputs");
    if (!(slice->flags & (LATHE_SLICE_LOGITS | LATHE_SLICE_HIDDEN)) || slice->output_count || !slice->token_count ||
        slice->flags & LATHE_SLICE_PADDING)
        return LATHE_OK;
    slice->output_first = (uint32_t)parts->parts[target].count;
    slice->output_count = 1;
    uint32_t *output = payload_parts_add(parts, target, 1, sizeof *output, err);
    if (!output)
        return err->code;
    *output = slice->token_count - 1;
    return LATHE_OK;
}

/* ── sizes ─────────────────────────────────────────────────────────────────────────── */

/* Earlier positions that a slice's rows look at. */
static uint64_t keys_before(const struct lathe_forward_in *in, const struct lathe_slice *slice)
{
    const int32_t *kept = LATHE_SPAN(const int32_t, in, in->kept) + slice->kept_first;
    uint64_t before = 0;
    if (slice->kept_count == 0)
        return (uint64_t)slice->first_position;
    while (before < slice->kept_count && kept[before] < slice->first_position)
        before++;
    return before;
}

/* Saturates: what is beyond PAYLOAD_MAX_BYTES is refused anyway. */
static uint64_t attention_bytes(const struct lathe_forward_in *in, const struct lathe_slice *slice)
{
    if (slice->probe == LATHE_NO_PROBE || slice->flags & LATHE_SLICE_PADDING)
        return 0;
    const struct lathe_probe *probe = LATHE_SPAN(const struct lathe_probe, in, in->probes) + slice->probe;
    uint64_t before = keys_before(in, slice), bytes = 0;
    for (uint32_t i = 0; i < slice->token_count && bytes <= PAYLOAD_MAX_BYTES; i++) {
        int64_t position = (int64_t)slice->first_position + i;
        if (position > INT32_MAX)
            break; /* beyond every context: the model refuses it */
        if (lathe_probe_wants(probe, (int32_t)position))
            bytes += lathe_attention_row_bytes(probe, (uint32_t)(before + i + 1));
    }
    return bytes;
}

int payload_measure_forward(const struct lathe_message *message, const struct lathe_model_info *model,
                            struct payload_room rooms[PAYLOAD_FIELDS_MAX], struct lathe_error *err)
{
    const struct lathe_forward_in *in = (const struct lathe_forward_in *)(const void *)message;
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    const struct payload *what;
    uint64_t logits = 0, hidden = 0, attention = 0;
    if (!model)
        return lathe_fail(err, LATHE_ESTATE, "model.forward: nothing is known of the model: describe it first");
    int rc = payload_find("model", "forward", &what, err);
    if (rc != LATHE_OK)
        return rc;
    for (uint64_t s = 0; s < in->slices.count && attention <= PAYLOAD_MAX_BYTES; s++) {
        logits += slices[s].flags & LATHE_SLICE_LOGITS ? slices[s].output_count : 0;
        hidden += slices[s].flags & LATHE_SLICE_HIDDEN ? slices[s].output_count : 0;
        attention += attention_bytes(in, &slices[s]);
    }
    /* Counts are 31 bits and widths 32: no product wraps. */
    rooms[payload_member(what->out, "logits")] =
        (struct payload_room){ logits * model->vocab_tokens * sizeof(float), model->vocab_tokens };
    rooms[payload_member(what->out, "hidden")] =
        (struct payload_room){ hidden * model->embedding_width * sizeof(float), model->embedding_width };
    rooms[payload_member(what->out, "attention")] = (struct payload_room){ attention, 0 };
    return LATHE_OK;
}

/* ── records ───────────────────────────────────────────────────────────────────────── */

/* IEEE 754 half to single: exact. */
static float from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff, bits;
    float value;
    if (exponent == 0) { /* zero or subnormal: mantissa × 2^−24 */
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = exponent == 31 ? sign | 0x7f800000 | mantissa << 13 : sign | (exponent + 112) << 23 | mantissa << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put_number(const struct payload_sink *sink, const char *name, float value)
{
    sink->name(sink->context, name);
    sink->number(sink->context, value);
}

static void put_natural(const struct payload_sink *sink, const char *name, uint64_t value)
{
    sink->name(sink->context, name);
    sink->natural(sink->context, value);
}

static void write_summary(const unsigned char *bytes, const struct payload_sink *sink)
{
    struct lathe_attention_summary s;
    memcpy(&s, bytes, sizeof s);
    put_number(sink, "entropy", s.entropy);
    put_number(sink, "first_mass", from_half(s.first_mass));
    put_number(sink, "recent_mass", from_half(s.recent_mass));
    put_number(sink, "self_mass", from_half(s.self_mass));
    put_number(sink, "top_weight", from_half(s.top_weight));
    put_natural(sink, "top_key", s.top_key);
}

static void write_top(const unsigned char *bytes, uint32_t k, const struct payload_sink *sink)
{
    struct lathe_attention_top top;
    uint32_t used = 0;
    for (; used < k; used++) {
        memcpy(&top, bytes + used * sizeof top, sizeof top);
        if (top.key == UINT32_MAX)
            break;
    }
    for (int weights = 0; weights < 2; weights++) {
        sink->name(sink->context, weights ? "weights" : "keys");
        sink->list(sink->context, used);
        for (uint32_t i = 0; i < used; i++) {
            memcpy(&top, bytes + i * sizeof top, sizeof top);
            if (weights)
                sink->number(sink->context, top.weight);
            else
                sink->natural(sink->context, top.key);
        }
        sink->close(sink->context);
    }
}

static void write_full(const unsigned char *bytes, uint32_t keys, const struct payload_sink *sink)
{
    sink->name(sink->context, "weights"); /* of key 0, 1, … of those it could see */
    sink->list(sink->context, keys);
    for (uint32_t i = 0; i < keys; i++) {
        uint16_t half;
        memcpy(&half, bytes + i * sizeof half, sizeof half);
        sink->number(sink->context, from_half(half));
    }
    sink->close(sink->context);
}

static void write_heads(const struct lathe_probe *probe, const struct lathe_attention_row *row,
                        const unsigned char *bytes, const struct payload_sink *sink)
{
    size_t each = lathe_attention_head_bytes(probe, row->keys);
    sink->name(sink->context, "heads");
    sink->list(sink->context, (size_t)lathe_probe_count(probe->layers) * lathe_probe_count(probe->heads));
    for (uint32_t layer = 0; layer < LATHE_PROBE_MAX_LAYERS; layer++)
        for (uint32_t head = 0; head < LATHE_PROBE_MAX_HEADS; head++) {
            if (!lathe_probe_has(probe->layers, layer) || !lathe_probe_has(probe->heads, head))
                continue;
            sink->table(sink->context);
            put_natural(sink, "layer", layer);
            put_natural(sink, "head", head);
            switch (probe->format) {
            case LATHE_PROBE_SUMMARY: write_summary(bytes, sink); break;
            case LATHE_PROBE_TOP: write_top(bytes, probe->top_k, sink); break;
            default: write_full(bytes, row->keys, sink);
            }
            sink->close(sink->context);
            bytes += each;
        }
    sink->close(sink->context);
}

int payload_write_attention(const struct payload_call *call, const unsigned char *records, uint64_t bytes,
                            const struct payload_sink *sink, struct lathe_error *err)
{
    static const char *const formats[] = { "", "summary", "top", "full" };
    const struct lathe_forward_in *in = (const struct lathe_forward_in *)(const void *)call->in;
    const struct lathe_probe *probes = LATHE_SPAN(const struct lathe_probe, in, in->probes);
    uint64_t at = 0, count = 0;
    for (; at < bytes; count++) { /* all of them before the first is written: a list opens with its length */
        struct lathe_attention_row row = { .bytes = 0 };
        if (bytes - at >= sizeof row)
            memcpy(&row, records + at, sizeof row);
        if (row.bytes < sizeof row || row.bytes > bytes - at || row.probe == 0 || row.probe > in->probes.count ||
            lathe_attention_row_bytes(&probes[row.probe - 1], row.keys) != row.bytes)
            return lathe_fail(err, LATHE_EINTERNAL, "model.forward: attention record %llu is not as it was asked for",
                              (unsigned long long)count + 1);
        at += row.bytes;
    }
    sink->list(sink->context, count);
    for (at = 0; at < bytes;) {
        struct lathe_attention_row row;
        memcpy(&row, records + at, sizeof row);
        const struct lathe_probe *probe = &probes[row.probe - 1];
        sink->table(sink->context);
        put_natural(sink, "request", row.request);
        sink->name(sink->context, "position");
        sink->integer(sink->context, row.position);
        put_natural(sink, "keys", row.keys);
        sink->name(sink->context, "format");
        sink->text(sink->context, formats[probe->format], strlen(formats[probe->format]));
        write_heads(probe, &row, records + at + sizeof row, sink);
        sink->close(sink->context);
        at += row.bytes;
    }
    sink->close(sink->context);
    return LATHE_OK;
}

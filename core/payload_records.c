/* SPDX-License-Identifier: MIT */
/* What model.forward records, as tables: heads, layers, and the masses of keys.
 *
 * A record is decoded by the probe that asked for it: probes are numbered by the walk, from 1
 * in the order of the slices, so that a record names its probe without doubt. How many sets of
 * keys the masses are of, the model's context knows alone; their bytes tell it. */
#include "payload.h"

#include <string.h>

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

static void write_full(const unsigned char *bytes, uint32_t keys, const char *name, const struct payload_sink *sink)
{
    sink->name(sink->context, name); /* of key 0, 1, … of those it could see */
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
            case LATHE_PROBE_SCORES: write_full(bytes, row->keys, "scores", sink); break;
            case LATHE_PROBE_VALUES: write_full(bytes, row->keys, "values", sink); break;
            default: write_full(bytes, row->keys, "weights", sink);
            }
            sink->close(sink->context);
            bytes += each;
        }
    sink->close(sink->context);
}

static void put_floats(const struct payload_sink *sink, const char *name, const unsigned char *bytes, uint64_t count)
{
    if (name)
        sink->name(sink->context, name);
    sink->list(sink->context, count);
    for (uint64_t i = 0; i < count; i++) {
        float value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        sink->number(sink->context, value);
    }
    sink->close(sink->context);
}

static void write_lens(const unsigned char *bytes, uint32_t k, const struct payload_sink *sink)
{
    struct lathe_lens lens;
    for (int logprobs = 0; logprobs < 2; logprobs++) {
        sink->name(sink->context, logprobs ? "logprobs" : "tokens");
        sink->list(sink->context, k);
        for (uint32_t i = 0; i < k; i++) {
            memcpy(&lens, bytes + i * sizeof lens, sizeof lens);
            if (logprobs)
                sink->number(sink->context, lens.logprob);
            else
                sink->integer(sink->context, lens.token);
        }
        sink->close(sink->context);
    }
}

static void write_layers(const struct lathe_probe *probe, const struct lathe_attention_row *row,
                         const unsigned char *bytes, const struct payload_sink *sink)
{
    size_t each = lathe_probe_layer_bytes(probe, row->keys);
    sink->name(sink->context, "layers");
    sink->list(sink->context, lathe_probe_count(probe->layers));
    for (uint32_t layer = 0; layer < LATHE_PROBE_MAX_LAYERS; layer++) {
        struct lathe_layer_norms norms;
        if (!lathe_probe_has(probe->layers, layer))
            continue;
        sink->table(sink->context);
        put_natural(sink, "layer", layer);
        switch (probe->format) {
        case LATHE_PROBE_NORMS:
            memcpy(&norms, bytes, sizeof norms);
            put_number(sink, "before", norms.before);
            put_number(sink, "attention", norms.attention);
            put_number(sink, "feed", norms.feed);
            put_number(sink, "after", norms.after);
            put_floats(sink, "heads", bytes + sizeof norms, lathe_probe_count(probe->heads));
            break;
        case LATHE_PROBE_LENS: write_lens(bytes, probe->top_k, sink); break;
        default: put_floats(sink, "hidden", bytes, probe->width);
        }
        sink->close(sink->context);
        bytes += each;
    }
    sink->close(sink->context);
}

int payload_write_attention(const struct payload_call *call, const unsigned char *records, uint64_t bytes,
                            const struct payload_sink *sink, struct lathe_error *err)
{
    static const char *const formats[LATHE_PROBE_FORMATS] = { "",       "summary", "top",  "full",  "scores",
                                                              "values", "norms",   "lens", "hidden" };
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
        (lathe_probe_of_layers(probe->format) ? write_layers : write_heads)(probe, &row, records + at + sizeof row, sink);
        sink->close(sink->context);
        at += row.bytes;
    }
    sink->close(sink->context);
    return LATHE_OK;
}

int payload_write_masses(const struct payload_call *call, const unsigned char *masses, uint64_t bytes,
                         const struct payload_sink *sink, struct lathe_error *err)
{
    const struct lathe_forward_in *in = (const struct lathe_forward_in *)(const void *)call->in;
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    uint64_t keys = 0, count = 0;
    for (uint64_t s = 0; s < in->slices.count; s++)
        if (slices[s].flags & LATHE_SLICE_KEY_MASS) {
            keys += payload_slice_keys(in, &slices[s]);
            count++;
        }
    uint64_t sets = keys ? bytes / sizeof(float) / keys : 0;
    if (bytes != sets * keys * sizeof(float))
        return lathe_fail(err, LATHE_EINTERNAL, "model.forward: %llu bytes of masses are of no whole number of sets of %llu keys",
                          (unsigned long long)bytes, (unsigned long long)keys);
    sink->list(sink->context, count);
    for (uint64_t s = 0; s < in->slices.count; s++) {
        if (!(slices[s].flags & LATHE_SLICE_KEY_MASS))
            continue;
        uint64_t own = payload_slice_keys(in, &slices[s]);
        sink->table(sink->context);
        put_natural(sink, "request", slices[s].request);
        put_natural(sink, "keys", own);
        sink->name(sink->context, "masses");
        sink->list(sink->context, sets);
        for (uint64_t set = 0; set < sets; set++, masses += own * sizeof(float))
            put_floats(sink, NULL, masses, own);
        sink->close(sink->context);
        sink->close(sink->context);
    }
    sink->close(sink->context);
    return LATHE_OK;
}

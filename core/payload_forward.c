/* SPDX-License-Identifier: MIT */
/* What model.forward needs beyond its description: which rows give outputs when nothing is
 * said, how wide a probed state is, and how large the reply's regions are. */
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

/* The host says how wide a state of format hidden is. */
int payload_finish_probe(struct payload_parts *parts, void *element, struct lathe_error *err)
{
    (void)err;
    ((struct lathe_probe *)element)->width = parts->model ? parts->model->embedding_width : 0;
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

uint64_t payload_slice_keys(const struct lathe_forward_in *in, const struct lathe_slice *slice)
{
    return keys_before(in, slice) + slice->token_count;
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
    uint64_t logits = 0, hidden = 0, attention = 0, keys = 0;
    if (!model)
        return lathe_fail(err, LATHE_ESTATE, "model.forward: nothing is known of the model: describe it first");
    int rc = payload_find("model", "forward", &what, err);
    if (rc != LATHE_OK)
        return rc;
    for (uint64_t s = 0; s < in->slices.count && attention <= PAYLOAD_MAX_BYTES; s++) {
        logits += slices[s].flags & LATHE_SLICE_LOGITS ? slices[s].output_count : 0;
        hidden += slices[s].flags & LATHE_SLICE_HIDDEN ? slices[s].output_count : 0;
        attention += attention_bytes(in, &slices[s]);
        keys += slices[s].flags & LATHE_SLICE_KEY_MASS ? payload_slice_keys(in, &slices[s]) : 0;
    }
    /* Counts are 31 bits and widths 32: no product wraps. */
    rooms[payload_member(what->out, "logits")] =
        (struct payload_room){ logits * model->vocab_tokens * sizeof(float), model->vocab_tokens };
    rooms[payload_member(what->out, "hidden")] =
        (struct payload_room){ hidden * model->embedding_width * sizeof(float), model->embedding_width };
    rooms[payload_member(what->out, "attention")] = (struct payload_room){ attention, 0 };
    uint64_t sets = (uint64_t)model->layers * model->kv_heads; /* of the finest scope */
    if (keys && sets > PAYLOAD_MAX_BYTES / sizeof(float) / keys)
        return lathe_fail(err, LATHE_ERANGE, "model.forward: masses of %llu keys are more than a call by hand takes: ask for "
                          "less at once", (unsigned long long)keys);
    rooms[payload_member(what->out, "masses")] = (struct payload_room){ keys * sets * sizeof(float), 0 };
    return LATHE_OK;
}

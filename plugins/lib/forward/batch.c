/* SPDX-License-Identifier: MIT */
/* Checking a forward message: see batch.h. One pass over the slices, in the order of the
 * fields, each refusal one sentence that names slice and request. */
#include <inttypes.h>
#include <string.h>

#include <forward/batch.h>
#include <forward/edit.h>
#include <forward/kept.h>

static int check_spans(const struct lathe_forward_in *in, struct lathe_error *err)
{
    const struct {
        const char *name;
        struct lathe_span span;
        size_t bytes, align;
    } spans[] = {
        { "kv_ops", in->kv_ops, sizeof(struct lathe_kv_op), _Alignof(struct lathe_kv_op) },
        { "slices", in->slices, sizeof(struct lathe_slice), _Alignof(struct lathe_slice) },
        { "tokens", in->tokens, 4, 4 },
        { "blocks", in->blocks, 4, 4 },
        { "outputs", in->outputs, 4, 4 },
        { "kept", in->kept, 4, 4 },
        { "probes", in->probes, sizeof(struct lathe_probe), _Alignof(struct lathe_probe) },
        { "interventions", in->interventions, sizeof(struct lathe_intervention), _Alignof(struct lathe_intervention) },
        { "intervention_floats", in->intervention_floats, 4, 4 },
        { "intervention_keys", in->intervention_keys, 4, 4 },
    };
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++)
        if (!lathe_span_check(&in->head, spans[i].span, spans[i].bytes, spans[i].align))
            return lathe_fail(err, LATHE_EINVAL,
                              "forward: span %s (offset %" PRIu64 ", %" PRIu64 " elements) does not lie in its "
                              "message of %" PRIu64 " bytes",
                              spans[i].name, spans[i].span.offset, spans[i].span.count, in->head.bytes);
    return 0;
}

/* An empty span's offset means nothing and isn't looked at; nor is an empty region's. */
static const void *elements(const struct lathe_forward_in *in, struct lathe_span span)
{
    return span.count ? LATHE_SPAN(const void, in, span) : NULL;
}

static void *region(struct lathe_forward_out *out, struct lathe_region region)
{
    return region.bytes ? (void *)((uintptr_t)out + (uintptr_t)region.offset) : NULL;
}

static int inside(uint32_t first, uint32_t count, uint64_t total)
{
    return (uint64_t)first + count <= total;
}

static int check_probe(const struct forward_limits *limits, const struct lathe_probe *p, struct lathe_error *err)
{
    if (p->format < LATHE_PROBE_SUMMARY || p->format >= LATHE_PROBE_FORMATS || p->every == 0 || p->first_position < 0)
        return lathe_fail(err, LATHE_EINVAL, "forward: probe %u has format %u, every %u, first position %d; formats are "
                          "1 to %d, the others at least 1 and 0", p->id, p->format, p->every, p->first_position,
                          LATHE_PROBE_FORMATS - 1);
    if (!(limits->probe_formats >> p->format & 1))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "forward: probe %u has format %u, which this model doesn't offer",
                          p->id, p->format);
    if (p->format == LATHE_PROBE_HIDDEN && p->width != limits->embedding_width)
        return lathe_fail(err, LATHE_EINVAL, "forward: probe %u says that hidden states have %u elements; they have %u",
                          p->id, p->width, limits->embedding_width);
    if ((p->format == LATHE_PROBE_TOP || p->format == LATHE_PROBE_LENS) && (p->top_k == 0 || p->top_k > 1024))
        return lathe_fail(err, LATHE_EINVAL, "forward: probe %u asks for the top %u; 1 to 1024 can be had", p->id,
                          p->top_k);
    if (limits->layers > LATHE_PROBE_MAX_LAYERS || limits->heads > LATHE_PROBE_MAX_HEADS)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "forward: a probe names at most %d layers and %d heads; the model has %u "
                          "and %u", LATHE_PROBE_MAX_LAYERS, LATHE_PROBE_MAX_HEADS, limits->layers, limits->heads);
    uint32_t layer = forward_beyond(p->layers, limits->layers), head = forward_beyond(p->heads, limits->heads);
    if (layer < 256 || head < 256)
        return lathe_fail(err, LATHE_EINVAL, "forward: probe %u names layer or head %u; the model has %u layers of "
                          "%u heads", p->id, layer < 256 ? layer : head, limits->layers, limits->heads);
    return 0;
}

int forward_block_check(const struct forward_limits *limits, const struct forward_batch *b, uint32_t s, int32_t position,
                        struct lathe_error *err)
{
    const struct lathe_slice *slice = &b->slices[s];
    uint32_t at = (uint32_t)position / limits->params.block_tokens;
    if (at >= slice->block_count)
        return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") has %u blocks of %u tokens, too few "
                          "for position %d", s, slice->request, slice->block_count, limits->params.block_tokens, position);
    int32_t block = b->blocks[slice->block_first + at];
    if (block < 0 || (uint32_t)block >= limits->params.blocks)
        return lathe_fail(err, LATHE_ERANGE, "forward: slice %u (request %" PRIu64 ") names block %d; the pool has %u", s,
                          slice->request, block, limits->params.blocks);
    return 0;
}

/* Positions and the blocks that hold them. */
static int check_positions(const struct forward_limits *limits, const struct lathe_forward_in *in,
                           struct forward_batch *b, uint32_t s, struct lathe_error *err)
{
    const struct lathe_slice *slice = &b->slices[s];
    uint32_t step = limits->params.block_tokens;
    int status;
    if (slice->first_position < 0 ||
        (uint64_t)(uint32_t)slice->first_position + slice->token_count > limits->params.context_tokens)
        return lathe_fail(err, LATHE_ERANGE, "forward: slice %u (request %" PRIu64 ") has %u tokens from position %d; the "
                          "context holds %u", s, slice->request, slice->token_count, slice->first_position,
                          limits->params.context_tokens);
    if (!inside(slice->block_first, slice->block_count, in->blocks.count))
        return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") has a block table outside its "
                          "message", s, slice->request);
    int32_t last = slice->first_position + (int32_t)slice->token_count - 1;
    int32_t from = slice->kept_count ? slice->first_position : 0;
    for (int64_t p = from; p <= last; p = (p / step + 1) * step)
        if ((status = forward_block_check(limits, b, s, (int32_t)p, err)))
            return status;
    return forward_kept_check(limits, in, b, s, err);
}

static int check_slice(const struct forward_limits *limits, const struct lathe_forward_in *in, struct forward_batch *b,
                       uint32_t s, struct lathe_error *err)
{
    const struct lathe_slice *slice = &b->slices[s];
    int status;
    if (slice->token_count == 0 || !inside(slice->token_first, slice->token_count, in->tokens.count))
        return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") has %u tokens from number %u of "
                          "%" PRIu64, s, slice->request, slice->token_count, slice->token_first, in->tokens.count);
    if (slice->token_count > limits->params.batch_tokens - b->row_count)
        return lathe_fail(err, LATHE_ERANGE, "forward: more than the %u rows that the context was made for",
                          limits->params.batch_tokens);
    for (uint32_t i = 0; i < slice->token_count; i++) {
        int32_t token = b->tokens[slice->token_first + i];
        if (token < 0 || (uint32_t)token >= limits->vocab_tokens)
            return lathe_fail(err, LATHE_ERANGE, "forward: request %" PRIu64 " has token %d; the vocabulary has %u",
                              slice->request, token, limits->vocab_tokens);
    }
    if (slice->adapter >= 0)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "forward: request %" PRIu64 " asks for adapter %d; this model takes "
                          "none", slice->request, slice->adapter);
    if (!inside(slice->output_first, slice->output_count, in->outputs.count))
        return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") has outputs outside its message", s,
                          slice->request);
    for (uint32_t k = 0; k < slice->output_count; k++) {
        uint32_t row = b->outputs[slice->output_first + k];
        if (row >= slice->token_count || (k && row <= b->outputs[slice->output_first + k - 1]))
            return lathe_fail(err, LATHE_EINVAL, "forward: slice %u (request %" PRIu64 ") wants output row %u of %u; rows "
                              "ascend", s, slice->request, row, slice->token_count);
    }
    if (slice->flags & LATHE_SLICE_PADDING) {
        if (slice->output_count)
            return lathe_fail(err, LATHE_EINVAL, "forward: slice %u is padding and wants outputs; padding has none", s);
        b->slice_kept[s] = 0;
        return 0;
    }
    if ((status = check_positions(limits, in, b, s, err)))
        return status;
    uint32_t probes = forward_probe_count(slice);
    if (probes > LATHE_MAX_PROBES || (probes && !inside(slice->probe, probes, in->probes.count)))
        return lathe_fail(err, LATHE_EINVAL, "forward: request %" PRIu64 " names probes %u to %" PRIu64 " of %" PRIu64 "; at most "
                          "%d a slice", slice->request, slice->probe, (uint64_t)slice->probe + probes - 1, in->probes.count,
                          LATHE_MAX_PROBES);
    for (uint32_t i = 0; i < probes && !status; i++)
        status = check_probe(limits, &b->probes[slice->probe + i], err);
    if (!status && slice->interventions)
        status = forward_edits_check_slice(b, slice, err);
    return status;
}

/* Numbers the slice's rows; *attention runs through the region. */
static void number_rows(struct forward_batch *b, uint32_t s, uint64_t room, uint64_t *attention)
{
    const struct lathe_slice *slice = &b->slices[s];
    int padding = (slice->flags & LATHE_SLICE_PADDING) != 0;
    uint32_t probes = forward_probe_count(slice);
    uint32_t before = slice->kept_count ? b->slice_kept[s] : (uint32_t)slice->first_position;
    b->slice_rows[s] = b->row_count;
    for (uint32_t i = 0; i < slice->token_count; i++) {
        struct forward_row *row = &b->rows[b->row_count++];
        row->slice = s;
        row->token = (uint32_t)b->tokens[slice->token_first + i];
        row->position = padding ? 0 : slice->first_position + (int32_t)i;
        row->keys = padding ? 1 : before + i + 1;
        row->record = FORWARD_NO_RECORD;
        row->probes = row->layer_probes = 0;
        row->edits = slice->interventions ? forward_edits_at(b, slice, row->position) : 0;
        b->edits |= row->edits;
        for (uint32_t k = 0; k < probes; k++) {
            const struct lathe_probe *probe = &b->probes[slice->probe + k];
            if (!lathe_probe_wants(probe, row->position))
                continue;
            uint64_t bytes = lathe_attention_row_bytes(probe, row->keys);
            if (bytes <= room && *attention <= room - bytes && bytes <= UINT32_MAX) {
                if (!row->probes)
                    row->record = 1 + *attention;
                row->probes |= (uint32_t)1 << k;
                if (lathe_probe_of_layers(probe->format))
                    row->layer_probes |= (uint32_t)1 << k;
                memset(b->attention + *attention + bytes - 16, 0, 16); /* what heads leave of the last 16 */
                *(struct lathe_attention_row *)(void *)(b->attention + *attention) = (struct lathe_attention_row){
                    .request = slice->request, .position = row->position, .keys = row->keys, .probe = probe->id,
                    .bytes = (uint32_t)bytes,
                };
                b->probed_rows++;
            }
            *attention += bytes;
        }
        b->layer_probed += row->layer_probes != 0;
    }
}

static int check_region(const char *what, struct lathe_region region, uint64_t rows, uint64_t width,
                        struct lathe_error *err)
{
    uint64_t bytes;
    if (rows == 0)
        return 0;
    if (__builtin_mul_overflow(rows, width * sizeof(float), &bytes) || region.bytes < bytes)
        return lathe_fail(err, LATHE_EFULL, "forward: %" PRIu64 " rows of %s need %" PRIu64 " bytes; the reply has room "
                          "for %" PRIu64, rows, what, rows * width * sizeof(float), region.bytes);
    if (region.offset % 4)
        return lathe_fail(err, LATHE_EINVAL, "forward: the room for %s is not aligned", what);
    return 0;
}

int forward_reply_check(const struct lathe_message *reply, size_t bytes, const char *method, struct lathe_error *err)
{
    if (reply->capacity < bytes)
        return lathe_fail(err, LATHE_EFULL, "%s: the reply has room for %" PRIu64 " bytes; %zu are needed", method,
                          reply->capacity, bytes);
    return 0;
}

int forward_batch_check(const struct forward_limits *limits, const struct lathe_forward_in *in,
                        struct lathe_forward_out *out, struct forward_batch *b, struct lathe_error *err)
{
    int status;
    if ((status = forward_reply_check(&out->head, sizeof *out, "forward", err)))
        return status;
    out->logits_rows = out->hidden_rows = out->attention_bytes = out->mass_bytes = 0;
    if (in->head.bytes < sizeof *in || in->head.bytes > in->head.capacity)
        return lathe_fail(err, LATHE_EINVAL, "forward: the message says it has %" PRIu64 " bytes of %" PRIu64 "; its fixed "
                          "fields alone are %zu", in->head.bytes, in->head.capacity, sizeof *in);
    if ((status = check_spans(in, err)))
        return status;
    if (in->slices.count > limits->params.batch_slices)
        return lathe_fail(err, LATHE_ERANGE, "forward: %" PRIu64 " slices; the context was made for %u", in->slices.count,
                          limits->params.batch_slices);
    b->ops = elements(in, in->kv_ops);
    b->slices = elements(in, in->slices);
    b->tokens = elements(in, in->tokens);
    b->blocks = elements(in, in->blocks);
    b->kept = elements(in, in->kept);
    b->outputs = elements(in, in->outputs);
    b->probes = elements(in, in->probes);
    b->interventions = elements(in, in->interventions);
    b->intervention_floats = elements(in, in->intervention_floats);
    b->intervention_keys = elements(in, in->intervention_keys);
    b->intervention_count = in->interventions.count;
    b->limits = limits;
    b->op_count = in->kv_ops.count;
    b->slice_count = (uint32_t)in->slices.count;
    b->row_count = b->probed_rows = b->layer_probed = 0;
    b->edits = 0;
    if (b->intervention_count && (status = forward_edits_check(in, b, err)))
        return status;
    int32_t scope = limits->params.kv_scope;
    b->layer_sets = scope == LATHE_KV_REQUEST ? 0 : lathe_kv_sets(scope, 1, limits->kv_heads);
    b->head_sets = scope == LATHE_KV_HEAD;
    b->logits = region(out, out->logits);
    b->hidden = region(out, out->hidden);
    b->attention = region(out, out->attention);
    b->masses = region(out, out->masses);
    b->mass_count = 0;

    uint64_t attention = 0, logits_rows = 0, hidden_rows = 0, outputs = 0;
    uint64_t room = ((uintptr_t)b->attention & 7) ? 0 : out->attention.bytes;
    for (uint32_t s = 0; s < b->slice_count; s++) {
        const struct lathe_slice *slice = &b->slices[s];
        if ((status = check_slice(limits, in, b, s, err)))
            return status;
        number_rows(b, s, room, &attention);
        if ((status = forward_mass_place(limits, b, s, err)))
            return status;
        logits_rows += slice->flags & LATHE_SLICE_LOGITS ? slice->output_count : 0;
        hidden_rows += slice->flags & LATHE_SLICE_HIDDEN ? slice->output_count : 0;
        outputs += slice->output_count;
    }
    if (outputs > limits->params.output_rows)
        return lathe_fail(err, LATHE_ERANGE, "forward: %" PRIu64 " output rows; the context was made for %u", outputs,
                          limits->params.output_rows);
    out->logits_rows = logits_rows;
    out->hidden_rows = hidden_rows;
    out->attention_bytes = attention;
    out->mass_bytes = b->mass_count * sizeof(float);
    if ((status = check_region("logits", out->logits, logits_rows, limits->vocab_tokens, err)) ||
        (status = check_region("hidden states", out->hidden, hidden_rows, limits->embedding_width, err)))
        return status;
    if (attention > room)
        return lathe_fail(err, LATHE_EFULL, "forward: attention records need %" PRIu64 " bytes; the reply has room for "
                          "%" PRIu64 " (8-byte aligned): probe fewer rows or prefill in smaller chunks", attention, room);
    return forward_mass_check(b, out, err);
}

int forward_params_check(const struct lathe_context_params *p, struct lathe_error *err)
{
    if (p->size < sizeof *p)
        return lathe_fail(err, LATHE_EABI, "context_create: parameters of %u bytes, %zu expected", p->size, sizeof *p);
    if (!p->block_tokens || !p->blocks || !p->batch_tokens || !p->batch_slices || !p->context_tokens || !p->output_rows)
        return lathe_fail(err, LATHE_EINVAL, "context_create: block_tokens %u, blocks %u, batch_tokens %u, batch_slices %u, "
                          "context_tokens %u and output_rows %u must all be at least 1", p->block_tokens, p->blocks,
                          p->batch_tokens, p->batch_slices, p->context_tokens, p->output_rows);
    if (p->context_tokens > INT32_MAX || p->blocks > INT32_MAX || p->block_tokens > INT32_MAX)
        return lathe_fail(err, LATHE_ERANGE, "context_create: positions and blocks are counted in 31 bits");
    if (p->kv_scope < LATHE_KV_REQUEST || p->kv_scope > LATHE_KV_HEAD || p->kv_flags & ~(uint32_t)LATHE_KV_KEYS_UNROTATED)
        return lathe_fail(err, LATHE_EINVAL, "context_create: kv_scope %d and kv_flags %u; scopes are 0 to %d, the only flag "
                          "is %d", p->kv_scope, p->kv_flags, LATHE_KV_HEAD, LATHE_KV_KEYS_UNROTATED);
    return 0;
}

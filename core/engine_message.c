/* SPDX-License-Identifier: MIT */
/* A plan into flat messages, and a message's results back. The messages are loaned from the
 * bus when the engine opens and filled anew each step; large outputs (logits, attention) are
 * regions that the next reader reads where they lie. */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

static const struct lathe_probe *probe_of(const struct engine *e, const struct live *live)
{
    return live && live->probe && !e->degraded ? &e->probes[live->probe - 1] : NULL;
}

/* Bytes of the attention records of rows first … first + tokens − 1. */
static size_t probed_bytes(const struct lathe_probe *probe, uint32_t first, uint32_t tokens)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < tokens; i++)
        if (lathe_probe_wants(probe, (int32_t)(first + i)))
            bytes += lathe_attention_row_bytes(probe, first + i + 1);
    return bytes;
}

/* How many of the rows fit into `room` bytes. */
static uint32_t rows_that_fit(const struct lathe_probe *probe, uint32_t first, uint32_t tokens, size_t room)
{
    for (uint32_t i = 0; i < tokens; i++) {
        if (!lathe_probe_wants(probe, (int32_t)(first + i)))
            continue;
        size_t bytes = lathe_attention_row_bytes(probe, first + i + 1);
        if (bytes > room)
            return i;
        room -= bytes;
    }
    return tokens;
}

static void refuse_probe(struct engine *e, struct live *live, size_t bytes, size_t room)
{
    struct record_event event = { .time_ns = e->row.start_ns, .correlation_id = (int64_t)live->req.correlation };
    memcpy(event.level, "warn", 5);
    snprintf(event.message, sizeof event.message,
             "request %" PRIu64 ": one token's attention takes %zu bytes, the recorder's bulk ring holds %zu; its probe was "
             "switched off: probe fewer layers or heads, or give the recorder a larger ring",
             live->req.id, bytes, room);
    record_event(e->producer, &event);
    live->probe = 0;
}

/* A long prefill under a `full` probe can be larger than the ring: it is then cut, and
 * goes on in the next step. */
void message_fit_probes(struct engine *e)
{
    size_t room = e->probes && e->producer ? record_attention_capacity(e->producer) : 0, left = room;
    uint32_t kept = 0;

    e->attention_room = 0;
    for (uint32_t i = 0; i < e->plan.count; i++) {
        struct lathe_plan_entry *planned = &e->plan.entries[i];
        struct live *live = planned->request ? live_of(e, planned->request) : NULL;
        const struct lathe_probe *probe = probe_of(e, live);
        if (probe && e->producer) {
            uint32_t first = live->req.computed_tokens;
            uint32_t fit = rows_that_fit(probe, first, planned->tokens, left);
            if (fit == 0 && left == room) {
                refuse_probe(e, live, lathe_attention_row_bytes(probe, first + 1), room);
            } else if (fit == 0) {
                live->planned = 0; /* the ring is full for this step: its turn is the next */
                continue;
            } else {
                planned->tokens = fit;
                size_t bytes = probed_bytes(probe, first, fit);
                left -= bytes;
                e->attention_room += bytes;
            }
        }
        e->plan.entries[kept++] = *planned;
    }
    e->plan.count = kept;
}

static int full(struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EINTERNAL, "a step is larger than the message that was sized for it");
}

/* For a model that looks at lengths alone: no tokens, no block tables, and it picks. */
static int build_by_length(struct engine *e, struct lathe_error *err)
{
    struct lathe_forward_in *in = e->forward_in;
    struct lathe_forward_out *out = e->forward_out;
    uint32_t slices = 0;

    in->head.bytes = sizeof *in;
    in->step = in->head.correlation = e->numbers->step + 1;
    in->head.flags = 0;
    in->tokens = in->blocks = in->outputs = in->kept = in->probes = (struct lathe_span){ 0 };
    struct lathe_kv_op *op = lathe_message_add(&in->head, &in->kv_ops, e->ops.count, sizeof *op);
    struct lathe_slice *slice = lathe_message_add(&in->head, &in->slices, 2 * (uint64_t)e->entry_count, sizeof *slice);
    if (!op || !slice)
        return full(err);
    memcpy(op, e->ops.ops, e->ops.count * sizeof *op);
    for (uint32_t i = 0; i < e->entry_count; i++) {
        struct step_entry *entry = &e->entries[i];
        if (entry->live) {
            entry->samples = entry->tokens == lathe_request_pending(&entry->live->req);
            entry->probed = false;
            slice[slices++] = (struct lathe_slice){ .request = entry->live->req.id,
                                                    .flags = entry->samples ? LATHE_SLICE_LOGITS : 0,
                                                    .first_position = (int32_t)entry->first,
                                                    .token_count = entry->tokens, .output_count = entry->samples,
                                                    .probe = LATHE_NO_PROBE, .adapter = -1 };
        }
        if (entry->padding)
            slice[slices++] = (struct lathe_slice){ .flags = LATHE_SLICE_PADDING, .token_count = entry->padding,
                                                    .probe = LATHE_NO_PROBE, .adapter = -1 };
    }
    in->slices.count = slices;
    e->ops.count = 0; /* handed over */
    out->head.bytes = sizeof *out;
    out->logits_rows = out->hidden_rows = out->attention_bytes = 0;
    out->picked = (struct lathe_span){ 0 };
    out->duration_ns = 0;
    return LATHE_OK;
}

int message_build_forward(struct engine *e, struct lathe_error *err)
{
    if (e->by_length)
        return build_by_length(e, err);
    struct lathe_forward_in *in = e->forward_in;
    struct lathe_forward_out *out = e->forward_out;
    uint32_t slices = 0, tokens = 0, blocks = 0, outputs = 0;

    for (uint32_t i = 0; i < e->entry_count; i++) {
        const struct step_entry *entry = &e->entries[i];
        tokens += entry->tokens + entry->padding;
        slices += (entry->live != NULL) + (entry->padding > 0);
        if (entry->live) {
            const int32_t *table;
            uint32_t count;
            e->kv->table(e->kv_self, &entry->live->req, &table, &count);
            blocks += count;
        }
    }

    in->head.bytes = sizeof *in;
    in->step = in->head.correlation = e->numbers->step + 1;
    in->head.flags = 0;
    for (uint32_t i = 0; i < e->ops.count; i++) /* a handle is good once */
        if (e->ops.ops[i].kind != LATHE_KV_COPY)
            in->head.flags = LATHE_MESSAGE_ONCE;
    struct lathe_kv_op *op = lathe_message_add(&in->head, &in->kv_ops, e->ops.count, sizeof *op);
    struct lathe_slice *slice = lathe_message_add(&in->head, &in->slices, slices, sizeof *slice);
    int32_t *token = lathe_message_add(&in->head, &in->tokens, tokens, sizeof *token);
    int32_t *block = lathe_message_add(&in->head, &in->blocks, blocks, sizeof *block);
    uint32_t *output = lathe_message_add(&in->head, &in->outputs, slices, sizeof *output);
    struct lathe_probe *probe =
        lathe_message_add(&in->head, &in->probes, e->params.probe_count, sizeof *probe);
    in->kept = (struct lathe_span){ 0 };
    if (!op || !slice || !token || !block || !output || !probe)
        return full(err);
    memcpy(op, e->ops.ops, e->ops.count * sizeof *op);
    if (e->params.probe_count)
        memcpy(probe, e->probes, e->params.probe_count * sizeof *probe);

    uint32_t token_at = 0, block_at = 0;
    for (uint32_t i = 0; i < e->entry_count; i++) {
        struct step_entry *entry = &e->entries[i];
        if (entry->live) {
            struct lathe_request *req = &entry->live->req;
            const int32_t *table;
            uint32_t count;
            e->kv->table(e->kv_self, req, &table, &count);
            entry->samples = entry->tokens == lathe_request_pending(req);
            entry->probed = e->attention_room && probe_of(e, entry->live);
            *slice = (struct lathe_slice){
                .request = req->id,
                .flags = entry->samples ? LATHE_SLICE_LOGITS : 0,
                .first_position = (int32_t)entry->first,
                .token_first = token_at,
                .token_count = entry->tokens,
                .block_first = block_at,
                .block_count = count,
                .output_first = outputs,
                .output_count = entry->samples,
                .probe = entry->probed ? (uint32_t)entry->live->probe - 1 : LATHE_NO_PROBE,
                .adapter = -1,
            };
            if (entry->samples)
                output[outputs++] = entry->tokens - 1;
            memcpy(token + token_at, req->tokens + entry->first, entry->tokens * sizeof *token);
            memcpy(block + block_at, table, count * sizeof *block);
            token_at += entry->tokens;
            block_at += count;
            slice++;
        }
        if (entry->padding) {
            *slice++ = (struct lathe_slice){ .flags = LATHE_SLICE_PADDING, .token_first = token_at,
                                             .token_count = entry->padding, .probe = LATHE_NO_PROBE, .adapter = -1 };
            memset(token + token_at, 0, entry->padding * sizeof *token);
            token_at += entry->padding;
        }
    }
    in->outputs.count = outputs;
    e->ops.count = 0; /* handed over */

    out->head.bytes = sizeof *out;
    out->logits_rows = out->hidden_rows = out->attention_bytes = 0;
    out->picked = (struct lathe_span){ 0 };
    out->duration_ns = 0;
    e->attention = e->attention_room ? record_attention_reserve(e->producer, e->attention_room) : NULL;
    if (e->attention) {
        char *room = e->attention_loan ? (char *)(e->attention_loan + 1) : e->attention;
        out->attention.offset = room - (char *)out;
        out->attention.bytes = e->attention_room;
    } else {
        out->attention = (struct lathe_region){ 0 };
        for (uint32_t i = 0; i < in->slices.count; i++) /* dropped (and counted): don't compute it */
            LATHE_SPAN(struct lathe_slice, in, in->slices)[i].probe = LATHE_NO_PROBE;
    }
    return LATHE_OK;
}

void message_commit_attention(struct engine *e, bool keep)
{
    const struct lathe_forward_out *out = e->forward_out;
    size_t bytes = keep && out->attention_bytes <= e->attention_room ? out->attention_bytes : 0;
    if (bytes && e->attention_loan)
        memcpy(e->attention, e->attention_loan + 1, bytes);
    record_attention_commit(e->producer, bytes, (int64_t)e->step);
}

int message_check_picked(const struct engine *e, struct lathe_error *err)
{
    const struct lathe_forward_out *out = e->forward_out;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < e->entry_count; i++)
        rows += e->entries[i].samples;
    if (rows && (out->picked.count != rows || !lathe_span_check(&out->head, out->picked, sizeof(struct lathe_picked), 4)))
        return lathe_fail(err, LATHE_EINTERNAL, "model/%s picked %" PRIu64 " tokens, %u were asked for",
                          e->params.parts.model->plugin->name, out->picked.count, rows);
    return LATHE_OK;
}

int message_sample(struct engine *e, struct lathe_error *err)
{
    struct lathe_sample_in *in = e->sample_in;
    struct lathe_sample_out *out = e->sample_out;
    uint32_t rows = 0;

    for (uint32_t i = 0; i < e->entry_count; i++)
        rows += e->entries[i].samples;
    if (rows == 0)
        return LATHE_OK;
    if (e->forward_out->logits_rows != rows)
        return lathe_fail(err, LATHE_EINTERNAL, "model/%s gave %" PRIu64 " rows of logits, %u were asked for",
                          e->params.parts.model->plugin->name, e->forward_out->logits_rows, rows);

    in->head.bytes = sizeof *in;
    in->head.correlation = e->step;
    in->vocab_tokens = e->model_info.vocab_tokens;
    struct lathe_sample_row *row = lathe_message_add(&in->head, &in->rows, rows, sizeof *row);
    int32_t *stop = lathe_message_add(&in->head, &in->stops, e->tokenizer_info.stop_count, sizeof *stop);
    if (!row || !stop)
        return full(err);
    memcpy(stop, e->tokenizer_info.stops, e->tokenizer_info.stop_count * sizeof *stop);
    in->logits.offset = (char *)LATHE_REGION(char, e->forward_out, e->forward_out->logits) - (char *)in;
    in->logits.bytes = (uint64_t)rows * in->vocab_tokens * sizeof(float);
    in->history.offset = (char *)e->token_slab - (char *)in;
    in->history.bytes = (uint64_t)e->params.max_requests * e->token_stride * sizeof(int32_t);

    rows = 0;
    for (uint32_t i = 0; i < e->entry_count; i++) {
        const struct live *live = e->entries[i].live;
        if (!e->entries[i].samples)
            continue;
        row[rows] = (struct lathe_sample_row){
            .request = live->req.id,
            .output_index = live->req.output_tokens,
            .logits_row = rows,
            .history_first = live->req.index * e->token_stride,
            .history_count = live->req.prompt_tokens + live->req.output_tokens,
            .prompt_count = live->req.prompt_tokens,
            .banned_count = live->ignore_eos ? e->tokenizer_info.stop_count : 0,
            .sampling = live->sampling,
        };
        rows++;
    }
    out->head.bytes = sizeof *out;
    int status = e->sample->call(e->sample->self, in, out, err);
    if (status == LATHE_OK && (out->sampled.count != rows ||
                               !lathe_span_check(&out->head, out->sampled, sizeof(struct lathe_sampled), 4)))
        return lathe_fail(err, LATHE_EINTERNAL, "sampler/%s chose %" PRIu64 " tokens for %u rows",
                          e->params.parts.sampler->plugin->name, out->sampled.count, rows);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* A plan into flat messages, and a message's results back. The messages are loaned from the
 * bus when the engine opens and filled anew each step; large outputs (logits, attention) are
 * regions that the next reader reads where they lie. */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

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

/* What an entry's rows see of what was before them; how many numbers of kept[] that takes. */
static uint64_t find_kept(const struct engine *e, struct step_entry *entry)
{
    entry->kept = fit_kept(e, entry->live, &entry->positions);
    return entry->positions ? (uint64_t)entry->kept * e->kv_sets : 0;
}

int message_build_forward(struct engine *e, struct lathe_error *err)
{
    if (e->by_length)
        return build_by_length(e, err);
    struct lathe_forward_in *in = e->forward_in;
    struct lathe_forward_out *out = e->forward_out;
    uint32_t slices = 0, tokens = 0, blocks = 0, outputs = 0;
    uint64_t kept = 0;

    for (uint32_t i = 0; i < e->entry_count; i++) {
        struct step_entry *entry = &e->entries[i];
        tokens += entry->tokens + entry->padding;
        slices += (entry->live != NULL) + (entry->padding > 0);
        if (entry->live) {
            const int32_t *table;
            uint32_t count;
            e->kv->table(e->kv_self, &entry->live->req, &table, &count);
            blocks += count;
            kept += find_kept(e, &e->entries[i]);
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
    int32_t *seen = lathe_message_add(&in->head, &in->kept, kept, sizeof *seen);
    if (!op || !slice || !token || !block || !output || !seen)
        return full(err);
    int status = probes_lay_out(e, err);
    if (status != LATHE_OK)
        return status;
    memcpy(op, e->ops.ops, e->ops.count * sizeof *op);

    uint32_t token_at = 0, block_at = 0, kept_at = 0;
    const uint32_t every_slice = (e->geometry.cache_positions ? LATHE_SLICE_CACHE_POSITIONS : 0u) |
                                 (e->geometry.wants_mass ? LATHE_SLICE_KEY_MASS : 0u);
    for (uint32_t i = 0; i < e->entry_count; i++) {
        struct step_entry *entry = &e->entries[i];
        if (entry->live) {
            struct lathe_request *req = &entry->live->req;
            const int32_t *table;
            uint32_t count;
            e->kv->table(e->kv_self, req, &table, &count);
            entry->samples = entry->tokens == lathe_request_pending(req);
            *slice = (struct lathe_slice){
                .request = req->id,
                .flags = (entry->samples ? LATHE_SLICE_LOGITS : 0u) | every_slice,
                .first_position = (int32_t)entry->first,
                .token_first = token_at,
                .token_count = entry->tokens,
                .block_first = block_at,
                .block_count = count,
                .output_first = outputs,
                .output_count = entry->samples,
                .probe = entry->probe,
                .adapter = -1,
                .probe_count = entry->probe_count,
                .interventions = entry->interventions,
            };
            if (entry->positions) {
                size_t numbers = (size_t)entry->kept * e->kv_sets;
                slice->kept_first = kept_at;
                slice->kept_count = entry->kept;
                memcpy(seen + kept_at, entry->positions, numbers * sizeof *seen);
                kept_at += (uint32_t)numbers;
            }
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
    out->mass_bytes = 0;
    out->masses.bytes = e->mass_room * sizeof(float);
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

int message_observe(struct engine *e, struct lathe_error *err)
{
    const struct lathe_forward_out *out = e->forward_out;
    uint64_t wanted = 0;
    if (!e->geometry.wants_mass)
        return LATHE_OK;
    for (uint32_t i = 0; i < e->entry_count; i++)
        if (e->entries[i].live)
            wanted += ((uint64_t)e->entries[i].kept + e->entries[i].tokens) * e->kv_sets * sizeof(float);
    if (out->mass_bytes != wanted)
        return lathe_fail(err, LATHE_EINTERNAL, "model/%s gave %" PRIu64 " bytes of keys' masses, %" PRIu64 " were asked for",
                          e->params.parts.model->plugin->name, out->mass_bytes, wanted);
    const float *mass = LATHE_REGION(const float, out, out->masses);
    for (uint32_t i = 0; i < e->entry_count; i++) {
        const struct step_entry *entry = &e->entries[i];
        if (!entry->live)
            continue;
        e->kv->observe(e->kv_self, &entry->live->req, mass, entry->kept + entry->tokens);
        mass += (size_t)(entry->kept + entry->tokens) * e->kv_sets;
    }
    return LATHE_OK;
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
            .is_forced = live->teacher,
            .forced = live->teacher ? live->tokens[live->req.prompt_tokens + live->req.output_tokens] : 0,
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

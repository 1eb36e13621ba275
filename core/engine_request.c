/* SPDX-License-Identifier: MIT */
/* A request's life once it is in: tokens out through its queue, and its end. How it came in stands in
 * engine_submit.c, its rows in engine_rows.c. */
#include "engine_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = { "", "waiting", "running", "preempted", "swapped", "finished" };

struct live *engine_find(const struct engine *e, uint64_t id)
{
    if (id == 0)
        return NULL;
    for (uint32_t i = 0; i < e->params.max_requests; i++) {
        struct live *live = &e->slots[(id + i) % e->params.max_requests];
        if (atomic_load_explicit(&live->id, memory_order_acquire) == id)
            return live;
    }
    return NULL;
}

/* ── The output queue: engine's thread writes, one reader reads ─────────────────────── */

static uint32_t queued(const struct live *live)
{
    return atomic_load_explicit(&live->queue.written, memory_order_relaxed) -
           atomic_load_explicit(&live->queue.read, memory_order_acquire);
}

/* A step may add queue_spare pieces at most: a token's text in parts, and a last word. */
bool request_reader_is_behind(const struct engine *e, const struct live *live)
{
    return queued(live) + e->queue_spare > e->queue_pieces;
}

static struct lathe_output *queue_slot(struct live *live)
{
    uint32_t written = atomic_load_explicit(&live->queue.written, memory_order_relaxed);
    return &live->queue.pieces[written & live->queue.mask];
}

static void queue_push(struct live *live)
{
    atomic_fetch_add_explicit(&live->queue.written, 1, memory_order_release); /* pairs with engine_read's acquire */
}

int engine_read(struct engine *e, uint64_t id, struct lathe_output *output, struct lathe_error *err)
{
    struct live *live = engine_find(e, id);
    if (!live)
        return lathe_fail(err, LATHE_ENOTFOUND, "there is no request %" PRIu64 " (or its last piece was read)", id);
    uint32_t read = atomic_load_explicit(&live->queue.read, memory_order_relaxed);
    if (read == atomic_load_explicit(&live->queue.written, memory_order_acquire))
        return lathe_fail(err, LATHE_EBUSY, "request %" PRIu64 " has no output yet", id);
    *output = live->queue.pieces[read & live->queue.mask];
    atomic_store_explicit(&live->queue.read, read + 1, memory_order_release);
    if (output->finish_reason != LATHE_FINISH_NONE)
        atomic_store_explicit(&live->id, 0, memory_order_release); /* the slot is free */
    return LATHE_OK;
}

/* ── States ─────────────────────────────────────────────────────────────────────────── */

void request_enter(struct engine *e, struct live *live, int32_t state, const char *cause, int64_t now_ns)
{
    e->running_count += state == LATHE_REQUEST_RUNNING;
    e->running_count -= live->req.state == LATHE_REQUEST_RUNNING;
    if (e->producer && now_ns > live->span_from_ns && e->params.rows <= ENGINE_ROWS_STEPS) {
        struct record_request_span span = { .request_id = (int64_t)live->req.id,
                                            .from_ns = live->span_from_ns,
                                            .to_ns = now_ns };
        copy_name(span.state, sizeof span.state, state_names[live->req.state]);
        copy_name(span.cause, sizeof span.cause, live->span_cause);
        record_request_span(e->producer, &span);
    }
    live->req.state = state;
    live->span_from_ns = now_ns;
    live->span_cause = cause;
}

/* ── Out ────────────────────────────────────────────────────────────────────────────── */

/* The token's text in pieces that fit; the first goes with the token. Without room for it
 * all (a decoder that failed) the text is cut, never the token. */
static void push_pieces(struct live *live, int32_t token, float logprob, int64_t now_ns, int finish, const char *text,
                        size_t bytes)
{
    do {
        struct lathe_output *piece = queue_slot(live);
        size_t part = bytes;
        if (part > sizeof piece->text) {
            part = sizeof piece->text;
            while (part > 1 && ((unsigned char)text[part] & 0xC0) == 0x80) /* between characters */
                part--;
        }
        piece->token = token;
        piece->logprob = logprob;
        piece->time_ns = now_ns;
        piece->text_bytes = (uint32_t)part;
        memcpy(piece->text, text, part);
        text += part;
        bytes -= part;
        piece->finish_reason = bytes ? LATHE_FINISH_NONE : finish;
        queue_push(live);
        token = -1;
    } while (bytes);
}

/* Text of the newest `count` tokens (and, at the end, whatever was held back). A tokenizer that
 * can't be reached now owes it: the next call brings those tokens again, as many as fit. */
static void decode_token(struct engine *e, struct live *live, uint32_t count, int flush, const char **text, size_t *bytes)
{
    struct lathe_error ignored;
    struct lathe_decode_in *in = e->decode_in;
    struct lathe_decode_out *out = e->decode_out;

    *text = "";
    *bytes = 0;
    if (!live->want_text)
        return;
    count += live->undecoded;
    count = count < e->queue_spare ? count : e->queue_spare;
    in->head.bytes = sizeof *in;
    in->head.correlation = live->req.correlation;
    in->flags = flush ? LATHE_DECODE_FLUSH : 0;
    in->state = live->decode;
    int32_t *room = lathe_message_add(&in->head, &in->tokens, count, sizeof *room);
    if (count)
        memcpy(room, live->tokens + live->req.prompt_tokens + live->req.output_tokens - count, count * sizeof *room);
    out->head.bytes = sizeof *out;
    if (e->decode->call(e->decode->self, in, out, &ignored) != LATHE_OK) {
        live->undecoded = count;
        return;
    }
    live->undecoded = 0;
    if (!lathe_span_check(&out->head, out->text, 1, 1))
        return;
    live->decode = out->state;
    *text = LATHE_SPAN(const char, out, out->text);
    *bytes = out->text.count;
    if (*bytes > (size_t)(e->queue_spare - 1) * sizeof(((struct lathe_output *)0)->text))
        *bytes = (size_t)(e->queue_spare - 1) * sizeof(((struct lathe_output *)0)->text);
}

/* Whoever wants to know is told; without a reader its slot is free again. */
static void tell_end(struct engine *e, struct live *live, int64_t now_ns)
{
    struct engine_ended ended = { .id = live->req.id, .tag = live->tag, .replica = e->params.replica,
                                  .finish_reason = live->finish_reason, .error = live->error, .request = &live->req,
                                  .finish_ns = now_ns };
    if (e->params.ended)
        e->params.ended(e->params.user, &ended);
    if (!live->unread)
        return;
    atomic_store_explicit(&live->id, 0, memory_order_release);
    e->free_slots[e->free_count++] = live->req.index;
}

static void leave(struct engine *e, struct live *live, int reason, int64_t now_ns)
{
    if (live->in_kv)
        e->kv->release(e->kv_self, &live->req);
    live->in_kv = false;
    live->finish_reason = reason;
    request_enter(e, live, LATHE_REQUEST_FINISHED, request_finish_names[reason], now_ns);
    e->scheduler->retire(e->scheduler_self, &live->req);
    if (e->batching->retire)
        e->batching->retire(e->batching_self, &live->req);
    e->pending_tokens -= lathe_request_pending(&live->req);
    e->live[live->live_at] = e->live[--e->live_count];
    live_of(e, e->live[live->live_at])->live_at = live->live_at;
    e->stats.finished++;
    e->stats.failed += reason == LATHE_FINISH_ERROR;
    request_record(e, live, now_ns);
    if (live->teacher && !e->by_length)
        request_record_likelihood(e, live);
    tell_end(e, live, now_ns);
}

void request_finish(struct engine *e, struct live *live, int reason, const char *error, int64_t now_ns)
{
    const char *text;
    size_t bytes;

    copy_name(live->error, sizeof live->error, error);
    if (*error && e->producer) {
        struct record_event event = { .time_ns = now_ns, .correlation_id = (int64_t)live->req.correlation };
        copy_name(event.level, sizeof event.level, reason == LATHE_FINISH_ERROR ? "error" : "warn");
        snprintf(event.message, sizeof event.message, "request %" PRIu64 ": %s", live->req.id, error);
        record_event(e->producer, &event);
    }
    bool unread = live->unread; /* afterwards its slot is free */
    decode_token(e, live, 0, 1, &text, &bytes);
    leave(e, live, reason, now_ns);
    if (!unread)
        push_pieces(live, -1, NAN, now_ns, reason, text, bytes);
}

static bool is_stop(const struct engine *e, const struct live *live, int32_t token)
{
    for (uint32_t i = 0; i < live->stop_id_count; i++)
        if (live->stop_ids[i] == token)
            return true;
    if (live->ignore_eos)
        return false;
    for (uint32_t i = 0; i < e->tokenizer_info.stop_count; i++)
        if (e->tokenizer_info.stops[i] == token)
            return true;
    return false;
}

void request_token(struct engine *e, struct live *live, struct lathe_sampled sampled, int64_t now_ns)
{
    struct lathe_request *r = &live->req;
    int reason = LATHE_FINISH_NONE;
    const char *text;
    size_t bytes;

    if (live->teacher && e->by_length) {
        sampled.token = live->tokens[r->prompt_tokens + r->output_tokens];
    } else if (live->teacher) {
        int32_t given = live->tokens[r->prompt_tokens + r->output_tokens];
        if (sampled.token != given) {
            char why[ERROR_BYTES];
            snprintf(why, sizeof why, "sampler/%s chose token %d although token %d was given: use one that takes given tokens",
                     e->params.parts.sampler->plugin->name, sampled.token, given);
            request_finish(e, live, LATHE_FINISH_ERROR, why, now_ns);
            return;
        }
        live->nll -= (double)sampled.logprob;
    } else if (r->tokens) {
        live->tokens[r->prompt_tokens + r->output_tokens] = sampled.token;
    }
    r->output_tokens++;
    e->pending_tokens++;
    e->stats.output_tokens++;
    if (r->first_token_ns < 0)
        r->first_token_ns = now_ns;
    if (live->forced)
        reason = r->output_tokens >= live->forced ? LATHE_FINISH_LENGTH : LATHE_FINISH_NONE;
    else if (is_stop(e, live, sampled.token))
        reason = LATHE_FINISH_STOP;
    else if (r->output_tokens >= r->max_output_tokens)
        reason = LATHE_FINISH_LENGTH;

    if (e->producer && e->params.rows == ENGINE_ROWS_TOKENS) {
        struct record_token row = {
            .request_id = (int64_t)r->id,
            .position = (int64_t)r->prompt_tokens + r->output_tokens - 1,
            .step_id = (int64_t)e->step,
            .token = sampled.token,
            .time_ns = now_ns,
            .gap_ns = live->last_token_ns < 0 ? RECORD_NULL : now_ns - live->last_token_ns,
            .logprob = sampled.logprob,
        };
        memcpy(row.kind, "output", 7);
        record_token(e->producer, &row);
    }
    live->last_token_ns = now_ns;
    if (live->unread) {
        if (reason != LATHE_FINISH_NONE)
            leave(e, live, reason, now_ns);
        return;
    }
    decode_token(e, live, 1, reason != LATHE_FINISH_NONE, &text, &bytes);
    if (reason != LATHE_FINISH_NONE)
        leave(e, live, reason, now_ns);
    push_pieces(live, sampled.token, sampled.logprob, now_ns, reason, text, bytes);
}

void engine_cancel(struct engine *e, uint64_t id)
{
    struct live *live = engine_find(e, id);
    if (!live)
        return;
    atomic_store_explicit(&live->cancelled, true, memory_order_relaxed);
    atomic_store_explicit(&e->cancels, true, memory_order_release);
}

const char *engine_request_error(const struct engine *e, uint64_t id)
{
    const struct live *live = engine_find(e, id);
    return live ? live->error : "";
}

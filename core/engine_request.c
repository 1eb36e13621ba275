/* SPDX-License-Identifier: MIT */
/* A request's life: in through submit, out through its queue, and its rows. */
#include "engine_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"
#include <lathe/random.h>

static const char *const state_names[] = { "", "waiting", "running", "preempted", "swapped", "finished" };
static const char *const finish_names[] = { "", "stop", "length", "abort", "error", "deadline" };

static void copy_name(char *to, size_t capacity, const char *from)
{
    size_t bytes = 0;
    for (; from && from[bytes] && bytes + 1 < capacity; bytes++)
        to[bytes] = from[bytes];
    to[bytes] = '\0';
}

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

static struct live *free_slot(struct engine *e, uint64_t id)
{
    while (e->free_count > 0) { /* one that others may have found first, below */
        struct live *live = &e->slots[e->free_slots[--e->free_count]];
        if (atomic_load_explicit(&live->id, memory_order_acquire) == 0)
            return live;
    }
    for (uint32_t i = 0; i < e->params.max_requests; i++) {
        struct live *live = &e->slots[(id + i) % e->params.max_requests];
        if (atomic_load_explicit(&live->id, memory_order_acquire) == 0)
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

/* ── Rows ───────────────────────────────────────────────────────────────────────────── */

static int64_t or_null(int64_t value, int64_t none)
{
    return value == none ? RECORD_NULL : value;
}

/* The request's own wishes as JSON: what a replay asks for again. */
static void copy_sampling(char *to, size_t capacity, const struct lathe_sampling *s)
{
    snprintf(to, capacity,
             "{\"temperature\":%.9g,\"top_p\":%.9g,\"min_p\":%.9g,\"top_k\":%d,\"repetition_penalty\":%.9g,"
             "\"presence_penalty\":%.9g,\"frequency_penalty\":%.9g,\"seed\":%" PRIu64 "}",
             (double)s->temperature, (double)s->top_p, (double)s->min_p, s->top_k, (double)s->repetition_penalty,
             (double)s->presence_penalty, (double)s->frequency_penalty, s->seed);
}

static void record_request_row(struct engine *e, const struct live *live, int64_t finish_ns)
{
    const struct lathe_request *r = &live->req;
    if (!e->producer)
        return;
    struct record_request row = {
        .id = (int64_t)r->id,
        .session = or_null((int64_t)r->session, 0),
        .turn = r->session ? live->turn : RECORD_NULL,
        .priority = r->priority,
        .replica = e->params.replica,
        .planned_ns = r->planned_ns,
        .arrival_ns = r->arrival_ns,
        .admitted_ns = or_null(r->admitted_ns, -1),
        .first_token_ns = or_null(r->first_token_ns, -1),
        .finish_ns = or_null(finish_ns, -1),
        .prompt_tokens = r->prompt_tokens,
        .cached_tokens = r->cached_tokens,
        .output_tokens = r->output_tokens,
        .preemptions = r->preemptions,
        .slo_ttft_ns = or_null(r->slo_ttft_ns, 0),
        .slo_tpot_ns = or_null(r->slo_tpot_ns, 0),
        .deadline_ns = or_null(r->deadline_ns, INT64_MAX),
        .predicted_tokens = or_null(r->predicted_output_tokens, 0),
        .weight = or_null(r->weight, 1000),
        .max_tokens = r->max_output_tokens,
        .ignore_eos = live->ignore_eos,
    };
    copy_name(row.class, sizeof row.class, e->names[r->class_id]);
    copy_name(row.tenant, sizeof row.tenant, e->names[r->tenant]);
    copy_name(row.model, sizeof row.model, e->model_info.name);
    copy_name(row.finish_reason, sizeof row.finish_reason, finish_names[live->finish_reason]);
    copy_name(row.correlation_id, sizeof row.correlation_id, live->correlation_id);
    copy_name(row.prompt_sha256, sizeof row.prompt_sha256, live->prompt_sha256);
    if (live->own_sampling)
        copy_sampling(row.sampling, sizeof row.sampling, &live->sampling);
    record_request(e->producer, &row);
}

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
    request_drop_carried(e, live);
    live->finish_reason = reason;
    request_enter(e, live, LATHE_REQUEST_FINISHED, finish_names[reason], now_ns);
    e->scheduler->retire(e->scheduler_self, &live->req);
    if (e->batching->retire)
        e->batching->retire(e->batching_self, &live->req);
    e->pending_tokens -= lathe_request_pending(&live->req);
    e->live[live->live_at] = e->live[--e->live_count];
    live_of(e, e->live[live->live_at])->live_at = live->live_at;
    e->stats.finished++;
    e->stats.failed += reason == LATHE_FINISH_ERROR;
    record_request_row(e, live, now_ns);
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

    if (r->tokens)
        live->tokens[r->prompt_tokens + r->output_tokens] = sampled.token;
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

/* ── In ─────────────────────────────────────────────────────────────────────────────── */

static int intern(struct engine *e, const char *name, uint32_t *id, struct lathe_error *err)
{
    *id = 0;
    if (!name || !*name)
        return LATHE_OK;
    if (strlen(name) >= NAME_BYTES)
        return lathe_fail(err, LATHE_EINVAL, "the name \"%.20s…\" of a class or tenant is longer than %d bytes", name,
                          NAME_BYTES - 1);
    for (uint32_t i = 0; i < e->name_count; i++) {
        if (strcmp(e->names[i], name) == 0) {
            *id = i;
            return LATHE_OK;
        }
    }
    if (e->name_count == MAX_NAMES)
        return lathe_fail(err, LATHE_EFULL, "more than %d different classes and tenants in one run", MAX_NAMES);
    *id = e->name_count++;
    copy_name(e->names[*id], NAME_BYTES, name);
    return LATHE_OK;
}

static int check_sampling(const struct lathe_sampling *s, struct lathe_error *err)
{
    struct { const char *name; double value, min, max; } ranges[] = {
        { "temperature", s->temperature, 0, 100 },      { "top_p", s->top_p, 1e-9, 1 },
        { "min_p", s->min_p, 0, 0.999999 },             { "top_k", s->top_k, 0, INT32_MAX },
        { "repetition_penalty", s->repetition_penalty, 1e-3, 1e3 },
        { "presence_penalty", s->presence_penalty, -2, 2 }, { "frequency_penalty", s->frequency_penalty, -2, 2 },
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max)) /* NaN too */
            return lathe_fail(err, LATHE_EINVAL, "%s is %g, it must lie in %g … %g", ranges[i].name, ranges[i].value,
                              ranges[i].min, ranges[i].max);
    return LATHE_OK;
}

/* Ids given, or text through the tokenizer service, into the slot's tokens. */
static int prompt_tokens(struct engine *e, const struct engine_submit *submit, struct live *live, struct lathe_error *err)
{
    uint32_t room = e->params.context_tokens;
    uint64_t count = submit->token_count;
    int status = LATHE_OK;

    if (!submit->tokens && !submit->text) {
        if (!e->by_length)
            return lathe_fail(err, LATHE_EUNSUPPORTED, "model/%s computes with tokens: give the request a prompt",
                              e->params.parts.model->plugin->name);
        live->req.tokens = NULL;
    } else if (e->params.lengths_only) {
        return lathe_fail(err, LATHE_EUNSUPPORTED, "this engine was opened for requests that are known by their lengths alone");
    } else if (submit->tokens) {
        for (uint64_t i = 0; i < count && i < room; i++) {
            if (submit->tokens[i] < 0 || (uint32_t)submit->tokens[i] >= e->model_info.vocab_tokens)
                return lathe_fail(err, LATHE_ERANGE, "token id %d is outside the model's vocabulary of %u",
                                  submit->tokens[i], e->model_info.vocab_tokens);
            live->tokens[i] = submit->tokens[i];
        }
    } else {
        /* Count before tokenizing: no token has more bytes than the longest. */
        uint64_t longest = e->tokenizer_info.max_token_bytes ? e->tokenizer_info.max_token_bytes : 1;
        if (submit->text_bytes / longest > room)
            return lathe_fail(err, LATHE_ERANGE,
                              "a prompt of %" PRIu64 " bytes can't fit the context of %u tokens; shorten it",
                              submit->text_bytes, room);
        size_t in_bytes = sizeof(struct lathe_encode_in) + 64 + submit->text_bytes;
        size_t out_bytes = sizeof(struct lathe_encode_out) + 64 + (submit->text_bytes + 2) * sizeof(int32_t);
        struct lathe_encode_in *in = (void *)e->bus->loan(e->bus_self, in_bytes, err);
        struct lathe_encode_out *out = in ? (void *)e->bus->loan(e->bus_self, out_bytes, err) : NULL;
        if (!out) {
            if (in)
                e->bus->give_back(e->bus_self, &in->head);
            return err->code;
        }
        in->head.bytes = sizeof *in;
        in->head.correlation = live->req.correlation;
        in->head.deadline_ns = submit->deadline_ns;
        in->flags = (submit->parse_special ? LATHE_ENCODE_SPECIAL : 0) | (submit->add_bos ? LATHE_ENCODE_BOS : 0);
        char *text = lathe_message_add(&in->head, &in->text, submit->text_bytes, 1);
        memcpy(text, submit->text, submit->text_bytes);
        out->head.bytes = sizeof *out;
        status = e->encode->call(e->encode->self, in, out, err);
        if (status == LATHE_OK && !lathe_span_check(&out->head, out->tokens, sizeof(int32_t), sizeof(int32_t)))
            status = lathe_fail(err, LATHE_EINTERNAL, "tokenizer/%s gave tokens outside of its reply",
                                e->params.parts.tokenizer->plugin->name);
        count = status == LATHE_OK ? out->tokens.count : 0;
        if (status == LATHE_OK && count <= room)
            memcpy(live->tokens, LATHE_SPAN(int32_t, out, out->tokens), count * sizeof(int32_t));
        e->bus->give_back(e->bus_self, &in->head);
        e->bus->give_back(e->bus_self, &out->head);
        if (status != LATHE_OK)
            return status;
    }
    if (count == 0)
        return lathe_fail(err, LATHE_EINVAL, "the prompt is empty; give at least one token");
    if (count >= room)
        return lathe_fail(err, LATHE_ERANGE,
                          "the prompt has %" PRIu64 " tokens, which with one output is beyond the context of %u; shorten "
                          "it or open the engine with more context_tokens",
                          count, room);
    live->req.prompt_tokens = (uint32_t)count;
    return LATHE_OK;
}

/* How many tokens may come out, and whether that can ever fit. */
static int output_length(struct engine *e, const struct engine_submit *submit, struct live *live, struct lathe_error *err)
{
    uint32_t room = e->params.context_tokens - live->req.prompt_tokens;
    uint32_t wanted = submit->max_output_tokens ? submit->max_output_tokens : 256;

    if (submit->forced_output_tokens > room)
        return lathe_fail(err, LATHE_ERANGE, "a prompt of %u tokens and %u forced outputs are beyond the context of %u",
                          live->req.prompt_tokens, submit->forced_output_tokens, e->params.context_tokens);
    live->forced = submit->forced_output_tokens;
    live->req.max_output_tokens = live->forced ? live->forced : wanted < room ? wanted : room;
    live->ignore_eos = submit->ignore_eos || live->forced;

    uint64_t pool = (uint64_t)e->geometry.blocks * e->geometry.block_tokens;
    if (live->req.prompt_tokens > pool)
        return lathe_fail(err, LATHE_EBLOCKS,
                          "the prompt has %u tokens, the KV pool holds %" PRIu64 "; give the kvcache more memory",
                          live->req.prompt_tokens, pool);
    return LATHE_OK;
}

static void name_request(struct engine *e, const struct engine_submit *submit, struct live *live, uint64_t id)
{
    if (submit->correlation_id && *submit->correlation_id) {
        copy_name(live->correlation_id, sizeof live->correlation_id, submit->correlation_id);
        live->req.correlation = engine_correlation(live->correlation_id);
    } else {
        static const char digits[] = "0123456789abcdef";
        live->req.correlation = lathe_random_u64(e->params.seed, LATHE_RANDOM_USER - 1, id, 0);
        for (int i = 0; i < 16; i++)
            live->correlation_id[i] = digits[live->req.correlation >> (60 - 4 * i) & 15];
        live->correlation_id[16] = '\0';
    }
}

static void record_prompt(struct engine *e, const struct live *live)
{
    for (uint32_t i = 0; i < live->req.prompt_tokens; i++) {
        struct record_token row = { .request_id = (int64_t)live->req.id, .position = i, .step_id = RECORD_NULL,
                                    .token = live->tokens[i], .time_ns = RECORD_NULL, .gap_ns = RECORD_NULL,
                                    .logprob = NAN };
        memcpy(row.kind, "prompt", 7);
        record_token(e->producer, &row);
    }
}

static int submit_checked(struct engine *e, const struct engine_submit *submit, uint64_t *id, struct lathe_error *err)
{
    uint64_t next = e->numbers->request + 1;
    struct live *live = free_slot(e, next);
    int status;

    if (!live)
        return lathe_fail(err, LATHE_EFULL, "%u requests are live, the engine was opened for no more",
                          e->params.max_requests);
    if (submit->probe < 0 || (uint32_t)submit->probe > e->params.probe_count)
        return lathe_fail(err, LATHE_EINVAL, "probe %d was asked for, the engine has %u", submit->probe,
                          e->params.probe_count);
    if (submit->stop_id_count > MAX_STOP_IDS)
        return lathe_fail(err, LATHE_EINVAL, "%u stop ids were given, at most %d are taken", submit->stop_id_count,
                          MAX_STOP_IDS);

    int64_t now = clock_now(e->clock);
    live->req = (struct lathe_request){
        .size = sizeof live->req,
        .index = (uint32_t)(live - e->slots),
        .id = next,
        .state = LATHE_REQUEST_WAITING,
        .priority = submit->priority,
        .weight = submit->weight ? submit->weight : 1000,
        .session = submit->session,
        .planned_ns = submit->planned_ns < 0 ? now : submit->planned_ns,
        .arrival_ns = now,
        .admitted_ns = -1,
        .first_token_ns = -1,
        .deadline_ns = submit->deadline_ns ? submit->deadline_ns : INT64_MAX,
        .slo_ttft_ns = submit->slo_ttft_ns,
        .slo_tpot_ns = submit->slo_tpot_ns,
        .predicted_output_tokens = submit->predicted_output_tokens,
        .tokens = live->tokens,
    };
    live->own_sampling = submit->sampling != NULL;
    if (submit->sampling)
        live->sampling = *submit->sampling;
    else if ((status = e->sampler->defaults(e->params.parts.sampler->self, &live->sampling, err)) != LATHE_OK)
        return status;
    if (!submit->sampling || live->sampling.seed == 0)
        live->sampling.seed = e->params.seed;
    if ((status = check_sampling(&live->sampling, err)) != LATHE_OK ||
        (status = intern(e, submit->class_name, &live->req.class_id, err)) != LATHE_OK ||
        (status = intern(e, submit->tenant, &live->req.tenant, err)) != LATHE_OK)
        return status;
    name_request(e, submit, live, next);
    if ((status = prompt_tokens(e, submit, live, err)) != LATHE_OK ||
        (status = output_length(e, submit, live, err)) != LATHE_OK)
        return status;

    live->prompt_sha256[0] = '\0';
    if (live->req.tokens)
        sha256_bytes(live->tokens, live->req.prompt_tokens * sizeof(int32_t), live->prompt_sha256);
    live->tag = submit->tag;
    live->carried = submit->carried_tokens < live->req.prompt_tokens ? submit->carried_tokens : 0;
    live->unread = submit->unread != 0;
    live->probe = submit->probe;
    live->want_text = submit->want_text && !submit->unread && live->req.tokens;
    live->turn = submit->turn;
    live->stop_id_count = submit->stop_id_count;
    if (submit->stop_id_count)
        memcpy(live->stop_ids, submit->stop_ids, submit->stop_id_count * sizeof *submit->stop_ids);
    live->decode = (struct lathe_decode_state){ 0 };
    live->losses = live->undecoded = 0;
    live->in_kv = false;
    live->planned = live->refused = live->barred = 0;
    live->finish_reason = LATHE_FINISH_NONE;
    live->last_token_ns = -1;
    live->span_from_ns = now;
    live->span_cause = "arrived";
    live->error[0] = '\0';
    atomic_store_explicit(&live->cancelled, false, memory_order_relaxed);
    atomic_store_explicit(&live->queue.read, 0, memory_order_relaxed);
    atomic_store_explicit(&live->queue.written, 0, memory_order_relaxed);

    if ((status = e->scheduler->admit(e->scheduler_self, &live->req, err)) != LATHE_OK)
        return status;
    e->numbers->request = next;
    live->live_at = e->live_count;
    e->live[e->live_count++] = &live->req;
    e->pending_tokens += live->req.prompt_tokens;
    e->carriers += live->carried > 0;
    if (live->req.deadline_ns < e->next_deadline_ns)
        e->next_deadline_ns = live->req.deadline_ns;
    if (!live->unread) /* a run that is killed shows what it was at; a simulation is quicker run again */
        record_request_row(e, live, -1);
    if (e->params.record_prompt_tokens && e->producer && live->req.tokens)
        record_prompt(e, live);
    atomic_store_explicit(&live->id, next, memory_order_release);
    *id = next;
    return LATHE_OK;
}

/* What is refused leaves a word in the run, too. */
int engine_submit(struct engine *e, const struct engine_submit *submit, uint64_t *id, struct lathe_error *err)
{
    int status = submit_checked(e, submit, id, err);
    if (status != LATHE_OK && status != LATHE_EFULL && e->producer) {
        struct record_event event = { .time_ns = clock_now(e->clock), .correlation_id = RECORD_NULL };
        copy_name(event.level, sizeof event.level, "error");
        snprintf(event.message, sizeof event.message, "a request was refused: %.230s", err->message);
        record_event(e->producer, &event);
    }
    return status;
}

void engine_record_refusal(struct engine *e, const struct engine_submit *submit)
{
    int64_t now = clock_now(e->clock);
    struct record_request row = {
        .id = (int64_t)++e->numbers->request, .session = or_null((int64_t)submit->session, 0),
        .turn = submit->session ? submit->turn : RECORD_NULL, .priority = submit->priority, .replica = e->params.replica,
        .planned_ns = submit->planned_ns, .arrival_ns = now, .admitted_ns = RECORD_NULL, .first_token_ns = RECORD_NULL,
        .finish_ns = now, .prompt_tokens = (int64_t)submit->token_count,
        .slo_ttft_ns = or_null(submit->slo_ttft_ns, 0), .slo_tpot_ns = or_null(submit->slo_tpot_ns, 0),
        .deadline_ns = or_null(submit->deadline_ns, 0),
    };
    copy_name(row.class, sizeof row.class, submit->class_name);
    copy_name(row.tenant, sizeof row.tenant, submit->tenant);
    copy_name(row.model, sizeof row.model, e->model_info.name);
    copy_name(row.finish_reason, sizeof row.finish_reason, finish_names[LATHE_FINISH_ERROR]);
    record_request(e->producer, &row);
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

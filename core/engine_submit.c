/* SPDX-License-Identifier: MIT */
/* A request comes in: a slot for it, its tokens, its limits, its names; then scheduler and engine
 * know of it. */
#include "engine_internal.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "sha256.h"
#include <lathe/random.h>

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
    if (live->req.prompt_tokens > pool && !e->kv->kept) /* else what is stored may make room for what comes */
        return lathe_fail(err, LATHE_EBLOCKS,
                          "the prompt has %u tokens, the KV pool holds %" PRIu64 "; give the kvcache more memory",
                          live->req.prompt_tokens, pool);
    return LATHE_OK;
}

/* An answer that is given (teacher forcing) waits in the slot's tokens, where it will come out. A simulated
 * model has no opinion of it: there it only says which tokens lie in the cache. */
static int given_tokens(struct engine *e, const struct engine_submit *submit, struct live *live, struct lathe_error *err)
{
    live->teacher = submit->forced_tokens != NULL;
    if (!live->teacher)
        return LATHE_OK;
    if (!live->req.tokens)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "an answer is given to a prompt of which only the length is known; give "
                          "the prompt's tokens too");
    if (e->picks && !e->by_length)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model/%s picks its tokens itself: an answer can be given to a model with "
                          "logits only", e->params.parts.model->plugin->name);
    if (live->forced == 0)
        return lathe_fail(err, LATHE_EINVAL, "the answer that is given is empty; give at least one token");
    for (uint32_t i = 0; i < live->forced; i++) {
        int32_t token = submit->forced_tokens[i];
        if (token < 0 || (uint32_t)token >= e->model_info.vocab_tokens)
            return lathe_fail(err, LATHE_ERANGE, "token id %d of the answer is outside the model's vocabulary of %u", token,
                              e->model_info.vocab_tokens);
        live->tokens[live->req.prompt_tokens + i] = token;
    }
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

static int submit_checked(struct engine *e, const struct engine_submit *submit, uint64_t *id, struct lathe_error *err)
{
    uint64_t next = e->numbers->request + 1;
    struct live *live = free_slot(e, next);
    int status;

    if (!live)
        return lathe_fail(err, LATHE_EFULL, "%u requests are live, the engine was opened for no more",
                          e->params.max_requests);
    if ((uint64_t)submit->probes >> e->params.probe_count)
        return lathe_fail(err, LATHE_EINVAL, "probes %#x were asked for, the engine has %u", submit->probes,
                          e->params.probe_count);
    if (e->params.intervention_count < LATHE_MAX_INTERVENTIONS && submit->interventions >> e->params.intervention_count)
        return lathe_fail(err, LATHE_EINVAL, "interventions %#" PRIx64 " were asked for, the engine has %u",
                          submit->interventions, e->params.intervention_count);
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
        (status = output_length(e, submit, live, err)) != LATHE_OK || (status = given_tokens(e, submit, live, err)) != LATHE_OK)
        return status;

    live->prompt_sha256[0] = '\0';
    if (live->req.tokens)
        sha256_bytes(live->tokens, live->req.prompt_tokens * sizeof(int32_t), live->prompt_sha256);
    live->tag = submit->tag;
    live->carried = submit->carried_tokens < live->req.prompt_tokens ? submit->carried_tokens : 0;
    live->req.computed_tokens = live->carried; /* so policies plan what is left, from the first */
    live->unread = submit->unread != 0;
    live->probes = submit->probes;
    live->interventions = submit->interventions;
    live->nll = 0.0;
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
    e->pending_tokens += live->req.prompt_tokens - live->carried;
    if (live->req.deadline_ns < e->next_deadline_ns)
        e->next_deadline_ns = live->req.deadline_ns;
    if (!live->unread) /* a run that is killed shows what it was at; a simulation is quicker run again */
        request_record(e, live, -1);
    if (e->params.record_prompt_tokens && e->producer && live->req.tokens)
        request_record_prompt(e, live);
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

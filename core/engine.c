/* SPDX-License-Identifier: MIT */
/* Opening and closing an engine: the stages are bound to each other, services go on the
 * bus, and everything that a step needs is sized and allocated, once. */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

#include "host.h"

static void *zeroed(size_t count, size_t each)
{
    size_t bytes;
    return __builtin_mul_overflow(count ? count : 1, each, &bytes) ? NULL : host_take(bytes);
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

/* ── Messages ───────────────────────────────────────────────────────────────────────── */

static void *loan(struct engine *e, size_t bytes, int *status, struct lathe_error *err)
{
    void *message = *status == LATHE_OK ? (void *)e->lender->loan(e->lender_self, bytes, err) : NULL;
    if (!message && *status == LATHE_OK)
        *status = err->code ? err->code : LATHE_ENOMEM;
    return message;
}

static int loan_messages(struct engine *e, struct lathe_error *err)
{
    const size_t slack = 1024; /* each span is aligned to 64 bytes */
    size_t requests = e->params.batch_requests, rows = e->params.batch_tokens, vocab = e->model_info.vocab_tokens;
    size_t table = (e->params.context_tokens + e->geometry.block_tokens) / e->geometry.block_tokens + 1;
    int status = LATHE_OK;

    size_t in_bytes = sizeof *e->forward_in + slack + e->ops.capacity * sizeof(struct lathe_kv_op) +
                      2 * requests * sizeof(struct lathe_slice) + rows * sizeof(int32_t) +
                      requests * table * sizeof(int32_t) + 2 * requests * sizeof(uint32_t) +
                      e->kept_room * sizeof(int32_t) + probes_message_bytes(e);
    size_t logits = e->by_length ? 0 : requests * vocab * sizeof(float);
    size_t masses = e->mass_room * sizeof(float);
    size_t picked = e->picks ? 64 + requests * sizeof(struct lathe_picked) : 0;
    if (e->by_length)
        rows = table = 0;
    size_t piece = sizeof(((struct lathe_output *)0)->text);

    e->forward_in = loan(e, in_bytes, &status, err);
    e->forward_out = loan(e, sizeof *e->forward_out + slack + logits + masses + picked, &status, err);
    e->sample_in = loan(e, sizeof *e->sample_in + slack + requests * sizeof(struct lathe_sample_row), &status, err);
    e->sample_out = loan(e, sizeof *e->sample_out + slack + requests * sizeof(struct lathe_sampled), &status, err);
    e->decode_in = loan(e, sizeof *e->decode_in + slack, &status, err);
    e->decode_out = loan(e, sizeof *e->decode_out + slack + e->queue_spare * piece, &status, err);
    if (e->remote && e->producer && e->params.probe_count)
        e->attention_loan = loan(e, sizeof *e->attention_loan + record_attention_capacity(e->producer), &status, err);
    if (status != LATHE_OK)
        return status;

    if (e->by_length)
        return LATHE_OK;
    struct lathe_span span;
    e->forward_out->head.bytes = sizeof *e->forward_out;
    char *at = lathe_message_add(&e->forward_out->head, &span, requests * vocab, sizeof(float));
    if (!at)
        return lathe_fail(err, LATHE_ENOMEM, "no room for %zu bytes of logits", logits);
    e->forward_out->logits = (struct lathe_region){ at - (char *)e->forward_out, logits };
    e->forward_out->hidden = e->forward_out->masses = (struct lathe_region){ 0 };
    if (e->mass_room == 0)
        return LATHE_OK;
    at = lathe_message_add(&e->forward_out->head, &span, e->mass_room, sizeof(float));
    if (!at)
        return lathe_fail(err, LATHE_ENOMEM, "no room for %zu bytes of keys' masses", masses);
    e->forward_out->masses = (struct lathe_region){ at - (char *)e->forward_out, masses };
    return LATHE_OK;
}

/* ── Slots ──────────────────────────────────────────────────────────────────────────── */

static int make_slots(struct engine *e, struct lathe_error *err)
{
    uint32_t n = e->params.max_requests;
    size_t slab;

    e->token_stride = e->params.context_tokens + 1;
    if (e->params.lengths_only)
        e->token_stride = 0;
    if (__builtin_mul_overflow((size_t)n, (size_t)e->token_stride, &slab) || slab > UINT32_MAX)
        return lathe_fail(err, LATHE_ERANGE,
                          "%u requests of %u tokens are more than an engine can number; lower max_requests or "
                          "context_tokens",
                          n, e->params.context_tokens);
    /* A token's text may take several pieces; one more is kept for a last word. */
    e->queue_spare = 2 + e->tokenizer_info.max_token_bytes / sizeof(((struct lathe_output *)0)->text);
    e->queue_pieces = 1;
    while (e->queue_pieces < e->params.output_queue + e->queue_spare && e->queue_pieces < 1u << 20)
        e->queue_pieces *= 2;

    e->slots = zeroed(n, sizeof *e->slots);
    int status = LATHE_OK;
    e->slab = loan(e, sizeof *e->slab + slab * sizeof(int32_t), &status, err);
    if (status != LATHE_OK)
        return status;
    e->token_slab = (int32_t *)(void *)(e->slab + 1);
    e->piece_slab = zeroed((size_t)n * e->queue_pieces, sizeof(struct lathe_output));
    e->live = zeroed(n, sizeof *e->live);
    e->free_slots = zeroed(n, sizeof *e->free_slots);
    e->tried = zeroed(n, sizeof *e->tried);
    e->names = zeroed(MAX_NAMES, NAME_BYTES);
    e->entries = zeroed(e->params.batch_requests, sizeof *e->entries);
    e->plan.capacity = e->params.batch_requests;
    e->plan.entries = zeroed(e->plan.capacity, sizeof *e->plan.entries);
    e->ranking.capacity = e->ranking.preempt_capacity = n;
    e->ranking.requests = zeroed(n, sizeof *e->ranking.requests);
    e->ranking.preempt = zeroed(n, sizeof *e->ranking.preempt);
    if (!e->slots || !e->piece_slab || !e->live || !e->free_slots || !e->tried || !e->names || !e->entries || !e->plan.entries ||
        !e->ranking.requests || !e->ranking.preempt)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u requests of %u tokens; lower max_requests or "
                          "context_tokens", n, e->params.context_tokens);

    for (uint32_t i = 0; i < n; i++) {
        e->slots[i].tokens = e->params.lengths_only ? NULL : e->token_slab + (size_t)i * e->token_stride;
        e->slots[i].queue.pieces = e->piece_slab + (size_t)i * e->queue_pieces;
        e->slots[i].queue.mask = e->queue_pieces - 1;
    }
    e->name_count = 1;
    e->slowness = 1.0;
    e->next_deadline_ns = INT64_MAX;
    return LATHE_OK;
}

/* ── Stages ─────────────────────────────────────────────────────────────────────────── */

/* A kvcache's wishes against what the model can do. */
static int check_geometry(const struct engine *e, const struct lathe_kv_demand *demand, struct lathe_error *err)
{
    const struct lathe_kv_geometry *g = &e->geometry;
    const char *kvcache = e->params.parts.kvcache->plugin->name, *model = e->params.parts.model->plugin->name;
    if (g->block_tokens == 0 || g->blocks == 0)
        return lathe_fail(err, LATHE_EINTERNAL, "kvcache/%s laid out %u blocks of %u tokens", kvcache, g->blocks,
                          g->block_tokens);
    if (demand->kv_dtypes && (g->kv_dtype < 0 || g->kv_dtype > 31 || !(demand->kv_dtypes >> g->kv_dtype & 1)))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model/%s can't keep keys and values as %s; choose another dtype", model,
                          lathe_dtype_name(g->kv_dtype));
    if (g->kv_scope < LATHE_KV_REQUEST || g->kv_scope > LATHE_KV_HEAD ||
        (g->kv_scope != LATHE_KV_REQUEST && (demand->layers == 0 || demand->kv_heads == 0)))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache/%s keeps positions by scope %d, which model/%s (%u layers of %u KV "
                          "heads) hasn't", kvcache, g->kv_scope, model, demand->layers, demand->kv_heads);
    if ((g->kv_flags & LATHE_KV_KEYS_UNROTATED || g->cache_positions) && !demand->unrotated)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "kvcache/%s counts positions in the cache, but model/%s can't rotate keys "
                          "when it reads them; use original positions", kvcache, model);
    if (g->cache_positions && !(g->kv_flags & LATHE_KV_KEYS_UNROTATED))
        return lathe_fail(err, LATHE_EINTERNAL, "kvcache/%s wants cache positions without keys unrotated", kvcache);
    if (g->wants_mass && (!demand->key_mass || !e->kv->observe))
        return lathe_fail(err, demand->key_mass ? LATHE_EINTERNAL : LATHE_EUNSUPPORTED,
                          "kvcache/%s chooses by what heads look at, but %s%s %s", kvcache, demand->key_mass ? "its table" : "model/",
                          demand->key_mass ? "" : model, demand->key_mass ? "has no `observe`" : "can't tell keys' masses");
    return LATHE_OK;
}

/* Room for kept positions and masses, of each set. Without shared blocks a step's keys are no more than the pool holds;
 * with them they may be, and engine_fit.c cuts the step. */
static void size_rooms(struct engine *e)
{
    const struct lathe_kv_geometry *g = &e->geometry;
    uint64_t pool = (uint64_t)g->blocks * g->block_tokens;
    uint64_t most = (uint64_t)e->params.batch_requests * e->params.context_tokens;
    pool = pool < most ? pool : most;
    e->kv_sets = lathe_kv_sets(g->kv_scope, e->model_info.layers, e->model_info.kv_heads);
    e->kept_room = e->kv->kept && !e->by_length ? pool * e->kv_sets : 0;
    e->mass_room = g->wants_mass ? (pool + e->params.batch_tokens) * e->kv_sets : 0;
}

static int bind_model(struct engine *e, struct lathe_error *err)
{
    struct engine_params *p = &e->params;
    struct lathe_kv_demand demand = {
        .size = sizeof demand,
        .max_requests = p->max_requests,
        .context_tokens = p->context_tokens,
        .kv_bytes_per_token = e->model_info.kv_bytes_per_token,
        .memory_bytes = p->kv_memory_bytes,
        .layers = e->model_info.layers,
        .kv_heads = e->model_info.kv_heads,
        .head_width = e->model_info.head_width,
        .kv_dtypes = e->model_info.kv_dtypes,
        .key_mass = e->tells_mass,
        .unrotated = e->model_info.kv_dtypes != 0, /* a model that says how it keeps keys can turn them when it reads;
                                                      one that looks at lengths alone has none to turn */
    };
    e->geometry = (struct lathe_kv_geometry){ .kv_dtype = p->kv_dtype };
    int status = e->kv->layout(e->kv_self, &demand, &e->geometry, err);
    if (status == LATHE_OK)
        status = check_geometry(e, &demand, err);
    if (status != LATHE_OK)
        return status;
    size_rooms(e);

    /* Swaps of one step move at most every block out and in. */
    size_t ops = (size_t)p->batch_requests * LATHE_KV_OPS_PER_CALL + 2 * (size_t)e->geometry.blocks;
    e->ops.capacity = ops > UINT32_MAX ? UINT32_MAX : (uint32_t)ops;
    e->ops.ops = zeroed(e->ops.capacity, sizeof *e->ops.ops);
    if (!e->ops.ops)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u KV operations", e->ops.capacity);

    e->context = (struct lathe_context_params){
        .size = sizeof e->context,
        .block_tokens = e->geometry.block_tokens,
        .blocks = e->geometry.blocks,
        .batch_tokens = p->batch_tokens,
        .batch_slices = 2 * p->batch_requests,
        .context_tokens = p->context_tokens,
        .output_rows = p->batch_requests,
        .threads = p->threads,
        .kv_dtype = e->geometry.kv_dtype,
        .kv_flags = e->geometry.kv_flags,
        .kv_scope = e->geometry.kv_scope,
        .replica = p->replica,
        .seed = p->seed,
    };
    if (e->remote) /* the worker makes it, from a recipe */
        return LATHE_OK;
    return e->model->context_create(p->parts.model->self, &e->context, &e->model_context, err);
}

static struct lathe_scheduler_limits scheduler_limits(const struct engine *e)
{
    return (struct lathe_scheduler_limits){ .size = sizeof(struct lathe_scheduler_limits),
                                            .max_requests = e->params.max_requests, .seed = e->params.seed,
                                            .cached_prefix = e->kv->cached_prefix != NULL };
}

static uint32_t cached_prefix(void *engine, const struct lathe_request *req)
{
    const struct engine *e = engine;
    return e->kv->cached_prefix(e->kv_self, req);
}

static int bind_policies(struct engine *e, struct lathe_error *err)
{
    struct engine_params *p = &e->params;
    struct lathe_scheduler_limits scheduler = scheduler_limits(e);
    struct lathe_batching_limits batching = { .size = sizeof batching,
                                              .max_requests = p->max_requests,
                                              .max_batch_tokens = p->batch_tokens,
                                              .max_batch_requests = p->batch_requests };
    int status = e->scheduler->bind(e->scheduler_self, &scheduler, err);
    if (status == LATHE_OK)
        status = e->batching->bind(e->batching_self, &batching, err);
    if (status == LATHE_OK)
        status = e->sampler->bind(p->parts.sampler->self, e->model_info.vocab_tokens, err);

    e->view = (struct lathe_step_view){
        .size = sizeof e->view,
        .max_batch_tokens = p->batch_tokens,
        .max_batch_requests = p->batch_requests,
        .blocks_total = e->geometry.blocks,
        .block_tokens = e->geometry.block_tokens,
        .can_reserve = memory_can_reserve,
        .engine = e,
        .cached_prefix = e->kv->cached_prefix ? cached_prefix : NULL,
    };
    /* Twice what a batch can hold: some may be passed over. A small engine's are all ranked. */
    e->view.ranking_wanted = p->max_requests > 1024 ? 2 * p->batch_requests : 0;
    return status;
}

/* What the model can besides logits. Someone who reads tokens gets them from the sampler as ever. */
static void find_abilities(struct engine *e)
{
    void *self = e->params.parts.model->self;
    if (!e->model->get_extension)
        return;
    e->tells_time = e->model->get_extension(self, LATHE_MODEL_TIME) != NULL;
    e->by_length = e->model->get_extension(self, LATHE_MODEL_LENGTHS) && e->model->get_extension(self, LATHE_MODEL_PICK);
    e->picks = e->by_length;
    e->tells_mass = e->model->get_extension(self, LATHE_MODEL_KEY_MASS) != NULL;
}

static void describe(struct engine *e)
{
    struct lathe_empty in = { .head = { .capacity = sizeof in, .bytes = sizeof in } };
    struct lathe_error ignored;
    const struct lathe_tokenizer_api *tokenizer = e->params.parts.tokenizer->api;

    e->model_info.head.capacity = sizeof e->model_info;
    e->tokenizer_info.head.capacity = sizeof e->tokenizer_info;
    e->model->describe(e->params.parts.model->self, &in, &e->model_info, &ignored);
    tokenizer->describe(e->params.parts.tokenizer->self, &in, &e->tokenizer_info, &ignored);
}

static int check_sizes(struct engine *e, struct lathe_error *err)
{
    struct engine_params *p = &e->params;
    uint32_t trained = e->model_info.context_tokens;

    p->max_requests = or_default(p->max_requests, 256);
    p->batch_tokens = or_default(p->batch_tokens, 512);
    p->batch_requests = or_default(p->batch_requests, 32);
    p->output_queue = or_default(p->output_queue, 64);
    p->context_tokens = or_default(p->context_tokens, trained && trained < 8192 ? trained : 8192);
    if (p->max_requests > 1u << 20 || p->batch_tokens > 1u << 20 || p->batch_requests > 1u << 16 ||
        p->output_queue > 1u << 16)
        return lathe_fail(err, LATHE_ERANGE, "max_requests and batch_tokens may be at most %u, batch_requests and "
                          "output_queue %u", 1u << 20, 1u << 16);
    if (p->context_tokens < 2 || (trained && p->context_tokens > trained))
        return lathe_fail(err, LATHE_ERANGE, "context_tokens is %u; the model takes 2 … %u", p->context_tokens, trained);
    if (p->lengths_only && !e->by_length)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model/%s computes with tokens: requests that are known by their lengths "
                          "alone are for a model that looks at nothing else (sim)", p->parts.model->plugin->name);
    if (e->clock->kind == CLOCK_KIND_VIRTUAL && (!e->tells_time || e->remote))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "a virtual clock wants a model that tells its time (sim) and a bus without "
                          "worker processes, not model/%s over bus/%s", p->parts.model->plugin->name,
                          p->parts.bus->plugin->name);
    if (p->batch_requests > p->batch_tokens)
        p->batch_requests = p->batch_tokens;
    if (e->tokenizer_info.vocab_tokens > e->model_info.vocab_tokens)
        return lathe_fail(err, LATHE_EINVAL,
                          "tokenizer/%s has %u tokens and the model %u; use the tokenizer that belongs to the model",
                          p->parts.tokenizer->plugin->name, e->tokenizer_info.vocab_tokens, e->model_info.vocab_tokens);
    return LATHE_OK;
}

/* The replicas of a run share tokenizer, model and bus: the first one's clock is theirs, or of a model
 * of their own that of the first that has it. */
static void attach(struct engine *e, struct clock *clock, struct producer *producer)
{
    const struct engine_parts *parts = &e->params.parts;
    struct instance *const all[] = { parts->sampler, parts->kvcache,   parts->scheduler, parts->batching,
                                     parts->model,   parts->tokenizer, parts->bus };
    size_t count = e->params.replica == 0 ? sizeof all / sizeof *all : e->params.attach_model ? 5 : 4;
    for (size_t i = 0; i < count; i++)
        instance_attach(all[i], clock, producer);
}

int engine_open(const struct engine_params *params, struct engine **engine, struct lathe_error *err)
{
    const struct engine_parts *parts = &params->parts;
    struct engine *e = zeroed(1, sizeof *e);
    int status;

    if (!e)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for an engine");
    e->params = *params;
    e->clock = params->clock;
    e->model = parts->model->api;
    e->kv = parts->kvcache->api, e->kv_self = parts->kvcache->self;
    e->scheduler = parts->scheduler->api, e->scheduler_self = parts->scheduler->self;
    e->batching = parts->batching->api, e->batching_self = parts->batching->self;
    e->sampler = parts->sampler->api;
    e->bus = e->lender = parts->bus->api, e->bus_self = e->lender_self = parts->bus->self;
    e->remote = e->bus->get_extension && e->bus->get_extension(NULL, LATHE_BUS_WORKER);
    e->numbers = params->numbers ? params->numbers : &e->own_numbers;
    find_abilities(e);
    describe(e);

    e->producer = params->producer;
    if (params->run && !e->producer && (status = recorder_producer(params->run, &e->producer, err)) != LATHE_OK)
        goto fail;
    attach(e, e->clock, e->producer);
    if ((status = check_sizes(e, err)) != LATHE_OK || (status = make_slots(e, err)) != LATHE_OK ||
        (status = probes_open(e, err)) != LATHE_OK || (status = bind_model(e, err)) != LATHE_OK ||
        (status = bind_policies(e, err)) != LATHE_OK || (status = services_add(e, err)) != LATHE_OK ||
        (status = loan_messages(e, err)) != LATHE_OK)
        goto fail;
    *engine = e;
    return LATHE_OK;

fail:
    engine_close(e);
    return status;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    struct lathe_error ignored;
    void *const messages[] = { e->forward_in, e->forward_out, e->sample_in, e->sample_out, e->decode_in, e->decode_out,
                               e->slab, e->attention_loan };

    if (e->started)
        engine_finish(e, clock_now(e->clock), &ignored);
    while (e->live_count > 0)
        request_finish(e, live_of(e, e->live[0]), LATHE_FINISH_ABORT, "", clock_now(e->clock));
    services_remove(e);
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
        if (messages[i])
            e->lender->give_back(e->lender_self, messages[i]);
    if (e->model_context)
        e->model->context_destroy(e->model_context);
    attach(e, NULL, NULL);
    host_give(e->ops.ops);
    host_give(e->slots);
    host_give(e->piece_slab);
    host_give(e->live);
    host_give(e->free_slots);
    host_give(e->tried);
    host_give(e->names);
    host_give(e->entries);
    host_give(e->plan.entries);
    host_give(e->ranking.requests);
    host_give(e->ranking.preempt);
    probes_close(e);
    host_give(e);
}

int engine_swap_scheduler(struct engine *e, struct instance *next, struct lathe_error *err)
{
    const struct lathe_scheduler_api *api = next->api;
    struct lathe_scheduler_limits limits = scheduler_limits(e);
    int status;

    if (e->started)
        return lathe_fail(err, LATHE_ESTATE, "a scheduler is swapped between steps: finish the step under way first");
    if ((status = api->bind(next->self, &limits, err)) != LATHE_OK)
        return status;
    for (uint32_t i = 0; i < e->live_count; i++)
        if ((status = api->admit(next->self, e->live[i], err)) != LATHE_OK)
            return status;
    instance_attach(e->params.parts.scheduler, NULL, NULL);
    instance_attach(next, e->clock, e->producer);
    e->params.parts.scheduler = next;
    e->scheduler = api;
    e->scheduler_self = next->self;
    return LATHE_OK;
}

int engine_leave_bus(struct engine *e, struct lathe_error *err)
{
    if (e->started)
        return lathe_fail(err, LATHE_ESTATE, "a bus is swapped between steps: finish the step under way first");
    if (e->remote)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "bus/%s can't be left: its workers hold the model's keys and values",
                          e->params.parts.bus->plugin->name);
    services_remove(e);
    return LATHE_OK;
}

int engine_join_bus(struct engine *e, struct instance *next, struct lathe_error *err)
{
    const struct lathe_bus_api *api = next->api;
    if (api->get_extension && api->get_extension(NULL, LATHE_BUS_WORKER))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "bus/%s can't be joined while the engine runs: its workers would know "
                          "nothing of keys and values that are computed already", next->plugin->name);
    if (e->params.replica == 0)
        instance_attach(next, e->clock, e->producer);
    e->params.parts.bus = next;
    e->bus = api;
    e->bus_self = next->self;
    return services_add(e, err);
}

void engine_get_stats(const struct engine *e, struct engine_stats *stats)
{
    struct lathe_kv_usage usage;
    e->kv->usage(e->kv_self, &usage);
    *stats = e->stats;
    stats->kv.total = usage.blocks_total;
    stats->kv.used = usage.blocks_used;
    stats->kv.cached = usage.blocks_cached;
    stats->kv.shared = usage.blocks_shared;
    stats->live = e->live_count;
    stats->running = e->running_count;
    stats->waiting = e->live_count - e->running_count;
    stats->pending_tokens = e->pending_tokens;
}

void engine_get_load(const struct engine *e, struct engine_load *load)
{
    struct lathe_kv_usage usage;
    e->kv->usage(e->kv_self, &usage);
    *load = (struct engine_load){ .waiting = e->live_count - e->running_count, .running = e->running_count,
                                  .pending_tokens = e->pending_tokens, .blocks_used = usage.blocks_used,
                                  .blocks_total = usage.blocks_total };
}

int engine_is_work_conserving(const struct engine *e)
{
    return e->scheduler->promises && e->batching->promises &&
           e->scheduler->promises(e->scheduler_self) & e->batching->promises(e->batching_self) &
               LATHE_PROMISE_WORK_CONSERVING;
}

const struct lathe_model_info *engine_model_info(const struct engine *e)
{
    return &e->model_info;
}

const struct lathe_tokenizer_info *engine_tokenizer_info(const struct engine *e)
{
    return &e->tokenizer_info;
}

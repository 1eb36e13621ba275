/* SPDX-License-Identifier: MIT */
/* A model that is only its time: what it computes is how long a forward would have taken.
 *
 * Under a virtual clock the engine finishes the step that much later, and nothing sleeps: a day
 * of requests takes seconds, with the very schedulers, batchings and caches that serve a real
 * model. Under a real clock the engine waits that long, which is a way to see what a policy does
 * at a speed that this machine doesn't have.
 *
 * Its cost is cost.h's, given option by option, by a profile, or both (an option that is given
 * wins). It has no weights and keeps no keys and values: kv_bytes_per_token is what a real model
 * would take, so that the pool holds as many positions as that machine's would. Outputs have the
 * lengths that the workload says; the tokens themselves are a hash of where they stand, letters
 * and digits, so that a text can be looked at.
 *
 * A message with tokens and block tables is checked like any model's; one that leaves them out
 * (LATHE_MODEL_LENGTHS) is taken by its lengths. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <forward/batch.h>
#include <lathe/host.h>

#include "cost.h"

enum { VOCAB = 260 }; /* as the byte tokenizer's */
enum { KV_DTYPES = 1 << LATHE_F32 | 1 << LATHE_F16 | 1 << LATHE_Q8_0 }; /* they differ in bytes alone */
enum { OPT_TABLES = SIM_COST_COUNT, OPT_PROFILE = OPT_TABLES + SIM_TABLE_COUNT, OPT_KV_BYTES, OPT_CONTEXT, OPT_COUNT };

struct sim {
    const struct lathe_host *host;
    struct sim_cost cost;
    uint64_t kv_bytes_per_token;
    uint32_t context;
};

struct sim_context {
    const struct sim *model;
    struct forward_limits limits;
    struct forward_batch batch;
};

/* An option that is given wins over the profile's table, as with numbers. */
static int read_tables(const struct lathe_option_value *options, struct sim_table *tables, struct lathe_error *err)
{
    for (int i = 0; i < SIM_TABLE_COUNT; i++) {
        char where[64];
        int status;
        if (options[i].is_default)
            continue;
        snprintf(where, sizeof where, "model sim: %s", sim_cost_names[SIM_COST_COUNT + i]);
        if ((status = sim_table_read(where, options[i].text, &tables[i], err)) != LATHE_OK ||
            (i == SIM_REST && (status = sim_rest_check(where, &tables[i], err)) != LATHE_OK))
            return status;
    }
    return LATHE_OK;
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self, struct lathe_error *err)
{
    const struct lathe_option_value *v = config->values;
    double values[SIM_COST_COUNT];
    struct sim_profile profile = { 0 };
    int status = v[OPT_PROFILE].text[0] ? sim_profile_read(v[OPT_PROFILE].text, &profile, err) : LATHE_OK;
    if (status != LATHE_OK || (status = read_tables(&v[OPT_TABLES], profile.tables, err)) != LATHE_OK)
        return status;
    for (int i = 0; i < SIM_COST_COUNT; i++) {
        values[i] = v[i].number;
        if (v[OPT_PROFILE].text[0] && v[i].is_default)
            values[i] = profile.values[i]; /* what a profile doesn't name costs nothing */
    }
    struct sim *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "model sim: no memory for %zu bytes", sizeof *s);
    s->host = host;
    s->cost = (struct sim_cost){ values[SIM_STEP],    values[SIM_FLOOR],   values[SIM_PREFILL],
                                 values[SIM_PREFILL_CONTEXT], values[SIM_DECODE],  values[SIM_DECODE_CONTEXT],
                                 values[SIM_PADDING], values[SIM_SWAP],    values[SIM_NOISE],
                                 profile.tables[SIM_ROWS], profile.tables[SIM_REST], profile.tables[SIM_OUTPUTS] };
    s->kv_bytes_per_token = (uint64_t)v[OPT_KV_BYTES].integer;
    s->context = (uint32_t)v[OPT_CONTEXT].integer;
    *self = s;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct sim *s = self;
    if (s)
        lathe_free(s->host, s);
}

static int describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    const struct sim *s = self;
    struct lathe_model_info *info = out;
    int status = forward_reply_check(&info->head, sizeof *info, "describe", err);
    (void)in;
    if (status)
        return status;
    *info = (struct lathe_model_info){
        .head = { .capacity = info->head.capacity, .bytes = sizeof *info },
        .architecture = "sim", .name = "sim", .quantization = "none",
        .layers = 1, .heads = 1, .kv_heads = 1, .head_width = 1, .embedding_width = 1,
        .vocab_tokens = VOCAB, .context_tokens = s->context, .kv_bytes_per_token = s->kv_bytes_per_token,
        .kv_dtypes = KV_DTYPES,
    };
    return LATHE_OK;
}

static void context_destroy(void *context)
{
    struct sim_context *c = context;
    if (!c)
        return;
    const struct lathe_host *host = c->model->host;
    lathe_free(host, c->batch.rows);
    lathe_free(host, c->batch.slice_rows);
    lathe_free(host, c->batch.slice_kept);
    lathe_free(host, c);
}

static int context_create(void *self, const struct lathe_context_params *params, void **context, struct lathe_error *err)
{
    const struct sim *s = self;
    int status = forward_params_check(params, err);
    if (status)
        return status;
    if (params->kv_dtype < 0 || params->kv_dtype > 31 || !(KV_DTYPES >> params->kv_dtype & 1))
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model sim: keys and values of type %s are unknown to it; give F32, F16 or "
                          "Q8_0", lathe_dtype_name(params->kv_dtype));
    if (params->context_tokens > s->context)
        return lathe_fail(err, LATHE_ERANGE, "model sim has a context of %u tokens (its option context), %u wanted",
                          s->context, params->context_tokens);
    struct sim_context *c = lathe_alloc(s->host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "model sim: no memory for a context of %zu bytes", sizeof *c);
    c->model = s;
    c->limits = (struct forward_limits){ .params = *params, .vocab_tokens = VOCAB, .embedding_width = 1, .layers = 1,
                                         .heads = 1, .kv_heads = 1, .head_width = 1 };
    c->batch.rows = lathe_alloc_array(s->host, params->batch_tokens, sizeof *c->batch.rows);
    c->batch.slice_rows = lathe_alloc_array(s->host, params->batch_slices, sizeof(uint32_t));
    c->batch.slice_kept = lathe_alloc_array(s->host, params->batch_slices, sizeof(uint32_t));
    if (!c->batch.rows || !c->batch.slice_rows || !c->batch.slice_kept) {
        context_destroy(c);
        return lathe_fail(err, LATHE_ENOMEM, "model sim: no memory for steps of %u rows", params->batch_tokens);
    }
    *context = c;
    return LATHE_OK;
}

/* A letter or digit by where it stands: xorshift-multiply of the two. */
static int32_t token_at(uint64_t what, uint64_t position)
{
    static const char letters[] = "etaoinshrdlucmfwypvbgkjqxz 0123456789";
    uint64_t x = what * 0x9E3779B97F4A7C15u ^ position * 0xD1B54A32D192ED03u;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9u;
    return letters[(x >> 32) * (sizeof letters - 1) >> 32];
}

/* The slices of a message that says lengths only: as far as they are used, checked. */
static int check_bare(const struct sim_context *c, const struct lathe_forward_in *in, const struct lathe_slice *slices,
                      struct lathe_error *err)
{
    uint64_t rows = 0;
    if (!lathe_span_check(&in->head, in->slices, sizeof *slices, _Alignof(struct lathe_slice)) ||
        in->slices.count > c->limits.params.batch_slices ||
        !lathe_span_check(&in->head, in->kv_ops, sizeof(struct lathe_kv_op), _Alignof(struct lathe_kv_op)))
        return lathe_fail(err, LATHE_EINVAL, "model sim: forward: the message's slices or operations are not in the "
                          "message, or more than %u", c->limits.params.batch_slices);
    for (uint64_t i = 0; i < in->slices.count; i++) {
        rows += slices[i].token_count;
        if (slices[i].first_position < 0 ||
            (uint64_t)slices[i].first_position + slices[i].token_count > c->limits.params.context_tokens)
            return lathe_fail(err, LATHE_ERANGE, "model sim: forward: slice %llu reaches beyond the context of %u tokens",
                              (unsigned long long)i, c->limits.params.context_tokens);
    }
    if (rows > c->limits.params.batch_tokens)
        return lathe_fail(err, LATHE_ERANGE, "model sim: forward: %llu rows, the context was made for %u",
                          (unsigned long long)rows, c->limits.params.batch_tokens);
    return LATHE_OK;
}

/* Blocks that move take time. There are no bytes, so a handle isn't looked up; what can't be is refused. */
static int count_moves(const struct sim_context *c, const struct lathe_kv_op *ops, uint64_t count, uint64_t *moved,
                       struct lathe_error *err)
{
    const uint32_t blocks = c->limits.params.blocks;
    for (uint64_t i = 0; i < count; i++) {
        const struct lathe_kv_op *op = &ops[i];
        int from = op->kind == LATHE_KV_COPY || op->kind == LATHE_KV_MOVE_OUT;
        int to = op->kind == LATHE_KV_COPY || op->kind == LATHE_KV_MOVE_IN;
        if (op->kind < LATHE_KV_COPY || op->kind > LATHE_KV_DROP || (from && (op->from < 0 || (uint32_t)op->from >= blocks)) ||
            (to && (op->to < 0 || (uint32_t)op->to >= blocks)) || op->tokens > c->limits.params.block_tokens)
            return lathe_fail(err, LATHE_ERANGE, "model sim: forward: KV operation %llu (kind %d, block %d to %d, %u tokens) "
                              "can't be: the pool has %u blocks of %u tokens", (unsigned long long)i, op->kind, op->from,
                              op->to, op->tokens, blocks, c->limits.params.block_tokens);
        *moved += op->kind == LATHE_KV_MOVE_OUT || op->kind == LATHE_KV_MOVE_IN;
    }
    return LATHE_OK;
}

/* One token for each output row; by its own request where the message has no tokens. */
static void pick(const struct lathe_slice *slices, uint64_t slice_count, uint64_t outputs, struct lathe_forward_out *reply)
{
    struct lathe_picked *picked = lathe_message_add(&reply->head, &reply->picked, outputs, sizeof *picked);
    if (!picked)
        return; /* no room: nobody asked */
    for (uint64_t i = 0; i < slice_count; i++)
        for (uint32_t k = 0; k < slices[i].output_count; k++)
            *picked++ = (struct lathe_picked){
                token_at(slices[i].request, (uint64_t)slices[i].first_position + slices[i].token_count + k), NAN
            };
}

/* Whoever wants logits gets a clear winner: a function of the row's own token and place. */
static void write_logits(const struct forward_batch *b)
{
    float *logits = b->logits;
    for (uint32_t s = 0; s < b->slice_count; s++)
        for (uint32_t k = 0; (b->slices[s].flags & LATHE_SLICE_LOGITS) && k < b->slices[s].output_count; k++) {
            const struct forward_row *row = &b->rows[b->slice_rows[s] + b->outputs[b->slices[s].output_first + k]];
            memset(logits, 0, VOCAB * sizeof *logits);
            logits[token_at(row->token, (uint64_t)row->position)] = 10.0f;
            logits += VOCAB;
        }
}

static int forward(void *self, const void *in_, void *out, struct lathe_error *err)
{
    struct sim_context *c = self;
    const struct lathe_forward_in *in = in_;
    struct lathe_forward_out *reply = out;
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    int bare = in->tokens.count == 0 && in->slices.count > 0;
    struct sim_work work = { 0 };
    uint64_t outputs = 0;
    int status = bare ? check_bare(c, in, slices, err) : forward_batch_check(&c->limits, in, reply, &c->batch, err);
    if (status || (status = count_moves(c, LATHE_SPAN(const struct lathe_kv_op, in, in->kv_ops), in->kv_ops.count,
                                        &work.moved_blocks, err)))
        return status;
    for (uint64_t i = 0; i < in->slices.count; i++) {
        sim_work_add(&work, &slices[i]);
        outputs += slices[i].output_count;
    }
    reply->head.bytes = sizeof *reply;
    if (bare)
        pick(slices, in->slices.count, outputs, reply);
    else
        write_logits(&c->batch);
    reply->duration_ns = sim_duration_ns(&c->model->cost, &work, c->limits.params.seed, in->step);
    reply->head.started_ns = reply->head.ended_ns = c->model->host->now_ns(c->model->host->context);
    return LATHE_OK;
}

static const void *get_extension(void *self, const char *id)
{
    static const struct lathe_model_ability ability = { .size = sizeof ability };
    (void)self;
    return !strcmp(id, LATHE_MODEL_PICK) || !strcmp(id, LATHE_MODEL_TIME) || !strcmp(id, LATHE_MODEL_LENGTHS) ? &ability
                                                                                                              : NULL;
}

static const struct lathe_model_api api = {
    .size = sizeof api,
    .abi = LATHE_MODEL_ABI,
    .create = create,
    .destroy = destroy,
    .get_extension = get_extension,
    .describe = describe,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .forward = forward,
};

/* The defaults are of the order of a 7B model on one accelerator; a claim about a machine needs
 * a profile fitted to it. */
static const struct lathe_option options[OPT_COUNT] = {
    [SIM_STEP] = { "step_us", LATHE_OPTION_NUMBER, "8000", 0, 1e12, "us", NULL, "Every step: reading the weights." },
    [SIM_FLOOR] = { "floor_us", LATHE_OPTION_NUMBER, "0", 0, 1e12, "us", NULL, "No step is shorter than this." },
    [SIM_PREFILL] = { "prefill_us", LATHE_OPTION_NUMBER, "80", 0, 1e12, "us", NULL, "A prompt token." },
    [SIM_PREFILL_CONTEXT] = { "prefill_context_ns", LATHE_OPTION_NUMBER, "2", 0, 1e12, "ns", NULL,
                              "A prompt token and a position before it." },
    [SIM_DECODE] = { "decode_us", LATHE_OPTION_NUMBER, "40", 0, 1e12, "us", NULL, "A decoded token." },
    [SIM_DECODE_CONTEXT] = { "decode_context_ns", LATHE_OPTION_NUMBER, "60", 0, 1e12, "ns", NULL,
                             "A position that a decoded token looks at: reading keys and values." },
    [SIM_PADDING] = { "padding_us", LATHE_OPTION_NUMBER, "40", 0, 1e12, "us", NULL, "A row that is computed and thrown away." },
    [SIM_SWAP] = { "swap_us", LATHE_OPTION_NUMBER, "300", 0, 1e12, "us", NULL, "A KV block moved to host memory, or back." },
    [SIM_NOISE] = { "noise", LATHE_OPTION_NUMBER, "0", 0, 5, "", NULL,
                    "Sigma of a log-normal factor with mean 1 on each step, drawn from the run's seed; 0: none." },
    [OPT_TABLES + SIM_ROWS] = { "rows_us", LATHE_OPTION_STRING, "", 0, 0, "", NULL,
                                "A table of a step's rows, \"1:3100, 8:4000, 9:8100\": rows, microseconds; linear between." },
    [OPT_TABLES + SIM_REST] = { "rest_us", LATHE_OPTION_STRING, "", 0, 0, "", NULL,
                                "\"1:900, 2:800, 3:1700\": more where the rows are no multiple of a group, here of 4, by what is left." },
    [OPT_TABLES + SIM_OUTPUTS] = { "outputs_us", LATHE_OPTION_STRING, "", 0, 0, "", NULL,
                                   "A table of the rows that give a token: the output matrix and the sampler." },
    [OPT_PROFILE] = { "profile", LATHE_OPTION_PATH, "", 0, 0, "", NULL,
                      "A file of these costs, name = value; what it doesn't name costs nothing, an option given here wins." },
    [OPT_KV_BYTES] = { "kv_bytes_per_token", LATHE_OPTION_INTEGER, "2048", 0, 1e12, "bytes", NULL,
                       "Of one position: how many fit into the KV cache's memory. As given, its default of 256 MB holds "
                       "131,072, what a 7B model leaves room for on an accelerator." },
    [OPT_CONTEXT] = { "context", LATHE_OPTION_INTEGER, "32768", 16, 16777216, "tokens", NULL, "Longest request." },
};

LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_MODEL,
    .concurrency = LATHE_SERIAL,
    .name = "sim",
    .version = "1.0.0",
    .summary = "A model that is only its time: step costs by formula or profile, for the virtual clock.",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

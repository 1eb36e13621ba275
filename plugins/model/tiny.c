/* SPDX-License-Identifier: MIT */
/* A small deterministic model for tests: a real transformer that needs no file.
 *
 * Weights are drawn from Philox by (seed, tensor, element), so the same seed is the same
 * model everywhere. Everything that an engine can ask of a model is really done, by plain
 * loops: keys and values in blocks, grouped heads, rotary positions, kept lists by request,
 * layer or head, keys rotated when read, masses, padding, KV operations, all probe formats,
 * all interventions. Rows are computed one by one, each in the same order of operations
 * whatever else is in the batch: the same tokens give the same bits.
 *
 *     x = embedding[token]                       (width)
 *     each layer: x += Wo · attention(Wq·n, Wk·n, Wv·n),  n = x / rms(x)
 *                 x += W2 · relu(W1 · n)
 *     logits = Wout · (x / rms(x))               (vocab 260: bytes, bos, eos, two chat marks) */
#include <math.h>
#include <string.h>
#include <time.h>

#include <forward/batch.h>
#include <forward/edit.h>
#include <forward/kv.h>
#include <forward/layers.h>
#include <forward/probe.h>
#include <lathe/host.h>
#include <lathe/random.h>

enum { VOCAB = 260, HEAD_WIDTH = 8, MAX_WIDTH = 16 * HEAD_WIDTH };
enum { OPT_SEED, OPT_LAYERS, OPT_HEADS, OPT_CONTEXT, OPT_DELAY_US, OPT_FAIL_AFTER, OPT_SWAP_BLOCKS, OPT_FAIL_COUNT,
       OPT_FAIL_STATUS, OPT_COUNT };

struct tiny_layer {
    float *q, *k, *v, *o;   /* (width, width), k and v (kv_width, width) */
    float *up, *down;       /* (2 width, width), (width, 2 width) */
};

struct tiny {
    const struct lathe_host *host;
    uint32_t layers, heads, kv_heads, width, kv_width, context;
    uint32_t delay_us, fail_after, fail_count, swap_blocks;
    int fail_status;
    float *memory;          /* all weights */
    size_t weights;         /* floats in it */
    float *embedding, *output; /* (VOCAB, width) */
    struct tiny_layer layer[16];
};

struct tiny_context {
    const struct tiny *model;
    struct forward_limits limits;
    struct forward_batch batch;
    struct forward_kv kv;
    int unrotated;          /* keys are stored as projected, and rotated when they are read */
    float *x, *q, *own;     /* (batch_tokens, width); own: keys and values of padding rows */
    float *weights;         /* (context_tokens) */
    float *value_norms;     /* (context_tokens): for the probe of values */
    uint64_t forwards;
};

static float *draw(struct tiny *t, uint32_t tensor, size_t count, float scale, int64_t seed, size_t *at)
{
    float *w = t->memory + *at;
    for (size_t i = 0; i < count; i++)
        w[i] = scale * (float)(2 * lathe_random_unit((uint64_t)seed, LATHE_RANDOM_WEIGHTS, tensor, (uint32_t)i) - 1);
    *at += count;
    return w;
}

static int tiny_create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                       struct lathe_error *err)
{
    const struct lathe_option_value *v = config->values;
    struct tiny *t = lathe_alloc(host, sizeof *t);
    if (!t)
        return lathe_fail(err, LATHE_ENOMEM, "model tiny: no memory for %zu bytes", sizeof *t);
    t->host = host;
    t->layers = (uint32_t)v[OPT_LAYERS].integer;
    t->heads = (uint32_t)v[OPT_HEADS].integer;
    t->kv_heads = t->heads % 2 ? t->heads : t->heads / 2;
    t->width = t->heads * HEAD_WIDTH;
    t->kv_width = t->kv_heads * HEAD_WIDTH;
    t->context = (uint32_t)v[OPT_CONTEXT].integer;
    t->delay_us = (uint32_t)v[OPT_DELAY_US].integer;
    t->fail_after = (uint32_t)v[OPT_FAIL_AFTER].integer;
    t->swap_blocks = (uint32_t)v[OPT_SWAP_BLOCKS].integer;
    t->fail_count = (uint32_t)v[OPT_FAIL_COUNT].integer;
    static const int statuses[] = { LATHE_EINTERNAL, LATHE_EIO, LATHE_EUNAVAILABLE, LATHE_ELOST }; /* by choice */
    t->fail_status = statuses[v[OPT_FAIL_STATUS].integer];
    size_t w = t->width, kw = t->kv_width, at = 0;
    t->weights = 2 * VOCAB * w + t->layers * (2 * w * w + 2 * kw * w + 4 * w * w);
    t->memory = lathe_alloc_array(host, t->weights, sizeof(float));
    if (!t->memory) {
        size_t wanted = t->weights * sizeof(float);
        lathe_free(host, t);
        return lathe_fail(err, LATHE_ENOMEM, "model tiny: no memory for %zu bytes of weights", wanted);
    }
    int64_t seed = v[OPT_SEED].integer;
    float in = 2.0f / sqrtf((float)w);
    t->embedding = draw(t, 0, VOCAB * w, 1.0f, seed, &at);
    t->output = draw(t, 1, VOCAB * w, 3.0f * in, seed, &at); /* margins well above rounding */
    for (uint32_t l = 0; l < t->layers; l++) {
        struct tiny_layer *layer = &t->layer[l];
        uint32_t tensor = 2 + 6 * l;
        layer->q = draw(t, tensor + 0, w * w, 1.5f * in, seed, &at);
        layer->k = draw(t, tensor + 1, kw * w, 1.5f * in, seed, &at);
        layer->v = draw(t, tensor + 2, kw * w, in, seed, &at);
        layer->o = draw(t, tensor + 3, w * w, in, seed, &at);
        layer->up = draw(t, tensor + 4, 2 * w * w, in, seed, &at);
        layer->down = draw(t, tensor + 5, 2 * w * w, in, seed, &at);
    }
    *self = t;
    return 0;
}

static void tiny_destroy(void *self)
{
    struct tiny *t = self;
    if (!t)
        return;
    lathe_free(t->host, t->memory);
    lathe_free(t->host, t);
}

static struct forward_kv_shape kv_shape(const struct tiny *t)
{
    return (struct forward_kv_shape){ t->layers, t->kv_heads, HEAD_WIDTH, t->swap_blocks };
}

static int tiny_describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    const struct tiny *t = self;
    struct lathe_model_info *info = out;
    struct forward_kv_shape shape = kv_shape(t);
    int status = forward_reply_check(&info->head, sizeof *info, "describe", err);
    (void)in;
    if (status)
        return status;
    uint64_t capacity = info->head.capacity;
    *info = (struct lathe_model_info){
        .head = { .capacity = capacity, .bytes = sizeof *info },
        .architecture = "tiny", .name = "tiny", .quantization = "F32",
        .layers = t->layers, .heads = t->heads, .kv_heads = t->kv_heads, .head_width = HEAD_WIDTH,
        .embedding_width = t->width, .vocab_tokens = VOCAB, .context_tokens = t->context,
        .probe_formats = FORWARD_HEAD_FORMATS | FORWARD_LAYER_FORMATS, .interventions = FORWARD_INTERVENTIONS,
        .parameters = t->weights, .weight_bytes = t->weights * sizeof(float),
        .kv_bytes_per_token = forward_kv_bytes_per_token(&shape, LATHE_F32), .kv_dtypes = 1u << LATHE_F32,
    };
    return 0;
}

static void tiny_context_destroy(void *context)
{
    struct tiny_context *c = context;
    if (!c)
        return;
    const struct lathe_host *host = c->model->host;
    forward_kv_close(&c->kv);
    lathe_free(host, c->batch.rows);
    lathe_free(host, c->batch.slice_rows);
    lathe_free(host, c->batch.slice_kept);
    lathe_free(host, c->batch.slice_mass);
    lathe_free(host, c->x);
    lathe_free(host, c->q);
    lathe_free(host, c->own);
    lathe_free(host, c->weights);
    lathe_free(host, c->value_norms);
    lathe_free(host, c);
}

static int tiny_context_create(void *self, const struct lathe_context_params *params, void **context,
                               struct lathe_error *err)
{
    const struct tiny *t = self;
    const struct lathe_host *host = t->host;
    struct forward_kv_shape shape = kv_shape(t);
    int status = forward_params_check(params, err);
    if (status)
        return status;
    if (params->kv_dtype != LATHE_F32)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "model tiny keeps keys and values in F32, not %s",
                          lathe_dtype_name(params->kv_dtype));
    if (params->context_tokens > t->context)
        return lathe_fail(err, LATHE_ERANGE, "model tiny has a context of %u tokens (its option context), %u wanted",
                          t->context, params->context_tokens);
    struct tiny_context *c = lathe_alloc(host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "model tiny: no memory for a context of %zu bytes", sizeof *c);
    c->model = t;
    c->limits = (struct forward_limits){ .params = *params, .vocab_tokens = VOCAB, .embedding_width = t->width,
                                         .layers = t->layers, .heads = t->heads, .kv_heads = t->kv_heads,
                                         .head_width = HEAD_WIDTH,
                                         .probe_formats = FORWARD_HEAD_FORMATS | FORWARD_LAYER_FORMATS,
                                         .interventions = FORWARD_INTERVENTIONS };
    c->unrotated = (params->kv_flags & LATHE_KV_KEYS_UNROTATED) != 0;
    size_t rows = params->batch_tokens, row = t->width * sizeof(float);
    c->batch.rows = lathe_alloc_array(host, rows, sizeof *c->batch.rows);
    c->batch.slice_rows = lathe_alloc_array(host, params->batch_slices, sizeof(uint32_t));
    c->batch.slice_kept = lathe_alloc_array(host, params->batch_slices, sizeof(uint32_t));
    c->batch.slice_mass = lathe_alloc_array(host, params->batch_slices, sizeof(uint64_t));
    c->x = lathe_alloc_array(host, rows, row);
    c->q = lathe_alloc_array(host, rows, row);
    c->own = lathe_alloc_array(host, rows, 2 * row);
    c->weights = lathe_alloc_array(host, params->context_tokens, sizeof(float));
    c->value_norms = lathe_alloc_array(host, params->context_tokens, sizeof(float));
    if (!c->batch.rows || !c->batch.slice_rows || !c->batch.slice_kept || !c->batch.slice_mass || !c->x || !c->q || !c->own ||
        !c->weights || !c->value_norms)
        status = lathe_fail(err, LATHE_ENOMEM, "model tiny: no memory for the scratch of %u rows", params->batch_tokens);
    else
        status = forward_kv_open(&c->kv, host, &shape, params, err);
    if (status) {
        tiny_context_destroy(c);
        return status;
    }
    *context = c;
    return 0;
}

/* y (rows) = W (rows, columns) · x */
static void multiply(float *y, const float *w, const float *x, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows; i++) {
        float sum = 0;
        for (uint32_t j = 0; j < columns; j++)
            sum += w[(size_t)i * columns + j] * x[j];
        y[i] = sum;
    }
}

static void normalize(float *y, const float *x, uint32_t width)
{
    float sum = 0;
    for (uint32_t i = 0; i < width; i++)
        sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)width + 1e-5f);
    for (uint32_t i = 0; i < width; i++)
        y[i] = x[i] * scale;
}

/* Rotates pairs of each head by the position. */
static void rotate(float *x, uint32_t heads, int32_t position)
{
    for (uint32_t i = 0; i < HEAD_WIDTH; i += 2) {
        float angle = (float)position * powf(100.0f, -(float)i / HEAD_WIDTH), c = cosf(angle), s = sinf(angle);
        for (uint32_t h = 0; h < heads; h++) {
            float *pair = x + h * HEAD_WIDTH + i, a = pair[0], b = pair[1];
            pair[0] = a * c - b * s;
            pair[1] = a * s + b * c;
        }
    }
}

/* A head's key (side 0) or value (1) of one position, where it lies. */
static float *kv_row(struct tiny_context *c, const struct lathe_slice *slice, int32_t position, uint32_t layer, int side,
                     uint32_t kv_head)
{
    uint32_t step = c->kv.block_tokens;
    int32_t block = c->batch.blocks[slice->block_first + (uint32_t)position / step];
    return (float *)forward_kv_at(&c->kv, block, layer, side, kv_head) + (uint32_t)position % step * HEAD_WIDTH;
}

/* Query, key and value of one row; key and value go to their block (padding: to its own place). */
static void project(struct tiny_context *c, uint32_t r, uint32_t l)
{
    const struct tiny *t = c->model;
    const struct forward_row *row = &c->batch.rows[r];
    const struct lathe_slice *slice = &c->batch.slices[row->slice];
    float n[MAX_WIDTH], *q = c->q + (size_t)r * t->width, *key = c->own + (size_t)r * 2 * t->width;
    float *value = key + t->width;
    normalize(n, c->x + (size_t)r * t->width, t->width);
    multiply(q, t->layer[l].q, n, t->width, t->width);
    multiply(key, t->layer[l].k, n, t->kv_width, t->width);
    multiply(value, t->layer[l].v, n, t->kv_width, t->width);
    rotate(q, t->heads, forward_row_turn(&c->batch, row));
    if (!c->unrotated)
        rotate(key, t->kv_heads, row->position);
    if (slice->flags & LATHE_SLICE_PADDING)
        return;
    for (uint32_t h = 0; h < t->kv_heads; h++) {
        memcpy(kv_row(c, slice, row->position, l, 0, h), key + h * HEAD_WIDTH, HEAD_WIDTH * sizeof(float));
        memcpy(kv_row(c, slice, row->position, l, 1, h), value + h * HEAD_WIDTH, HEAD_WIDTH * sizeof(float));
    }
}

/* The j-th key that a row sees, as it is to be multiplied with the query; `room` if it must be rotated first. */
static const float *key_at(struct tiny_context *c, uint32_t s, uint32_t set, uint32_t j, uint32_t layer, uint32_t kv_head,
                           float *room)
{
    const float *key = kv_row(c, &c->batch.slices[s], forward_key_position(&c->batch, s, set, j), layer, 0, kv_head);
    if (!c->unrotated)
        return key;
    memcpy(room, key, HEAD_WIDTH * sizeof *room);
    rotate(room, 1, forward_key_turn(&c->batch, s, set, j));
    return room;
}

/* y (HEAD_WIDTH) = softmax(q · keys) · values for one head of one row. */
static void attend(struct tiny_context *c, uint32_t r, uint32_t l, uint32_t head, float *y)
{
    const struct tiny *t = c->model;
    const struct forward_row *row = &c->batch.rows[r];
    const struct lathe_slice *slice = &c->batch.slices[row->slice];
    uint32_t kv_head = head / (t->heads / t->kv_heads), set = forward_set(&c->batch, l, kv_head);
    float room[HEAD_WIDTH], *masses = forward_masses(&c->batch, row->slice, set);
    const float *q = c->q + (size_t)r * t->width + head * HEAD_WIDTH;
    uint32_t probed = forward_probed(&c->batch, row, l, head);
    float *w = c->weights, largest = -INFINITY, sum = 0, dot = 0;
    int went = 0;
    for (uint32_t j = 0; j < row->keys; j++) {
        const float *k = key_at(c, row->slice, set, j, l, kv_head, room);
        w[j] = 0;
        for (uint32_t i = 0; i < HEAD_WIDTH; i++)
            w[j] += q[i] * k[i];
        w[j] /= sqrtf((float)HEAD_WIDTH);
    }
    if (row->edits)
        went = forward_edit_keys(&c->batch, row, l, head, w);
    if (probed & FORWARD_BEFORE_SOFTMAX)
        forward_probe_scores(&c->batch, row, l, head, w);
    if (row->edits)
        forward_edit_uniform(&c->batch, row, l, head, w);
    for (uint32_t j = 0; j < row->keys; j++)
        largest = w[j] > largest ? w[j] : largest;
    for (uint32_t j = 0; j < row->keys; j++) {
        float score = w[j] - largest;
        w[j] = expf(score);
        sum += w[j];
        dot += w[j] * score;
    }
    if (went)
        forward_edit_weights(row, w);
    memset(y, 0, HEAD_WIDTH * sizeof(float));
    for (uint32_t j = 0; j < row->keys; j++) {
        const float *v = kv_row(c, slice, forward_key_position(&c->batch, row->slice, set, j), l, 1, kv_head);
        float squares = 0;
        for (uint32_t i = 0; i < HEAD_WIDTH; i++) {
            y[i] += w[j] / sum * v[i];
            squares += v[i] * v[i];
        }
        c->value_norms[j] = sqrtf(squares);
    }
    for (uint32_t j = 0; masses && j < row->keys; j++)
        masses[j] += w[j] / sum;
    if (probed & FORWARD_AFTER_SOFTMAX) {
        struct forward_weights weights = { w, 1 / sum, logf(sum) - dot / sum, set, c->value_norms };
        forward_probe_pack(&c->batch, row, l, head, &weights);
    }
}

/* x += n, the layer's attention or MLP. */
static void add(struct tiny_context *c, const struct forward_row *row, uint32_t l, uint32_t kind, float *x, const float *n)
{
    uint32_t width = c->model->width;
    float before[MAX_WIDTH], factor = row->edits ? forward_edit_factor(&c->batch, row, l, kind) : 1;
    memcpy(before, x, width * sizeof(float));
    for (uint32_t i = 0; i < width; i++)
        x[i] += factor * n[i];
    if (row->layer_probes)
        forward_layer_added(&c->batch, row, l, kind == LATHE_MLP_SCALE ? FORWARD_FEED : FORWARD_ATTENTION, x, before);
}

static void probe_layer(struct tiny_context *c, const struct forward_row *row, uint32_t l, const float *x)
{
    float n[MAX_WIDTH], logits[VOCAB];
    forward_layer_ends(&c->batch, row, l, x);
    if (forward_layer_wants(&c->batch, row, l) >> LATHE_PROBE_LENS & 1) {
        normalize(n, x, c->model->width);
        multiply(logits, c->model->output, n, VOCAB, c->model->width);
        forward_lens_pack(&c->batch, row, l, logits);
    }
}

static void finish_layer(struct tiny_context *c, uint32_t r, uint32_t l)
{
    const struct tiny *t = c->model;
    const struct forward_row *row = &c->batch.rows[r];
    const struct lathe_slice *slice = &c->batch.slices[row->slice];
    uint32_t group = t->heads / t->kv_heads;
    float y[MAX_WIDTH], n[MAX_WIDTH], up[2 * MAX_WIDTH], *x = c->x + (size_t)r * t->width;
    for (uint32_t h = 0; h < t->heads; h++) {
        if (slice->flags & LATHE_SLICE_PADDING) /* it sees itself alone: its own value */
            memcpy(y + h * HEAD_WIDTH, c->own + (size_t)r * 2 * t->width + t->width + h / group * HEAD_WIDTH,
                   HEAD_WIDTH * sizeof(float));
        else
            attend(c, r, l, h, y + h * HEAD_WIDTH);
    }
    if (row->edits)
        forward_edit_heads(&c->batch, row, l, y);
    if (row->layer_probes)
        forward_layer_heads(&c->batch, row, l, x, y);
    multiply(n, t->layer[l].o, y, t->width, t->width);
    add(c, row, l, LATHE_ATTENTION_SCALE, x, n);
    normalize(n, x, t->width);
    multiply(up, t->layer[l].up, n, 2 * t->width, t->width);
    for (uint32_t i = 0; i < 2 * t->width; i++)
        up[i] = up[i] > 0 ? up[i] : 0;
    multiply(n, t->layer[l].down, up, t->width, 2 * t->width);
    add(c, row, l, LATHE_MLP_SCALE, x, n);
    const float *patch = row->edits ? forward_edit_patch(&c->batch, row, l) : NULL;
    if (patch)
        memcpy(x, patch, t->width * sizeof(float));
    if (row->layer_probes)
        probe_layer(c, row, l, x);
}

static void write_outputs(struct tiny_context *c)
{
    const struct tiny *t = c->model;
    struct forward_batch *b = &c->batch;
    float *logits = b->logits, *hidden = b->hidden, n[MAX_WIDTH];
    for (uint32_t s = 0; s < b->slice_count; s++)
        for (uint32_t k = 0; k < b->slices[s].output_count; k++) {
            uint32_t r = b->slice_rows[s] + b->outputs[b->slices[s].output_first + k];
            normalize(n, c->x + (size_t)r * t->width, t->width);
            if (b->slices[s].flags & LATHE_SLICE_LOGITS) {
                multiply(logits, t->output, n, VOCAB, t->width);
                logits += VOCAB;
            }
            if (b->slices[s].flags & LATHE_SLICE_HIDDEN) {
                memcpy(hidden, n, t->width * sizeof(float));
                hidden += t->width;
            }
        }
}

/* Keeps the processor busy as a larger model would, for tests of timing. The machine's own
 * clock: the host's may stand still, and no row is stamped with this. */
static void delay(uint32_t us)
{
    struct timespec now, start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000ll + now.tv_nsec - start.tv_nsec < us * 1000ll);
}

static int tiny_forward(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct tiny_context *c = self;
    const struct tiny *t = c->model;
    struct lathe_forward_out *reply = out;
    int64_t started = t->host->now_ns(t->host->context);
    int status = forward_batch_check(&c->limits, in, reply, &c->batch, err);
    if (status || (status = forward_kv_ops(&c->kv, c->batch.ops, c->batch.op_count, err)))
        return status;
    c->forwards++;
    if (t->delay_us)
        delay(t->delay_us);
    if (t->fail_after && c->forwards >= t->fail_after && c->forwards - t->fail_after < t->fail_count)
        return lathe_fail(err, t->fail_status, "model tiny: forward %llu failed, as its option fail_after asked",
                          (unsigned long long)c->forwards);
    for (uint32_t r = 0; r < c->batch.row_count; r++)
        memcpy(c->x + (size_t)r * t->width, t->embedding + (size_t)c->batch.rows[r].token * t->width,
               t->width * sizeof(float));
    for (uint32_t l = 0; l < t->layers; l++) {
        for (uint32_t r = 0; r < c->batch.row_count; r++)
            project(c, r, l);
        for (uint32_t r = 0; r < c->batch.row_count; r++)
            finish_layer(c, r, l);
    }
    write_outputs(c);
    reply->head.bytes = sizeof *reply;
    reply->head.started_ns = started;
    reply->head.ended_ns = t->host->now_ns(t->host->context);
    return 0;
}

static const void *tiny_extension(void *self, const char *id)
{
    static const struct lathe_model_ability ability = { .size = sizeof ability };
    (void)self;
    return strcmp(id, LATHE_MODEL_KEY_MASS) == 0 ? &ability : NULL;
}

static const struct lathe_model_api tiny_api = {
    .size = sizeof tiny_api,
    .abi = LATHE_MODEL_ABI,
    .create = tiny_create,
    .destroy = tiny_destroy,
    .get_extension = tiny_extension,
    .describe = tiny_describe,
    .context_create = tiny_context_create,
    .context_destroy = tiny_context_destroy,
    .forward = tiny_forward,
};

static const struct lathe_option tiny_options[OPT_COUNT] = {
    [OPT_SEED] = { "seed", LATHE_OPTION_INTEGER, "1", 0, 1e15, "", NULL, "Another seed is another model." },
    [OPT_LAYERS] = { "layers", LATHE_OPTION_INTEGER, "2", 1, 16, "layers", NULL, "How many layers it has." },
    [OPT_HEADS] = { "heads", LATHE_OPTION_INTEGER, "2", 1, 16, "heads",
                    NULL, "Heads of width 8; an even number shares keys and values in pairs." },
    [OPT_CONTEXT] = { "context", LATHE_OPTION_INTEGER, "2048", 16, 1048576, "tokens", NULL, "Longest request." },
    [OPT_DELAY_US] = { "delay_us", LATHE_OPTION_INTEGER, "0", 0, 1e7, "us",
                       NULL, "Keeps the processor busy this long in each forward." },
    [OPT_FAIL_AFTER] = { "fail_after", LATHE_OPTION_INTEGER, "0", 0, 1e9, "forwards",
                         NULL, "The forward of this number in a context fails; 0: none." },
    [OPT_SWAP_BLOCKS] = { "swap_blocks", LATHE_OPTION_INTEGER, "64", 0, 1e6, "blocks",
                          NULL, "Room for KV blocks that are swapped out." },
    [OPT_FAIL_COUNT] = { "fail_count", LATHE_OPTION_INTEGER, "1", 1, 1e9, "forwards",
                         NULL, "So many in a row fail." },
    [OPT_FAIL_STATUS] = { "fail_status", LATHE_OPTION_CHOICE, "internal", 0, 0, "", "internal|io|unavailable|lost",
                          "How they fail: a broken promise, a fault that passes, out of reach, with its worker." },
};

LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_MODEL,
    .concurrency = LATHE_SERIAL,
    .name = "tiny",
    .version = "1.0.0",
    .summary = "A small deterministic transformer over bytes, for tests; needs no file.",
    .options = tiny_options,
    .option_count = OPT_COUNT,
    .api = &tiny_api,
};

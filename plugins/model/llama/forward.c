/* SPDX-License-Identifier: MIT */
/* The forward: tokens of a mixed batch in, logits out. The loop over layers is at the end. */
#include <string.h>

#include "llama.h"

/* Rows that one work item of a row-wise loop takes. */
enum { ROWS_AN_ITEM = 16 };

struct rows_job {
    struct llama_context *context;
    uint32_t layer;
    const float *norm;
};

static void for_rows(struct llama_context *c, void (*work)(void *, uint32_t, uint32_t), struct rows_job *job)
{
    pool_run(c->pool, (c->batch.row_count + ROWS_AN_ITEM - 1) / ROWS_AN_ITEM, work, job);
}

static uint32_t last_row(const struct llama_context *c, uint32_t item)
{
    uint32_t end = (item + 1) * ROWS_AN_ITEM;
    return end < c->batch.row_count ? end : c->batch.row_count;
}

/* x = embedding[token]; the turns of each row's position. */
static void embed_rows(void *arg, uint32_t item, uint32_t thread)
{
    struct llama_context *c = ((struct rows_job *)arg)->context;
    const struct llama *m = c->model;
    const struct matrix *e = &m->embedding;
    (void)thread;
    for (uint32_t r = item * ROWS_AN_ITEM; r < last_row(c, item); r++) {
        const struct forward_row *row = &c->batch.rows[r];
        llama_row(m, e, (uint32_t)row->token, c->x + (size_t)r * m->shape.width);
        llama_turn(m, forward_row_turn(&c->batch, row), c->turns + (size_t)r * m->shape.rotated);
    }
}

/* h = rmsnorm(x) · norm */
static void norm_rows(void *arg, uint32_t item, uint32_t thread)
{
    const struct rows_job *job = arg;
    struct llama_context *c = job->context;
    size_t width = c->model->shape.width;
    (void)thread;
    for (uint32_t r = item * ROWS_AN_ITEM; r < last_row(c, item); r++)
        c->model->kernels->rmsnorm(c->h + r * width, c->x + r * width, job->norm, width, c->model->shape.epsilon);
}

static void store(const struct llama_context *c, void *to, const float *from)
{
    if (c->kv.dtype == LATHE_F16)
        c->model->kernels->float_to_half(to, from, c->kv.head_width);
    else if (c->kv.dtype == LATHE_Q8_0)
        c->model->kernels->quantize_q8_0(to, from, c->kv.head_width);
    else
        memcpy(to, from, c->kv.row_bytes);
}

/* Biases, rotation; keys and values into their blocks. */
static void place_rows(void *arg, uint32_t item, uint32_t thread)
{
    const struct rows_job *job = arg;
    struct llama_context *c = job->context;
    const struct llama *m = c->model;
    const struct llama_shape *s = &m->shape;
    const struct llama_layer *layer = &m->layers[job->layer];
    void (*rope)(float *, const float *, size_t) = s->halves ? m->kernels->rope_halves : m->kernels->rope_interleaved;
    (void)thread;
    for (uint32_t r = item * ROWS_AN_ITEM; r < last_row(c, item); r++) {
        const struct forward_row *row = &c->batch.rows[r];
        const struct lathe_slice *slice = &c->batch.slices[row->slice];
        float *q = c->qkv + r * c->qkv_width, *k = q + (size_t)s->heads * s->head, *v = k + (size_t)s->kv_heads * s->head;
        if (layer->q_bias)
            m->kernels->add(q, layer->q_bias, (size_t)s->heads * s->head);
        if (layer->k_bias)
            m->kernels->add(k, layer->k_bias, (size_t)s->kv_heads * s->head);
        if (layer->v_bias)
            m->kernels->add(v, layer->v_bias, (size_t)s->kv_heads * s->head);
        uint32_t turned = s->heads + (c->key_turns ? 0 : s->kv_heads); /* keys follow queries */
        for (uint32_t h = 0; h < turned; h++)
            rope(q + (size_t)h * s->head, c->turns + (size_t)r * s->rotated, s->rotated / 2);
        if (slice->flags & LATHE_SLICE_PADDING)
            continue;
        uint32_t step = c->kv.block_tokens, slot = (uint32_t)row->position % step;
        int32_t block = c->batch.blocks[slice->block_first + (uint32_t)row->position / step];
        for (uint32_t h = 0; h < s->kv_heads; h++) {
            unsigned char *keys = forward_kv_at(&c->kv, block, job->layer, 0, h);
            unsigned char *values = forward_kv_at(&c->kv, block, job->layer, 1, h);
            store(c, keys + slot * c->kv.row_bytes, k + (size_t)h * s->head);
            store(c, values + slot * c->kv.row_bytes, v + (size_t)h * s->head);
        }
    }
}

/* gate = silu(gate) ∘ up */
static void swiglu_rows(void *arg, uint32_t item, uint32_t thread)
{
    struct llama_context *c = ((struct rows_job *)arg)->context;
    size_t feed = c->model->shape.feed;
    (void)thread;
    for (uint32_t r = item * ROWS_AN_ITEM; r < last_row(c, item); r++) {
        float *gate = c->feed + r * 2 * feed;
        c->model->kernels->swiglu(gate, gate, gate + feed, feed);
    }
}

/* Only rows that were asked for are normalized, and only those that want logits are
 * multiplied with the output matrix. */
static void write_outputs(struct llama_context *c)
{
    const struct llama *m = c->model;
    const struct forward_batch *b = &c->batch;
    size_t width = m->shape.width;
    float *hidden = b->hidden;
    uint32_t rows = 0;
    for (uint32_t s = 0; s < b->slice_count; s++) {
        const struct lathe_slice *slice = &b->slices[s];
        for (uint32_t k = 0; k < slice->output_count; k++) {
            uint32_t r = b->slice_rows[s] + b->outputs[slice->output_first + k];
            float *out = c->out + rows * width;
            m->kernels->rmsnorm(out, c->x + r * width, m->output_norm, width, m->shape.epsilon);
            if (slice->flags & LATHE_SLICE_HIDDEN) {
                memcpy(hidden, out, width * sizeof(float));
                hidden += width;
            }
            if (slice->flags & LATHE_SLICE_LOGITS)
                rows++;
        }
    }
    if (rows)
        llama_product(c, &(struct product){ .y = b->logits, .y_stride = m->shape.vocab, .x = c->out, .x_stride = width,
                                            .m = rows, .parts = { &m->output }, .part_count = 1 });
}

static void forward_layers(struct llama_context *c)
{
    const struct llama *m = c->model;
    const struct llama_shape *s = &m->shape;
    size_t q = (size_t)s->heads * s->head;
    uint32_t n = c->batch.row_count;
    struct rows_job job = { .context = c };
    for_rows(c, embed_rows, &job);
    for (uint32_t l = 0; l < s->layers; l++) {
        const struct llama_layer *layer = &m->layers[l];
        job.layer = l;
        job.norm = layer->attention_norm;
        for_rows(c, norm_rows, &job);
        llama_product(c, &(struct product){ .y = c->qkv, .y_stride = c->qkv_width, .x = c->h, .x_stride = s->width, .m = n,
                                            .parts = { &layer->q, &layer->k, &layer->v }, .part_count = 3 });
        for_rows(c, place_rows, &job);
        llama_attention(c, l);
        llama_heads_done(c, l);
        llama_product(c, &(struct product){ .y = c->x, .y_stride = s->width, .x = c->mixed, .x_stride = q, .m = n,
                                            .parts = { &layer->o }, .part_count = 1, .add = 1 });
        llama_attention_added(c, l);
        job.norm = layer->feed_norm;
        for_rows(c, norm_rows, &job);
        llama_product(c, &(struct product){ .y = c->feed, .y_stride = 2 * (size_t)s->feed, .x = c->h,
                                            .x_stride = s->width, .m = n, .parts = { &layer->gate, &layer->up },
                                            .part_count = 2 });
        for_rows(c, swiglu_rows, &job);
        llama_feed_done(c, l);
        llama_product(c, &(struct product){ .y = c->x, .y_stride = s->width, .x = c->feed,
                                            .x_stride = 2 * (size_t)s->feed, .m = n, .parts = { &layer->down },
                                            .part_count = 1, .add = 1 });
        llama_layer_ends(c, l);
    }
}

int llama_forward(void *context, const void *in, void *out, struct lathe_error *err)
{
    struct llama_context *c = context;
    const struct lathe_host *host = c->model->host;
    struct lathe_forward_out *reply = out;
    int64_t started = host->now_ns(host->context);
    int status = forward_batch_check(&c->limits, in, reply, &c->batch, err);
    if (status || (status = forward_kv_ops(&c->kv, c->batch.ops, c->batch.op_count, err)))
        return status;
    if (c->batch.row_count) {
        llama_attention_tiles(c);
        forward_layers(c);
        write_outputs(c);
    }
    reply->head.bytes = sizeof *reply;
    reply->head.started_ns = started;
    reply->head.ended_ns = host->now_ns(host->context);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* What interventions and probes of layers do between the parts of a layer. Each of the four
 * places is one branch for a forward that has neither; rows that no one names are passed over.
 *
 * What a part adds to the residual stream x is x after it less x before it, and h is free
 * while a part's last product adds to x: it holds the rows from before. The logit lens gathers
 * the probed rows of all slices, so that the output matrix is read once for many of them. */
#include <string.h>

#include <forward/edit.h>
#include <forward/layers.h>

#include "llama.h"

enum { ROWS_AN_ITEM = 16 };

enum site { HEADS_DONE, ATTENTION_ADDED, FEED_DONE, LAYER_ENDS };

struct visit {
    struct llama_context *context;
    uint32_t layer;
    enum site site;
};

static void scale_row(struct llama_context *c, const struct forward_row *row, uint32_t layer, uint32_t kind, float *x,
                      size_t n)
{
    float factor = row->edits ? forward_edit_factor(&c->batch, row, layer, kind) : 1;
    if (factor != 1)
        c->model->kernels->scale(x, x, factor, n);
}

static void visit_row(const struct visit *v, uint32_t r)
{
    struct llama_context *c = v->context;
    const struct llama_shape *s = &c->model->shape;
    const struct forward_batch *b = &c->batch;
    const struct forward_row *row = &b->rows[r];
    size_t width = s->width, q = (size_t)s->heads * s->head;
    float *x = c->x + r * width, *before = c->h + r * width, *outputs = c->mixed + r * q, *feed = c->feed + r * 2 * s->feed;
    uint32_t wants = row->layer_probes ? forward_layer_wants(b, row, v->layer) : 0;
    int norms = (wants >> LATHE_PROBE_NORMS & 1) != 0;
    const float *patch;
    switch (v->site) {
    case HEADS_DONE:
        if (row->edits)
            forward_edit_heads(b, row, v->layer, outputs);
        if (norms)
            forward_layer_heads(b, row, v->layer, x, outputs);
        scale_row(c, row, v->layer, LATHE_ATTENTION_SCALE, outputs, q);
        break;
    case FEED_DONE:
        scale_row(c, row, v->layer, LATHE_MLP_SCALE, feed, s->feed);
        break;
    case ATTENTION_ADDED:
        if (norms)
            forward_layer_added(b, row, v->layer, FORWARD_ATTENTION, x, before);
        break;
    case LAYER_ENDS:
        if (norms)
            forward_layer_added(b, row, v->layer, FORWARD_FEED, x, before);
        if (row->edits && (patch = forward_edit_patch(b, row, v->layer)))
            memcpy(x, patch, width * sizeof(float));
        if (wants)
            forward_layer_ends(b, row, v->layer, x);
        break;
    }
    if (norms && (v->site == HEADS_DONE || v->site == FEED_DONE))
        memcpy(before, x, width * sizeof(float));
}

static void visit_rows(void *arg, uint32_t item, uint32_t thread)
{
    const struct visit *v = arg;
    const struct forward_batch *b = &v->context->batch;
    uint32_t end = (item + 1) * ROWS_AN_ITEM < b->row_count ? (item + 1) * ROWS_AN_ITEM : b->row_count;
    (void)thread;
    for (uint32_t r = item * ROWS_AN_ITEM; r < end; r++)
        if (b->rows[r].edits || b->rows[r].layer_probes)
            visit_row(v, r);
}

static void visit(struct llama_context *c, uint32_t layer, enum site site)
{
    struct visit v = { c, layer, site };
    if (c->batch.edits || c->batch.layer_probed)
        pool_run(c->pool, (c->batch.row_count + ROWS_AN_ITEM - 1) / ROWS_AN_ITEM, visit_rows, &v);
}

void llama_heads_done(struct llama_context *c, uint32_t layer)
{
    visit(c, layer, HEADS_DONE);
}

void llama_attention_added(struct llama_context *c, uint32_t layer)
{
    visit(c, layer, ATTENTION_ADDED);
}

void llama_feed_done(struct llama_context *c, uint32_t layer)
{
    visit(c, layer, FEED_DONE);
}

static void pack_lens(void *arg, uint32_t item, uint32_t thread)
{
    const struct visit *v = arg;
    struct llama_context *c = v->context;
    (void)thread;
    forward_lens_pack(&c->batch, &c->batch.rows[c->lens_rows[item]], v->layer,
                      c->lens + (size_t)item * c->model->shape.vocab);
}

static void look_through_lens(struct llama_context *c, uint32_t layer, uint32_t rows)
{
    const struct llama *m = c->model;
    struct visit v = { c, layer, LAYER_ENDS };
    llama_product(c, &(struct product){ .y = c->lens, .y_stride = m->shape.vocab, .x = c->h, .x_stride = m->shape.width,
                                        .m = rows, .parts = { &m->output }, .part_count = 1 });
    pool_run(c->pool, rows, pack_lens, &v);
}

void llama_layer_ends(struct llama_context *c, uint32_t layer)
{
    const struct llama *m = c->model;
    size_t width = m->shape.width;
    uint32_t rows = 0;
    visit(c, layer, LAYER_ENDS);
    for (uint32_t r = 0; c->batch.layer_probed && r < c->batch.row_count; r++) {
        const struct forward_row *row = &c->batch.rows[r];
        if (!row->layer_probes || !(forward_layer_wants(&c->batch, row, layer) >> LATHE_PROBE_LENS & 1))
            continue;
        m->kernels->rmsnorm(c->h + rows * width, c->x + r * width, m->output_norm, width, m->shape.epsilon);
        c->lens_rows[rows++] = r;
        if (rows == c->lens_capacity) {
            look_through_lens(c, layer, rows);
            rows = 0;
        }
    }
    if (rows)
        look_through_lens(c, layer, rows);
}

/* SPDX-License-Identifier: MIT */
/* The transformer written down once more, in double and without any cleverness: one request, all
 * rows at once, everything that a probe may ask for kept, every intervention done where its
 * header says. Weights are model/tiny's (drawn again) or an F32 GGUF file's. */
#ifndef TESTS_MODEL_OBSERVE_REFERENCE_H
#define TESTS_MODEL_OBSERVE_REFERENCE_H

#include <math.h>

#include <gguf/gguf.h>
#include <lathe/random.h>

#include "fixture.h"

enum { REF_ROWS = 24, REF_LAYERS = 4, REF_HEADS = 8, REF_WIDTH = 512, REF_VOCAB = 512, REF_FEED = 1024 };

struct reference {
    uint32_t layers, heads, kv_heads, head, width, feed, vocab;
    int gated;               /* silu(gate) · up; else relu(up) */
    double theta, epsilon;
    const float *embedding, *output, *output_norm; /* norms NULL: all 1 */
    struct {
        const float *attention_norm, *q, *k, *v, *feed_norm, *gate, *up, *down;
        float *o;
    } layer[REF_LAYERS];
    float *memory;
    struct gguf *file;
};

/* What happened: of each layer, head, row and key. */
struct ref_result {
    double scores[REF_LAYERS][REF_HEADS][REF_ROWS][REF_ROWS], weights[REF_LAYERS][REF_HEADS][REF_ROWS][REF_ROWS];
    double value_norm[REF_LAYERS][REF_HEADS][REF_ROWS], head_norm[REF_LAYERS][REF_HEADS][REF_ROWS];
    double before[REF_LAYERS][REF_ROWS], attention[REF_LAYERS][REF_ROWS], feed[REF_LAYERS][REF_ROWS];
    double after[REF_LAYERS][REF_ROWS], x[REF_LAYERS][REF_ROWS][REF_WIDTH];
    double logits[REF_ROWS][REF_VOCAB];
};

struct ref_edits {
    struct lathe_intervention list[8];
    uint32_t count;
    const float *floats;
    const int32_t *keys;
};

static float *ref_draw(struct reference *m, size_t *at, uint32_t tensor, size_t count, float scale)
{
    float *w = m->memory + *at;
    for (size_t i = 0; i < count; i++)
        w[i] = scale * (float)(2 * lathe_random_unit(1, LATHE_RANDOM_WEIGHTS, tensor, (uint32_t)i) - 1);
    *at += count;
    return w;
}

static void ref_tiny(struct reference *m, uint32_t layers, uint32_t heads)
{
    size_t w = heads * 8ul, kw = heads % 2 ? w : w / 2, at = 0;
    float in = 2.0f / sqrtf((float)w);
    *m = (struct reference){ layers, heads, (uint32_t)kw / 8, 8, (uint32_t)w, 2 * (uint32_t)w, 260, 0, 100, 1e-5, NULL, NULL,
                             NULL, { { 0 } }, NULL, NULL };
    m->memory = malloc((2 * 260 * w + layers * (2 * w * w + 2 * kw * w + 4 * w * w)) * sizeof(float));
    m->embedding = ref_draw(m, &at, 0, 260 * w, 1);
    m->output = ref_draw(m, &at, 1, 260 * w, 3 * in);
    for (uint32_t l = 0; l < layers; l++) {
        uint32_t tensor = 2 + 6 * l;
        m->layer[l].q = ref_draw(m, &at, tensor, w * w, 1.5f * in);
        m->layer[l].k = ref_draw(m, &at, tensor + 1, kw * w, 1.5f * in);
        m->layer[l].v = ref_draw(m, &at, tensor + 2, kw * w, in);
        m->layer[l].o = ref_draw(m, &at, tensor + 3, w * w, in);
        m->layer[l].up = ref_draw(m, &at, tensor + 4, 2 * w * w, in);
        m->layer[l].down = ref_draw(m, &at, tensor + 5, 2 * w * w, in);
    }
}

static const float *ref_tensor(const struct reference *m, int layer, const char *name)
{
    struct lathe_error err = { 0 };
    struct lathe_tensor t;
    char full[64];
    if (layer < 0)
        snprintf(full, sizeof full, "%s.weight", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    if (gguf_tensor(m->file, full, &t, &err) || t.dtype != LATHE_F32)
        return NULL;
    return t.data;
}

static void ref_llama(struct reference *m, struct fixture *f, const char *path)
{
    struct lathe_error err = { 0 };
    float epsilon = 0, theta = 10000;
    memset(m, 0, sizeof *m);
    if (gguf_open(&f->host, path, &m->file, &err))
        abort();
    m->layers = f->info.layers, m->heads = f->info.heads, m->kv_heads = f->info.kv_heads, m->head = f->info.head_width;
    m->width = f->info.embedding_width, m->vocab = f->info.vocab_tokens, m->gated = 1;
    gguf_get_u32(m->file, "llama.feed_forward_length", &m->feed, &err);
    gguf_get_f32(m->file, "llama.attention.layer_norm_rms_epsilon", &epsilon, &err);
    gguf_get_f32(m->file, "llama.rope.freq_base", &theta, &err);
    m->epsilon = epsilon, m->theta = theta;
    m->embedding = ref_tensor(m, -1, "token_embd");
    m->output = ref_tensor(m, -1, "output") ? ref_tensor(m, -1, "output") : m->embedding;
    m->output_norm = ref_tensor(m, -1, "output_norm");
    m->memory = malloc((size_t)m->layers * m->width * m->heads * m->head * sizeof(float));
    for (uint32_t l = 0; l < m->layers; l++) {
        size_t o = (size_t)m->width * m->heads * m->head;
        m->layer[l].attention_norm = ref_tensor(m, (int)l, "attn_norm"), m->layer[l].q = ref_tensor(m, (int)l, "attn_q");
        m->layer[l].k = ref_tensor(m, (int)l, "attn_k"), m->layer[l].v = ref_tensor(m, (int)l, "attn_v");
        m->layer[l].o = memcpy(m->memory + l * o, ref_tensor(m, (int)l, "attn_output"), o * sizeof(float));
        m->layer[l].feed_norm = ref_tensor(m, (int)l, "ffn_norm"), m->layer[l].gate = ref_tensor(m, (int)l, "ffn_gate");
        m->layer[l].up = ref_tensor(m, (int)l, "ffn_up"), m->layer[l].down = ref_tensor(m, (int)l, "ffn_down");
    }
}

static void ref_free(struct reference *m)
{
    free(m->memory);
    gguf_close(m->file);
}

static void ref_multiply(double *y, const float *w, const double *x, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows; i++) {
        y[i] = 0;
        for (uint32_t j = 0; j < columns; j++)
            y[i] += (double)w[(size_t)i * columns + j] * x[j];
    }
}

static void ref_normalize(const struct reference *m, double *y, const double *x, const float *weight)
{
    double sum = 0;
    for (uint32_t i = 0; i < m->width; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < m->width; i++)
        y[i] = x[i] / sqrt(sum / m->width + m->epsilon) * (weight ? weight[i] : 1);
}

static void ref_rotate(const struct reference *m, double *x, uint32_t position)
{
    for (uint32_t i = 0; i < m->head; i += 2) {
        double angle = position * pow(m->theta, -(double)i / m->head), a = x[i], b = x[i + 1];
        x[i] = a * cos(angle) - b * sin(angle);
        x[i + 1] = a * sin(angle) + b * cos(angle);
    }
}

static double ref_norm(const double *x, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

static int ref_holds(const struct lathe_intervention *e, uint32_t row, uint32_t layer)
{
    return (int32_t)row >= e->first_position && (e->last_position == -1 || (int32_t)row <= e->last_position) &&
           (e->layers[0] >> layer & 1);
}

static int ref_sees(const struct ref_edits *edits, uint32_t layer, uint32_t head, uint32_t row, uint32_t key)
{
    for (uint32_t i = 0; i < edits->count && key != row; i++) {
        const struct lathe_intervention *e = &edits->list[i];
        int listed = 0;
        if ((e->kind != LATHE_KEYS_DROP && e->kind != LATHE_KEYS_KEEP) || !ref_holds(e, row, layer) || !(e->heads[0] >> head & 1))
            continue;
        for (uint32_t k = 0; k < e->key_count; k++)
            listed |= edits->keys[e->key_first + k] == (int32_t)key;
        if (e->kind == LATHE_KEYS_DROP ? listed : !listed)
            return 0;
    }
    return 1;
}

static void ref_attend(const struct reference *m, const struct ref_edits *edits, uint32_t l, uint32_t h, uint32_t row,
                       const double *q, double keys[REF_ROWS][REF_WIDTH], double values[REF_ROWS][REF_WIDTH], double *y,
                       struct ref_result *r)
{
    double *scores = r->scores[l][h][row], *weights = r->weights[l][h][row], sum = 0, most = -INFINITY;
    uint32_t kv = h / (m->heads / m->kv_heads) * m->head;
    int uniform = 0;
    for (uint32_t i = 0; i < edits->count; i++)
        uniform |= edits->list[i].kind == LATHE_HEAD_UNIFORM && ref_holds(&edits->list[i], row, l) &&
                   (edits->list[i].heads[0] >> h & 1);
    for (uint32_t k = 0; k <= row; k++) {
        scores[k] = 0;
        for (uint32_t i = 0; i < m->head; i++)
            scores[k] += q[h * m->head + i] * keys[k][kv + i];
        scores[k] = ref_sees(edits, l, h, row, k) ? scores[k] / sqrt(m->head) : -INFINITY;
        most = scores[k] > most ? scores[k] : most;
        r->value_norm[l][h][k] = ref_norm(&values[k][kv], m->head);
    }
    for (uint32_t k = 0; k <= row; k++)
        sum += weights[k] = uniform ? scores[k] > -INFINITY : exp(scores[k] - most);
    memset(y, 0, m->head * sizeof *y);
    for (uint32_t k = 0; k <= row; k++) {
        weights[k] /= sum;
        for (uint32_t i = 0; i < m->head; i++)
            y[i] += weights[k] * values[k][kv + i];
    }
    for (uint32_t i = 0; i < edits->count; i++) {
        const struct lathe_intervention *e = &edits->list[i];
        for (uint32_t d = 0; d < m->head && ref_holds(e, row, l) && (e->heads[0] >> h & 1); d++)
            y[d] = e->kind == LATHE_HEAD_SCALE ? y[d] * e->factor
                   : e->kind == LATHE_HEAD_SET ? edits->floats[e->float_first + d] : y[d];
    }
    r->head_norm[l][h][row] = ref_norm(y, m->head);
}

/* x += y · factors of `kind` */
static double ref_add(const struct reference *m, const struct ref_edits *edits, uint32_t kind, uint32_t l, uint32_t row,
                      double *x, double *y)
{
    for (uint32_t i = 0; i < edits->count; i++)
        for (uint32_t d = 0; d < m->width && edits->list[i].kind == kind && ref_holds(&edits->list[i], row, l); d++)
            y[d] *= edits->list[i].factor;
    for (uint32_t d = 0; d < m->width; d++)
        x[d] += y[d];
    return ref_norm(y, m->width);
}

static void ref_logits(const struct reference *m, const double *x, double *logits)
{
    double n[REF_WIDTH];
    ref_normalize(m, n, x, m->output_norm);
    ref_multiply(logits, m->output, n, m->vocab, m->width);
}

static void ref_layer(const struct reference *m, const struct ref_edits *edits, uint32_t l, uint32_t rows,
                      double x[REF_ROWS][REF_WIDTH], struct ref_result *r)
{
    static double q[REF_ROWS][REF_WIDTH], k[REF_ROWS][REF_WIDTH], v[REF_ROWS][REF_WIDTH];
    double n[REF_WIDTH], y[REF_WIDTH], gate[REF_FEED], up[REF_FEED];
    for (uint32_t row = 0; row < rows; row++) {
        ref_normalize(m, n, x[row], m->layer[l].attention_norm);
        ref_multiply(q[row], m->layer[l].q, n, m->heads * m->head, m->width);
        ref_multiply(k[row], m->layer[l].k, n, m->kv_heads * m->head, m->width);
        ref_multiply(v[row], m->layer[l].v, n, m->kv_heads * m->head, m->width);
        for (uint32_t h = 0; h < m->heads; h++)
            ref_rotate(m, q[row] + h * m->head, row);
        for (uint32_t h = 0; h < m->kv_heads; h++)
            ref_rotate(m, k[row] + h * m->head, row);
    }
    for (uint32_t row = 0; row < rows; row++) {
        r->before[l][row] = ref_norm(x[row], m->width);
        for (uint32_t h = 0; h < m->heads; h++)
            ref_attend(m, edits, l, h, row, q[row], k, v, y + h * m->head, r);
        ref_multiply(n, m->layer[l].o, y, m->width, m->heads * m->head);
        r->attention[l][row] = ref_add(m, edits, LATHE_ATTENTION_SCALE, l, row, x[row], n);
        ref_normalize(m, n, x[row], m->layer[l].feed_norm);
        ref_multiply(up, m->layer[l].up, n, m->feed, m->width);
        if (m->gated)
            ref_multiply(gate, m->layer[l].gate, n, m->feed, m->width);
        for (uint32_t i = 0; i < m->feed; i++)
            up[i] = m->gated ? up[i] * gate[i] / (1 + exp(-gate[i])) : up[i] > 0 ? up[i] : 0;
        ref_multiply(n, m->layer[l].down, up, m->width, m->feed);
        r->feed[l][row] = ref_add(m, edits, LATHE_MLP_SCALE, l, row, x[row], n);
        for (uint32_t i = 0; i < edits->count; i++) {
            const struct lathe_intervention *e = &edits->list[i];
            for (uint32_t d = 0; d < m->width && e->kind == LATHE_PATCH && ref_holds(e, row, l); d++)
                x[row][d] = edits->floats[e->float_first + (row - (uint32_t)e->first_position) * m->width + d];
        }
        r->after[l][row] = ref_norm(x[row], m->width);
        memcpy(r->x[l][row], x[row], sizeof x[row]);
    }
}

static void ref_forward(const struct reference *m, const int32_t *ids, uint32_t rows, const struct ref_edits *edits,
                        struct ref_result *r)
{
    static double x[REF_ROWS][REF_WIDTH];
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t i = 0; i < m->width; i++)
            x[row][i] = m->embedding[(size_t)ids[row] * m->width + i];
    for (uint32_t l = 0; l < m->layers; l++)
        ref_layer(m, edits, l, rows, x, r);
    for (uint32_t row = 0; row < rows; row++)
        ref_logits(m, x[row], r->logits[row]);
}

#endif

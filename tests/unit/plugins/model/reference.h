/* SPDX-License-Identifier: MIT */
/* A transformer in double precision, row by row, that keeps every position's keys unrotated: what
 * a model's kept lists, rotations and masses are compared with. Reads llama and qwen2 files (F32,
 * F16, whatever dequantize.h knows; no scaling of positions), or draws model/tiny's weights. */
#ifndef TESTS_MODEL_REFERENCE_H
#define TESTS_MODEL_REFERENCE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gguf/gguf.h>
#include <kernels/dequantize.h>
#include <lathe/model.h>
#include <lathe/random.h>

enum { REFERENCE_LAYERS = 4, REFERENCE_POSITIONS = 128 };

struct reference_layer {
    double *attention_norm, *feed_norm;     /* NULL: ones */
    double *q, *k, *v, *o, *q_bias, *k_bias, *v_bias, *gate, *up, *down; /* gate NULL: down · relu(up · n) */
    double *keys, *values;                  /* (positions, kv_heads · head) */
};

struct reference {
    uint32_t layers, heads, kv_heads, head, width, feed, vocab;
    double base, epsilon;
    int halves, q8_0;                       /* q8_0: keys and values are rounded when they are kept */
    double *embedding, *output, *output_norm;
    struct reference_layer layer[REFERENCE_LAYERS];
};

/* What a row may look at, beside its slice's own rows from `first` on. */
struct reference_view {
    int32_t scope;
    const int32_t *kept;                    /* (sets, kept_count) */
    uint32_t kept_count;
    int32_t first;
    int all, cache_positions;               /* all: every position, kept is not looked at */
    double *masses;                         /* (sets, mass_keys), added to; NULL: none */
    uint32_t mass_keys;
};

static double *reference_tensor(const struct gguf *file, const char *name)
{
    struct lathe_tensor t;
    struct lathe_error err;
    if (gguf_tensor(file, name, &t, &err))
        return NULL;
    size_t rows = 1, columns = t.shape[t.rank - 1];
    for (uint32_t i = 0; i + 1 < t.rank; i++)
        rows *= t.shape[i];
    float *row = malloc(columns * sizeof *row);
    double *all = malloc(rows * columns * sizeof *all);
    for (size_t r = 0; r < rows; r++) {
        dequantize(t.dtype, (const char *)t.data + r * t.row_bytes, row, columns);
        for (size_t i = 0; i < columns; i++)
            all[r * columns + i] = row[i];
    }
    free(row);
    return all;
}

static double *reference_block(const struct gguf *file, uint32_t layer, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    return reference_tensor(file, full);
}

static void reference_rows(struct reference *r)
{
    size_t n = (size_t)REFERENCE_POSITIONS * r->kv_heads * r->head;
    for (uint32_t l = 0; l < r->layers; l++) {
        r->layer[l].keys = calloc(n, sizeof(double));
        r->layer[l].values = calloc(n, sizeof(double));
    }
}

/* `info` is the model's own description of the file. */
static void reference_open(struct reference *r, const struct lathe_host *host, const char *path,
                           const struct lathe_model_info *info)
{
    struct gguf *file;
    struct lathe_error err;
    char key[96];
    float base = 10000, epsilon = 0;
    memset(r, 0, sizeof *r);
    if (gguf_open(host, path, &file, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    r->layers = info->layers, r->heads = info->heads, r->kv_heads = info->kv_heads, r->head = info->head_width;
    r->width = info->embedding_width, r->vocab = info->vocab_tokens;
    r->halves = strcmp(info->architecture, "qwen2") == 0;
    snprintf(key, sizeof key, "%s.rope.freq_base", info->architecture);
    gguf_get_f32(file, key, &base, &err);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", info->architecture);
    gguf_get_f32(file, key, &epsilon, &err);
    snprintf(key, sizeof key, "%s.feed_forward_length", info->architecture);
    gguf_get_u32(file, key, &r->feed, &err);
    r->base = base, r->epsilon = epsilon;
    r->embedding = reference_tensor(file, "token_embd.weight");
    r->output = reference_tensor(file, "output.weight");
    r->output_norm = reference_tensor(file, "output_norm.weight");
    for (uint32_t l = 0; l < r->layers; l++)
        r->layer[l] = (struct reference_layer){
            .attention_norm = reference_block(file, l, "attn_norm.weight"), .feed_norm = reference_block(file, l, "ffn_norm.weight"),
            .q = reference_block(file, l, "attn_q.weight"), .k = reference_block(file, l, "attn_k.weight"),
            .v = reference_block(file, l, "attn_v.weight"), .o = reference_block(file, l, "attn_output.weight"),
            .q_bias = reference_block(file, l, "attn_q.bias"), .k_bias = reference_block(file, l, "attn_k.bias"),
            .v_bias = reference_block(file, l, "attn_v.bias"), .gate = reference_block(file, l, "ffn_gate.weight"),
            .up = reference_block(file, l, "ffn_up.weight"), .down = reference_block(file, l, "ffn_down.weight"),
        };
    gguf_close(file);
    reference_rows(r);
}

static double *reference_draw(uint32_t tensor, size_t count, float scale)
{
    double *w = malloc(count * sizeof *w);
    for (size_t i = 0; i < count; i++)
        w[i] = scale * (float)(2 * lathe_random_unit(1, LATHE_RANDOM_WEIGHTS, tensor, (uint32_t)i) - 1);
    return w;
}

static void reference_tiny(struct reference *r, const struct lathe_model_info *info)
{
    memset(r, 0, sizeof *r);
    r->layers = info->layers, r->heads = info->heads, r->kv_heads = info->kv_heads, r->head = info->head_width;
    r->width = info->embedding_width, r->vocab = info->vocab_tokens, r->feed = 2 * r->width;
    r->base = 100, r->epsilon = (double)1e-5f;
    size_t w = r->width, kw = (size_t)r->kv_heads * r->head;
    float in = 2.0f / sqrtf((float)w);
    r->embedding = reference_draw(0, r->vocab * w, 1.0f);
    r->output = reference_draw(1, r->vocab * w, 3.0f * in);
    for (uint32_t l = 0; l < r->layers; l++) {
        uint32_t tensor = 2 + 6 * l;
        r->layer[l] = (struct reference_layer){
            .q = reference_draw(tensor, w * w, 1.5f * in), .k = reference_draw(tensor + 1, kw * w, 1.5f * in),
            .v = reference_draw(tensor + 2, kw * w, in), .o = reference_draw(tensor + 3, w * w, in),
            .up = reference_draw(tensor + 4, 2 * w * w, in), .down = reference_draw(tensor + 5, 2 * w * w, in),
        };
    }
    reference_rows(r);
}

static void reference_close(struct reference *r)
{
    for (uint32_t l = 0; l < r->layers; l++) {
        struct reference_layer *y = &r->layer[l];
        double *const owned[] = { y->attention_norm, y->feed_norm, y->q, y->k, y->v, y->o, y->q_bias, y->k_bias, y->v_bias,
                                  y->gate, y->up, y->down, y->keys, y->values };
        for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
            free(owned[i]);
    }
    free(r->embedding);
    free(r->output);
    free(r->output_norm);
}

/* y (rows) = w (rows, columns) · x + bias */
static void reference_multiply(double *y, const double *w, const double *bias, const double *x, size_t rows, size_t columns)
{
    for (size_t i = 0; i < rows; i++) {
        y[i] = bias ? bias[i] : 0;
        for (size_t j = 0; j < columns; j++)
            y[i] += w[i * columns + j] * x[j];
    }
}

static void reference_norm(const struct reference *r, double *y, const double *x, const double *weight)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->width; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < r->width; i++)
        y[i] = x[i] / sqrt(sum / r->width + r->epsilon) * (weight ? weight[i] : 1);
}

static void reference_turn(const struct reference *r, double *y, const double *x, int32_t position)
{
    uint32_t pairs = r->head / 2;
    for (uint32_t i = 0; i < pairs; i++) {
        double angle = position * pow(r->base, -2.0 * i / r->head), c = cos(angle), s = sin(angle);
        uint32_t a = r->halves ? i : 2 * i, b = r->halves ? i + pairs : 2 * i + 1;
        double xa = x[a], xb = x[b];
        y[a] = xa * c - xb * s;
        y[b] = xb * c + xa * s;
    }
}

static void reference_keep(const struct reference *r, double *to, const double *x, size_t n)
{
    memcpy(to, x, n * sizeof *to);
    for (size_t i = 0; r->q8_0 && i < n; i += 32) {
        float block[32];
        uint8_t packed[34];
        for (size_t j = 0; j < 32; j++)
            block[j] = (float)x[i + j];
        quantize_q8_0(packed, block, 32);
        dequantize_q8_0(packed, block, 1);
        for (size_t j = 0; j < 32; j++)
            to[i + j] = block[j];
    }
}

/* mixed (heads · head): one row's attention in one layer. */
static void reference_attend(const struct reference *r, const struct reference_view *v, uint32_t l, int32_t position,
                             const double *q, double *mixed)
{
    size_t kv = (size_t)r->kv_heads * r->head;
    for (uint32_t h = 0; h < r->heads; h++) {
        uint32_t kv_head = h / (r->heads / r->kv_heads);
        uint32_t set = v->scope == LATHE_KV_HEAD ? l * r->kv_heads + kv_head : v->scope == LATHE_KV_LAYER ? l : 0;
        uint32_t before = v->all ? (uint32_t)v->first : v->kept_count, keys = before + (uint32_t)(position - v->first) + 1;
        double weights[REFERENCE_POSITIONS], turned[256], query[256], most = -INFINITY, sum = 0, *out = mixed + (size_t)h * r->head;
        int32_t at[REFERENCE_POSITIONS];
        reference_turn(r, query, q + (size_t)h * r->head, v->cache_positions ? (int32_t)keys - 1 : position);
        for (uint32_t j = 0; j < keys; j++) {
            at[j] = j >= before ? v->first + (int32_t)(j - before) : v->all ? (int32_t)j : v->kept[set * v->kept_count + j];
            reference_turn(r, turned, r->layer[l].keys + (size_t)at[j] * kv + kv_head * r->head,
                           v->cache_positions ? (int32_t)j : at[j]);
            weights[j] = 0;
            for (uint32_t i = 0; i < r->head; i++)
                weights[j] += query[i] * turned[i];
            weights[j] /= sqrt(r->head);
            most = weights[j] > most ? weights[j] : most;
        }
        for (uint32_t j = 0; j < keys; j++)
            sum += weights[j] = exp(weights[j] - most);
        memset(out, 0, r->head * sizeof *out);
        for (uint32_t j = 0; j < keys; j++) {
            for (uint32_t i = 0; i < r->head; i++)
                out[i] += weights[j] / sum * r->layer[l].values[(size_t)at[j] * kv + kv_head * r->head + i];
            if (v->masses)
                v->masses[(size_t)set * v->mass_keys + j] += weights[j] / sum;
        }
    }
}

/* One row: its keys and values are kept, its logits (vocab) written. */
static void reference_row(struct reference *r, const struct reference_view *v, int32_t token, int32_t position, double *logits)
{
    double x[1024], n[1024], q[1024], k[1024], mixed[1024], gate[2048], up[2048];
    size_t kv = (size_t)r->kv_heads * r->head, wide = (size_t)r->heads * r->head;
    memcpy(x, r->embedding + (size_t)token * r->width, r->width * sizeof *x);
    for (uint32_t l = 0; l < r->layers; l++) {
        struct reference_layer *y = &r->layer[l];
        reference_norm(r, n, x, y->attention_norm);
        reference_multiply(q, y->q, y->q_bias, n, wide, r->width);
        reference_multiply(k, y->k, y->k_bias, n, kv, r->width);
        reference_keep(r, y->keys + (size_t)position * kv, k, kv);
        reference_multiply(k, y->v, y->v_bias, n, kv, r->width);
        reference_keep(r, y->values + (size_t)position * kv, k, kv);
        reference_attend(r, v, l, position, q, mixed);
        reference_multiply(n, y->o, NULL, mixed, r->width, wide);
        for (uint32_t i = 0; i < r->width; i++)
            x[i] += n[i];
        reference_norm(r, n, x, y->feed_norm);
        reference_multiply(up, y->up, NULL, n, r->feed, r->width);
        if (y->gate)
            reference_multiply(gate, y->gate, NULL, n, r->feed, r->width);
        for (uint32_t i = 0; i < r->feed; i++)
            up[i] = y->gate ? gate[i] / (1 + exp(-gate[i])) * up[i] : up[i] > 0 ? up[i] : 0;
        reference_multiply(n, y->down, NULL, up, r->width, r->feed);
        for (uint32_t i = 0; i < r->width; i++)
            x[i] += n[i];
    }
    reference_norm(r, n, x, r->output_norm);
    reference_multiply(logits, r->output ? r->output : r->embedding, NULL, n, r->vocab, r->width);
}

#endif

/* SPDX-License-Identifier: MIT */
/* The probe's packing of layers: see layers.h. Norms are sums in double: a residual stream has a
 * few elements a thousand times the others. */
#include <math.h>
#include <string.h>

#include <forward/layers.h>
#include <forward/probe.h>
#include <kernels/kernels.h>

/* The probes of a row that have a part for a layer, one after the other. */
struct walk {
    const struct forward_batch *batch;
    const struct forward_row *row;
    uint32_t layer, formats, left;
    unsigned char *record;
};

static struct walk walk_parts(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t formats)
{
    return (struct walk){ b, row, layer, formats, row->probes, b->attention + (row->record - 1) };
}

static const struct lathe_probe *next_part(struct walk *w, void **part)
{
    const struct lathe_probe *first = &w->batch->probes[w->batch->slices[w->row->slice].probe];
    while (w->left) {
        const struct lathe_probe *p = &first[__builtin_ctz(w->left)];
        unsigned char *parts = w->record + sizeof(struct lathe_attention_row);
        w->record += ((const struct lathe_attention_row *)(const void *)w->record)->bytes;
        w->left &= w->left - 1;
        if (w->formats >> p->format & 1 && lathe_probe_has(p->layers, w->layer)) {
            *part = parts + forward_rank(p->layers, w->layer) * lathe_probe_layer_bytes(p, w->row->keys);
            return p;
        }
    }
    return NULL;
}

/* |x − y|; y NULL: |x|. */
static float distance(const float *x, const float *y, uint32_t n)
{
    double sums[8] = { 0 }, sum = 0;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t k = 0; k < 8; k++) {
            double d = y ? (double)x[i + k] - y[i + k] : x[i + k];
            sums[k] += d * d;
        }
    for (; i < n; i++) {
        double d = y ? (double)x[i] - y[i] : x[i];
        sum += d * d;
    }
    for (uint32_t k = 0; k < 8; k++)
        sum += sums[k];
    return (float)sqrt(sum);
}

uint32_t forward_layer_wants(const struct forward_batch *b, const struct forward_row *row, uint32_t layer)
{
    const struct lathe_probe *first = &b->probes[b->slices[row->slice].probe];
    uint32_t formats = 0;
    for (uint32_t left = row->layer_probes; left; left &= left - 1) {
        const struct lathe_probe *p = &first[__builtin_ctz(left)];
        formats |= lathe_probe_has(p->layers, layer) ? 1u << p->format : 0;
    }
    return formats;
}

void forward_layer_heads(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, const float *x,
                         const float *outputs)
{
    struct walk walk = walk_parts(b, row, layer, 1u << LATHE_PROBE_NORMS);
    const struct lathe_probe *p;
    uint32_t width = b->limits->head_width;
    void *part;
    while ((p = next_part(&walk, &part))) {
        struct lathe_layer_norms *norms = part;
        float *head = (float *)(norms + 1);
        norms->before = distance(x, NULL, b->limits->embedding_width);
        for (uint32_t h = 0; h < b->limits->heads; h++)
            if (lathe_probe_has(p->heads, h))
                *head++ = distance(outputs + (size_t)h * width, NULL, width);
    }
}

void forward_layer_added(const struct forward_batch *b, const struct forward_row *row, uint32_t layer,
                         enum forward_addition which, const float *x, const float *before)
{
    struct walk walk = walk_parts(b, row, layer, 1u << LATHE_PROBE_NORMS);
    void *part;
    while (next_part(&walk, &part)) {
        struct lathe_layer_norms *norms = part;
        float length = distance(x, before, b->limits->embedding_width);
        if (which == FORWARD_ATTENTION)
            norms->attention = length;
        else
            norms->feed = length;
    }
}

void forward_layer_ends(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, const float *x)
{
    struct walk walk = walk_parts(b, row, layer, 1u << LATHE_PROBE_NORMS | 1u << LATHE_PROBE_HIDDEN);
    uint32_t width = b->limits->embedding_width;
    const struct lathe_probe *p;
    void *part;
    while ((p = next_part(&walk, &part))) {
        if (p->format == LATHE_PROBE_HIDDEN)
            memcpy(part, x, width * sizeof(float));
        else
            ((struct lathe_layer_norms *)part)->after = distance(x, NULL, width);
    }
}

void forward_lens_pack(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, float *logits)
{
    struct walk walk = walk_parts(b, row, layer, 1u << LATHE_PROBE_LENS);
    uint32_t vocab = b->limits->vocab_tokens, most = 0;
    struct lathe_attention_top *longest = NULL;
    const struct lathe_probe *p;
    void *part;
    while ((p = next_part(&walk, &part))) { /* while the logits are whole; a lens has the layout of a top */
        uint32_t count = forward_largest(logits, vocab, p->top_k, part);
        longest = count > most || !longest ? part : longest;
        most = count > most ? count : most;
        for (uint32_t k = count; k < p->top_k; k++)
            ((struct lathe_attention_top *)part)[k] = (struct lathe_attention_top){ UINT32_MAX, 0 };
    }
    if (!longest)
        return;
    float sum_log = longest[0].weight;
    sum_log += logf(kernels_best()->softmax(logits, vocab, NULL));
    walk = walk_parts(b, row, layer, 1u << LATHE_PROBE_LENS);
    while ((p = next_part(&walk, &part))) {
        struct lathe_attention_top *top = part;
        for (uint32_t k = 0; k < p->top_k && k < vocab; k++)
            ((struct lathe_lens *)part)[k] = (struct lathe_lens){ (int32_t)top[k].key, top[k].weight - sum_log };
    }
}

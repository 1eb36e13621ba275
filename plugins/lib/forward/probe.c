/* SPDX-License-Identifier: MIT */
/* The attention probe's packing: see probe.h and <lathe/attention.h>. */
#include <forward/probe.h>
#include <kernels/half.h>

static uint32_t rank(const uint64_t *mask, uint32_t bit)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < bit / 64; i++)
        n += (uint32_t)__builtin_popcountll(mask[i]);
    return n + (uint32_t)__builtin_popcountll(mask[bit / 64] & (((uint64_t)1 << bit % 64) - 1));
}

static uint32_t heaviest(const float *weights, uint32_t keys)
{
    uint32_t best = 0;
    for (uint32_t j = 0; j < keys; j++)
        if (weights[j] == 1.0f) /* exp(0): the largest score's, and nobody is above */
            return j;
    for (uint32_t j = 1; j < keys; j++)
        if (weights[j] > weights[best])
            best = j;
    return best;
}

static void pack_summary(const struct forward_batch *b, const struct forward_row *row, const struct lathe_probe *p,
                         const struct forward_weights *w, struct lathe_attention_summary *out)
{
    uint32_t keys = row->keys, best = heaviest(w->weights, keys);
    uint32_t recent = p->recent_window < keys ? p->recent_window : keys;
    float recent_sum = 0;
    for (uint32_t j = keys - recent; j < keys; j++)
        recent_sum += w->weights[j];
    out->entropy = w->entropy;
    out->first_mass = forward_key_position(b, row->slice, w->set, 0) == 0 ? half_of_float(w->weights[0] * w->scale) : 0;
    out->recent_mass = half_of_float(recent_sum * w->scale);
    out->self_mass = half_of_float(w->weights[keys - 1] * w->scale);
    out->top_weight = half_of_float(w->weights[best] * w->scale);
    out->top_key = (uint32_t)forward_key_position(b, row->slice, w->set, best);
}

/* A heap of the k heaviest so far, the lightest of them (of equals the later key) on top. */
static int lighter(struct lathe_attention_top a, struct lathe_attention_top c)
{
    return a.weight < c.weight || (a.weight == c.weight && a.key > c.key);
}

static void sift(struct lathe_attention_top *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && lighter(heap[child + 1], heap[child]))
            child++;
        if (!lighter(heap[child], heap[at]))
            return;
        struct lathe_attention_top swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

static void pack_top(const struct forward_batch *b, const struct forward_row *row, uint32_t k,
                     const struct forward_weights *w, struct lathe_attention_top *out)
{
    uint32_t count = row->keys < k ? row->keys : k;
    for (uint32_t j = 0; j < count; j++)
        out[j] = (struct lathe_attention_top){ j, w->weights[j] };
    for (uint32_t at = count / 2; at-- > 0;)
        sift(out, count, at);
    for (uint32_t j = count; j < row->keys; j++) {
        struct lathe_attention_top next = { j, w->weights[j] };
        if (lighter(out[0], next)) {
            out[0] = next;
            sift(out, count, 0);
        }
    }
    for (uint32_t last = count; last-- > 1;) { /* heap to descending order */
        struct lathe_attention_top swap = out[0];
        out[0] = out[last];
        out[last] = swap;
        sift(out, last, 0);
    }
    for (uint32_t j = 0; j < count; j++) {
        out[j].key = (uint32_t)forward_key_position(b, row->slice, w->set, out[j].key);
        out[j].weight *= w->scale;
    }
    for (uint32_t j = count; j < k; j++)
        out[j] = (struct lathe_attention_top){ UINT32_MAX, 0 };
}

static void pack_full(const struct forward_row *row, const struct forward_weights *w, uint16_t *out)
{
    for (uint32_t j = 0; j < row->keys; j++)
        out[j] = half_of_float(w->weights[j] * w->scale);
}

void forward_probe_pack(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                        const struct forward_weights *w)
{
    unsigned char *record = b->attention + (row->record - 1);
    for (uint32_t left = row->probes; left; left &= left - 1) {
        const struct lathe_probe *p = &b->probes[b->slices[row->slice].probe + (uint32_t)__builtin_ctz(left)];
        if (lathe_probe_has(p->layers, layer) && lathe_probe_has(p->heads, head) && !lathe_probe_of_layers(p->format)) {
            size_t part = (size_t)rank(p->layers, layer) * lathe_probe_count(p->heads) + rank(p->heads, head);
            void *out = record + sizeof(struct lathe_attention_row) + part * lathe_attention_head_bytes(p, row->keys);
            if (p->format == LATHE_PROBE_SUMMARY)
                pack_summary(b, row, p, w, out);
            else if (p->format == LATHE_PROBE_TOP)
                pack_top(b, row, p->top_k, w, out);
            else if (p->format == LATHE_PROBE_FULL)
                pack_full(row, w, out);
        }
        record += lathe_attention_row_bytes(p, row->keys);
    }
}

/* SPDX-License-Identifier: MIT */
/* The probe's packing of heads: see probe.h and <lathe/attention.h>.
 *
 * It runs for hundreds of heads a row, so what is done for each key is done by vectors: the
 * summary's heaviest key is the one whose weight is exp(0), its recent mass a sum; halves are
 * converted eight or sixteen at a time. The k heaviest are found in two passes: a bound that
 * at least k keys reach (the k-th largest of the lanes' maxima), then the few keys that
 * reach it go through a sorted list, or beyond 16 a heap, which raises the bound as it fills. */
#include <forward/probe.h>
#include <kernels/half.h>
#include <kernels/kernels.h>

enum { KEYS_AT_A_TIME = 256, FEW = 16 };

static uint32_t heaviest(const struct kernels *k, const float *weights, uint32_t keys)
{
    uint32_t best = (uint32_t)k->find(weights, keys, 1.0f); /* exp(0): the largest score's, and nobody is above */
    if (best < keys)
        return best;
    best = 0;
    for (uint32_t j = 1; j < keys; j++)
        if (weights[j] > weights[best])
            best = j;
    return best;
}

static void pack_summary(const struct forward_batch *b, const struct forward_row *row, const struct lathe_probe *p,
                         const struct forward_weights *w, struct lathe_attention_summary *out)
{
    const struct kernels *k = kernels_best();
    uint32_t keys = row->keys, best = heaviest(k, w->weights, keys);
    uint32_t recent = p->recent_window < keys ? p->recent_window : keys;
    float first = forward_key_position(b, row->slice, w->set, 0) == 0 ? w->weights[0] : 0;
    float four[4] = { first, k->sum(w->weights + keys - recent, recent), w->weights[keys - 1], w->weights[best] };
    uint16_t halves[4];
    k->scale_to_half(halves, four, w->scale, 4);
    *out = (struct lathe_attention_summary){ w->entropy, halves[0], halves[1], halves[2], halves[3],
                                             (uint32_t)forward_key_position(b, row->slice, w->set, best) };
}

/* A heap of the k heaviest so far, the lightest of them (of equals the later key) on top. */
static int lighter(struct lathe_attention_top a, struct lathe_attention_top c)
{
    return a.weight < c.weight || (a.weight == c.weight && a.key > c.key);
}

static void sift(struct lathe_attention_top *heap, uint32_t count, uint32_t at)
{
    struct lathe_attention_top moved = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && lighter(heap[child + 1], heap[child]))
            child++;
        if (!lighter(heap[child], moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void rise(struct lathe_attention_top *heap, uint32_t at)
{
    struct lathe_attention_top moved = heap[at];
    for (; at && lighter(moved, heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = moved;
}

/* A sorted list, for a few: heaviest first. */
static uint32_t insert(struct lathe_attention_top *list, uint32_t count, uint32_t k, struct lathe_attention_top next)
{
    uint32_t at = count;
    if (count < k)
        count++;
    else if (!lighter(list[--at], next))
        return count;
    for (; at && lighter(list[at - 1], next); at--)
        list[at] = list[at - 1];
    list[at] = next;
    return count;
}

uint32_t forward_largest(const float *x, uint32_t n, uint32_t k, struct lathe_attention_top *out)
{
    const struct kernels *kernels = kernels_best();
    uint32_t count = 0, at[KEYS_AT_A_TIME];
    float least = kernels->reached_by(x, n, k);
    for (uint32_t from = 0; from < n; from += KEYS_AT_A_TIME) {
        uint32_t some = n - from < KEYS_AT_A_TIME ? n - from : KEYS_AT_A_TIME;
        size_t found = kernels->reaching(x + from, some, least, at);
        for (size_t i = 0; i < found; i++) {
            struct lathe_attention_top next = { from + at[i], x[from + at[i]] };
            if (k <= FEW) {
                count = insert(out, count, k, next);
            } else if (count < k) {
                out[count] = next;
                rise(out, count++);
            } else if (lighter(out[0], next)) {
                out[0] = next;
                sift(out, count, 0);
            }
        }
        if (count == k) {
            float lightest = out[k <= FEW ? k - 1 : 0].weight;
            least = lightest > least ? lightest : least;
        }
    }
    if (k <= FEW)
        return count;
    for (uint32_t last = count; last-- > 1;) { /* heap to descending order */
        struct lathe_attention_top swap = out[0];
        out[0] = out[last];
        out[last] = swap;
        sift(out, last, 0);
    }
    return count;
}

static void pack_top(const struct forward_batch *b, const struct forward_row *row, uint32_t k,
                     const struct forward_weights *w, struct lathe_attention_top *out)
{
    uint32_t count = forward_largest(w->weights, row->keys, k, out);
    for (uint32_t j = 0; j < count; j++) {
        out[j].key = (uint32_t)forward_key_position(b, row->slice, w->set, out[j].key);
        out[j].weight *= w->scale;
    }
    for (uint32_t j = count; j < k; j++)
        out[j] = (struct lathe_attention_top){ UINT32_MAX, 0 };
}

static void pack_values(const struct forward_row *row, const struct forward_weights *w, uint16_t *out)
{
    float some[KEYS_AT_A_TIME];
    for (uint32_t from = 0; from < row->keys; from += KEYS_AT_A_TIME) {
        uint32_t n = row->keys - from < KEYS_AT_A_TIME ? row->keys - from : KEYS_AT_A_TIME;
        for (uint32_t j = 0; j < n; j++)
            some[j] = w->weights[from + j] * w->value_norms[from + j];
        kernels_best()->scale_to_half(out + from, some, w->scale, n);
    }
}

/* Calls pack for the parts of this head; `formats` is what the caller has data for. */
static void pack_parts(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                       uint32_t formats, const struct forward_weights *w)
{
    unsigned char *record = b->attention + (row->record - 1);
    const struct lathe_probe *first = &b->probes[b->slices[row->slice].probe];
    for (uint32_t left = row->probes; left; left &= left - 1) {
        const struct lathe_probe *p = &first[__builtin_ctz(left)];
        unsigned char *parts = record + sizeof(struct lathe_attention_row);
        record += ((const struct lathe_attention_row *)(const void *)record)->bytes;
        if (!(formats >> p->format & 1) || !lathe_probe_has(p->layers, layer) || !lathe_probe_has(p->heads, head))
            continue;
        uint32_t heads = 0;
        for (uint32_t i = 0; i < LATHE_PROBE_MAX_HEADS / 64; i++)
            heads += p->heads[i] ? forward_ones(p->heads[i]) : 0;
        size_t part = (size_t)forward_rank(p->layers, layer) * heads + forward_rank(p->heads, head);
        void *out = parts + part * lathe_attention_head_bytes(p, row->keys);
        switch (p->format) {
        case LATHE_PROBE_SUMMARY: pack_summary(b, row, p, w, out); break;
        case LATHE_PROBE_TOP: pack_top(b, row, p->top_k, w, out); break;
        case LATHE_PROBE_VALUES: pack_values(row, w, out); break;
        default: kernels_best()->scale_to_half(out, w->weights, w->scale, row->keys); /* full, scores */
        }
    }
}

void forward_probe_scores(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                          const float *scores)
{
    struct forward_weights w = { .weights = scores, .scale = 1 };
    pack_parts(b, row, layer, head, FORWARD_BEFORE_SOFTMAX, &w);
}

void forward_probe_pack(const struct forward_batch *b, const struct forward_row *row, uint32_t layer, uint32_t head,
                        const struct forward_weights *w)
{
    pack_parts(b, row, layer, head, FORWARD_AFTER_SOFTMAX, w);
}

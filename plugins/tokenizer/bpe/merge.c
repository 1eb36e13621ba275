/* SPDX-License-Identifier: MIT */
/* Merging one piece: the pair of the lowest rank anywhere, leftmost first, until no pair has one.
 *
 * Symbols are a doubly linked list; a heap holds (rank, place) of pairs that may merge. A merge
 * changes at most two pairs, whose older heap entries go stale: they are known by the rank that
 * the left symbol remembers. n bytes take n log n, so a piece of a megabyte is no attack.
 * Pieces up to SHORT_PIECE bytes, all but a few, use the stack and allocate nothing. */
#include "bpe.h"

enum { SHORT_PIECE = 256 };

struct symbol {
    int32_t id;
    int32_t rank;           /* of the pair with the next symbol; −1 none */
    uint32_t previous, next; /* NONE at the ends */
};

struct candidate {
    int32_t rank;
    uint32_t at;
};

enum { NONE = UINT32_MAX };

struct heap {
    struct candidate *items;
    uint32_t count;
};

static int before(struct candidate a, struct candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(struct heap *h, struct candidate c)
{
    uint32_t i = h->count++;
    for (; i && before(c, h->items[(i - 1) / 2]); i = (i - 1) / 2)
        h->items[i] = h->items[(i - 1) / 2];
    h->items[i] = c;
}

static struct candidate heap_pop(struct heap *h)
{
    struct candidate top = h->items[0], last = h->items[--h->count];
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(h->items[child + 1], h->items[child]))
            child++;
        if (!before(h->items[child], last))
            break;
        h->items[i] = h->items[child];
    }
    h->items[i] = last;
    return top;
}

static void consider(const struct vocab *v, struct symbol *symbols, struct heap *heap, uint32_t at)
{
    struct symbol *s = &symbols[at];
    s->rank = s->next == NONE ? -1 : vocab_rank(v, s->id, symbols[s->next].id);
    if (s->rank >= 0)
        heap_push(heap, (struct candidate){s->rank, at});
}

static void merge_symbols(const struct vocab *v, struct symbol *symbols, struct heap *heap, struct sink *sink)
{
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        consider(v, symbols, heap, i);
    while (heap->count) {
        struct candidate c = heap_pop(heap);
        struct symbol *s = &symbols[c.at];
        if (s->rank != c.rank)
            continue; /* stale, or merged away: those have rank −1 */
        struct symbol *gone = &symbols[s->next];
        s->id = v->merges[c.rank].merged;
        gone->rank = -1;
        s->next = gone->next;
        if (s->next != NONE)
            symbols[s->next].previous = c.at;
        consider(v, symbols, heap, c.at);
        if (s->previous != NONE)
            consider(v, symbols, heap, s->previous);
    }
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        sink_put(sink, symbols[i].id);
}

/* Bytes without a token vanish, and what stood beside them merges, as in Hugging Face's tokenizers
 * (SmolLM2 lacks 21 of 256; none of them occurs in valid text without control characters). */
static uint32_t spell(const struct vocab *v, const unsigned char *piece, size_t count, struct symbol *symbols)
{
    uint32_t n = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t id = v->byte_tokens[piece[i]];
        if (id < 0)
            continue;
        symbols[n] = (struct symbol){id, -1, n ? n - 1 : NONE, n + 1};
        n++;
    }
    if (n)
        symbols[n - 1].next = NONE;
    return n;
}

int merge_piece(const struct vocab *v, const unsigned char *piece, size_t count, struct sink *sink)
{
    if (v->ignore_merges && count <= v->max_token_bytes) {
        int32_t whole = vocab_find(v, piece, count);
        if (whole >= 0) {
            sink_put(sink, whole);
            return 0;
        }
    }
    /* Each merge takes one entry off and puts at most two on: 2 n are never all in use. */
    if (count <= SHORT_PIECE) {
        struct symbol symbols[SHORT_PIECE];
        struct candidate items[2 * SHORT_PIECE];
        struct heap heap = {items, 0};
        if (spell(v, piece, count, symbols))
            merge_symbols(v, symbols, &heap, sink);
        return 0;
    }
    struct symbol *symbols = lathe_alloc_array(v->host, count, sizeof *symbols);
    struct heap heap = {lathe_alloc_array(v->host, count, 2 * sizeof *heap.items), 0};
    int rc = symbols && heap.items ? 0 : LATHE_ENOMEM;
    if (!rc && spell(v, piece, count, symbols))
        merge_symbols(v, symbols, &heap, sink);
    lathe_free(v->host, symbols);
    lathe_free(v->host, heap.items);
    return rc;
}

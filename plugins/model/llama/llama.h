/* SPDX-License-Identifier: MIT */
/* model/llama: Llama-shaped transformers from GGUF files.
 *
 *     plugin.c     the descriptor, options, create and describe
 *     weights.c    the file's metadata and tensors, checked against each other
 *     store.c      matrices in memory: as the file has them, in float32, or packed
 *     rope.c       rotary frequencies and their scaling
 *     context.c    what one engine needs: KV pool, scratch, threads
 *     forward.c    the loop over layers: read this first
 *     product.c    matrix products, cut among threads
 *     attention.c  attention over block tables; attention_blocks.c: a block of keys, attention_keys.c: its
 *                  keys and values made ready, attention_watch.c: probes of heads and interventions on
 *                  keys, attention_mass.c: the masses that keys were given
 *     observe.c    between a layer's parts: interventions, probes of layers
 *
 * One layer (x: rows of hidden states, n: rows in a forward):
 *
 *     h = rmsnorm(x)                                  (n, width)
 *     q, k, v = h·Wqᵀ (+ bq), h·Wkᵀ, h·Wvᵀ            (n, heads · head), (n, kv_heads · head) twice
 *     q, k rotated by position; k, v stored in blocks
 *     x += attention(q, keys, values) · Woᵀ
 *     h = rmsnorm(x);  x += (silu(h·Wgateᵀ) ∘ h·Wupᵀ) · Wdownᵀ
 *
 * Products, by option compute. int8: quantized weights are packed at load and multiplied in integers
 * with rows that are quantized in flight (kernels/integer.h); everything else is float32. exact, blas:
 * weights stay as the file has them and are dequantized to float32 where they are used, a panel of rows
 * at a time, in the cache's reach, for all rows of a product: the same numbers as if all had been
 * dequantized at load (option weights = f32 does that, for comparison).
 *
 * Bits. With int8 and exact what a row becomes depends on its request's tokens alone: products add a
 * row's sums in an order of their own, attention goes through a row's keys in order, each on its own,
 * and everything between works row by row. blas leaves attention of many queries to OpenBLAS, whose
 * sums depend on how many there are. */
#ifndef MODEL_LLAMA_H
#define MODEL_LLAMA_H

#include <stdatomic.h>

#include <forward/batch.h>
#include <forward/edit.h>
#include <forward/kv.h>
#include <forward/probe.h>
#include <gguf/gguf.h>
#include <kernels/integer.h>
#include <kernels/kernels.h>
#include <kernels/pool.h>
#include <lathe/host.h>

/* Bounds on what a file may ask for; layers and heads are what a probe's masks can name. */
enum {
    LLAMA_MAX_LAYERS = LATHE_PROBE_MAX_LAYERS,
    LLAMA_MAX_HEADS = LATHE_PROBE_MAX_HEADS,
    LLAMA_MAX_WIDTH = 1 << 20,
    LLAMA_MAX_HEAD = 1024,
};

/* (rows, columns): rows of `dtype`, row_bytes apart; or groups of packed rows, where form isn't PACKED_NOT. */
struct matrix {
    const unsigned char *bytes;
    size_t row_bytes;
    uint32_t rows, columns;
    int32_t dtype, form;
};

struct llama_layer {
    float *attention_norm, *feed_norm;     /* (width) */
    struct matrix q, k, v, o;              /* (heads·head, width), (kv_heads·head, width) ×2, (width, heads·head) */
    float *q_bias, *k_bias, *v_bias;       /* qwen2; else NULL */
    struct matrix gate, up, down;          /* (feed, width) ×2, (width, feed) */
};

struct llama_shape {
    uint32_t layers, heads, kv_heads, head, width, feed, vocab, context;
    uint32_t rotated;                      /* elements of a head that are rotated */
    int halves;                            /* RoPE layout: 1 NEOX halves, 0 interleaved pairs */
    float epsilon;                         /* of RMSNorm */
};

struct llama {
    const struct lathe_host *host;
    const struct kernels *kernels;
    const struct integer_kernels *integer; /* of products with packed weights; NULL: all products in float32 */
    struct pool *loaders;                  /* while weights are read */
    struct llama_shape shape;
    char architecture[32], name[96], quantization[16];
    struct matrix embedding, output;       /* (vocab, width); the same one when tied */
    float *output_norm;                    /* (width) */
    float *frequencies;                    /* (rotated / 2), radians a position */
    float rope_scale;                      /* of cosines and sines (yarn); 1 */
    struct llama_layer *layers;
    void **owned;                          /* every allocation of weights */
    size_t owned_count, owned_capacity;
    uint64_t parameters, weight_bytes;
    uint32_t threads, swap_blocks;
    int resident;                          /* option weights = f32 */
    int pin;                               /* option pin */
    int blas;                              /* attention of many queries by OpenBLAS */
};

/* Reads everything into *m, which the caller has zeroed but for host, kernels, threads and
 * resident. On failure the caller gives back what was taken with llama_free_weights. [loader] */
int llama_load(struct llama *m, const struct gguf *file, struct lathe_error *err);
void llama_free_weights(struct llama *m);
void *llama_take(struct llama *m, size_t count, size_t each, struct lathe_error *err);
/* A checked tensor as this model keeps it; the file's pages are let go. [loader] */
int llama_store(struct llama *m, const struct gguf *file, const struct lathe_tensor *t, struct matrix *matrix,
                struct lathe_error *err);
/* to (columns) = one row, as numbers. */
void llama_row(const struct llama *m, const struct matrix *w, uint32_t row, float *to);

/* Reads rope.* of the metadata and the tensor rope_freqs.weight. [loader] */
int llama_load_rope(struct llama *m, const struct gguf *file, struct lathe_error *err);
/* (rotated / 2) cosines, then sines, for one position. */
void llama_turn(const struct llama *m, int32_t position, float *turn);

/* Scratch of one thread. */
struct llama_scratch {
    float *panel;              /* panel_floats: dequantized weights, or keys and values made ready */
    float *across;             /* (head, LLAMA_BLOCK_KEYS): keys of a block */
    float *queries, *results;  /* (tile rows · group, head) */
    float *most, *sum;         /* (tile rows · group): of the results so far */
    float *part_most, *part_sum, *part_values; /* the same of one block of keys */
    float *block;              /* (tile rows · group, LLAMA_BLOCK_STRIDE): scores, then weights of a block */
    float *scores;             /* (tile rows · group, score_stride): of a tile that is watched */
    float *inverse;            /* (tile rows · group): 1 / sum of each row's weights, likewise */
    float *value_norms;        /* (context_tokens): for the probe of values */
};

/* Query rows that attention does at a time, of one slice. */
struct llama_tile {
    uint32_t slice, first, count; /* rows first … first + count − 1 of the forward */
    int watched;                  /* weights of whole rows are wanted */
};

struct llama_context {
    const struct llama *model;
    struct forward_limits limits;
    struct forward_batch batch;
    struct forward_kv kv;
    struct pool *pool;
    float *x, *h;              /* (batch_tokens, width) */
    float *qkv;                /* (batch_tokens, qkv_width): queries, keys, values of a row side by side */
    float *mixed;              /* (batch_tokens, heads · head): attention's result */
    float *feed;               /* (batch_tokens, 2 · feed): gate, up side by side; gate then holds their product */
    float *turns;              /* (batch_tokens, rotated) */
    float *key_turns;          /* (context_tokens, rotated): of keys that are rotated when read; NULL: when stored */
    float *mass_lanes;         /* (LLAMA_MASS_LANES, score_stride) */
    unsigned char *quantized;  /* rows of a product's x, as integer kernels want them; NULL: none is wanted */
    float *out;                /* (output_rows, width): normalized rows that want logits or hidden states */
    float *lens;               /* (lens_capacity, vocab): logits of rows of the residual stream */
    uint32_t *lens_rows, lens_capacity;
    struct llama_tile *tiles;
    uint32_t tile_count, tile_capacity, tile_rows;
    uint32_t ranges, partial_blocks; /* a tile's and KV head's blocks are cut so; 1: not */
    size_t partial_queries, partial_floats;
    float *partials;           /* partial_floats: what each block gave, until all of a tile are done */
    _Atomic uint32_t *ended;   /* ranges that have ended, of each tile and KV head; 0 between layers */
    size_t qkv_width, panel_floats, score_stride;
    struct llama_scratch *scratch; /* one a thread */
    unsigned char *scratch_memory;
};

int llama_context_create(void *self, const struct lathe_context_params *params, void **context, struct lathe_error *err);
void llama_context_destroy(void *context);
int llama_forward(void *context, const void *in, void *out, struct lathe_error *err);

/* y (m, rows of all parts, side by side) = x (m, columns) · partsᵀ, or added to it. Parts have
 * the same columns. Uses the context's threads. */
struct product {
    float *y;
    const float *x;
    size_t y_stride, x_stride;
    uint32_t m;
    const struct matrix *parts[3];
    uint32_t part_count;
    int add;
};
void llama_product(struct llama_context *c, const struct product *p);

/* Work items of attention that run at a time where masses are wanted. */
enum { LLAMA_MASS_LANES = 64 };

/* Runs a layer's items in waves and adds up what their rows gave each key. */
void llama_mass_waves(struct llama_context *c, uint32_t layer, void (*wave)(void *arg, uint32_t first, uint32_t count),
                      void *arg);
/* One item's part: the weights are in w->scores (queries, keys). */
void llama_mass_of_tile(struct llama_context *c, uint32_t layer, uint32_t item, const struct llama_scratch *w,
                        uint32_t queries, uint32_t keys);

/* mixed = attention of all rows for one layer; fills probed rows' records. */
void llama_attention(struct llama_context *c, uint32_t layer);
/* Interventions and probes of layers at one layer: heads' results are in mixed; attention is in x;
 * the MLP's inside is in feed; the layer is in x. */
void llama_heads_done(struct llama_context *c, uint32_t layer);
void llama_attention_added(struct llama_context *c, uint32_t layer);
void llama_feed_done(struct llama_context *c, uint32_t layer);
void llama_layer_ends(struct llama_context *c, uint32_t layer);
/* Cuts the batch's slices into tiles: once a forward. */
void llama_attention_tiles(struct llama_context *c);

#endif

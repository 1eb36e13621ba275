/* SPDX-License-Identifier: MIT */
/* Integer products in vectors of LANES sums: one body, included by integer_avx2.c, integer_avx_vnni.c and
 * integer_avx512_vnni.c, which define VI and VF (LANES ints, LANES floats), ALL_INTS, ALL_FLOATS (one number
 * in all lanes), FLOATS (ints to floats), HALVES (LANES halves, from memory, to floats), FMA, MUL, LEFT4
 * (times 16), STORE and ADD of floats in memory; MOST_ROWS (4 or 16); UNPACKED, how many vectors a block of
 * bytes takes; and
 *
 *     unpack(VI *q, const unsigned char *quads, int bytes)          a block's quads
 *     dot(VI *sums, int n, const VI *q, block, int bytes)           sums += Σ q · p of n rows (at most TOGETHER, whose
 *                                                                   chains of additions then overlap), lane by lane
 *
 * Tiles are made for 1, 2, 3, 4 rows of x (6, 8, 12, 16 too where registers allow); other numbers are
 * put together of these, as the bits don't depend on it. x in pieces of CHUNK rows, which stay in the
 * second-level cache while the groups of W pass by. */
#include <immintrin.h>

#include <kernels/integer_quantize.h>

enum { CHUNK = 32 };

/* The first n lanes to y, or added to it. */
static inline void put(float *y, VF sum, size_t n, int add)
{
    if (n >= LANES) {
        STORE(y, add ? ADD(y, sum) : sum);
        return;
    }
    float lane[LANES];
    STORE(lane, sum);
    for (size_t i = 0; i < n; i++)
        y[i] = add ? y[i] + lane[i] : lane[i];
}

struct tile {
    float *y;
    size_t y_stride, x_stride, group_bytes, columns, n;
    const unsigned char *x, *group;
    int add;
};

static inline __attribute__((always_inline)) void tile_of(const struct tile *t, int rows, int form)
{
    const int bytes = form >= PACKED_BYTES, plus = form == PACKED_NIBBLES_PLUS || form == PACKED_BYTES_PLUS;
    const size_t blocks = t->columns / PACKED_BLOCK, quads = packed_quads_bytes(form, LANES);
    const size_t scales = packed_scales_bytes(form, LANES), x_stride = t->x_stride;
    const unsigned char *x = t->x, *w = t->group, *factors = w + blocks * quads;
    VF sum[MOST_ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        sum[r] = ALL_FLOATS(0.0f);
    for (size_t at = 0; at < blocks; at++, w += quads, factors += scales, x += sizeof(struct integer_block)) {
        VI q[UNPACKED];
#pragma GCC unroll 8
        for (size_t line = 0; line < quads; line += 64)
            __builtin_prefetch(w + t->group_bytes + line);
        unpack(q, w, bytes);
        VF a = HALVES(factors), b = plus ? HALVES(factors + 2 * LANES) : ALL_FLOATS(0.0f);
#pragma GCC unroll 16
        for (int from = 0; from < rows; from += TOGETHER) {
            VI dots[TOGETHER];
            const struct integer_block *block[TOGETHER];
            int n = rows - from < TOGETHER ? rows - from : TOGETHER;
#pragma GCC unroll 8
            for (int r = 0; r < n; r++) {
                block[r] = (const struct integer_block *)(const void *)(x + (size_t)(from + r) * x_stride);
                dots[r] = ALL_INTS(plus ? 0 : block[r]->zero);
                if (bytes && !plus)
                    dots[r] = LEFT4(dots[r]);
            }
            dot(dots, n, q, block, bytes);
#pragma GCC unroll 8
            for (int r = 0; r < n; r++) {
                sum[from + r] = FMA(FLOATS(dots[r]), MUL(a, ALL_FLOATS(block[r]->s)), sum[from + r]);
                if (plus)
                    sum[from + r] = FMA(b, ALL_FLOATS(block[r]->sum), sum[from + r]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        put(t->y + (size_t)r * t->y_stride, sum[r], t->n, t->add);
}

#define TILES_OF(ROWS)                                                                                                \
    static void tile_nibbles_##ROWS(const struct tile *t) { tile_of(t, ROWS, PACKED_NIBBLES); }                       \
    static void tile_nibbles_plus_##ROWS(const struct tile *t) { tile_of(t, ROWS, PACKED_NIBBLES_PLUS); }             \
    static void tile_bytes_##ROWS(const struct tile *t) { tile_of(t, ROWS, PACKED_BYTES); }                           \
    static void tile_bytes_plus_##ROWS(const struct tile *t) { tile_of(t, ROWS, PACKED_BYTES_PLUS); }
#define NAMES_OF(ROWS) { ROWS, { tile_nibbles_##ROWS, tile_nibbles_plus_##ROWS, tile_bytes_##ROWS, tile_bytes_plus_##ROWS } }

TILES_OF(1)
TILES_OF(2)
TILES_OF(3)
TILES_OF(4)
#if MOST_ROWS == 16
TILES_OF(6)
TILES_OF(8)
TILES_OF(12)
TILES_OF(16)
#endif

static const struct {
    size_t rows;
    void (*by_form[4])(const struct tile *);
} tiles[] = {
#if MOST_ROWS == 16
    NAMES_OF(16), NAMES_OF(12), NAMES_OF(8), NAMES_OF(6),
#endif
    NAMES_OF(4), NAMES_OF(3), NAMES_OF(2), NAMES_OF(1),
};

static void multiply(float *y, size_t y_stride, const unsigned char *x, size_t x_stride, size_t m,
                     const struct integer_weights *w, int add)
{
    size_t group_bytes = packed_group_bytes(w->form, LANES, w->columns);
    for (size_t from = 0; from < m; from += CHUNK) {
        size_t to = m - from < CHUNK ? m : from + CHUNK;
        for (size_t j = 0; j < w->n; j += LANES) {
            struct tile t = { .y_stride = y_stride, .x_stride = x_stride, .group_bytes = group_bytes, .columns = w->columns, .n = w->n - j,
                              .group = w->groups + j / LANES * group_bytes, .add = add };
            size_t kind = 0;
            for (size_t r = from; r < to; r += tiles[kind].rows) {
                while (tiles[kind].rows > to - r)
                    kind++;
                t.y = y + r * y_stride + j;
                t.x = x + r * x_stride;
                tiles[kind].by_form[w->form - 1](&t);
            }
        }
    }
}

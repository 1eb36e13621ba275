/* SPDX-License-Identifier: MIT */
/* Integer products for AVX2: maddubs adds two products of an unsigned and a signed byte in 16 bits,
 * and would clip them if the unsigned one had all eight bits. So bytes are taken as two nibbles,
 * whose sums of a whole block (8 maddubs: at most 8 · 2 · 15 · 128 = 30,720) fit as they are. */
#if defined(__x86_64__)
#include <kernels/integer_256.h>

#define UNPACKED 16
#define TOGETHER 1

/* Nibbles: quads 0 … 7. Bytes: their low nibbles, then the high ones. */
static inline __attribute__((always_inline)) void unpack(VI *q, const unsigned char *quads, int bytes)
{
    int apart = bytes ? 8 : 4;
    for (int j = 0; j < apart; j++) {
        VI v = quad_at(quads, j);
        q[j] = low_four(v);
        q[j + apart] = high_four(v);
    }
}

/* Eight products of four columns, of a block's low or high nibbles. */
static inline __attribute__((always_inline)) VI sum_of_eight(const VI *q, const int8_t *p)
{
    VI sum = _mm256_maddubs_epi16(q[0], four_of(p, 0));
    for (int j = 1; j < 8; j++)
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(q[j], four_of(p, j)));
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

static inline __attribute__((always_inline)) void dot(VI *sums, int n, const VI *q, const struct integer_block *const *block,
                                                      int bytes)
{
    for (int r = 0; r < n; r++) {
        sums[r] = _mm256_add_epi32(sums[r], sum_of_eight(q, block[r]->p));
        if (bytes)
            sums[r] = _mm256_add_epi32(sums[r], _mm256_slli_epi32(sum_of_eight(q + 8, block[r]->p), 4));
    }
}

#include <kernels/integer_vector.h>

extern const struct integer_kernels integer_avx2;
const struct integer_kernels integer_avx2 = { .name = "avx2", .lanes = LANES, .quantize = quantize_row,
                                              .multiply = multiply };
#else
typedef int nothing_here;
#endif

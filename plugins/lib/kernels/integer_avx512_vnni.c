/* SPDX-License-Identifier: MIT */
/* Integer products for AVX-512 VNNI: sixteen rows of W a group. */
#if defined(__x86_64__)
#include <immintrin.h>

#include <kernels/integer.h>

#define VI __m512i
#define VF __m512
#define LANES 16
#define MOST_ROWS 16
#define UNPACKED 8
#define TOGETHER 4
#define ALL_INTS(x) _mm512_set1_epi32(x)
#define ALL_FLOATS(x) _mm512_set1_ps(x)
#define FLOATS(v) _mm512_cvtepi32_ps(v)
#define HALVES(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define MUL(a, b) _mm512_mul_ps(a, b)
#define LEFT4(v) _mm512_slli_epi32(v, 4)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define ADD(p, v) _mm512_add_ps(_mm512_loadu_ps(p), v)

static inline __attribute__((always_inline)) void unpack(VI *q, const unsigned char *quads, int bytes)
{
    const __m512i fifteen = _mm512_set1_epi8(15);
    for (int j = 0; j < (bytes ? 8 : 4); j++) {
        VI v = _mm512_loadu_si512(quads + 64 * j);
        q[j] = bytes ? v : _mm512_and_si512(v, fifteen);
        if (!bytes)
            q[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), fifteen);
    }
}

/* The broadcast is part of the instruction, which GCC 12 doesn't make of _mm512_set1_epi32. */
static inline __attribute__((always_inline)) void dot(VI *sums, int n, const VI *q, const struct integer_block *const *block,
                                                      int bytes)
{
    (void)bytes;
    for (int j = 0; j < 8; j++)
        for (int r = 0; r < n; r++)
            __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums[r]) : "v"(q[j]), "m"(*(const int8_t(*)[4])(block[r]->p + 4 * j)));
}

#include <kernels/integer_vector.h>

extern const struct integer_kernels integer_avx512_vnni;
const struct integer_kernels integer_avx512_vnni = { .name = "avx512_vnni", .lanes = LANES, .quantize = quantize_row,
                                                     .multiply = multiply };
#else
typedef int nothing_here;
#endif

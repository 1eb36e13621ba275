/* SPDX-License-Identifier: MIT */
/* The kernels for AVX-512: sixteen floats a vector. */
#if defined(__x86_64__)
#include <immintrin.h>

#define V __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define ALL(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define FMADDSUB(a, b, c) _mm512_fmaddsub_ps(a, b, c)
#define SWAPPED(v) _mm512_permute_ps(v, 0xb1)
#define TWICE(p)                                                                                                      \
    _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),                          \
                          _mm512_castps256_ps512(_mm256_loadu_ps(p)))
#define LARGER(a, b) _mm512_max_ps(a, b)
#define EQUAL(a, b) (uint32_t)_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ)
#define REACHES(a, b) (uint32_t)_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ)
#define SUM(v) _mm512_reduce_add_ps(v)
#define LARGEST(v) _mm512_reduce_max_ps(v)
#define MOST_ROWS 6

/* The sums of four vectors' lanes, side by side. */
static inline __m128 sums_of_four(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#define SUMS(a, b, c, d) sums_of_four(a, b, c, d)

/* y (16) = a · q + b, or a · q alone: 16 signed bytes to floats. */
static inline void scale_bytes(float *y, __m128i q, float a)
{
    _mm512_storeu_ps(y, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), _mm512_set1_ps(a)));
}

static inline void scale_bytes_add(float *y, __m128i q, float a, float b)
{
    __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
    _mm512_storeu_ps(y, _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(a)), _mm512_set1_ps(b)));
}

/* y (16) = what `table` has at the low or high four bits of 16 bytes. */
static inline void look_up(float *y, __m128i q, int high, __m512 table)
{
    __m512i at = _mm512_cvtepu8_epi32(q); /* the lookup heeds four bits alone */
    _mm512_storeu_ps(y, _mm512_permutexvar_ps(high ? _mm512_srli_epi32(at, 4) : at, table));
}
#define LOOK_UP(y, q, high, table) look_up(y, q, high, table)
#define SIXTEEN _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

#include <kernels/vector.h>

extern const struct kernels kernels_avx512;
const struct kernels kernels_avx512 = KERNELS_OF("avx512");
#else
typedef int nothing_here;
#endif

/* SPDX-License-Identifier: MIT */
/* The kernels for AVX2 with FMA and F16C: eight floats a vector. */
#if defined(__x86_64__)
#include <immintrin.h>

#define V __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define ALL(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define FMADDSUB(a, b, c) _mm256_fmaddsub_ps(a, b, c)
#define SWAPPED(v) _mm256_permute_ps(v, 0xb1)
#define TWICE(p) _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))
#define LARGER(a, b) _mm256_max_ps(a, b)
#define EQUAL(a, b) (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ))
#define REACHES(a, b) (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ))

static inline float sum_lanes(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float largest_lane(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
/* The sums of four vectors' lanes, side by side. */
static inline __m128 sums_of_four(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

#define SUM(v) sum_lanes(v)
#define SUMS(a, b, c, d) sums_of_four(a, b, c, d)
#define MOST_ROWS 3
#define LARGEST(v) largest_lane(v)

/* y (16) = a · q + b, or a · q alone: 16 signed bytes to floats. */
static inline void scale_bytes(float *y, __m128i q, float a)
{
    __m256 by = _mm256_set1_ps(a);
    _mm256_storeu_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), by));
    _mm256_storeu_ps(y + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))), by));
}

static inline void scale_bytes_add(float *y, __m128i q, float a, float b)
{
    __m256 by = _mm256_set1_ps(a), to = _mm256_set1_ps(b);
    __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
    __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)));
    _mm256_storeu_ps(y, _mm256_add_ps(_mm256_mul_ps(low, by), to));
    _mm256_storeu_ps(y + 8, _mm256_add_ps(_mm256_mul_ps(high, by), to));
}

#include <kernels/vector.h>

extern const struct kernels kernels_avx2;
const struct kernels kernels_avx2 = KERNELS_OF("avx2");
#else
typedef int nothing_here;
#endif

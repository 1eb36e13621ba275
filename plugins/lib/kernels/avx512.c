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
#define LARGER(a, b) _mm512_max_ps(a, b)
#define SUM(v) _mm512_reduce_add_ps(v)
#define LARGEST(v) _mm512_reduce_max_ps(v)

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

#include <kernels/vector.h>

extern const struct kernels kernels_avx512;
const struct kernels kernels_avx512 = KERNELS_OF("avx512");
#else
typedef int nothing_here;
#endif

/* SPDX-License-Identifier: MIT */
/* What the two sets of 256 bits share: eight rows of W a group. */
#include <string.h>

#include <immintrin.h>

#include <kernels/integer.h>

#define VI __m256i
#define VF __m256
#define LANES 8
#define MOST_ROWS 4
#define ALL_INTS(x) _mm256_set1_epi32(x)
#define ALL_FLOATS(x) _mm256_set1_ps(x)
#define FLOATS(v) _mm256_cvtepi32_ps(v)
#define HALVES(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define LEFT4(v) _mm256_slli_epi32(v, 4)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define ADD(p, v) _mm256_add_ps(_mm256_loadu_ps(p), v)

static inline __m256i quad_at(const unsigned char *quads, int j)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(quads + 32 * j));
}

/* Four columns of x in all lanes. */
static inline __m256i four_of(const int8_t *p, int j)
{
    int four;
    memcpy(&four, p + 4 * j, 4);
    return _mm256_set1_epi32(four);
}

static inline __m256i low_four(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

static inline __m256i high_four(__m256i v)
{
    return low_four(_mm256_srli_epi16(v, 4));
}

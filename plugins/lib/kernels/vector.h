/* SPDX-License-Identifier: MIT */
/* The kernels in vectors of LANES floats: one body, included by avx2.c and avx512.c, which
 * define V (the vector type), LANES, LOAD, STORE, ALL (one number in all lanes), FMA (a·b + c),
 * LARGER, SUM and LARGEST (across lanes), EQUAL and
 * REACHES (a bit a lane), SUMS (of four vectors, side by side), MOST_ROWS
 * (3 or 6: as many rows of a product's tile as there are registers for), TWICE (LANES / 2 numbers, each twice),
 * SWAPPED (neighbours exchanged), FMADDSUB (a·b − c in even lanes, a·b + c in odd ones), scale_bytes and
 * scale_bytes_add; and, if sixteen floats can be looked up, LOOK_UP and SIXTEEN (0 … 15:
 * dequantize_vector.h). What is left of a row goes through plain loops.
 *
 * exp: x = n·ln 2 + r, |r| ≤ ln 2 / 2; a polynomial of degree 5 after the first two terms
 * (Cephes expf) and n added to the exponent's bits: within 2 units in the last place. Below
 * −87 it stays at e^−87, 1.6e-38. */
#include <immintrin.h>
#include <math.h>

#include <kernels/dequantize.h>
#include <kernels/kernels.h>
#include <kernels/dequantize_vector.h>
#include <kernels/product_vector.h>
#include <kernels/weigh_vector.h>

typedef uint32_t VU __attribute__((vector_size(LANES * 4)));


static inline V exp_lanes(V x)
{
    x = LARGER(x, ALL(-87.0f));
    V magic = ALL(12582912.0f); /* 1.5 · 2^23: adding it rounds to a whole number in the low bits */
    V z = FMA(x, ALL(1.44269504088896341f), magic), n = z - magic;
    V r = FMA(n, ALL(2.12194440e-4f), FMA(n, ALL(-0.693359375f), x));
    V p = ALL(1.9875691500e-4f);
    p = FMA(p, r, ALL(1.3981999507e-3f));
    p = FMA(p, r, ALL(8.3334519073e-3f));
    p = FMA(p, r, ALL(4.1665795894e-2f));
    p = FMA(p, r, ALL(1.6666665459e-1f));
    p = FMA(p, r, ALL(5.0000001201e-1f));
    V y = FMA(p, r * r, r + ALL(1.0f));
    return (V)((VU)y + ((VU)z << 23));
}

#include <kernels/soften_vector.h>

static float softmax(float *x, size_t n, float *entropy)
{
    float largest = x[0], sum = 0, dot = 0;
    V most = ALL(x[0]), sums = ALL(0.0f), dots = ALL(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        most = LARGER(most, LOAD(x + i));
    largest = LARGEST(most);
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (i = 0; i + LANES <= n; i += LANES) {
        V below = LOAD(x + i) - ALL(largest), e = exp_lanes(below);
        STORE(x + i, e);
        sums = sums + e;
        dots = FMA(e, below, dots);
    }
    for (; i < n; i++) {
        float below = x[i] - largest;
        x[i] = expf(below);
        sum += x[i];
        dot += x[i] * below;
    }
    sum += SUM(sums);
    if (entropy)
        *entropy = logf(sum) - (dot + SUM(dots)) / sum;
    return sum;
}

static void rmsnorm(float *y, const float *x, const float *weight, size_t n, float epsilon)
{
    V sums = ALL(0.0f);
    float sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        V a = LOAD(x + i);
        sums = FMA(a, a, sums);
    }
    for (; i < n; i++)
        sum += x[i] * x[i];
    float by = 1.0f / sqrtf((sum + SUM(sums)) / (float)n + epsilon);
    for (i = 0; i + LANES <= n; i += LANES)
        STORE(y + i, LOAD(x + i) * ALL(by) * LOAD(weight + i));
    for (; i < n; i++)
        y[i] = x[i] * by * weight[i];
}

static void swiglu(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        V g = LOAD(gate + i), e = exp_lanes(-LARGER(g, ALL(-87.0f)));
        STORE(y + i, g / (ALL(1.0f) + e) * LOAD(up + i));
    }
    for (; i < n; i++)
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void rope_interleaved(float *x, const float *turn, size_t pairs)
{
    for (size_t i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = turn[i], s = turn[pairs + i];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = b * c + a * s;
    }
}

static void rope_halves(float *x, const float *turn, size_t pairs)
{
    size_t i = 0;
    for (; i + LANES <= pairs; i += LANES) {
        V a = LOAD(x + i), b = LOAD(x + i + pairs), c = LOAD(turn + i), s = LOAD(turn + pairs + i);
        STORE(x + i, a * c - b * s);
        STORE(x + i + pairs, b * c + a * s);
    }
    for (; i < pairs; i++) {
        float a = x[i], b = x[i + pairs], c = turn[i], s = turn[pairs + i];
        x[i] = a * c - b * s;
        x[i + pairs] = b * c + a * s;
    }
}

/* Pairs side by side: a·c − b·s and b·c + a·s are (a b)·(c c) −/+ (b a)·(s s). */
static void turn_interleaved(float *y, const float *x, const float *turns, size_t n, size_t width, size_t pairs)
{
    for (; n--; y += width, x += width, turns += 2 * pairs) {
        size_t i = 0;
        for (; 2 * i + LANES <= 2 * pairs; i += LANES / 2) {
            V ab = LOAD(x + 2 * i);
            STORE(y + 2 * i, FMADDSUB(ab, TWICE(turns + i), SWAPPED(ab) * TWICE(turns + pairs + i)));
        }
        for (; i < pairs; i++) {
            float a = x[2 * i], b = x[2 * i + 1], c = turns[i], s = turns[pairs + i];
            y[2 * i] = a * c - b * s;
            y[2 * i + 1] = b * c + a * s;
        }
        if (y != x)
            memcpy(y + 2 * pairs, x + 2 * pairs, (width - 2 * pairs) * sizeof *y);
    }
}

static void turn_halves(float *y, const float *x, const float *turns, size_t n, size_t width, size_t pairs)
{
    for (; n--; y += width, x += width, turns += 2 * pairs) {
        size_t i = 0;
        for (; i + LANES <= pairs; i += LANES) {
            V a = LOAD(x + i), b = LOAD(x + i + pairs), c = LOAD(turns + i), s = LOAD(turns + pairs + i);
            STORE(y + i, a * c - b * s);
            STORE(y + i + pairs, b * c + a * s);
        }
        for (; i < pairs; i++) {
            float a = x[i], b = x[i + pairs], c = turns[i], s = turns[pairs + i];
            y[i] = a * c - b * s;
            y[i + pairs] = b * c + a * s;
        }
        if (y != x)
            memcpy(y + 2 * pairs, x + 2 * pairs, (width - 2 * pairs) * sizeof *y);
    }
}

static void scale(float *y, const float *x, float a, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        STORE(y + i, ALL(a) * LOAD(x + i));
    for (; i < n; i++)
        y[i] = a * x[i];
}

static void add_rows(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        STORE(y + i, LOAD(y + i) + LOAD(x + i));
    for (; i < n; i++)
        y[i] += x[i];
}

static void float_to_half(uint16_t *out, const float *in, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (; i < n; i++)
        out[i] = half_of_float(in[i]);
}

static void scale_to_half(uint16_t *out, const float *x, float a, size_t n)
{
    __m256 by = _mm256_set1_ps(a), most = _mm256_set1_ps(65504.0f), least = _mm256_set1_ps(-65504.0f);
    for (; n >= 8; n -= 8, x += 8, out += 8) {
        __m256 y = _mm256_max_ps(_mm256_min_ps(_mm256_mul_ps(_mm256_loadu_ps(x), by), most), least);
        _mm_storeu_si128((__m128i *)(void *)out, _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    if (n >= 4) {
        __m128 y = _mm_mul_ps(_mm_loadu_ps(x), _mm_set1_ps(a));
        y = _mm_max_ps(_mm_min_ps(y, _mm_set1_ps(65504.0f)), _mm_set1_ps(-65504.0f));
        _mm_storel_epi64((__m128i *)(void *)out, _mm_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        n -= 4, x += 4, out += 4;
    }
    for (size_t i = 0; i < n; i++) {
        float y = a * x[i];
        out[i] = half_of_float(y > 65504.0f ? 65504.0f : y < -65504.0f ? -65504.0f : y);
    }
}

static float sum_all(const float *x, size_t n)
{
    V sums = ALL(0.0f);
    float sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sums = sums + LOAD(x + i);
    for (; i < n; i++)
        sum += x[i];
    return sum + SUM(sums);
}

static size_t find(const float *x, size_t n, float value)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint32_t equal = EQUAL(LOAD(x + i), ALL(value));
        if (equal)
            return i + (size_t)__builtin_ctz(equal);
    }
    while (i < n && x[i] != value)
        i++;
    return i;
}

/* The k-th largest of the lanes' maxima: as many elements, one of each lane, reach it. */
static float reached_by(const float *x, size_t n, size_t k)
{
    if (k > LANES || n < LANES)
        return -INFINITY;
    V most = LOAD(x);
    float lane[LANES], best = -INFINITY;
    for (size_t i = LANES; i + LANES <= n; i += LANES)
        most = LARGER(most, LOAD(x + i));
    STORE(lane, most);
    for (size_t i = 0; i < LANES; i++)
        if ((size_t)__builtin_popcount(REACHES(most, ALL(lane[i]))) >= k && lane[i] > best)
            best = lane[i];
    return best;
}

static size_t reaching(const float *x, size_t n, float least, uint32_t *at)
{
    size_t count = 0, i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t reach = REACHES(LOAD(x + i), ALL(least)); reach; reach &= reach - 1)
            at[count++] = (uint32_t)i + (uint32_t)__builtin_ctz(reach);
    for (; i < n; i++)
        if (x[i] >= least)
            at[count++] = (uint32_t)i;
    return count;
}

#define KERNELS_OF(set)                                                                                               \
    {                                                                                                                 \
        .name = set, .rows = MOST_ROWS, .dequantize = dequantize_lanes, .few = few, .weigh = weigh,                   \
        .transpose = transpose, .soften = soften, .softmax = softmax,                                                   \
        .rmsnorm = rmsnorm, .swiglu = swiglu, .rope_interleaved = rope_interleaved, .rope_halves = rope_halves,       \
        .scale = scale, .add = add_rows, .half_to_float = half_to_float, .float_to_half = float_to_half,              \
        .turn_interleaved = turn_interleaved, .turn_halves = turn_halves, .quantize_q8_0 = quantize_q8_0,             \
        .scale_to_half = scale_to_half, .sum = sum_all, .find = find, .reached_by = reached_by, .reaching = reaching  \
    }

/* SPDX-License-Identifier: MIT */
/* The kernels as plain loops: what each of them means. Products alone are in vectors of four
 * floats, as the compiler makes them of whatever the processor has: prompts would take minutes. */
#include <math.h>

#include <kernels/dequantize.h>
#include <kernels/kernels.h>

typedef float four __attribute__((vector_size(16)));
typedef float anywhere __attribute__((vector_size(16), aligned(4), may_alias));

#define V four
#define LANES 4
#define LOAD(p) (four)*(const anywhere *)(const void *)(p)
#define STORE(p, v) (*(anywhere *)(void *)(p) = (v))
#define ALL(x) ((four){ x, x, x, x })
#define FMA(a, b, c) ((a) * (b) + (c))
#define MOST_ROWS 3
#define SUMS(a, b, c, d) sums_of_four(a, b, c, d)

static inline four sums_of_four(four a, four b, four c, four d)
{
    return (four){ a[0], b[0], c[0], d[0] } + (four){ a[2], b[2], c[2], d[2] } +
           ((four){ a[1], b[1], c[1], d[1] } + (four){ a[3], b[3], c[3], d[3] });
}

#include <kernels/product_vector.h>
#include <kernels/weigh_vector.h>

static float softmax(float *x, size_t n, float *entropy)
{
    float largest = x[0];
    double sum = 0, dot = 0;
    for (size_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < n; i++) {
        float below = x[i] - largest;
        x[i] = expf(below);
        sum += x[i];
        dot += (double)x[i] * below;
    }
    if (entropy)
        *entropy = (float)(log(sum) - dot / sum);
    return (float)sum;
}

static void transpose(float *y, size_t y_stride, const float *x, size_t n, size_t k)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++)
            y[j * y_stride + i] = x[i * k + j];
}

static float soften(float *x, size_t n, size_t width, float *largest)
{
    double sum = 0;
    *largest = x[0];
    for (size_t i = 1; i < n; i++)
        *largest = x[i] > *largest ? x[i] : *largest;
    for (size_t i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - *largest);
    for (size_t i = n; i < width; i++)
        x[i] = 0;
    return (float)sum;
}

static void rmsnorm(float *y, const float *x, const float *weight, size_t n, float epsilon)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)n + epsilon);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void swiglu(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
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
    for (size_t i = 0; i < pairs; i++) {
        float a = x[i], b = x[i + pairs], c = turn[i], s = turn[pairs + i];
        x[i] = a * c - b * s;
        x[i + pairs] = b * c + a * s;
    }
}

static void turn_interleaved(float *y, const float *x, const float *turns, size_t n, size_t width, size_t pairs)
{
    for (; n--; y += width, x += width, turns += 2 * pairs) {
        memmove(y, x, width * sizeof *y);
        rope_interleaved(y, turns, pairs);
    }
}

static void turn_halves(float *y, const float *x, const float *turns, size_t n, size_t width, size_t pairs)
{
    for (; n--; y += width, x += width, turns += 2 * pairs) {
        memmove(y, x, width * sizeof *y);
        rope_halves(y, turns, pairs);
    }
}

static void scale(float *y, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a * x[i];
}

static void add_rows(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void half_to_float(float *out, const uint16_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = float_of_half(in[i]);
}

static void float_to_half(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = half_of_float(in[i]);
}

static void scale_to_half(uint16_t *out, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float y = a * x[i];
        out[i] = half_of_float(y > 65504.0f ? 65504.0f : y < -65504.0f ? -65504.0f : y);
    }
}

static float sum(const float *x, size_t n)
{
    float all = 0;
    for (size_t i = 0; i < n; i++)
        all += x[i];
    return all;
}

static size_t find(const float *x, size_t n, float value)
{
    size_t i = 0;
    while (i < n && x[i] != value)
        i++;
    return i;
}

static float reached_by(const float *x, size_t n, size_t k)
{
    (void)x, (void)n, (void)k;
    return -INFINITY;
}

static size_t reaching(const float *x, size_t n, float least, uint32_t *at)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (x[i] >= least)
            at[count++] = (uint32_t)i;
    return count;
}

const struct kernels kernels_plain = {
    .name = "plain",
    .rows = MOST_ROWS,
    .dequantize = dequantize,
    .few = few,
    .weigh = weigh,
    .transpose = transpose,
    .soften = soften,
    .softmax = softmax,
    .rmsnorm = rmsnorm,
    .swiglu = swiglu,
    .rope_interleaved = rope_interleaved,
    .rope_halves = rope_halves,
    .turn_interleaved = turn_interleaved,
    .turn_halves = turn_halves,
    .scale = scale,
    .add = add_rows,
    .half_to_float = half_to_float,
    .float_to_half = float_to_half,
    .quantize_q8_0 = quantize_q8_0,
    .scale_to_half = scale_to_half,
    .sum = sum,
    .find = find,
    .reached_by = reached_by,
    .reaching = reaching,
};

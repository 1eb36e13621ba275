/* SPDX-License-Identifier: MIT */
/* Every instruction set that this machine has against the plain loops, and the plain loops
 * against double arithmetic or the format's own words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kernels/half.h>
#include <kernels/kernels.h>
#include <lathe/random.h>

enum { MOST = 4096 };

static const struct kernels *all[3];
static size_t count;
static const size_t sizes[] = { 1, 2, 7, 8, 15, 16, 17, 31, 64, 100, 576, 1536, 4095 };
enum { SIZES = sizeof sizes / sizeof *sizes };

static void fill(float *x, size_t n, uint64_t stream, double range)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((2 * lathe_random_unit(7, LATHE_RANDOM_USER, stream, (uint32_t)i) - 1) * range);
}

static void fill_bytes(uint8_t *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (uint8_t)lathe_random_u64(9, LATHE_RANDOM_USER, stream, (uint32_t)i);
}

static void near(const char *what, const char *set, double found, double expected, double tolerance)
{
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("%s, %s: %.9g, expected %.9g within %.3g", what, set, found, expected, tolerance);
}

static void few_products_are_sums_of_products(void **state)
{
    static float x[9 * MOST], w[7 * MOST], y[9 * 8];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++)
            for (size_t m = 1; m <= 9; m++)
                for (size_t n = 1; n <= 7; n += 3)
                    for (int add = 0; add < 2; add++) {
                        size_t k = sizes[z];
                        fill(x, m * MOST, z, 1);
                        fill(w, n * MOST, z + 100, 1);
                        fill(y, 9 * 8, z, 1);
                        float before[9 * 8];
                        memcpy(before, y, sizeof y);
                        all[s]->few(y, 8, x, MOST, m, w, MOST, n, k, add);
                        for (size_t r = 0; r < m; r++)
                            for (size_t j = 0; j < 8; j++) {
                                double sum = add ? before[r * 8 + j] : 0, size = 1;
                                for (size_t i = 0; i < k && j < n; i++) {
                                    sum += (double)x[r * MOST + i] * w[j * MOST + i];
                                    size += fabs((double)x[r * MOST + i] * w[j * MOST + i]);
                                }
                                near("few", all[s]->name, y[r * 8 + j], j < n ? sum : before[r * 8 + j], size * 2e-6);
                            }
                    }
}

static void weigh_adds_weighted_rows(void **state)
{
    static float v[40 * MOST], p[3 * 40], y[3 * MOST];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++) {
            size_t k = sizes[z];
            fill(v, 40 * MOST, 1, 1);
            fill(p, 3 * 40, 2, 1);
            fill(y, 3 * MOST, 3, 1);
            all[s]->weigh(y, MOST, p, 40, 3, v, MOST, 37, k);
            for (size_t r = 0; r < 3; r++)
                for (size_t i = 0; i < k; i++) {
                    double sum = (2 * lathe_random_unit(7, LATHE_RANDOM_USER, 3, (uint32_t)(r * MOST + i)) - 1);
                    for (size_t j = 0; j < 37; j++)
                        sum += (double)p[r * 40 + j] * v[j * MOST + i];
                    near("weigh", all[s]->name, y[r * MOST + i], sum, 2e-5);
                }
        }
}

/* However its rows and values are cut, an element has the same bits: attention's blocks rest on it. */
static void weigh_has_the_same_bits_however_it_is_cut(void **state)
{
    static float v[40 * 256], p[13 * 40], y[13 * 256], cut[13 * 256];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t k = 1; k <= 256; k = k < 40 ? k + 1 : k + 36) {
            fill(v, 40 * 256, 1, 1);
            fill(p, 13 * 40, 2, 1);
            fill(y, 13 * 256, 3, 1);
            memcpy(cut, y, sizeof y);
            all[s]->weigh(y, 256, p, 40, 13, v, 256, 37, k);
            for (size_t r = 0; r < 13; r += 1 + r % 3) {
                size_t m = r + 1 + r % 3 <= 13 ? 1 + r % 3 : 13 - r;
                for (size_t j = 0; j < 37; j += 16)
                    all[s]->weigh(cut + r * 256, 256, p + r * 40 + j, 40, m, v + j * 256, 256, j + 16 <= 37 ? 16 : 37 - j, k);
            }
            assert_memory_equal(y, cut, sizeof y);
        }
}

static void transpose_turns_rows_into_columns(void **state)
{
    static float x[40 * 100], y[100 * 48];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t n = 1; n <= 40; n++)
            for (size_t k = 1; k <= 100; k = k < 20 ? k + 1 : k + 16) {
                fill(x, 40 * 100, n, 1);
                memset(y, 0, sizeof y);
                all[s]->transpose(y, 48, x, n, k);
                for (size_t j = 0; j < 100; j++)
                    for (size_t i = 0; i < 48; i++)
                        if (y[j * 48 + i] != (i < n && j < k ? x[i * k + j] : 0))
                            fail_msg("transpose, %s: (%zu, %zu) of (%zu, %zu)", all[s]->name, j, i, k, n);
            }
}

static void a_softened_block_is_exact_in_any_width(void **state)
{
    static float x[144], e[144], wide[144];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t n = 1; n <= 128; n++) {
            float most, other;
            double sum = 0;
            fill(x, 144, n, n % 2 ? 3 : 200);
            memcpy(e, x, sizeof e);
            memcpy(wide, x, sizeof wide);
            float total = all[s]->soften(e, n, n, &most);
            assert_true(total == all[s]->soften(wide, n, 130, &other) && most == other);
            assert_memory_equal(e, wide, n * sizeof *e);
            for (size_t i = 0; i < n; i++) {
                double expected = exp((double)(x[i] - most));
                assert_true(x[i] <= most);
                near("soften", all[s]->name, e[i], expected, expected * 3e-7 + 1.7e-38);
                sum += expected;
            }
            for (size_t i = n; i < 144; i++)
                assert_true(e[i] == x[i] && wide[i] == (i < 130 ? 0 : x[i]));
            near("sum of a block", all[s]->name, total, sum, sum * 1e-6);
        }
}

static void softmax_is_accurate_to_a_few_units(void **state)
{
    static float x[MOST], e[MOST];
    const double ranges[] = { 0.001, 1, 10, 40, 200 };
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++)
            for (size_t g = 0; g < 5; g++) {
                size_t n = sizes[z];
                double most = -INFINITY, sum = 0, entropy = 0;
                float found;
                fill(x, n, z, ranges[g]);
                memcpy(e, x, sizeof e);
                for (size_t i = 0; i < n; i++)
                    most = x[i] > most ? x[i] : most;
                float total = all[s]->softmax(e, n, &found);
                for (size_t i = 0; i < n; i++) {
                    double expected = exp((double)(x[i] - (float)most));
                    near("exp", all[s]->name, e[i], expected, expected * 3e-7 + 1.7e-38);
                    sum += expected;
                }
                for (size_t i = 0; i < n; i++) {
                    double w = exp(x[i] - most) / sum;
                    entropy -= w > 0 ? w * log(w) : 0;
                }
                near("sum", all[s]->name, total, sum, sum * 2e-6);
                near("entropy", all[s]->name, found, entropy, 1e-4);
            }
}

static void rmsnorm_divides_by_the_root_mean_square(void **state)
{
    static float x[MOST], w[MOST], y[MOST];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++) {
            size_t n = sizes[z];
            double sum = 0;
            fill(x, n, 1, 3);
            fill(w, n, 2, 2);
            all[s]->rmsnorm(y, x, w, n, 1e-5f);
            for (size_t i = 0; i < n; i++)
                sum += (double)x[i] * x[i];
            for (size_t i = 0; i < n; i++)
                near("rmsnorm", all[s]->name, y[i], x[i] / sqrt(sum / (double)n + 1e-5) * w[i], 2e-5);
        }
}

static void swiglu_holds_from_deep_negative_to_large(void **state)
{
    static float gate[MOST], up[MOST], y[MOST];
    const float edges[] = { 0, -0.0f, -87, -88, -100, -1000, 87, 88, 100, 1000 };
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++) {
            size_t n = sizes[z];
            fill(gate, n, 1, 20);
            fill(up, n, 2, 2);
            for (size_t i = 0; i < 10 && i < n; i++)
                gate[i * (n > 100 ? 37 : 1)] = edges[i];
            all[s]->swiglu(y, gate, up, n);
            for (size_t i = 0; i < n; i++) {
                double expected = gate[i] / (1 + exp(-(double)gate[i])) * up[i];
                near("swiglu", all[s]->name, y[i], expected, fabs(expected) * 1e-6 + 1e-30);
            }
        }
}

static void rotation_turns_the_right_pairs(void **state)
{
    static float x[256], turn[256], y[256];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t pairs = 1; pairs <= 64; pairs += 7)
            for (int halves = 0; halves < 2; halves++) {
                fill(x, 256, 1, 1);
                memcpy(y, x, sizeof y);
                for (size_t i = 0; i < pairs; i++) {
                    turn[i] = cosf((float)i + 0.5f);
                    turn[pairs + i] = sinf((float)i + 0.5f);
                }
                (halves ? all[s]->rope_halves : all[s]->rope_interleaved)(y, turn, pairs);
                for (size_t i = 0; i < pairs; i++) {
                    size_t a = halves ? i : 2 * i, b = halves ? i + pairs : 2 * i + 1;
                    double c = cos((double)i + 0.5), d = sin((double)i + 0.5);
                    near("rope", all[s]->name, y[a], x[a] * c - x[b] * d, 1e-6);
                    near("rope", all[s]->name, y[b], x[a] * d + x[b] * c, 1e-6);
                }
                assert_memory_equal(y + 2 * pairs, x + 2 * pairs, (256 - 2 * pairs) * sizeof *x);
            }
}

static void many_rows_turn_as_one_does(void **state)
{
    enum { ROWS = 5, WIDTH = 150 };
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], turns[ROWS * WIDTH], one[WIDTH];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t pairs = 1; pairs <= 64; pairs++)
            for (int variant = 0; variant < 4; variant++) {
                int halves = variant & 1, in_place = variant & 2;
                size_t width = 2 * pairs + pairs % 3; /* what isn't rotated is copied */
                fill(x, ROWS * WIDTH, 1, 1);
                for (size_t i = 0; i < ROWS * 2 * pairs; i++)
                    turns[i] = (i / pairs) % 2 ? sinf((float)i) : cosf((float)(i + pairs));
                memcpy(y, x, sizeof y);
                (halves ? all[s]->turn_halves : all[s]->turn_interleaved)(y, in_place ? y : x, turns, ROWS, width, pairs);
                for (size_t r = 0; r < ROWS; r++) {
                    memcpy(one, x + r * width, width * sizeof *one);
                    (halves ? kernels_plain.rope_halves : kernels_plain.rope_interleaved)(one, turns + r * 2 * pairs, pairs);
                    for (size_t i = 0; i < width; i++)
                        near("turn", all[s]->name, y[r * width + i], one[i], i < 2 * pairs ? 2.4e-7 : 0);
                }
                assert_memory_equal(y + ROWS * width, x + ROWS * width, (ROWS * WIDTH - ROWS * width) * sizeof *x);
            }
}

/* The nearest of 255 steps of largest / 127, but for the step's own rounding to half precision. */
static void q8_0_rounds_within_half_a_step(void **state)
{
    static float x[MOST], back[MOST];
    static uint8_t row[MOST / 32 * 34], same[MOST / 32 * 34];
    (void)state;
    for (int range = -3; range <= 3; range++) {
        fill(x, MOST, (uint64_t)(range + 3), pow(10, range));
        memset(x + 32, 0, 32 * sizeof *x);
        x[96] = -x[97];
        kernels_plain.quantize_q8_0(row, x, MOST);
        for (size_t s = 0; s < count; s++) {
            all[s]->quantize_q8_0(same, x, MOST);
            assert_memory_equal(same, row, sizeof row);
        }
        kernels_plain.dequantize(LATHE_Q8_0, row, back, MOST);
        for (size_t b = 0; b < MOST; b += 32) {
            double largest = 0;
            for (size_t i = b; i < b + 32; i++)
                largest = fabs((double)x[i]) > largest ? fabs((double)x[i]) : largest;
            for (size_t i = b; i < b + 32; i++)
                near("q8_0", "plain", back[i], x[i], largest / 127 * 0.5001 + fabs((double)x[i]) * 0x1p-11 + 127 * 0x1p-25);
        }
    }
    x[5] = NAN; /* doesn't hide */
    kernels_plain.quantize_q8_0(row, x, 32);
    kernels_plain.dequantize(LATHE_Q8_0, row, back, 32);
    assert_true(isnan(back[5]));
}

static void every_half_converts_both_ways(void **state)
{
    static uint16_t in[65536], out[65536];
    static float x[65536];
    (void)state;
    for (uint32_t i = 0; i < 65536; i++)
        in[i] = (uint16_t)i;
    for (size_t s = 0; s < count; s++) {
        all[s]->half_to_float(x, in, 65536);
        all[s]->float_to_half(out, x, 65536);
        for (uint32_t i = 0; i < 65536; i++) {
            int exponent = i >> 10 & 31, fraction = i & 1023;
            if (exponent == 31 && fraction) {
                assert_true(isnan(x[i]));
                assert_true((out[i] & 0x7c00) == 0x7c00 && (out[i] & 1023));
                continue;
            }
            double expected = exponent == 31 ? INFINITY : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
            assert_true(x[i] == (float)(i >> 15 ? -expected : expected));
            assert_int_equal(out[i], i);
        }
        /* in between: to the nearest, ties to even; the same in every set */
        for (uint32_t i = 0; i < 65536; i++)
            x[i] = float_of_bits((uint32_t)lathe_random_u64(3, LATHE_RANDOM_USER, 5, i) % 0x50000000u + 0x30000000u);
        all[s]->float_to_half(out, x, 65536);
        for (uint32_t i = 0; i < 65536; i++)
            assert_int_equal(out[i], half_of_float(x[i]));
    }
    assert_int_equal(half_of_float(65519.9f), 0x7bff);
    assert_int_equal(half_of_float(65520.0f), 0x7c00);
    assert_int_equal(half_of_float(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(half_of_float(1.0f + 3 * 0x1p-11f), 0x3c02);
    assert_int_equal(half_of_float(0x1p-25f), 0);
    assert_int_equal(half_of_float(0x1.8p-25f), 1);
}

static void scaled_halves_are_clamped(void **state)
{
    static float x[MOST];
    static uint16_t out[MOST + 1];
    const float edges[] = { 1e9f, -1e9f, INFINITY, -INFINITY, 65504, -65519, 0, -0.0f };
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++) {
            size_t n = sizes[z];
            fill(x, n, z, 300);
            for (size_t i = 0; i < 8 && i < n; i++)
                x[i * (n > 100 ? 11 : 1)] = edges[i];
            out[n] = 42;
            all[s]->scale_to_half(out, x, 0.7f, n);
            for (size_t i = 0; i < n; i++) {
                float y = 0.7f * x[i];
                assert_int_equal(out[i], half_of_float(y > 65504 ? 65504 : y < -65504 ? -65504 : y));
            }
            assert_int_equal(out[n], 42);
        }
}

static void sums_and_first_equals_are_found(void **state)
{
    static float x[MOST];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++) {
            size_t n = sizes[z];
            double sum = 0;
            fill(x, n, z, 1);
            for (size_t i = 0; i < n; i++)
                sum += x[i];
            near("sum", all[s]->name, all[s]->sum(x, n), sum, 1e-6 * (double)n);
            assert_true(all[s]->sum(x, 0) == 0);
            assert_int_equal(all[s]->find(x, n, 2), n);
            for (size_t i = n; i-- > 0;) {
                x[i] = 2;
                assert_int_equal(all[s]->find(x, n, 2), i);
            }
        }
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void a_bound_that_k_elements_reach_keeps_the_k_largest(void **state)
{
    static float x[MOST], sorted[MOST];
    static uint32_t at[MOST];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t z = 0; z < SIZES; z++)
            for (size_t k = 1; k <= 40 && k <= sizes[z]; k++)
                for (int tied = 0; tied < 2; tied++) {
                    size_t n = sizes[z], next = 0;
                    fill(x, n, z * 41 + k, 8);
                    for (size_t i = 0; i < n && tied; i++)
                        x[i] = floorf(x[i]);
                    memcpy(sorted, x, n * sizeof *x);
                    qsort(sorted, n, sizeof *sorted, descending);
                    float least = all[s]->reached_by(x, n, k);
                    assert_true(least <= sorted[k - 1]);
                    size_t found = all[s]->reaching(x, n, least, at);
                    assert_true(found >= k);
                    for (size_t i = 0; i < n; i++) /* those that reach it, all, in order */
                        if (x[i] >= least)
                            assert_int_equal(at[next++], i);
                    assert_int_equal(next, found);
                    if (s && n >= 1536 && k <= 8 && !tied) /* and it is a bound worth having */
                        assert_true(found < 100);
                }
}

static const int32_t types[] = { LATHE_F32, LATHE_F16, LATHE_BF16, LATHE_Q8_0, LATHE_Q4_0, LATHE_Q4_1,
                                 LATHE_Q5_0, LATHE_Q5_1, LATHE_Q4_K, LATHE_Q5_K, LATHE_Q6_K };

static void dequantization_is_the_same_to_the_bit(void **state)
{
    static uint8_t row[4 * MOST + 1];
    static float expected[MOST], found[MOST + 1];
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            for (size_t n = 256; n <= 2048; n += 256) {
                fill_bytes(row, sizeof row, t);
                found[n] = 42;
                kernels_plain.dequantize(types[t], row + 1, expected, n); /* + 1: unaligned */
                all[s]->dequantize(types[t], row + 1, found, n);
                for (size_t i = 0; i < n; i++)
                    if (!(isnan(expected[i]) && isnan(found[i])) && bits_of_float(found[i]) != bits_of_float(expected[i]))
                        fail_msg("%s, %s: element %zu is %g, expected %g", all[s]->name, lathe_dtype_name(types[t]), i,
                                 found[i], expected[i]);
                assert_true(found[n] == 42);
            }
}

/* One block of each type, by hand. */
static void blocks_mean_what_the_format_says(void **state)
{
    uint8_t b[256] = { 0 };
    float y[256];
    (void)state;
    b[0] = 0x00, b[1] = 0x38; /* d = 0.5 */
    b[2] = 0xff, b[33] = 5;
    kernels_plain.dequantize(LATHE_Q8_0, b, y, 32);
    assert_true(y[0] == -0.5f && y[1] == 0 && y[31] == 2.5f);
    b[2] = 0x3f;
    kernels_plain.dequantize(LATHE_Q4_0, b, y, 32);
    assert_true(y[0] == 3.5f && y[16] == -2.5f && y[1] == -4);
    memset(b, 0, sizeof b);
    b[1] = 0x38, b[3] = 0x3c; /* d = 0.5, m = 1 */
    b[4] = 0x3f;
    kernels_plain.dequantize(LATHE_Q4_1, b, y, 32);
    assert_true(y[0] == 8.5f && y[16] == 2.5f && y[1] == 1);
    b[4] = 0x01, b[5] = 0, b[6] = 0x02, b[7] = 0; /* fifth bits of elements 0 and 17 */
    b[8] = 0x3f;
    kernels_plain.dequantize(LATHE_Q5_1, b, y, 32);
    assert_true(y[0] == 16.5f && y[16] == 2.5f && y[17] == 9 && y[1] == 1);
    memset(b, 0, sizeof b);
    b[1] = 0x38, b[2] = 0x01, b[6] = 0x3f;
    kernels_plain.dequantize(LATHE_Q5_0, b, y, 32);
    assert_true(y[0] == 7.5f && y[16] == -6.5f && y[1] == -8);
    memset(b, 0, sizeof b);
    b[1] = 0x38, b[3] = 0x3c;
    b[4] = 2, b[8] = 3;    /* group 0: scale 2, minimum 3 */
    b[12] = 0x51, b[4] |= 0x40, b[8] |= 0x80; /* group 4: scale 1 + 16·1, minimum 5 + 16·2 */
    b[16] = 0x07, b[16 + 64] = 0x07;
    kernels_plain.dequantize(LATHE_Q4_K, b, y, 256);
    assert_true(y[0] == 0.5f * 2 * 7 - 3 && y[1] == -3 && y[32] == 0);
    assert_true(y[128] == 0.5f * 17 * 7 - 37 && y[129] == -37);
    memset(b, 0, sizeof b);
    b[209] = 0x38, b[192] = 2, b[193] = 0xff; /* d = 0.5; scales 2 and −1 */
    b[0] = 0x0f, b[128] = 0x01;               /* element 0: 15 + 16 */
    kernels_plain.dequantize(LATHE_Q6_K, b, y, 256);
    assert_true(y[0] == 0.5f * 2 * (31 - 32) && y[1] == 0.5f * 2 * -32 && y[16] == 0.5f * 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_products_are_sums_of_products), cmocka_unit_test(weigh_adds_weighted_rows),
        cmocka_unit_test(weigh_has_the_same_bits_however_it_is_cut), cmocka_unit_test(transpose_turns_rows_into_columns),
        cmocka_unit_test(a_softened_block_is_exact_in_any_width),
        cmocka_unit_test(softmax_is_accurate_to_a_few_units), cmocka_unit_test(rmsnorm_divides_by_the_root_mean_square),
        cmocka_unit_test(swiglu_holds_from_deep_negative_to_large), cmocka_unit_test(rotation_turns_the_right_pairs),
        cmocka_unit_test(many_rows_turn_as_one_does), cmocka_unit_test(q8_0_rounds_within_half_a_step),
        cmocka_unit_test(every_half_converts_both_ways), cmocka_unit_test(dequantization_is_the_same_to_the_bit),
        cmocka_unit_test(blocks_mean_what_the_format_says),  cmocka_unit_test(scaled_halves_are_clamped),
        cmocka_unit_test(sums_and_first_equals_are_found),
        cmocka_unit_test(a_bound_that_k_elements_reach_keeps_the_k_largest),
    };
    count = kernels_all(all, 3);
    for (size_t i = 0; i < count; i++)
        printf("kernels: %s\n", all[i]->name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

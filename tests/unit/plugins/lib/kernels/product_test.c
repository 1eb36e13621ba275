/* SPDX-License-Identifier: MIT */
/* Products with rows of every type, on every instruction set that this machine has: against
 * double sums over the plain loops' dequantization, and against themselves in other cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kernels/half.h>
#include <kernels/product.h>
#include <lathe/random.h>

enum { MOST_M = 130, MOST_N = 131, MOST_K = 2560, STRIDE = MOST_K + 3 };

static const struct kernels *all[3];
static size_t count;
static const int32_t types[] = { LATHE_F32, LATHE_F16, LATHE_BF16, LATHE_Q8_0, LATHE_Q4_0, LATHE_Q4_1,
                                 LATHE_Q5_0, LATHE_Q5_1, LATHE_Q4_K, LATHE_Q5_K, LATHE_Q6_K };
enum { TYPES = sizeof types / sizeof *types };

static float x[MOST_M * STRIDE], weights[MOST_N * MOST_K], panel[PRODUCT_PANEL];
static float y[MOST_M * (MOST_N + 1)], other[MOST_M * (MOST_N + 1)];
static unsigned char bytes[MOST_N * MOST_K * 4];

/* Random bytes whose scales (half precision, at these places of a block) are of ordinary size. */
static void scale_at(unsigned char *block, size_t at, double size, uint32_t i)
{
    uint16_t h = half_of_float((float)(size * (2 * lathe_random_unit(5, LATHE_RANDOM_USER, at, i) - 1)));
    memcpy(block + at, &h, 2);
}

static void fill_rows(struct product_rows *w, int32_t type, size_t n, size_t k)
{
    size_t block = lathe_dtype_block(type), size = lathe_dtype_block_bytes(type), blocks = n * (k / block);
    *w = (struct product_rows){ .bytes = bytes, .row_bytes = k / block * size, .n = n, .columns = k, .dtype = type };
    for (size_t i = 0; i < blocks * size; i++)
        bytes[i] = (unsigned char)lathe_random_u64(9, LATHE_RANDOM_USER, (uint64_t)type, (uint32_t)i);
    for (size_t i = 0; i < blocks; i++) {
        unsigned char *at = bytes + i * size;
        uint32_t number = (uint32_t)i;
        float f = (float)(2 * lathe_random_unit(5, LATHE_RANDOM_USER, 77, number) - 1);
        uint32_t bits = bits_of_float(f);
        uint16_t high = (uint16_t)(bits >> 16);
        switch (type) {
        case LATHE_F32: memcpy(at, &f, 4); break;
        case LATHE_BF16: memcpy(at, &high, 2); break;
        case LATHE_F16: scale_at(at, 0, 1, number); break;
        case LATHE_Q8_0: scale_at(at, 0, 0.01, number); break;
        case LATHE_Q4_0: case LATHE_Q5_0: scale_at(at, 0, 0.1, number); break;
        case LATHE_Q4_1: case LATHE_Q5_1: scale_at(at, 0, 0.1, number); scale_at(at, 2, 1, number); break;
        case LATHE_Q4_K: case LATHE_Q5_K: scale_at(at, 0, 0.002, number); scale_at(at, 2, 0.02, number); break;
        default: scale_at(at, 208, 0.0005, number);
        }
    }
    for (size_t i = 0; i < n; i++)
        kernels_plain.dequantize(type, bytes + i * w->row_bytes, weights + i * k, k);
}

static void fill(float *to, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (float)(2 * lathe_random_unit(7, LATHE_RANDOM_USER, stream, (uint32_t)i) - 1);
}

/* y (m, n) and one column more, which nobody may touch. */
static void check(const struct kernels *kernels, const struct product_rows *w, size_t m, int add)
{
    size_t n = w->n, k = w->columns, stride = n + 1;
    fill(y, m * stride, 3);
    memcpy(other, y, m * stride * sizeof *y);
    product_of_rows(kernels, y, stride, x, STRIDE, m, w, panel, add);
    for (size_t r = 0; r < m; r++) {
        for (size_t j = 0; j < n; j++) {
            double sum = add ? other[r * stride + j] : 0, size = fabs(sum);
            for (size_t i = 0; i < k; i++) {
                double product = (double)x[r * STRIDE + i] * weights[j * k + i];
                sum += product;
                size += fabs(product);
            }
            if (!(fabs(y[r * stride + j] - sum) <= size * 2e-6))
                fail_msg("%s, %s, m %zu n %zu k %zu add %d: y[%zu][%zu] is %.9g, expected %.9g within %.3g", kernels->name,
                         lathe_dtype_name(w->dtype), m, n, k, add, r, j, y[r * stride + j], sum, size * 2e-6);
        }
        assert_true(bits_of_float(y[r * stride + n]) == bits_of_float(other[r * stride + n]));
    }
}

static void every_type_and_tail_is_a_sum_of_products(void **state)
{
    static const size_t ms[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 32, 33, 64, 65 };
    static const size_t ns[] = { 1, 2, 3, 4, 5, 17, 63, 64, 65 };
    static const size_t lengths[] = { 1, 7, 16, 17, 32, 96, 100, 256, 576, 1023, 1025, 1056, 1280, 2304, 2337 };
    size_t turn = 0;
    (void)state;
    for (size_t t = 0; t < TYPES; t++)
        for (size_t z = 0; z < sizeof lengths / sizeof *lengths; z++) {
            struct product_rows w;
            size_t k = lengths[z];
            if (k % lathe_dtype_block(types[t]))
                continue;
            fill_rows(&w, types[t], 65, k);
            for (size_t s = 0; s < count; s++)
                for (size_t a = 0; a < sizeof ms / sizeof *ms; a++, turn++) { /* not all with all: each m with other n in turn */
                    w.n = ns[turn % (sizeof ns / sizeof *ns)];
                    check(all[s], &w, ms[a], turn % 2);
                }
        }
}

static void a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    static const size_t lengths[] = { 96, 576, 1100, 1536, 2560 };
    (void)state;
    for (size_t t = 0; t < TYPES; t++)
        for (size_t z = 0; z < sizeof lengths / sizeof *lengths; z++) {
            struct product_rows w;
            size_t k = lengths[z], n = 70, stride = n + 1;
            if (k % lathe_dtype_block(types[t]))
                continue;
            fill_rows(&w, types[t], n, k);
            for (size_t s = 0; s < count; s++) {
                product_of_rows(all[s], y, stride, x, STRIDE, MOST_M, &w, panel, 0);
                for (size_t r = 0, m = 1; r + m <= MOST_M; r += m, m = m % 41 + 3) { /* 1, 4, 7, … rows */
                    product_of_rows(all[s], other + r * stride, stride, x + r * STRIDE, STRIDE, m, &w, panel, 0);
                    for (size_t i = r; i < r + m; i++)
                        assert_memory_equal(y + i * stride, other + i * stride, n * sizeof *y);
                }
            }
        }
}

static void cutting_the_weights_anywhere_gives_the_same_bits(void **state)
{
    (void)state;
    for (size_t t = 0; t < TYPES; t++)
        for (size_t m = 1; m <= 65; m += 8) {
            struct product_rows w;
            fill_rows(&w, types[t], MOST_N, 1280);
            for (size_t s = 0; s < count; s++) {
                fill(y, m * MOST_N, 4);
                memcpy(other, y, m * MOST_N * sizeof *y);
                product_of_rows(all[s], y, MOST_N, x, STRIDE, m, &w, panel, 1);
                for (size_t first = 0, n = 1; first < MOST_N; first += n, n += 5) {
                    struct product_rows piece = w;
                    piece.bytes += first * w.row_bytes;
                    piece.n = MOST_N - first < n ? MOST_N - first : n;
                    product_of_rows(all[s], other + first, MOST_N, x, STRIDE, m, &piece, panel, 1);
                }
                assert_memory_equal(y, other, m * MOST_N * sizeof *y);
            }
        }
}

/* Zeros, and a single weight in the largest and smallest place: no neighbour leaks in. */
static void single_elements_arrive_exactly(void **state)
{
    enum { K = 1100, N = 66, M = 40 };
    struct product_rows w = { .bytes = bytes, .row_bytes = K * 4, .n = N, .columns = K, .dtype = LATHE_F32 };
    (void)state;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < K; i += 91) {
            memset(bytes, 0, N * K * 4);
            for (size_t j = 0; j < N; j++) {
                float value = (float)(j + 1);
                memcpy(bytes + (j * K + i) * 4, &value, 4);
            }
            product_of_rows(all[s], y, N, x, STRIDE, M, &w, panel, 0);
            for (size_t r = 0; r < M; r++)
                for (size_t j = 0; j < N; j++)
                    assert_true(y[r * N + j] == x[r * STRIDE + i] * (float)(j + 1));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_tail_is_a_sum_of_products),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_among_others),
        cmocka_unit_test(cutting_the_weights_anywhere_gives_the_same_bits),
        cmocka_unit_test(single_elements_arrive_exactly),
    };
    fill(x, MOST_M * STRIDE, 1);
    count = kernels_all(all, 3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

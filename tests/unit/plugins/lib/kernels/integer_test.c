/* SPDX-License-Identifier: MIT */
/* Integer products on every instruction set that this machine has: plain loops against double sums
 * over the file's numbers, the other sets against plain loops to the bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kernels/half.h>
#include <kernels/integer.h>
#include <kernels/kernels.h>
#include <lathe/random.h>

enum { MOST_M = 70, MOST_N = 37, MOST_K = 1536, ROW = MOST_K / 32 * 48 + 128, BLOCKS = MOST_N * MOST_K / 32 };

static const struct integer_kernels *all[4];
static size_t count;
static const int32_t types[] = { LATHE_Q4_0, LATHE_Q4_1, LATHE_Q5_0, LATHE_Q5_1, LATHE_Q8_0,
                                 LATHE_Q4_K, LATHE_Q5_K, LATHE_Q6_K };
enum { TYPES = sizeof types / sizeof *types };

static float x[MOST_M * MOST_K], weights[MOST_N * MOST_K], read_back[MOST_K];
static float y[MOST_M * (MOST_N + 1)], expected[MOST_M * (MOST_N + 1)];
static unsigned char file[BLOCKS * 40];
static _Alignas(64) unsigned char rows[MOST_M * ROW], other_rows[ROW];
static _Alignas(64) unsigned char groups[4][(MOST_N + PACKED_MOST_LANES) * MOST_K * 2];

enum values { ORDINARY, LARGEST, SMALLEST, ZERO, ANY_SCALE, VALUES };

static uint32_t bits(uint32_t stream, size_t i)
{
    return (uint32_t)lathe_random_u64(9, LATHE_RANDOM_USER, stream, (uint32_t)i);
}

/* A scale, half precision: of ordinary size, the largest, the least, none, or any that is finite. */
static void scale_at(unsigned char *at, double size, enum values values, size_t i)
{
    uint16_t any = (uint16_t)bits(11, i);
    uint16_t h = half_of_float((float)(size * (2 * lathe_random_unit(5, LATHE_RANDOM_USER, 3, (uint32_t)i) - 1)));
    if (values == ANY_SCALE)
        h = (any >> 10 & 31) == 31 ? any & 0x83ff : any;
    else if (values != ORDINARY)
        h = values == LARGEST ? 0x7bff : values == SMALLEST ? 0x8001 : 0;
    memcpy(at, &h, 2);
}

/* Rows of a file: random numbers; LARGEST and SMALLEST: all bits 1. */
static size_t fill_file(int32_t type, size_t n, size_t k, enum values values)
{
    size_t block = lathe_dtype_block(type), size = lathe_dtype_block_bytes(type), blocks = n * (k / block);
    for (size_t i = 0; i < blocks * size; i++)
        file[i] = values == LARGEST || values == SMALLEST ? 255 : (unsigned char)bits(21, i);
    for (size_t i = 0; i < blocks; i++) {
        unsigned char *at = file + i * size;
        switch (type) {
        case LATHE_Q8_0: case LATHE_Q4_0: case LATHE_Q5_0: scale_at(at, 0.1, values, i); break;
        case LATHE_Q6_K: scale_at(at + 208, 0.001, values == LARGEST ? ORDINARY : values, i); break;
        default:
            scale_at(at, 0.1, values, 2 * i);
            scale_at(at + 2, 1, values, 2 * i + 1);
        }
    }
    for (size_t i = 0; i < n; i++)
        kernels_plain.dequantize(type, file + i * (k / block * size), weights + i * k, k);
    return k / block * size;
}

static void fill_x(size_t m, size_t k, enum values values)
{
    for (size_t i = 0; i < m * k; i++) {
        float ordinary = (float)(2 * lathe_random_unit(7, LATHE_RANDOM_USER, 5, (uint32_t)i) - 1);
        x[i] = values == LARGEST ? 127 : values == SMALLEST ? -127 : values == ZERO && i / 32 % 3 ? 0 : ordinary;
    }
}

static void pack(size_t set, int32_t type, size_t row_bytes, size_t n, size_t k)
{
    size_t lanes = all[set]->lanes, each = packed_group_bytes((int)packed_form_of(type), lanes, k);
    for (size_t from = 0; from < n; from += lanes)
        packed_group(groups[set] + from / lanes * each, lanes, type, file + from * row_bytes, row_bytes,
                     n - from < lanes ? n - from : lanes, k);
}

static void multiply(size_t set, float *to, size_t first, size_t m, int32_t type, size_t n, size_t k, int add)
{
    struct integer_weights w = { groups[set], n, k, (int)packed_form_of(type) };
    all[set]->multiply(to + first * (MOST_N + 1), MOST_N + 1, rows + first * integer_row_bytes(k), integer_row_bytes(k), m,
                       &w, add);
}

static void start_y(float *to)
{
    for (size_t i = 0; i < MOST_M * (MOST_N + 1); i++)
        to[i] = (float)(i % 17) - 8;
}

static void rows_are_packed_without_loss(void **state)
{
    (void)state;
    for (size_t t = 0; t < TYPES; t++)
        for (size_t set = 0; set < count; set++) {
            size_t k = 512, n = MOST_N, row_bytes = fill_file(types[t], n, k, ORDINARY);
            int form = (int)packed_form_of(types[t]), whole = lathe_dtype_block(types[t]) == 32;
            pack(set, types[t], row_bytes, n, k);
            for (size_t r = 0; r < n; r++) {
                packed_row(read_back, groups[set], form, all[set]->lanes, r, k);
                for (size_t from = 0; from < k; from += 32) {
                    double most = 0;
                    for (size_t i = from; i < from + 32; i++)
                        most = fmax(most, fabs(weights[r * k + i]));
                    double allowed = whole ? 0 : types[t] == LATHE_Q6_K ? most / 250 : 6 * ldexp(most + 1, -11);
                    for (size_t i = from; i < from + 32; i++)
                        if (!(fabs((double)read_back[i] - weights[r * k + i]) <= allowed))
                            fail_msg("%s in %zu lanes: row %zu column %zu is %g, was %g", lathe_dtype_name(types[t]),
                                     all[set]->lanes, r, i, read_back[i], weights[r * k + i]);
                }
            }
        }
}

static void every_set_quantizes_to_the_same_bytes(void **state)
{
    size_t k = MOST_K, blocks = k / 32;
    (void)state;
    fill_x(1, k, ORDINARY);
    for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < 32; i++) {
            float *at = &x[b * 32 + i];
            *at = b == 1 ? 0 : b == 2 ? 127 : b == 3 ? -127 : b == 4 ? 0x1p-140f : b == 5 ? 3e38f : b == 6 ? (float)i - 16 : *at;
        }
    all[0]->quantize(rows, x, k);
    for (size_t set = 1; set < count; set++) {
        memset(other_rows, 7, ROW);
        all[set]->quantize(other_rows, x, k);
        assert_memory_equal(rows, other_rows, blocks * sizeof(struct integer_block));
    }
    const struct integer_block *block = (const void *)rows;
    for (size_t b = 0; b < blocks; b++, block++) {
        int32_t sum = 0;
        for (size_t i = 0; i < 32; i++) {
            sum += block->p[i];
            assert_in_range(block->p[i] + 127, 0, 254);
            assert_true(fabs((double)block->s * block->p[i] - x[b * 32 + i]) <= block->s * 0.50001 + 0x1p-100);
        }
        assert_int_equal(block->zero, -8 * sum);
        assert_true(block->sum == block->s * (float)sum);
    }
}

/* Of the quantized x, exactly: in doubles. */
static void plain_loops_sum_what_the_file_says(void **state)
{
    (void)state;
    for (size_t t = 0; t < TYPES; t++)
        for (enum values values = 0; values < VALUES; values++)
            for (enum values of_x = 0; of_x <= ZERO; of_x++) {
                size_t k = 512, n = 19, m = 3, stride = integer_row_bytes(k);
                size_t row_bytes = fill_file(types[t], n, k, values);
                int form = (int)packed_form_of(types[t]);
                pack(0, types[t], row_bytes, n, k);
                fill_x(m, k, of_x);
                for (size_t r = 0; r < m; r++)
                    all[0]->quantize(rows + r * stride, x + r * k, k);
                multiply(0, y, 0, m, types[t], n, k, 0);
                for (size_t j = 0; j < n; j++) {
                    packed_row(read_back, groups[0], form, all[0]->lanes, j, k);
                    for (size_t r = 0; r < m; r++) {
                        double sum = 0, size = 0;
                        for (size_t i = 0; i < k; i++) {
                            const struct integer_block *block = (const void *)(rows + r * stride);
                            double product = (double)block[i / 32].s * block[i / 32].p[i % 32] * read_back[i];
                            sum += product;
                            size += fabs(product);
                        }
                        float found = y[r * (MOST_N + 1) + j];
                        if (!(fabs(found - sum) <= 40 * size * 0x1p-23 + 1e-12))
                            fail_msg("%s, values %d and %d: y[%zu][%zu] is %g, expected %g", lathe_dtype_name(types[t]),
                                     (int)values, (int)of_x, r, j, found, sum);
                    }
                }
            }
}

static void same_bits(size_t set, int32_t type, size_t m, size_t n, size_t k, int add, enum values values)
{
    for (size_t r = 0; r < m; r++)
        for (size_t j = 0; j <= MOST_N; j++) {
            float found = y[r * (MOST_N + 1) + j], wanted = expected[r * (MOST_N + 1) + j];
            if (bits_of_float(found) != bits_of_float(wanted))
                fail_msg("%s, %s, m %zu n %zu k %zu add %d values %d: y[%zu][%zu] is %.9g, plain %.9g", all[set]->name,
                         lathe_dtype_name(type), m, n, k, add, (int)values, r, j, found, wanted);
        }
}

static void compare(int32_t type, size_t m, size_t n, size_t k, int add, enum values values)
{
    size_t row_bytes = fill_file(type, n, k, values);
    fill_x(m, k, values);
    for (size_t r = 0; r < m; r++)
        all[0]->quantize(rows + r * integer_row_bytes(k), x + r * k, k);
    pack(0, type, row_bytes, n, k);
    start_y(expected);
    multiply(0, expected, 0, m, type, n, k, add);
    for (size_t set = 1; set < count; set++) {
        pack(set, type, row_bytes, n, k);
        start_y(y);
        multiply(set, y, 0, m, type, n, k, add);
        same_bits(set, type, m, n, k, add, values);
    }
}

static void every_set_has_the_bits_of_plain_loops(void **state)
{
    (void)state;
    for (size_t t = 0; t < TYPES; t++) {
        size_t block = lathe_dtype_block(types[t]);
        for (size_t m = 1; m <= 40; m++)
            compare(types[t], m, 1 + m * 7 % MOST_N, block * (1 + m % 2), (int)m % 2, ORDINARY);
        for (size_t n = 1; n <= MOST_N; n++)
            compare(types[t], 1 + n % 5, n, block, (int)n % 2, ORDINARY);
        for (size_t k = block; k <= MOST_K; k += block * (block == 32 ? 5 : 1))
            compare(types[t], 5, 17, k, 1, ORDINARY);
        for (enum values values = 0; values < VALUES; values++)
            for (size_t m = 1; m <= 17; m += 4)
                compare(types[t], m, MOST_N, 512, 0, values);
        compare(types[t], MOST_M, MOST_N, 256, 0, ORDINARY);
    }
}

static void bits_do_not_depend_on_the_company(void **state)
{
    size_t k = 512, m = MOST_M, n = MOST_N;
    (void)state;
    for (size_t t = 0; t < TYPES; t++) {
        size_t row_bytes = fill_file(types[t], n, k, ORDINARY);
        fill_x(m, k, ORDINARY);
        for (size_t r = 0; r < m; r++)
            all[0]->quantize(rows + r * integer_row_bytes(k), x + r * k, k);
        for (size_t set = 0; set < count; set++) {
            pack(set, types[t], row_bytes, n, k);
            start_y(expected);
            start_y(y);
            multiply(set, expected, 0, m, types[t], n, k, 0);
            for (size_t from = 0, step = 1; from < m; from += step, step = step % 19 + 1) {
                step = m - from < step ? m - from : step;
                multiply(set, y, from, step, types[t], n, k, 0);
            }
            same_bits(set, types[t], m, n, k, 0, ORDINARY);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_packed_without_loss),
        cmocka_unit_test(every_set_quantizes_to_the_same_bytes),
        cmocka_unit_test(plain_loops_sum_what_the_file_says),
        cmocka_unit_test(every_set_has_the_bits_of_plain_loops),
        cmocka_unit_test(bits_do_not_depend_on_the_company),
    };
    count = integer_all(all, 4);
    for (size_t i = 0; i < count; i++)
        print_message("%s: %zu lanes\n", all[i]->name, all[i]->lanes);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* What does a product with packed weights reach, beside the float32 one of the same weights?
 *
 *     bench_integer [type] [rounds]        type: Q4_1, Q4_0, Q8_0, …
 *
 * On one thread and in its processor time, quantization of x included, all sets of this machine in
 * turn; shapes and copies as in products.c. Prints thousand million operations a second at the
 * median (two a multiplication and addition), and last what product_of_rows reaches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kernels/half.h>
#include <kernels/integer.h>
#include <kernels/product.h>

enum { MOST_M = 512, COPIES_BYTES = 64 << 20, MOST_ROUNDS = 999, MOST_SETS = 5 };

static const size_t rows_of_x[] = { 1, 2, 4, 8, 16, 32, 64, 128, 512 };
static float *x, *y, *panel;
static unsigned char *rows, *file, *packed[MOST_SETS];

static int by_size(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;
    return one < other ? -1 : one > other;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *take(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!memory)
        abort();
    memset(memory, 0, bytes);
    return memory;
}

static void measure(const struct integer_kernels **all, size_t sets, int32_t dtype, size_t n, size_t k, int rounds)
{
    static double took[MOST_SETS][MOST_ROUNDS];
    int form = (int)packed_form_of(dtype);
    size_t row_bytes = k / lathe_dtype_block(dtype) * lathe_dtype_block_bytes(dtype), copy = n * row_bytes;
    size_t copies = COPIES_BYTES / copy, stride = integer_row_bytes(k), turn = 0;
    for (size_t i = 0; i < copies * copy; i++)
        file[i] = (unsigned char)(i * 2654435761u >> 24 & 63);
    for (size_t set = 0; set < sets; set++) {
        size_t lanes = all[set]->lanes, each = packed_group_bytes(form, lanes, k);
        for (size_t g = 0; g < copies * n / lanes; g++)
            packed_group(packed[set] + g * each, lanes, dtype, file + g * lanes * row_bytes, row_bytes, lanes, k);
    }
    for (size_t i = 0; i < sizeof rows_of_x / sizeof *rows_of_x; i++) {
        size_t m = rows_of_x[i];
        for (int round = 0; round < rounds; round++, turn++)
            for (size_t set = 0; set <= sets; set++) {
                double start = now();
                if (set == sets) {
                    struct product_rows w = { file + turn % copies * copy, row_bytes, n, k, dtype };
                    product_of_rows(kernels_best(), y, n, x, k, m, &w, panel, 0);
                } else {
                    size_t each = packed_group_bytes(form, all[set]->lanes, k);
                    struct integer_weights w = { packed[set] + turn % copies * (n / all[set]->lanes) * each, n, k, form };
                    for (size_t r = 0; r < m; r++)
                        all[set]->quantize(rows + r * stride, x + r * k, k);
                    all[set]->multiply(y, n, rows, stride, m, &w, 0);
                }
                took[set][round] = now() - start;
            }
        printf("| %zu × %zu | %zu |", n, k, m);
        for (size_t set = 0; set <= sets; set++) {
            qsort(took[set], (size_t)rounds, sizeof(double), by_size);
            printf(" %.0f |", 2e-9 * (double)(m * n * k) / took[set][rounds / 2]);
        }
        printf("\n");
    }
}

static int32_t dtype_named(const char *name)
{
    for (int32_t t = 0; t < 32; t++)
        if (packed_form_of(t) != PACKED_NOT && strcmp(lathe_dtype_name(t), name) == 0)
            return t;
    fprintf(stderr, "bench_integer: type %s has no integer form; Q4_1, Q4_0, Q8_0, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K have\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    const struct integer_kernels *all[MOST_SETS];
    int32_t dtype = dtype_named(argc > 1 ? argv[1] : "Q4_1");
    int rounds = argc > 2 ? atoi(argv[2]) : 11;
    size_t found = integer_all(all, MOST_SETS - 1), sets = found - 1; /* plain loops would take all the time */
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "bench_integer: 1 to %d rounds\n", MOST_ROUNDS);
        return 2;
    }
    x = take(MOST_M * 1536 * sizeof *x);
    y = take(MOST_M * 3072 * sizeof *y);
    rows = take(MOST_M * integer_row_bytes(1536));
    panel = take(PRODUCT_PANEL * sizeof *panel);
    file = take(COPIES_BYTES);
    for (size_t set = 0; set < sets; set++)
        packed[set] = take(2 * (size_t)COPIES_BYTES);
    for (size_t i = 0; i < MOST_M * 1536; i++)
        x[i] = (float)(i * 2654435761u >> 20 & 255) / 128 - 1;
    printf("| W (%s) | rows of x |", argc > 1 ? argv[1] : "Q4_1");
    for (size_t set = 0; set < sets; set++)
        printf(" %s |", all[set + 1]->name);
    printf(" float32, %s |\n| --- | --- |", kernels_best()->name);
    for (size_t set = 0; set <= sets; set++)
        printf(" --- |");
    printf("\n");
    measure(all + 1, sets, dtype, 3072, 576, rounds);
    measure(all + 1, sets, dtype, 576, 1536, rounds);
    return 0;
}

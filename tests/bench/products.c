/* SPDX-License-Identifier: MIT */
/* What does a product with quantized weights reach, by rows of x and instruction set?
 *
 *     bench_products [type] [rounds]        type: Q4_1, Q4_0, Q8_0, F32, …
 *
 * On one thread and in its processor time, interleaved: product_of_rows against what it
 * replaced (up to eight rows of x: four rows of W dequantized at a time and multiplied by our
 * tiles; more: a panel of 384 rows and OpenBLAS's sgemm). Two shapes of SmolLM2-135M, gate
 * and up side by side (3072, 576) and down (576, 1536), whose weights come from memory: each
 * round takes the next of many copies. Prints GFLOP/s at the median, and the time of the slow
 * and the quick tenth beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cblas.h>

#include <kernels/half.h>
#include <kernels/product.h>

enum { MOST_M = 512, PANEL_ROWS = 384, FEW = 8, COPIES_BYTES = 64 << 20, MOST_ROUNDS = 999 };

static const size_t rows_of_x[] = { 1, 2, 4, 8, 9, 12, 16, 24, 32, 48, 64, 128, 512 };
static float *x, *y, *panel;

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

static void before(const struct kernels *kernels, const struct product_rows *w, size_t m)
{
    size_t step = m <= FEW ? 4 : PANEL_ROWS, k = w->columns;
    for (size_t i = 0; i < w->n; i += step) {
        size_t n = w->n - i < step ? w->n - i : step;
        for (size_t r = 0; r < n; r++)
            kernels->dequantize(w->dtype, w->bytes + (i + r) * w->row_bytes, panel + r * k, k);
        if (m <= FEW)
            kernels->few(y + i, w->n, x, k, m, panel, k, n, k, 0);
        else
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1.0f, x, (int)k, panel, (int)k, 0.0f,
                        y + i, (int)w->n);
    }
}

static void measure(const struct kernels *kernels, struct product_rows w, const unsigned char *copies, size_t m, int rounds)
{
    static double took[2][MOST_ROUNDS];
    size_t bytes = w.n * w.row_bytes, count = COPIES_BYTES / bytes, turn = 0;
    for (int r = 0; r < rounds; r++)
        for (int side = 0; side < 2; side++) {
            w.bytes = copies + turn++ % count * bytes;
            double start = now();
            if (side == 0)
                before(kernels, &w, m);
            else
                product_of_rows(kernels, y, w.n, x, w.columns, m, &w, panel, 0);
            took[side][r] = now() - start;
        }
    double work = 2.0 * (double)(m * w.n * w.columns) * 1e-9;
    printf("| %zu |", m);
    for (int side = 0; side < 2; side++) {
        qsort(took[side], (size_t)rounds, sizeof(double), by_size);
        printf(" %.0f | %.3f | %.3f | %.3f |", work / took[side][rounds / 2], took[side][rounds / 10] * 1e3,
               took[side][rounds / 2] * 1e3, took[side][rounds * 9 / 10] * 1e3);
    }
    printf(" %.2f |\n", took[0][rounds / 2] / took[1][rounds / 2]);
}

static int32_t dtype_named(const char *name)
{
    for (int32_t t = 0; t <= LATHE_BF16; t++)
        if (lathe_dtype_block(t) && t != LATHE_I32 && strcmp(lathe_dtype_name(t), name) == 0)
            return t;
    return -1;
}

int main(int argc, char **argv)
{
    static const size_t shapes[][2] = { { 3072, 576 }, { 576, 1536 } };
    const struct kernels *all[3];
    int32_t type = dtype_named(argc > 1 ? argv[1] : "Q4_1");
    int rounds = argc > 2 ? atoi(argv[2]) : 41;
    size_t sets = kernels_all(all, 3);
    if (type < 0 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: bench_products [type] [rounds, at most %d]\n", MOST_ROUNDS);
        return 2;
    }
    unsigned char *copies = aligned_alloc(64, COPIES_BYTES); /* as the model's are: vectors don't straddle lines */
    x = aligned_alloc(64, MOST_M * 1536 * sizeof(float));
    y = aligned_alloc(64, MOST_M * 3072 * sizeof(float));
    panel = aligned_alloc(64, PANEL_ROWS * 1536 * sizeof(float));
    if (!copies || !x || !y || !panel)
        return 1;
    uint16_t half = half_of_float(0.01f);
    for (size_t i = 0; i < COPIES_BYTES; i += 2) /* any halves but huge ones: the arithmetic takes the same time */
        memcpy(copies + i, &half, 2);
    for (size_t i = 0; i < MOST_M * 1536; i++)
        x[i] = (float)(i * 7919 % 1000) * 1e-3f - 0.5f;
    openblas_set_num_threads(1);
    for (size_t s = 0; s < 2; s++)
        for (size_t i = sets; i-- > 0;) {
            size_t n = shapes[s][0], k = shapes[s][1];
            if (k % lathe_dtype_block(type))
                continue; /* K-quants have no rows of 576 */
            struct product_rows w = { .row_bytes = k / lathe_dtype_block(type) * lathe_dtype_block_bytes(type), .n = n,
                                      .columns = k, .dtype = type };
            printf("\n%s, W (%zu, %zu) in %s, %d rounds\n\n", all[i]->name, n, k, lathe_dtype_name(type), rounds);
            printf("| rows of x | before: GFLOP/s | p10 ms | p50 | p90 | now: GFLOP/s | p10 ms | p50 | p90 | ratio |\n");
            printf("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
            for (size_t a = 0; a < sizeof rows_of_x / sizeof *rows_of_x; a++)
                measure(all[i], w, copies, rows_of_x[a], rows_of_x[a] > 64 ? (rounds + 3) / 4 : rounds);
            fflush(stdout);
        }
    free(copies);
    free(x);
    free(y);
    free(panel);
    return 0;
}

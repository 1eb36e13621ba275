/* SPDX-License-Identifier: MIT */
/* The real model with compute = exact and int8: a text's logits are the same to the bit in chunks of
 * 16 to 512 tokens, on one and two threads, and as one of 32 in a batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"

enum { LENGTH = 520, ROWS = 4, MOST_VOCAB = 1 << 16, OTHERS = 31, TABLE = 33, SHORT = 8 };

static struct fixture f;
static struct call *c;
static int32_t ids[LENGTH];
static float expected[ROWS + 1][MOST_VOCAB];
static const char *path;

static void begin(const char *compute, uint32_t threads)
{
    const struct fixture_option options[] = { { "path", path }, { "compute", compute }, { NULL, NULL } };
    if (fixture_open(&f, "llama", options) ||
        fixture_context(&f, (struct lathe_context_params){ .threads = threads, .blocks = 64 + OTHERS, .batch_tokens = LENGTH + 256 }))
        fail_msg("%s", f.err.message);
    assert_true(f.info.vocab_tokens <= MOST_VOCAB);
    for (uint32_t i = 0; i < LENGTH; i++)
        ids[i] = (int32_t)((i * 7919u + i * i * 31u) % f.info.vocab_tokens);
}

/* The text's tokens from … to − 1; the last one gives logits. */
static void add(uint32_t from, uint32_t to)
{
    int32_t table[TABLE];
    blocks_fill(table, TABLE, 0, 1);
    call_slice(c, 1, LATHE_SLICE_LOGITS, (int32_t)from, ids + from, to - from, table, TABLE);
}

static void same(const float *logits, uint32_t row, const char *compute, uint32_t chunk, uint32_t threads)
{
    if (memcmp(logits, expected[row], f.info.vocab_tokens * sizeof(float)) != 0)
        fail_msg("%s: other bits in chunks of %u on %u threads, row %u", compute, chunk, threads, row);
}

/* The text in chunks up to its last ROWS tokens, then these one by one: their logits. */
static void run(const char *compute, uint32_t chunk, uint32_t threads, int first)
{
    for (uint32_t from = 0, to; from < LENGTH; from = to) {
        to = from >= LENGTH - ROWS ? from + 1 : from + chunk < LENGTH - ROWS ? from + chunk : LENGTH - ROWS;
        call_reset(c);
        add(from, to);
        assert_int_equal(call_run(&f, c), 0);
        if (to < LENGTH - ROWS)
            continue;
        uint32_t row = to - (LENGTH - ROWS);
        if (first)
            memcpy(expected[row], c->logits, f.info.vocab_tokens * sizeof(float));
        else
            same(c->logits, row, compute, chunk, threads);
    }
}

/* The text's last token among the first tokens of 31 others. */
static void run_in_company(const char *compute, uint32_t threads)
{
    call_reset(c);
    for (uint32_t i = 0; i < OTHERS; i++) {
        int32_t block = 64 + (int32_t)i;
        if (i == OTHERS / 2)
            add(LENGTH - 1, LENGTH);
        call_slice(c, 2 + i, LATHE_SLICE_LOGITS, 0, ids + i, 1 + i % SHORT, &block, 1);
    }
    assert_int_equal(call_run(&f, c), 0);
    same(c->logits + (size_t)(OTHERS / 2) * f.info.vocab_tokens, ROWS, compute, OTHERS + 1, threads);
}

static void check(const char *compute)
{
    const uint32_t chunks[] = { 512, 16, 100, 129 };
    for (uint32_t threads = 1; threads <= 2; threads++) {
        begin(compute, threads);
        for (uint32_t i = 0; i < (threads == 1 ? 4 : 2); i++)
            run(compute, chunks[i], threads, threads == 1 && i == 0);
        run_in_company(compute, threads);
        fixture_close(&f);
    }
}

static void exact_is_exact(void **state)
{
    (void)state;
    check("exact");
}

static void int8_is_exact_too(void **state)
{
    (void)state;
    check("int8");
}

static void int8_and_f32_weights_exclude_each_other(void **state)
{
    const struct fixture_option options[] = { { "path", path }, { "compute", "int8" }, { "weights", "f32" }, { NULL, NULL } };
    (void)state;
    assert_int_equal(fixture_open(&f, "llama", options), LATHE_EINVAL);
    assert_non_null(strstr(f.err.message, "weights = f32"));
    assert_int_equal(f.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_is_exact),
        cmocka_unit_test(int8_is_exact_too),
        cmocka_unit_test(int8_and_f32_weights_exclude_each_other),
    };
    if (!(path = golden_model_path()))
        return 77;
    c = call_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    call_free(c);
    return failed;
}

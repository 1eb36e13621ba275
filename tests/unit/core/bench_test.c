/* SPDX-License-Identifier: MIT */
/* lathe bench: what a test asks of a machine, what it tells, and which rows it gives the model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* 2 layers of 2 heads of 4; 80 output weights of 280; two bytes a weight; 64 bytes of KV a position. */
static const struct bench_model small = {
    .info = { .layers = 2, .heads = 2, .head_width = 4, .embedding_width = 8, .vocab_tokens = 10, .parameters = 280,
              .weight_bytes = 560 },
    .arithmetic = BENCH_INT8, .kv_bytes_per_token = 64, .chunk = 2,
};

static void close_to(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-9 * fabs(expected)))
        fail_msg("%.12g, expected %.12g", found, expected);
}

static void tests_have_llama_benchs_names(void **state)
{
    static const struct {
        struct bench_test test;
        const char *name;
    } cases[] = {
        { { .prompt = 512, .sequences = 1 }, "pp512" },
        { { .generated = 128, .sequences = 1 }, "tg128" },
        { { .prompt = 512, .generated = 128, .sequences = 1 }, "pp512+tg128" },
        { { .prompt = 512, .depth = 4096, .sequences = 1 }, "pp512 @ d4096" },
        { { .generated = 64, .depth = 512, .sequences = 16 }, "tg64 x16 @ d512" },
    };
    char name[BENCH_NAME_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench_test_name(&cases[i].test, name);
        assert_string_equal(name, cases[i].name);
    }
    close_to(bench_test_tokens(&cases[4].test), 1024);
    close_to(bench_test_tokens(&cases[2].test), 640);
}

static void a_prompt_asks_for_its_chunks(void **state)
{
    (void)state;
    struct bench_demand d;
    bench_demand(&small, &(struct bench_test){ .prompt = 3, .depth = 2, .sequences = 1 }, &d);
    /* rows 2, 3 without output: the output matrix, 160 bytes, isn't read; row 4 with */
    close_to(d.bytes, (560 - 160 + 4 * 64) + (560 + 5 * 64));
    close_to(d.ops[BENCH_INT8], 2 * (3 * 200 + 80));
    close_to(d.ops[BENCH_F32], 4 * 2 * 2 * 4 * (3 + 4 + 5));
    bench_demand(&small, &(struct bench_test){ .prompt = 3, .depth = 2, .sequences = 5 }, &d);
    close_to(d.bytes, 5 * ((560 - 160 + 4 * 64) + (560 + 5 * 64)));
}

static void generation_reads_weights_once_a_step_and_each_sequences_keys(void **state)
{
    (void)state;
    struct bench_demand d;
    bench_demand(&small, &(struct bench_test){ .generated = 2, .depth = 1, .sequences = 3 }, &d);
    close_to(d.bytes, (560 + 3 * 2 * 64) + (560 + 3 * 3 * 64));
    close_to(d.ops[BENCH_INT8], 2 * 2 * 3 * 280);
    close_to(d.ops[BENCH_F32], 4 * 2 * 2 * 4 * 3 * (2 + 3));
}

static void products_of_floats_are_counted_as_such(void **state)
{
    (void)state;
    struct bench_model model = small;
    struct bench_demand d;
    model.arithmetic = BENCH_F32;
    bench_demand(&model, &(struct bench_test){ .generated = 1, .sequences = 1 }, &d);
    close_to(d.ops[BENCH_F32], 2 * 280 + 64);
    close_to(d.ops[BENCH_INT8], 0);
}

static void the_slower_of_memory_and_arithmetic_bounds(void **state)
{
    (void)state;
    struct bench_machine machine = { .read_bytes_s = 1000, .ops_s = { [BENCH_F32] = 100, [BENCH_INT8] = 400 } };
    struct bench_demand demand = { .bytes = 2000, .ops = { [BENCH_F32] = 50, [BENCH_INT8] = 400 } };
    struct bench_limit limit;
    bench_limit(&machine, &demand, 10, &limit); /* 2 s against 0.5 + 1 s */
    assert_int_equal(limit.bound, BENCH_MEMORY);
    close_to(limit.memory_s, 2);
    close_to(limit.arithmetic_s, 1.5);
    close_to(limit.tokens_s, 5);
    machine.read_bytes_s = 2000;
    bench_limit(&machine, &demand, 10, &limit);
    assert_int_equal(limit.bound, BENCH_ARITHMETIC);
    close_to(limit.tokens_s, 10 / 1.5);
    machine.ops_s[BENCH_INT8] = 0; /* no int8 products: they go as floats do */
    bench_limit(&machine, &demand, 10, &limit);
    close_to(limit.arithmetic_s, 4.5);
    memset(&demand, 0, sizeof demand);
    bench_limit(&machine, &demand, 10, &limit);
    assert_int_equal(limit.bound, BENCH_NO_BOUND);
}

static void figures_are_of_rates_and_of_times(void **state)
{
    (void)state;
    struct bench_samples samples = { .count = 2, .seconds = { 0.5, 0.25 } };
    struct bench_figures figures;
    bench_figures(&samples, 10, &figures);
    close_to(figures.mean_ns, 0.375e9);
    close_to(figures.mean_rate, 30); /* of 20 and 40: the mean of rates, as llama-bench has it */
    close_to(figures.sd_rate, sqrt(200));
    close_to(figures.sd_ns, sqrt(0.03125) * 1e9);
    samples.count = 1;
    bench_figures(&samples, 10, &figures);
    assert_true(figures.sd_rate == 0 && figures.mean_rate == 20);
}

/* ── which rows it gives the model ── */

enum { MOST_FORWARDS = 64 };

static struct seen {
    uint32_t slices, rows, outputs;
    int32_t first_position, first_block;
    uint64_t request;
} seen[MOST_FORWARDS];
static uint32_t forwards;
static struct lathe_context_params made;

static int fake_describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_model_info *info = out;
    (void)self, (void)in, (void)err;
    info->vocab_tokens = 50;
    info->context_tokens = 100;
    info->head.bytes = sizeof *info;
    return 0;
}

static int fake_context(void *self, const struct lathe_context_params *params, void **context, struct lathe_error *err)
{
    (void)self, (void)err;
    made = *params;
    *context = &made;
    return 0;
}

static void fake_context_end(void *context)
{
    assert_ptr_equal(context, &made);
}

/* Every position is there when it is looked at, in a block that no other sequence has. */
static int fake_forward(void *self, const void *in_, void *out, struct lathe_error *err)
{
    const struct lathe_forward_in *in = in_;
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    const int32_t *blocks = LATHE_SPAN(const int32_t, in, in->blocks), *tokens = LATHE_SPAN(const int32_t, in, in->tokens);
    const uint32_t *outputs = LATHE_SPAN(const uint32_t, in, in->outputs);
    (void)self, (void)err;
    assert_true(forwards < MOST_FORWARDS && in->tokens.count <= made.batch_tokens && in->slices.count <= made.batch_slices);
    struct seen *s = &seen[forwards++];
    *s = (struct seen){ (uint32_t)in->slices.count, (uint32_t)in->tokens.count, (uint32_t)in->outputs.count,
                        slices[0].first_position, blocks[0], slices[0].request };
    for (uint64_t i = 0; i < in->tokens.count; i++)
        assert_true(tokens[i] >= 0 && tokens[i] < 50);
    for (uint32_t i = 0; i < in->slices.count; i++) {
        uint32_t last = (uint32_t)slices[i].first_position + slices[i].token_count - 1;
        assert_true(last / made.block_tokens < slices[i].block_count);
        for (uint32_t k = 0; k < slices[i].block_count; k++)
            assert_int_equal(blocks[slices[i].block_first + k], (slices[i].request - 1) * slices[i].block_count + k);
        assert_true(blocks[slices[i].block_first + slices[i].block_count - 1] < (int32_t)made.blocks);
        if (slices[i].output_count)
            assert_int_equal(outputs[slices[i].output_first], slices[i].token_count - 1);
    }
    ((struct lathe_forward_out *)out)->duration_ns = 1000000 * (int64_t)in->tokens.count; /* it tells: 1 ms a row */
    return 0;
}

static const struct lathe_model_api fake_api = {
    .size = sizeof fake_api, .abi = LATHE_MODEL_ABI, .describe = fake_describe, .context_create = fake_context,
    .context_destroy = fake_context_end, .forward = fake_forward,
};
static const struct instance fake = { .api = &fake_api };

static void rows_come_in_chunks_then_one_by_one(void **state)
{
    (void)state;
    const struct bench_test test = { .prompt = 10, .generated = 3, .depth = 20, .sequences = 2, .threads = 1 };
    struct bench_forward *forward;
    struct lathe_error err = { 0 };
    double seconds = 0;
    forwards = 0;
    assert_int_equal(bench_forward_open(&fake, &test, 8, LATHE_F16, &forward, &err), 0);
    assert_int_equal(made.kv_dtype, LATHE_F16);
    assert_int_equal(made.context_tokens, 33);
    assert_int_equal(made.threads, 1);
    assert_int_equal(bench_forward_fill(forward, &err), 0);
    assert_int_equal(forwards, 2 * 3); /* 20 rows of each: 8, 8, 4 */
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(seen[i].outputs, 0);
    for (int repetition = 0; repetition < 2; repetition++) {
        forwards = 0;
        assert_int_equal(bench_forward_run(forward, UINT32_MAX, UINT32_MAX, &seconds, &err), 0);
        assert_int_equal(forwards, 2 * 2 + 3);
        assert_int_equal(seen[0].first_position, 20);
        assert_int_equal(seen[0].outputs, 0);
        assert_int_equal(seen[1].first_position, 28);
        assert_int_equal(seen[1].outputs, 1);
        assert_int_equal(seen[2].request, 2);
        for (int i = 4; i < 7; i++) {
            assert_int_equal(seen[i].first_position, 30 + i - 4);
            assert_int_equal(seen[i].slices, 2);
            assert_int_equal(seen[i].outputs, 2);
        }
        close_to(seconds, 0.026); /* 2 × 10 + 2 × 3 rows of 1 ms, by the model's word and not by the clock */
    }
    forwards = 0;
    assert_int_equal(bench_forward_run(forward, 0, 1, &seconds, &err), 0);
    assert_int_equal(forwards, 1);
    bench_forward_close(forward);
}

static void a_test_beyond_the_context_is_a_sentence(void **state)
{
    (void)state;
    const struct bench_test test = { .prompt = 80, .depth = 21, .sequences = 1, .threads = 1 };
    struct bench_forward *forward = NULL;
    struct lathe_error err = { 0 };
    assert_int_equal(bench_forward_open(&fake, &test, 8, LATHE_F32, &forward, &err), LATHE_ERANGE);
    assert_non_null(strstr(err.message, "pp80 @ d21 needs a context of 101 tokens"));
    assert_null(forward);
}

/* ── the machine ── */

static void loops_count_what_they_do(void **state)
{
    (void)state;
    for (int type = 0; type < BENCH_ARITHMETICS; type++) {
        struct bench_loop loop = bench_peak_loop(type);
        if (loop.run)
            close_to(loop.run(200), 2 * loop.run(100));
    }
    setenv("LATHE_KERNELS", "plain", 1);
    assert_string_equal(bench_peak_loop(BENCH_F32).set, "plain C");
    assert_null(bench_peak_loop(BENCH_INT8).run);
    setenv("LATHE_KERNELS", "avx2", 1);
    assert_null(strstr(bench_peak_loop(BENCH_INT8).set, "512"));
    unsetenv("LATHE_KERNELS");
}

static void a_machine_reads_and_multiplies(void **state)
{
    (void)state;
    struct bench_machine machine;
    struct lathe_error err = { 0 };
    assert_int_equal(bench_machine_measure(2, &machine, &err), 0);
    assert_int_equal(machine.threads, 2);
    assert_true(machine.read_bytes_s > 1e6 && machine.ops_s[BENCH_F32] > 1e6);
    assert_true(machine.buffer_bytes > machine.cache_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tests_have_llama_benchs_names),
        cmocka_unit_test(a_prompt_asks_for_its_chunks),
        cmocka_unit_test(generation_reads_weights_once_a_step_and_each_sequences_keys),
        cmocka_unit_test(products_of_floats_are_counted_as_such),
        cmocka_unit_test(the_slower_of_memory_and_arithmetic_bounds),
        cmocka_unit_test(figures_are_of_rates_and_of_times),
        cmocka_unit_test(rows_come_in_chunks_then_one_by_one),
        cmocka_unit_test(a_test_beyond_the_context_is_a_sentence),
        cmocka_unit_test(loops_count_what_they_do),
        cmocka_unit_test(a_machine_reads_and_multiplies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

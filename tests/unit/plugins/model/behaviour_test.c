/* SPDX-License-Identifier: MIT */
/* What every model must do whatever its weights: run on model/tiny and on tiny files with
 * model/llama, whose shapes share heads and whose blocks are small. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"
#include <kernels/half.h>

struct subject {
    const char *plugin;
    struct fixture_option options[4];
    double tolerance; /* of logits between different batches of the same tokens */
    int one_layer;
};

static char zoo_two_layers[1024], zoo_one_layer[1024], zoo_qwen[1024];
static struct subject subjects[] = {
    { "tiny", { { "layers", "3" }, { "heads", "4" }, { NULL, NULL } }, 0, 0 },
    { "tiny", { { "layers", "1" }, { "heads", "3" }, { NULL, NULL } }, 0, 1 },
    { "llama", { { "path", zoo_two_layers }, { "swap_blocks", "8" }, { "compute", "exact" }, { NULL, NULL } }, 2e-4, 0 },
    { "llama", { { "path", zoo_one_layer }, { "swap_blocks", "8" }, { "compute", "exact" }, { NULL, NULL } }, 2e-4, 1 },
    { "llama", { { "path", zoo_qwen }, { "swap_blocks", "8" }, { "compute", "exact" }, { NULL, NULL } }, 2e-4, 0 },
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects, BLOCK = 5, LENGTH = 60, TABLE = 16 };

static struct fixture f;
static struct call *c;
static int32_t ids[256];

static void begin(const struct subject *s, struct lathe_context_params params)
{
    params.block_tokens = BLOCK;
    params.blocks = 128;
    params.context_tokens = 80;
    params.batch_tokens = 256;
    params.output_rows = 256;
    params.threads = params.threads ? params.threads : 2;
    if (fixture_open(&f, s->plugin, s->options) || fixture_context(&f, params))
        fail_msg("%s: %s", s->plugin, f.err.message);
    c = call_new();
    for (int i = 0; i < 256; i++)
        ids[i] = (int32_t)(i * 37 + 11) % 250;
}

static void end(void)
{
    call_free(c);
    fixture_close(&f);
    assert_int_equal(f.live, 0);
}

static void ok(void)
{
    if (call_run(&f, c))
        fail_msg("forward: %s", f.err.message);
}

static void same(const struct subject *s, const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - b[i]) <= s->tolerance))
            fail_msg("%s: logit %zu is %.9g, expected %.9g", s->plugin, i, a[i], b[i]);
}

/* All rows' logits of the first `n` ids in one slice, blocks from `first` on. */
static float *whole(uint32_t n, int32_t first)
{
    int32_t table[TABLE];
    blocks_fill(table, TABLE, first, 1);
    call_reset(c);
    call_slice(c, 1, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, 0, ids, n, table, TABLE);
    ok();
    float *copy = malloc((size_t)n * f.info.vocab_tokens * sizeof *copy);
    memcpy(copy, c->logits, (size_t)n * f.info.vocab_tokens * sizeof *copy);
    return copy;
}

static void a_prompt_in_chunks_equals_the_whole(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        float *expected = whole(LENGTH, 0);
        int32_t table[TABLE];
        blocks_fill(table, TABLE, 127, -3);
        for (uint32_t chunk = 1; chunk < 40; chunk += chunk < 4 ? 1 : 9)
            for (uint32_t from = 0; from < LENGTH; from += chunk) {
                uint32_t n = LENGTH - from < chunk ? LENGTH - from : chunk;
                call_reset(c);
                call_slice(c, 1, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)from, ids + from, n, table, TABLE);
                ok();
                same(&subjects[i], c->logits, expected + (size_t)from * f.info.vocab_tokens, (size_t)n * f.info.vocab_tokens);
            }
        free(expected);
        end();
    }
}

static void mixed_slices_and_padding_do_not_disturb_each_other(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        size_t vocab = f.info.vocab_tokens;
        float *expected = whole(LENGTH, 0);
        int32_t tables[4][TABLE];
        for (int t = 0; t < 4; t++)
            blocks_fill(tables[t], TABLE, t, 4); /* interleaved in the pool */
        /* three requests at different places: 0 has 30 tokens, 1 has 7, 2 has none yet */
        call_reset(c);
        call_slice(c, 10, 0, 0, ids, 30, tables[0], TABLE);
        call_slice(c, 0, LATHE_SLICE_PADDING, 0, ids + 100, 9, NULL, 0);
        call_slice(c, 11, 0, 0, ids, 7, tables[1], TABLE);
        ok();
        assert_int_equal(c->out.logits_rows, 0);
        /* decode, a chunk, a whole prompt, padding between, in one forward */
        call_reset(c);
        call_slice(c, 10, LATHE_SLICE_LOGITS, 30, ids + 30, 1, tables[0], TABLE);
        call_slice(c, 0, LATHE_SLICE_PADDING, 0, ids + 60, 3, NULL, 0);
        call_slice(c, 11, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, 7, ids + 7, 20, tables[1], TABLE);
        call_slice(c, 12, LATHE_SLICE_LOGITS, 0, ids, LENGTH, tables[2], TABLE);
        call_slice(c, 0, LATHE_SLICE_PADDING, 0, ids + 60, 1, NULL, 0);
        ok();
        assert_int_equal(c->out.logits_rows, 22);
        same(&subjects[i], c->logits, expected + 30 * vocab, vocab);
        same(&subjects[i], c->logits + vocab, expected + 7 * vocab, 20 * vocab);
        same(&subjects[i], c->logits + 21 * vocab, expected + (LENGTH - 1) * vocab, vocab);
        free(expected);
        end();
    }
}

static void hidden_states_and_chosen_rows_come_in_order(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        size_t vocab = f.info.vocab_tokens, width = f.info.embedding_width;
        float *expected = whole(20, 0);
        int32_t table[TABLE];
        blocks_fill(table, TABLE, 50, 1);
        call_reset(c);
        struct lathe_slice *s = call_slice(c, 1, LATHE_SLICE_LOGITS | LATHE_SLICE_HIDDEN, 0, ids, 20, table, TABLE);
        c->outputs[0] = 3;
        c->outputs[1] = 4;
        c->outputs[2] = 17;
        c->output_count = s->output_count = 3;
        ok();
        assert_int_equal(c->out.logits_rows, 3);
        assert_int_equal(c->out.hidden_rows, 3);
        same(&subjects[i], c->logits, expected + 3 * vocab, 2 * vocab);
        same(&subjects[i], c->logits + 2 * vocab, expected + 17 * vocab, vocab);
        float *hidden = malloc(3 * width * sizeof *hidden);
        memcpy(hidden, c->hidden, 3 * width * sizeof *hidden);
        call_reset(c);
        call_slice(c, 1, LATHE_SLICE_HIDDEN, 17, ids + 17, 1, table, TABLE);
        call_slice(c, 1, LATHE_SLICE_HIDDEN, 18, ids + 18, 1, table, TABLE);
        ok();
        assert_int_equal(c->out.logits_rows, 0);
        same(&subjects[i], c->hidden, hidden + 2 * width, width);
        free(hidden);
        free(expected);
        end();
    }
}

static void dropped_positions_have_no_influence(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        if (!subjects[i].one_layer) /* with more, what stays has already seen what goes */
            continue;
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        size_t vocab = f.info.vocab_tokens;
        float *first = NULL;
        for (int variant = 0; variant < 2; variant++) {
            int32_t table[TABLE];
            blocks_fill(table, TABLE, variant * 20, 1);
            for (int p = 4; p < 30; p++)
                ids[p] = (ids[p] + variant * 5) % 250; /* what is dropped differs */
            call_reset(c);
            call_slice(c, 1, 0, 0, ids, 40, table, TABLE);
            ok();
            table[2] = table[3] = -1; /* whole blocks among them may be gone */
            for (uint32_t rows = 1; rows <= 9; rows += 8) {
                call_reset(c);
                struct lathe_slice *s = call_slice(c, 1, LATHE_SLICE_LOGITS, 40, ids + 40, rows, table, TABLE);
                for (int p = 0; p < 40; p++)
                    if (p < 4 || p >= 30)
                        c->kept[c->kept_count++] = p;
                s->kept_count = c->kept_count;
                call_attention_room(c, 1 << 16);
                c->probes[0] = (struct lathe_probe){ .id = 1, .format = LATHE_PROBE_FULL, .last_position = -1, .every = 1,
                                                     .layers = { 1 }, .heads = { 2 } };
                c->probe_count = 1;
                s->probe = 0;
                ok();
                const struct lathe_attention_row *row = (const void *)c->attention;
                const uint16_t *w = (const void *)(row + 1);
                double sum = 0;
                assert_int_equal(row->keys, 15);
                for (int k = 0; k < 15; k++)
                    sum += float_of_half(w[k]);
                assert_true(fabs(sum - 1) < 0.002);
                if (rows == 1 && variant == 0) {
                    first = malloc(vocab * sizeof *first);
                    memcpy(first, c->logits, vocab * sizeof *first);
                } else if (rows == 1) {
                    same(&subjects[i], c->logits, first, vocab);
                }
            }
        }
        free(first);
        end();
    }
}

static void a_kept_list_of_all_changes_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        float *expected = whole(LENGTH, 0);
        int32_t table[TABLE];
        blocks_fill(table, TABLE, 0, 1);
        for (uint32_t rows = 1; rows <= 20; rows += 19) {
            call_reset(c);
            struct lathe_slice *s = call_slice(c, 1, LATHE_SLICE_LOGITS, 40, ids + 40, rows, table, TABLE);
            for (int p = 0; p < 60; p++) /* the slice's own too: they change nothing */
                c->kept[c->kept_count++] = p;
            s->kept_count = c->kept_count;
            ok();
            same(&subjects[i], c->logits, expected + (39 + rows) * f.info.vocab_tokens, f.info.vocab_tokens);
        }
        free(expected);
        end();
    }
}

static void blocks_are_copied_and_swapped_with_their_contents(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        float *expected = whole(21, 0); /* blocks 0 … 4, the last has one position */
        int32_t table[TABLE];
        blocks_fill(table, TABLE, 0, 1);
        call_reset(c);
        table[1] = 60;
        table[3] = 61;
        c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = 1, .to = 60, .tokens = BLOCK };
        c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_OUT, .from = 3, .handle = 7 };
        c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = 2, .to = 1, .tokens = BLOCK };
        c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_COPY, .from = 2, .to = 3, .tokens = BLOCK };
        c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_IN, .to = 61, .handle = 7 };
        c->ops[c->op_count++] = (struct lathe_kv_op){ .kind = LATHE_KV_DROP, .handle = 7 };
        call_slice(c, 1, LATHE_SLICE_LOGITS, 20, ids + 20, 1, table, TABLE);
        ok();
        same(&subjects[i], c->logits, expected + 20 * f.info.vocab_tokens, f.info.vocab_tokens);
        c->op_count = 1;
        c->ops[0] = (struct lathe_kv_op){ .kind = LATHE_KV_MOVE_IN, .to = 61, .handle = 7 };
        assert_int_equal(call_run(&f, c), LATHE_ENOTFOUND); /* the handle was spent */
        free(expected);
        end();
    }
}

static void half_precision_keys_stay_near(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        if (strcmp(subjects[i].plugin, "llama") != 0)
            continue;
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        float *expected = whole(LENGTH, 0);
        f.api->context_destroy(f.context);
        struct lathe_context_params p = f.params;
        p.kv_dtype = LATHE_F16;
        assert_int_equal(f.api->context_create(f.self, &p, &f.context, &f.err), 0);
        float *found = whole(LENGTH, 0);
        size_t n = (size_t)LENGTH * f.info.vocab_tokens;
        double difference = 0, size = 0; /* root mean squares */
        for (size_t k = 0; k < n; k++) {
            difference += ((double)found[k] - expected[k]) * ((double)found[k] - expected[k]);
            size += (double)expected[k] * expected[k];
        }
        difference = sqrt(difference / size);
        print_message("F16 keys and values: logits differ by %g of their size\n", difference);
        assert_true(difference > 0 && difference < 0.005); /* a half rounds by up to 2^-11 = 0.0005 */
        int32_t table[TABLE];
        blocks_fill(table, TABLE, 0, 1);
        call_reset(c); /* decode reads the same halves as prefill */
        call_slice(c, 1, LATHE_SLICE_LOGITS, LENGTH - 1, ids + LENGTH - 1, 1, table, TABLE);
        ok();
        same(&subjects[i], c->logits, found + (size_t)(LENGTH - 1) * f.info.vocab_tokens, f.info.vocab_tokens);
        free(expected);
        free(found);
        end();
    }
}

static void running_out_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i], (struct lathe_context_params){ 0 });
        long total = f.allocations;
        struct lathe_context_params params = f.params;
        end();
        for (long n = 1; n <= total; n++) {
            struct lathe_config config = { sizeof config, f.plugin->option_count, f.values };
            int status;
            f.allocations = 0;
            f.fail_at = n;
            f.err.message[0] = 0;
            status = f.api->create(&f.host, &config, &f.self, &f.err);
            if (!status) {
                status = f.api->context_create(f.self, &params, &f.context, &f.err);
                f.api->destroy(f.self);
            }
            f.self = f.context = NULL;
            assert_int_equal(status, LATHE_ENOMEM);
            assert_true(f.err.message[0] != 0);
            assert_int_equal(f.live, 0);
        }
        f.fail_at = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_in_chunks_equals_the_whole),
        cmocka_unit_test(mixed_slices_and_padding_do_not_disturb_each_other),
        cmocka_unit_test(hidden_states_and_chosen_rows_come_in_order),
        cmocka_unit_test(dropped_positions_have_no_influence),
        cmocka_unit_test(a_kept_list_of_all_changes_nothing),
        cmocka_unit_test(blocks_are_copied_and_swapped_with_their_contents),
        cmocka_unit_test(half_precision_keys_stay_near),
        cmocka_unit_test(running_out_of_memory_leaves_nothing_behind),
    };
    snprintf(zoo_two_layers, sizeof zoo_two_layers, "%s/zoo/llama-q8_0.gguf", TEST_DATA);
    snprintf(zoo_one_layer, sizeof zoo_one_layer, "%s/zoo/llama-q4_k.gguf", TEST_DATA);
    snprintf(zoo_qwen, sizeof zoo_qwen, "%s/zoo/qwen2-q8_0.gguf", TEST_DATA);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

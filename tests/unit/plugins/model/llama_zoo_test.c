/* SPDX-License-Identifier: MIT */
/* model/llama on tiny files of every tensor type, head sharing, rotation and architecture,
 * against transformers (tests/data/golden_zoo.json); weights kept and dequantized at load, and every
 * way to compute. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "golden.h"

static int32_t blocks[16];

static double check_prompt(struct fixture *f, struct call *c, const char *file, const json_t *p, double allowed)
{
    int32_t ids[512];
    uint32_t n = golden_ids(json_object_get(p, "ids"), ids), vocab = f->info.vocab_tokens;
    const json_t *top = json_object_get(p, "top"), *greedy = json_object_get(p, "greedy"), *margin = json_object_get(p, "margin");
    double worst = 0, nll = 0, expected = json_number_value(json_object_get(p, "nll"));
    call_reset(c);
    call_slice(c, 1, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, 0, ids, n, blocks, 16);
    assert_int_equal(call_run(f, c), 0);
    for (uint32_t r = 0; r + 1 < n; r++) {
        const float *row = c->logits + (size_t)r * vocab;
        nll += log_sum(row, vocab) - row[ids[r + 1]];
    }
    if (fabs(nll - expected) > (allowed < 0.05 ? allowed : 0.05) * n)
        fail_msg("%s: nll %.6f, expected %.6f", file, nll, expected);
    const float *last = c->logits + (size_t)(n - 1) * vocab;
    for (size_t k = 0; k < json_array_size(top); k++) {
        const json_t *entry = json_array_get(top, k);
        double difference = fabs(last[json_integer_value(json_array_get(entry, 0))] - log_sum(last, vocab) -
                                 json_number_value(json_array_get(entry, 1)));
        worst = difference > worst ? difference : worst;
    }
    if (worst > allowed)
        fail_msg("%s: a log-probability is off by %g", file, worst);
    for (size_t k = 0; k < json_array_size(greedy); k++) {
        int32_t token = (int32_t)json_integer_value(json_array_get(greedy, k));
        if (json_number_value(json_array_get(margin, k)) > (allowed < 0.01 ? 0.01 : 4 * allowed))
            assert_int_equal(largest(last, vocab), token);
        call_reset(c);
        call_slice(c, 1, LATHE_SLICE_LOGITS, (int32_t)n++, &token, 1, blocks, 16);
        assert_int_equal(call_run(f, c), 0);
        last = c->logits;
    }
    return worst;
}

static void check_zoo(const char *weights, const char *compute, uint32_t threads, double allowed)
{
    json_t *zoo = golden_json("golden_zoo.json");
    double worst = 0;
    assert_true(json_array_size(zoo) >= 18);
    for (size_t i = 0; i < json_array_size(zoo); i++) {
        const char *file = json_string_value(json_object_get(json_array_get(zoo, i), "file"));
        json_t *prompts = json_object_get(json_array_get(zoo, i), "prompts");
        char path[1024];
        static struct fixture f;
        snprintf(path, sizeof path, "%s/%s%s", TEST_DATA, strchr(file, '/') ? "" : "zoo/", file);
        const struct fixture_option options[] = { { "path", path }, { "weights", weights }, { "compute", compute }, { NULL, NULL } };
        if (fixture_open(&f, "llama", options) ||
            fixture_context(&f, (struct lathe_context_params){ .blocks = 16, .batch_tokens = 256, .context_tokens = 256,
                                                              .output_rows = 256, .threads = threads }))
            fail_msg("%s: %s", file, f.err.message);
        struct call *c = call_new();
        for (size_t p = 0; p < json_array_size(prompts); p++) {
            double difference = check_prompt(&f, c, file, json_array_get(prompts, p), allowed);
            worst = difference > worst ? difference : worst;
        }
        call_free(c);
        fixture_close(&f);
        assert_int_equal(f.live, 0);
    }
    print_message("weights %s, compute %s: largest difference of a top-20 log-probability: %g\n", weights, compute, worst);
    json_decref(zoo);
}

static void every_type_and_variant_agrees(void **state)
{
    (void)state;
    check_zoo("keep", "blas", 1, 1e-3);
    check_zoo("keep", "exact", 2, 1e-3);
}

static void weights_dequantized_at_load_agree_too(void **state)
{
    (void)state;
    check_zoo("f32", "blas", 3, 1e-3);
}

/* Of 8 bits: what quantizing activations costs these files of random weights. */
static void products_in_integers_are_near(void **state)
{
    (void)state;
    check_zoo("keep", "int8", 2, 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_variant_agrees),
        cmocka_unit_test(weights_dequantized_at_load_agree_too),
        cmocka_unit_test(products_in_integers_are_near),
    };
    const char *sets[] = { "plain", "avx2" }; /* beside the best; chosen once a process, so each in its own */
    int failed = 0;
    blocks_fill(blocks, 16, 15, -1);
    for (int i = 0; i < 2; i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            setenv("LATHE_KERNELS", sets[i], 1);
            exit(cmocka_run_group_tests(tests, NULL, NULL));
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "failed with the kernels %s\n", sets[i]);
            failed++;
        }
    }
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}

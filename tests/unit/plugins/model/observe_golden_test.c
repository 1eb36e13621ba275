/* SPDX-License-Identifier: MIT */
/* Interventions and probes of layers on the real model against transformers with hooks
 * (tests/data/make_intervention_golden.py): logits after each intervention, norms, lens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"

enum { ROWS = 24 };

static struct fixture f;
static struct call *c;
static int32_t blocks[4], ids[ROWS], other_ids[ROWS];
static json_t *golden;

static void run(void)
{
    if (call_run(&f, c))
        fail_msg("forward: %s", f.err.message);
}

static void mask(uint64_t *bits, const json_t *numbers)
{
    for (size_t i = 0; i < json_array_size(numbers); i++)
        bits[0] |= 1ull << json_integer_value(json_array_get(numbers, i));
}

static double number(const json_t *from, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(from, key), i));
}

static void probe_layers(uint32_t format, uint64_t layers)
{
    call_reset(c);
    c->probes[0] = (struct lathe_probe){ .id = 1, .format = format, .top_k = 5, .last_position = -1, .every = 1,
                                         .width = f.info.embedding_width, .layers = { layers },
                                         .heads = { (1ull << f.info.heads) - 1 } };
    c->probe_count = 1;
}

/* The part of a row's record after its header. */
static const void *record(uint32_t row)
{
    const unsigned char *at = c->attention;
    for (; row > 0; row--)
        at += ((const struct lathe_attention_row *)(const void *)at)->bytes;
    return at + sizeof(struct lathe_attention_row);
}

/* The other prompt's residual stream after a layer, to the message's floats. */
static void take_activations(const struct lathe_intervention *e)
{
    uint32_t width = f.info.embedding_width, count = (uint32_t)(e->last_position - e->first_position) + 1;
    float *rows = malloc((size_t)count * width * sizeof *rows);
    probe_layers(LATHE_PROBE_HIDDEN, e->layers[0]);
    call_slice(c, 1, 0, 0, other_ids, ROWS, blocks, 4)->probe = 0;
    run();
    for (uint32_t i = 0; i < count; i++)
        memcpy(rows + (size_t)i * width, record((uint32_t)e->first_position + i), width * sizeof *rows);
    call_reset(c);
    memcpy(c->floats, rows, (size_t)count * width * sizeof *rows);
    c->float_count = count * width;
    free(rows);
}

static void intervene(const json_t *kase)
{
    struct lathe_intervention e = { .kind = (uint32_t)json_integer_value(json_object_get(kase, "kind")), .last_position = -1 };
    const json_t *last = json_object_get(kase, "last");
    e.factor = (float)json_number_value(json_object_get(kase, "factor"));
    e.first_position = (int32_t)json_integer_value(json_object_get(kase, "first"));
    e.last_position = last ? (int32_t)json_integer_value(last) : -1;
    mask(e.layers, json_object_get(kase, "layers"));
    mask(e.heads, json_object_get(kase, "heads"));
    call_reset(c);
    if (e.kind == LATHE_PATCH)
        take_activations(&e);
    e.float_count = c->float_count;
    e.key_count = c->key_count = golden_ids(json_object_get(kase, "keys"), c->keys);
    c->interventions[0] = e;
    c->intervention_count = 1;
}

static void interventions_agree(void **state)
{
    const json_t *cases = json_object_get(golden, "cases");
    double worst = 0;
    (void)state;
    assert_int_equal(json_array_size(cases), 12);
    for (size_t i = 0; i < json_array_size(cases); i++)
        for (int decode = 0; decode < 2; decode++) {
            const json_t *kase = json_array_get(cases, i), *top = json_object_get(kase, "top");
            const char *name = json_string_value(json_object_get(kase, "name"));
            double nll = 0, sum = 0, expected = json_number_value(json_object_get(kase, "nll"));
            const float *logits = NULL;
            intervene(kase);
            for (uint32_t from = 0; from < ROWS; from += decode ? 1 : ROWS) {
                uint32_t rows = decode ? 1 : ROWS;
                c->slice_count = c->token_count = c->block_count = c->output_count = 0;
                call_slice(c, 9, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)from, ids + from, rows, blocks, 4)->interventions = 1;
                run();
                for (uint32_t r = from; r < from + rows; r++) {
                    logits = c->logits + (size_t)(r - from) * f.info.vocab_tokens;
                    sum = log_sum(logits, f.info.vocab_tokens);
                    nll += r + 1 < ROWS ? sum - logits[ids[r + 1]] : 0;
                }
            }
            if (fabs(nll - expected) > 1e-3 * (ROWS - 1))
                fail_msg("%s: nll %.6f, expected %.6f", name, nll, expected);
            for (size_t k = 0; k < json_array_size(top); k++) {
                const json_t *entry = json_array_get(top, k);
                int64_t id = json_integer_value(json_array_get(entry, 0));
                double difference = fabs(logits[id] - sum - json_number_value(json_array_get(entry, 1)));
                worst = difference > worst ? difference : worst;
                if (difference > 0.001)
                    fail_msg("%s, token %lld: log-probability off by %g", name, (long long)id, difference);
            }
        }
    print_message("largest difference of a top-20 log-probability: %g\n", worst);
}

static void near(const char *what, size_t row, double found, double wanted)
{
    if (!(fabs(found - wanted) <= 2e-4 * (1 + fabs(wanted))))
        fail_msg("%s of row %zu: %.9g, expected %.9g", what, row, found, wanted);
}

static void norms_agree(void **state)
{
    const json_t *all = json_object_get(golden, "norms");
    (void)state;
    assert_int_equal(json_array_size(all), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *n = json_array_get(all, i);
        probe_layers(LATHE_PROBE_NORMS, 1ull << json_integer_value(json_object_get(n, "layer")));
        call_slice(c, 1, 0, 0, ids, ROWS, blocks, 4)->probe = 0;
        run();
        for (uint32_t r = 0; r < ROWS; r++) {
            const struct lathe_layer_norms *norms = record(r);
            const float *head = (const float *)(norms + 1);
            near("norm before", r, norms->before, number(n, "before", r));
            near("norm of attention", r, norms->attention, number(n, "attention", r));
            near("norm of the MLP", r, norms->feed, number(n, "feed", r));
            near("norm after", r, norms->after, number(n, "after", r));
            for (uint32_t h = 0; h < f.info.heads; h++)
                near("norm of a head", r, head[h], number(n, "heads", (size_t)r * f.info.heads + h));
        }
    }
}

static void lens_agrees(void **state)
{
    const json_t *all = json_object_get(golden, "lens");
    double worst = 0;
    (void)state;
    assert_int_equal(json_array_size(all), 4);
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *l = json_array_get(all, i), *rows = json_object_get(l, "rows");
        probe_layers(LATHE_PROBE_LENS, 1ull << json_integer_value(json_object_get(l, "layer")));
        call_slice(c, 1, 0, 0, ids, ROWS, blocks, 4)->probe = 0;
        run();
        for (size_t r = 0; r < json_array_size(rows); r++) {
            const struct lathe_lens *found = record((uint32_t)json_integer_value(json_array_get(rows, r)));
            const json_t *top = json_array_get(json_object_get(l, "top"), r);
            for (size_t k = 0; k < 5; k++) { /* two within the tolerance may have changed places */
                int32_t token = (int32_t)json_integer_value(json_array_get(json_array_get(top, k), 0));
                double wanted = json_number_value(json_array_get(json_array_get(top, k), 1)), nearest = -INFINITY;
                double difference = fabs(found[k].logprob - wanted);
                for (size_t j = 0; j < 5; j++)
                    if (j != k)
                        nearest = fmax(nearest, -fabs(json_number_value(json_array_get(json_array_get(top, j), 1)) - wanted));
                worst = difference > worst ? difference : worst;
                assert_true(difference <= 0.001);
                assert_true(found[k].token == token || nearest > -0.002 || k == 4);
            }
        }
    }
    print_message("largest difference of a lens's log-probability: %g\n", worst);
}

int main(void)
{
    const char *path = golden_model_path();
    if (!path)
        return 77;
    const struct fixture_option options[] = { { "path", path }, { "compute", "blas" }, { NULL, NULL } };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interventions_agree),
        cmocka_unit_test(norms_agree),
        cmocka_unit_test(lens_agrees),
    };
    if (fixture_open(&f, "llama", options) || fixture_context(&f, (struct lathe_context_params){ .threads = 2 })) {
        fprintf(stderr, "%s\n", f.err.message);
        return 1;
    }
    c = call_new();
    call_attention_room(c, 16 << 20);
    blocks_fill(blocks, 4, 9, -2);
    golden = golden_json("golden_intervention.json");
    if (golden_ids(json_object_get(golden, "ids"), ids) != ROWS || golden_ids(json_object_get(golden, "other_ids"), other_ids) != ROWS)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    call_free(c);
    fixture_close(&f);
    return failed;
}

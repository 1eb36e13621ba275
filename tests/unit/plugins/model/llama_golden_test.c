/* SPDX-License-Identifier: MIT */
/* model/llama on the real model against transformers (tests/data/README.md): logits of ten
 * prompts, greedy continuations, perplexity, and attention at every layer and head. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"
#include <kernels/half.h>

static struct fixture f;
static struct call *c;
static int32_t blocks[128];

static void logits_of_ten_prompts_agree(void **state)
{
    (void)state;
    json_t *golden = golden_json("golden_logits.json"), *prompts = json_object_get(golden, "prompts");
    int32_t ids[1024];
    double worst = 0;
    assert_int_equal(json_array_size(prompts), 10);
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        json_t *p = json_array_get(prompts, i), *top = json_object_get(p, "top");
        uint32_t n = golden_ids(json_object_get(p, "ids"), ids);
        call_reset(c);
        call_slice(c, i, LATHE_SLICE_LOGITS, 0, ids, n, blocks, 64);
        assert_int_equal(call_run(&f, c), 0);
        assert_int_equal(c->out.logits_rows, 1);
        double sum = log_sum(c->logits, f.info.vocab_tokens);
        assert_int_equal(json_array_size(top), 20);
        for (size_t k = 0; k < 20; k++) {
            json_t *entry = json_array_get(top, k);
            int64_t id = json_integer_value(json_array_get(entry, 0));
            double difference = fabs(c->logits[id] - sum - json_number_value(json_array_get(entry, 1)));
            worst = difference > worst ? difference : worst;
            if (difference > 0.001)
                fail_msg("prompt %zu, token %lld: log-probability off by %g", i, (long long)id, difference);
        }
    }
    print_message("largest difference of a top-20 log-probability: %g\n", worst);
    json_decref(golden);
}

static unsigned compare_greedy(const float *logits, size_t prompt, const json_t *p, size_t k)
{
    int32_t expected = (int32_t)json_integer_value(json_array_get(json_object_get(p, "greedy"), k));
    if (json_number_value(json_array_get(json_object_get(p, "margin"), k)) <= 0.01)
        return 0;
    if (largest(logits, f.info.vocab_tokens) != expected)
        fail_msg("prompt %zu, step %zu: %d, expected %d", prompt, k, largest(logits, f.info.vocab_tokens), expected);
    return 1;
}

/* The first three prompts token by token, as generation does; the others with the golden tokens
 * all at once, which gives the same logits in a fraction of the time. */
static void greedy_continuations_agree(void **state)
{
    (void)state;
    json_t *golden = golden_json("golden_logits.json"), *prompts = json_object_get(golden, "prompts");
    int32_t ids[1024];
    unsigned compared = 0;
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        json_t *p = json_array_get(prompts, i);
        uint32_t n = golden_ids(json_object_get(p, "ids"), ids), m = golden_ids(json_object_get(p, "greedy"), ids + n);
        uint32_t at_once = i < 3 ? 1 : m;
        assert_int_equal(m, 64);
        call_reset(c);
        call_slice(c, i, 0, 0, ids, n, blocks, 64); /* its last row is run again below */
        assert_int_equal(call_run(&f, c), 0);
        for (uint32_t k = 0; k < m; k += at_once) {
            call_reset(c);
            call_slice(c, i, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)(n + k - 1), ids + n + k - 1, at_once, blocks, 64);
            assert_int_equal(call_run(&f, c), 0);
            for (uint32_t r = 0; r < at_once; r++)
                compared += compare_greedy(c->logits + (size_t)r * f.info.vocab_tokens, i, p, k + r);
        }
    }
    print_message("%u greedy steps compared\n", compared);
    assert_true(compared > 600);
    json_decref(golden);
}

static void nll_of_prompts_agrees(void **state)
{
    (void)state;
    json_t *golden = golden_json("golden_logits.json"), *prompts = json_object_get(golden, "prompts");
    int32_t ids[1024];
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        json_t *p = json_array_get(prompts, i);
        uint32_t n = golden_ids(json_object_get(p, "ids"), ids);
        double nll = 0, expected = json_number_value(json_object_get(p, "nll"));
        for (uint32_t from = 0; from < n; from += 64) {
            uint32_t rows = n - from < 64 ? n - from : 64;
            call_reset(c);
            call_slice(c, i, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)from, ids + from, rows, blocks, 64);
            assert_int_equal(call_run(&f, c), 0);
            for (uint32_t r = 0; r < rows && from + r + 1 < n; r++) {
                const float *row = c->logits + (size_t)r * f.info.vocab_tokens;
                nll += log_sum(row, f.info.vocab_tokens) - row[ids[from + r + 1]];
            }
        }
        if (fabs(nll - expected) > 1e-3 * (n > 1 ? n - 1 : 1))
            fail_msg("prompt %zu: nll %.6f, expected %.6f", i, nll, expected);
    }
    json_decref(golden);
}

static void probe_all(struct lathe_probe *p, uint32_t format)
{
    memset(p, 0, sizeof *p);
    p->id = 1;
    p->format = format;
    p->top_k = 8;
    p->recent_window = 4;
    p->last_position = -1;
    p->every = 1;
    for (uint32_t i = 0; i < f.info.layers; i++)
        p->layers[i / 64] |= 1ull << i % 64;
    for (uint32_t i = 0; i < f.info.heads; i++)
        p->heads[i / 64] |= 1ull << i % 64;
}

/* Runs the golden prompt in chunks with a probe; leaves the records in c->attention, in order. */
static void run_probed(const int32_t *ids, uint32_t n, uint32_t chunk, uint32_t format)
{
    unsigned char *room;
    size_t used = 0;
    call_attention_room(c, (size_t)64 << 20);
    room = c->attention;
    for (uint32_t from = 0; from < n; from += chunk) {
        uint32_t rows = n - from < chunk ? n - from : chunk;
        call_reset(c);
        probe_all(&c->probes[0], format);
        c->probe_count = 1;
        call_slice(c, 1, 0, (int32_t)from, ids + from, rows, blocks, 64)->probe = 0;
        c->attention = room + used;
        c->attention_bytes = ((size_t)64 << 20) - used;
        assert_int_equal(call_run(&f, c), 0);
        used += c->out.attention_bytes;
    }
    c->attention = room;
    c->attention_bytes = used;
}

static void attention_agrees(const char *name, uint32_t chunk)
{
    char path[1024];
    snprintf(path, sizeof path, "%s.json", name);
    json_t *golden = golden_json(path);
    int32_t ids[1024];
    uint32_t n = golden_ids(json_object_get(golden, "ids"), ids);
    snprintf(path, sizeof path, "%s/%s.bin", TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint32_t header[8];
    assert_int_equal(fread(header, 4, 8, file), 8);
    uint32_t layers = header[3], heads = header[4], rows = header[6], sum = 0;
    assert_int_equal(layers, f.info.layers);
    assert_int_equal(heads, f.info.heads);
    uint32_t *positions = malloc(rows * 4);
    assert_int_equal(fread(positions, 4, rows, file), rows);
    for (uint32_t i = 0; i < rows; i++)
        sum += positions[i] + 1;
    float *expected = malloc((size_t)sum * layers * heads * 4);
    assert_int_equal(fread(expected, 4, (size_t)sum * layers * heads, file), (size_t)sum * layers * heads);
    fclose(file);

    run_probed(ids, n, chunk, LATHE_PROBE_FULL);
    double worst = 0, worst_sum = 0;
    uint32_t seen = 0, next = 0, before = 0;
    for (size_t at = 0; at < c->attention_bytes; seen++) {
        const struct lathe_attention_row *row = (const void *)(c->attention + at);
        const uint16_t *weights = (const void *)(row + 1);
        assert_int_equal(row->position, seen);
        assert_int_equal(row->keys, seen + 1);
        assert_int_equal(row->request, 1);
        if (next < rows && positions[next] == seen) {
            for (uint32_t h = 0; h < layers * heads; h++) {
                double total = 0;
                for (uint32_t k = 0; k <= seen; k++) {
                    float weight = float_of_half(weights[(size_t)h * (seen + 1) + k]);
                    double difference = fabs(weight - expected[(size_t)h * sum + before + k]);
                    worst = difference > worst ? difference : worst;
                    total += weight;
                }
                worst_sum = fabs(total - 1) > worst_sum ? fabs(total - 1) : worst_sum;
            }
            before += seen + 1;
            next++;
        }
        at += row->bytes;
    }
    print_message("%s: largest difference %g, of a sum from 1 %g\n", name, worst, worst_sum);
    assert_int_equal(seen, n);
    assert_int_equal(next, rows);
    assert_true(worst <= 5e-4);
    assert_true(worst_sum <= 0.002);
    free(positions);
    free(expected);
    json_decref(golden);
}

static void attention_of_a_short_prompt_agrees(void **state)
{
    (void)state;
    attention_agrees("golden_attention_short", 512);
    attention_agrees("golden_attention_short", 1); /* decode reads blocks in place */
}

static void attention_of_a_long_prompt_agrees(void **state)
{
    (void)state;
    attention_agrees("golden_attention_long", 512);
    attention_agrees("golden_attention_long", 37);
}

static void summaries_and_tops_agree_with_full_rows(void **state)
{
    (void)state;
    int32_t ids[1024];
    json_t *golden = golden_json("golden_attention_short.json");
    uint32_t n = golden_ids(json_object_get(golden, "ids"), ids), parts = f.info.layers * f.info.heads;
    run_probed(ids, n, 512, LATHE_PROBE_FULL);
    unsigned char *full = c->attention;
    c->attention = NULL;
    run_probed(ids, n, 512, LATHE_PROBE_SUMMARY);
    unsigned char *summary = c->attention;
    c->attention = NULL;
    run_probed(ids, n, 512, LATHE_PROBE_TOP);
    size_t at_full = 0, at_summary = 0, at_top = 0;
    for (uint32_t p = 0; p < n; p++) {
        const struct lathe_attention_row *row = (const void *)(full + at_full);
        const uint16_t *weights = (const void *)(row + 1);
        const struct lathe_attention_summary *s = (const void *)(summary + at_summary + sizeof *row);
        const struct lathe_attention_top *t = (const void *)(c->attention + at_top + sizeof *row);
        for (uint32_t h = 0; h < parts; h++, weights += p + 1, s++, t += 8) {
            double entropy = 0, recent = 0, most = 0;
            for (uint32_t k = 0; k <= p; k++) {
                double w = float_of_half(weights[k]);
                entropy -= w > 0 ? w * log(w) : 0;
                recent += k + 4 > p ? w : 0;
                most = w > most ? w : most;
            }
            assert_true(fabs(s->entropy - entropy) < 0.01);
            assert_true(fabs(float_of_half(s->recent_mass) - recent) < 0.002);
            assert_int_equal(s->first_mass, weights[0]);
            assert_int_equal(s->self_mass, weights[p]);
            assert_true(float_of_half(s->top_weight) == most);
            assert_true(float_of_half(weights[s->top_key]) == most);
            assert_int_equal(t[0].key, s->top_key);
            for (uint32_t k = 0; k < 8; k++) {
                if (k > p) {
                    assert_int_equal(t[k].key, UINT32_MAX);
                    continue;
                }
                assert_true(half_of_float(t[k].weight) == weights[t[k].key]);
                assert_true(k == 0 || t[k].weight <= t[k - 1].weight);
            }
        }
        at_full += row->bytes;
        at_summary += ((const struct lathe_attention_row *)(const void *)(summary + at_summary))->bytes;
        at_top += ((const struct lathe_attention_row *)(const void *)(c->attention + at_top))->bytes;
    }
    free(full);
    free(summary);
    json_decref(golden);
}

int main(void)
{
    const char *path = golden_model_path();
    if (!path)
        return 77;
    const struct fixture_option options[] = { { "path", path }, { "compute", "blas" }, { NULL, NULL } };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_ten_prompts_agree),      cmocka_unit_test(greedy_continuations_agree),
        cmocka_unit_test(nll_of_prompts_agrees),            cmocka_unit_test(attention_of_a_short_prompt_agrees),
        cmocka_unit_test(attention_of_a_long_prompt_agrees), cmocka_unit_test(summaries_and_tops_agree_with_full_rows),
    };
    if (fixture_open(&f, "llama", options) ||
        fixture_context(&f, (struct lathe_context_params){ .batch_tokens = 640, .threads = 2 })) {
        fprintf(stderr, "%s\n", f.err.message);
        return 1;
    }
    c = call_new();
    blocks_fill(blocks, 128, 200, -1); /* not in order: block tables are what is read */
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    call_free(c);
    fixture_close(&f);
    return failed;
}

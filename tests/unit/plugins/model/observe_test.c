/* SPDX-License-Identifier: MIT */
/* What probes record and interventions change, against loops in double (observe_reference.h): every
 * format, every kind and random mixtures of them, in a prefill, in chunks and in decode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "observe_records.h"

static char zoo[1024];
static struct subject {
    const char *plugin;
    struct fixture_option options[3];
    uint32_t layers, heads; /* of tiny */
} subjects[] = {
    { "tiny", { { "layers", "3" }, { "heads", "4" }, { NULL, NULL } }, 3, 4 },
    { "tiny", { { "layers", "2" }, { "heads", "3" }, { NULL, NULL } }, 2, 3 },
    { "llama", { { "path", zoo }, { NULL, NULL } }, 0, 0 },
};
enum { SUBJECTS = 3, BLOCK = 5, ROWS = 21, TABLE = 8 };

static struct fixture f;
static int32_t ids[REF_ROWS], table[TABLE];
static const struct ref_edits none;

static void begin(const struct subject *s)
{
    struct lathe_context_params params = { .block_tokens = BLOCK, .blocks = 32, .context_tokens = 40, .batch_tokens = 64,
                                           .output_rows = 64, .threads = 2 };
    if (fixture_open(&f, s->plugin, s->options) || fixture_context(&f, params))
        fail_msg("%s: %s", s->plugin, f.err.message);
    if (s->layers)
        ref_tiny(&model, s->layers, s->heads);
    else
        ref_llama(&model, &f, zoo);
    assert_true(model.layers <= REF_LAYERS && model.heads <= REF_HEADS && model.vocab <= REF_VOCAB &&
                model.width <= REF_WIDTH && model.feed <= REF_FEED);
    assert_true(f.info.probe_formats == 0x1fe && f.info.interventions == 0x1fe);
    c = call_new();
    call_attention_room(c, 1 << 22);
    for (int i = 0; i < REF_ROWS; i++)
        ids[i] = (i * 37 + 11) % 250;
    blocks_fill(table, TABLE, 20, -2);
}

static void end(void)
{
    ref_free(&model);
    call_free(c);
    fixture_close(&f);
    assert_int_equal(f.live, 0);
}

static uint64_t draw(uint64_t *counter)
{
    *counter += 1;
    return lathe_random_u64(11, LATHE_RANDOM_USER, *counter >> 20, (uint32_t)*counter) >> 7;
}

static uint64_t some_bits(uint64_t *counter, uint32_t of)
{
    uint64_t bits = draw(counter) % (1ull << of);
    return bits ? bits : 1ull << (of - 1);
}

/* One probe of each format, of random layers, heads and positions. */
static void probe_all_formats(uint64_t *counter)
{
    c->probe_count = LATHE_PROBE_FORMATS - 1;
    for (uint32_t i = 0; i < c->probe_count; i++)
        c->probes[i] = (struct lathe_probe){
            .id = 40 + i, .format = i + 1, .top_k = 1 + (uint32_t)(draw(counter) % 24), .width = model.width,
            .recent_window = (uint32_t)(draw(counter) % 30), .first_position = (int32_t)(draw(counter) % 4),
            .last_position = draw(counter) % 2 ? -1 : ROWS - 3, .every = 1 + (uint32_t)(draw(counter) % 2),
            .layers = { some_bits(counter, model.layers) }, .heads = { some_bits(counter, model.heads) },
        };
}

/* The rows in chunks, with the edits and the probes that c has; compares logits and records. */
static void run_and_check(const struct ref_edits *edits, uint32_t chunk)
{
    uint32_t seen = 0;
    for (uint32_t from = 0; from < ROWS; from += chunk) {
        uint32_t n = ROWS - from < chunk ? ROWS - from : chunk, probes = c->probe_count;
        call_reset(c);
        c->probe_count = probes;
        c->intervention_count = edits->count;
        memcpy(c->interventions, edits->list, edits->count * sizeof *edits->list);
        c->float_count = edits->count ? CALL_TOKENS / 2 : 0;
        c->key_count = edits->count ? 64 : 0;
        /* a neighbour that nothing is done to */
        int32_t own[TABLE];
        blocks_fill(own, TABLE, 21, -2);
        call_slice(c, 7, LATHE_SLICE_LOGITS, (int32_t)from, ids + from, n, own, TABLE);
        struct lathe_slice *s = call_slice(c, 8, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, (int32_t)from, ids + from, n, table, TABLE);
        s->interventions = edits->count ? (1ull << edits->count) - 1 : 0;
        s->probe = probes ? 0 : LATHE_NO_PROBE;
        s->probe_count = probes;
        if (call_run(&f, c))
            fail_msg("forward: %s", f.err.message);
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t i = 0; i < model.vocab; i++)
                near("logit", from + r, c->logits[(size_t)(1 + r) * model.vocab + i], expected->logits[from + r][i], 3e-4);
        if (probes)
            seen += check_records(from, n);
    }
    assert_true(c->probe_count == 0 || seen > 40);
}

static void every_format_agrees_with_the_loops(void **state)
{
    uint64_t counter = 0;
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i]);
        ref_forward(&model, ids, ROWS, &none, expected);
        for (int round = 0; round < 12; round++) {
            static const uint32_t chunks[] = { ROWS, 1, 7, 2 };
            call_reset(c);
            probe_all_formats(&counter);
            run_and_check(&none, chunks[round % 4]);
        }
        end();
    }
}

/* ---- interventions ---- */

static struct lathe_intervention *add_edit(struct ref_edits *e, uint32_t kind, uint32_t layer)
{
    struct lathe_intervention *i = &e->list[e->count++];
    *i = (struct lathe_intervention){ .kind = kind, .last_position = -1, .layers = { 1ull << layer }, .heads = { ~0ull } };
    i->heads[0] = (1ull << model.heads) - 1;
    e->floats = c->floats;
    e->keys = c->keys;
    return i;
}

static void random_edit(struct ref_edits *e, uint64_t *counter)
{
    struct lathe_intervention *i = add_edit(e, 1 + (uint32_t)(draw(counter) % 8), 0);
    i->layers[0] = some_bits(counter, model.layers);
    i->heads[0] = some_bits(counter, model.heads);
    i->factor = (float)(draw(counter) % 5) / 2 - 0.5f;
    i->first_position = (int32_t)(draw(counter) % ROWS);
    i->last_position = i->first_position + (int32_t)(draw(counter) % 6);
    if (draw(counter) % 2 && i->kind != LATHE_PATCH)
        i->first_position = 0, i->last_position = -1;
    i->float_first = (uint32_t)(draw(counter) % 100);
    i->float_count = i->kind == LATHE_HEAD_SET ? model.head
                     : i->kind == LATHE_PATCH ? (uint32_t)(i->last_position - i->first_position + 1) * model.width : 0;
    i->key_first = (uint32_t)(draw(counter) % 10);
    i->key_count = (uint32_t)(draw(counter) % 12);
}

static void mixtures_of_interventions_agree_with_the_loops(void **state)
{
    uint64_t counter = 1 << 20;
    uint32_t kinds = 0;
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i]);
        for (uint32_t k = 0; k < CALL_TOKENS / 2; k++)
            c->floats[k] = (float)(draw(&counter) % 2001) / 1000 - 1;
        for (int round = 0; round < 60; round++) {
            struct ref_edits edits = { .count = 0 };
            static const uint32_t chunks[] = { ROWS, 1, 8 };
            c->keys[0] = 0; /* 64 ascending numbers, of which lists take pieces */
            for (uint32_t k = 1; k < 64; k++)
                c->keys[k] = c->keys[k - 1] + 1 + (int32_t)(draw(&counter) % 2);
            for (uint64_t n = 1 + draw(&counter) % 5; n > 0; n--)
                random_edit(&edits, &counter);
            for (uint32_t k = 0; k < edits.count; k++)
                kinds |= 1u << edits.list[k].kind;
            ref_forward(&model, ids, ROWS, &edits, expected);
            call_reset(c);
            probe_all_formats(&counter);
            run_and_check(&edits, chunks[round % 3]);
        }
        end();
    }
    assert_true(kinds == 0x1fe);
}

/* The edits' logits of all rows, in one forward. */
static float *logits_of(const struct ref_edits *edits, const int32_t *tokens)
{
    float *copy = malloc(ROWS * sizeof(float) * model.vocab);
    uint32_t probes = c->probe_count;
    call_reset(c);
    c->probe_count = probes;
    c->intervention_count = edits->count;
    memcpy(c->interventions, edits->list, edits->count * sizeof *edits->list);
    c->float_count = CALL_TOKENS / 2;
    c->key_count = 64;
    struct lathe_slice *s = call_slice(c, 8, LATHE_SLICE_LOGITS | CALL_ALL_ROWS, 0, tokens, ROWS, table, TABLE);
    s->interventions = (1ull << edits->count) - 1;
    s->probe = probes ? 0 : LATHE_NO_PROBE;
    if (call_run(&f, c))
        fail_msg("forward: %s", f.err.message);
    memcpy(copy, c->logits, ROWS * sizeof(float) * model.vocab);
    return copy;
}

static void removing_a_head_is_taking_its_columns_from_the_output_matrix(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i]);
        for (uint32_t l = 0; l < model.layers; l++)
            for (uint32_t h = 0; h < model.heads; h++) {
                struct ref_edits edits = { .count = 0 };
                float *before = malloc((size_t)model.width * model.heads * model.head * sizeof *before), *o = model.layer[l].o;
                size_t columns = (size_t)model.heads * model.head;
                memcpy(before, o, model.width * columns * sizeof *o);
                for (uint32_t r = 0; r < model.width; r++)
                    memset(o + r * columns + h * model.head, 0, model.head * sizeof *o);
                ref_forward(&model, ids, ROWS, &none, expected);
                memcpy(o, before, model.width * columns * sizeof *o);
                free(before);
                struct lathe_intervention *e = add_edit(&edits, LATHE_HEAD_SCALE, l);
                e->heads[0] = 1ull << h;
                float *found = logits_of(&edits, ids);
                for (uint32_t k = 0; k < ROWS * model.vocab; k++)
                    near("logit", k / model.vocab, found[k], expected->logits[k / model.vocab][k % model.vocab], 3e-4);
                free(found);
            }
        end();
    }
}

/* Hidden states of one layer, all rows, to c->floats; with the logits. */
static float *capture(const int32_t *tokens, uint32_t layer)
{
    call_reset(c);
    c->probes[0] = (struct lathe_probe){ .id = 1, .format = LATHE_PROBE_HIDDEN, .last_position = -1, .every = 1,
                                         .width = model.width, .layers = { 1ull << layer } };
    c->probe_count = 1;
    float *logits = logits_of(&none, tokens);
    const unsigned char *at = c->attention;
    for (uint32_t r = 0; r < ROWS; r++) {
        memcpy(c->floats + (size_t)r * model.width, at + sizeof(struct lathe_attention_row), model.width * sizeof(float));
        at += ((const struct lathe_attention_row *)(const void *)at)->bytes;
    }
    c->probe_count = 0;
    return logits;
}

static void patching_gives_the_run_that_the_activations_are_from(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i]);
        int32_t other[ROWS];
        for (int k = 0; k < ROWS; k++)
            other[k] = (k * 91 + 5) % 250;
        assert_true(ROWS * model.width <= CALL_TOKENS / 2);
        for (uint32_t l = 0; l < model.layers; l++)
            for (int from_another = 0; from_another < 2; from_another++) {
                float *source = capture(from_another ? other : ids, l);
                struct ref_edits edits = { .count = 0 };
                struct lathe_intervention *e = add_edit(&edits, LATHE_PATCH, l);
                e->last_position = ROWS - 1;
                e->float_count = ROWS * model.width;
                float *found = logits_of(&edits, ids);
                assert_memory_equal(found, source, ROWS * sizeof(float) * model.vocab);
                free(found);
                free(source);
            }
        end();
    }
}

/* Each set keeps two positions of its own and two that all have: dropping these is not keeping them. */
static void a_key_that_is_dropped_is_one_that_was_not_kept(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i]);
        f.api->context_destroy(f.context);
        struct lathe_context_params params = f.params;
        params.kv_scope = LATHE_KV_HEAD;
        assert_int_equal(f.api->context_create(f.self, &params, &f.context, &f.err), 0);
        call_reset(c);
        call_slice(c, 8, 0, 0, ids, 12, table, TABLE);
        assert_int_equal(call_run(&f, c), 0);
        float *expected_logits = NULL;
        for (uint32_t dropping = 0; dropping < 2; dropping++) {
            struct ref_edits edits = { .count = 0 };
            call_reset(c);
            struct lathe_slice *s = call_slice(c, 8, LATHE_SLICE_LOGITS, 12, ids + 12, 1, table, TABLE);
            for (int32_t set = 0; set < (int32_t)(model.layers * model.kv_heads); set++) {
                const int32_t kept[] = { set % 2, 2, 5, 6 + set % 5 };
                for (uint32_t k = 0; k < 4; k += dropping ? 1 : 3)
                    c->kept[c->kept_count++] = kept[k];
            }
            s->kept_count = dropping ? 4 : 2;
            if (dropping) {
                add_edit(&edits, LATHE_KEYS_DROP, 0)->layers[0] = (1ull << model.layers) - 1;
                c->interventions[0] = edits.list[0];
                c->interventions[0].key_count = c->key_count = 3;
                c->keys[0] = 2, c->keys[1] = 5, c->keys[2] = 12; /* itself it sees all the same */
                c->intervention_count = 1;
                s->interventions = 1;
            }
            if (call_run(&f, c))
                fail_msg("forward: %s", f.err.message);
            for (uint32_t k = 0; dropping && k < model.vocab; k++)
                near("logit", 12, c->logits[k], expected_logits[k], 1e-5);
            if (!dropping)
                expected_logits = memcpy(malloc(model.vocab * sizeof(float)), c->logits, model.vocab * sizeof(float));
        }
        free(expected_logits);
        end();
    }
}

static void interventions_that_no_slice_names_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < SUBJECTS; i++) {
        begin(&subjects[i]);
        struct ref_edits edits = { .count = 0 };
        float *without = logits_of(&none, ids);
        add_edit(&edits, LATHE_MLP_SCALE, 0);
        add_edit(&edits, LATHE_HEAD_UNIFORM, 0)->first_position = ROWS; /* named, and holds for no row */
        add_edit(&edits, LATHE_HEAD_SCALE, 0)->factor = 1;
        float *with = logits_of(&edits, ids);
        assert_memory_not_equal(with, without, ROWS * sizeof(float) * model.vocab);
        c->slices[0].interventions = 6;
        assert_int_equal(call_run(&f, c), 0);
        assert_memory_equal(c->logits, without, ROWS * sizeof(float) * model.vocab);
        free(with);
        free(without);
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_agrees_with_the_loops),
        cmocka_unit_test(mixtures_of_interventions_agree_with_the_loops),
        cmocka_unit_test(removing_a_head_is_taking_its_columns_from_the_output_matrix),
        cmocka_unit_test(patching_gives_the_run_that_the_activations_are_from),
        cmocka_unit_test(a_key_that_is_dropped_is_one_that_was_not_kept),
        cmocka_unit_test(interventions_that_no_slice_names_change_no_bit),
    };
    snprintf(zoo, sizeof zoo, "%s/zoo/llama-f32.gguf", TEST_DATA);
    expected = malloc(sizeof *expected);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(expected);
    return failed;
}

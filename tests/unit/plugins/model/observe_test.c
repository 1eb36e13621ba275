/* SPDX-License-Identifier: MIT */
/* What probes record and interventions change, against loops in double (observe_reference.h): every
 * format, every kind and random mixtures of them, in a prefill, in chunks and in decode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"
#include "observe_reference.h"
#include <kernels/half.h>

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
static struct call *c;
static struct reference model;
static struct ref_result *expected;
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

static void near(const char *what, uint32_t row, double found, double wanted, double tolerance)
{
    if (!(fabs(found - wanted) <= tolerance * (1 + fabs(wanted))))
        fail_msg("%s of row %u: %.9g, expected %.9g", what, row, found, wanted);
}

/* ---- a record's parts ---- */

static void check_head(const struct lathe_probe *p, uint32_t l, uint32_t h, uint32_t row, const void *part)
{
    const double *weights = expected->weights[l][h][row], *scores = expected->scores[l][h][row];
    const struct lathe_attention_summary *s = part;
    const struct lathe_attention_top *top = part;
    const uint16_t *halves = part;
    double entropy = 0, recent = 0, most = 0;
    for (uint32_t k = 0; k <= row; k++) {
        entropy -= weights[k] > 0 ? weights[k] * log(weights[k]) : 0;
        recent += k + p->recent_window > row ? weights[k] : 0;
        most = weights[k] > most ? weights[k] : most;
    }
    switch (p->format) {
    case LATHE_PROBE_SUMMARY:
        near("entropy", row, s->entropy, entropy, 2e-4);
        near("first mass", row, float_of_half(s->first_mass), weights[0], 6e-4);
        near("recent mass", row, float_of_half(s->recent_mass), recent, 6e-4);
        near("self mass", row, float_of_half(s->self_mass), weights[row], 6e-4);
        near("top weight", row, float_of_half(s->top_weight), most, 6e-4);
        assert_true(s->top_key <= row);
        near("top key's weight", row, weights[s->top_key], most, 1e-4);
        break;
    case LATHE_PROBE_TOP:
        for (uint32_t k = 0; k < p->top_k; k++) {
            if (k > row) {
                assert_true(top[k].key == UINT32_MAX && top[k].weight == 0);
                continue;
            }
            assert_true(top[k].key <= row);
            near("a top weight", row, top[k].weight, weights[top[k].key], 1e-4);
            uint32_t above = 0; /* so many are surely heavier */
            for (uint32_t j = 0; j <= row; j++)
                above += weights[j] > weights[top[k].key] + 1e-4;
            assert_true(above <= k);
            for (uint32_t j = 0; j < k; j++)
                assert_true(top[j].key != top[k].key && top[j].weight >= top[k].weight);
        }
        break;
    default:
        for (uint32_t k = 0; k <= row; k++)
            if (p->format == LATHE_PROBE_SCORES)
                near("score", row, float_of_half(halves[k]), scores[k] < -65504 ? -65504 : scores[k], 1e-3);
            else
                near("weight", row, float_of_half(halves[k]),
                     weights[k] * (p->format == LATHE_PROBE_VALUES ? expected->value_norm[l][h][k] : 1), 6e-4);
    }
}

static void check_layer(const struct lathe_probe *p, uint32_t l, uint32_t row, const void *part)
{
    const struct lathe_layer_norms *norms = part;
    const struct lathe_lens *lens = part;
    const float *head = (const float *)(norms + 1), *x = part;
    double logits[REF_VOCAB], sum = 0;
    switch (p->format) {
    case LATHE_PROBE_NORMS:
        near("norm before", row, norms->before, expected->before[l][row], 1e-4);
        near("norm of attention", row, norms->attention, expected->attention[l][row], 1e-4);
        near("norm of the MLP", row, norms->feed, expected->feed[l][row], 1e-4);
        near("norm after", row, norms->after, expected->after[l][row], 1e-4);
        for (uint32_t h = 0; h < model.heads; h++)
            if (lathe_probe_has(p->heads, h))
                near("norm of a head", row, *head++, expected->head_norm[l][h][row], 1e-4);
        break;
    case LATHE_PROBE_LENS:
        ref_logits(&model, expected->x[l][row], logits);
        for (uint32_t i = 0; i < model.vocab; i++)
            sum += exp(logits[i]);
        for (uint32_t k = 0; k < p->top_k; k++) {
            uint32_t above = 0;
            assert_true(lens[k].token >= 0 && (uint32_t)lens[k].token < model.vocab);
            near("lens", row, lens[k].logprob, logits[lens[k].token] - log(sum), 5e-4);
            for (uint32_t i = 0; i < model.vocab; i++)
                above += logits[i] > logits[lens[k].token] + 1e-3;
            assert_true(above <= k);
            assert_true(k == 0 || (lens[k].token != lens[k - 1].token && lens[k].logprob <= lens[k - 1].logprob));
        }
        break;
    default:
        for (uint32_t i = 0; i < model.width; i++)
            near("hidden", row, x[i], expected->x[l][row][i], 2e-4);
    }
}

/* All records of rows first … first + rows − 1; returns how many. */
static uint32_t check_records(uint32_t first, uint32_t rows)
{
    const unsigned char *at = c->attention;
    uint32_t seen = 0;
    for (uint32_t row = first; row < first + rows; row++)
        for (uint32_t n = 0; n < c->probe_count; n++) {
            const struct lathe_probe *p = &c->probes[n];
            const struct lathe_attention_row *record = (const void *)at;
            if (!lathe_probe_wants(p, (int32_t)row))
                continue;
            const unsigned char *part = at + sizeof *record;
            assert_true(record->position == (int32_t)row && record->keys == row + 1 && record->probe == p->id);
            for (uint32_t l = 0; l < model.layers; l++) {
                if (!lathe_probe_has(p->layers, l))
                    continue;
                if (lathe_probe_of_layers(p->format))
                    check_layer(p, l, row, part);
                for (uint32_t h = 0, i = 0; h < model.heads && !lathe_probe_of_layers(p->format); h++)
                    if (lathe_probe_has(p->heads, h))
                        check_head(p, l, h, row, part + i++ * lathe_attention_head_bytes(p, row + 1));
                part += lathe_probe_layer_bytes(p, row + 1);
            }
            at += record->bytes;
            seen++;
        }
    assert_true((size_t)(at - c->attention) == c->out.attention_bytes);
    return seen;
}

/* ---- running it ---- */

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
        cmocka_unit_test(interventions_that_no_slice_names_change_no_bit),
    };
    snprintf(zoo, sizeof zoo, "%s/zoo/llama-f32.gguf", TEST_DATA);
    expected = malloc(sizeof *expected);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(expected);
    return failed;
}

/* SPDX-License-Identifier: MIT */
/* Records of all formats against what the reference saw: the weights in any order that rounding
 * allows, and everything else as it is. For observe_test.c, whose model and call these are. */
#ifndef TESTS_MODEL_OBSERVE_RECORDS_H
#define TESTS_MODEL_OBSERVE_RECORDS_H

#include <kernels/half.h>

#include "observe_reference.h"

static struct call *c;
static struct reference model;
static struct ref_result *expected;

static void near(const char *what, uint32_t row, double found, double wanted, double tolerance)
{
    if (!(fabs(found - wanted) <= tolerance * (1 + fabs(wanted))))
        fail_msg("%s of row %u: %.9g, expected %.9g", what, row, found, wanted);
}

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
            assert_true(scores[top[k].key] > -INFINITY || top[k].weight == 0); /* a dropped key has none at all */
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

#endif

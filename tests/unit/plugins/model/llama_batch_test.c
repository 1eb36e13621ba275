/* SPDX-License-Identifier: MIT */
/* Sixteen requests of the real model in one continuous batch, against one at a time: the
 * same tokens wherever the best logit leads by more than 0.01. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"

enum { REQUESTS = 16, OUTPUT = 12, BLOCK = 16, TABLE = 40, BUDGET = 160 };

struct sequence {
    int32_t ids[700], table[TABLE];
    int32_t expected[OUTPUT];
    double margin[OUTPUT];
    uint32_t prompt, computed, count;
    int compare;
};

static struct fixture f;
static struct call *c;
static struct sequence sequences[REQUESTS];

static void make_prompts(void)
{
    json_t *golden = golden_json("golden_logits.json"), *prompts = json_object_get(golden, "prompts");
    for (uint32_t i = 0; i < REQUESTS; i++) {
        struct sequence *s = &sequences[i];
        uint32_t n = golden_ids(json_object_get(json_array_get(prompts, i % 10), "ids"), s->ids);
        s->prompt = i < 10 ? n : n / 2 + 1; /* the second time round: half of it */
        s->prompt = s->prompt < 200 ? s->prompt : 200 - i;
        for (uint32_t b = 0; b < TABLE; b++)
            s->table[b] = (int32_t)(b * REQUESTS + (i * 5) % REQUESTS); /* everybody's blocks interleaved */
    }
    json_decref(golden);
}

static void one_at_a_time(struct sequence *s)
{
    uint32_t from = 0, n = s->prompt;
    for (uint32_t k = 0; k < OUTPUT; k++) {
        call_reset(c);
        call_slice(c, 1, LATHE_SLICE_LOGITS, (int32_t)from, s->ids + from, n - from, s->table, TABLE);
        assert_int_equal(call_run(&f, c), 0);
        s->expected[k] = largest(c->logits, f.info.vocab_tokens);
        s->margin[k] = margin_of(c->logits, f.info.vocab_tokens);
        from = n;
        s->ids[n++] = s->expected[k];
    }
}

/* One step: decode for all that are under way, then prompts in order while the budget lasts. */
static uint32_t step(uint32_t joined)
{
    struct sequence *wants[REQUESTS];
    uint32_t rows[REQUESTS], budget = BUDGET, n = 0, outputs = 0;
    call_reset(c);
    for (int prefill = 0; prefill < 2; prefill++)
        for (uint32_t i = 0; i < joined; i++) {
            struct sequence *s = &sequences[i];
            uint32_t pending = s->count - s->computed;
            if (s->count == s->prompt + OUTPUT || (pending > 1) != prefill || budget == 0)
                continue;
            rows[n] = pending < budget ? pending : budget;
            budget -= rows[n];
            call_slice(c, i, rows[n] == pending ? LATHE_SLICE_LOGITS : 0, (int32_t)s->computed, s->ids + s->computed, rows[n],
                       s->table, TABLE);
            wants[n++] = s;
        }
    assert_int_equal(call_run(&f, c), 0);
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *s = wants[i];
        s->computed += rows[i];
        if (s->computed != s->count)
            continue;
        const float *logits = c->logits + (size_t)outputs++ * f.info.vocab_tokens;
        uint32_t k = s->count - s->prompt;
        int32_t token = largest(logits, f.info.vocab_tokens);
        if (s->compare && token != s->expected[k]) {
            if (s->margin[k] > 0.01)
                fail_msg("output %u: %d, alone %d with a margin of %g", k, token, s->expected[k], s->margin[k]);
            s->compare = 0; /* a tie within rounding: from here on it is another text */
        }
        s->ids[s->count++] = token;
    }
    assert_int_equal(outputs, c->out.logits_rows);
    return n;
}

static void sixteen_requests_give_what_they_give_alone(void **state)
{
    (void)state;
    uint32_t steps = 0, compared = 0;
    make_prompts();
    for (uint32_t i = 0; i < REQUESTS; i++)
        one_at_a_time(&sequences[i]);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        sequences[i].count = sequences[i].prompt;
        sequences[i].computed = 0;
        sequences[i].compare = 1;
    }
    while (step(2 + steps < REQUESTS ? 2 + steps : REQUESTS)) /* one more joins at each step */
        steps++;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        assert_int_equal(sequences[i].count, sequences[i].prompt + OUTPUT);
        compared += sequences[i].compare;
    }
    print_message("%u steps; %u of %d texts compared to their end\n", steps, compared, REQUESTS);
    assert_true(compared >= REQUESTS - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sixteen_requests_give_what_they_give_alone) };
    const char *path = golden_model_path();
    if (!path)
        return 77;
    const struct fixture_option options[] = { { "path", path }, { NULL, NULL } };
    if (fixture_open(&f, "llama", options) ||
        fixture_context(&f, (struct lathe_context_params){ .block_tokens = BLOCK, .blocks = TABLE * REQUESTS,
                                                          .batch_tokens = 512, .threads = 2 })) {
        fprintf(stderr, "%s\n", f.err.message);
        return 1;
    }
    c = call_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    call_free(c);
    fixture_close(&f);
    return failed;
}

/* SPDX-License-Identifier: MIT */
/* The same bits for a request alone and among others, and with any number of threads; with compute =
 * blas as long as its own prompt is cut the same way, otherwise however it is cut: on tiny files of
 * every tensor type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "golden.h"

enum { REQUESTS = 37, STEPS = 3, TABLE = 2, MOST_VOCAB = 4096, MOST_PROMPT = 24 };

static float alone[REQUESTS][STEPS][MOST_VOCAB];

static uint32_t prompt_of(uint32_t request)
{
    return 1 + request * 5 % 23;
}

/* Step 0 is the prompt, later ones a token each. */
static void add_step(struct fixture *f, struct call *c, uint32_t request, uint32_t step)
{
    int32_t ids[64], table[TABLE];
    uint32_t prompt = prompt_of(request), first = step == 0 ? 0 : prompt + step - 1;
    for (uint32_t i = 0; i < 64; i++)
        ids[i] = (int32_t)((i * 7919 + request * 104729) % f->info.vocab_tokens);
    blocks_fill(table, TABLE, (int32_t)(request * TABLE), 1);
    call_slice(c, request, LATHE_SLICE_LOGITS, (int32_t)first, ids + first, step == 0 ? prompt : 1, table, TABLE);
}

static void one_after_the_other(struct fixture *f, struct call *c)
{
    for (uint32_t r = 0; r < REQUESTS; r++)
        for (uint32_t s = 0; s < STEPS; s++) {
            call_reset(c);
            add_step(f, c, r, s);
            assert_int_equal(call_run(f, c), 0);
            memcpy(alone[r][s], c->logits, f->info.vocab_tokens * sizeof(float));
        }
}

/* Requests join one step apart by their number's remainder, so prompts and single tokens meet. */
static void together(struct fixture *f, struct call *c, const char *file, uint32_t requests)
{
    for (uint32_t turn = 0; turn < STEPS + 2; turn++) {
        uint32_t who[REQUESTS], steps[REQUESTS], n = 0;
        call_reset(c);
        for (uint32_t r = 0; r < requests; r++)
            if (turn >= r % 3 && turn - r % 3 < STEPS) {
                who[n] = r;
                steps[n++] = turn - r % 3;
                add_step(f, c, r, turn - r % 3);
            }
        if (n == 0)
            continue;
        assert_int_equal(call_run(f, c), 0);
        for (uint32_t i = 0; i < n; i++)
            if (memcmp(c->logits + (size_t)i * f->info.vocab_tokens, alone[who[i]][steps[i]],
                       f->info.vocab_tokens * sizeof(float)) != 0)
                fail_msg("%s: request %u's step %u among %u, %u in the batch: other bits than alone", file, who[i], steps[i],
                         requests, n);
    }
}

/* The prompt of a request in pieces of `cut` tokens, all requests' first pieces in one forward, and so on. */
static void in_pieces(struct fixture *f, struct call *c, const char *file, uint32_t cut)
{
    for (uint32_t from = 0; from < MOST_PROMPT; from += cut) {
        uint32_t who[REQUESTS], n = 0;
        call_reset(c);
        for (uint32_t r = 0; r < REQUESTS; r++) {
            int32_t ids[64], table[TABLE];
            uint32_t prompt = prompt_of(r), count = prompt - from < cut ? prompt - from : cut;
            if (from >= prompt)
                continue;
            for (uint32_t i = 0; i < 64; i++)
                ids[i] = (int32_t)((i * 7919 + r * 104729) % f->info.vocab_tokens);
            blocks_fill(table, TABLE, (int32_t)(r * TABLE), 1);
            call_slice(c, r, from + count == prompt ? LATHE_SLICE_LOGITS : 0, (int32_t)from, ids + from, count, table, TABLE);
            if (from + count == prompt)
                who[n++] = r;
        }
        if (c->slice_count == 0)
            return;
        assert_int_equal(call_run(f, c), 0);
        for (uint32_t i = 0; i < n; i++)
            if (memcmp(c->logits + (size_t)i * f->info.vocab_tokens, alone[who[i]][0], f->info.vocab_tokens * sizeof(float)) != 0)
                fail_msg("%s: request %u's prompt in pieces of %u: other bits than whole", file, who[i], cut);
    }
}

static void same_bits(const char *compute)
{
    json_t *zoo = golden_json("golden_zoo.json");
    uint32_t tried = 0;
    for (size_t i = 0; i < json_array_size(zoo); i++) {
        const char *file = json_string_value(json_object_get(json_array_get(zoo, i), "file"));
        char path[1024];
        snprintf(path, sizeof path, "%s/%s%s", TEST_DATA, strchr(file, '/') ? "" : "zoo/", file);
        const struct fixture_option options[] = { { "path", path }, { "compute", compute }, { NULL, NULL } };
        for (uint32_t threads = 1; threads <= 3; threads++) {
            static struct fixture f;
            if (fixture_open(&f, "llama", options) ||
                fixture_context(&f, (struct lathe_context_params){ .blocks = REQUESTS * TABLE, .batch_slices = REQUESTS,
                                                                  .context_tokens = 64, .threads = threads }))
                fail_msg("%s: %s", file, f.err.message);
            assert_true(f.info.vocab_tokens <= MOST_VOCAB);
            struct call *c = call_new();
            if (threads == 1)
                one_after_the_other(&f, c);
            together(&f, c, file, 2);
            together(&f, c, file, 11);
            together(&f, c, file, REQUESTS);
            for (uint32_t cut = 1; cut <= 16 && strcmp(compute, "blas") != 0; cut = cut * 2 + 1)
                in_pieces(&f, c, file, cut);
            call_free(c);
            fixture_close(&f);
            tried++;
        }
    }
    assert_true(tried >= 3 * 18);
    json_decref(zoo);
}

static void a_request_has_the_same_bits_in_every_company(void **state)
{
    (void)state;
    same_bits("blas");
}

static void exact_has_the_same_bits_however_a_prompt_is_cut(void **state)
{
    (void)state;
    same_bits("exact");
}

static void int8_has_the_same_bits_however_a_prompt_is_cut(void **state)
{
    (void)state;
    same_bits("int8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_has_the_same_bits_in_every_company),
        cmocka_unit_test(exact_has_the_same_bits_however_a_prompt_is_cut),
        cmocka_unit_test(int8_has_the_same_bits_however_a_prompt_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

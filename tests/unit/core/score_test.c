/* SPDX-License-Identifier: MIT */
/* Scoring without an engine: chunks, windows, the likeliest tokens, lists of ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "score.h"

static struct score_stages stages = { .verb = "test" };
static int32_t ids[700];
enum { IDS = 700, VOCAB = 260 };

/* −ln p of token `at` given those from `from` on, by a scorer of its own and one forward. */
static double nll_alone(uint32_t from, uint32_t at)
{
    struct lathe_error err;
    struct scorer *s;
    const float *logits;
    assert_int_equal(scorer_open(stages.model, at - from, 1, &s, &err), 0);
    assert_int_equal(scorer_run(s, 0, ids + from, at - from, &logits, &err), 0);
    double nll = log_sum_exp(logits, VOCAB) - logits[ids[at]];
    scorer_close(s);
    return nll;
}

static void likelihood_is_the_sum_over_single_tokens(void **state)
{
    (void)state;
    struct lathe_error err;
    struct score_likelihood result;
    struct scorer *s;
    double expected = 0;
    for (uint32_t at = 1; at < 90; at++)
        expected += nll_alone(0, at);
    assert_int_equal(scorer_open(stages.model, 90, 7, &s, &err), 0);
    assert_int_equal(score_likelihood(s, ids, 90, 90, 45, NULL, &result, &err), 0);
    scorer_close(s);
    assert_int_equal(result.scored, 89);
    assert_int_equal(result.windows, 1);
    assert_true(fabs(result.nll - expected) < 1e-3);
}

static void windows_score_each_token_once_with_its_context(void **state)
{
    (void)state;
    struct lathe_error err;
    struct score_likelihood result;
    struct scorer *s;
    double expected = 0;
    uint32_t begin = 0;
    for (uint32_t at = 1; at < 100; at++) { /* windows of 40, stride 15: 0, 15, 30, … */
        while (at >= begin + 40)
            begin += 15;
        expected += nll_alone(begin, at);
    }
    assert_int_equal(scorer_open(stages.model, 40, 64, &s, &err), 0);
    assert_int_equal(score_likelihood(s, ids, 100, 40, 15, NULL, &result, &err), 0);
    scorer_close(s);
    assert_int_equal(result.scored, 99);
    assert_int_equal(result.windows, 5);
    assert_true(fabs(result.nll - expected) < 1e-3);
}

static void long_prompts_run_in_chunks(void **state)
{
    (void)state;
    struct lathe_error err;
    struct scorer *s;
    const float *logits;
    double nll = nll_alone(0, 699);
    assert_int_equal(scorer_open(stages.model, 700, 1, &s, &err), 0);
    assert_int_equal(scorer_run(s, 0, ids, 300, &logits, &err), 0);
    assert_int_equal(scorer_run(s, 300, ids + 300, 399, &logits, &err), 0);
    assert_true(fabs(log_sum_exp(logits, VOCAB) - logits[ids[699]] - nll) < 1e-5);
    assert_int_equal(scorer_run(s, 600, ids, 101, &logits, &err), LATHE_ERANGE);
    scorer_close(s);
    assert_int_equal(scorer_open(stages.model, 100000, 1, &s, &err), LATHE_ERANGE);
}

static void what_cannot_be_scored_is_refused(void **state)
{
    (void)state;
    struct lathe_error err;
    struct score_likelihood result;
    struct scorer *s;
    assert_int_equal(scorer_open(stages.model, 40, 8, &s, &err), 0);
    assert_int_equal(score_likelihood(s, ids, 1, 40, 20, NULL, &result, &err), LATHE_EINVAL);
    assert_int_equal(score_likelihood(s, ids, 0, 40, 20, NULL, &result, &err), LATHE_EINVAL);
    assert_int_equal(score_likelihood(s, ids, 50, 40, 40, NULL, &result, &err), LATHE_EINVAL);
    assert_int_equal(score_likelihood(s, ids, 50, 40, 0, NULL, &result, &err), LATHE_EINVAL);
    scorer_close(s);
    ids[3] = VOCAB;
    assert_int_equal(score_check_ids(&stages, ids, 10, &err), LATHE_ERANGE);
    assert_non_null(strstr(err.message, "token 260, number 4"));
    ids[3] = 3;
    assert_int_equal(score_check_ids(&stages, ids, 10, &err), 0);
}

static void the_top_is_sorted_and_ties_go_to_the_smaller_id(void **state)
{
    (void)state;
    const float x[] = { 1, 5, 5, -2, 7, 0, 5 };
    struct score_token best[10];
    assert_int_equal(score_top(x, 7, best, 4), 4);
    assert_int_equal(best[0].id, 4);
    assert_int_equal(best[1].id, 1);
    assert_int_equal(best[2].id, 2);
    assert_int_equal(best[3].id, 6);
    assert_int_equal(score_top(x, 7, best, 10), 7);
    double sum = 0;
    for (int i = 0; i < 7; i++)
        sum += exp(best[i].logprob);
    assert_true(fabs(sum - 1) < 1e-12);
}

static void lists_of_ids_are_read_and_others_refused(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int count; /* −1: refused */
    } cases[] = {
        { "1,2,3", 3 },   { "[1, 2, 3]", 3 }, { " 7 ", 1 },    { "1 2\n3", 3 },  { "[0]", 1 },     { "2147483647", 1 },
        { "", -1 },       { "[]", -1 },       { "1,x", -1 },   { "-1", -1 },     { "2147483648", -1 }, { "[1,2", -1 },
        { "1]", -1 },     { "[1]2", -1 },     { "1.5", -1 },   { "9999999999999999999999", -1 }, { "[[1]]", -1 },
    };
    struct lathe_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *list = NULL;
        size_t count = 0;
        int status = score_parse_ids(cases[i].text, &list, &count, &err);
        if ((status == 0) != (cases[i].count > 0) || (status == 0 && count != (size_t)cases[i].count))
            fail_msg("\"%s\": status %d, %zu ids", cases[i].text, status, count);
        free(list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(likelihood_is_the_sum_over_single_tokens),
        cmocka_unit_test(windows_score_each_token_once_with_its_context),
        cmocka_unit_test(long_prompts_run_in_chunks),
        cmocka_unit_test(what_cannot_be_scored_is_refused),
        cmocka_unit_test(the_top_is_sorted_and_ties_go_to_the_smaller_id),
        cmocka_unit_test(lists_of_ids_are_read_and_others_refused),
    };
    struct lathe_error err;
    for (int i = 0; i < IDS; i++)
        ids[i] = i * 91 % 256;
    setenv("LATHE_PLUGIN_PATH", TEST_PLUGINS, 1);
    if (score_stages_set(&stages, "model=tiny:context=1000", &err) || score_stages_open(&stages, 0, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    score_stages_close(&stages);
    return failed;
}

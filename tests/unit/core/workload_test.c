/* SPDX-License-Identifier: MIT */
/* Workloads: the statistics that their formulas say, streams that don't shift each other, and
 * traces that are read as they stand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "workload.h"
#include "workload_draw.h"
#include "workload_trace.h"

enum { N = 100000 };

static const struct workload_class plain = { .share = 1, .prompt = { .kind = WORKLOAD_FIXED, .a = 10 },
                                             .output = { .kind = WORKLOAD_FIXED, .a = 5 } };

static struct workload_params params(int arrivals, size_t requests)
{
    return (struct workload_params){ .arrivals = arrivals, .requests = requests, .rate = 4, .cv = 3, .size = 3,
                                     .every_s = 2, .seed_arrivals = 1, .seed_prompts = 1, .seed_outputs = 1,
                                     .seed_classes = 1, .seed_predictions = 1, .classes = &plain, .class_count = 1 };
}

static struct workload *opened(struct workload_params p)
{
    struct lathe_error err = { 0 };
    struct workload *w = NULL;
    if (workload_open(&p, &w, &err))
        fail_msg("%s", err.message);
    return w;
}

static void refused(struct workload_params p, const char *because)
{
    struct lathe_error err = { 0 };
    struct workload *w = NULL;
    assert_true(workload_open(&p, &w, &err) < 0);
    assert_null(w);
    if (!strstr(err.message, because))
        fail_msg("expected \"%s\" in: %s", because, err.message);
}

/* Gaps in seconds, which ascend; malloc'd. */
static double *gaps(struct workload_params p)
{
    struct workload *w = opened(p);
    struct workload_request r;
    double *list = calloc(p.requests, sizeof *list);
    int64_t last = 0;
    size_t count = 0;
    assert_non_null(list);
    while (workload_next(w, &r)) {
        assert_true(r.planned_ns >= last);
        list[count++] = (double)(r.planned_ns - last) / 1e9;
        last = r.planned_ns;
    }
    assert_int_equal(count, p.requests);
    workload_close(w);
    return list;
}

static void moments(const double *list, size_t count, double *mean, double *cv)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++)
        sum += list[i];
    *mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += (list[i] - *mean) * (list[i] - *mean);
    *cv = sqrt(squares / (double)count) / *mean;
}

static void near(double found, double expected, double tolerance, const char *what)
{
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("%s: found %g, expected %g +- %g", what, found, expected, tolerance);
}

static void gaps_have_the_moments_of_their_process(void **state)
{
    (void)state;
    double mean, cv, *list = gaps(params(WORKLOAD_POISSON, N));
    moments(list, N, &mean, &cv);
    near(mean * 4, 1, 0.015, "Poisson mean");
    near(cv, 1, 0.015, "Poisson CV");
    free(list);
    list = gaps(params(WORKLOAD_GAMMA, N));
    moments(list, N, &mean, &cv);
    near(mean * 4, 1, 0.05, "gamma mean");
    near(cv, 3, 0.1, "gamma CV");
    free(list);
}

/* Variance over mean of the counts in windows of `window` seconds. */
static double dispersion(const double *list, size_t count, double window)
{
    double at = 0, sum = 0, squares = 0, in_window = 0, windows = 0;
    for (size_t i = 0; i < count; i++) {
        at += list[i];
        for (; at >= window; at -= window, in_window = 0) {
            windows++;
            sum += in_window;
            squares += in_window * in_window;
        }
        in_window++;
    }
    double mean = sum / windows;
    return (squares / windows - mean * mean) / mean;
}

/* Fischer and Meier-Hellstern 1993; scripts/lathe/workload.lua has the same. */
static double closed_form(const double *rates, const double *stays, double window)
{
    double a = 1 / stays[0], b = 1 / stays[1], mixing = a + b;
    double limit = 2 * a * b * pow(rates[0] - rates[1], 2) / (mixing * mixing * (rates[0] * b + rates[1] * a));
    return 1 + limit * (1 - (1 - exp(-mixing * window)) / (mixing * window));
}

/* As Azure's conversations: gaps nearly Poisson's, minutes sixteen times as dispersed. */
static void mmpp_is_as_dispersed_as_the_closed_form_says(void **state)
{
    (void)state;
    struct workload_params p = params(WORKLOAD_MMPP, 20 * N);
    p.states = 2;
    memcpy(p.rates, (double[]){ 3.8, 7 }, 2 * sizeof(double));
    memcpy(p.stays_s, (double[]){ 80, 40 }, 2 * sizeof(double));
    double mean, cv, *list = gaps(p), expected = closed_form(p.rates, p.stays_s, 60);
    moments(list, p.requests, &mean, &cv);
    near(mean * (3.8 * 80 + 7 * 40) / 120, 1, 0.02, "mean rate");
    near(cv, 1.09, 0.02, "CV of the gaps");
    near(expected, 16, 0.1, "index of dispersion, closed form");
    near(dispersion(list, p.requests, 60) / expected, 1, 0.08, "index of dispersion, counted");
    free(list);

    p.rates[0] = 0; /* on and off: no arrival while it is off, the same mean rate by another way */
    p.requests = N;
    list = gaps(p);
    moments(list, p.requests, &mean, &cv);
    near(mean * 7 / 3, 1, 0.05, "mean rate, interrupted");
    free(list);

    p.states = 1; /* one state is Poisson */
    p.rates[0] = 4;
    list = gaps(p);
    double *poisson = gaps(params(WORKLOAD_POISSON, N));
    for (size_t i = 0; i < N; i++)
        near(list[i], poisson[i], 1e-6, "one state");
    free(list);
    free(poisson);
}

static void constant_and_burst_are_exact(void **state)
{
    (void)state;
    static const int64_t bursts[] = { 0, 0, 0, 2000000000, 2000000000, 2000000000, 4000000000 };
    struct workload *c = opened(params(WORKLOAD_CONSTANT, 9)), *b = opened(params(WORKLOAD_BURST, 7));
    struct workload_request r;
    for (int i = 0; i < 9; i++) {
        assert_true(workload_next(c, &r));
        assert_int_equal(r.planned_ns, i * 250000000LL);
    }
    for (int i = 0; i < 7; i++) {
        assert_true(workload_next(b, &r));
        assert_int_equal(r.planned_ns, bursts[i]);
    }
    assert_false(workload_next(b, &r));
    workload_close(b);
    workload_close(c);
}

/* What Lua's arithmetic gave before lengths were drawn in C: seed 11, stream 1. */
static void lengths_are_the_numbers_that_they_were(void **state)
{
    (void)state;
    static const struct workload_length lognormal = { .kind = WORKLOAD_LOGNORMAL, .a = 1200, .b = 0.7 };
    static const uint32_t values[] = { 1, 8, 30 };
    static const struct workload_length empirical = { .kind = WORKLOAD_EMPIRICAL, .values = values, .value_count = 3 };
    static const struct workload_length uniform = { .kind = WORKLOAD_UNIFORM, .a = 3, .b = 12 };
    static const uint32_t expected[][3] = { { 889, 30, 10 }, { 2904, 1, 5 }, { 1776, 8, 9 }, { 393, 8, 8 }, { 973, 1, 3 }, { 1431, 8, 6 } };
    struct workload_key key = { .seed = 11, .stream = 1, .purpose = 3 };
    for (uint32_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(workload_length_draw(&lognormal, key, i + 1, 0), expected[i][0]);
        assert_int_equal(workload_length_draw(&empirical, key, i + 1, 0), expected[i][1]);
        assert_int_equal(workload_length_draw(&uniform, key, i + 1, 0), expected[i][2]);
    }
}

static void means_are_those_of_what_is_drawn(void **state)
{
    (void)state;
    static const uint32_t values[] = { 1, 8, 30, 4000 };
    static const struct workload_length lengths[] = {
        { .kind = WORKLOAD_FIXED, .a = 70 },
        { .kind = WORKLOAD_UNIFORM, .a = 3, .b = 12 },
        { .kind = WORKLOAD_UNIFORM, .a = 3, .b = 12, .min = 5, .max = 9 },
        { .kind = WORKLOAD_LOGNORMAL, .a = 120, .b = 1 },
        { .kind = WORKLOAD_LOGNORMAL, .a = 120, .b = 1.5, .min = 50, .max = 500 },
        { .kind = WORKLOAD_EXPONENTIAL, .a = 500 },
        { .kind = WORKLOAD_EXPONENTIAL, .a = 500, .min = 100, .max = 900 },
        { .kind = WORKLOAD_EMPIRICAL, .values = values, .value_count = 4, .max = 100 },
    };
    struct workload_key key = { .seed = 5, .stream = 2, .purpose = 3 };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        double sum = 0;
        for (uint32_t n = 1; n <= N; n++) {
            uint32_t tokens = workload_length_draw(&lengths[i], key, n, 0);
            assert_true(tokens >= (lengths[i].min ? lengths[i].min : 1));
            assert_true(!lengths[i].max || tokens <= lengths[i].max);
            sum += tokens;
        }
        near(sum / N / workload_length_mean(&lengths[i]), 1, 0.02, "mean of a length");
    }
}

static const struct workload_class classes[] = {
    { .name = "chat", .tenant = "a", .share = 6, .prompt = { .kind = WORKLOAD_UNIFORM, .a = 1, .b = 1000 },
      .output = { .kind = WORKLOAD_LOGNORMAL, .a = 100, .b = 1 }, .prediction = WORKLOAD_TRUE, .priority = 3,
      .slo_ttft_ns = 5, .slo_tpot_ns = 6, .deadline_ns = 7 },
    { .name = "none", .share = 0, .prompt = { .kind = WORKLOAD_FIXED, .a = 1 }, .output = { .kind = WORKLOAD_FIXED, .a = 1 } },
    { .name = "code", .share = 3, .prompt = { .kind = WORKLOAD_FIXED, .a = 9 },
      .output = { .kind = WORKLOAD_UNIFORM, .a = 1000, .b = 3000 }, .prediction = WORKLOAD_NOISY, .noise = 0.5, .weight = 250 },
    { .name = "batch", .share = 1, .prompt = { .kind = WORKLOAD_FIXED, .a = 9 },
      .output = { .kind = WORKLOAD_UNIFORM, .a = 10, .b = 30 }, .prediction = WORKLOAD_MEAN },
};

static struct workload_params with_classes(size_t requests)
{
    struct workload_params p = params(WORKLOAD_POISSON, requests);
    p.classes = classes;
    p.class_count = sizeof classes / sizeof *classes;
    return p;
}

static void classes_come_by_their_shares_with_what_is_theirs(void **state)
{
    (void)state;
    struct workload *w = opened(with_classes(N));
    struct workload_request r;
    double of[4] = { 0 }, wrong = 0, squares = 0;
    while (workload_next(w, &r)) {
        of[r.class_number]++;
        assert_string_equal(r.class_name, classes[r.class_number].name);
        if (r.class_number == 0) {
            assert_int_equal(r.predicted_output_tokens, r.output_tokens);
            assert_string_equal(r.tenant, "a");
            assert_int_equal(r.weight, 1000);
            assert_true(r.priority == 3 && r.slo_ttft_ns == 5 && r.slo_tpot_ns == 6 && r.deadline_ns == 7);
        } else if (r.class_number == 2) {
            double off = log((double)r.predicted_output_tokens / r.output_tokens);
            wrong += off;
            squares += off * off;
            assert_int_equal(r.weight, 250);
        } else {
            assert_int_equal(r.predicted_output_tokens, 20);
        }
    }
    near(of[0] / N, 0.6, 0.01, "share");
    assert_true(of[1] == 0);
    near(of[2] / N, 0.3, 0.01, "share");
    near(wrong / of[2], 0, 0.02, "bias of the prediction");
    near(sqrt(squares / of[2]), 0.5, 0.01, "noise of the prediction");
    workload_close(w);
}

/* The logarithm of the error has the bias as its mean; its noise, and all other draws, stay as they were. */
static void a_bias_moves_predictions_alone(void **state)
{
    (void)state;
    struct workload_class even = classes[2], low = even;
    low.bias = -0.7;
    struct workload_params p = with_classes(2000);
    p.class_count = 1;
    p.classes = &even;
    struct workload *a = opened(p);
    p.classes = &low;
    struct workload *b = opened(p);
    struct workload_request x, y;
    while (workload_next(a, &x) && workload_next(b, &y)) {
        assert_true(x.planned_ns == y.planned_ns && x.prompt_tokens == y.prompt_tokens && x.output_tokens == y.output_tokens);
        near(log((double)y.predicted_output_tokens / x.predicted_output_tokens), -0.7, 0.02, "bias");
    }
    workload_close(a);
    workload_close(b);
}

/* Common random numbers: a stream's seed moves that stream alone. */
static void a_seed_moves_its_own_stream_alone(void **state)
{
    (void)state;
    enum { ARRIVAL = 1, PROMPT = 2, OUTPUT = 4, CLASS = 8, PREDICTION = 16 };
    static const int moves[] = { ARRIVAL, PROMPT, OUTPUT | PREDICTION, CLASS | PROMPT | OUTPUT | PREDICTION, PREDICTION };
    for (int which = 0; which < 5; which++) {
        struct workload_params p = with_classes(2000);
        struct workload *a = opened(p);
        uint64_t *seeds[] = { &p.seed_arrivals, &p.seed_prompts, &p.seed_outputs, &p.seed_classes, &p.seed_predictions };
        *seeds[which] = 2;
        struct workload *b = opened(p);
        struct workload_request x, y;
        int moved = 0;
        while (workload_next(a, &x) && workload_next(b, &y))
            moved |= (x.planned_ns != y.planned_ns) * ARRIVAL | (x.prompt_tokens != y.prompt_tokens) * PROMPT |
                     (x.output_tokens != y.output_tokens) * OUTPUT | (x.class_number != y.class_number) * CLASS |
                     (x.predicted_output_tokens != y.predicted_output_tokens) * PREDICTION;
        assert_int_equal(moved, moves[which]);
        workload_close(a);
        workload_close(b);
    }
}

static void rewound_it_draws_the_same_again(void **state)
{
    (void)state;
    static const int kinds[] = { WORKLOAD_POISSON, WORKLOAD_GAMMA, WORKLOAD_MMPP, WORKLOAD_BURST };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct workload_params p = with_classes(500);
        p.arrivals = kinds[k];
        p.states = 3;
        memcpy(p.rates, (double[]){ 1, 10, 0 }, 3 * sizeof(double));
        memcpy(p.stays_s, (double[]){ 2, 1, 3 }, 3 * sizeof(double));
        struct workload *w = opened(p);
        struct workload_request first[500], again;
        for (int i = 0; i < 500; i++)
            assert_true(workload_next(w, &first[i]));
        assert_false(workload_next(w, &again));
        for (int stop = 0; stop < 2; stop++) { /* from the end, and from the middle */
            workload_rewind(w);
            for (int i = 0; i < (stop ? 500 : 250); i++) {
                assert_true(workload_next(w, &again));
                assert_memory_equal(&again, &first[i], sizeof again);
            }
        }
        assert_int_equal(workload_count(w), 500);
        workload_close(w);
    }
}

static void a_trace_is_read_again_while_more_is_wanted(void **state)
{
    (void)state;
    static const struct workload_trace_row rows[] = { { 10, 100, 7 }, { 11, 200, 8 }, { 14, 3000, 9 } };
    static const struct workload_class traced = { .share = 1, .prompt = { .kind = WORKLOAD_OF_TRACE, .max = 1000 },
                                                  .output = { .kind = WORKLOAD_OF_TRACE }, .prediction = WORKLOAD_MEAN };
    static const double at[] = { 0, 0.5, 2, 3, 3.5, 5, 6 }; /* a round is 4 s and a mean gap of 2 s, twice as quick */
    static const uint32_t prompts[] = { 100, 200, 1000 };
    struct workload_params p = params(WORKLOAD_TRACE, 7);
    p.rows = rows;
    p.row_count = 3;
    p.speed = 2;
    p.classes = &traced;
    struct workload *w = opened(p);
    struct workload_request r;
    for (int i = 0; i < 7; i++) {
        assert_true(workload_next(w, &r));
        assert_int_equal(r.planned_ns, llround(at[i] * 1e9));
        assert_int_equal(r.prompt_tokens, prompts[i % 3]);
        assert_int_equal(r.output_tokens, 7 + i % 3);
        assert_int_equal(r.predicted_output_tokens, 8);
    }
    workload_close(w);
    p.requests = 0; /* the rows, once */
    w = opened(p);
    assert_int_equal(workload_count(w), 3);
    workload_close(w);
}

static void a_closed_workload_leaves_the_time_to_its_driver(void **state)
{
    (void)state;
    struct workload *w = opened(params(WORKLOAD_CLOSED, 2));
    struct workload_request r;
    assert_true(workload_next(w, &r));
    assert_true(r.planned_ns == -1 && r.prompt_tokens == 10 && r.output_tokens == 5);
    workload_close(w);
    workload_close(NULL);
}

static void nonsense_is_refused_with_a_sentence(void **state)
{
    (void)state;
    struct workload_class bad = plain;
    struct workload_params p = params(WORKLOAD_POISSON, 0);
    refused(p, "0 requests");
    p = params(WORKLOAD_POISSON, 5);
    p.rate = NAN;
    refused(p, "rate is");
    p.rate = 1e-9;
    p.requests = 100;
    refused(p, "292 years");
    p = params(WORKLOAD_GAMMA, 5);
    p.cv = 0;
    refused(p, "coefficient of variation");
    p = params(WORKLOAD_MMPP, 5);
    refused(p, "0 states");
    p.states = 2;
    refused(p, "state 1's mean stay");
    p.stays_s[0] = p.stays_s[1] = 1e-6;
    p.rates[1] = 1;
    refused(p, "raise the rates or the stays");
    p = params(WORKLOAD_TRACE, 5);
    refused(p, "needs the trace's rows");
    p.rows = (struct workload_trace_row[]){ { 2, 1, 1 }, { 1, 1, 1 } };
    p.row_count = 2;
    refused(p, "row 2 of the trace arrives at 1 s");
    p = params(99, 5);
    refused(p, "no arrivals of kind 99");
    p = params(WORKLOAD_POISSON, 5);
    p.classes = &bad;
    bad.share = 0;
    refused(p, "no class has a share");
    bad = plain;
    bad.output.a = 0;
    refused(p, "class 1's output");
    bad = plain;
    bad.prompt = (struct workload_length){ .kind = WORKLOAD_OF_TRACE };
    refused(p, "the arrivals are no trace");
    bad = plain;
    bad.prompt.min = 9;
    bad.prompt.max = 8;
    refused(p, "cut to 9");
    bad = plain;
    bad.name = "a name that is so long that the engine, which takes at most 63 bytes, would not have it";
    refused(p, "more than 63 bytes");
    p.class_count = 0;
    refused(p, "0 classes");
}

/* ── files ─────────────────────────────────────────────────────────────────────────── */

static char path[] = "/tmp/lathe_trace_XXXXXX";

static void written(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void a_trace_file_is_read_as_asked(void **state)
{
    (void)state;
    struct lathe_error err = { 0 };
    struct workload_trace_row *rows;
    size_t count;
    written("num_decode_tokens,extra,arrived_at,num_prefill_tokens\r\n5,x,0.5,10\r\n\r\n6,,1.5,20.4\r\n7,y,2,0\n8,z,9,40");
    struct workload_trace_file f = { .path = path };
    assert_int_equal(workload_trace_read(&f, &rows, &count, &err), LATHE_OK);
    assert_int_equal(count, 4);
    assert_true(rows[1].at_s == 1.5 && rows[1].prompt_tokens == 20 && rows[1].output_tokens == 6);
    assert_int_equal(rows[2].prompt_tokens, 1);
    assert_true(rows[3].at_s == 9);
    free(rows);
    f = (struct workload_trace_file){ .path = path, .from = 2, .window_s = 7.5, .scale = 0.5 };
    assert_int_equal(workload_trace_read(&f, &rows, &count, &err), LATHE_OK);
    assert_int_equal(count, 2);
    assert_true(rows[0].at_s == 1.5 && rows[0].prompt_tokens == 10 && rows[0].output_tokens == 3);
    free(rows);
    f = (struct workload_trace_file){ .path = path, .rows = 3 };
    assert_int_equal(workload_trace_read(&f, &rows, &count, &err), LATHE_OK);
    assert_int_equal(count, 3);
    free(rows);
}

static void a_broken_trace_file_is_named_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *because;
    } broken[] = {
        { "", "no column arrived_at" },
        { "arrived_at,num_prefill_tokens\n", "no column num_decode_tokens" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n\n", "has no rows" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\n2,many,3\n", ":3: num_prefill_tokens should be a number, not \"many\"" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2\n", ":2: num_decode_tokens should be a number, not \"\"" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n1,-2,3\n", ":2: num_prefill_tokens" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\nnan,2,3\n", ":2: arrived_at" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n1e999,2,3\n", ":2: arrived_at" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2 3,3\n", ":2: num_prefill_tokens" },
        { "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\n0,2,3\n", ":3: arrived_at is 0, before the row above (1)" },
    };
    struct lathe_error err;
    struct workload_trace_file f = { .path = path };
    struct workload_trace_row *rows;
    size_t count;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        written(broken[i].text);
        assert_true(workload_trace_read(&f, &rows, &count, &err) < 0);
        if (!strstr(err.message, broken[i].because) || !strstr(err.message, path))
            fail_msg("expected \"%s\" in: %s", broken[i].because, err.message);
    }
    f.path = "/tmp/there/is/no/such/trace.csv";
    assert_int_equal(workload_trace_read(&f, &rows, &count, &err), LATHE_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_have_the_moments_of_their_process),
        cmocka_unit_test(mmpp_is_as_dispersed_as_the_closed_form_says),
        cmocka_unit_test(constant_and_burst_are_exact),
        cmocka_unit_test(lengths_are_the_numbers_that_they_were),
        cmocka_unit_test(means_are_those_of_what_is_drawn),
        cmocka_unit_test(classes_come_by_their_shares_with_what_is_theirs),
        cmocka_unit_test(a_bias_moves_predictions_alone),
        cmocka_unit_test(a_seed_moves_its_own_stream_alone),
        cmocka_unit_test(rewound_it_draws_the_same_again),
        cmocka_unit_test(a_trace_is_read_again_while_more_is_wanted),
        cmocka_unit_test(a_closed_workload_leaves_the_time_to_its_driver),
        cmocka_unit_test(nonsense_is_refused_with_a_sentence),
        cmocka_unit_test(a_trace_file_is_read_as_asked),
        cmocka_unit_test(a_broken_trace_file_is_named_with_its_line),
    };
    int file = mkstemp(path);
    if (file < 0)
        return 1;
    close(file);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}

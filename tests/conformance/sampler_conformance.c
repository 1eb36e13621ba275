/* SPDX-License-Identifier: MIT */
/* What every sampler must keep. The oracle computes each row's distribution naively: a full
 * sort, everything in double; draws are compared with it by Pearson's chi-square, with fixed
 * seeds, so that a passing plugin passes always. Greedy ones (default temperature 0) are
 * compared with the largest logit. */
#include <math.h>

#include <lathe/sampler.h>

#include "harness.h"

enum { MAX_ROWS = 64, MAX_VOCAB = 5000, HISTORY = 12, STOPS = 3 };

static const struct lathe_sampler_api *api;
static void *sampler;
static struct lathe_sampling wishes; /* its defaults */
static int greedy;

/* A message in one piece of memory, as the engine keeps it. */
static struct {
    _Alignas(64) struct lathe_sample_in in;
    unsigned char space[64 + MAX_ROWS * sizeof(struct lathe_sample_row) + 64 + STOPS * sizeof(int32_t)];
} message;
static struct {
    _Alignas(64) struct lathe_sample_out out;
    unsigned char space[64 + MAX_ROWS * sizeof(struct lathe_sampled)];
} reply;
static float *logits; /* (MAX_ROWS, vocab) */
static int32_t history[HISTORY];
static struct lathe_sample_row *rows;
static int32_t *stops;
static uint32_t vocab;

static double unit(struct dice *d)
{
    return (double)roll(d, 1u << 30) / (1u << 30);
}

static void open_sampler(struct subject *s, uint32_t vocab_tokens)
{
    struct lathe_error err = { 0 };
    api = (const void *)s->head;
    sampler = subject_create(s);
    vocab = vocab_tokens;
    CHECK_OK(api->defaults(sampler, &wishes, &err), &err);
    CHECK_OK(api->bind(sampler, vocab, &err), &err);
    greedy = wishes.temperature == 0.0f;
    logits = calloc((size_t)MAX_ROWS * vocab, sizeof *logits);
}

static void close_sampler(void)
{
    api->destroy(sampler);
    free(logits);
}

static void message_of(uint32_t count)
{
    message.in = (struct lathe_sample_in){ .head = { .capacity = sizeof message, .bytes = sizeof message.in },
                                           .vocab_tokens = vocab };
    rows = lathe_message_add(&message.in.head, &message.in.rows, count, sizeof *rows);
    stops = lathe_message_add(&message.in.head, &message.in.stops, STOPS, sizeof *stops);
    CHECK(rows && stops, "message too small");
    message.in.logits = (struct lathe_region){ (char *)logits - (char *)&message.in,
                                               (uint64_t)count * vocab * sizeof *logits };
    message.in.history = (struct lathe_region){ (char *)history - (char *)&message.in, sizeof history };
    for (uint32_t i = 0; i < count; i++)
        rows[i] = (struct lathe_sample_row){ .request = 100 + i, .logits_row = i, .sampling = wishes };
    for (uint32_t i = 0; i < STOPS; i++)
        stops[i] = (int32_t)(vocab - 1 - i);
    reply.out.head = (struct lathe_message){ .capacity = sizeof reply };
}

static int sample(struct lathe_error *err)
{
    reply.out.head.capacity = sizeof reply;
    return api->sample(sampler, &message.in, &reply.out, err);
}

static struct lathe_sampled result(uint32_t row)
{
    CHECK(row < reply.out.sampled.count && lathe_span_check(&reply.out.head, reply.out.sampled,
                                                            sizeof(struct lathe_sampled), 4), "the reply's span");
    return LATHE_SPAN(struct lathe_sampled, &reply.out, reply.out.sampled)[row];
}

static void random_logits(struct dice *d, uint32_t count, double width)
{
    for (size_t i = 0; i < (size_t)count * vocab; i++)
        logits[i] = (float)(width * (unit(d) + unit(d) + unit(d) - 1.5));
}

static double naive_logprob(uint32_t row, int32_t token)
{
    const float *x = logits + (size_t)row * vocab;
    double most = -HUGE_VAL, sum = 0.0;
    for (uint32_t i = 0; i < vocab; i++)
        most = x[i] > most ? x[i] : most;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp(x[i] - most);
    return x[token] - most - log(sum);
}

static void check_row(uint32_t row)
{
    struct lathe_sampled r = result(row);
    CHECK(r.token >= 0 && (uint32_t)r.token < vocab, "token %d of %u", r.token, vocab);
    CHECK(fabs(r.logprob - naive_logprob(row, r.token)) < 2e-5, "row %u: log-probability %.8f, expected %.8f", row,
          (double)r.logprob, naive_logprob(row, r.token));
}

/* --- behaviours -------------------------------------------------------------- */

static void gives_the_models_log_probability(struct subject *s)
{
    struct lathe_error err = { 0 };
    static const double widths[] = { 0.1, 5, 60, 20000 };
    struct dice d = { .seed = 1 };
    open_sampler(s, 4999);
    message_of(16);
    for (int k = 0; k < 4; k++) {
        random_logits(&d, 16, widths[k]);
        CHECK_OK(sample(&err), &err);
        for (uint32_t i = 0; i < 16; i++)
            check_row(i);
    }
    close_sampler();
}

static void takes_the_lowest_id_of_equal_logits_at_temperature_0(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_sampler(s, 1001);
    message_of(2);
    rows[0].sampling.temperature = rows[1].sampling.temperature = 0.0f;
    logits[500] = logits[37] = logits[999] = 3.0f; /* row 0 */
    for (uint32_t i = 0; i < vocab; i++)
        logits[vocab + i] = -5.0f;
    CHECK_OK(sample(&err), &err);
    CHECK(result(0).token == 37 && result(1).token == 0, "tokens %d and %d", result(0).token, result(1).token);
    close_sampler();
}

static void draws_the_same_alone_and_in_a_batch(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_sampled together[MAX_ROWS];
    struct lathe_sample_row all[MAX_ROWS];
    struct dice d = { .seed = 2 };
    open_sampler(s, 777);
    random_logits(&d, MAX_ROWS, 3);
    message_of(MAX_ROWS);
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        rows[i].output_index = i % 7;
        rows[i].sampling.seed = 5 + i % 3;
    }
    memcpy(all, rows, sizeof all);
    CHECK_OK(sample(&err), &err);
    for (uint32_t i = 0; i < MAX_ROWS; i++)
        together[i] = result(i);
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        message_of(1);
        message.in.logits.bytes = (uint64_t)MAX_ROWS * vocab * sizeof *logits;
        rows[0] = all[i];
        CHECK_OK(sample(&err), &err);
        CHECK(!memcmp(&together[i], &(struct lathe_sampled){ result(0).token, result(0).logprob }, sizeof *together),
              "row %u: token %d alone, %d in a batch", i, result(0).token, together[i].token);
    }
    close_sampler();
}

static void never_takes_a_banned_or_impossible_token(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_sampler(s, 12);
    message_of(MAX_ROWS);
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        for (uint32_t k = 0; k < vocab; k++)
            logits[i * vocab + k] = k < 6 ? -INFINITY : (float)k; /* 6, 7, 8 are left */
        rows[i].banned_count = STOPS;
    }
    for (uint32_t draw = 0; draw < 50; draw++) {
        for (uint32_t i = 0; i < MAX_ROWS; i++)
            rows[i].output_index = draw;
        CHECK_OK(sample(&err), &err);
        for (uint32_t i = 0; i < MAX_ROWS; i++) {
            CHECK(result(i).token >= 6 && result(i).token <= 8, "token %d", result(i).token);
            check_row(i);
        }
    }
    close_sampler();
}

static void refuses_rows_that_are_no_distribution(struct subject *s)
{
    struct lathe_error err = { 0 };
    static const float bad[] = { NAN, INFINITY };
    open_sampler(s, 300);
    for (uint32_t kind = 0; kind < 4; kind++) {
        message_of(3);
        memset(logits, 0, (size_t)3 * vocab * sizeof *logits);
        rows[1].request = 4321;
        if (kind < 2)
            logits[vocab + 299] = bad[kind];
        else
            for (uint32_t i = 0; i < vocab; i++)
                logits[vocab + i] = kind == 2 || i >= vocab - STOPS ? (kind == 2 ? -INFINITY : 0.0f) : -INFINITY;
        rows[1].banned_count = kind == 3 ? STOPS : 0; /* 3: all that is possible is banned */
        CHECK_FAILS(sample(&err), LATHE_EINVAL, &err);
        CHECK(strstr(err.message, "4321"), "the sentence doesn't name the request: %s", err.message);
    }
    close_sampler();
}

static void refuses_messages_that_point_outside(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_sampler(s, 100);
    message_of(2);
    reply.out.head.capacity = sizeof reply.out;
    CHECK_FAILS(api->sample(sampler, &message.in, &reply.out, &err), LATHE_EFULL, &err);
    message.in.vocab_tokens = 101;
    CHECK_FAILS(sample(&err), LATHE_ERANGE, &err);
    message_of(2);
    rows[1].logits_row = UINT32_MAX;
    CHECK_FAILS(sample(&err), LATHE_EINVAL, &err);
    message_of(2);
    rows[0].history_count = HISTORY + 1;
    CHECK_FAILS(sample(&err), LATHE_EINVAL, &err);
    message_of(2);
    rows[0].banned_count = STOPS + 1;
    CHECK_FAILS(sample(&err), LATHE_EINVAL, &err);
    message_of(2);
    message.in.rows.count = UINT64_MAX / 8;
    CHECK_FAILS(sample(&err), LATHE_EINVAL, &err);
    CHECK(api->bind(sampler, 0, &err) < 0, "a vocabulary of nothing was bound");
    close_sampler();
}

/* --- the distribution -------------------------------------------------------- */

static double *sort_by;

static int by_probability(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return sort_by[x] != sort_by[y] ? (sort_by[x] < sort_by[y] ? 1 : -1) : x - y;
}

/* Row 0's distribution, done as the seam's header and the papers say, nothing shared with
 * the plugin; 0 if the cut falls so near a token that float32 may see it otherwise. */
static int naive_distribution(const struct lathe_sample_row *row, double *p)
{
    const struct lathe_sampling *w = &row->sampling;
    static int order[MAX_VOCAB];
    double most = -HUGE_VAL, sum = 0.0, mass = 0.0, cumulative = 0.0;
    uint32_t kept = vocab, n;

    for (uint32_t i = 0; i < vocab; i++) {
        int seen = 0, said = 0;
        double x = logits[i];
        for (uint32_t h = 0; h < row->history_count; h++) {
            seen |= history[row->history_first + h] == (int32_t)i;
            said += h >= row->prompt_count && history[row->history_first + h] == (int32_t)i;
        }
        if (seen)
            x = x > 0 ? x / w->repetition_penalty : x * w->repetition_penalty;
        x -= (said > 0) * (double)w->presence_penalty + said * (double)w->frequency_penalty;
        p[i] = x / w->temperature;
        most = p[i] > most ? p[i] : most;
        order[i] = (int)i;
    }
    for (uint32_t i = 0; i < vocab; i++)
        p[i] = exp(p[i] - most);
    sort_by = p;
    qsort(order, vocab, sizeof *order, by_probability);
    if (w->top_k > 0 && (uint32_t)w->top_k < kept) {
        kept = (uint32_t)w->top_k;
        if (p[order[kept]] > p[order[kept - 1]] * (1 - 1e-5))
            return 0;
    }
    for (n = 0; n < kept && p[order[n]] >= w->min_p; n++)
        sum += p[order[n]];
    if (n < kept && fabs(p[order[n]] - w->min_p) < 1e-5)
        return 0;
    kept = n;
    for (n = 0; n < kept && cumulative < w->top_p * sum; n++) {
        cumulative += p[order[n]];
        if (w->top_p < 1.0f && fabs(cumulative - w->top_p * sum) < 1e-5 * sum)
            return 0;
    }
    kept = w->top_p < 1.0f ? n : kept;
    for (n = 0; n < kept; n++)
        mass += p[order[n]];
    for (n = 0; n < vocab; n++)
        p[order[n]] = n < kept ? p[order[n]] / mass : 0.0;
    return 1;
}

/* Draws at consecutive output indexes against p: nothing where p is 0, and chi-square. */
static void check_draws(const struct lathe_sample_row *like, const double *p, uint32_t draws)
{
    uint32_t *count = calloc(vocab, sizeof *count), bins = 0, rest_count = 0;
    double chi = 0.0, rest = 0.0;
    struct lathe_error err = { 0 };

    for (uint32_t first = 0; first < draws; first += MAX_ROWS) {
        message_of(MAX_ROWS);
        message.in.logits.bytes = vocab * sizeof *logits;
        for (uint32_t i = 0; i < MAX_ROWS; i++) {
            rows[i] = *like;
            rows[i].output_index = first + i;
        }
        CHECK_OK(sample(&err), &err);
        for (uint32_t i = 0; i < MAX_ROWS; i++)
            count[result(i).token]++;
    }
    draws = (draws + MAX_ROWS - 1) / MAX_ROWS * MAX_ROWS;
    for (uint32_t i = 0; i < vocab; i++) {
        double expected = p[i] * draws, off = count[i] - expected;
        CHECK(p[i] > 0.0 || count[i] == 0, "token %u was drawn %u times, though it is cut off", i, count[i]);
        if (expected < 10.0) {
            rest += expected;
            rest_count += count[i];
        } else {
            chi += off * off / expected;
            bins++;
        }
    }
    if (rest > 5.0) {
        chi += (rest_count - rest) * (rest_count - rest) / rest;
        bins++;
    }
    free(count);
    CHECK(bins < 2 || chi < bins + 5.0 * sqrt(2.0 * bins) + 10.0, "chi-square %.1f over %u bins (temperature %g, top_p "
          "%g, top_k %d, min_p %g)", chi, bins, (double)like->sampling.temperature, (double)like->sampling.top_p,
          like->sampling.top_k, (double)like->sampling.min_p);
}

static void draws_from_the_distribution_that_was_asked_for(struct subject *s)
{
    struct dice d = { .seed = 7 };
    double *p = calloc(MAX_VOCAB, sizeof *p);
    struct lathe_sampling first;
    int cuts = subject_set(s, "top_p", "1.0"), checked = 0;

    for (int k = 0; k < 60; k++) {
        struct lathe_sample_row row = { .request = 9000 + (uint64_t)k };
        open_sampler(s, k % 10 == 9 ? MAX_VOCAB : 40);
        if (greedy) {
            close_sampler();
            free(p);
            return;
        }
        first = wishes;
        random_logits(&d, 1, k % 3 == 0 ? 1 : 4);
        row.sampling = first;
        row.sampling.seed = (uint64_t)k << 33 | 5;
        row.sampling.temperature = (float)(0.3 + 1.5 * unit(&d));
        if (cuts) {
            row.sampling.top_k = k % 2 ? (int32_t)(1 + roll(&d, 30)) : 0;
            row.sampling.top_p = k % 3 ? (float)(0.3 + 0.69 * unit(&d)) : 1.0f;
            row.sampling.min_p = k % 4 == 1 ? (float)(0.3 * unit(&d)) : 0.0f;
            if (k % 5 == 2) {
                row.history_count = HISTORY;
                row.prompt_count = 5;
                for (uint32_t h = 0; h < HISTORY; h++)
                    history[h] = (int32_t)roll(&d, 10);
                row.sampling.repetition_penalty = 1.4f;
                row.sampling.presence_penalty = 0.5f;
                row.sampling.frequency_penalty = -0.3f;
            }
        }
        if (naive_distribution(&row, p)) {
            check_draws(&row, p, vocab > 1000 ? 2000 : 4000);
            checked++;
        }
        close_sampler();
    }
    CHECK(checked >= 45, "only %d of 60 cases could be told apart", checked);
    free(p);
}

static void refuses_wishes_out_of_range(struct subject *s)
{
    struct lathe_error err = { 0 };
    open_sampler(s, 30);
    for (int k = 0; k < 8 && subject_set(s, "top_p", "1.0"); k++) { /* those that know these wishes */
        message_of(1);
        struct lathe_sampling *w = &rows[0].sampling;
        if (k == 0) w->temperature = NAN;
        if (k == 1) w->temperature = -1.0f;
        if (k == 2) w->top_p = 0.0f;
        if (k == 3) w->min_p = 1.0f;
        if (k == 4) w->top_k = -1;
        if (k == 5) w->repetition_penalty = 0.0f;
        if (k == 6) w->presence_penalty = 3.0f;
        if (k == 7) { /* an id that isn't in the vocabulary */
            w->frequency_penalty = 1.0f;
            rows[0].history_count = 1;
            history[0] = 30;
            CHECK_FAILS(sample(&err), LATHE_ERANGE, &err);
            continue;
        }
        CHECK_FAILS(sample(&err), LATHE_EINVAL, &err);
    }
    close_sampler();
}

static int life(struct subject *s, struct lathe_error *err)
{
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status != LATHE_OK)
        return status;
    vocab = 50;
    if ((status = api->defaults(self, &wishes, err)) == LATHE_OK && (status = api->bind(self, vocab, err)) == LATHE_OK) {
        logits = calloc(vocab, sizeof *logits);
        sampler = self;
        message_of(1);
        status = sample(err);
        free(logits);
    }
    api->destroy(self);
    return status;
}

int main(int argc, char **argv)
{
#define BEHAVIOUR(name) { #name, name }
    static const struct behaviour behaviours[] = {
        BEHAVIOUR(gives_the_models_log_probability),
        BEHAVIOUR(takes_the_lowest_id_of_equal_logits_at_temperature_0),
        BEHAVIOUR(draws_the_same_alone_and_in_a_batch),
        BEHAVIOUR(never_takes_a_banned_or_impossible_token),
        BEHAVIOUR(refuses_rows_that_are_no_distribution),
        BEHAVIOUR(refuses_messages_that_point_outside),
        BEHAVIOUR(draws_from_the_distribution_that_was_asked_for),
        BEHAVIOUR(refuses_wishes_out_of_range),
    };
    return conformance(argc, argv, LATHE_KIND_SAMPLER, LATHE_SAMPLER_ABI, sizeof(struct lathe_sampler_api), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

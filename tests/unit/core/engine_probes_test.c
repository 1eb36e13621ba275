/* SPDX-License-Identifier: MIT */
/* Probes, interventions and given answers: what stands in each forward's message, and what becomes rows. A fake
 * model in front of model/tiny remembers the messages and writes records. */
#include "engine_fixture.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include <sqlite3.h>

enum { MESSAGES = 64, BATCH = 8, PROBES = LATHE_MAX_PROBES };

static struct {
    const struct lathe_model_api *tiny;
    const struct lathe_sampler_api *greedy;
    struct lathe_model_api model;
    struct lathe_sampler_api sampler;
    bool disobeys;      /* the sampler takes no given tokens */
    bool fakes;         /* forward is ours, not tiny's */
    uint32_t formats, kinds;
    struct seen {
        struct lathe_slice slices[BATCH];
        uint64_t slice_count, probe_count, intervention_count;
        struct lathe_probe probes[4 * PROBES];
        struct lathe_intervention interventions[LATHE_MAX_INTERVENTIONS];
        float floats[256];
        int32_t keys[64];
        size_t room;
    } seen[MESSAGES];
    uint32_t messages;
    char path[64];
    struct recorder *recorder;
    struct recorder_run *run;
} fake;

static int describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    int status = fake.tiny->describe(self, in, out, err);
    struct lathe_model_info *info = out;
    info->probe_formats = fake.formats;
    info->interventions = fake.kinds;
    return status;
}

static int forward(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_forward_in *in = in_;
    struct lathe_forward_out *out = out_;
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    struct seen *s = &fake.seen[fake.messages++];
    assert_true(fake.messages < MESSAGES && in->slices.count <= BATCH && in->probes.count <= 4 * PROBES);
    s->slice_count = in->slices.count;
    s->probe_count = in->probes.count;
    s->intervention_count = in->interventions.count;
    s->room = out->attention.bytes;
    memcpy(s->slices, slices, s->slice_count * sizeof *slices);
    memcpy(s->probes, LATHE_SPAN(const struct lathe_probe, in, in->probes), s->probe_count * sizeof *s->probes);
    memcpy(s->interventions, LATHE_SPAN(const struct lathe_intervention, in, in->interventions),
           s->intervention_count * sizeof *s->interventions);
    memcpy(s->floats, LATHE_SPAN(const float, in, in->intervention_floats), in->intervention_floats.count * sizeof(float));
    memcpy(s->keys, LATHE_SPAN(const int32_t, in, in->intervention_keys), in->intervention_keys.count * sizeof(int32_t));
    if (!fake.fakes)
        return fake.tiny->forward(self, in_, out_, err);
    float *logits = LATHE_REGION(float, out, out->logits);
    unsigned char *at = LATHE_REGION(unsigned char, out, out->attention);
    for (uint64_t i = 0; i < s->slice_count; i++) {
        for (uint32_t r = 0; r < slices[i].output_count; r++, logits += 260) {
            memset(logits, 0, 260 * sizeof *logits);
            out->logits_rows++;
        }
        if (slices[i].probe == LATHE_NO_PROBE)
            continue;
        for (uint32_t r = 0; r < slices[i].token_count; r++)
            for (uint32_t p = 0; p < slices[i].probe_count; p++) {
                const struct lathe_probe *probe = &s->probes[slices[i].probe + p];
                int32_t position = slices[i].first_position + (int32_t)r;
                if (!lathe_probe_wants(probe, position))
                    continue;
                struct lathe_attention_row row = { .bytes = lathe_attention_row_bytes(probe, (uint32_t)position + 1),
                                                   .request = slices[i].request, .position = position, .probe = probe->id,
                                                   .keys = (uint32_t)position + 1 };
                assert_true(out->attention_bytes + row.bytes <= out->attention.bytes);
                memset(at, (int)probe->id, row.bytes);
                memcpy(at, &row, sizeof row);
                at += row.bytes;
                out->attention_bytes += row.bytes;
            }
    }
    assert_int_equal(out->attention_bytes, out->attention.bytes); /* the room is what was wanted */
    return LATHE_OK;
}

static int sample(void *self, const void *in, void *out, struct lathe_error *err)
{
    int status = fake.greedy->sample(self, in, out, err);
    struct lathe_sample_out *reply = out;
    if (fake.disobeys && reply->sampled.count)
        LATHE_SPAN(struct lathe_sampled, reply, reply->sampled)->token ^= 1;
    return status;
}

static void dress(struct engine_parts *parts)
{
    fake.tiny = parts->model->api;
    fake.model = *fake.tiny;
    fake.model.describe = describe;
    fake.model.forward = forward;
    parts->model->api = &fake.model;
    fake.greedy = parts->sampler->api;
    fake.sampler = *fake.greedy;
    fake.sampler.sample = sample;
    parts->sampler->api = &fake.sampler;
}

static void begin(bool record)
{
    struct lathe_error err;
    memset(&fake, 0, sizeof fake);
    fake.fakes = true;
    fake.formats = (1u << LATHE_PROBE_FORMATS) - 2;
    fake.kinds = (1u << LATHE_INTERVENTION_KINDS) - 2;
    if (!record)
        return;
    snprintf(fake.path, sizeof fake.path, "engine_probes_test.%d.db", (int)getpid());
    struct recorder_params params = { .path = fake.path };
    struct run_info info = { .label = "probed", .seed_index = -1, .dirty = -1, .clock = "real" };
    if (recorder_open(&params, &fake.recorder, &err) || recorder_run_begin(fake.recorder, &info, &fake.run, &err))
        fail_msg("%s", err.message);
}

static void open_fake(struct fixture *f, struct engine_params engine)
{
    engine.run = fake.run;
    engine.batch_requests = engine.batch_requests ? engine.batch_requests : BATCH / 2;
    fixture_open(f, (struct fixture_params){ .engine = engine, .dress = dress });
}

/* The run's answer to a question that gives one text. */
static void expect_rows(const char *sql, const char *expected)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open(fake.path, &db), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(stmt, 0), expected);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

static void end(struct fixture *f)
{
    struct lathe_error err;
    char path[96];
    fixture_close(f);
    if (!fake.run)
        return;
    if (recorder_run_end(fake.run, "done", &err) || recorder_close(fake.recorder, &err))
        fail_msg("%s", err.message);
    static const char *const suffixes[] = { "", "-wal", "-shm", "-lock" };
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", fake.path, suffixes[i]);
        unlink(path);
    }
}

static void flush(void)
{
    struct lathe_error err;
    assert_int_equal(recorder_flush(fake.recorder, &err), LATHE_OK);
}

static void drive_all(struct fixture *f, struct planned_request *requests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        requests[i].submit.text = "abcdef";
        requests[i].submit.text_bytes = 4;
        if (!requests[i].submit.forced_output_tokens)
            requests[i].submit.forced_output_tokens = 3;
    }
    fixture_drive(f, requests, count, 0);
}

static struct lathe_probe probe(uint32_t id, uint32_t format)
{
    return (struct lathe_probe){ .id = id, .format = format, .top_k = 2, .recent_window = 4, .last_position = -1, .every = 1,
                                 .layers = { 3 }, .heads = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX } };
}

/* ── probes ─────────────────────────────────────────────────────────────────────────── */

static void each_slice_names_its_request_s_probes(void **state)
{
    struct fixture f;
    struct lathe_probe probes[PROBES];
    struct planned_request r[4] = { 0 };
    (void)state;
    begin(true);
    for (uint32_t i = 0; i < PROBES; i++)
        probes[i] = probe(i + 1, 1 + i % (LATHE_PROBE_FORMATS - 1));
    for (uint32_t i = 0; i < PROBES; i++) /* width and masks as the engine makes them */
        for (int k = 1; k < 4; k++)
            probes[i].layers[k] = 0;
    struct lathe_error err;
    open_fake(&f, (struct engine_params){ .probes = probes, .probe_count = PROBES });
    for (uint32_t i = 0; i < PROBES; i++) {
        probes[i].width = engine_model_info(f.engine)->embedding_width;
        memset(probes[i].heads, 0, sizeof probes[i].heads);
        probes[i].heads[0] = 3;
        assert_int_equal(recorder_probe(fake.run, &probes[i], &err), LATHE_OK);
    }
    r[0].submit.probes = UINT32_MAX;
    r[1].submit.probes = 0x0e;                /* a run */
    r[2].submit.probes = 0x80000005;          /* none */
    drive_all(&f, r, 4);
    const struct seen *s = &fake.seen[0];
    assert_int_equal(s->slice_count, 4);
    assert_int_equal(s->probe_count, PROBES + 3);
    assert_int_equal(s->slices[0].probe, 0);
    assert_int_equal(s->slices[0].probe_count, 32);
    assert_int_equal(s->slices[1].probe, 1);
    assert_int_equal(s->slices[1].probe_count, 3);
    assert_int_equal(s->slices[2].probe, 32);
    assert_int_equal(s->slices[2].probe_count, 3);
    assert_int_equal(s->probes[32].id, 1);
    assert_int_equal(s->probes[33].id, 3);
    assert_int_equal(s->probes[34].id, 32);
    assert_int_equal(s->slices[3].probe, LATHE_NO_PROBE);
    assert_int_equal(s->probes[31].width, probes[31].width);
    flush();
    /* positions 0 … 5 of each: 4 of a prompt, and 2 that were put in again */
    expect_rows("select group_concat(n, ' ') from (select request_id, count(*) as n from (select request_id from attention_token"
                " union all select request_id from layer_token) group by request_id order by request_id)", "192 18 18");
    expect_rows("select group_concat(format || ' ' || n, ', ') from (select p.format, count(*) as n from layer_token t"
                " join layer_probe p on p.id = t.probe_id where request_id = 1 and position = 5 group by p.format order by 1)",
                "hidden 4, lens 4, norms 4");
    expect_rows("select group_concat(distinct format || ' ' || measure) from (select format, measure from probe order by id)",
                "summary weight,top weight,full weight,full score,full value");
    char expected[32];
    snprintf(expected, sizeof expected, "30 %u", 2 * 4 * probes[0].width);
    expect_rows("select count(*) || ' ' || min(length(data)) from layer_token t join layer_probe p on p.id = t.probe_id"
                " where format = 'hidden' and length(data) = 2 * 4 * p.width and hex(substr(data, 1, 1)) = printf('%02X', p.id)",
                expected);
    expect_rows("select count(*) from attention_token where probe_id = 4 and length(data) <> 2 * 2 * 2 * keys", "0");
    fixture_free(r, 4);
    end(&f);
}

static void expect_no_engine(struct engine_params engine, const char *sentence)
{
    struct fixture f;
    fixture_open(&f, (struct fixture_params){ .engine = engine, .dress = dress, .refusal = sentence });
    fixture_close(&f);
}

static void probes_that_can_t_be_served_are_refused(void **state)
{
    struct lathe_probe p = probe(1, LATHE_PROBE_LENS), many[PROBES + 1];
    (void)state;
    begin(false);
    fake.formats &= ~(1u << LATHE_PROBE_LENS);
    expect_no_engine((struct engine_params){ .probes = &p, .probe_count = 1 }, "no attention to show in format 7");
    fake.formats |= 1u << LATHE_PROBE_LENS;
    p.top_k = 0;
    expect_no_engine((struct engine_params){ .probes = &p, .probe_count = 1 }, "top_k 1 … 1024");
    p.top_k = 1000;
    expect_no_engine((struct engine_params){ .probes = &p, .probe_count = 1 }, "1000 likeliest tokens of a vocabulary of 260");
    p = probe(1, LATHE_PROBE_FORMATS);
    expect_no_engine((struct engine_params){ .probes = &p, .probe_count = 1 }, "in format 9");
    for (int i = 0; i <= PROBES; i++)
        many[i] = probe((uint32_t)i + 1, LATHE_PROBE_SUMMARY);
    expect_no_engine((struct engine_params){ .probes = many, .probe_count = PROBES + 1 }, "at most 32 probes");
}

/* ── interventions ──────────────────────────────────────────────────────────────────── */

static const float values[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 };
static const int32_t keys[] = { 0, 2, 5 };

static void a_message_has_the_interventions_that_hold(void **state)
{
    struct fixture f;
    struct planned_request r[2] = { 0 };
    (void)state;
    begin(false);
    struct lathe_intervention v[] = {
        { .kind = LATHE_HEAD_SCALE, .factor = 0.5f, .last_position = 2, .layers = { 1 }, .heads = { 1 } },
        { .kind = LATHE_KEYS_DROP, .first_position = 5, .last_position = -1, .key_first = 1, .key_count = 2, .layers = { 3 }, .heads = { 3 } },
        { .kind = LATHE_HEAD_SET, .first_position = 4, .last_position = 4, .float_first = 2, .layers = { 2 }, .heads = { 2 } },
        { .kind = LATHE_MLP_SCALE, .factor = 2, .first_position = 100, .last_position = -1, .layers = { 1 } },
    };
    uint32_t width = 0;
    open_fake(&f, (struct engine_params){ 0 });
    width = engine_model_info(f.engine)->head_width;
    fixture_close(&f);
    assert_true(width <= 16);
    v[2].float_count = width;
    open_fake(&f, (struct engine_params){ .interventions = v, .intervention_count = 4, .intervention_floats = values,
                                          .intervention_float_count = 20, .intervention_keys = keys, .intervention_key_count = 3 });
    r[0].submit.interventions = 15;
    r[1].submit.interventions = 4;
    fake.messages = 0;
    drive_all(&f, r, 2); /* prompts of 4: steps have positions 0 … 3, 4, 5 */
    fixture_free(r, 2);
    const struct seen *s = fake.seen;
    assert_int_equal(s[0].intervention_count, 1);
    assert_int_equal(s[0].interventions[0].kind, LATHE_HEAD_SCALE);
    assert_int_equal(s[0].slices[0].interventions, 1);
    assert_int_equal(s[0].slices[1].interventions, 0);
    assert_int_equal(s[1].intervention_count, 1);
    assert_int_equal(s[1].interventions[0].kind, LATHE_HEAD_SET);
    assert_int_equal(s[1].interventions[0].float_first, 0);
    assert_true(s[1].floats[0] == 3.0f && s[1].floats[width - 1] == (float)(width + 2));
    assert_int_equal(s[1].slices[0].interventions, 1);
    assert_int_equal(s[1].slices[1].interventions, 1);
    assert_int_equal(s[2].intervention_count, 1);
    assert_int_equal(s[2].interventions[0].kind, LATHE_KEYS_DROP);
    assert_int_equal(s[2].interventions[0].key_first, 0);
    assert_memory_equal(s[2].keys, ((int32_t[]){ 2, 5 }), 8);
    assert_int_equal(s[2].slices[0].interventions, 1);
    assert_int_equal(s[2].slices[1].interventions, 0);
    end(&f);
}

static void bits_are_those_of_the_message(void **state)
{
    struct fixture f;
    struct planned_request r[2] = { 0 };
    (void)state;
    begin(false);
    struct lathe_intervention v[LATHE_MAX_INTERVENTIONS];
    for (uint32_t i = 0; i < LATHE_MAX_INTERVENTIONS; i++)
        v[i] = (struct lathe_intervention){ .kind = LATHE_MLP_SCALE, .factor = (float)i, .last_position = -1, .layers = { 1 } };
    open_fake(&f, (struct engine_params){ .interventions = v, .intervention_count = LATHE_MAX_INTERVENTIONS });
    r[0].submit.interventions = UINT64_C(1) << 63 | 8;
    r[1].submit.interventions = UINT64_C(1) << 62 | 8 | 1;
    drive_all(&f, r, 2);
    fixture_free(r, 2);
    const struct seen *s = &fake.seen[0];
    assert_int_equal(s->intervention_count, 4); /* 0, 3, 62, 63 */
    assert_true(s->interventions[3].factor == 63.0f && s->interventions[1].factor == 3.0f);
    assert_int_equal(s->slices[0].interventions, 1 << 1 | 1 << 3);
    assert_int_equal(s->slices[1].interventions, 1 << 0 | 1 << 1 | 1 << 2);
    end(&f);
}

static void interventions_that_can_t_be_are_refused(void **state)
{
    static const struct lathe_intervention good = { .kind = LATHE_HEAD_SCALE, .last_position = -1, .layers = { 1 }, .heads = { 1 } };
    struct lathe_intervention v;
    struct engine_params params = { .interventions = &v, .intervention_count = 1, .intervention_floats = values,
                                    .intervention_float_count = 20, .intervention_keys = keys, .intervention_key_count = 3 };
    static const int32_t falling[] = { 3, 3 };
    (void)state;
    begin(false);
#define REFUSED(change, sentence) v = good, change, expect_no_engine(params, sentence)
    REFUSED(v.kind = 0, "interventions of kind 0");
    REFUSED(v.kind = 9, "interventions of kind 9");
    REFUSED(v.layers[0] = 4, "names no layer or head");
    REFUSED(v.heads[0] = 4, "names no layer or head");
    REFUSED(v.factor = INFINITY, "factor of intervention 1 is not finite");
    REFUSED(v.first_position = -1, "positions -1 to -1");
    REFUSED((v.first_position = 3, v.last_position = 2), "positions 3 to 2");
    REFUSED(v.kind = LATHE_PATCH, "positions 0 to -1");
    REFUSED(v.float_count = 1, "has 1 values, it takes 0");
    REFUSED(v.kind = LATHE_HEAD_SET, "has 0 values, it takes");
    REFUSED(v.key_count = 1, "has 1 keys, it takes none");
    REFUSED((v.kind = LATHE_KEYS_DROP, v.key_first = 1, v.key_count = 3), "has 3 keys");
    params.intervention_keys = falling, params.intervention_key_count = 2;
    REFUSED((v.kind = LATHE_KEYS_KEEP, v.key_count = 2), "positions from 0, ascending");
    fake.kinds &= ~(1u << LATHE_HEAD_SCALE);
    REFUSED((void)0, "can't carry out interventions of kind 1");
#undef REFUSED
}

/* ── given answers ──────────────────────────────────────────────────────────────────── */

static void a_given_answer_comes_out_and_is_scored(void **state)
{
    static const int32_t given[] = { 11, 257, 13, 14 }; /* 257 ends a text: not this one */
    struct fixture f;
    struct planned_request r[2] = { 0 };
    char expected[64];
    double sum = 0;
    (void)state;
    begin(true);
    fake.fakes = false;
    open_fake(&f, (struct engine_params){ 0 });
    r[0].submit = (struct engine_submit){ .forced_tokens = given, .forced_output_tokens = 4 };
    drive_all(&f, r, 2);
    assert_int_equal(r[0].output_count, 4);
    assert_memory_equal(r[0].output, given, sizeof given);
    for (int i = 0; i < 4; i++) {
        assert_true(r[0].logprobs[i] < 0);
        sum -= (double)r[0].logprobs[i];
    }
    flush();
    snprintf(expected, sizeof expected, "1 nll %.4f 4", sum);
    expect_rows("select group_concat(request_id || ' ' || name || ' ' || printf('%.4f', value) || ' ' || n) from score", expected);
    snprintf(expected, sizeof expected, "%.4f", sum);
    expect_rows("select printf('%.4f', -sum(logprob)) from token where request_id = 1", expected);
    fixture_free(r, 2);
    end(&f);
}

/* What a free run came to, given to another: the same log-probabilities, also when it is preempted. */
static void a_given_answer_is_as_likely_as_when_it_was_free(void **state)
{
    struct fixture f;
    struct planned_request r[3] = { 0 }, again[3] = { 0 };
    struct engine_stats stats;
    (void)state;
    begin(false);
    fake.fakes = false;
    open_fake(&f, (struct engine_params){ 0 });
    for (int i = 0; i < 3; i++)
        r[i].submit.forced_output_tokens = 12;
    drive_all(&f, r, 3);
    fixture_close(&f);
    fake.messages = 0;
    fixture_open(&f, (struct fixture_params){ .kvcache = { { "block_tokens", "4" }, { "blocks", "9" } } });
    for (int i = 0; i < 3; i++)
        again[i].submit = (struct engine_submit){ .forced_tokens = r[i].output, .forced_output_tokens = 12 };
    drive_all(&f, again, 3);
    engine_get_stats(f.engine, &stats);
    assert_true(stats.preemptions > 0);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(again[i].output, r[i].output, 12 * sizeof(int32_t));
        assert_memory_equal(again[i].logprobs, r[i].logprobs, 12 * sizeof(float));
    }
    fixture_free(r, 3);
    fixture_free(again, 3);
    fixture_close(&f);
}

static void a_sampler_that_takes_no_given_tokens_is_found_out(void **state)
{
    static const int32_t given[] = { 11, 12 };
    struct fixture f;
    struct planned_request r[1] = { 0 };
    (void)state;
    begin(false);
    fake.disobeys = true;
    open_fake(&f, (struct engine_params){ 0 });
    r[0].submit = (struct engine_submit){ .forced_tokens = given, .forced_output_tokens = 2 };
    drive_all(&f, r, 1);
    assert_int_equal(r[0].finish_reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(r[0].error, "chose token 10 although token 11 was given"));
    fixture_free(r, 1);
    end(&f);
}

static void answers_that_can_t_be_given_are_refused(void **state)
{
    static const int32_t beyond[] = { 260 }, one[] = { 1 };
    struct fixture f;
    struct lathe_error err;
    uint64_t id;
    struct engine_submit submit = { .text = "abc", .text_bytes = 3, .forced_tokens = beyond, .forced_output_tokens = 1 };
    (void)state;
    begin(false);
    open_fake(&f, (struct engine_params){ 0 });
    assert_int_equal(engine_submit(f.engine, &submit, &id, &err), LATHE_ERANGE);
    assert_non_null(strstr(err.message, "token id 260 of the answer"));
    submit.forced_tokens = one;
    submit.forced_output_tokens = 0;
    assert_int_equal(engine_submit(f.engine, &submit, &id, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "give at least one token"));
    submit.forced_output_tokens = 1;
    submit.probes = 1;
    assert_int_equal(engine_submit(f.engine, &submit, &id, &err), LATHE_EINVAL);
    submit.probes = 0;
    submit.interventions = 1;
    assert_int_equal(engine_submit(f.engine, &submit, &id, &err), LATHE_EINVAL);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_slice_names_its_request_s_probes),
        cmocka_unit_test(probes_that_can_t_be_served_are_refused),
        cmocka_unit_test(a_message_has_the_interventions_that_hold),
        cmocka_unit_test(bits_are_those_of_the_message),
        cmocka_unit_test(interventions_that_can_t_be_are_refused),
        cmocka_unit_test(a_given_answer_comes_out_and_is_scored),
        cmocka_unit_test(a_given_answer_is_as_likely_as_when_it_was_free),
        cmocka_unit_test(a_sampler_that_takes_no_given_tokens_is_found_out),
        cmocka_unit_test(answers_that_can_t_be_given_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

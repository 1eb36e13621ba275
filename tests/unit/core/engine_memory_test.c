/* SPDX-License-Identifier: MIT */
/* What a kvcache may ask of the engine: scopes, kept positions, masses, dtypes, cache positions, refusal. A fake
 * table in front of kvcache/paged keeps lists, one in front of model/tiny remembers each message and tells masses. */
#include "engine_fixture.h"

#include <stdio.h>

#include <lathe/kvcache.h>

enum { LAYERS = 2, KV_HEADS = 1, SETS_MOST = 8, MESSAGES = 64, BATCH = 8 };

static struct {
    const struct lathe_kvcache_api *paged;
    const struct lathe_model_api *tiny;
    struct lathe_kvcache_api kvcache;
    struct lathe_model_api model;

    /* What the kvcache asks for. */
    struct lathe_kv_geometry wish;
    uint32_t last;            /* keeps the newest so many, in each set other ones of those; 0: all */
    uint32_t listed;          /* or says that so many are kept, whatever there is */
    int choice;               /* of preempt_choice */
    struct lathe_kv_demand demand;
    int32_t positions[256][SETS_MOST * 64]; /* a request's own: valid until the next call for it */
    uint32_t filled[256];
    char order[4096];         /* o: observe, f: filled */
    uint32_t observed, sets;

    /* What the model was told. */
    uint32_t kv_dtypes, key_mass;
    struct lathe_context_params context;
    struct lathe_slice slices[MESSAGES][BATCH];
    uint32_t slice_count[MESSAGES];
    int32_t kept[MESSAGES][4096];
    uint32_t kept_count[MESSAGES];
    uint32_t messages;
    int mass_error;
} fake;

/* ── kvcache ────────────────────────────────────────────────────────────────────────── */

static int layout(void *self, const struct lathe_kv_demand *demand, struct lathe_kv_geometry *geometry, struct lathe_error *err)
{
    fake.demand = *demand;
    int status = fake.paged->layout(self, demand, geometry, err);
    if (status != LATHE_OK)
        return status;
    assert_int_equal(geometry->kv_flags | geometry->kv_scope | geometry->cache_positions | geometry->wants_mass, 0);
    geometry->kv_flags = fake.wish.kv_flags;
    geometry->kv_scope = fake.wish.kv_scope;
    geometry->cache_positions = fake.wish.cache_positions;
    geometry->wants_mass = fake.wish.wants_mass;
    if (fake.wish.kv_dtype)
        geometry->kv_dtype = fake.wish.kv_dtype;
    fake.sets = lathe_kv_sets(geometry->kv_scope, LAYERS, KV_HEADS);
    return LATHE_OK;
}

/* In set s the position before the window's is kept instead of its first, but for set 0: sets differ. */
static void kept(void *self, const struct lathe_request *req, const int32_t **positions, uint32_t *count)
{
    uint32_t filled = fake.filled[req->index], last = fake.listed ? fake.listed : fake.last;
    (void)self;
    int32_t *list = fake.positions[req->index];
    *positions = list;
    *count = 0;
    if (!last || (!fake.listed && filled <= last))
        return;
    *count = last;
    for (uint32_t s = 0; s < fake.sets; s++)
        for (uint32_t i = 0; i < last; i++)
            list[s * last + i] = (int32_t)(fake.listed ? i : filled - last + i - (i == 0 && s > 0 ? 1 : 0));
}

static void filled(void *self, const struct lathe_request *req, uint32_t tokens)
{
    fake.filled[req->index] = tokens;
    strcat(fake.order, "f");
    fake.paged->filled(self, req, tokens);
}

static void released(void *self, const struct lathe_request *req)
{
    fake.filled[req->index] = 0;
    fake.paged->release(self, req);
}

static void observe(void *self, const struct lathe_request *req, const float *mass, uint32_t keys)
{
    uint32_t now = fake.filled[req->index], message = fake.messages - 1;
    (void)self;
    strcat(fake.order, "o");
    fake.observed++;
    for (uint32_t i = 0; i < fake.slice_count[message]; i++) {
        const struct lathe_slice *slice = &fake.slices[message][i];
        if (slice->request != req->id)
            continue;
        uint32_t before = slice->kept_count ? slice->kept_count : (uint32_t)slice->first_position;
        assert_int_equal(slice->first_position, now);
        assert_int_equal(keys, before + slice->token_count);
        for (uint32_t s = 0; s < fake.sets; s++)
            for (uint32_t k = 0; k < keys; k++) /* as the model wrote it */
                assert_true(mass[s * keys + k] == (float)(1000 * req->id + 100 * s + k));
        return;
    }
    fail_msg("request %u had no slice", (unsigned)req->id);
}

static int choice(void *self, const struct lathe_request *req)
{
    (void)self, (void)req;
    return fake.choice;
}

/* ── model ──────────────────────────────────────────────────────────────────────────── */

static int describe(void *self, const void *in, void *out, struct lathe_error *err)
{
    int status = fake.tiny->describe(self, in, out, err);
    struct lathe_model_info *info = out;
    info->kv_dtypes = fake.kv_dtypes;
    assert_int_equal(info->layers, LAYERS);
    assert_int_equal(info->kv_heads, KV_HEADS);
    return status;
}

static const void *get_extension(void *self, const char *id)
{
    static const struct lathe_model_ability ability = { sizeof ability };
    (void)self;
    return fake.key_mass && !strcmp(id, LATHE_MODEL_KEY_MASS) ? &ability : NULL;
}

static int context_create(void *self, const struct lathe_context_params *params, void **context, struct lathe_error *err)
{
    struct lathe_context_params plain = *params;
    fake.context = *params;
    plain.kv_flags = 0, plain.kv_scope = 0, plain.kv_dtype = LATHE_F32;
    return fake.tiny->context_create(self, &plain, context, err);
}

/* Every row's logits say token 7. */
static int forward(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct lathe_forward_in *in = in_;
    struct lathe_forward_out *out = out_;
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    float *logits = LATHE_REGION(float, out, out->logits), *mass = LATHE_REGION(float, out, out->masses);
    uint32_t m = fake.messages++;
    (void)self, (void)err;
    assert_true(m < MESSAGES && in->slices.count <= BATCH && in->kept.count <= 4096);
    memcpy(fake.slices[m], slices, in->slices.count * sizeof *slices);
    fake.slice_count[m] = (uint32_t)in->slices.count;
    if (in->kept.count)
        memcpy(fake.kept[m], LATHE_SPAN(const int32_t, in, in->kept), in->kept.count * sizeof(int32_t));
    fake.kept_count[m] = (uint32_t)in->kept.count;
    for (uint64_t i = 0; i < in->slices.count; i++) {
        for (uint32_t r = 0; r < slices[i].output_count; r++, logits += 260) {
            for (int t = 0; t < 260; t++)
                logits[t] = t == 7 ? 1.0f : 0.0f;
            out->logits_rows++;
        }
        if (!(slices[i].flags & LATHE_SLICE_KEY_MASS))
            continue;
        uint32_t keys = (slices[i].kept_count ? slices[i].kept_count : (uint32_t)slices[i].first_position) + slices[i].token_count;
        assert_true(out->mass_bytes + fake.sets * keys * sizeof *mass <= out->masses.bytes);
        for (uint32_t s = 0; s < fake.sets; s++)
            for (uint32_t k = 0; k < keys; k++)
                *mass++ = (float)(1000 * slices[i].request + 100 * s + k);
        out->mass_bytes += fake.sets * keys * sizeof *mass;
    }
    out->mass_bytes -= fake.mass_error && out->mass_bytes ? 4 : 0;
    return LATHE_OK;
}

static void dress(struct engine_parts *parts)
{
    fake.paged = parts->kvcache->api;
    fake.kvcache = *fake.paged;
    fake.kvcache.layout = layout;
    fake.kvcache.kept = kept;
    fake.kvcache.filled = filled;
    fake.kvcache.release = released;
    fake.kvcache.observe = observe;
    fake.kvcache.preempt_choice = fake.choice ? choice : NULL;
    parts->kvcache->api = &fake.kvcache;
    fake.tiny = parts->model->api;
    fake.model = *fake.tiny;
    fake.model.describe = describe;
    fake.model.get_extension = get_extension;
    fake.model.context_create = context_create;
    fake.model.forward = forward;
    parts->model->api = &fake.model;
}

static void open_fake(struct fixture *f, struct fixture_params p)
{
    p.dress = dress;
    p.engine.batch_requests = BATCH / 2;
    if (!p.engine.context_tokens)
        p.engine.context_tokens = 64;
    if (!p.kvcache[0].name) {
        p.kvcache[0] = (struct option_setting){ "block_tokens", "4" };
        p.kvcache[1] = (struct option_setting){ "blocks", "64" };
    }
    fixture_open(f, p);
}

static void clear(void)
{
    memset(&fake, 0, sizeof fake);
    fake.kv_dtypes = 1u << LATHE_F32 | 1u << LATHE_F16;
    fake.key_mass = 1;
    fake.sets = 1;
}

static void drive_two(struct fixture *f, struct planned_request requests[2], uint32_t outputs)
{
    memset(requests, 0, 2 * sizeof *requests);
    for (int i = 0; i < 2; i++)
        requests[i].submit = (struct engine_submit){ .text = "abcdef", .text_bytes = (uint64_t)(i ? 4 : 6),
                                                     .forced_output_tokens = outputs };
    fixture_drive(f, requests, 2, 0);
}

/* ── tests ──────────────────────────────────────────────────────────────────────────── */

static void kept_positions_go_with_each_slice(void **state)
{
    struct fixture f;
    struct planned_request r[2];
    (void)state;
    clear();
    fake.last = 3;
    open_fake(&f, (struct fixture_params){ 0 });
    drive_two(&f, r, 3);
    fixture_free(r, 2);
    assert_int_equal(fake.messages, 3);
    assert_int_equal(fake.kept_count[0], 0); /* nothing filled yet: all */
    assert_int_equal(fake.kept_count[1], 6);
    assert_int_equal(fake.slices[1][0].first_position, 6);
    assert_int_equal(fake.slices[1][0].kept_count, 3);
    assert_memory_equal(fake.kept[1] + fake.slices[1][0].kept_first, ((int32_t[]){ 3, 4, 5 }), 12);
    assert_memory_equal(fake.kept[1] + fake.slices[1][1].kept_first, ((int32_t[]){ 1, 2, 3 }), 12);
    assert_memory_equal(fake.kept[2] + fake.slices[2][0].kept_first, ((int32_t[]){ 4, 5, 6 }), 12);
    assert_int_equal(fake.slices[1][0].flags, LATHE_SLICE_LOGITS);
    assert_string_equal(fake.order, "ffffff");
    fixture_close(&f);
}

static void sets_of_heads_and_masses_go_both_ways(void **state)
{
    struct fixture f;
    struct planned_request r[2];
    (void)state;
    clear();
    fake.last = 3;
    fake.wish = (struct lathe_kv_geometry){ .kv_scope = LATHE_KV_HEAD, .wants_mass = 1, .cache_positions = 1,
                                            .kv_flags = LATHE_KV_KEYS_UNROTATED, .kv_dtype = LATHE_F16 };
    open_fake(&f, (struct fixture_params){ 0 });
    assert_int_equal(fake.context.kv_scope, LATHE_KV_HEAD);
    assert_int_equal(fake.context.kv_flags, LATHE_KV_KEYS_UNROTATED);
    assert_int_equal(fake.context.kv_dtype, LATHE_F16);
    assert_int_equal(fake.demand.layers, LAYERS);
    assert_int_equal(fake.demand.kv_heads, KV_HEADS);
    assert_int_equal(fake.demand.key_mass, 1);
    assert_int_equal(fake.demand.unrotated, 1);
    assert_int_equal(fake.demand.kv_dtypes, fake.kv_dtypes);
    drive_two(&f, r, 3);
    fixture_free(r, 2);
    assert_int_equal(fake.kept_count[1], 2 * 2 * 3);
    assert_memory_equal(fake.kept[1] + fake.slices[1][0].kept_first, ((int32_t[]){ 3, 4, 5, 2, 4, 5 }), 24);
    assert_int_equal(fake.slices[1][0].kept_count, 3);
    assert_int_equal(fake.slices[0][0].flags, LATHE_SLICE_LOGITS | LATHE_SLICE_CACHE_POSITIONS | LATHE_SLICE_KEY_MASS);
    assert_int_equal(fake.observed, 6);
    assert_string_equal(fake.order, "ooffooffooff"); /* observe before filled */
    fixture_close(&f);
}

static void the_engine_s_dtype_is_the_geometry_s_unless_it_says(void **state)
{
    struct fixture f;
    (void)state;
    clear();
    open_fake(&f, (struct fixture_params){ .engine = { .kv_dtype = LATHE_F16 } });
    assert_int_equal(fake.context.kv_dtype, LATHE_F16);
    fixture_close(&f);
}

/* Lists that together are longer than the pool: a step has one of them, and everybody gets on. */
static void a_step_takes_as_many_lists_as_there_is_room_for(void **state)
{
    struct fixture f;
    struct planned_request r[2];
    (void)state;
    clear();
    fake.listed = 40;
    open_fake(&f, (struct fixture_params){ .kvcache = { { "block_tokens", "4" }, { "blocks", "15" } } }); /* 60 positions */
    drive_two(&f, r, 4);
    for (int i = 0; i < 2; i++)
        assert_int_equal(r[i].output_count, 4);
    fixture_free(r, 2);
    for (uint32_t m = 0; m < fake.messages; m++)
        assert_true(fake.kept_count[m] <= 60);
    assert_true(fake.messages >= 8);
    fixture_close(&f);
}

static void masses_of_another_size_fail_the_step_not_the_engine(void **state)
{
    struct fixture f;
    struct planned_request r[2];
    (void)state;
    clear();
    fake.wish.wants_mass = 1;
    fake.mass_error = 1;
    open_fake(&f, (struct fixture_params){ 0 });
    drive_two(&f, r, 2);
    assert_int_equal(r[0].finish_reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(r[0].error, "bytes of keys' masses"));
    fixture_free(r, 2);
    fake.mass_error = 0;
    drive_two(&f, r, 2);
    assert_int_equal(r[0].output_count, 2);
    fixture_free(r, 2);
    fixture_close(&f);
}

static void expect_refusal(struct lathe_kv_geometry wish, const char *sentence)
{
    struct fixture f;
    fake.wish = wish;
    open_fake(&f, (struct fixture_params){ .refusal = sentence });
    fixture_close(&f);
}

static void wishes_that_the_model_can_t_have_are_refused(void **state)
{
    (void)state;
    clear();
    expect_refusal((struct lathe_kv_geometry){ .kv_dtype = LATHE_Q8_0 }, "can't keep keys and values as");
    expect_refusal((struct lathe_kv_geometry){ .kv_scope = 3 }, "keeps positions by scope 3");
    expect_refusal((struct lathe_kv_geometry){ .cache_positions = 1 }, "cache positions without keys unrotated");
    fake.key_mass = 0;
    expect_refusal((struct lathe_kv_geometry){ .wants_mass = 1 }, "can't tell keys' masses");
    fake.kv_dtypes = 0;
    expect_refusal((struct lathe_kv_geometry){ .cache_positions = 1, .kv_flags = LATHE_KV_KEYS_UNROTATED },
                   "can't rotate keys when it reads them");
}

static void a_cache_that_refuses_ends_who_needs_more(void **state)
{
    struct fixture f;
    struct planned_request r[2];
    struct engine_stats stats;
    (void)state;
    clear();
    fake.choice = LATHE_KV_REFUSE;
    open_fake(&f, (struct fixture_params){ .kvcache = { { "block_tokens", "4" }, { "blocks", "6" } } });
    drive_two(&f, r, 14); /* 20 and 18 positions, of 24 */
    engine_get_stats(f.engine, &stats);
    assert_int_equal(stats.preemptions, 0);
    int failed = r[0].finish_reason == LATHE_FINISH_ERROR ? 0 : 1;
    assert_int_equal(r[failed].finish_reason, LATHE_FINISH_ERROR);
    assert_non_null(strstr(r[failed].error, "refuses who needs more"));
    assert_int_equal(r[1 - failed].finish_reason, LATHE_FINISH_LENGTH);
    assert_int_equal(r[1 - failed].output_count, 14);
    assert_int_equal(stats.kv.used, 0);
    fixture_free(r, 2);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_positions_go_with_each_slice),
        cmocka_unit_test(sets_of_heads_and_masses_go_both_ways),
        cmocka_unit_test(the_engine_s_dtype_is_the_geometry_s_unless_it_says),
        cmocka_unit_test(a_step_takes_as_many_lists_as_there_is_room_for),
        cmocka_unit_test(masses_of_another_size_fail_the_step_not_the_engine),
        cmocka_unit_test(wishes_that_the_model_can_t_have_are_refused),
        cmocka_unit_test(a_cache_that_refuses_ends_who_needs_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

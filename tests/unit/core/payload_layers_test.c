/* SPDX-License-Identifier: MIT */
/* Interventions in, layers' records and keys' masses out: a fake model says what it was asked for. */
#include "payload_fixture.h"

#include <jansson.h>

static struct lathe_forward_in *seen; /* a copy of the last message */

static int remember(void *self, const void *message, void *out_, struct lathe_error *err)
{
    const struct lathe_message *in = message;
    struct lathe_forward_out *out = out_;
    const struct lathe_forward_in *forward = message;
    const struct lathe_probe *probes = LATHE_SPAN(const struct lathe_probe, forward, forward->probes);
    const struct lathe_slice *slices = LATHE_SPAN(const struct lathe_slice, forward, forward->slices);
    unsigned char *at = LATHE_REGION(unsigned char, out, out->attention);
    float *mass = LATHE_REGION(float, out, out->masses);
    (void)self, (void)err;
    free(seen);
    seen = malloc(in->bytes);
    memcpy(seen, in, in->bytes);
    for (uint64_t s = 0; s < forward->slices.count; s++) {
        if (slices[s].probe != LATHE_NO_PROBE) {
            const struct lathe_probe *p = &probes[slices[s].probe];
            struct lathe_attention_row row = { .bytes = lathe_attention_row_bytes(p, 1), .request = slices[s].request,
                                               .probe = p->id, .keys = 1 };
            memset(at, 0, row.bytes);
            memcpy(at, &row, sizeof row);
            for (size_t i = 0; i < (row.bytes - sizeof row) / 4; i++) {
                float value = (float)i;
                int32_t token = (int32_t)i;
                memcpy(at + sizeof row + 4 * i, p->format == LATHE_PROBE_LENS && i % 2 == 0 ? (void *)&token : (void *)&value, 4);
            }
            at += row.bytes;
            out->attention_bytes += row.bytes;
        }
        if (slices[s].flags & LATHE_SLICE_KEY_MASS) /* two sets */
            for (uint32_t i = 0; i < 2 * (uint32_t)(slices[s].first_position + (int32_t)slices[s].token_count); i++) {
                mass[out->mass_bytes / sizeof *mass] = (float)i;
                out->mass_bytes += sizeof *mass;
            }
    }
    return LATHE_OK;
}

static int call_with(struct fixture *f, lathe_method *method, const char *json, struct text *reply, struct lathe_error *err)
{
    struct lathe_endpoint endpoint = { .call = method, .name = "fake" };
    struct payload_call call = { .bus = f->bus, .bus_self = f->bus_self, .model = &f->info, .endpoint = &endpoint };
    struct payload_parts parts = { 0 };
    json_error_t why;
    json_t *value = json_loads(json, 0, &why);
    if (!value)
        fail_msg("%s: %s", json, why.text);
    assert_int_equal(payload_find("model", "forward", &call.what, err), LATHE_OK);
    int rc = payload_from_json(call.what, value, &f->info, &parts, err);
    json_decref(value);
    if (rc == LATHE_OK)
        rc = payload_call_run(&call, &parts, err);
    if (rc == LATHE_OK)
        rc = payload_to_json(&call, reply, err);
    payload_call_close(&call);
    payload_parts_free(&parts);
    return rc;
}

static void expect(struct fixture *f, const char *json, const char *part)
{
    struct text reply = { 0 };
    struct lathe_error err = { 0 };
    if (call_with(f, remember, json, &reply, &err) != LATHE_OK)
        fail_msg("%s: %s", json, err.message);
    if (!strstr(reply.bytes, part))
        fail_msg("%s has no %s", reply.bytes, part);
    text_free(&reply);
}

static void interventions_are_laid_out_flat(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f);
    expect(&f, "{\"interventions\":[{\"kind\":\"head_set\",\"layers\":[1],\"heads\":[0],\"values\":[0.5,-2]},"
               "{\"kind\":\"keys_drop\",\"keys\":[0,3],\"first_position\":2},{\"kind\":\"mlp_scale\",\"factor\":0.25}],"
               "\"slices\":[{\"tokens\":[1],\"blocks\":[0],\"interventions\":[0,2]},{\"tokens\":[1],\"blocks\":[1]},"
               "{\"tokens\":[1],\"blocks\":[2],\"interventions\":[]}]}", "\"logits\":[]");
    const struct lathe_intervention *v = LATHE_SPAN(const struct lathe_intervention, seen, seen->interventions);
    const struct lathe_slice *slice = LATHE_SPAN(const struct lathe_slice, seen, seen->slices);
    const float *values = LATHE_SPAN(const float, seen, seen->intervention_floats);
    const int32_t *keys = LATHE_SPAN(const int32_t, seen, seen->intervention_keys);
    assert_int_equal(seen->interventions.count, 3);
    assert_int_equal(v[0].kind, LATHE_HEAD_SET);
    assert_int_equal(v[0].layers[0], 2);
    assert_int_equal(v[0].heads[0], 1);
    assert_int_equal(v[0].float_count, 2);
    assert_int_equal(seen->intervention_floats.count, 2);
    assert_true(values[v[0].float_first] == 0.5f && values[v[0].float_first + 1] == -2.0f);
    assert_int_equal(v[1].kind, LATHE_KEYS_DROP);
    assert_int_equal(v[1].first_position, 2);
    assert_int_equal(v[1].last_position, -1);
    assert_int_equal(v[1].layers[0], (1 << f.info.layers) - 1);
    assert_int_equal(keys[v[1].key_first + 1], 3);
    assert_true(v[2].factor == 0.25f);
    assert_int_equal(slice[0].interventions, 5);
    assert_int_equal(slice[1].interventions, 7); /* absent: all of the message's */
    assert_int_equal(slice[2].interventions, 0);
    fixture_close(&f);
}

static void layers_come_out_as_layers(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f);
    assert_int_equal(f.info.heads, 2);
    f.info.embedding_width = 3;
    expect(&f, "{\"slices\":[{\"request\":7,\"tokens\":[1],\"blocks\":[0],\"probe\":{\"format\":\"norms\",\"layers\":[0,1]}}]}",
           "{\"request\":7,\"position\":0,\"keys\":1,\"format\":\"norms\",\"layers\":[{\"layer\":0,\"before\":0,\"attention\":1,"
           "\"feed\":2,\"after\":3,\"heads\":[4,5]},{\"layer\":1,\"before\":6,");
    expect(&f, "{\"slices\":[{\"tokens\":[1],\"blocks\":[0],\"probe\":{\"format\":\"lens\",\"layers\":[1],\"top_k\":2}}]}",
           "\"layers\":[{\"layer\":1,\"tokens\":[0,2],\"logprobs\":[1,3]}]");
    expect(&f, "{\"slices\":[{\"tokens\":[1],\"blocks\":[0],\"probe\":{\"format\":\"hidden\",\"layers\":[0,1]}}]}",
           "\"layers\":[{\"layer\":0,\"hidden\":[0,1,2]},{\"layer\":1,\"hidden\":[3,4,5]}]");
    assert_int_equal(LATHE_SPAN(const struct lathe_probe, seen, seen->probes)->width, 3);
    expect(&f, "{\"slices\":[{\"tokens\":[1],\"blocks\":[0],\"probe\":{\"format\":\"scores\",\"layers\":[1],\"heads\":[1]}}]}",
           "\"heads\":[{\"layer\":1,\"head\":1,\"scores\":[");
    fixture_close(&f);
}

static void masses_come_out_a_list_a_set(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f);
    expect(&f, "{\"slices\":[{\"request\":3,\"tokens\":[1,2],\"blocks\":[0],\"key_mass\":true},{\"tokens\":[1],\"blocks\":[1]},"
               "{\"request\":4,\"tokens\":[1],\"blocks\":[2],\"key_mass\":true}]}",
           "\"masses\":[{\"request\":3,\"keys\":2,\"masses\":[[0,1],[2,3]]},"
           "{\"request\":4,\"keys\":1,\"masses\":[[0],[1]]}]");
    fixture_close(&f);
}

static int odd_masses(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)err;
    ((struct lathe_forward_out *)out)->mass_bytes = 12;
    return LATHE_OK;
}

static void masses_of_no_whole_set_are_refused(void **state)
{
    struct fixture f;
    struct text reply = { 0 };
    struct lathe_error err = { 0 };
    (void)state;
    fixture_open(&f);
    assert_int_equal(call_with(&f, odd_masses, "{\"slices\":[{\"tokens\":[1,2],\"blocks\":[0],\"key_mass\":true}]}", &reply, &err),
                     LATHE_EINTERNAL);
    assert_non_null(strstr(err.message, "12 bytes of masses are of no whole number of sets of 2 keys"));
    text_free(&reply);
    fixture_close(&f);
}

static void what_is_wrong_with_an_intervention_is_named(void **state)
{
    static const char *const cases[][2] = {
        { "{\"slices\":[],\"interventions\":[{\"kind\":\"head_scal\"}]}", "interventions[0].kind should be one of head_scale" },
        { "{\"slices\":[],\"interventions\":[{\"kind\":\"patch\",\"values\":[\"x\"]}]}", "interventions[0].values[0] should be a number" },
        { "{\"slices\":[],\"interventions\":[{\"kind\":\"patch\",\"values\":3}]}", "values should be a list of numbers, not 3" },
        { "{\"slices\":[{\"tokens\":[1],\"interventions\":[64]}]}", "slices[0].interventions[0] should be an integer from 0 to 63" },
        { "{\"slices\":[],\"interventions\":[{\"kind\":\"patch\",\"layer\":[1]}]}", "did you mean `layers`?" },
    };
    struct fixture f;
    (void)state;
    fixture_open(&f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text reply = { 0 };
        struct lathe_error err = { 0 };
        assert_int_equal(call_with(&f, remember, cases[i][0], &reply, &err), LATHE_EINVAL);
        if (!strstr(err.message, cases[i][1]))
            fail_msg("\"%s\", expected \"%s\"", err.message, cases[i][1]);
        text_free(&reply);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interventions_are_laid_out_flat),
        cmocka_unit_test(layers_come_out_as_layers),
        cmocka_unit_test(masses_come_out_a_list_a_set),
        cmocka_unit_test(masses_of_no_whole_set_are_refused),
        cmocka_unit_test(what_is_wrong_with_an_intervention_is_named),
    };
    int status = cmocka_run_group_tests(tests, NULL, NULL);
    free(seen);
    return status;
}

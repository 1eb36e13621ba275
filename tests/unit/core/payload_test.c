/* SPDX-License-Identifier: MIT */
/* Descriptions of messages against the headers they describe, and calls by name with JSON. */
#include "payload_fixture.h"

#include <jansson.h>

#include "local_services.h"

/* ── descriptions and headers ──────────────────────────────────────────────────────── */

struct seen {
    const struct payload_struct *structs[64];
    size_t count;
};

/* Each struct that can be reached, once. */
static void see(struct seen *s, const struct payload_struct *of)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->structs[i] == of)
            return;
    assert_true(s->count < 64);
    s->structs[s->count++] = of;
    for (size_t i = 0; i < of->count; i++)
        if (of->fields[i].of)
            see(s, of->fields[i].of);
}

static struct seen all_structs(void)
{
    struct seen s = { .count = 0 };
    size_t count;
    const struct payload *all = payload_all(&count);
    for (size_t i = 0; i < count; i++) {
        see(&s, all[i].in);
        see(&s, all[i].out);
    }
    return s;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *bytes = calloc(1, 1 << 20);
    assert_non_null(file);
    assert_non_null(bytes);
    assert_true(fread(bytes, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return bytes;
}

static void blank_comments(char *text)
{
    for (char *at = text; (at = strstr(at, "/*"));) {
        char *end = strstr(at, "*/");
        assert_non_null(end);
        memset(at, ' ', (size_t)(end + 2 - at));
    }
}

/* The body of `struct NAME {`, comments blanked; NULL: not in this file. Free it. */
static char *struct_body(const char *path, const char *name)
{
    char opening[96], *text = read_file(path), *body = NULL;
    snprintf(opening, sizeof opening, "\nstruct %s {", name);
    char *at = strstr(text, opening);
    if (at) {
        at += strlen(opening);
        char *end = strstr(at, "\n};");
        assert_non_null(end);
        *end = '\0';
        body = strdup(at);
        blank_comments(body);
    }
    free(text);
    return body;
}

static int is_described(const struct payload_struct *of, const char *member)
{
    for (size_t i = 0; i < of->count; i++)
        if (!strcmp(of->fields[i].member, member) || (of->fields[i].second && !strcmp(of->fields[i].second, member)))
            return 1;
    return 0;
}

/* "uint32_t block_first, block_count" → both names, arrays without their bounds. */
static size_t check_declaration(const struct payload_struct *of, char *declaration)
{
    size_t members = 0;
    char *save;
    for (char *part = strtok_r(declaration, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        char *bracket = strchr(part, '[');
        if (bracket)
            *bracket = '\0';
        char *end = part + strlen(part);
        while (end > part && (end[-1] == ' ' || end[-1] == '\n'))
            *--end = '\0';
        char *name = end;
        while (name > part && name[-1] != ' ' && name[-1] != '\n' && name[-1] != '*')
            name--;
        if (*name == '\0')
            continue;
        members++;
        if (!is_described(of, name))
            fail_msg("struct %s has a member `%s` that core/payload_tables.c doesn't describe", of->name, name);
    }
    return members;
}

static void every_member_of_every_struct_is_described(void **state)
{
    static const char *const headers[] = { "core/include/lathe/message.h", "core/include/lathe/tokenizer.h",
                                           "core/include/lathe/model.h", "core/include/lathe/sampler.h",
                                           "core/include/lathe/attention.h", "core/include/lathe/kvcache.h",
                                           "core/include/lathe/intervention.h",
                                           "core/local_services.h" };
    struct seen s = all_structs();
    (void)state;
    for (size_t i = 0; i < s.count; i++) {
        const struct payload_struct *of = s.structs[i];
        char *body = NULL, path[4096], *save;
        for (size_t h = 0; !body && h < sizeof headers / sizeof *headers; h++) {
            snprintf(path, sizeof path, "%s/%s", TEST_SOURCE, headers[h]);
            body = struct_body(path, of->name);
        }
        if (!body)
            fail_msg("struct %s stands in no header", of->name);
        size_t members = 0, described = 0;
        for (char *line = strtok_r(body, ";", &save); line; line = strtok_r(NULL, ";", &save))
            members += check_declaration(of, line);
        for (size_t k = 0; k < of->count; k++)
            described += of->fields[k].second ? 2 : 1;
        assert_int_equal(members, described);
        free(body);
    }
    assert_true(s.count >= 20);
}

/* No two fields share a byte, and what none has is padding: fewer bytes than the alignment. */
static void described_fields_fill_their_struct(void **state)
{
    struct seen s = all_structs();
    (void)state;
    for (size_t i = 0; i < s.count; i++) {
        const struct payload_struct *of = s.structs[i];
        unsigned char *used = calloc(1, of->bytes);
        size_t sum = 0;
        for (size_t k = 0; k < of->count; k++) {
            const struct payload_field *f = &of->fields[k];
            assert_true(f->offset + f->bytes <= of->bytes);
            for (size_t b = f->offset; b < f->offset + f->bytes; b++)
                if (used[b]++)
                    fail_msg("two fields of struct %s have byte %zu", of->name, b);
            sum += f->bytes;
        }
        if (of->bytes - sum >= 8)
            fail_msg("%zu of struct %s's %zu bytes are in no field", of->bytes - sum, of->name, of->bytes);
        free(used);
    }
}

static void check_link(const struct payload_struct *of, const struct payload_field *f)
{
    const struct payload_struct *message;
    size_t count;
    const struct payload *all = payload_all(&count);
    switch (f->type) {
    case PAYLOAD_TEXT: /* spans are of messages only: the walk finds their array by the field's place there */
    case PAYLOAD_JSON:
    case PAYLOAD_SPAN:
    case PAYLOAD_GATHERED:
    case PAYLOAD_INTEGERS: assert_int_equal(of->fields[0].type, PAYLOAD_HEAD); break;
    case PAYLOAD_LIST:
    case PAYLOAD_WIDTH:
    case PAYLOAD_ATTENTION: assert_true(payload_member(of, f->link) >= 0); break;
    case PAYLOAD_ROWS: assert_true(!f->link || payload_member(of, f->link) >= 0); break;
    case PAYLOAD_RANGE:
    case PAYLOAD_PLACE: /* some message has it, gathered, with the same elements */
        for (size_t i = 0; i < count; i++) {
            message = all[i].in;
            int target = payload_member(message, f->link);
            if (target < 0 || (message->fields[target].type != PAYLOAD_GATHERED &&
                               message->fields[target].type != PAYLOAD_INTEGERS))
                continue;
            assert_int_equal(message->fields[target].element, f->element);
            assert_ptr_equal(message->fields[target].of, f->of);
            return;
        }
        fail_msg("struct %s: `%s` is appended to no message's `%s`", of->name, f->name, f->link);
        break;
    default: break;
    }
}

static void descriptions_are_sound(void **state)
{
    struct seen s = all_structs();
    size_t count;
    const struct payload *all = payload_all(&count);
    (void)state;
    for (size_t i = 0; i < s.count; i++) {
        const struct payload_struct *of = s.structs[i];
        for (size_t k = 0; k < of->count; k++) {
            const struct payload_field *f = &of->fields[k];
            assert_int_equal(payload_member(of, f->member), k);
            if (f->name && (!f->help || !*f->help))
                fail_msg("struct %s: `%s` has no help", of->name, f->name);
            if (f->type == PAYLOAD_FLAGS || f->type == PAYLOAD_CHOICE)
                assert_non_null(f->names);
            check_link(of, f);
        }
    }
    for (size_t i = 0; i < count; i++) {
        const struct payload *found;
        struct lathe_error err;
        assert_int_equal(payload_find(all[i].service, all[i].method, &found, &err), LATHE_OK);
        assert_ptr_equal(found, &all[i]);
        assert_true(all[i].in->count <= PAYLOAD_FIELDS_MAX && all[i].out->count <= PAYLOAD_FIELDS_MAX);
        assert_true(all[i].help && all[i].example);
    }
}

static void an_unknown_service_or_method_names_the_nearest(void **state)
{
    const struct payload *what;
    struct lathe_error err;
    (void)state;
    assert_int_equal(payload_find("modle", "forward", &what, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "did you mean `model`?"));
    assert_int_equal(payload_find("model", "foward", &what, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "did you mean `forward`?"));
    assert_int_equal(payload_find("batching", "fill", &what, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "there are tokenizer, model, sampler, scheduler, memory"));
}

/* ── reading ───────────────────────────────────────────────────────────────────────── */

static int read_json(const char *service, const char *method, const char *json, const struct lathe_model_info *model,
                     struct payload_parts *parts, struct lathe_error *err)
{
    const struct payload *what;
    json_error_t why;
    json_t *value = json_loads(json, JSON_DECODE_ANY, &why);
    if (!value)
        fail_msg("%s: %s", json, why.text);
    assert_int_equal(payload_find(service, method, &what, err), LATHE_OK);
    int rc = payload_from_json(what, value, model, parts, err);
    json_decref(value);
    return rc;
}

static void what_is_wrong_is_named_by_its_path(void **state)
{
    static const struct {
        const char *service, *method, *json, *sentence;
    } cases[] = {
        { "model", "forward", "{\"slices\":[{\"tokens\":[1]},{\"tokens\":[1],\"first_position\":\"x\"}]}",
          "model.forward: slices[1].first_position should be an integer from 0 to 2147483647, not the text \"x\"" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"first_position\":-1}]}",
          "model.forward: slices[0].first_position should be an integer from 0 to 2147483647, not -1" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1,2.5]}]}",
          "model.forward: slices[0].tokens[1] should be an integer from -2147483648 to 2147483647, not 2.5" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"request\":-4}]}",
          "slices[0].request should be an integer from 0" },
        { "model", "forward", "{\"slices\":[{}]}", "model.forward: slices[0].tokens is missing: a list of integers" },
        { "model", "forward", "{}", "model.forward: slices is missing: a list of tables is expected" },
        { "model", "forward", "{\"slices\":{\"a\":1}}",
          "model.forward: slices should be a list of tables, not an object" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"logit\":true}]}",
          "model.forward: slices[0] has no field `logit`; did you mean `logits`?" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"token_first\":7}]}",
          "slices[0] has no field `token_first`" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"logits\":1}]}",
          "slices[0].logits should be true or false, not 1" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"probe\":{\"format\":\"all\"}}]}",
          "slices[0].probe.format should be one of summary, top, full, scores, values, norms, lens, hidden, not the text \"all\"" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"probe\":{\"every\":0}}]}",
          "slices[0].probe.every should be" },
        { "model", "forward", "{\"slices\":[{\"tokens\":[1],\"probe\":{\"layers\":[256]}}]}",
          "slices[0].probe.layers[0] should be" },
        { "model", "forward", "{\"kv_ops\":[{\"kind\":\"copy\",\"to\":4294967296}],\"slices\":[]}",
          "kv_ops[0].to should be" },
        { "model", "forward", "[]", "model.forward: the message should be a table, not a list of 0" },
        { "tokenizer", "encode", "{\"text\":7}", "tokenizer.encode: text should be a text, not 7" },
        { "tokenizer", "decode", "{\"tokens\":[],\"state\":{\"bytes\":[1,2,3,4]}}",
          "state.bytes should be at most 3 elements" },
        { "tokenizer", "decode", "{\"tokens\":[],\"state\":{\"bytes\":[256]}}",
          "state.bytes[0] should be an integer from 0 to 255" },
        { "tokenizer", "describe", "{\"text\":7}",
          "tokenizer.describe: the message has no field `text`; it has none" },
        { "sampler", "sample", "{\"logits\":[[1,2],[3]],\"rows\":[]}",
          "sampler.sample: logits[1] should be a list of numbers as long as the first, not a list of 1" },
        { "sampler", "sample", "{\"logits\":[[1,\"x\"]],\"rows\":[]}",
          "sampler.sample: logits[0][1] should be a number" },
        { "sampler", "sample", "{\"logits\":[[1]],\"rows\":[{\"sampling\":{\"top_p\":0}}]}",
          "rows[0].sampling.top_p should be a number above 0 to at most 1, not 0" },
        { "sampler", "sample", "{\"logits\":[[1]],\"rows\":[{\"sampling\":{\"top_p\":1e-60}}]}",
          "rows[0].sampling.top_p should" },
        { "sampler", "sample", "{\"logits\":[[1]],\"rows\":[{\"sampling\":{\"min_p\":1}}]}",
          "rows[0].sampling.min_p should" },
        { "scheduler", "explain", "{\"request\":9.5}", "scheduler.explain: request should be an integer from 0" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct payload_parts parts;
        struct lathe_error err = { 0 };
        int rc = read_json(cases[i].service, cases[i].method, cases[i].json, NULL, &parts, &err);
        payload_parts_free(&parts);
        if (rc != LATHE_EINVAL || !strstr(err.message, cases[i].sentence))
            fail_msg("%s: status %d, \"%s\", expected \"%s\"", cases[i].json, rc, err.message, cases[i].sentence);
    }
}

static void lists_inside_of_slices_are_laid_out_flat(void **state)
{
    static const char json[] = "{\"step\": 3, \"slices\": ["
        "{\"request\": 7, \"tokens\": [1, 2, 3.0], \"blocks\": [5, 6], \"logits\": true},"
        "{\"request\": 8, \"tokens\": [4], \"first_position\": 9, \"blocks\": [2], \"outputs\": [0], \"hidden\": true,"
        " \"kept\": [0, 4], \"probe\": {\"format\": \"top\", \"layers\": [1, 65]}},"
        "{\"tokens\": [0], \"padding\": true}]}";
    struct payload_parts parts;
    struct lathe_model_info model = { .layers = 3, .heads = 2 };
    struct lathe_error err;
    (void)state;
    assert_int_equal(read_json("model", "forward", json, &model, &parts, &err), LATHE_OK);
    size_t bytes = payload_in_bytes(&parts);
    struct lathe_forward_in *in = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    memset(in, 0, sizeof in->head);
    in->head.capacity = bytes - 1;
    assert_int_equal(payload_lay_out(&parts, &in->head, &err), LATHE_EFULL);
    in->head.capacity = bytes;
    assert_int_equal(payload_lay_out(&parts, &in->head, &err), LATHE_OK);
    assert_int_equal(in->step, 3);
    assert_int_equal(in->slices.count, 3);
    assert_int_equal(in->tokens.count, 5);
    assert_int_equal(in->blocks.count, 3);
    assert_int_equal(in->outputs.count, 2);
    assert_int_equal(in->kept.count, 2);
    assert_int_equal(in->probes.count, 1);
    assert_int_equal(in->kv_ops.count, 0);
    assert_true(lathe_span_check(&in->head, in->slices, sizeof(struct lathe_slice), 8));
    assert_true(lathe_span_check(&in->head, in->tokens, 4, 4));
    const struct lathe_slice *s = LATHE_SPAN(const struct lathe_slice, in, in->slices);
    const struct lathe_slice expected[] = {
        { .request = 7, .flags = LATHE_SLICE_LOGITS, .token_first = 0, .token_count = 3, .block_first = 0,
          .block_count = 2, .output_first = 0, .output_count = 1, .probe = LATHE_NO_PROBE, .adapter = -1 },
        { .request = 8, .flags = LATHE_SLICE_HIDDEN, .first_position = 9, .token_first = 3, .token_count = 1,
          .block_first = 2, .block_count = 1, .output_first = 1, .output_count = 1, .kept_first = 0, .kept_count = 2,
          .probe = 0, .adapter = -1 },
        { .flags = LATHE_SLICE_PADDING, .token_first = 4, .token_count = 1, .probe = LATHE_NO_PROBE, .adapter = -1 },
    };
    assert_memory_equal(s, expected, sizeof expected);
    static const int32_t tokens[] = { 1, 2, 3, 4, 0 };
    assert_memory_equal(LATHE_SPAN(int32_t, in, in->tokens), tokens, sizeof tokens);
    assert_int_equal(LATHE_SPAN(uint32_t, in, in->outputs)[0], 2); /* nothing was said: the last row */
    const struct lathe_probe *probe = LATHE_SPAN(const struct lathe_probe, in, in->probes);
    assert_int_equal(probe->id, 1);
    assert_int_equal(probe->format, LATHE_PROBE_TOP);
    assert_int_equal(probe->top_k, 8);
    assert_int_equal(probe->last_position, -1);
    assert_int_equal(probe->layers[0], 2);
    assert_int_equal(probe->layers[1], 2);
    assert_int_equal(probe->heads[0], 3); /* all that the model has */
    free(in);
    payload_parts_free(&parts);
}

/* ── calling ───────────────────────────────────────────────────────────────────────── */

static int call_json(struct fixture *f, const char *service, const char *method, const char *json, struct text *reply,
                     struct lathe_error *err)
{
    struct payload_call call = { .bus = f->bus, .bus_self = f->bus_self, .model = &f->info };
    struct payload_parts parts;
    char name[64];
    snprintf(name, sizeof name, "%s.%s", service, method);
    assert_int_equal(payload_find(service, method, &call.what, err), LATHE_OK);
    assert_int_equal(f->bus->resolve(f->bus_self, name, &call.endpoint, err), LATHE_OK);
    int rc = read_json(service, method, json, &f->info, &parts, err);
    if (rc == LATHE_OK)
        rc = payload_call_run(&call, &parts, err);
    if (rc == LATHE_OK)
        rc = payload_to_json(&call, reply, err);
    payload_call_close(&call);
    payload_parts_free(&parts);
    return rc;
}

static void expect_reply(struct fixture *f, const char *service, const char *method, const char *json,
                         const char *expected)
{
    struct text reply = { 0 };
    struct lathe_error err = { 0 };
    if (call_json(f, service, method, json, &reply, &err) != LATHE_OK)
        fail_msg("%s.%s %s: %s", service, method, json, err.message);
    assert_string_equal(reply.bytes, expected);
    text_free(&reply);
}

static void methods_are_called_with_json(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f);
    expect_reply(&f, "tokenizer", "encode", "{\"text\": \"Hi\"}", "{\"tokens\":[72,105]}");
    expect_reply(&f, "tokenizer", "encode", "{\"text\": \"<|eos|>\", \"special\": true, \"bos\": null}",
                 "{\"tokens\":[257]}");
    expect_reply(&f, "tokenizer", "encode", "{\"text\": \"\"}", "{\"tokens\":[]}");
    expect_reply(&f, "tokenizer", "decode", "{\"tokens\": [72, 105, 34, 10, 0, 226, 130]}",
                 "{\"state\":{\"started\":true,\"bytes\":[226,130]},\"text\":\"Hi\\\"\\n\\u0000\"}");
    expect_reply(&f, "tokenizer", "decode", "{\"tokens\": [172], \"state\":{\"started\":true,\"bytes\":[226,130]}}",
                 "{\"state\":{\"started\":true,\"bytes\":[]},\"text\":\"€\"}");
    expect_reply(&f, "tokenizer", "decode", "{\"tokens\": [72, 200], \"raw\": true}",
                 "{\"state\":{\"started\":true,\"bytes\":[]},\"text\":\"H\xEF\xBF\xBD\"}");
    expect_reply(&f, "tokenizer", "describe", "{}",
                 "{\"name\":\"byte\",\"vocab_tokens\":260,\"bos\":256,\"eos\":257,\"unknown\":-1,\"padding\":-1,"
                 "\"add_bos\":false,\"stops\":[257,259],\"has_template\":false,\"max_token_bytes\":12}");
    fixture_close(&f);
}

static void numbers_in_json_read_back_the_same(void **state)
{
    struct fixture f;
    struct text reply = { 0 };
    struct lathe_error err;
    (void)state;
    fixture_open(&f);
    struct text json = { 0 };
    text_print(&json, "{\"rows\":[{\"request\":1}],\"logits\":[[");
    for (uint32_t i = 0; i < f.info.vocab_tokens; i++)
        text_print(&json, "%s%s", i ? "," : "", i == 7 ? "2.5" : "0.1");
    text_print(&json, "]]}");
    assert_int_equal(call_json(&f, "sampler", "sample", json.bytes, &reply, &err), LATHE_OK);
    /* What the sampler itself says of the same row. */
    struct {
        struct lathe_sample_in in;
        struct lathe_sample_row row;
        float logits[260];
    } __attribute__((aligned(64))) m;
    memset(&m, 0, sizeof m);
    m.in.head.capacity = m.in.head.bytes = sizeof m;
    m.in.vocab_tokens = 260;
    m.in.rows = (struct lathe_span){ (uint64_t)((char *)&m.row - (char *)&m), 1 };
    m.in.logits = (struct lathe_region){ (char *)m.logits - (char *)&m, sizeof m.logits };
    for (int i = 0; i < 260; i++)
        m.logits[i] = i == 7 ? 2.5f : 0.1f;
    m.row.sampling.temperature = m.row.sampling.top_p = m.row.sampling.repetition_penalty = 1;
    struct { struct lathe_sample_out out; char room[256]; } __attribute__((aligned(64))) r;
    memset(&r, 0, sizeof r);
    r.out.head.capacity = sizeof r;
    const struct lathe_sampler_api *api = f.sampler->api;
    assert_int_equal(api->sample(f.sampler->self, &m, &r, &err), LATHE_OK);
    json_error_t why;
    json_t *value = json_loads(reply.bytes, 0, &why);
    json_t *sampled = json_array_get(json_object_get(value, "sampled"), 0);
    assert_int_equal(json_integer_value(json_object_get(sampled, "token")), 7);
    assert_true((float)json_number_value(json_object_get(sampled, "logprob")) ==
                LATHE_SPAN(struct lathe_sampled, &r, r.out.sampled)->logprob);
    json_decref(value);
    text_free(&json);
    text_free(&reply);
    fixture_close(&f);
}

static void the_method_s_own_refusals_come_back(void **state)
{
    struct fixture f;
    struct text reply = { 0 };
    struct lathe_error err;
    (void)state;
    fixture_open(&f);
    assert_int_equal(call_json(&f, "tokenizer", "decode", "{\"tokens\": [260]}", &reply, &err), LATHE_ERANGE);
    assert_int_equal(call_json(&f, "model", "forward",
                               "{\"slices\":[{\"tokens\":[1],\"blocks\":[99],\"logits\":true}]}", &reply, &err),
                     LATHE_ERANGE);
    assert_non_null(strstr(err.message, "names block 99; the pool has 8"));
    assert_int_equal(call_json(&f, "model", "forward",
                               "{\"slices\":[{\"tokens\":[1,2],\"blocks\":[0],\"outputs\":[1,1],"
                               "\"logits\":true}]}",
                               &reply, &err),
                     LATHE_EINVAL);
    assert_int_equal(call_json(&f, "sampler", "sample", "{\"logits\":[],\"rows\":[{}]}", &reply, &err), LATHE_ERANGE);
    assert_int_equal(call_json(&f, "model", "forward", "{\"slices\":[{\"tokens\":[1],\"first_position\":2147483647,"
                               "\"blocks\":[0],\"probe\":{\"format\":\"full\"}}]}", &reply, &err), LATHE_ERANGE);
    assert_non_null(strstr(err.message, "ask for less at once"));
    text_free(&reply);
    fixture_close(&f);
}

/* ── methods that no sound plugin has ──────────────────────────────────────────────── */

static int calls;

static int wants_more(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    uint64_t want = *(uint64_t *)self;
    (void)in;
    calls++;
    reply->needed = want;
    if (!lathe_message_add(&reply->head, &reply->tokens, want, 4))
        return lathe_fail(err, LATHE_EFULL, "too small");
    memset(LATHE_SPAN(char, reply, reply->tokens), 0, want * 4);
    return LATHE_OK;
}

static int points_outside(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in, (void)err;
    reply->head.capacity = UINT64_MAX;
    reply->head.bytes = UINT64_MAX;
    reply->tokens = (struct lathe_span){ 64, UINT64_C(1) << 40 };
    return LATHE_OK;
}

static int never_enough(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in;
    reply->needed = reply->head.capacity;
    return lathe_fail(err, LATHE_EFULL, "too small");
}

static int wants_the_moon(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_encode_out *reply = out;
    (void)self, (void)in;
    reply->needed = UINT64_MAX / 8;
    return lathe_fail(err, LATHE_EFULL, "too small");
}

static int moves_regions(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct lathe_forward_out *reply = out;
    (void)self, (void)in, (void)err;
    reply->logits.offset = INT64_MIN;
    reply->logits_rows = *(uint64_t *)self;
    return LATHE_OK;
}

static int call_fake(struct fixture *f, const char *method, const char *json, lathe_method *function, void *self,
                     struct text *reply, struct lathe_error *err)
{
    struct lathe_endpoint endpoint = { .call = function, .self = self, .name = "fake" };
    const char *service = strcmp(method, "forward") ? "tokenizer" : "model";
    struct payload_call call = { .bus = f->bus, .bus_self = f->bus_self, .model = &f->info, .endpoint = &endpoint };
    struct payload_parts parts;
    assert_int_equal(payload_find(service, method, &call.what, err), LATHE_OK);
    int rc = read_json(service, method, json, &f->info, &parts, err);
    if (rc == LATHE_OK)
        rc = payload_call_run(&call, &parts, err);
    if (rc == LATHE_OK)
        rc = payload_to_json(&call, reply, err);
    payload_call_close(&call);
    payload_parts_free(&parts);
    return rc;
}

static void a_reply_that_is_too_small_grows(void **state)
{
    struct fixture f;
    struct text reply = { 0 };
    struct lathe_error err;
    uint64_t want = 500000;
    (void)state;
    fixture_open(&f);
    calls = 0;
    assert_int_equal(call_fake(&f, "encode", "{\"text\":\"x\"}", wants_more, &want, &reply, &err), LATHE_OK);
    assert_int_equal(calls, 2);
    assert_true(reply.count > 2 * want);
    assert_int_equal(call_fake(&f, "encode", "{\"text\":\"x\"}", never_enough, NULL, &reply, &err), LATHE_EINTERNAL);
    assert_non_null(strstr(err.message, "asks for more room each time"));
    assert_int_equal(call_fake(&f, "encode", "{\"text\":\"x\"}", wants_the_moon, NULL, &reply, &err), LATHE_ERANGE);
    text_free(&reply);
    fixture_close(&f);
}

static void a_reply_that_points_outside_is_refused(void **state)
{
    struct fixture f;
    struct text reply = { 0 };
    struct lathe_error err;
    uint64_t rows = 1;
    (void)state;
    fixture_open(&f);
    assert_int_equal(call_fake(&f, "encode", "{\"text\":\"x\"}", points_outside, NULL, &reply, &err), LATHE_EINTERNAL);
    assert_string_equal(err.message, "tokenizer.encode: `tokens` of the reply lies outside of its own message");
    static const char slice[] = "{\"slices\":[{\"tokens\":[1],\"blocks\":[0],\"logits\":true}]}";
    text_free(&reply); /* the moved region isn't followed: what was asked for is read where it was asked for */
    assert_int_equal(call_fake(&f, "forward", slice, moves_regions, &rows, &reply, &err), LATHE_OK);
    rows = 2;
    assert_int_equal(call_fake(&f, "forward", slice, moves_regions, &rows, &reply, &err), LATHE_EINTERNAL);
    rows = UINT64_MAX;
    assert_int_equal(call_fake(&f, "forward", slice, moves_regions, &rows, &reply, &err), LATHE_EINTERNAL);
    text_free(&reply);
    fixture_close(&f);
}

static int ranks(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct local_rank_out *reply = out;
    (void)self, (void)in;
    reply->needed = sizeof *reply + 256;
    struct local_ranked *ranked = lathe_message_add(&reply->head, &reply->ranked, 2, sizeof *ranked);
    uint64_t *preempt = lathe_message_add(&reply->head, &reply->preempt, 1, sizeof *preempt);
    if (!ranked || !preempt)
        return lathe_fail(err, LATHE_EFULL, "too small");
    ranked[0] = (struct local_ranked){ 7, LATHE_REQUEST_RUNNING, LOCAL_RANKED_RUNNING, 2, 1 };
    ranked[1] = (struct local_ranked){ 9, 77, LOCAL_RANKED_WAITING, -1, 30 };
    *preempt = 3;
    reply->wake_ns = INT64_MAX;
    return LATHE_OK;
}

static int uses(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct local_usage_out *reply = out;
    (void)self, (void)in, (void)err;
    reply->usage = (struct lathe_kv_usage){ 10, 2, 1, 0, 32, 20, UINT64_MAX, 5, 6, 7 };
    reply->block_tokens = 16;
    return LATHE_OK;
}

static void expect_local(struct fixture *f, const char *service, const char *method, lathe_method *function,
                         const char *expected)
{
    struct lathe_endpoint endpoint = { .call = function, .name = "fake" };
    struct payload_call call = { .bus = f->bus, .bus_self = f->bus_self, .endpoint = &endpoint };
    struct payload_parts parts;
    struct text reply = { 0 };
    struct lathe_error err;
    assert_int_equal(payload_find(service, method, &call.what, &err), LATHE_OK);
    assert_int_equal(payload_from_json(call.what, NULL, NULL, &parts, &err), LATHE_OK);
    assert_int_equal(payload_call_run(&call, &parts, &err), LATHE_OK);
    assert_int_equal(payload_to_json(&call, &reply, &err), LATHE_OK);
    assert_string_equal(reply.bytes, expected);
    text_free(&reply);
    payload_call_close(&call);
    payload_parts_free(&parts);
}

static void the_host_s_own_services_answer_in_tables(void **state)
{
    struct fixture f;
    (void)state;
    fixture_open(&f);
    expect_local(
        &f, "scheduler", "rank", ranks,
        "{\"wake_ns\":9223372036854775807,\"ranked\":[{\"request\":7,\"state\":\"running\",\"waiting\":false,"
        "\"running\":true,\"decoding\":false,\"priority\":2,\"pending_tokens\":1},{\"request\":9,\"state\":77,"
        "\"waiting\":true,\"running\":false,\"decoding\":false,\"priority\":-1,\"pending_tokens\":30}],\"preempt\":["
        "3]}");
    expect_local(
        &f, "memory", "usage", uses,
        "{\"blocks_total\":10,\"blocks_used\":2,\"blocks_cached\":1,\"blocks_shared\":0,\"reserved_tokens\":32,"
        "\"filled_tokens\":20,\"evicted_blocks\":18446744073709551615,\"evicted_tokens\":5,"
        "\"hit_tokens\":6,\"looked_up_tokens\":7,\"block_tokens\":16}");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_of_every_struct_is_described),
        cmocka_unit_test(described_fields_fill_their_struct),
        cmocka_unit_test(descriptions_are_sound),
        cmocka_unit_test(an_unknown_service_or_method_names_the_nearest),
        cmocka_unit_test(what_is_wrong_is_named_by_its_path),
        cmocka_unit_test(lists_inside_of_slices_are_laid_out_flat),
        cmocka_unit_test(methods_are_called_with_json),
        cmocka_unit_test(numbers_in_json_read_back_the_same),
        cmocka_unit_test(the_method_s_own_refusals_come_back),
        cmocka_unit_test(a_reply_that_is_too_small_grows),
        cmocka_unit_test(a_reply_that_points_outside_is_refused),
        cmocka_unit_test(the_host_s_own_services_answer_in_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Random messages, made from the descriptions themselves: fields left out or of any size, numbers at
 * the ends of their ranges and beyond. Whatever is said, a method answers or refuses in a sentence;
 * the asan build sees to it that nothing is read or written outside of the messages. */
#include "payload_fixture.h"

#include <jansson.h>

#include <lathe/random.h>

enum { CASES = 20000 };

static uint64_t drawn;

static uint32_t draw(uint32_t below)
{
    return (uint32_t)(lathe_random_unit(1, LATHE_RANDOM_WEIGHTS, ++drawn, 0) * below);
}

static json_t *random_integer(const struct payload_field *f)
{
    static const int64_t edges[] = { -1, 0, 1, 255, 256, INT32_MAX, INT32_MIN, UINT32_MAX, (int64_t)UINT32_MAX + 1,
                                     INT64_MAX, INT64_MIN };
    if (draw(8) == 0)
        return json_integer(edges[draw(sizeof edges / sizeof *edges)]);
    if (draw(40) == 0)
        return draw(2) ? json_string("x") : json_real(0.5);
    return json_integer((int64_t)f->min + draw(draw(4) ? 5 : 300));
}

static json_t *random_table(const struct payload_struct *of);

static json_t *random_list(const struct payload_field *f)
{
    json_t *list = json_array();
    for (uint32_t n = draw(5); n > 0; n--)
        json_array_append_new(list, f->of ? random_table(f->of) : random_integer(f));
    return list;
}

static json_t *random_rows(void)
{
    json_t *rows = json_array();
    uint32_t width = draw(4) ? 260 : draw(3);
    for (uint32_t n = draw(4); n > 0; n--) {
        json_t *row = json_array();
        for (uint32_t i = 0; i < width; i++)
            json_array_append_new(row, json_real(draw(100) / 10.0));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *random_value(const struct payload_field *f)
{
    uint32_t n = 0;
    switch (f->type) {
    case PAYLOAD_BOOLEAN: return json_boolean(draw(2));
    case PAYLOAD_CHOICE:
        while (f->names[n].name)
            n++;
        return json_string(f->names[draw(n)].name);
    case PAYLOAD_F32: return json_real(f->min + draw(11) / 10.0 * (f->max - f->min));
    case PAYLOAD_TEXT:
    case PAYLOAD_JSON: return json_string(draw(2) ? "<|eos|> \xE2\x82\xAC" : "");
    case PAYLOAD_ROWS: return random_rows();
    case PAYLOAD_STRUCT:
    case PAYLOAD_PLACE: return random_table(f->of);
    case PAYLOAD_MASK:
    case PAYLOAD_LIST:
    case PAYLOAD_SPAN:
    case PAYLOAD_RANGE: return random_list(f);
    default: return random_integer(f);
    }
}

static json_t *random_table(const struct payload_struct *of)
{
    json_t *table = json_object();
    for (size_t i = 0; i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        if (f->type == PAYLOAD_FLAGS)
            for (const struct payload_name *flag = f->names; flag->name; flag++)
                json_object_set_new(table, flag->name, json_boolean(draw(3) == 0));
        else if (f->name && (draw(3) || !(f->flags & PAYLOAD_OPTIONAL)))
            json_object_set_new(table, f->name, random_value(f));
    }
    return table;
}

static int call_once(struct fixture *f, const struct payload *what, json_t *value)
{
    struct payload_call call = { .what = what, .bus = f->bus, .bus_self = f->bus_self, .model = &f->info };
    struct payload_parts parts;
    struct text reply = { 0 };
    struct lathe_error err = { 0 };
    char name[64];
    snprintf(name, sizeof name, "%s.%s", what->service, what->method);
    if (f->bus->resolve(f->bus_self, name, &call.endpoint, &err) != LATHE_OK)
        return LATHE_ENOTFOUND;
    int rc = payload_from_json(what, value, &f->info, &parts, &err);
    if (rc == LATHE_OK)
        rc = payload_call_run(&call, &parts, &err);
    if (rc == LATHE_OK)
        rc = payload_to_json(&call, &reply, &err);
    if (rc == LATHE_EINTERNAL || (rc != LATHE_OK && err.message[0] == '\0'))
        fail_msg("%s: status %d, %s", name, rc, err.message);
    if (rc == LATHE_OK) {
        json_t *back = json_loads(reply.bytes, JSON_ALLOW_NUL, NULL);
        assert_non_null(back);
        json_decref(back);
    }
    text_free(&reply);
    payload_call_close(&call);
    payload_parts_free(&parts);
    return rc;
}

static void any_message_is_answered_or_refused(void **state)
{
    struct fixture f;
    size_t count;
    const struct payload *all = payload_all(&count);
    uint32_t answered[16] = { 0 }, refused[16] = { 0 };
    (void)state;
    fixture_open(&f);
    assert_true(count <= 16);
    for (int n = 0; n < CASES; n++) {
        size_t i = draw((uint32_t)count);
        json_t *value = random_table(all[i].in);
        if (call_once(&f, &all[i], value) == LATHE_OK)
            answered[i]++;
        else
            refused[i]++;
        json_decref(value);
    }
    for (size_t i = 0; i < count; i++) { /* both happen, or the cases say little */
        print_message("%s.%s: %u answered, %u refused\n", all[i].service, all[i].method, answered[i], refused[i]);
        if (!strcmp(all[i].service, "model") || !strcmp(all[i].service, "sampler"))
            assert_true(answered[i] > 10);
        if (!strcmp(all[i].method, "forward") || !strcmp(all[i].method, "sample"))
            assert_true(refused[i] > 10);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_message_is_answered_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

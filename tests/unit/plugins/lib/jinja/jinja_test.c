/* SPDX-License-Identifier: MIT */
/* Chat templates against jinja2 (tests/data/golden_chat.json), and against templates that mean
 * harm: each ends with a sentence, in bounded time and memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <time.h>

#include <jinja/jinja.h>

#include "support/counting_host.h"

static struct counting_host counting;
static const struct lathe_host *host;
static struct lathe_error err;
static char out[1 << 20];

static int setup(void **state)
{
    (void)state;
    host = counting_host_init(&counting);
    return 0;
}

static int render_with(const char *source, size_t bytes, const char *messages, struct jinja_job *job)
{
    job->source = source;
    job->source_bytes = bytes;
    job->messages = messages;
    job->messages_bytes = strlen(messages);
    job->out = out;
    job->room = sizeof out - 1;
    memset(&err, 0, sizeof err);
    int rc = jinja_render(host, job, &err);
    assert_int_equal(counting.live_blocks, 0);
    if (!rc)
        out[job->written] = 0;
    return rc;
}

static int render(const char *source)
{
    struct jinja_job job = {0};
    return render_with(source, strlen(source), "[{\"role\": \"user\", \"content\": \"Hi\"}]", &job);
}

static void renders_as_jinja2_does(void **state)
{
    (void)state;
    size_t different = 0, i;
    json_t *cases = json_load_file(TEST_DATA "/golden_chat.json", 0, NULL), *c;
    assert_true(json_array_size(cases) > 250);
    json_array_foreach(cases, i, c) {
        struct jinja_job job = {0};
        json_t *template = json_object_get(c, "template"), *expected = json_object_get(c, "expected");
        json_t *bos = json_object_get(c, "bos_token"), *eos = json_object_get(c, "eos_token");
        char *messages = json_dumps(json_object_get(c, "messages"), 0);
        job.add_generation_prompt = json_is_true(json_object_get(c, "add_generation_prompt"));
        job.bos = json_string_value(bos);
        job.bos_bytes = json_string_length(bos);
        job.eos = json_string_value(eos);
        job.eos_bytes = json_string_length(eos);
        int rc = render_with(json_string_value(template), json_string_length(template), messages, &job), same;
        if (expected)
            same = !rc && job.written == json_string_length(expected) &&
                   memcmp(out, json_string_value(expected), job.written) == 0;
        else if (strcmp(json_string_value(json_object_get(c, "error_type")), "TemplateError") == 0)
            same = rc == LATHE_EINVAL && strstr(err.message, json_string_value(json_object_get(c, "error")));
        else
            same = rc && err.message[0];
        if (!same) {
            different++;
            print_message("%s\n  got  %s\n  want %s\n", json_string_value(json_object_get(c, "name")), rc ? err.message : out,
                          expected ? json_string_value(expected) : json_string_value(json_object_get(c, "error")));
        }
        free(messages);
    }
    json_decref(cases);
    assert_int_equal(different, 0);
}

static void expect(const char *source, const char *text)
{
    int rc = render(source);
    if (rc || strcmp(out, text))
        print_message("%s\n  got %s\n", source, rc ? err.message : out);
    assert_int_equal(rc, 0);
    assert_string_equal(out, text);
}

/* Expected texts come from CPython and jinja2's documentation. */
static void values_behave_as_pythons(void **state)
{
    (void)state;
    expect("{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e22 }} {{ 1.0 }} {{ 0.00001 }} {{ 123456.789 }}",
           "0.30000000000000004 1e+16 1e+22 1.0 1e-05 123456.789");
    expect("{{ ['it\\'s', 'a\"b', 'n\\n'] }} {{ (1,) }} {{ () }}", "[\"it's\", 'a\"b', 'n\\n'] (1,) ()");
    expect("{{ 'aé日😀'|length }} {{ 'aé日😀'[1] }} {{ 'aé日😀'[-2:] }} {{ 'aé日😀'[::-1] }}", "4 é 日😀 😀日éa");
    expect("{{ ' a  b c '.split() }} {{ ' a  b c '.split(none, 1) }} {{ 'a,b,,c'.split(',', 2) }} {{ ''.split() }} {{ ''.split(',') }}",
           "['a', 'b', 'c'] ['a', 'b c'] ['a', 'b', ',c'] [] ['']");
    expect("{{ [1,2,3][5:] }} {{ [1,2,3][-9:2] }} {{ [1,2,3][::-2] }} {{ [1,2,3][-1:0:-1] }}", "[] [1, 2] [3, 1] [3, 2]");
    expect("{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ [1] == [1] }} {{ 'a' < 'b' }}",
           "True False True True True True");
    expect("{{ -7 % 3 }} {{ 7 % -3 }} {{ -7 // 2 }} {{ 7.5 // 2 }} {{ 2 ** -1 }}", "2 -2 -4 3.0 0.5");
    expect("{{ 'x'.join(['a', 'b']) }} {{ 'banana'.count('an') }} {{ 'banana'.find('nan') }} {{ 'abc'.find('z') }}", "axb 2 2 -1");
    expect("{{ '12' | int }} {{ 'x' | int(7) }} {{ '1.5' | float }} {{ 3.9 | int }}", "12 7 1.5 3");
    expect("{{ {'b': 1, 'a': [true, none, 1.5]} | tojson }}", "{\"b\": 1, \"a\": [true, null, 1.5]}");
}

static void refused(const char *source, int code, const char *word)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int rc = render(source);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (rc != code || !strstr(err.message, word))
        print_message("%.80s\n  got %d %s\n", source, rc, rc ? err.message : out);
    assert_int_equal(rc, code);
    assert_non_null(strstr(err.message, word));
    assert_true(to.tv_sec - from.tv_sec < 10);
    assert_true(counting.peak_bytes < (65u << 20));
}

static void endless_work_is_cut_off(void **state)
{
    (void)state;
    refused("{% for a in range(1000000000) %}x{% endfor %}", LATHE_ERANGE, "range of more");
    refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", LATHE_ERANGE, "more than");
    refused("{% for a in range(9999) %}{% if 'x' * 9999 == 'y' %}{% endif %}{% endfor %}", LATHE_ERANGE, "more than");
    refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", LATHE_ERANGE, "levels deep");
    refused("{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", LATHE_ERANGE, "bytes");
    refused("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", LATHE_ERANGE, "");
    refused("{{ 'x' * 9999999999 }}", LATHE_ERANGE, "");
    refused("{{ [1] * 9999999999 }}", LATHE_ERANGE, "");
    refused("{% for i in range(9999) %}{{ 'x' * 99999 }}{% endfor %}", LATHE_ERANGE, "more than");
    refused("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}{{ ns == ns }}", LATHE_EFORMAT, "namespace");
    refused("{{ 2 ** 99 }}", LATHE_ERANGE, "2^63");
    refused("{{ -9223372036854775807 - 2 }}", LATHE_ERANGE, "2^63");
}

static void deep_nesting_is_cut_off(void **state)
{
    (void)state;
    static const char *const parts[] = {"(", "[", "{1:", "-", "not ", "x[", "f(", "1+(", "1 if ", "{% if 1 %}", "x|map(", "1 is in ["};
    char *source = malloc(2000000);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t n = 0;
        n += (size_t)sprintf(source, parts[i][0] == '{' && parts[i][1] == '%' ? "" : "{{ ");
        for (int k = 0; k < 60000; k++)
            n += (size_t)sprintf(source + n, "%s", parts[i]);
        assert_true(render(source) != 0);
        assert_true(err.message[0] != 0);
    }
    static const char *const chains[] = {" + 1", " ~ 1", " | trim", ".x", "[0]", "()", " and 1", " is defined", " ** 1", " == 1"};
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        size_t n = (size_t)sprintf(source, "{{ 1");
        for (int k = 0; k < 60000; k++)
            n += (size_t)sprintf(source + n, "%s", chains[i]);
        sprintf(source + n, " }}");
        int rc = render(source); /* a comparison of many is a list, not a depth: it may pass */
        assert_true(rc == 0 || err.message[0] != 0);
    }
    size_t n = (size_t)sprintf(source, "{%% if 0 %%}");
    for (int k = 0; k < 60000; k++)
        n += (size_t)sprintf(source + n, "{%% elif 0 %%}");
    sprintf(source + n, "{%% endif %%}");
    assert_int_equal(render(source), LATHE_ERANGE);
    free(source);
}

static void errors_say_where(void **state)
{
    (void)state;
    refused("a\nb\n{% if %}", LATHE_EFORMAT, "line 3");
    refused("{{ x", LATHE_EFORMAT, "doesn't end");
    refused("{{ 'x }}", LATHE_EFORMAT, "doesn't end");
    refused("{# x", LATHE_EFORMAT, "comment");
    refused("{% endfor %}", LATHE_EUNSUPPORTED, "endfor");
    refused("{% include 'x' %}", LATHE_EUNSUPPORTED, "include");
    refused("{{ x.y.z }}", LATHE_EFORMAT, "'x' is undefined");
    refused("{{ 'é'.upper() }}", LATHE_EUNSUPPORTED, "ASCII");
    refused("{{ '%s' % 1 }}", LATHE_EUNSUPPORTED, "formatting");
    refused("{{ messages | nothing }}", LATHE_EUNSUPPORTED, "nothing");
    refused("{{ 1 // 0 }}", LATHE_EFORMAT, "zero");
    refused("{% break %}", LATHE_EFORMAT, "outside");
    refused("\xff", LATHE_EFORMAT, "UTF-8");
}

static void messages_must_be_a_list(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "{}", "[", "\"x\"", "[1e999]", "[\"\\ud800\"]", "[\"\xff\"]", "nan"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct jinja_job job = {0};
        assert_int_equal(render_with("x", 1, bad[i], &job), LATHE_EINVAL);
        assert_non_null(strstr(err.message, "messages"));
    }
    char *deep = malloc(200001);
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    deep[200000] = 0;
    struct jinja_job job = {0};
    assert_int_equal(render_with("x", 1, deep, &job), LATHE_EINVAL);
    memset(deep + 300, ']', 300);
    deep[600] = 0;
    assert_int_equal(render_with("x", 1, deep, &job), LATHE_ERANGE);
    free(deep);
    struct jinja_job nul = {0};
    const char *source = "{{ messages[0].content }}";
    assert_int_equal(render_with(source, strlen(source), "[{\"content\": \"a\\u0000b\"}]", &nul), 0);
    assert_int_equal(nul.written, 3);
    assert_memory_equal(out, "a\0b", 3);
}

static void a_small_room_says_what_it_needed(void **state)
{
    (void)state;
    const char *source = "0123456789", *messages = "[]";
    struct jinja_job job = {.source = source, .source_bytes = 10, .messages = messages, .messages_bytes = 2, .out = out, .room = 4};
    assert_int_equal(jinja_render(host, &job, &err), LATHE_EFULL);
    assert_int_equal(job.written, 10);
}

static void survives_each_failing_allocation(void **state)
{
    (void)state;
    const char *source = "{% for m in messages %}{{ (m.content * 20000) | upper }}{% endfor %}";
    for (size_t nth = 1;; nth++) {
        counting.calls = 0;
        counting.fail_at = nth;
        int rc = render(source);
        if (!rc)
            break;
        assert_int_equal(rc, LATHE_ENOMEM);
        assert_true(nth < 100);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(renders_as_jinja2_does),
        T(values_behave_as_pythons),
        T(endless_work_is_cut_off),
        T(deep_nesting_is_cut_off),
        T(errors_say_where),
        T(messages_must_be_a_list),
        T(a_small_room_says_what_it_needed),
        T(survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

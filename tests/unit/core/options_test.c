/* SPDX-License-Identifier: MIT */
/* What a person wrote against what a plugin's table says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "options.h"

enum { TEXT, BLOCKS, SHARE, EAGER, ORDER, FILE_PATH, COUNT };

static const struct lathe_option table[COUNT] = {
    { .name = "text", .type = LATHE_OPTION_STRING, .default_text = "", .unit = "", .help = "Any." },
    { .name = "block_tokens", .type = LATHE_OPTION_INTEGER, .default_text = "16", .min = 1, .max = 1024,
      .unit = "tokens", .help = "A block." },
    { .name = "share", .type = LATHE_OPTION_NUMBER, .default_text = "0.5", .min = 0, .max = 1, .help = "No unit." },
    { .name = "eager", .type = LATHE_OPTION_BOOLEAN, .default_text = "false", .unit = "", .help = "Or not." },
    { .name = "order", .type = LATHE_OPTION_CHOICE, .default_text = "oldest", .choices = "oldest|newest|random",
      .unit = "", .help = "Who first." },
    { .name = "path", .type = LATHE_OPTION_PATH, .default_text = "", .unit = "", .help = "A file." },
};

static int resolve(const char *name, const char *text, struct lathe_option_value **values, struct lathe_error *err)
{
    struct option_setting setting = { name, text };
    return options_resolve(LATHE_KIND_SCHEDULER, "scheduler/x", table, COUNT, &setting, name ? 1 : 0, values, err);
}

static void defaults_are_filled_in_and_typed(void **state)
{
    struct lathe_option_value *values;
    struct lathe_error err;
    (void)state;
    assert_int_equal(resolve(NULL, NULL, &values, &err), LATHE_OK);
    assert_int_equal(values[BLOCKS].integer, 16);
    assert_true(values[BLOCKS].number == 16.0 && values[BLOCKS].is_default);
    assert_true(values[SHARE].number == 0.5);
    assert_int_equal(values[EAGER].integer, 0);
    assert_int_equal(values[ORDER].integer, 0);
    assert_string_equal(values[ORDER].text, "oldest");
    assert_string_equal(values[TEXT].text, "");
    free(values);
}

static void good_values_are_taken(void **state)
{
    static const struct {
        const char *name, *text;
        int at;
        int64_t integer;
        double number;
    } cases[] = {
        { "block_tokens", "1", BLOCKS, 1, 1 },      { "block_tokens", "1024", BLOCKS, 1024, 1024 },
        { "block_tokens", " 7", BLOCKS, 7, 7 },     { "share", "1e-3", SHARE, 0, 1e-3 },
        { "share", "1", SHARE, 0, 1 },              { "eager", "true", EAGER, 1, 1 },
        { "eager", "YES", EAGER, 1, 1 },            { "eager", "on", EAGER, 1, 1 },
        { "eager", "1", EAGER, 1, 1 },              { "eager", "off", EAGER, 0, 0 },
        { "eager", "no", EAGER, 0, 0 },             { "eager", "0", EAGER, 0, 0 },
        { "order", "random", ORDER, 2, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lathe_option_value *values;
        struct lathe_error err = { 0 };
        if (resolve(cases[i].name, cases[i].text, &values, &err) != LATHE_OK)
            fail_msg("%s=%s: %s", cases[i].name, cases[i].text, err.message);
        assert_int_equal(values[cases[i].at].integer, cases[i].integer);
        assert_true(values[cases[i].at].number == cases[i].number);
        assert_int_equal(values[cases[i].at].is_default, 0);
        free(values);
    }
}

static void bad_values_are_one_sentence_that_says_what_would_do(void **state)
{
    static const struct {
        const char *name, *text;
        int code;
        const char *says;
    } cases[] = {
        { "block_tokens", "0", LATHE_ERANGE, "between 1 and 1024 tokens" },
        { "block_tokens", "-1", LATHE_ERANGE, "between 1 and 1024" },
        { "block_tokens", "1025", LATHE_ERANGE, "1025" },
        { "block_tokens", "99999999999999999999", LATHE_ERANGE, "beyond 64 bits" },
        { "block_tokens", "-99999999999999999999", LATHE_ERANGE, "beyond 64 bits" },
        { "block_tokens", "16.5", LATHE_EINVAL, "must be an integer" },
        { "block_tokens", "1e3", LATHE_EINVAL, "must be an integer" },
        { "block_tokens", "0x10", LATHE_EINVAL, "must be an integer" },
        { "block_tokens", "", LATHE_EINVAL, "must be an integer" },
        { "block_tokens", "many", LATHE_EINVAL, "\"many\"" },
        { "share", "nan", LATHE_EINVAL, "finite number" },
        { "share", "-nan(1)", LATHE_EINVAL, "finite number" },
        { "share", "inf", LATHE_EINVAL, "finite number" },
        { "share", "1e999", LATHE_EINVAL, "finite number" },
        { "share", "1.01", LATHE_ERANGE, "between 0 and 1" },
        { "share", "0,5", LATHE_EINVAL, "finite number" },
        { "share", "", LATHE_EINVAL, "finite number" },
        { "eager", "maybe", LATHE_EINVAL, "true or false" },
        { "eager", "2", LATHE_EINVAL, "true or false" },
        { "order", "newst", LATHE_EINVAL, "did you mean newest?" },
        { "order", "oldest|newest", LATHE_EINVAL, "one of oldest|newest|random" },
        { "order", "", LATHE_EINVAL, "one of" },
        { "block_token", "16", LATHE_EINVAL, "did you mean `block_tokens`?" },
        { "blokc_tokens", "16", LATHE_EINVAL, "did you mean `block_tokens`?" },
        { "wholly_other", "16", LATHE_EINVAL, "it has: text, block_tokens, share" },
        { "", "16", LATHE_EINVAL, "has no option" },
        { "Share", "1", LATHE_EINVAL, "did you mean `share`?" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lathe_option_value *values = NULL;
        struct lathe_error err = { 0 };
        int rc = resolve(cases[i].name, cases[i].text, &values, &err);
        if (rc != cases[i].code || !strstr(err.message, cases[i].says))
            fail_msg("%s=%s: status %d: %s", cases[i].name, cases[i].text, rc, err.message);
        assert_non_null(strstr(err.message, "scheduler/x"));
        assert_null(strchr(err.message, '\n'));
        assert_null(values);
    }
}

static void required_and_doubled_options_are_named(void **state)
{
    static const struct lathe_option required = { .name = "path", .type = LATHE_OPTION_PATH, .unit = "",
                                                  .help = "The weights." };
    struct option_setting twice[] = { { "share", "0.1" }, { "share", "0.2" } };
    struct lathe_option_value *values;
    struct lathe_error err;
    (void)state;
    assert_int_equal(options_resolve(LATHE_KIND_MODEL, "model/x", &required, 1, NULL, 0, &values, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "option `path` (path) must be given: The weights."));
    assert_int_equal(options_resolve(LATHE_KIND_SCHEDULER, "s/x", table, COUNT, twice, 2, &values, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "set twice"));
    struct option_setting nothing = { "share", NULL };
    assert_int_equal(options_resolve(LATHE_KIND_SCHEDULER, "s/x", table, COUNT, &nothing, 1, &values, &err),
                     LATHE_EINVAL);
}

static void very_long_values_are_kept_or_refused_whole(void **state)
{
    char *large = malloc(1 << 20);
    struct lathe_option_value *values;
    struct lathe_error err;
    (void)state;
    memset(large, 'x', (1 << 20) - 1);
    large[(1 << 20) - 1] = '\0';
    assert_int_equal(resolve("text", large, &values, &err), LATHE_OK);
    assert_string_equal(values[TEXT].text, large);
    free(values);
    assert_int_equal(resolve("path", large, &values, &err), LATHE_EINVAL);
    assert_int_equal(resolve(large, "1", &values, &err), LATHE_EINVAL);
    assert_int_equal(resolve("block_tokens", large, &values, &err), LATHE_EINVAL);
    free(large);
}

static void the_json_reads_back(void **state)
{
    struct option_setting settings[] = { { "text", "a \"b\" \\ \n\x01 \xff \xc3\xa9" }, { "share", "0.1" },
                                         { "eager", "yes" } };
    struct lathe_option_value *values;
    struct lathe_error err;
    json_error_t why;
    (void)state;
    assert_int_equal(options_resolve(LATHE_KIND_SCHEDULER, "s/x", table, COUNT, settings, 3, &values, &err), LATHE_OK);
    char *text = options_json(table, values, COUNT);
    json_t *json = json_loads(text, 0, &why);
    if (!json)
        fail_msg("%s: %s", why.text, text);
    assert_string_equal(json_string_value(json_object_get(json, "text")),
                        "a \"b\" \\ \n\x01 \xef\xbf\xbd \xc3\xa9");
    assert_int_equal(json_integer_value(json_object_get(json, "block_tokens")), 16);
    assert_true(json_real_value(json_object_get(json, "share")) == 0.1);
    assert_true(json_is_true(json_object_get(json, "eager")));
    assert_string_equal(json_string_value(json_object_get(json, "order")), "oldest");
    json_decref(json);
    free(text);
    free(values);
}

/* --- --set --------------------------------------------------------------------------- */

static void settings_are_cut_at_commas_and_quotes(void **state)
{
    char text[] = "topp:a=1,b=\"x, \\\"y\\\" \\\\z\",c=,d=\"\",e=k=v";
    struct option_setting settings[8];
    struct lathe_error err;
    char *name;
    size_t count;
    (void)state;
    if (settings_parse(text, &name, settings, 8, &count, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    assert_string_equal(name, "topp");
    assert_int_equal(count, 5);
    static const char *const expected[][2] = { { "a", "1" }, { "b", "x, \"y\" \\z" }, { "c", "" }, { "d", "" },
                                               { "e", "k=v" } };
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(settings[i].name, expected[i][0]);
        assert_string_equal(settings[i].text, expected[i][1]);
    }
    char alone[] = "greedy", colon[] = "greedy:";
    assert_int_equal(settings_parse(alone, &name, settings, 8, &count, &err), LATHE_OK);
    assert_int_equal(count, 0);
    assert_int_equal(settings_parse(colon, &name, settings, 8, &count, &err), LATHE_OK);
    assert_string_equal(name, "greedy");
    assert_int_equal(count, 0);
}

static void malformed_settings_are_a_sentence(void **state)
{
    static const char *const bad[] = { "", ":a=1", "x:a", "x:=1", "x:a=1,", "x:a=1,,b=2", "x:a=\"open", "x:a=\"b\"c",
                                       "x:a=\"b\\\"", "x:,", "x:a,b=1" };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[64];
        struct option_setting settings[4];
        struct lathe_error err = { 0 };
        char *name;
        size_t count;
        snprintf(text, sizeof text, "%s", bad[i]);
        if (settings_parse(text, &name, settings, 4, &count, &err) == LATHE_OK)
            fail_msg("%s was taken", bad[i]);
        assert_true(err.message[0] != '\0');
    }
    char many[] = "x:a=1,b=2,c=3";
    struct option_setting settings[2];
    struct lathe_error err;
    char *name;
    size_t count;
    assert_int_equal(settings_parse(many, &name, settings, 2, &count, &err), LATHE_EFULL);
}

static void near_names_are_near_and_far_ones_are_not(void **state)
{
    static const char *const names[] = { "continuous", "static", "fcfs", "sjf", "a" };
    (void)state;
    assert_string_equal(nearest_name("continous", names, 5), "continuous");
    assert_string_equal(nearest_name("statci", names, 5), "static");
    assert_string_equal(nearest_name("fcsf", names, 5), "fcfs");
    assert_string_equal(nearest_name("cont", names, 5), "continuous");
    assert_null(nearest_name("zebra", names, 5));
    assert_null(nearest_name("b", names, 5));
    assert_null(nearest_name("", names, 5));
    assert_null(nearest_name("x", names, 0));
}

static void short_model_names_are_found_in_the_named_folders(void **state)
{
    char folder[] = "/tmp/lathe-models-XXXXXX", file[128], path[256];
    struct lathe_error err;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/little-one.gguf", folder);
    fclose(fopen(file, "w"));
    setenv("LATHE_MODELS", folder, 1);
    assert_int_equal(model_path_resolve("little-one", path, sizeof path, &err), LATHE_OK);
    assert_string_equal(path, file);
    assert_int_equal(model_path_resolve("little-one.gguf", path, sizeof path, &err), LATHE_OK);
    assert_int_equal(model_path_resolve(file, path, sizeof path, &err), LATHE_OK);
    assert_int_equal(model_path_resolve("litle-one", path, sizeof path, &err), LATHE_ENOTFOUND);
    assert_non_null(strstr(err.message, "did you mean `little-one`?"));
    assert_int_equal(model_path_resolve("/nowhere/x.gguf", path, sizeof path, &err), LATHE_ENOTFOUND);
    assert_int_equal(model_path_resolve("../little-one", path, sizeof path, &err), LATHE_ENOTFOUND);
    assert_int_equal(model_path_resolve("", path, sizeof path, &err), LATHE_EINVAL);
    assert_int_equal(model_path_resolve("little-one", path, 8, &err), LATHE_EINVAL);
    unsetenv("LATHE_MODELS");
    unlink(file);
    rmdir(folder);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_filled_in_and_typed),
        cmocka_unit_test(good_values_are_taken),
        cmocka_unit_test(bad_values_are_one_sentence_that_says_what_would_do),
        cmocka_unit_test(required_and_doubled_options_are_named),
        cmocka_unit_test(very_long_values_are_kept_or_refused_whole),
        cmocka_unit_test(the_json_reads_back),
        cmocka_unit_test(settings_are_cut_at_commas_and_quotes),
        cmocka_unit_test(malformed_settings_are_a_sentence),
        cmocka_unit_test(near_names_are_near_and_far_ones_are_not),
        cmocka_unit_test(short_model_names_are_found_in_the_named_folders),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Words of Lua and of --set, merged into choices of plugins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "stages.h"

static const char *setting(const struct stage *stage, const char *name)
{
    for (size_t i = 0; i < stage->count; i++)
        if (!strcmp(stage->settings[i].name, name))
            return stage->settings[i].text;
    return NULL;
}

static void a_second_setting_replaces_the_first(void **state)
{
    (void)state;
    struct stage stage = { 0 };
    struct lathe_error err;
    assert_int_equal(stage_choose(&stage, LATHE_KIND_SCHEDULER, "fcfs", &err), 0);
    for (int i = 0; i < 100; i++) {
        char name[8], text[8];
        snprintf(name, sizeof name, "o%d", i % 20);
        snprintf(text, sizeof text, "%d", i);
        assert_int_equal(stage_set(&stage, name, text, &err), 0);
    }
    assert_int_equal(stage.count, 20);
    assert_string_equal(setting(&stage, "o7"), "87");
    struct stage copy;
    assert_int_equal(stage_copy(&copy, &stage, &err), 0);
    stage_clear(&stage);
    assert_string_equal(copy.name, "fcfs");
    assert_string_equal(setting(&copy, "o19"), "99");
    stage_clear(&copy);
    assert_null(copy.settings);
}

static void overrides_add_up_or_replace(void **state)
{
    (void)state;
    struct stage_overrides overrides = { 0 };
    struct stage stage = { 0 };
    struct lathe_error err;
    assert_int_equal(overrides_add(&overrides, "kvcache=paged:block_tokens=32", &err), 0);
    assert_int_equal(overrides_add(&overrides, "kvcache=:blocks=7", &err), 0);
    assert_int_equal(overrides_add(&overrides, "kvcache=paged:block_tokens=64", &err), 0);

    /* the same plugin keeps what the script set and the override does not name */
    stage_choose(&stage, LATHE_KIND_KVCACHE, "paged", &err);
    stage_set(&stage, "block_tokens", "16", &err);
    stage_set(&stage, "kept", "1", &err);
    assert_int_equal(overrides_apply(&overrides, LATHE_KIND_KVCACHE, &stage, &err), 0);
    assert_string_equal(setting(&stage, "block_tokens"), "64");
    assert_string_equal(setting(&stage, "blocks"), "7");
    assert_string_equal(setting(&stage, "kept"), "1");
    stage_clear(&stage);

    /* another plugin has other options: the script's go */
    stage_choose(&stage, LATHE_KIND_KVCACHE, "other", &err);
    stage_set(&stage, "gone", "1", &err);
    assert_int_equal(overrides_apply(&overrides, LATHE_KIND_KVCACHE, &stage, &err), 0);
    assert_string_equal(stage.name, "paged");
    assert_null(setting(&stage, "gone"));
    stage_clear(&stage);

    /* and a later word with another name forgets the earlier one's */
    assert_int_equal(overrides_add(&overrides, "kvcache=mine:x=1", &err), 0);
    assert_int_equal(overrides.stages[LATHE_KIND_KVCACHE].count, 1);
    overrides_clear(&overrides);
}

static void wrong_words_are_sentences(void **state)
{
    (void)state;
    struct stage_overrides overrides = { 0 };
    struct lathe_error err;
    const struct { const char *word, *says; } wrong[] = {
        { "scheduler", "kind=name" }, { "=fcfs", "kind=name" }, { "schedular=fcfs", "scheduler" },
        { "", "kind=name" }, { "zzz=fcfs", "no kind" }, { "kvcache=paged:block_tokens", "block_tokens" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memset(&err, 0, sizeof err);
        assert_int_equal(overrides_add(&overrides, wrong[i].word, &err), LATHE_EINVAL);
        if (!strstr(err.message, wrong[i].says))
            fail_msg("\"%s\" gave: %s", wrong[i].word, err.message);
    }
    overrides_clear(&overrides);
}

static void every_stage_but_model_and_tokenizer_has_a_default(void **state)
{
    (void)state;
    for (int kind = LATHE_KIND_SAMPLER; kind <= LATHE_KIND_BUS; kind++)
        assert_non_null(stage_default(kind));
    assert_null(stage_default(LATHE_KIND_MODEL));
    struct lathe_error err;
    struct instance *instance;
    assert_int_equal(stage_create(NULL, LATHE_KIND_MODEL, NULL, &instance, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_setting_replaces_the_first),
        cmocka_unit_test(overrides_add_up_or_replace),
        cmocka_unit_test(wrong_words_are_sentences),
        cmocka_unit_test(every_stage_but_model_and_tokenizer_has_a_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Recipes: what is written from instances makes the same services elsewhere, and what is not
 * as it should be is one sentence that names the service and the member. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recipe.h"
#include "registry.h"
#include "service.h"

static struct registry *registry;
static struct clock the_clock;

static void ok(int status, const struct lathe_error *err)
{
    if (status != LATHE_OK)
        fail_msg("%d: %s", status, err->message);
}

static struct instance *make(int kind, const char *name, const struct option_setting *settings, size_t count)
{
    struct lathe_error err = { 0 };
    struct instance *instance = NULL;
    ok(instance_create(registry, kind, name, settings, count, &instance, &err), &err);
    return instance;
}

static const struct lathe_service_method *find(const struct lathe_service *service, const char *name)
{
    for (uint32_t i = 0; i < service->method_count; i++)
        if (!strcmp(service->methods[i].name, name))
            return &service->methods[i];
    fail_msg("%s has no method %s", service->name, name);
    return NULL;
}

static void a_tokenizer_comes_out_as_it_went_in(void **state)
{
    /* A relative path: the worker may stand elsewhere. */
    const struct option_setting path = { "path", "vocab_gpt-2.gguf" };
    struct lathe_error err = { 0 };
    char *json, here[4096];
    struct recipe *recipe;
    uint32_t count;
    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(TEST_DATA), 0);
    struct instance *tokenizer = make(LATHE_KIND_TOKENIZER, "bpe", &path, 1);
    ok(recipe_of_tokenizer(tokenizer, &json, &err), &err);
    assert_int_equal(chdir(here), 0);
    assert_non_null(strstr(json, "\"path\":\"/"));
    ok(recipe_open(json, strlen(json), &the_clock, &recipe, &err), &err);
    const struct lathe_service *services = recipe_services(recipe, &count);
    assert_int_equal(count, 1);
    assert_string_equal(services[0].name, "tokenizer");
    assert_int_equal(services[0].concurrency, tokenizer->plugin->concurrency);

    /* An instance of the recipe's, called as the host calls its own. */
    int32_t *here_tokens, *there_tokens;
    size_t here_count;
    struct {
        struct lathe_encode_in in;
        char text[64];
    } in = {.in.head = {.capacity = sizeof in, .bytes = sizeof in.in}};
    struct { struct lathe_encode_out out; char tokens[512]; } out = { .out.head.capacity = sizeof out };
    const char text[] = "The quick brown fox";
    memcpy(lathe_message_add(&in.in.head, &in.in.text, sizeof text - 1, 1), text, sizeof text - 1);
    ok(tokenizer_encode(tokenizer, text, sizeof text - 1, 0, &here_tokens, &here_count, &err), &err);
    const struct lathe_service_method *encode = find(&services[0], "encode");
    assert_int_equal(encode->flags, LATHE_METHOD_IDEMPOTENT);
    ok(encode->function(encode->self, &in, &out, &err), &err);
    assert_int_equal(out.out.tokens.count, here_count);
    there_tokens = LATHE_SPAN(int32_t, &out, out.out.tokens);
    assert_memory_equal(here_tokens, there_tokens, here_count * sizeof *here_tokens);
    free(here_tokens);
    recipe_close(recipe);
    free(json);
    instance_destroy(tokenizer);
}

static void every_option_that_was_set_keeps_its_value(void **state)
{
    const struct option_setting settings[] = { { "seed", "123456789012345" }, { "layers", "3" } };
    const struct option_setting sampling[] = { { "temperature", "0.3" }, { "top_p", "0.1" } };
    struct lathe_context_params context = {.size = sizeof context,
                                           .block_tokens = 16,
                                           .blocks = 9,
                                           .batch_tokens = 32,
                                           .batch_slices = 4,
                                           .context_tokens = 64,
                                           .output_rows = 3,
                                           .threads = 2,
                                           .kv_dtype = LATHE_F32};
    struct lathe_error err = { 0 };
    struct recipe *recipe;
    uint32_t count;
    char *json;
    (void)state;
    struct instance *model = make(LATHE_KIND_MODEL, "tiny", settings, 2);
    struct instance *sampler = make(LATHE_KIND_SAMPLER, "topp", sampling, 2);
    ok(recipe_of_model("model", model, &context, "sampler", sampler, 260, &json, &err), &err);

    json_t *written = json_loads(json, 0, NULL), *services = json_object_get(written, "services");
    json_t *options = json_pack("{s:I, s:i}", "seed", (json_int_t)123456789012345, "layers", 3); /* no others: nobody set them */
    json_t *more = json_pack("{s:f, s:f}", "temperature", 0.3, "top_p", 0.1);
    assert_int_equal(json_array_size(services), 2);
    assert_true(json_equal(json_object_get(json_array_get(services, 0), "options"), options));
    assert_true(json_equal(json_object_get(json_array_get(services, 1), "options"), more));
    json_t *fields = json_object_get(json_array_get(services, 0), "context");
    assert_int_equal(json_object_size(fields), 10);
    assert_int_equal(json_integer_value(json_object_get(fields, "blocks")), 9);
    assert_int_equal(json_integer_value(json_object_get(fields, "output_rows")), 3);

    ok(recipe_open(json, strlen(json), &the_clock, &recipe, &err), &err);
    const struct lathe_service *made = recipe_services(recipe, &count);
    assert_int_equal(count, 2);
    assert_string_equal(made[0].name, "model");
    assert_string_equal(made[1].name, "sampler");
    assert_int_equal(find(&made[0], "describe")->flags, LATHE_METHOD_IDEMPOTENT);
    assert_true(find(&made[0], "forward")->flags & LATHE_METHOD_STATEFUL); /* it leans on keys and values */
    assert_true(find(&made[1], "sample")->flags & LATHE_METHOD_IDEMPOTENT);
    struct lathe_empty in = { { .capacity = sizeof in, .bytes = sizeof in } };
    struct lathe_model_info info = { .head.capacity = sizeof info };
    ok(find(&made[0], "describe")->function(find(&made[0], "describe")->self, &in, &info, &err), &err);
    assert_int_equal(info.layers, 3);

    recipe_close(recipe);
    json_decref(written);
    json_decref(options);
    json_decref(more);
    free(json);
    instance_destroy(sampler);
    instance_destroy(model);
}

#define ENTRY(service, kind, file, name, rest)                                                                       \
    "{\"services\":[{\"service\":\"" service "\",\"kind\":\"" kind "\",\"plugin\":\"" TEST_PLUGINS "/" file          \
    ".so\",\"name\":\"" name "\"" rest "}]}"

static void what_is_wrong_is_named(void **state)
{
    static const struct { const char *json; int status; const char *says; } wrong[] = {
        { "", LATHE_EFORMAT, "the recipe is no JSON" },
        { "[1, 2", LATHE_EFORMAT, "the recipe is no JSON" },
        { "[]", LATHE_EFORMAT, "the recipe has 0 services" },
        { "{\"services\":7}", LATHE_EFORMAT, "the recipe has 0 services" },
        { "{\"services\":[1,2,3,4,5,6,7,8,9]}", LATHE_EFORMAT, "the recipe has 9 services" },
        { "{\"services\":[7]}", LATHE_EFORMAT, "its \"service\" is missing or no text" },
        { "{\"services\":[{\"service\":\"t\"}]}", LATHE_EFORMAT, "t: its \"kind\" is missing or no text" },
        { ENTRY("t", "cook", "tokenizer/byte", "byte", ""), LATHE_EFORMAT, "t: \"cook\" is no kind of plugin" },
        { ENTRY("t", "tokenizer", "tokenizer/byte", "other", ""), LATHE_EABI, "t: " },
        { ENTRY("t", "tokenizer", "tokenizer/byte", "byte", ""), LATHE_EFORMAT, "its \"options\" are missing" },
        { ENTRY("t", "tokenizer", "tokenizer/byte", "byte", ",\"options\":{\"a\":1}"), LATHE_EINVAL, "no option `a`" },
        { ENTRY("m", "model", "model/tiny", "tiny", ",\"options\":{\"seed\":null}"), LATHE_EFORMAT, "its option \"seed\"" },
        { ENTRY("m", "model", "model/tiny", "tiny", ",\"options\":{\"layers\":99}"), LATHE_ERANGE, "option `layers` is 99" },
        { ENTRY("m", "model", "model/tiny", "tiny", ",\"options\":{}"), LATHE_EFORMAT, "its \"context\" is missing" },
        { ENTRY("m", "model", "model/tiny", "tiny", ",\"options\":{},\"context\":{\"block_tokens\":-1}"), LATHE_EFORMAT,
          "its \"block_tokens\" is missing or no number" },
        { ENTRY("s", "sampler", "sampler/greedy", "greedy", ",\"options\":{}"), LATHE_EFORMAT, "its \"vocab_tokens\" is" },
        { ENTRY("k", "kvcache", "kvcache/paged", "paged", ",\"options\":{}"), LATHE_EUNSUPPORTED,
          "k: a kvcache can't be served by a worker process" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct lathe_error err = { 0 };
        struct recipe *recipe = NULL;
        int status = recipe_open(wrong[i].json, strlen(wrong[i].json), &the_clock, &recipe, &err);
        if (!strstr(err.message, wrong[i].says) || (status != wrong[i].status && wrong[i].status != LATHE_EABI))
            fail_msg("%s: %d: %s", wrong[i].json, status, err.message);
        assert_null(recipe);
        assert_int_not_equal(status, LATHE_OK);
    }
}

static int open_registry(void **state)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct lathe_error err = { 0 };
    (void)state;
    clock_start(&the_clock, CLOCK_KIND_REAL);
    return registry_open(folders, &registry, &err);
}

static int close_registry(void **state)
{
    (void)state;
    registry_close(registry);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tokenizer_comes_out_as_it_went_in),
        cmocka_unit_test(every_option_that_was_set_keeps_its_value),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests_name("recipes", tests, open_registry, close_registry);
}

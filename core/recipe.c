/* SPDX-License-Identifier: MIT */
/* Opening a recipe reads JSON that another process sent: every member is checked for its
 * type, and what is missing or unknown is said. */
#include "recipe.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "echo.h"
#include "instance.h"
#include "kinds.h"
#include "library.h"
#include "methods.h"
#include "options.h"

enum { MOST_SERVICES = 8 };

/* --- writing ----------------------------------------------------------------------- */

/* The members of struct lathe_context_params, by name: both directions walk this. */
static const struct {
    const char *name;
    size_t offset;
} context_fields[] = {
#define FIELD(name) { #name, offsetof(struct lathe_context_params, name) }
    FIELD(block_tokens),   FIELD(blocks),      FIELD(batch_tokens), FIELD(batch_slices),
    FIELD(context_tokens), FIELD(output_rows), FIELD(threads),      FIELD(kv_dtype),
    FIELD(kv_flags),       FIELD(kv_scope),
#undef FIELD
};
enum { CONTEXT_FIELDS = sizeof context_fields / sizeof *context_fields };

static uint32_t *context_field(const struct lathe_context_params *context, int i)
{
    return (uint32_t *)(uintptr_t)((const char *)context + context_fields[i].offset); /* the signed ones have its size */
}

static json_t *absolute(const char *path)
{
    char resolved[PATH_MAX];
    return json_string(realpath(path, resolved) ? resolved : path);
}

/* The instance's options as somebody set them, paths of files that are there made absolute: what nobody
 * set is the worker's plugin's own default again, and known as that. NULL: no memory. */
static json_t *options_of(const struct instance *instance)
{
    json_t *options = json_loads(instance->options_json, 0, NULL);
    for (uint32_t i = 0; options && i < instance->plugin->option_count; i++) {
        const struct lathe_option *option = &instance->plugin->options[i];
        const char *text = json_string_value(json_object_get(options, option->name));
        if (instance->values[i].is_default)
            json_object_del(options, option->name);
        else if (option->type == LATHE_OPTION_PATH && text && *text &&
            json_object_set_new(options, option->name, absolute(text)) != 0) {
            json_decref(options);
            options = NULL;
        }
    }
    return options;
}

/* Appends the instance's entry to `services`; NULL: no memory. The entry is `services`' own. */
static json_t *add_entry(json_t *services, const char *service, const struct instance *instance)
{
    json_t *entry = json_pack("{s:s, s:s, s:o, s:s, s:o}", "service", service, "kind", kind_name(instance->entry->kind),
                              "plugin", absolute(instance->entry->path), "name", instance->entry->name, "options",
                              options_of(instance));
    return entry && json_array_append_new(services, entry) == 0 ? entry : NULL;
}

static int finish(json_t *services, int complete, char **json, struct lathe_error *err)
{
    json_t *recipe = json_object();
    *json = NULL;
    if (json_object_set_new(recipe, "services", services) == 0 && complete)
        *json = json_dumps(recipe, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(recipe);
    return *json ? LATHE_OK : lathe_fail(err, LATHE_ENOMEM, "no memory for a worker's recipe");
}

int recipe_of_tokenizer(const struct instance *tokenizer, char **json, struct lathe_error *err)
{
    json_t *services = json_array();
    return finish(services, add_entry(services, "tokenizer", tokenizer) != NULL, json, err);
}

int recipe_of_model(const char *model_service, const struct instance *model, const struct lathe_context_params *context,
                    const char *sampler_service, const struct instance *sampler, uint32_t vocab_tokens, char **json,
                    struct lathe_error *err)
{
    json_t *services = json_array(), *entry = add_entry(services, model_service, model), *fields = json_object();
    int complete = entry != NULL && json_object_set_new(entry, "context", fields) == 0;
    for (int i = 0; complete && i < CONTEXT_FIELDS; i++)
        complete = json_object_set_new(fields, context_fields[i].name, json_integer(*context_field(context, i))) == 0;
    if (complete && sampler) {
        entry = add_entry(services, sampler_service, sampler);
        complete = entry && json_object_set_new(entry, "vocab_tokens", json_integer(vocab_tokens)) == 0;
    }
    return finish(services, complete, json, err);
}

int recipe_of_echo(char **json, struct lathe_error *err)
{
    json_t *services = json_array();
    return finish(services, json_array_append_new(services, json_pack("{s:s, s:s}", "service", "echo", "kind", "echo")) == 0,
                  json, err);
}

/* --- opening ----------------------------------------------------------------------- */

/* One service, and what is behind it. */
struct made {
    struct registry_entry entry; /* the instance points to it, and it to the JSON's strings */
    struct instance *instance;
    void *context;               /* of a model; NULL: none */
    struct echo *echo;           /* of service echo; NULL: none */
    struct lathe_service_method methods[METHODS_MAX];
};

struct recipe {
    json_t *json;
    uint32_t count;
    struct made made[MOST_SERVICES];
    struct lathe_service services[MOST_SERVICES];
};

static int read_text(json_t *entry, const char *name, const char **text, struct lathe_error *err)
{
    *text = json_string_value(json_object_get(entry, name));
    return *text && **text ? LATHE_OK : lathe_fail(err, LATHE_EFORMAT, "its \"%s\" is missing or no text", name);
}

static int read_number(json_t *object, const char *name, uint32_t *value, struct lathe_error *err)
{
    const json_t *number = json_object_get(object, name);
    json_int_t integer = json_integer_value(number);
    if (!json_is_integer(number) || integer < 0 || integer > UINT32_MAX)
        return lathe_fail(err, LATHE_EFORMAT, "its \"%s\" is missing or no number from 0 to %u", name, UINT32_MAX);
    *value = (uint32_t)integer;
    return LATHE_OK;
}

/* A JSON value as a person would write it in an option; malloc'd. NULL: no memory, or no such value. */
static char *option_text(const json_t *value)
{
    char *text = NULL;
    if (json_is_string(value))
        text = strdup(json_string_value(value));
    else if (json_is_boolean(value))
        text = strdup(json_is_true(value) ? "true" : "false");
    else if (json_is_integer(value) && asprintf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(value)) < 0)
        text = NULL;
    else if (json_is_real(value) && asprintf(&text, "%.17g", json_real_value(value)) < 0)
        text = NULL;
    return text;
}

static int make_instance(struct made *made, json_t *options, struct lathe_error *err)
{
    struct option_setting settings[OPTIONS_MAX];
    const char *name;
    json_t *value;
    size_t count = 0;
    int status = LATHE_OK;
    if (!json_is_object(options) || json_object_size(options) > OPTIONS_MAX)
        return lathe_fail(err, LATHE_EFORMAT, "its \"options\" are missing or no object");
    json_object_foreach(options, name, value) {
        char *text = option_text(value);
        if (!text) {
            status = lathe_fail(err, LATHE_EFORMAT, "its option \"%.60s\" is neither text nor number nor boolean", name);
            break;
        }
        settings[count++] = (struct option_setting){ name, text };
    }
    if (status == LATHE_OK)
        status = instance_of_entry(&made->entry, settings, count, &made->instance, err);
    while (count > 0)
        free((char *)(uintptr_t)settings[--count].text);
    return status;
}

static int make_context(struct made *made, json_t *fields, struct lathe_error *err)
{
    const struct lathe_model_api *api = made->instance->api;
    struct lathe_context_params params = { .size = sizeof params };
    if (!json_is_object(fields))
        return lathe_fail(err, LATHE_EFORMAT, "its \"context\" is missing or no object");
    for (int i = 0; i < CONTEXT_FIELDS; i++) {
        int status = read_number(fields, context_fields[i].name, context_field(&params, i), err);
        if (status != LATHE_OK)
            return status;
    }
    return api->context_create(made->instance->self, &params, &made->context, err);
}

static int make_methods(struct made *made, json_t *entry, uint32_t *count, struct lathe_error *err)
{
    void *self = made->instance->self;
    uint32_t vocab_tokens;
    int status;
    switch (made->entry.kind) {
    case LATHE_KIND_TOKENIZER:
        *count = methods_of_tokenizer(made->instance->api, self, made->methods);
        return LATHE_OK;
    case LATHE_KIND_MODEL:
        status = make_context(made, json_object_get(entry, "context"), err);
        *count = status == LATHE_OK ? methods_of_model(made->instance->api, self, made->context, made->methods) : 0;
        return status;
    case LATHE_KIND_SAMPLER: {
        const struct lathe_sampler_api *api = made->instance->api;
        status = read_number(entry, "vocab_tokens", &vocab_tokens, err);
        if (status == LATHE_OK)
            status = api->bind(self, vocab_tokens, err);
        *count = status == LATHE_OK ? methods_of_sampler(api, self, made->methods) : 0;
        return status;
    }
    default:
        return lathe_fail(err, LATHE_EUNSUPPORTED, "a %s can't be served by a worker process", kind_name(made->entry.kind));
    }
}

static int make(struct recipe *recipe, json_t *entry, struct clock *clock, struct lathe_error *err)
{
    struct made *made = &recipe->made[recipe->count];
    struct lathe_service *service = &recipe->services[recipe->count];
    struct library library;
    const char *kind;
    int status;
    *service = (struct lathe_service){ .size = sizeof *service, .methods = made->methods, .workers = 1 };
    if ((status = read_text(entry, "service", &service->name, err)) != LATHE_OK ||
        (status = read_text(entry, "kind", &kind, err)) != LATHE_OK)
        return status;
    if (strcmp(kind, "echo") == 0) {
        made->echo = echo_create();
        if (!made->echo)
            return lathe_fail(err, LATHE_ENOMEM, "no memory for service echo");
        recipe->count++;
        echo_methods(made->echo, made->methods);
        service->method_count = ECHO_METHODS;
        return LATHE_OK;
    }
    if ((status = read_text(entry, "plugin", &made->entry.path, err)) != LATHE_OK ||
        (status = read_text(entry, "name", &made->entry.name, err)) != LATHE_OK)
        return status;
    made->entry.kind = kind_from_name(kind);
    if (made->entry.kind == 0)
        return lathe_fail(err, LATHE_EFORMAT, "\"%.60s\" is no kind of plugin", kind);
    recipe->count++; /* from here on recipe_close gives back what there is */
    if ((status = library_open(made->entry.path, made->entry.kind, made->entry.name, &library, err)) != LATHE_OK)
        return status;
    made->entry.plugin = library.plugin;
    memcpy(made->entry.sha256, library.sha256, sizeof made->entry.sha256);
    if ((status = make_instance(made, json_object_get(entry, "options"), err)) != LATHE_OK)
        return status;
    instance_attach(made->instance, clock, NULL);
    service->concurrency = library.plugin->concurrency;
    return make_methods(made, entry, &service->method_count, err);
}

int recipe_open(const void *json, size_t bytes, struct clock *clock, struct recipe **recipe, struct lathe_error *err)
{
    json_error_t where;
    struct recipe *r = calloc(1, sizeof *r);
    int status = LATHE_OK;
    size_t i;
    json_t *entry, *services;
    if (!r)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a recipe");
    r->json = json_loadb(json, bytes, 0, &where);
    services = json_object_get(r->json, "services");
    if (!r->json)
        status = lathe_fail(err, LATHE_EFORMAT, "the recipe is no JSON: line %d: %.200s", where.line, where.text);
    else if (json_array_size(services) == 0 || json_array_size(services) > MOST_SERVICES)
        status = lathe_fail(err, LATHE_EFORMAT, "the recipe has %zu services, expected 1 to %d",
                            json_array_size(services), MOST_SERVICES);
    json_array_foreach(services, i, entry) {
        struct lathe_error why = { 0 };
        if (status == LATHE_OK && (status = make(r, entry, clock, &why)) != LATHE_OK) {
            const char *name = json_string_value(json_object_get(entry, "service"));
            lathe_error_set(err, status, "%.60s: %.420s", name ? name : "a service of the recipe", why.message);
        }
    }
    if (status != LATHE_OK) {
        recipe_close(r);
        return status;
    }
    *recipe = r;
    return LATHE_OK;
}

void recipe_close(struct recipe *recipe)
{
    if (!recipe)
        return;
    while (recipe->count > 0) {
        struct made *made = &recipe->made[--recipe->count];
        if (made->context)
            ((const struct lathe_model_api *)made->instance->api)->context_destroy(made->context);
        instance_destroy(made->instance);
        echo_destroy(made->echo);
    }
    json_decref(recipe->json);
    free(recipe);
}

const struct lathe_service *recipe_services(const struct recipe *recipe, uint32_t *count)
{
    *count = recipe->count;
    return recipe->services;
}

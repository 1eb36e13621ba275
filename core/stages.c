/* SPDX-License-Identifier: MIT */
/* Choices of plugins, and instances made from them. See stages.h. */
#include "stages.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "service.h"

static const struct {
    int kind;
    const char *name;
} defaults[] = {
    { LATHE_KIND_SAMPLER, "greedy" },       { LATHE_KIND_KVCACHE, "paged" }, { LATHE_KIND_SCHEDULER, "fcfs" },
    { LATHE_KIND_BATCHING, "continuous" },  { LATHE_KIND_BUS, "direct" },    { LATHE_KIND_ROUTER, "least_loaded" },
};

const char *stage_default(int kind)
{
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        if (defaults[i].kind == kind)
            return defaults[i].name;
    return NULL;
}

static const struct lathe_option *find_option(const struct lathe_plugin *plugin, const char *name)
{
    for (uint32_t i = 0; i < plugin->option_count; i++)
        if (!strcmp(plugin->options[i].name, name))
            return &plugin->options[i];
    return NULL;
}

const char *stage_tokenizer_for(const struct registry_entry *model)
{
    return find_option(model->plugin, "path") ? "bpe" : "byte";
}

/* ── one stage ─────────────────────────────────────────────────────────────────────── */

static int no_memory(struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ENOMEM, "no memory left for a plugin's options");
}

int stage_choose(struct stage *stage, int kind, const char *name, struct lathe_error *err)
{
    char *copy = strdup(name);
    if (!copy)
        return no_memory(err);
    free(stage->name);
    stage->name = copy;
    stage->kind = kind;
    return LATHE_OK;
}

int stage_set(struct stage *stage, const char *option, const char *text, struct lathe_error *err)
{
    char *value = strdup(text);
    if (!value)
        return no_memory(err);
    for (size_t i = 0; i < stage->count; i++) {
        if (!strcmp(stage->settings[i].name, option)) {
            free((char *)stage->settings[i].text);
            stage->settings[i].text = value;
            return LATHE_OK;
        }
    }
    char *name = strdup(option);
    if (name && stage->count == stage->capacity) {
        size_t capacity = stage->capacity ? stage->capacity * 2 : 8;
        struct option_setting *more = realloc(stage->settings, capacity * sizeof *more);
        if (more) {
            stage->settings = more;
            stage->capacity = capacity;
        }
    }
    if (!name || stage->count == stage->capacity) {
        free(name);
        free(value);
        return no_memory(err);
    }
    stage->settings[stage->count++] = (struct option_setting){ .name = name, .text = value };
    return LATHE_OK;
}

int stage_copy(struct stage *to, const struct stage *from, struct lathe_error *err)
{
    memset(to, 0, sizeof *to);
    to->kind = from->kind;
    int status = from->name ? stage_choose(to, from->kind, from->name, err) : LATHE_OK;
    for (size_t i = 0; !status && i < from->count; i++)
        status = stage_set(to, from->settings[i].name, from->settings[i].text, err);
    if (status)
        stage_clear(to);
    return status;
}

static void clear_settings(struct stage *stage)
{
    for (size_t i = 0; i < stage->count; i++) {
        free((char *)stage->settings[i].name);
        free((char *)stage->settings[i].text);
    }
    free(stage->settings);
    stage->settings = NULL;
    stage->count = stage->capacity = 0;
}

void stage_clear(struct stage *stage)
{
    clear_settings(stage);
    free(stage->name);
    memset(stage, 0, sizeof *stage);
}

int stage_create(struct registry *registry, int kind, const struct stage *stage, struct instance **instance,
                 struct lathe_error *err)
{
    const char *name = stage && stage->name ? stage->name : stage_default(kind);
    if (!name)
        return lathe_fail(err, LATHE_EINVAL, "no %s was chosen, and none is the default: name one", kind_name(kind));
    return instance_create(registry, kind, name, stage ? stage->settings : NULL, stage ? stage->count : 0, instance,
                           err);
}

/* ── --set ─────────────────────────────────────────────────────────────────────────── */

int overrides_add(struct stage_overrides *overrides, const char *word, struct lathe_error *err)
{
    const char *equals = strchr(word, '=');
    char kind_text[32];
    if (!equals || equals == word)
        return lathe_fail(err, LATHE_EINVAL, "--set %s: write kind=name or kind=name:option=value,option=value", word);
    snprintf(kind_text, sizeof kind_text, "%.*s", (int)(equals - word), word);
    int kind = kind_from_name(kind_text);
    if (kind < 1 || kind > LATHE_KIND_FRONTEND) {
        const char *kinds[LATHE_KIND_FRONTEND];
        for (int i = 0; i < LATHE_KIND_FRONTEND; i++)
            kinds[i] = kind_name(i + 1);
        const char *near = nearest_name(kind_text, kinds, LATHE_KIND_FRONTEND);
        return lathe_fail(err, LATHE_EINVAL, "--set %s: there is no kind of plugin \"%s\"%s%s%s", word, kind_text,
                          near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }

    struct option_setting settings[64];
    size_t count = 0;
    bool same = equals[1] == ':'; /* the name stays; settings_parse wants one */
    char *name = NULL, *text = malloc(strlen(equals + 1) + 2);
    if (!text)
        return no_memory(err);
    sprintf(text, "%s%s", same ? "_" : "", equals + 1);
    int status = settings_parse(text, &name, settings, sizeof settings / sizeof settings[0], &count, err);
    struct stage *stage = &overrides->stages[kind];
    if (!status && !same && (!stage->name || strcmp(stage->name, name))) {
        clear_settings(stage); /* another plugin: what was set belonged to the one before */
        status = stage_choose(stage, kind, name, err);
    }
    stage->kind = kind;
    for (size_t i = 0; !status && i < count; i++)
        status = stage_set(stage, settings[i].name, settings[i].text, err);
    free(text);
    return status;
}

int overrides_apply(const struct stage_overrides *overrides, int kind, struct stage *stage, struct lathe_error *err)
{
    const struct stage *override = &overrides->stages[kind];
    int status = LATHE_OK;
    const char *present = stage->name ? stage->name : stage_default(kind);
    if (override->name && (!present || strcmp(override->name, present)))
        clear_settings(stage);
    if (override->name)
        status = stage_choose(stage, kind, override->name, err);
    for (size_t i = 0; !status && i < override->count; i++)
        status = stage_set(stage, override->settings[i].name, override->settings[i].text, err);
    return status;
}

void overrides_clear(struct stage_overrides *overrides)
{
    for (size_t i = 0; i < sizeof overrides->stages / sizeof overrides->stages[0]; i++)
        stage_clear(&overrides->stages[i]);
}

/* ── model and tokenizer ───────────────────────────────────────────────────────────── */

/* The file that the instance was told to read, as its options say; "" if it has none. */
static void option_path(const struct instance *instance, char *path, size_t capacity)
{
    struct lathe_error ignored;
    path[0] = '\0';
    json_t *options = instance->options_json ? json_loads(instance->options_json, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(options, "path"));
    if (text && model_path_resolve(text, path, capacity, &ignored))
        snprintf(path, capacity, "%s", text);
    json_decref(options);
}

static int open_tokenizer(struct registry *registry, const struct stage *tokenizer, struct loaded_model *loaded,
                          struct lathe_error *err)
{
    const char *name =
        tokenizer && tokenizer->name ? tokenizer->name : stage_tokenizer_for(loaded->model->entry);
    const struct registry_entry *entry;
    struct stage stage = { 0 };
    int status = registry_find(registry, LATHE_KIND_TOKENIZER, name, &entry, err);
    if (!status && tokenizer)
        status = stage_copy(&stage, tokenizer, err);
    bool has_path = false;
    for (size_t i = 0; i < stage.count; i++)
        has_path |= !strcmp(stage.settings[i].name, "path");
    if (!status && !has_path && loaded->path[0] && find_option(entry->plugin, "path"))
        status = stage_set(&stage, "path", loaded->path, err);
    if (!status)
        status = instance_create(registry, LATHE_KIND_TOKENIZER, name, stage.settings, stage.count,
                                 &loaded->tokenizer, err);
    stage_clear(&stage);
    return status;
}

int loaded_model_open(struct registry *registry, const struct stage *model, const struct stage *tokenizer,
                      struct loaded_model *loaded, struct lathe_error *err)
{
    memset(loaded, 0, sizeof *loaded);
    int status = stage_create(registry, LATHE_KIND_MODEL, model, &loaded->model, err);
    if (!status) {
        option_path(loaded->model, loaded->path, sizeof loaded->path);
        status = open_tokenizer(registry, tokenizer, loaded, err);
    }
    if (!status)
        status = model_describe(loaded->model, &loaded->info, err);
    if (!status)
        status = tokenizer_describe(loaded->tokenizer, &loaded->tokens, err);
    if (!status && loaded->tokens.vocab_tokens > loaded->info.vocab_tokens)
        status = lathe_fail(err, LATHE_EINVAL,
                            "tokenizer \"%s\" has %u tokens, model \"%s\" only %u: they don't belong together",
                            loaded->tokenizer->entry->name, loaded->tokens.vocab_tokens, loaded->model->entry->name,
                            loaded->info.vocab_tokens);
    if (status)
        loaded_model_close(loaded);
    return status;
}

void loaded_model_close(struct loaded_model *loaded)
{
    instance_destroy(loaded->tokenizer);
    instance_destroy(loaded->model);
    memset(loaded, 0, sizeof *loaded);
}

/* ── an engine's other stages ──────────────────────────────────────────────────────── */

int parts_open_replica(struct registry *registry, const struct stage *stages, struct engine_parts *parts,
                       struct lathe_error *err)
{
    const struct {
        int kind;
        struct instance **place;
    } wanted[] = {
        { LATHE_KIND_SAMPLER, &parts->sampler },
        { LATHE_KIND_KVCACHE, &parts->kvcache },
        { LATHE_KIND_SCHEDULER, &parts->scheduler },
        { LATHE_KIND_BATCHING, &parts->batching },
    };
    int status = LATHE_OK;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        *wanted[i].place = NULL;
    for (size_t i = 0; !status && i < sizeof wanted / sizeof wanted[0]; i++)
        status = stage_create(registry, wanted[i].kind, &stages[wanted[i].kind], wanted[i].place, err);
    if (status)
        parts_close_replica(parts);
    return status;
}

void parts_close_replica(struct engine_parts *parts)
{
    instance_destroy(parts->sampler);
    instance_destroy(parts->kvcache);
    instance_destroy(parts->scheduler);
    instance_destroy(parts->batching);
    parts->sampler = parts->kvcache = parts->scheduler = parts->batching = NULL;
}

int parts_open(struct registry *registry, const struct loaded_model *loaded, const struct stage *stages,
               struct engine_parts *parts, struct lathe_error *err)
{
    memset(parts, 0, sizeof *parts);
    parts->tokenizer = loaded->tokenizer;
    parts->model = loaded->model;
    int status = stage_create(registry, LATHE_KIND_BUS, &stages[LATHE_KIND_BUS], &parts->bus, err);
    if (!status)
        status = parts_open_replica(registry, stages, parts, err);
    if (status)
        parts_close(parts);
    return status;
}

void parts_close(struct engine_parts *parts)
{
    parts_close_replica(parts);
    instance_destroy(parts->bus);
    memset(parts, 0, sizeof *parts);
}

/* SPDX-License-Identifier: MIT */
/* A second instance of a model and its tokenizer, made with the values that the first was made
 * with. Weights are read again: runs side by side are for virtual time, where a model is a few
 * figures (plugins/model/sim). */
#include "stages.h"

#include <stdio.h>

#include <jansson.h>

/* The options of an instance as a person would have written them; one left empty stays unsaid. */
static int stage_of(const struct instance *instance, struct stage *stage, struct lathe_error *err)
{
    const char *name;
    json_t *value, *options = instance->options_json ? json_loads(instance->options_json, 0, NULL) : NULL;
    int status = stage_choose(stage, instance->entry->kind, instance->entry->name, err);
    json_object_foreach(options, name, value) {
        char text[64];
        const char *written = text;
        if (json_is_string(value))
            written = json_string_value(value);
        else if (json_is_integer(value))
            snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        else if (json_is_real(value))
            snprintf(text, sizeof text, "%.17g", json_real_value(value));
        else
            snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
        if (!status && *written)
            status = stage_set(stage, name, written, err);
    }
    json_decref(options);
    return status;
}

int loaded_model_copy(struct registry *registry, const struct loaded_model *from, struct loaded_model *copy,
                      struct lathe_error *err)
{
    struct stage model = { 0 }, tokenizer = { 0 };
    int status = stage_of(from->model, &model, err);
    if (!status)
        status = stage_of(from->tokenizer, &tokenizer, err);
    if (!status)
        status = loaded_model_open(registry, &model, &tokenizer, copy, err);
    stage_clear(&model);
    stage_clear(&tokenizer);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* A second instance of a model and its tokenizer, made with the values that the first was made
 * with. Weights are read again: runs side by side are for virtual time, where a model is a few
 * figures (plugins/model/sim). */
#include "stages.h"

#include <stdio.h>

/* The options of an instance as a person wrote them. What nobody set stays unset, for a plugin may tell
 * the two apart: a default gives way to model/sim's profile, a value does not. */
static int stage_of(const struct instance *instance, struct stage *stage, struct lathe_error *err)
{
    const struct lathe_plugin *plugin = instance->plugin;
    int status = stage_choose(stage, instance->entry->kind, instance->entry->name, err);
    for (uint32_t i = 0; i < plugin->option_count && !status; i++) {
        const struct lathe_option_value *value = &instance->values[i];
        char number[64];
        const char *text = number;
        if (value->is_default)
            continue;
        switch (value->type) {
        case LATHE_OPTION_INTEGER: snprintf(number, sizeof number, "%lld", (long long)value->integer); break;
        case LATHE_OPTION_NUMBER: snprintf(number, sizeof number, "%.17g", value->number); break;
        case LATHE_OPTION_BOOLEAN: snprintf(number, sizeof number, "%s", value->integer ? "true" : "false"); break;
        default: text = value->text;
        }
        status = stage_set(stage, plugin->options[i].name, text, err);
    }
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

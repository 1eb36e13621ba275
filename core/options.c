/* SPDX-License-Identifier: MIT */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "text.h"

enum { PATH_TEXT_BYTES = 4096 };

static const char *const type_names[] = { "unknown", "string", "integer", "number", "boolean", "choice", "path" };

const char *option_type_name(int32_t type)
{
    return type >= LATHE_OPTION_STRING && type <= LATHE_OPTION_PATH ? type_names[type] : type_names[0];
}

int plain_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && n < 64 && name[n] == '\0';
}

/* --- values ------------------------------------------------------------------- */

static int bounded(const struct lathe_option *option)
{
    return option->min != 0 || option->max != 0;
}

static int check_range(const char *owner, const struct lathe_option *option, const char *text, double value,
                       struct lathe_error *err)
{
    if (!bounded(option) || (value >= option->min && value <= option->max))
        return LATHE_OK;
    const char *space = option->unit && *option->unit ? " " : "";
    return lathe_fail(err, LATHE_ERANGE, "%s: option `%s` is %.40s, but must be between %.15g and %.15g%s%s", owner,
                      option->name, text, option->min, option->max, space, option->unit ? option->unit : "");
}

static int parse_boolean(const char *text, int64_t *value)
{
    static const char *const yes[] = { "true", "yes", "on", "1" }, *const no[] = { "false", "no", "off", "0" };
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0) {
            *value = 1;
            return 1;
        }
        if (strcasecmp(text, no[i]) == 0) {
            *value = 0;
            return 1;
        }
    }
    return 0;
}

/* Which of "a|b|c" is it? −1: none. Fills names[] (pointing into `copy`) for a suggestion. */
static int find_choice(const char *choices, const char *text, char *copy, size_t capacity, const char **names,
                       size_t *count)
{
    int found = -1;
    char *rest = copy;
    *count = 0;
    snprintf(copy, capacity, "%s", choices);
    for (char *name; *count < 64 && (name = strsep(&rest, "|")) != NULL;) {
        if (strcmp(name, text) == 0)
            found = (int)*count;
        names[(*count)++] = name;
    }
    return found;
}

/* `text` to a typed value; value->text stays `text`. */
static int parse_value(const char *owner, const struct lathe_option *option, const char *text,
                       struct lathe_option_value *value, struct lathe_error *err)
{
    char *end;
    value->type = option->type;
    value->text = text;
    switch (option->type) {
    case LATHE_OPTION_INTEGER: {
        errno = 0;
        long long integer = strtoll(text, &end, 10);
        if (end == text || *end != '\0')
            return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` is \"%.60s\", but must be an integer", owner,
                              option->name, text);
        if (errno == ERANGE)
            return lathe_fail(err, LATHE_ERANGE, "%s: option `%s` is %.40s, which is beyond 64 bits", owner,
                              option->name, text);
        value->integer = integer;
        value->number = (double)integer;
        return check_range(owner, option, text, value->number, err);
    }
    case LATHE_OPTION_NUMBER:
        value->number = strtod(text, &end);
        if (end == text || *end != '\0' || !isfinite(value->number))
            return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` is \"%.60s\", but must be a finite number", owner,
                              option->name, text);
        return check_range(owner, option, text, value->number, err);
    case LATHE_OPTION_BOOLEAN:
        if (!parse_boolean(text, &value->integer))
            return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` is \"%.60s\", but must be true or false", owner,
                              option->name, text);
        value->number = (double)value->integer;
        return LATHE_OK;
    case LATHE_OPTION_CHOICE: {
        char copy[1024];
        const char *names[64];
        size_t count;
        int choice = find_choice(option->choices, text, copy, sizeof copy, names, &count);
        if (choice < 0) {
            const char *near = nearest_name(text, names, count);
            return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` is \"%.60s\", but must be one of %.200s%s%s%s", owner,
                              option->name, text, option->choices, near ? "; did you mean " : "", near ? near : "",
                              near ? "?" : "");
        }
        value->integer = choice;
        return LATHE_OK;
    }
    default: /* STRING and PATH are what they are */
        return LATHE_OK;
    }
}

/* --- the table ---------------------------------------------------------------- */

static int check_option(const struct lathe_option *o, uint32_t i, struct lathe_error *err)
{
    if (!o->name || !plain_name(o->name))
        return lathe_fail(err, LATHE_EINVAL, "options[%u].name is %s, expected [a-z0-9_]+", i,
                          o->name ? "malformed" : "NULL");
    if (o->type < LATHE_OPTION_STRING || o->type > LATHE_OPTION_PATH)
        return lathe_fail(err, LATHE_EINVAL, "option `%s`: type is %d, expected %d to %d", o->name, o->type,
                          LATHE_OPTION_STRING, LATHE_OPTION_PATH);
    if (!o->help) /* a unit may be NULL: none */
        return lathe_fail(err, LATHE_EINVAL, "option `%s`: help is NULL, expected a sentence", o->name);
    if (!(o->min <= o->max))
        return lathe_fail(err, LATHE_EINVAL, "option `%s`: min is %g and max %g, expected min ≤ max", o->name, o->min,
                          o->max);
    if (o->type == LATHE_OPTION_CHOICE && (!o->choices || !*o->choices || strlen(o->choices) >= 1024))
        return lathe_fail(err, LATHE_EINVAL, "option `%s`: choices is %s, expected \"a|b|c\"", o->name,
                          o->choices ? "empty or too long" : "NULL");
    if (o->default_text) {
        struct lathe_option_value value = { 0 };
        struct lathe_error why;
        if (parse_value("its default", o, o->default_text, &value, &why) != LATHE_OK)
            return lathe_fail(err, LATHE_EINVAL, "%s", why.message);
    }
    return LATHE_OK;
}

int options_check(const struct lathe_option *options, uint32_t count, struct lathe_error *err)
{
    if (count > OPTIONS_MAX)
        return lathe_fail(err, LATHE_EINVAL, "option_count is %u, expected at most %d", count, OPTIONS_MAX);
    if (count > 0 && !options)
        return lathe_fail(err, LATHE_EINVAL, "options is NULL, expected %u of them", count);
    for (uint32_t i = 0; i < count; i++) {
        int rc = check_option(&options[i], i, err);
        if (rc != LATHE_OK)
            return rc;
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(options[i].name, options[j].name) == 0)
                return lathe_fail(err, LATHE_EINVAL, "option `%s` stands twice in the table", options[i].name);
    }
    return LATHE_OK;
}

/* --- settings against the table ------------------------------------------------ */

static int unknown_option(const char *owner, const struct lathe_option *options, uint32_t count, const char *name,
                          struct lathe_error *err)
{
    const char *names[OPTIONS_MAX] = { NULL };
    if (count == 0)
        return lathe_fail(err, LATHE_EINVAL, "%s has no option `%.60s`; it takes none", owner, name);
    for (uint32_t i = 0; i < count; i++)
        names[i] = options[i].name;
    const char *near = nearest_name(name, names, count);
    if (near)
        return lathe_fail(err, LATHE_EINVAL, "%s has no option `%.60s`; did you mean `%s`?", owner, name, near);
    struct text list = { 0 };
    for (uint32_t i = 0; i < count; i++)
        text_print(&list, "%s%s", i > 0 ? ", " : "", names[i]);
    lathe_fail(err, LATHE_EINVAL, "%s has no option `%.60s`; it has: %.300s", owner, name,
               list.bytes ? list.bytes : "");
    text_free(&list);
    return LATHE_EINVAL;
}

/* A PATH of a model or tokenizer that names no file may be a short model name. */
static int resolve_path(int kind, const char *owner, const struct lathe_option *option, const char *text, char *path,
                        struct lathe_error *err)
{
    struct lathe_error why;
    int names_model = kind == LATHE_KIND_MODEL || kind == LATHE_KIND_TOKENIZER;
    if (strlen(text) >= PATH_TEXT_BYTES)
        return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` is a path of %zu bytes, expected less than %d", owner,
                          option->name, strlen(text), PATH_TEXT_BYTES);
    if (*text == '\0' || !names_model) {
        snprintf(path, PATH_TEXT_BYTES, "%s", text);
        return LATHE_OK;
    }
    int rc = model_path_resolve(text, path, PATH_TEXT_BYTES, &why);
    if (rc != LATHE_OK)
        return lathe_fail(err, rc, "%s: option `%s`: %.400s", owner, option->name, why.message);
    return LATHE_OK;
}

static int resolve_one(int kind, const char *owner, const struct lathe_option *option,
                       const struct option_setting *settings, size_t setting_count, struct lathe_option_value *value,
                       char *path, struct lathe_error *err)
{
    const char *text = option->default_text;
    value->is_default = 1;
    for (size_t i = 0; i < setting_count; i++)
        if (strcmp(settings[i].name, option->name) == 0) {
            if (!value->is_default)
                return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` is set twice", owner, option->name);
            text = settings[i].text;
            value->is_default = 0;
        }
    if (!text)
        return lathe_fail(err, LATHE_EINVAL, "%s: option `%s` (%s) must be given: %.200s", owner, option->name,
                          option_type_name(option->type), option->help);
    if (option->type == LATHE_OPTION_PATH) {
        int rc = resolve_path(kind, owner, option, text, path, err);
        if (rc != LATHE_OK)
            return rc;
        text = path;
    }
    return parse_value(owner, option, text, value, err);
}

int options_resolve(int kind, const char *owner, const struct lathe_option *options, uint32_t count,
                    const struct option_setting *settings, size_t setting_count, struct lathe_option_value **values,
                    struct lathe_error *err)
{
    for (size_t i = 0; i < setting_count; i++) {
        uint32_t j = 0;
        if (!settings[i].name || !settings[i].text)
            return lathe_fail(err, LATHE_EINVAL, "%s: a setting has no name or no value", owner);
        while (j < count && strcmp(settings[i].name, options[j].name) != 0)
            j++;
        if (j == count)
            return unknown_option(owner, options, count, settings[i].name, err);
    }
    struct lathe_option_value out[OPTIONS_MAX];
    struct text texts = { 0 };
    size_t at[OPTIONS_MAX];
    char path[PATH_TEXT_BYTES];
    memset(out, 0, sizeof out);
    for (uint32_t i = 0; i < count; i++) {
        int rc = resolve_one(kind, owner, &options[i], settings, setting_count, &out[i], path, err);
        if (rc != LATHE_OK) {
            text_free(&texts);
            return rc;
        }
        at[i] = texts.count;
        text_add(&texts, out[i].text, strlen(out[i].text) + 1);
    }
    size_t head = (count > 0 ? count : 1) * sizeof *out;
    char *block = texts.failed ? NULL : malloc(head + texts.count);
    if (!block) {
        text_free(&texts);
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for its options", owner);
    }
    if (texts.count > 0)
        memcpy(block + head, texts.bytes, texts.count);
    for (uint32_t i = 0; i < count; i++)
        out[i].text = block + head + at[i];
    memcpy(block, out, count * sizeof *out);
    text_free(&texts);
    *values = (struct lathe_option_value *)(void *)block;
    return LATHE_OK;
}

char *options_json(const struct lathe_option *options, const struct lathe_option_value *values, uint32_t count)
{
    struct text json = { 0 };
    text_print(&json, "{");
    for (uint32_t i = 0; i < count; i++) {
        text_print(&json, "%s", i > 0 ? ", " : "");
        text_json(&json, options[i].name);
        text_print(&json, ": ");
        switch (values[i].type) {
        case LATHE_OPTION_INTEGER: text_print(&json, "%lld", (long long)values[i].integer); break;
        case LATHE_OPTION_NUMBER: text_json_number(&json, values[i].number); break;
        case LATHE_OPTION_BOOLEAN: text_print(&json, "%s", values[i].integer ? "true" : "false"); break;
        default: text_json(&json, values[i].text); break;
        }
    }
    text_print(&json, "}");
    if (json.failed)
        text_free(&json);
    return json.bytes;
}

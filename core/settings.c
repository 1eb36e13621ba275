/* SPDX-License-Identifier: MIT */
/* Reading what stands after --set KIND=:
 *
 *     name[:option=value[,option=value…]]        value: up to the next comma, or "quoted"
 *
 * In quotes \" and \\ stand for " and \. The text is cut up where it lies. */
#include "registry.h"

#include <string.h>

/* The value at `at`, NUL-terminated in place; *next is after it. */
static int read_value(char *at, char **next, const char *option, struct lathe_error *err)
{
    if (*at != '"') {
        *next = at + strcspn(at, ",");
        return LATHE_OK;
    }
    char *to = at, *from = at + 1;
    while (*from != '"') {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        if (*from == '\0')
            return lathe_fail(err, LATHE_EINVAL, "option `%.60s`: its quoted value has no closing quote", option);
        *to++ = *from++;
    }
    if (from[1] != '\0' && from[1] != ',')
        return lathe_fail(err, LATHE_EINVAL, "option `%.60s`: a comma or the end is expected after the closing quote",
                          option);
    *next = from + 1;
    /* Move the end down onto the value, so that the caller's NUL ends it. */
    memmove(to, *next, strlen(*next) + 1);
    *next = to;
    return LATHE_OK;
}

int settings_parse(char *text, char **name, struct option_setting *settings, size_t capacity, size_t *count,
                   struct lathe_error *err)
{
    *count = 0;
    *name = text;
    char *at = strchr(text, ':');
    if (at)
        *at++ = '\0';
    if (**name == '\0')
        return lathe_fail(err, LATHE_EINVAL, "a plugin's name is expected before the options");
    while (at && *at != '\0') {
        char *option = at, *equals = at + strcspn(at, "=,");
        if (*equals != '=' || equals == option)
            return lathe_fail(err, LATHE_EINVAL, "\"%.*s\" is expected to read option=value", (int)(equals - option),
                              option);
        if (*count == capacity)
            return lathe_fail(err, LATHE_EFULL, "more than %zu options are given for `%.60s`", capacity, *name);
        *equals = '\0';
        char *next;
        int rc = read_value(equals + 1, &next, option, err);
        if (rc != LATHE_OK)
            return rc;
        int more = *next == ',';
        *next = '\0';
        settings[*count].name = option;
        settings[(*count)++].text = equals + 1;
        at = next + 1;
        if (!more)
            break;
        if (*at == '\0')
            return lathe_fail(err, LATHE_EINVAL, "another option is expected after the last comma");
    }
    return LATHE_OK;
}

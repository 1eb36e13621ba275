/* SPDX-License-Identifier: MIT */
/* A policy's .so used directly: opened, and created with the options of a text. For tests and
 * measurements. A mistake in the test ends it. */
#ifndef TESTS_POLICY_PLUGIN_H
#define TESTS_POLICY_PLUGIN_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/plugin.h>

enum { POLICY_OPTIONS = 32, POLICY_TEXT = 400 };

struct policy {
    const struct lathe_plugin *plugin;
    const void *api; /* the kind's */
    struct lathe_option_value values[POLICY_OPTIONS];
    char text[POLICY_TEXT];
};

static inline void policy_die(const char *what, const char *which)
{
    fprintf(stderr, "%s %s\n", what, which);
    abort();
}

static inline void policy_open(struct policy *p, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    p->plugin = library ? dlsym(library, LATHE_PLUGIN_SYMBOL) : NULL;
    if (!p->plugin)
        policy_die("no plugin:", library ? path : dlerror());
    p->api = p->plugin->api;
}

static inline void policy_value(const struct lathe_option *o, const char *text, struct lathe_option_value *v)
{
    *v = (struct lathe_option_value){ .type = o->type, .text = text };
    if (o->type == LATHE_OPTION_BOOLEAN) {
        v->integer = !strcmp(text, "true");
    } else if (o->type == LATHE_OPTION_CHOICE) {
        for (const char *c = o->choices; strncmp(c, text, strlen(text)) || (c[strlen(text)] && c[strlen(text)] != '|');
             v->integer++)
            if (!(c = strchr(c, '|')) || !*++c)
                policy_die("no such choice:", text);
    } else {
        v->number = strtod(text, NULL);
        v->integer = (int64_t)v->number;
    }
}

/* `options`: "name=value,name=value", NULL: defaults. */
static inline int policy_create(struct policy *p, const struct lathe_host *host, const char *options, void **self,
                                struct lathe_error *err)
{
    struct lathe_config config = { sizeof config, p->plugin->option_count, p->values };
    snprintf(p->text, sizeof p->text, "%s", options ? options : "");
    for (uint32_t i = 0; i < p->plugin->option_count; i++)
        policy_value(&p->plugin->options[i], p->plugin->options[i].default_text, &p->values[i]);
    for (char *word = p->text, *next; *word; word = next) {
        char *equals = strchr(word, '=');
        uint32_t i = 0;
        next = word + strcspn(word, ",");
        if (*next)
            *next++ = '\0';
        if (!equals)
            policy_die("not an option:", word);
        *equals = '\0';
        while (i < p->plugin->option_count && strcmp(p->plugin->options[i].name, word))
            i++;
        if (i == p->plugin->option_count)
            policy_die("no such option:", word);
        policy_value(&p->plugin->options[i], equals + 1, &p->values[i]);
    }
    return ((const struct lathe_api_head *)p->api)->create(host, &config, self, err);
}

#endif

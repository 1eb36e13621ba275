/* SPDX-License-Identifier: MIT */
/* Schedulers' .so used directly, with options by name, on requests of the test's own. */
#ifndef TESTS_POLICY_FIXTURE_H
#define TESTS_POLICY_FIXTURE_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/scheduler.h>

#include "support/counting_host.h"

enum { PLACES = 32, MAX_OPTIONS = 16 };

struct scheduler {
    const struct lathe_scheduler_api *api;
    void *self;
    struct counting_host host;
};

/* Options as "name", "value" …, NULL: the rest are defaults. */
static inline int scheduler_open(struct scheduler *s, const char *name, const char *const *settings, struct lathe_error *err)
{
    char path[4096];
    struct lathe_option_value values[MAX_OPTIONS] = { { 0 } };
    snprintf(path, sizeof path, "%s/scheduler/%s.so", TEST_PLUGINS, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct lathe_plugin *plugin = library ? dlsym(library, LATHE_PLUGIN_SYMBOL) : NULL;
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    struct lathe_config config = { .size = sizeof config, .count = plugin->option_count, .values = values };
    for (uint32_t i = 0; i < plugin->option_count && i < MAX_OPTIONS; i++) {
        const struct lathe_option *o = &plugin->options[i];
        const char *text = o->default_text;
        for (const char *const *set = settings; set && *set; set += 2)
            text = strcmp(set[0], o->name) ? text : set[1];
        values[i] = (struct lathe_option_value){ .type = o->type, .text = text };
        if (o->type == LATHE_OPTION_CHOICE) { /* "a|b|c": how many bars stand before it */
            const char *at = strstr(o->choices, text);
            for (const char *c = o->choices; c < at; c++)
                values[i].integer += *c == '|';
        } else if (o->type == LATHE_OPTION_BOOLEAN)
            values[i].integer = !strcmp(text, "true");
        else if (o->type == LATHE_OPTION_INTEGER || o->type == LATHE_OPTION_NUMBER) {
            values[i].number = strtod(text, NULL);
            values[i].integer = (int64_t)values[i].number;
        }
    }
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = PLACES, .seed = 7 };
    counting_host_init(&s->host);
    s->self = NULL;
    s->api = plugin->api;
    int status = s->api->create(&s->host.host, &config, &s->self, err);
    return status ? status : s->api->bind(s->self, &limits, err);
}

/* 0: all memory came back. */
static inline size_t scheduler_close(struct scheduler *s)
{
    s->api->destroy(s->self);
    s->self = NULL;
    return s->host.live_blocks;
}

struct ranked {
    struct lathe_ranking ranking;
    const struct lathe_request *requests[PLACES], *preempt[PLACES];
};

static inline int scheduler_rank(struct scheduler *s, const struct lathe_step_view *view, struct ranked *r, struct lathe_error *err)
{
    r->ranking = (struct lathe_ranking){ .capacity = PLACES, .requests = r->requests, .preempt = r->preempt,
                                         .preempt_capacity = PLACES, .wake_ns = INT64_MAX };
    return s->api->rank(s->self, view, &r->ranking, err);
}

#endif

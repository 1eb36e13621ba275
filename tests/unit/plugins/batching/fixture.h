/* SPDX-License-Identifier: MIT */
/* A batching's .so with a fake engine around it: requests whose lengths the test chooses, a pool
 * of blocks, one step at a time. Requests are named by letters, a is the first; the ranking is
 * in the order of arrival. */
#ifndef TESTS_UNIT_BATCHING_FIXTURE_H
#define TESTS_UNIT_BATCHING_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/batching.h>

#include "support/counting_host.h"

enum { FAKES = 400, FAKE_OPTIONS = 16 };

struct fake {
    struct counting_host host;
    const struct lathe_plugin *plugin;
    const struct lathe_batching_api *api;
    void *self;
    struct lathe_option_value values[FAKE_OPTIONS];
    struct lathe_error err;

    struct lathe_request requests[FAKES];
    uint32_t count;             /* requests so far */
    uint32_t held[FAKES];       /* blocks */
    uint32_t promised;
    uint32_t blocks, block_tokens, max_tokens, max_requests;
    int64_t now_ns;
    const struct lathe_request *ranked[FAKES];
    struct lathe_step_view view;
    struct lathe_ranking ranking;
    struct lathe_plan_entry entries[FAKES];
    struct lathe_plan plan;
    uint32_t rows, padding, questions; /* of the last step */
};

static uint32_t fake_free(const struct fake *f)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < f->count; i++)
        used += f->held[i];
    return f->blocks - used;
}

static int fake_can_reserve(void *engine, const struct lathe_request *req, uint32_t tokens)
{
    struct fake *f = engine;
    uint32_t want = (tokens + f->block_tokens - 1) / f->block_tokens, have = f->held[req->index];
    uint32_t need = want > have ? want - have : 0;
    f->questions++;
    if (need + f->promised > fake_free(f))
        return 0;
    f->promised += need;
    return 1;
}

/* An option as the host would read it; enough of it for tests. */
static void fake_option(struct fake *f, uint32_t i, const char *text)
{
    const struct lathe_option *o = &f->plugin->options[i];
    struct lathe_option_value *v = &f->values[i];
    *v = (struct lathe_option_value){ .type = o->type, .text = text };
    if (o->type == LATHE_OPTION_INTEGER || o->type == LATHE_OPTION_NUMBER) {
        v->number = strtod(text, NULL);
        v->integer = (int64_t)v->number;
    } else if (o->type == LATHE_OPTION_BOOLEAN) {
        v->integer = !strcmp(text, "true");
    } else if (o->type == LATHE_OPTION_CHOICE) {
        const char *at = strstr(o->choices, text);
        assert_non_null(at);
        for (const char *c = o->choices; c < at; c++)
            v->integer += *c == '|';
    }
}

/* `options`: name, value, …, NULL. The status of create; f->err says why. */
static int fake_create(struct fake *f, const char *name, const char *const *options)
{
    char path[4096];
    memset(f, 0, sizeof *f);
    snprintf(path, sizeof path, "%s/batching/%s.so", TEST_PLUGINS, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    f->plugin = dlsym(library, LATHE_PLUGIN_SYMBOL);
    f->api = f->plugin->api;
    assert_true(f->plugin->option_count <= FAKE_OPTIONS);
    for (uint32_t i = 0; i < f->plugin->option_count; i++)
        fake_option(f, i, f->plugin->options[i].default_text);
    for (; *options; options += 2) {
        uint32_t i = 0;
        while (i < f->plugin->option_count && strcmp(f->plugin->options[i].name, options[0]))
            i++;
        assert_true(i < f->plugin->option_count);
        fake_option(f, i, options[1]);
    }
    struct lathe_config config = { sizeof config, f->plugin->option_count, f->values };
    return f->api->create(counting_host_init(&f->host), &config, &f->self, &f->err);
}

/* An engine of `tokens` rows and `requests` slices a step, with a pool of `blocks` of 16 tokens. */
static void fake_open_with(struct fake *f, const char *name, uint32_t tokens, uint32_t requests, uint32_t blocks,
                           const char *const *options)
{
    struct lathe_batching_limits limits = { .size = sizeof limits, .max_requests = FAKES, .max_batch_tokens = tokens,
                                            .max_batch_requests = requests };
    assert_int_equal(fake_create(f, name, options), LATHE_OK);
    assert_int_equal(f->api->bind(f->self, &limits, &f->err), LATHE_OK);
    f->max_tokens = tokens;
    f->max_requests = requests;
    f->blocks = blocks;
    f->block_tokens = 16;
}
#define fake_open(f, name, tokens, requests, blocks, ...) \
    fake_open_with(f, name, tokens, requests, blocks, (const char *const[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

static void fake_close(struct fake *f)
{
    f->api->destroy(f->self);
    assert_int_equal(atomic_load(&f->host.live_blocks), 0);
}

static struct lathe_request *fake_arrive(struct fake *f, uint32_t prompt, uint32_t output)
{
    struct lathe_request *r = &f->requests[f->count];
    *r = (struct lathe_request){ .size = sizeof *r, .index = f->count, .id = f->count + 1,
                                 .state = LATHE_REQUEST_WAITING, .planned_ns = f->now_ns, .arrival_ns = f->now_ns,
                                 .admitted_ns = -1, .first_token_ns = -1, .deadline_ns = INT64_MAX,
                                 .prompt_tokens = prompt, .max_output_tokens = output };
    f->count++;
    return r;
}

/* One that decodes already: its prompt and `output` tokens are there. */
static struct lathe_request *fake_running(struct fake *f, uint32_t prompt, uint32_t output, uint32_t max_output)
{
    struct lathe_request *r = fake_arrive(f, prompt, max_output);
    r->state = LATHE_REQUEST_RUNNING;
    r->output_tokens = output;
    r->computed_tokens = prompt + output - 1;
    f->held[r->index] = (r->computed_tokens + f->block_tokens - 1) / f->block_tokens;
    return r;
}

/* Ranks all that live, `first` (or NULL) before the others, and fills. */
static void fake_fill_first(struct fake *f, const struct lathe_request *first)
{
    uint32_t n = 0, running = 0;
    if (first && first->state != LATHE_REQUEST_FINISHED)
        f->ranked[n++] = first;
    for (uint32_t i = 0; i < f->count; i++) {
        if (&f->requests[i] != first && f->requests[i].state != LATHE_REQUEST_FINISHED)
            f->ranked[n++] = &f->requests[i];
        running += f->requests[i].state == LATHE_REQUEST_RUNNING;
    }
    f->ranking = (struct lathe_ranking){ .capacity = FAKES, .count = n, .requests = f->ranked,
                                         .wake_ns = INT64_MAX };
    f->view = (struct lathe_step_view){ .size = sizeof f->view, .live_count = n, .live = f->ranked,
                                        .now_ns = f->now_ns, .waiting = n - running, .running = running,
                                        .max_batch_tokens = f->max_tokens, .max_batch_requests = f->max_requests,
                                        .blocks_available = fake_free(f), .blocks_total = f->blocks,
                                        .block_tokens = f->block_tokens, .can_reserve = fake_can_reserve,
                                        .engine = f };
    f->plan = (struct lathe_plan){ .capacity = FAKES, .entries = f->entries, .wake_ns = INT64_MAX };
    f->promised = f->rows = f->padding = f->questions = 0;
    assert_int_equal(f->api->fill(f->self, &f->view, &f->ranking, &f->plan, &f->err), LATHE_OK);
    for (uint32_t i = 0; i < f->plan.count; i++) {
        f->rows += f->entries[i].tokens + f->entries[i].padding;
        f->padding += f->entries[i].padding;
    }
}

static void fake_fill(struct fake *f)
{
    fake_fill_first(f, NULL);
}

/* "a 3 b 1": who gets how many tokens, in the order of the plan; padding is not shown. */
static const char *fake_text(const struct fake *f)
{
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < f->plan.count; i++)
        if (f->entries[i].request)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%c %u", at ? "  " : "",
                                   (char)('a' + f->entries[i].request->index), f->entries[i].tokens);
    return text;
}

static void fake_retire(struct fake *f, struct lathe_request *r, int32_t state)
{
    r->state = state;
    f->held[r->index] = 0;
    if (state != LATHE_REQUEST_FINISHED)
        r->computed_tokens = 0;
    if (f->api->retire)
        f->api->retire(f->self, r);
}

/* The plan happens; a millisecond goes by. */
static void fake_happen(struct fake *f)
{
    for (uint32_t i = 0; i < f->plan.count; i++) {
        if (!f->entries[i].request)
            continue;
        struct lathe_request *r = &f->requests[f->entries[i].request->index];
        r->state = LATHE_REQUEST_RUNNING;
        r->computed_tokens += f->entries[i].tokens;
        f->held[r->index] = (r->computed_tokens + f->block_tokens - 1) / f->block_tokens;
        if (lathe_request_pending(r) == 0 && ++r->output_tokens >= r->max_output_tokens)
            fake_retire(f, r, LATHE_REQUEST_FINISHED);
    }
    f->now_ns += 1000000;
}

static void fake_step(struct fake *f)
{
    fake_fill(f);
    fake_happen(f);
}

/* One step, and what it planned. */
#define EXPECT_STEP(f, text) \
    do { \
        fake_fill(f); \
        assert_string_equal(fake_text(f), text); \
        fake_happen(f); \
    } while (0)

static uint32_t fake_promises(struct fake *f)
{
    return f->api->promises(f->self);
}

#endif

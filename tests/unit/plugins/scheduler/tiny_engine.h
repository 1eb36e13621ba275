/* SPDX-License-Identifier: MIT */
/* An engine of a few lines for the schedulers' tests: each step the first `places` of the ranking
 * get all they have pending, decoding ones a token. */
#ifndef TESTS_SCHEDULER_TINY_ENGINE_H
#define TESTS_SCHEDULER_TINY_ENGINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lathe/scheduler.h>

#include "support/counting_host.h"
#include "support/policy_plugin.h"

enum { MOST = 128 };

struct tiny {
    struct counting_host host;
    struct policy policy;
    const struct lathe_scheduler_api *api;
    void *self;
    struct lathe_error err;
    struct lathe_request requests[MOST];
    const struct lathe_request *live[MOST], *ranked[MOST], *preempt[MOST];
    struct lathe_step_view view;
    struct lathe_ranking ranking;
    uint64_t next_id;
    int64_t now_ns, step_ns;
    uint32_t places, wanted, chunk; /* chunk: most tokens of one request in a step; 0: all */
    uint32_t cached[MOST], looks;   /* what the cache holds of a request's prompt, by index */
    uint64_t prompt_got[4], output_got[4]; /* tokens, by tenant; of prompts those computed once */
    char order[800], why[200];
};

static uint32_t tiny_cached(void *engine, const struct lathe_request *req)
{
    struct tiny *t = engine;
    t->looks++;
    return t->cached[req->index];
}

static void tiny_open(struct tiny *t, const char *name, const char *options, uint32_t places)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = MOST, .seed = 1,
                                             .cached_prefix = 1 };
    char path[4096];
    memset(t, 0, sizeof *t);
    snprintf(path, sizeof path, "%s/scheduler/%s.so", TEST_PLUGINS, name);
    policy_open(&t->policy, path);
    t->api = t->policy.api;
    t->places = places;
    t->step_ns = 1000000;
    assert_int_equal(policy_create(&t->policy, counting_host_init(&t->host), options, &t->self, &t->err), LATHE_OK);
    assert_int_equal(t->api->bind(t->self, &limits, &t->err), LATHE_OK);
}

static void tiny_close(struct tiny *t)
{
    t->api->destroy(t->self);
    assert_int_equal(t->host.live_blocks, 0);
}

/* Admitted now; what isn't said is: index, id, state, planned_ns (now), no deadline. */
static struct lathe_request *tiny_add(struct tiny *t, struct lathe_request shape)
{
    uint32_t i = 0;
    while (t->requests[i].id && t->requests[i].state != LATHE_REQUEST_FINISHED)
        i++;
    assert_true(i < MOST);
    shape.size = sizeof shape;
    shape.index = i;
    shape.id = ++t->next_id;
    shape.state = LATHE_REQUEST_WAITING;
    shape.planned_ns = shape.planned_ns ? shape.planned_ns : t->now_ns;
    shape.arrival_ns = t->now_ns;
    shape.admitted_ns = shape.first_token_ns = -1;
    shape.deadline_ns = shape.deadline_ns ? shape.deadline_ns : INT64_MAX;
    t->requests[i] = shape;
    assert_int_equal(t->api->admit(t->self, &t->requests[i], &t->err), LATHE_OK);
    return &t->requests[i];
}

static void tiny_rank(struct tiny *t)
{
    uint32_t n = 0, running = 0;
    for (uint32_t i = 0; i < MOST; i++) {
        if (!t->requests[i].id || t->requests[i].state == LATHE_REQUEST_FINISHED)
            continue;
        t->live[n++] = &t->requests[i];
        running += t->requests[i].state == LATHE_REQUEST_RUNNING;
    }
    t->view = (struct lathe_step_view){ .size = sizeof t->view, .live_count = n, .live = t->live, .now_ns = t->now_ns,
                                        .step = t->view.step, .waiting = n - running, .running = running,
                                        .max_batch_requests = t->places, .max_batch_tokens = 4096,
                                        .ranking_wanted = t->wanted, .engine = t, .cached_prefix = tiny_cached };
    t->ranking = (struct lathe_ranking){ .capacity = MOST, .requests = t->ranked, .preempt_capacity = MOST,
                                         .preempt = t->preempt };
    assert_int_equal(t->api->rank(t->self, &t->view, &t->ranking, &t->err), LATHE_OK);
}

/* The ranking's ids, "3 1 2". */
static const char *tiny_order(struct tiny *t)
{
    size_t used = 0;
    tiny_rank(t);
    t->order[0] = '\0';
    for (uint32_t i = 0; i < t->ranking.count && used < sizeof t->order - 24; i++)
        used += (size_t)snprintf(t->order + used, sizeof t->order - used, "%s%llu", i ? " " : "",
                                 (unsigned long long)t->ranked[i]->id);
    return t->order;
}

static const char *tiny_why(struct tiny *t, const struct lathe_request *r)
{
    t->api->explain(t->self, r, t->why, sizeof t->why);
    return t->why;
}

static void tiny_preempt(struct lathe_request *r)
{
    r->state = LATHE_REQUEST_PREEMPTED;
    r->computed_tokens = 0;
    r->preemptions++;
}

static void tiny_step(struct tiny *t)
{
    tiny_rank(t);
    for (uint32_t i = 0; i < t->ranking.preempt_count; i++)
        tiny_preempt(&t->requests[t->preempt[i]->index]);
    uint32_t served = t->ranking.count < t->places ? t->ranking.count : t->places;
    for (uint32_t i = 0; i < served; i++) {
        struct lathe_request *r = &t->requests[t->ranked[i]->index];
        if (r->admitted_ns < 0)
            r->admitted_ns = t->now_ns;
        r->state = LATHE_REQUEST_RUNNING;
    }
    t->now_ns += t->step_ns;
    t->host.now_ns = t->now_ns;
    t->view.step++;
    for (uint32_t i = 0; i < served; i++) {
        struct lathe_request *r = &t->requests[t->ranked[i]->index];
        uint32_t tokens = lathe_request_pending(r);
        tokens = t->chunk && tokens > t->chunk ? t->chunk : tokens;
        if (r->output_tokens == 0 && r->preemptions == 0)
            t->prompt_got[r->tenant % 4] += tokens;
        r->computed_tokens += tokens;
        t->api->progress(t->self, r, tokens);
        if (lathe_request_pending(r) > 0)
            continue;
        t->output_got[r->tenant % 4]++;
        if (++r->output_tokens == 1)
            r->first_token_ns = t->now_ns;
        if (r->output_tokens < r->max_output_tokens)
            continue;
        r->state = LATHE_REQUEST_FINISHED;
        t->api->retire(t->self, r);
    }
}

static void tiny_steps(struct tiny *t, int steps)
{
    while (steps-- > 0)
        tiny_step(t);
}

/* As a request: prompt, output, and that much predicted. */
static struct lathe_request sized(uint32_t prompt, uint32_t output)
{
    return (struct lathe_request){ .prompt_tokens = prompt, .max_output_tokens = output,
                                   .predicted_output_tokens = output };
}

#endif

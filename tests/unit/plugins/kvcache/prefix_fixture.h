/* SPDX-License-Identifier: MIT */
/* A prefix cache alone, and requests whose text is written as letters: one letter, one token. */
#ifndef TESTS_PREFIX_FIXTURE_H
#define TESTS_PREFIX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lathe/kvcache.h>

#include "support/counting_host.h"
#include "support/policy_plugin.h"

enum { PREFIX_REQUESTS = 8, PREFIX_CONTEXT = 64 };

struct guest {
    struct lathe_request req;
    int32_t tokens[PREFIX_CONTEXT];
    uint32_t cached;
};

struct kept_cache {
    struct counting_host host;
    struct policy plugin;
    const struct lathe_kvcache_api *api;
    void *self;
    struct guest guests[PREFIX_REQUESTS];
    struct lathe_kv_op op_space[64];
    struct lathe_kv_ops ops;
    struct lathe_kv_geometry shape;
    struct lathe_error err;
    uint64_t next_id;
};

static inline int prefix_try_layout(struct kept_cache *c, const char *options, struct lathe_kv_demand demand)
{
    memset(c, 0, sizeof *c);
    counting_host_init(&c->host);
    policy_open(&c->plugin, TEST_PLUGINS "/kvcache/prefix.so");
    c->api = c->plugin.api;
    assert_int_equal(policy_create(&c->plugin, &c->host.host, options, &c->self, &c->err), LATHE_OK);
    demand.size = sizeof demand;
    c->ops = (struct lathe_kv_ops){ .capacity = 64, .ops = c->op_space };
    return c->api->layout(c->self, &demand, &c->shape, &c->err);
}

/* Blocks of four tokens unless `options` say otherwise. */
static inline void prefix_open(struct kept_cache *c, const char *options)
{
    if (prefix_try_layout(c, options, (struct lathe_kv_demand){ .max_requests = PREFIX_REQUESTS, .context_tokens = PREFIX_CONTEXT,
                                                                .kv_bytes_per_token = 64 }) != LATHE_OK)
        fail_msg("%s", c->err.message);
}

static inline void prefix_close(struct kept_cache *c)
{
    c->api->destroy(c->self);
    assert_int_equal(c->host.live_blocks, 0);
}

/* What admit finds of `text`; more of the request by `like`. */
static inline struct guest *prefix_admit_as(struct kept_cache *c, uint32_t index, const char *text, struct lathe_request like)
{
    struct guest *g = &c->guests[index];
    uint32_t count = (uint32_t)strlen(text);
    for (uint32_t i = 0; i < count; i++)
        g->tokens[i] = text[i];
    g->req = like;
    g->req.size = sizeof g->req;
    g->req.index = index;
    g->req.id = ++c->next_id;
    g->req.prompt_tokens = count - g->req.output_tokens;
    g->req.tokens = g->tokens;
    if (c->api->admit(c->self, &g->req, &g->cached, &c->err) != LATHE_OK)
        fail_msg("%s", c->err.message);
    return g;
}

static inline struct guest *prefix_admit(struct kept_cache *c, uint32_t index, const char *text)
{
    return prefix_admit_as(c, index, text, (struct lathe_request){ 0 });
}

/* A step that computes all that is known; the operations it came with are in c->ops. */
static inline void prefix_compute(struct kept_cache *c, struct guest *g)
{
    uint32_t tokens = g->req.prompt_tokens + g->req.output_tokens;
    c->ops.count = 0;
    if (c->api->reserve(c->self, &g->req, tokens, &c->ops, &c->err) != LATHE_OK)
        fail_msg("%s", c->err.message);
    c->api->filled(c->self, &g->req, tokens);
}

/* Comes, is computed, goes. → what was found. */
static inline uint32_t prefix_serve(struct kept_cache *c, const char *text)
{
    struct guest *g = prefix_admit(c, PREFIX_REQUESTS - 1, text);
    uint32_t cached = g->cached;
    prefix_compute(c, g);
    c->api->release(c->self, &g->req);
    return cached;
}

/* The answer goes on: more letters, computed one by one. */
static inline void prefix_say(struct kept_cache *c, struct guest *g, const char *more)
{
    for (; *more; more++) {
        g->tokens[g->req.prompt_tokens + g->req.output_tokens++] = *more;
        prefix_compute(c, g);
    }
}

/* What a request with this text would find, without coming. */
static inline uint32_t prefix_look(struct kept_cache *c, const char *text, struct lathe_request like)
{
    int32_t tokens[PREFIX_CONTEXT];
    like.prompt_tokens = (uint32_t)strlen(text);
    for (uint32_t i = 0; i < like.prompt_tokens; i++)
        tokens[i] = text[i];
    like.id = UINT64_MAX;
    like.tokens = tokens;
    return c->api->cached_prefix(c->self, &like);
}

static inline struct lathe_kv_usage prefix_usage(struct kept_cache *c)
{
    struct lathe_kv_usage u;
    c->api->usage(c->self, &u);
    return u;
}

#endif

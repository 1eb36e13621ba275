/* SPDX-License-Identifier: MIT */
/* A KV cache from the build tree, laid out for a model of 2 layers with 3 KV heads, and steps as
 * the engine takes them. For tests. */
#ifndef TESTS_KVCACHE_FIXTURE_H
#define TESTS_KVCACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/counting_host.h"
#include "support/policy_plugin.h"
#include <lathe/kvcache.h>
#include <lathe/random.h>

enum { CACHE_LAYERS = 2, CACHE_HEADS = 3, CACHE_CONTEXT = 400, CACHE_OPS = 512 };

struct cache {
    struct policy plugin;
    struct counting_host host;
    const struct lathe_kvcache_api *api;
    void *self;
    struct lathe_kv_demand demand;
    struct lathe_kv_geometry geometry;
    struct lathe_kv_op op_space[CACHE_OPS];
    struct lathe_kv_ops ops;
    struct lathe_error err;
};

/* Created, and the demand of a model that can do everything; the test may change it before cache_layout. */
static inline int cache_create(struct cache *c, const char *name, const char *options)
{
    char path[512];
    memset(c, 0, sizeof *c);
    snprintf(path, sizeof path, "%s/kvcache/%s.so", TEST_PLUGINS, name);
    policy_open(&c->plugin, path);
    counting_host_init(&c->host);
    c->api = c->plugin.api;
    c->ops = (struct lathe_kv_ops){ .capacity = CACHE_OPS, .ops = c->op_space };
    c->demand = (struct lathe_kv_demand){
        .size = sizeof c->demand, .max_requests = 4, .context_tokens = CACHE_CONTEXT, .kv_bytes_per_token = 64,
        .layers = CACHE_LAYERS, .kv_heads = CACHE_HEADS, .head_width = 32,
        .kv_dtypes = 1u << LATHE_F32 | 1u << LATHE_F16 | 1u << LATHE_Q8_0, .key_mass = 1, .unrotated = 1,
    };
    return policy_create(&c->plugin, &c->host.host, options, &c->self, &c->err);
}

static inline int cache_layout(struct cache *c)
{
    return c->api->layout(c->self, &c->demand, &c->geometry, &c->err);
}

static inline void cache_open(struct cache *c, const char *name, const char *options)
{
    if (cache_create(c, name, options) || cache_layout(c))
        fail_msg("%s", c->err.message);
}

static inline void cache_close(struct cache *c)
{
    c->api->destroy(c->self);
    assert_int_equal(atomic_load(&c->host.live_blocks), 0);
}

static inline struct lathe_request cache_request(uint32_t index, uint64_t id)
{
    return (struct lathe_request){ .size = sizeof(struct lathe_request), .index = index, .id = id, .prompt_tokens = 1,
                                   .max_output_tokens = CACHE_CONTEXT - 1 };
}

static inline void cache_admit(struct cache *c, const struct lathe_request *req)
{
    uint32_t cached;
    if (c->api->admit(c->self, req, &cached, &c->err))
        fail_msg("%s", c->err.message);
    assert_int_equal(cached, 0);
}

/* A step that stores up to `tokens`; mass: (sets, keys), or NULL. */
static inline void cache_step(struct cache *c, const struct lathe_request *req, uint32_t tokens, const float *mass, uint32_t keys)
{
    c->ops.count = 0;
    if (c->api->reserve(c->self, req, tokens, &c->ops, &c->err))
        fail_msg("%s", c->err.message);
    if (mass)
        c->api->observe(c->self, req, mass, keys);
    c->api->filled(c->self, req, tokens);
}

/* The list is exactly this; count 0: everything may be looked at. */
static inline void cache_expect(struct cache *c, const struct lathe_request *req, const int32_t *wanted, uint32_t count)
{
    const int32_t *list;
    uint32_t found;
    c->api->kept(c->self, req, &list, &found);
    assert_int_equal(found, count);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(list[i], wanted[i]);
}

static inline uint32_t cache_roll(uint32_t *draws, uint32_t below)
{
    return (uint32_t)(lathe_random_u64(11, LATHE_RANDOM_USER, 3, (*draws)++) % below);
}

#endif

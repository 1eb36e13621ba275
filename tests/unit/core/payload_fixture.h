/* SPDX-License-Identifier: MIT */
/* tokenizer/byte, model/tiny with a context of 8 blocks of 4 tokens, and sampler/greedy as
 * services on bus/direct. */
#ifndef TESTS_PAYLOAD_FIXTURE_H
#define TESTS_PAYLOAD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "payload.h"
#include "registry.h"
#include "service.h"
#include <lathe/sampler.h>
#include <lathe/tokenizer.h>

enum { FIXTURE_BLOCKS = 8, FIXTURE_BLOCK_TOKENS = 4 };

struct fixture {
    struct registry *registry;
    struct instance *tokenizer, *model, *sampler, *bus_instance;
    const struct lathe_bus_api *bus;
    void *bus_self;
    void *context; /* the model's */
    struct lathe_model_info info;
    struct lathe_service_method methods[3][4];
    struct lathe_service services[3];
};

static inline struct instance *fixture_instance(struct fixture *f, int kind, const char *name)
{
    struct instance *instance = NULL;
    struct lathe_error err = { 0 };
    if (instance_create(f->registry, kind, name, NULL, 0, &instance, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return instance;
}

static inline void *fixture_context(struct fixture *f)
{
    const struct lathe_model_api *api = f->model->api;
    struct lathe_error err = { 0 };
    void *context = NULL;
    struct lathe_context_params params = {
        .size = sizeof params, .block_tokens = FIXTURE_BLOCK_TOKENS, .blocks = FIXTURE_BLOCKS, .batch_tokens = 64,
        .batch_slices = 8, .context_tokens = 32, .output_rows = 64, .kv_dtype = LATHE_F32,
    };
    if (api->context_create(f->model->self, &params, &context, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return context;
}

static inline void fixture_add(struct fixture *f, int at, const char *name, uint32_t count)
{
    struct lathe_error err = { 0 };
    f->services[at] = (struct lathe_service){ .size = sizeof f->services[at], .method_count = count, .name = name,
                                              .methods = f->methods[at] };
    if (f->bus->add_service(f->bus_self, &f->services[at], &err) != LATHE_OK)
        fail_msg("%s", err.message);
}

static inline void fixture_open(struct fixture *f)
{
    struct lathe_error err = { 0 };
    const char *folders[] = { TEST_PLUGINS, NULL };
    memset(f, 0, sizeof *f);
    if (registry_open(folders, &f->registry, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    f->tokenizer = fixture_instance(f, LATHE_KIND_TOKENIZER, "byte");
    f->model = fixture_instance(f, LATHE_KIND_MODEL, "tiny");
    f->sampler = fixture_instance(f, LATHE_KIND_SAMPLER, "greedy");
    f->bus_instance = fixture_instance(f, LATHE_KIND_BUS, "direct");
    f->bus = f->bus_instance->api;
    f->bus_self = f->bus_instance->self;
    f->context = fixture_context(f);
    assert_int_equal(model_describe(f->model, &f->info, &err), LATHE_OK);

    const struct lathe_tokenizer_api *tokenizer = f->tokenizer->api;
    const struct lathe_model_api *model = f->model->api;
    const struct lathe_sampler_api *sampler = f->sampler->api;
    assert_int_equal(sampler->bind(f->sampler->self, f->info.vocab_tokens, &err), LATHE_OK);
    f->methods[0][0] = (struct lathe_service_method){ .name = "describe",
                                                      .function = tokenizer->describe,
                                                      .self = f->tokenizer->self };
    f->methods[0][1] =
        (struct lathe_service_method){ .name = "encode", .function = tokenizer->encode, .self = f->tokenizer->self };
    f->methods[0][2] =
        (struct lathe_service_method){ .name = "decode", .function = tokenizer->decode, .self = f->tokenizer->self };
    f->methods[1][0] =
        (struct lathe_service_method){ .name = "describe", .function = model->describe, .self = f->model->self };
    f->methods[1][1] =
        (struct lathe_service_method){ .name = "forward", .function = model->forward, .self = f->context };
    f->methods[2][0] =
        (struct lathe_service_method){ .name = "sample", .function = sampler->sample, .self = f->sampler->self };
    fixture_add(f, 0, "tokenizer", 3);
    fixture_add(f, 1, "model", 2);
    fixture_add(f, 2, "sampler", 1);
}

static inline void fixture_close(struct fixture *f)
{
    const struct lathe_model_api *model = f->model->api;
    instance_destroy(f->bus_instance);
    model->context_destroy(f->context);
    instance_destroy(f->sampler);
    instance_destroy(f->model);
    instance_destroy(f->tokenizer);
    registry_close(f->registry);
}

#endif

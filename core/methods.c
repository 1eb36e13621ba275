/* SPDX-License-Identifier: MIT */
#include "methods.h"

static struct lathe_service_method method(const char *name, lathe_method *function, void *self, uint32_t flags)
{
    return (struct lathe_service_method){ .name = name, .function = function, .self = self, .flags = flags };
}

uint32_t methods_of_tokenizer(const struct lathe_tokenizer_api *api, void *self,
                              struct lathe_service_method methods[TOKENIZER_METHODS])
{
    uint32_t n = 0;
    methods[n++] = method("describe", api->describe, self, LATHE_METHOD_IDEMPOTENT);
    methods[n++] = method("encode", api->encode, self, LATHE_METHOD_IDEMPOTENT);
    methods[n++] = method("decode", api->decode, self, LATHE_METHOD_IDEMPOTENT);
    if (api->apply_template)
        methods[n++] = method("apply_template", api->apply_template, self, LATHE_METHOD_IDEMPOTENT);
    return n;
}

uint32_t methods_of_model(const struct lathe_model_api *api, void *self, void *context,
                          struct lathe_service_method methods[MODEL_METHODS])
{
    methods[0] = method("describe", api->describe, self, LATHE_METHOD_IDEMPOTENT);
    methods[1] = method("forward", api->forward, context, LATHE_METHOD_IDEMPOTENT | LATHE_METHOD_STATEFUL);
    return MODEL_METHODS;
}

uint32_t methods_of_sampler(const struct lathe_sampler_api *api, void *self,
                            struct lathe_service_method methods[SAMPLER_METHODS])
{
    methods[0] = method("sample", api->sample, self, LATHE_METHOD_IDEMPOTENT | LATHE_METHOD_STATEFUL);
    return SAMPLER_METHODS;
}

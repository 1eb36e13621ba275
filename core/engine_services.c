/* SPDX-License-Identifier: MIT */
/* An engine's services on the bus.
 *
 *     tokenizer        encode, decode …          shared by all replicas: whoever opens first brings it
 *     model            describe, forward         "model:1" for replica 1, and so on
 *     sampler          sample                    goes with the model's workers: logits stay where they are
 *     scheduler        rank, explain             local: the policies are called with pointers, on the
 *     batching         fill                      engine's thread; these methods are their adapters, so
 *     memory           reserve, usage, table     that they are counted, timed and traced like the rest
 *
 * A bus whose workers are processes gets a recipe with tokenizer and model (recipe.h), and makes
 * the instances there. */
#include "engine_internal.h"

#include <stdlib.h>
#include <string.h>

#include "methods.h"
#include "recipe.h"

static void name_service(struct engine *e, int which, const char *name)
{
    struct engine_service *s = &e->services[which];
    if (e->params.replica == 0 || which == SERVICE_TOKENIZER)
        snprintf(s->name, sizeof s->name, "%s", name);
    else
        snprintf(s->name, sizeof s->name, "%s:%u", name, e->params.replica);
}

static void method(struct engine_service *s, const char *name, lathe_method *function, void *self, uint32_t flags)
{
    s->methods[s->what.method_count++] =
        (struct lathe_service_method){ .name = name, .function = function, .self = self, .flags = flags };
}

static void describe_services(struct engine *e)
{
    static const char *const names[] = { "tokenizer", "model", "sampler", "scheduler", "batching", "memory" };
    const struct engine_parts *parts = &e->params.parts;
    const struct instance *const behind[] = { parts->tokenizer, parts->model,    parts->sampler,
                                              parts->scheduler, parts->batching, parts->kvcache };
    for (int i = 0; i < SERVICE_COUNT; i++) {
        struct engine_service *s = &e->services[i];
        name_service(e, i, names[i]);
        s->what = (struct lathe_service){ .size = sizeof s->what, .name = s->name, .methods = s->methods, .workers = 1,
                                          .concurrency = behind[i]->plugin->concurrency,
                                          .flags = i >= SERVICE_SCHEDULER ? LATHE_SERVICE_LOCAL : 0 };
    }

    const uint32_t again = LATHE_METHOD_IDEMPOTENT;
    struct engine_service *s = &e->services[SERVICE_TOKENIZER];
    s->what.workers = e->params.tokenizer_workers ? e->params.tokenizer_workers : 1;
    s->what.method_count = methods_of_tokenizer(parts->tokenizer->api, parts->tokenizer->self, s->methods);
    s = &e->services[SERVICE_MODEL];
    s->what.method_count = methods_of_model(e->model, parts->model->self, e->model_context, s->methods);
    s = &e->services[SERVICE_SAMPLER];
    snprintf(s->with, sizeof s->with, "%s", e->services[SERVICE_MODEL].name);
    s->what.with = s->with;
    s->what.method_count = methods_of_sampler(e->sampler, parts->sampler->self, s->methods);
    method(&e->services[SERVICE_SCHEDULER], "rank", step_rank, e, 0);
    method(&e->services[SERVICE_SCHEDULER], "explain", local_explain, e, again);
    method(&e->services[SERVICE_BATCHING], "fill", step_fill, e, 0);
    method(&e->services[SERVICE_MEMORY], "reserve", step_reserve, e, 0);
    method(&e->services[SERVICE_MEMORY], "usage", local_usage, e, again);
    method(&e->services[SERVICE_MEMORY], "table", local_table, e, again);
}

static int resolve(struct engine *e, int which, const char *name, const struct lathe_endpoint **endpoint,
                   struct lathe_error *err)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", e->services[which].name, name);
    return e->bus->resolve(e->bus_self, full, endpoint, err);
}

/* From which a worker process makes tokenizer, model and sampler. */
static int write_recipes(struct engine *e, struct lathe_error *err)
{
    const struct engine_parts *parts = &e->params.parts;
    struct engine_service *tokenizer = &e->services[SERVICE_TOKENIZER], *model = &e->services[SERVICE_MODEL];
    char *of_tokenizer = NULL, *of_model = NULL;
    int status = recipe_of_tokenizer(parts->tokenizer, &of_tokenizer, err);
    if (status == LATHE_OK)
        status = recipe_of_model(model->name, parts->model, &e->context, e->services[SERVICE_SAMPLER].name, parts->sampler,
                                 e->model_info.vocab_tokens, &of_model, err);
    tokenizer->what.recipe = tokenizer->recipe = of_tokenizer;
    tokenizer->what.recipe_bytes = of_tokenizer ? strlen(of_tokenizer) : 0;
    model->what.recipe = model->recipe = of_model;
    model->what.recipe_bytes = of_model ? strlen(of_model) : 0;
    return status;
}

int services_add(struct engine *e, struct lathe_error *err)
{
    describe_services(e);
    int status = e->remote ? write_recipes(e, err) : LATHE_OK;
    for (int i = 0; i < SERVICE_COUNT && status == LATHE_OK; i++) {
        struct lathe_error none;
        if (i == SERVICE_TOKENIZER && resolve(e, i, "encode", &e->encode, &none) == LATHE_OK)
            continue; /* another replica brought it */
        status = e->bus->add_service(e->bus_self, &e->services[i].what, err);
        e->services[i].added = status == LATHE_OK;
    }
    const struct {
        int service;
        const char *method;
        const struct lathe_endpoint **endpoint;
    } wanted[] = {
        { SERVICE_TOKENIZER, "encode", &e->encode }, { SERVICE_TOKENIZER, "decode", &e->decode },
        { SERVICE_MODEL, "forward", &e->forward },   { SERVICE_SAMPLER, "sample", &e->sample },
        { SERVICE_SCHEDULER, "rank", &e->rank },     { SERVICE_BATCHING, "fill", &e->fill },
        { SERVICE_MEMORY, "reserve", &e->reserve },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && status == LATHE_OK; i++)
        status = resolve(e, wanted[i].service, wanted[i].method, wanted[i].endpoint, err);
    return status;
}

void services_remove(struct engine *e)
{
    struct lathe_error ignored;
    for (int i = SERVICE_COUNT; i-- > 0;) { /* the sampler before the model that it goes with */
        if (e->services[i].added)
            e->bus->remove_service(e->bus_self, e->services[i].name, &ignored);
        e->services[i].added = false;
        free(e->services[i].recipe);
        e->services[i].recipe = NULL;
    }
}

const char *engine_service(const struct engine *e, uint32_t number)
{
    return number < SERVICE_COUNT ? e->services[number].name : NULL;
}

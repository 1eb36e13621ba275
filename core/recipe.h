/* SPDX-License-Identifier: MIT */
/* A recipe: from which a worker process makes services itself, in another address space.
 *
 *     {"services": [
 *        {"service": "model", "kind": "model", "plugin": "/…/plugins/model/llama.so", "name": "llama",
 *         "options": {"path": "/…/model.gguf", …}, "context": {"block_tokens": 16, "blocks": 512, …}},
 *        {"service": "sampler", "kind": "sampler", …, "vocab_tokens": 49152}]}
 *
 * The host writes it from instances that it has, with every option's value as used, so that a
 * worker decides nothing of its own. Paths are made absolute: a worker that is started again
 * later must find the same files. To a bus it is opaque bytes (struct lathe_service: recipe). */
#ifndef CORE_RECIPE_H
#define CORE_RECIPE_H

#include "clock.h"
#include "registry.h"
#include <lathe/bus.h>
#include <lathe/model.h>

/* *json is malloc'd: free it; its strlen is recipe_bytes. [main or loader] */
int recipe_of_tokenizer(const struct instance *tokenizer, char **json, struct lathe_error *err);
/* Services of those names: model and context; `sampler` (NULL: none) is served by the same worker, bound to `vocab_tokens`. */
int recipe_of_model(const char *model_service, const struct instance *model, const struct lathe_context_params *context,
                    const char *sampler_service, const struct instance *sampler, uint32_t vocab_tokens, char **json,
                    struct lathe_error *err);
/* Service "echo", which no plugin is behind (echo.h). */
int recipe_of_echo(char **json, struct lathe_error *err);

/* What a recipe was made into: services with their methods, instances and contexts behind them. */
struct recipe;

/* Libraries are opened, instances made and bound, in the recipe's order. `clock` outlives it. The
 * error names the service. [main or loader] */
int recipe_open(const void *json, size_t bytes, struct clock *clock, struct recipe **recipe, struct lathe_error *err);
void recipe_close(struct recipe *recipe); /* NULL is ignored */
const struct lathe_service *recipe_services(const struct recipe *recipe, uint32_t *count);

#endif

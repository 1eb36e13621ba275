/* SPDX-License-Identifier: MIT */
/* The methods of the services that a plugin's table is: one list for the engine, which calls
 * them in this process, and for a worker process, which serves them from another.
 *
 *     tokenizer   describe, encode, decode, apply_template (if the plugin has one)
 *     model       describe (of the weights), forward (of a context)
 *     sampler     sample (once bound to a vocabulary)
 *
 * All may be repeated, model.forward too: the same positions are computed again (unless its
 * message moves blocks, which the engine marks). But forward leans on the keys and values that
 * earlier calls left in its worker, and sample on logits that lie in the last one's reply: they
 * are LATHE_METHOD_STATEFUL. */
#ifndef CORE_METHODS_H
#define CORE_METHODS_H

#include <lathe/bus.h>
#include <lathe/model.h>
#include <lathe/sampler.h>
#include <lathe/tokenizer.h>

enum { TOKENIZER_METHODS = 4, MODEL_METHODS = 2, SAMPLER_METHODS = 1, METHODS_MAX = 4 };

/* Each fills `methods` and returns how many. A self may be NULL: the methods are then served
 * elsewhere. */
uint32_t methods_of_tokenizer(const struct lathe_tokenizer_api *api, void *self,
                              struct lathe_service_method methods[TOKENIZER_METHODS]);
uint32_t methods_of_model(const struct lathe_model_api *api, void *self, void *context,
                          struct lathe_service_method methods[MODEL_METHODS]);
uint32_t methods_of_sampler(const struct lathe_sampler_api *api, void *self,
                            struct lathe_service_method methods[SAMPLER_METHODS]);

#endif

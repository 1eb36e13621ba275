/* SPDX-License-Identifier: MIT */
/* Calling services with flat messages from the host: the tokenizer's and model's
 * describe, encode, decode and templates, for the engine, Lua and the command line alike.
 * Buffers are grown here, on the slow side of the step loop, never in it. */
#ifndef CORE_SERVICE_H
#define CORE_SERVICE_H

#include <stddef.h>
#include <stdint.h>

#include "registry.h"
#include <lathe/model.h>
#include <lathe/tokenizer.h>

int model_describe(const struct instance *model, struct lathe_model_info *info, struct lathe_error *err);
int tokenizer_describe(const struct instance *tokenizer, struct lathe_tokenizer_info *info, struct lathe_error *err);

/* *tokens is malloc'd: free it. flags: enum lathe_encode_flags. [main or engine] */
int tokenizer_encode(const struct instance *tokenizer, const char *text, size_t bytes, uint32_t flags,
                     int32_t **tokens, size_t *count, struct lathe_error *err);
/* *text is malloc'd and NUL-terminated (the NUL isn't counted). flags: enum lathe_decode_flags. */
int tokenizer_decode(const struct instance *tokenizer, const int32_t *tokens, size_t count, uint32_t flags,
                     char **text, size_t *bytes, struct lathe_error *err);
/* `messages_json`: [{"role":"user","content":"…"}, …]; source NULL: the model's own template. */
int tokenizer_template(const struct instance *tokenizer, const char *messages_json, int add_generation_prompt,
                       const char *source, char **text, size_t *bytes, struct lathe_error *err);

#endif

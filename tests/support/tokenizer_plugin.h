/* SPDX-License-Identifier: MIT */
/* A tokenizer's .so used directly: loaded from the build tree, given a counting host, called
 * with flat messages. For tests. */
#ifndef TESTS_TOKENIZER_PLUGIN_H
#define TESTS_TOKENIZER_PLUGIN_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/tokenizer.h>

#include "support/counting_host.h"

struct tokenizer {
    const struct lathe_tokenizer_api *api;
    void *self;
};

static inline const struct lathe_tokenizer_api *tokenizer_load(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer/%s.so", TEST_PLUGINS, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct lathe_plugin *plugin = library ? dlsym(library, LATHE_PLUGIN_SYMBOL) : NULL;
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    return plugin->api;
}

/* `path` NULL: a tokenizer without options. */
static inline int tokenizer_open(struct tokenizer *t, const struct lathe_host *host, const char *name, const char *path,
                                 struct lathe_error *err)
{
    struct lathe_option_value value = {.type = LATHE_OPTION_PATH, .text = path};
    struct lathe_config config = {sizeof config, path ? 1 : 0, &value};
    t->api = tokenizer_load(name);
    t->self = NULL;
    return t->api->create(host, &config, &t->self, err);
}

static inline void tokenizer_close(struct tokenizer *t)
{
    t->api->destroy(t->self);
}

/* The reply is malloc'd: free it. NULL on failure. */
static inline struct lathe_encode_out *tokenizer_ids(const struct tokenizer *t, const void *text, size_t bytes,
                                                     uint32_t flags, struct lathe_error *err)
{
    size_t in_bytes = sizeof(struct lathe_encode_in) + 64 + bytes, out_bytes = sizeof(struct lathe_encode_out) + 128 + 4 * (bytes + 1);
    struct lathe_encode_in *in = calloc(1, in_bytes);
    struct lathe_encode_out *out = calloc(1, out_bytes);
    in->head = (struct lathe_message){.capacity = in_bytes, .bytes = sizeof *in};
    in->flags = flags;
    if (bytes)
        memcpy(lathe_message_add(&in->head, &in->text, bytes, 1), text, bytes);
    out->head.capacity = out_bytes;
    int rc = t->api->encode(t->self, in, out, err);
    free(in);
    if (!rc)
        return out;
    free(out);
    return NULL;
}

/* Decodes with a state that goes on; the reply is malloc'd. NULL on failure. */
static inline struct lathe_decode_out *tokenizer_text(const struct tokenizer *t, const int32_t *tokens, size_t count,
                                                      uint32_t flags, struct lathe_decode_state *state, size_t room,
                                                      struct lathe_error *err)
{
    size_t in_bytes = sizeof(struct lathe_decode_in) + 64 + 4 * count, out_bytes = sizeof(struct lathe_decode_out) + room;
    struct lathe_decode_in *in = calloc(1, in_bytes);
    struct lathe_decode_out *out = calloc(1, out_bytes);
    in->head = (struct lathe_message){.capacity = in_bytes, .bytes = sizeof *in};
    in->flags = flags;
    in->state = *state;
    if (count)
        memcpy(lathe_message_add(&in->head, &in->tokens, count, 4), tokens, 4 * count);
    out->head.capacity = out_bytes;
    int rc = t->api->decode(t->self, in, out, err);
    free(in);
    if (!rc) {
        *state = out->state;
        return out;
    }
    free(out);
    return NULL;
}

#endif

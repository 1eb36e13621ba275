/* SPDX-License-Identifier: MIT */
/* A call is: lay the input out, guess the output's size, call, and on LATHE_EFULL once more
 * with the room that the method's `needed` names. What a method says it wrote is checked
 * before it is copied out: a plugin's mistake must not become a wild read. */
#include "service.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, SPAN_SLACK = 2 * ALIGNMENT, MAX_TRIES = 4 };

static const char *name_of(const struct instance *instance)
{
    return instance->entry ? instance->entry->name : "plugin";
}

/* A zeroed message with room for `fixed` bytes of fields and `variable` bytes of spans; fields
 * are in use. NULL: no memory, or the sum wraps. Freed with free(). */
static void *make_message(size_t fixed, size_t variable)
{
    size_t total;
    if (__builtin_add_overflow(fixed + SPAN_SLACK, variable, &total) || total > SIZE_MAX - ALIGNMENT)
        return NULL;
    total = (total + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    struct lathe_message *message = aligned_alloc(ALIGNMENT, total);
    if (!message)
        return NULL;
    memset(message, 0, fixed);
    message->capacity = total;
    message->bytes = fixed;
    return message;
}

static int no_memory(const struct instance *instance, const char *method, size_t bytes, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for %s of %zu bytes", name_of(instance), method, bytes);
}

static int bad_reply(const struct instance *instance, const char *method, struct lathe_error *err)
{
    return lathe_fail(err, LATHE_EINTERNAL, "%s: the reply of %s points outside of its own message", name_of(instance),
                      method);
}

/* --- describe ------------------------------------------------------------------------ */

static int describe(const struct instance *instance, lathe_method *method, void *info, size_t bytes,
                    struct lathe_error *err)
{
    struct lathe_empty in = { { .capacity = sizeof in, .bytes = sizeof in } };
    struct lathe_message *head = info;
    memset(info, 0, bytes);
    head->capacity = bytes;
    int rc = method(instance->self, &in, info, err);
    return rc > 0 ? lathe_fail(err, LATHE_EINTERNAL, "%s: describe returned %d", name_of(instance), rc) : rc;
}

int model_describe(const struct instance *model, struct lathe_model_info *info, struct lathe_error *err)
{
    const struct lathe_model_api *api = model->api;
    return describe(model, api->describe, info, sizeof *info, err);
}

int tokenizer_describe(const struct instance *tokenizer, struct lathe_tokenizer_info *info, struct lathe_error *err)
{
    const struct lathe_tokenizer_api *api = tokenizer->api;
    int rc = describe(tokenizer, api->describe, info, sizeof *info, err);
    if (rc == LATHE_OK && info->stop_count > LATHE_TOKENIZER_MAX_STOPS)
        return lathe_fail(err, LATHE_EINTERNAL, "%s: describe says %u stop tokens, at most %d fit", name_of(tokenizer),
                          info->stop_count, LATHE_TOKENIZER_MAX_STOPS);
    return rc;
}

/* --- calls with a reply of unknown size ------------------------------------------------ */

/* What the three replies have in common: where `needed` and the one span lie. */
struct reply_shape {
    const char *method;
    size_t fixed, needed_at, span_at, element_bytes;
};

#define REPLY_SHAPE(method, type, span, element) \
    { method, sizeof(struct type), offsetof(struct type, needed), offsetof(struct type, span), element }

/* Calls until the reply fits. On success *elements is malloc'd with `count` elements and one
 * zeroed element more. */
static int call(const struct instance *instance, lathe_method *method, const struct reply_shape *shape,
                const void *in, size_t guess, void **elements, size_t *count, struct lathe_error *err)
{
    size_t room = guess;
    for (int i = 0; i < MAX_TRIES; i++) {
        size_t bytes;
        struct lathe_message *out = NULL;
        if (!__builtin_mul_overflow(room, shape->element_bytes, &bytes))
            out = make_message(shape->fixed, bytes);
        if (!out)
            return no_memory(instance, shape->method, room, err);
        int rc = method(instance->self, in, out, err);
        uint64_t needed;
        struct lathe_span span;
        memcpy(&needed, (char *)out + shape->needed_at, sizeof needed);
        memcpy(&span, (char *)out + shape->span_at, sizeof span);
        if (rc == LATHE_OK) {
            if (!lathe_span_check(out, span, shape->element_bytes, shape->element_bytes)) {
                free(out);
                return bad_reply(instance, shape->method, err);
            }
            size_t used = (size_t)span.count * shape->element_bytes;
            char *copy = calloc(1, used + shape->element_bytes);
            if (copy && used > 0)
                memcpy(copy, (char *)out + span.offset, used);
            free(out);
            if (!copy)
                return no_memory(instance, shape->method, used, err);
            *elements = copy;
            *count = (size_t)span.count;
            return LATHE_OK;
        }
        free(out);
        if (rc > 0)
            return lathe_fail(err, LATHE_EINTERNAL, "%s: %s returned %d", name_of(instance), shape->method, rc);
        if (rc != LATHE_EFULL || needed <= room)
            return rc;
        room = (size_t)needed;
    }
    return lathe_fail(err, LATHE_EINTERNAL, "%s: %s asks for more room each time", name_of(instance), shape->method);
}

static void *add_bytes(struct lathe_message *message, struct lathe_span *span, const void *bytes, size_t count,
                       size_t element_bytes)
{
    void *at = lathe_message_add(message, span, count, element_bytes);
    if (at && count > 0)
        memcpy(at, bytes, count * element_bytes);
    return at;
}

int tokenizer_encode(const struct instance *tokenizer, const char *text, size_t bytes, uint32_t flags,
                     int32_t **tokens, size_t *count, struct lathe_error *err)
{
    static const struct reply_shape shape = REPLY_SHAPE("encode", lathe_encode_out, tokens, sizeof(int32_t));
    const struct lathe_tokenizer_api *api = tokenizer->api;
    struct lathe_encode_in *in = make_message(sizeof *in, bytes);
    if (!in || !add_bytes(&in->head, &in->text, text, bytes, 1)) {
        free(in);
        return no_memory(tokenizer, "encode", bytes, err);
    }
    in->flags = flags;
    /* Text of some length is rarely more than a token for two bytes; the retry has the rest. */
    size_t guess = bytes < 4096 ? bytes + 2 : bytes / 2;
    void *elements;
    int rc = call(tokenizer, api->encode, &shape, in, guess, &elements, count, err);
    free(in);
    if (rc == LATHE_OK)
        *tokens = elements;
    return rc;
}

int tokenizer_decode(const struct instance *tokenizer, const int32_t *tokens, size_t count, uint32_t flags,
                     char **text, size_t *bytes, struct lathe_error *err)
{
    static const struct reply_shape shape = REPLY_SHAPE("decode", lathe_decode_out, text, 1);
    const struct lathe_tokenizer_api *api = tokenizer->api;
    size_t in_bytes;
    struct lathe_decode_in *in = NULL;
    if (!__builtin_mul_overflow(count, sizeof *tokens, &in_bytes))
        in = make_message(sizeof *in, in_bytes);
    if (!in || !add_bytes(&in->head, &in->tokens, tokens, count, sizeof *tokens)) {
        free(in);
        return no_memory(tokenizer, "decode", count, err);
    }
    in->flags = flags;
    size_t guess;
    if (__builtin_mul_overflow(count, (size_t)8, &guess))
        guess = count;
    void *elements;
    int rc = call(tokenizer, api->decode, &shape, in, guess + 64, &elements, bytes, err);
    free(in);
    if (rc == LATHE_OK)
        *text = elements;
    return rc;
}

int tokenizer_template(const struct instance *tokenizer, const char *messages_json, int add_generation_prompt,
                       const char *source, char **text, size_t *bytes, struct lathe_error *err)
{
    static const struct reply_shape shape = REPLY_SHAPE("apply_template", lathe_template_out, text, 1);
    const struct lathe_tokenizer_api *api = tokenizer->api;
    if (!api->apply_template)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "tokenizer `%s` has no chat templates", name_of(tokenizer));
    size_t messages = strlen(messages_json), given = source ? strlen(source) : 0, total;
    struct lathe_template_in *in = NULL;
    if (!__builtin_add_overflow(messages, given, &total))
        in = make_message(sizeof *in, total);
    if (!in || !add_bytes(&in->head, &in->messages, messages_json, messages, 1) ||
        !add_bytes(&in->head, &in->source, source, given, 1)) {
        free(in);
        return no_memory(tokenizer, "apply_template", messages, err);
    }
    in->add_generation_prompt = add_generation_prompt != 0;
    void *elements;
    int rc = call(tokenizer, api->apply_template, &shape, in, messages + 4096, &elements, bytes, err);
    free(in);
    if (rc == LATHE_OK)
        *text = elements;
    return rc;
}

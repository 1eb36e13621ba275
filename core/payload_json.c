/* SPDX-License-Identifier: MIT */
/* Messages as JSON: a source over a jansson value, and a sink that writes text. Replies are not
 * built as a tree first: rows of logits are long. Lists count from 0 in sentences, and a null
 * is as good as an absent field. */
#include "payload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

enum { DEPTH_MAX = 16 }; /* descriptions nest half as deep */

/* ── source ────────────────────────────────────────────────────────────────────────── */

struct reading {
    json_t *values[DEPTH_MAX];
    size_t depth; /* the current one is the last */
};

static json_t *current(void *context)
{
    struct reading *r = context;
    return r->values[r->depth - 1];
}

static void go(void *context, json_t *value)
{
    struct reading *r = context;
    r->values[r->depth++] = value;
}

static int json_kind(void *context)
{
    switch (json_typeof(current(context))) {
    case JSON_TRUE:
    case JSON_FALSE: return PAYLOAD_IS_BOOLEAN;
    case JSON_INTEGER: return PAYLOAD_IS_INTEGER;
    case JSON_REAL: return PAYLOAD_IS_NUMBER;
    case JSON_STRING: return PAYLOAD_IS_TEXT;
    default: return PAYLOAD_IS_OTHER;
    }
}

static int64_t json_whole(void *context)
{
    json_t *value = current(context);
    return json_is_integer(value) ? json_integer_value(value) : json_is_true(value);
}

static double json_decimal(void *context)
{
    return json_number_value(current(context));
}

static const char *json_string_of(void *context, size_t *bytes)
{
    *bytes = json_string_length(current(context));
    return json_string_value(current(context));
}

static char *json_text_of(void *context)
{
    return json_dumps(current(context), JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
}

static int json_list(void *context, size_t *length)
{
    *length = json_array_size(current(context));
    return json_is_array(current(context));
}

static int json_table(void *context)
{
    return json_is_object(current(context));
}

static int json_field(void *context, const char *name)
{
    json_t *value = json_object_get(current(context), name);
    if (!value || json_is_null(value))
        return 0;
    go(context, value);
    return 1;
}

static void json_element(void *context, size_t index)
{
    go(context, json_array_get(current(context), index));
}

static void json_leave(void *context)
{
    ((struct reading *)context)->depth--;
}

static int json_each_name(void *context, int (*visit)(void *who, const char *name), void *who)
{
    const char *name;
    json_t *value;
    json_object_foreach(current(context), name, value)
        if (visit(who, name))
            return 1;
    return 0;
}

static void json_describe(void *context, char *text, size_t capacity)
{
    json_t *value = current(context);
    switch (json_typeof(value)) {
    case JSON_OBJECT: snprintf(text, capacity, "an object"); break;
    case JSON_ARRAY: snprintf(text, capacity, "a list of %zu", json_array_size(value)); break;
    case JSON_STRING: snprintf(text, capacity, "the text \"%.60s\"", json_string_value(value)); break;
    case JSON_INTEGER: snprintf(text, capacity, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: snprintf(text, capacity, "%.14g", json_real_value(value)); break;
    case JSON_TRUE: snprintf(text, capacity, "true"); break;
    case JSON_FALSE: snprintf(text, capacity, "false"); break;
    default: snprintf(text, capacity, "null");
    }
}

int payload_from_json(const struct payload *what, struct json_t *value, const struct lathe_model_info *model,
                      struct payload_parts *parts, struct lathe_error *err)
{
    json_t *empty = value ? NULL : json_object();
    struct reading reading = { .values = { value ? value : empty }, .depth = 1 };
    struct payload_source source = {
        .context = &reading, .first = 0, .kind = json_kind, .integer = json_whole, .number = json_decimal,
        .text = json_string_of, .json = json_text_of, .list = json_list, .table = json_table, .field = json_field,
        .element = json_element, .leave = json_leave, .each_name = json_each_name, .describe = json_describe,
    };
    memset(parts, 0, sizeof *parts);
    if (!reading.values[0])
        return lathe_fail(err, LATHE_ENOMEM, "%s.%s: no memory for an object", what->service, what->method);
    int rc = payload_read(what, &source, model, parts, err);
    json_decref(empty);
    return rc;
}

/* ── sink ──────────────────────────────────────────────────────────────────────────── */

struct writing {
    struct text *json;
    char closes[DEPTH_MAX]; /* ']' or '}' of what is open */
    size_t depth;
    int first; /* nothing stands in it yet */
    int named; /* a name was written, its value follows */
};

static void comma(struct writing *w)
{
    if (!w->first && !w->named && w->depth > 0)
        text_add(w->json, ",", 1);
    w->first = w->named = 0;
}

static void open(struct writing *w, const char *with, char closes)
{
    comma(w);
    text_add(w->json, with, 1);
    w->closes[w->depth++] = closes;
    w->first = 1;
}

static void open_list(void *context, size_t count)
{
    (void)count;
    open(context, "[", ']');
}

static void open_table(void *context)
{
    open(context, "{", '}');
}

static void close_one(void *context)
{
    struct writing *w = context;
    text_add(w->json, &w->closes[--w->depth], 1);
    w->first = 0;
}

static void put_name(void *context, const char *name)
{
    struct writing *w = context;
    comma(w);
    text_json(w->json, name);
    text_add(w->json, ":", 1);
    w->named = 1;
}

static void put_integer(void *context, int64_t value)
{
    struct writing *w = context;
    comma(w);
    text_print(w->json, "%lld", (long long)value);
}

static void put_natural(void *context, uint64_t value)
{
    struct writing *w = context;
    comma(w);
    text_print(w->json, "%llu", (unsigned long long)value);
}

/* The shortest decimal that reads back as the same float32. */
static void put_number(void *context, float value)
{
    struct writing *w = context;
    char digits[40];
    comma(w);
    if (!isfinite(value)) {
        text_add(w->json, "null", 4);
        return;
    }
    for (int precision = 6; precision <= 9; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, (double)value);
        if (strtof(digits, NULL) == value)
            break;
    }
    text_add(w->json, digits, strlen(digits));
}

static void put_boolean(void *context, int value)
{
    struct writing *w = context;
    comma(w);
    text_print(w->json, "%s", value ? "true" : "false");
}

static void put_text(void *context, const char *text, size_t bytes)
{
    struct writing *w = context;
    comma(w);
    text_json_bytes(w->json, text, bytes);
}

int payload_to_json(const struct payload_call *call, struct text *json, struct lathe_error *err)
{
    struct writing writing = { .json = json, .first = 1 };
    struct payload_sink sink = {
        .context = &writing, .list = open_list, .table = open_table, .close = close_one, .name = put_name,
        .integer = put_integer, .natural = put_natural, .number = put_number, .boolean = put_boolean, .text = put_text,
    };
    int rc = payload_write(call, &sink, err);
    if (rc == LATHE_OK && json->failed)
        return lathe_fail(err, LATHE_ENOMEM, "%s.%s: no memory for the reply as JSON", call->what->service,
                          call->what->method);
    return rc;
}

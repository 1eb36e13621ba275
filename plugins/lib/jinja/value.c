/* SPDX-License-Identifier: MIT */
/* What Python's values do: truth, equality, order, length, membership, iteration. Strings are
 * counted and cut in characters, not bytes. */
#include "internal.h"

#include <string.h>

#include <utf8/utf8.h>

struct value value_text(struct text text)
{
    return (struct value){.type = V_STRING, .text = text};
}

struct value value_cstring(const char *text)
{
    return value_text((struct text){text, strlen(text)});
}

struct value value_int(int64_t integer)
{
    return (struct value){.type = V_INT, .integer = integer};
}

struct value value_bool(int truth)
{
    return (struct value){.type = V_BOOL, .integer = truth != 0};
}

struct value value_list(struct jinja *j, size_t room)
{
    struct list *list = jinja_alloc(j, sizeof *list);
    if (room > JINJA_MEMORY_BYTES / sizeof *list->items)
        jinja_fail(j, LATHE_ERANGE, "line %d: a list of %zu items is too long for a chat template", j->line, room);
    list->items = room ? jinja_alloc(j, room * sizeof *list->items) : NULL;
    list->room = room;
    return (struct value){.type = V_LIST, .list = list};
}

void list_add(struct jinja *j, struct list *list, struct value value)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 8;
        struct value *items = jinja_alloc(j, room * sizeof *items);
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = value;
}

struct value *dict_get(struct jinja *j, const struct dict *dict, struct value key)
{
    jinja_charge(j, dict->count * 16);
    for (size_t i = 0; i < dict->count; i++)
        if (value_equal(j, dict->pairs[i].key, key))
            return &dict->pairs[i].value;
    return NULL;
}

void dict_set(struct jinja *j, struct dict *dict, struct value key, struct value value)
{
    struct value *old = dict_get(j, dict, key);
    if (old) {
        *old = value;
        return;
    }
    if (dict->count == dict->room) {
        size_t room = dict->room ? 2 * dict->room : 8;
        struct pair *pairs = jinja_alloc(j, room * sizeof *pairs);
        if (dict->count)
            memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
        dict->pairs = pairs;
        dict->room = room;
    }
    dict->pairs[dict->count++] = (struct pair){key, value};
}

const char *value_type_name(struct value v)
{
    static const char *const names[] = {"undefined", "none",  "boolean",   "integer", "float", "string",  "list",
                                        "tuple",     "dict",  "namespace", "macro",   "loop",  "function"};
    return names[v.type];
}

int text_is(struct text t, const char *cstring)
{
    return strlen(cstring) == t.count && memcmp(t.bytes, cstring, t.count) == 0;
}

int text_equal(struct text a, struct text b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.bytes, b.bytes, a.count) == 0);
}

static int is_head(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

size_t text_length(struct text t)
{
    size_t n = 0;
    for (size_t i = 0; i < t.count; i++)
        n += is_head(t.bytes[i]);
    return n;
}

struct text text_slice(struct text t, size_t from, size_t to)
{
    size_t at = 0, begin = t.count, end = t.count;
    for (size_t i = 0; i < t.count; i++) {
        if (!is_head(t.bytes[i]))
            continue;
        if (at == from)
            begin = i;
        if (at == to) {
            end = i;
            break;
        }
        at++;
    }
    return (struct text){t.bytes + begin, end > begin ? end - begin : 0};
}

struct text text_copy(struct jinja *j, struct text t)
{
    char *bytes = jinja_alloc(j, t.count + 1);
    if (t.count)
        memcpy(bytes, t.bytes, t.count);
    return (struct text){bytes, t.count};
}

int value_true(struct value v)
{
    switch (v.type) {
    case V_UNDEFINED: case V_NONE: return 0;
    case V_BOOL: case V_INT: return v.integer != 0;
    case V_FLOAT: return v.number != 0;
    case V_STRING: return v.text.count != 0;
    case V_LIST: case V_TUPLE: return v.list->count != 0;
    case V_DICT: return v.dict->count != 0;
    default: return 1;
    }
}

static int is_number(struct value v)
{
    return v.type == V_BOOL || v.type == V_INT || v.type == V_FLOAT;
}

static double as_double(struct value v)
{
    return v.type == V_FLOAT ? v.number : (double)v.integer;
}

int value_equal(struct jinja *j, struct value a, struct value b)
{
    int same = 1;
    if (is_number(a) && is_number(b))
        return a.type == V_FLOAT || b.type == V_FLOAT ? as_double(a) == as_double(b) : a.integer == b.integer;
    if (a.type != b.type)
        return 0;
    switch (a.type) {
    case V_UNDEFINED: case V_NONE: return 1;
    case V_STRING:
        jinja_charge(j, a.text.count);
        return text_equal(a.text, b.text);
    case V_LIST: case V_TUPLE:
        if (a.list->count != b.list->count)
            return 0;
        jinja_enter(j);
        for (size_t i = 0; i < a.list->count && same; i++)
            same = value_equal(j, a.list->items[i], b.list->items[i]);
        j->depth--;
        return same;
    case V_DICT:
        if (a.dict->count != b.dict->count)
            return 0;
        jinja_enter(j);
        for (size_t i = 0; i < a.dict->count && same; i++) {
            struct value *other = dict_get(j, b.dict, a.dict->pairs[i].key);
            same = other && value_equal(j, a.dict->pairs[i].value, *other);
        }
        j->depth--;
        return same;
    case V_FUNCTION: return text_equal(a.text, b.text);
    default: return a.list == b.list; /* the same object */
    }
}

int value_compare(struct jinja *j, struct value a, struct value b)
{
    if (is_number(a) && is_number(b)) {
        if (a.type != V_FLOAT && b.type != V_FLOAT)
            return (a.integer > b.integer) - (a.integer < b.integer);
        return (as_double(a) > as_double(b)) - (as_double(a) < as_double(b));
    }
    if (a.type == V_STRING && b.type == V_STRING) {
        size_t n = a.text.count < b.text.count ? a.text.count : b.text.count;
        jinja_charge(j, n);
        int order = n ? memcmp(a.text.bytes, b.text.bytes, n) : 0; /* UTF-8 sorts as its characters */
        return order ? order : (a.text.count > b.text.count) - (a.text.count < b.text.count);
    }
    if ((a.type == V_LIST || a.type == V_TUPLE) && a.type == b.type) {
        int order = 0;
        jinja_enter(j);
        for (size_t i = 0; i < a.list->count && i < b.list->count && !order; i++)
            order = value_compare(j, a.list->items[i], b.list->items[i]);
        j->depth--;
        return order ? order : (a.list->count > b.list->count) - (a.list->count < b.list->count);
    }
    jinja_fail(j, LATHE_EFORMAT, "line %d: found %s and %s, expected two numbers or two strings to compare", j->line,
               value_type_name(a), value_type_name(b));
}

int value_contains(struct jinja *j, struct value in, struct value item)
{
    switch (in.type) {
    case V_UNDEFINED: return 0;
    case V_STRING:
        if (item.type != V_STRING)
            break;
        jinja_charge(j, in.text.count);
        return item.text.count == 0 || memmem(in.text.bytes, in.text.count, item.text.bytes, item.text.count) != NULL;
    case V_LIST: case V_TUPLE:
        jinja_charge(j, 0);
        for (size_t i = 0; i < in.list->count; i++) {
            jinja_charge(j, 0);
            if (value_equal(j, in.list->items[i], item))
                return 1;
        }
        return 0;
    case V_DICT: return dict_get(j, in.dict, item) != NULL;
    default: break;
    }
    jinja_fail(j, LATHE_EFORMAT, "line %d: a %s can't be looked for in a %s", j->line, value_type_name(item), value_type_name(in));
}

struct list *value_items(struct jinja *j, struct value v)
{
    struct value list;
    switch (v.type) {
    case V_LIST: case V_TUPLE: return v.list;
    case V_UNDEFINED: return value_list(j, 0).list;
    case V_DICT:
        list = value_list(j, v.dict->count);
        for (size_t i = 0; i < v.dict->count; i++)
            list_add(j, list.list, v.dict->pairs[i].key);
        return list.list;
    case V_STRING:
        jinja_charge(j, v.text.count * 16);
        list = value_list(j, text_length(v.text));
        for (size_t i = 0, length; i < v.text.count; i += length) {
            utf8_get((const unsigned char *)v.text.bytes + i, &length);
            list_add(j, list.list, value_text((struct text){v.text.bytes + i, length}));
        }
        return list.list;
    default: break;
    }
    jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected a list, a dict or a string to go through", j->line,
               value_type_name(v));
}

size_t value_length(struct jinja *j, struct value v)
{
    switch (v.type) {
    case V_UNDEFINED: return 0;
    case V_STRING:
        jinja_charge(j, v.text.count);
        return text_length(v.text);
    case V_LIST: case V_TUPLE: return v.list->count;
    case V_DICT: return v.dict->count;
    default: break;
    }
    jinja_fail(j, LATHE_EFORMAT, "line %d: a %s has no length", j->line, value_type_name(v));
}

/* SPDX-License-Identifier: MIT */
/* Filters (value|name) and tests (value is name). */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static _Noreturn void unknown(struct jinja *j, const char *what, struct text name)
{
    jinja_fail(j, LATHE_EUNSUPPORTED, "line %d: the %s %.*s isn't supported", j->line, what,
               (int)(name.count < 60 ? name.count : 60), name.bytes);
}

/* ---- tests ---- */

static int is_number(struct value v)
{
    return v.type == V_INT || v.type == V_FLOAT || v.type == V_BOOL;
}

static int64_t whole(struct jinja *j, struct value v)
{
    if (v.type != V_INT && v.type != V_BOOL)
        jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected an integer", j->line, value_type_name(v));
    return v.integer;
}

static int type_test(struct text name, struct value v, int *known)
{
    int list = v.type == V_LIST || v.type == V_TUPLE, dict = v.type == V_DICT;
    *known = 1;
    if (text_is(name, "defined"))
        return v.type != V_UNDEFINED;
    if (text_is(name, "undefined"))
        return v.type == V_UNDEFINED;
    if (text_is(name, "none"))
        return v.type == V_NONE;
    if (text_is(name, "string"))
        return v.type == V_STRING;
    if (text_is(name, "number"))
        return is_number(v);
    if (text_is(name, "integer"))
        return v.type == V_INT;
    if (text_is(name, "float"))
        return v.type == V_FLOAT;
    if (text_is(name, "boolean"))
        return v.type == V_BOOL;
    if (text_is(name, "true") || text_is(name, "false"))
        return v.type == V_BOOL && v.integer == (name.count == 4);
    if (text_is(name, "mapping"))
        return dict;
    if (text_is(name, "sequence") || text_is(name, "iterable"))
        return list || dict || v.type == V_STRING || v.type == V_UNDEFINED;
    if (text_is(name, "callable"))
        return v.type == V_MACRO || v.type == V_FUNCTION || v.type == V_LOOP;
    *known = 0;
    return 0;
}

int call_test(struct jinja *j, struct text name, struct value v, const struct arguments *args)
{
    struct value other;
    int known, truth = type_test(name, v, &known);
    if (known)
        return truth;
    if (text_is(name, "even") || text_is(name, "odd"))
        return (whole(j, v) % 2 == 0) == (name.bytes[0] == 'e');
    if (!argument(args, 0, "", &other))
        unknown(j, "test (or one without its argument)", name);
    if (text_is(name, "divisibleby")) {
        int64_t by = whole(j, other);
        if (!by)
            jinja_fail(j, LATHE_EFORMAT, "line %d: a division by zero", j->line);
        return by == -1 || whole(j, v) % by == 0;
    }
    if (text_is(name, "equalto") || text_is(name, "eq") || text_is(name, "sameas"))
        return value_equal(j, v, other);
    if (text_is(name, "ne"))
        return !value_equal(j, v, other);
    if (text_is(name, "in"))
        return value_contains(j, other, v);
    if (text_is(name, "lt") || text_is(name, "lessthan"))
        return value_compare(j, v, other) < 0;
    if (text_is(name, "le"))
        return value_compare(j, v, other) <= 0;
    if (text_is(name, "gt") || text_is(name, "greaterthan"))
        return value_compare(j, v, other) > 0;
    if (text_is(name, "ge"))
        return value_compare(j, v, other) >= 0;
    unknown(j, "test", name);
}

/* ---- filters over lists ---- */

/* "a.b" or a number: attributes as map, sort and selectattr name them. */
static struct value follow(struct jinja *j, struct value of, struct value path)
{
    if (path.type != V_STRING)
        return value_item(j, of, path);
    struct text left = path.text;
    for (;;) {
        const char *dot = left.count ? memchr(left.bytes, '.', left.count) : NULL;
        struct text name = {left.bytes, dot ? (size_t)(dot - left.bytes) : left.count};
        of = value_item(j, of, value_text(name));
        if (!dot)
            return of;
        left = (struct text){dot + 1, left.count - name.count - 1};
    }
}

/* The arguments after the first `skip`, for the filter or test that they name. */
static struct arguments rest(const struct arguments *args, size_t skip)
{
    struct arguments out = {0};
    for (size_t i = skip; i < args->count; i++) {
        out.names[out.count] = args->names[i];
        out.given[out.count++] = args->given[i];
    }
    out.positional = args->positional > skip ? args->positional - skip : 0;
    return out;
}

static struct value map(struct jinja *j, struct value v, const struct arguments *args)
{
    const struct list *items = value_items(j, v);
    struct value out = value_list(j, items->count), attribute, fallback, name;
    int by_attribute = args->positional == 0 && argument(args, 9, "attribute", &attribute);
    int has_fallback = argument(args, 9, "default", &fallback);
    if (!by_attribute && (!argument(args, 0, "", &name) || name.type != V_STRING))
        jinja_fail(j, LATHE_EFORMAT, "line %d: map takes attribute=name or a filter's name", j->line);
    struct arguments more = rest(args, 1);
    for (size_t i = 0; i < items->count; i++) {
        jinja_charge(j, 0);
        struct value one = by_attribute ? follow(j, items->items[i], attribute)
                                        : call_filter(j, name.text, items->items[i], &more);
        list_add(j, out.list, one.type == V_UNDEFINED && has_fallback ? fallback : one);
    }
    return out;
}

/* select, reject, selectattr, rejectattr. */
static struct value choose(struct jinja *j, struct value v, const struct arguments *args, int by_attribute, int keep)
{
    const struct list *items = value_items(j, v);
    struct value out = value_list(j, 0), attribute, test;
    size_t at = by_attribute ? 1 : 0;
    if (by_attribute && !argument(args, 0, "", &attribute))
        jinja_fail(j, LATHE_EFORMAT, "line %d: selectattr and rejectattr take an attribute's name", j->line);
    int tested = argument(args, at, "", &test);
    if (tested && test.type != V_STRING)
        jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected a test's name", j->line, value_type_name(test));
    struct arguments more = rest(args, at + 1);
    for (size_t i = 0; i < items->count; i++) {
        struct value one = by_attribute ? follow(j, items->items[i], attribute) : items->items[i];
        jinja_charge(j, 0);
        if ((tested ? call_test(j, test.text, one, &more) : value_true(one)) == keep)
            list_add(j, out.list, items->items[i]);
    }
    return out;
}

/* By bisection into a sorted list: stable, and n log n comparisons. */
static struct value sort(struct jinja *j, struct value v, const struct arguments *args)
{
    const struct list *items = value_items(j, v);
    struct value out = value_list(j, items->count), keys = value_list(j, items->count), attribute, flag;
    int reverse = argument(args, 0, "reverse", &flag) && value_true(flag);
    int exact = argument(args, 1, "case_sensitive", &flag) && value_true(flag);
    int by_attribute = argument(args, 2, "attribute", &attribute) && attribute.type != V_NONE;
    struct arguments none = {0};
    int found;
    for (size_t i = 0; i < items->count; i++) {
        struct value key = by_attribute ? follow(j, items->items[i], attribute) : items->items[i];
        if (key.type == V_STRING && !exact)
            key = string_method(j, key.text, (struct text){"lower", 5}, &none, &found);
        size_t low = 0, high = i;
        while (low < high) {
            size_t middle = (low + high) / 2;
            int order = value_compare(j, keys.list->items[middle], key);
            jinja_charge(j, 0);
            if (reverse ? order >= 0 : order <= 0)
                low = middle + 1;
            else
                high = middle;
        }
        jinja_charge(j, (i - low) * sizeof key);
        list_add(j, out.list, items->items[i]);
        list_add(j, keys.list, key);
        memmove(out.list->items + low + 1, out.list->items + low, (i - low) * sizeof key);
        memmove(keys.list->items + low + 1, keys.list->items + low, (i - low) * sizeof key);
        out.list->items[low] = items->items[i];
        keys.list->items[low] = key;
    }
    return out;
}

static struct value reverse(struct jinja *j, struct value v)
{
    const struct list *items = value_items(j, v);
    struct value out = value_list(j, items->count);
    struct writer w = {.grows = 1};
    for (size_t i = items->count; i-- > 0;) {
        jinja_charge(j, 0);
        if (v.type == V_STRING)
            writer_put(j, &w, items->items[i].text);
        else
            list_add(j, out.list, items->items[i]);
    }
    return v.type == V_STRING ? value_text((struct text){w.bytes ? w.bytes : "", w.count}) : out;
}

/* The first of each; strings that differ in case alone are the same. */
static struct value unique(struct jinja *j, struct value v)
{
    const struct list *items = value_items(j, v);
    struct value out = value_list(j, 0), seen = value_list(j, 0);
    struct arguments none = {0};
    int found;
    for (size_t i = 0; i < items->count; i++) {
        struct value key = items->items[i];
        if (key.type == V_STRING)
            key = string_method(j, key.text, (struct text){"lower", 5}, &none, &found);
        if (value_contains(j, seen, key))
            continue;
        list_add(j, seen.list, key);
        list_add(j, out.list, items->items[i]);
    }
    return out;
}

static struct value join(struct jinja *j, struct value v, const struct arguments *args)
{
    struct value between = value_cstring(""), attribute;
    struct writer w = {.grows = 1};
    argument(args, 0, "d", &between);
    int by_attribute = argument(args, 1, "attribute", &attribute);
    const struct list *items = value_items(j, v);
    for (size_t i = 0; i < items->count; i++) {
        if (i)
            writer_put(j, &w, value_string(j, between));
        writer_put(j, &w, value_string(j, by_attribute ? follow(j, items->items[i], attribute) : items->items[i]));
    }
    return value_text((struct text){w.bytes ? w.bytes : "", w.count});
}

static struct value end_item(struct jinja *j, struct value v, int last)
{
    const struct list *items = value_items(j, v);
    if (!items->count)
        return (struct value){.type = V_UNDEFINED, .text = {"item", 4}};
    return items->items[last ? items->count - 1 : 0];
}

/* ---- filters over one value ---- */

static struct value to_number(struct jinja *j, struct value v, const struct arguments *args, int real)
{
    struct value fallback = real ? (struct value){.type = V_FLOAT} : value_int(0);
    char digits[64], *end;
    argument(args, 0, "default", &fallback);
    if (v.type == V_INT || v.type == V_BOOL)
        return real ? (struct value){.type = V_FLOAT, .number = (double)v.integer} : value_int(v.integer);
    if (v.type == V_FLOAT && !real && !(v.number > -9e18 && v.number < 9e18))
        return fallback;
    if (v.type == V_FLOAT)
        return real ? v : value_int((int64_t)v.number);
    if (v.type != V_STRING)
        return fallback;
    struct arguments none = {0};
    int found;
    struct text t = string_method(j, v.text, (struct text){"strip", 5}, &none, &found).text;
    if (!t.count || t.count >= sizeof digits || memchr(t.bytes, 'x', t.count) || memchr(t.bytes, 'X', t.count))
        return fallback;
    memcpy(digits, t.bytes, t.count);
    digits[t.count] = 0;
    double number = strtod(digits, &end);
    if (*end || (!real && !(number > -9e18 && number < 9e18)))
        return fallback;
    if (real)
        return (struct value){.type = V_FLOAT, .number = number};
    int64_t integer = strtoll(digits, &end, 10);
    return value_int(*end ? (int64_t)number : integer);
}

static struct value to_default(struct value v, const struct arguments *args)
{
    struct value fallback = value_cstring(""), falsy;
    argument(args, 0, "default_value", &fallback);
    if (v.type == V_UNDEFINED)
        return fallback;
    return argument(args, 1, "boolean", &falsy) && value_true(falsy) && !value_true(v) ? fallback : v;
}

static struct value list_filter(struct jinja *j, struct text name, struct value v, const struct arguments *args, int *found)
{
    *found = 1;
    if (text_is(name, "join"))
        return join(j, v, args);
    if (text_is(name, "first") || text_is(name, "last"))
        return end_item(j, v, name.bytes[0] == 'l');
    if (text_is(name, "list")) {
        v.list = value_items(j, v);
        v.type = V_LIST;
        return v;
    }
    if (text_is(name, "map"))
        return map(j, v, args);
    if (text_is(name, "select") || text_is(name, "reject"))
        return choose(j, v, args, 0, name.bytes[0] == 's');
    if (text_is(name, "selectattr") || text_is(name, "rejectattr"))
        return choose(j, v, args, 1, name.bytes[0] == 's');
    if (text_is(name, "sort"))
        return sort(j, v, args);
    if (text_is(name, "reverse"))
        return reverse(j, v);
    if (text_is(name, "unique"))
        return unique(j, v);
    if (text_is(name, "items") && v.type == V_DICT)
        return call_method(j, v, name, args);
    *found = 0;
    return v;
}

struct value call_filter(struct jinja *j, struct text name, struct value v, const struct arguments *args)
{
    static const char *const of_strings[] = {"upper", "lower", "title", "capitalize", "replace"};
    struct value option;
    int found;
    struct value out = list_filter(j, name, v, args, &found);
    if (found)
        return out;
    if (text_is(name, "trim"))
        return string_method(j, value_string(j, v), (struct text){"strip", 5}, args, &found);
    for (size_t i = 0; i < sizeof of_strings / sizeof *of_strings; i++)
        if (text_is(name, of_strings[i]))
            return string_method(j, value_string(j, v), name, args, &found);
    if (text_is(name, "length") || text_is(name, "count"))
        return value_int((int64_t)value_length(j, v));
    if (text_is(name, "tojson")) {
        int64_t indent = argument(args, 9, "indent", &option) && option.type != V_NONE ? whole(j, option) : -1;
        return value_text(value_json(j, v, indent < 0 ? -1 : indent > 64 ? 64 : (int)indent));
    }
    if (text_is(name, "default") || text_is(name, "d"))
        return to_default(v, args);
    if (text_is(name, "string") || text_is(name, "safe"))
        return value_text(value_string(j, v));
    if (text_is(name, "int") || text_is(name, "float"))
        return to_number(j, v, args, name.bytes[0] == 'f');
    if (text_is(name, "abs")) {
        if (v.type == V_FLOAT)
            return (struct value){.type = V_FLOAT, .number = v.number < 0 ? -v.number : v.number};
        if (whole(j, v) == INT64_MIN)
            jinja_fail(j, LATHE_ERANGE, "line %d: an integer goes over 2^63", j->line);
        return value_int(llabs(v.integer));
    }
    unknown(j, "filter", name);
}

/* SPDX-License-Identifier: MIT */
/* Methods of strings, dicts and loops; and the functions that templates find. White space is
 * Python's; case is of ASCII only, since a wrong letter would be worse than a refusal. */
#include "internal.h"

#include <string.h>

#include <utf8/utf8.h>

int argument(const struct arguments *args, size_t position, const char *name, struct value *value)
{
    if (position < args->positional) {
        *value = args->given[position];
        return 1;
    }
    for (size_t i = args->positional; i < args->count; i++)
        if (text_is(args->names[i], name)) {
            *value = args->given[i];
            return 1;
        }
    return 0;
}

static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Bytes of the character at the front or the back that strip takes, or 0. */
static size_t stripped(struct text t, int back, const struct text *set)
{
    size_t at = back ? t.count - 1 : 0, length;
    while (back && at && ((unsigned char)t.bytes[at] & 0xc0) == 0x80)
        at--;
    uint32_t c = utf8_get((const unsigned char *)t.bytes + at, &length);
    if (!set)
        return is_space(c) ? length : 0;
    return memmem(set->bytes, set->count, t.bytes + at, length) ? length : 0;
}

static struct text strip(struct jinja *j, struct text t, int front, int back, const struct text *set)
{
    size_t n, before = t.count;
    while (front && t.count && (n = stripped(t, 0, set))) {
        t.bytes += n;
        t.count -= n;
    }
    while (back && t.count && (n = stripped(t, 1, set)))
        t.count -= n;
    jinja_charge(j, before - t.count);
    return t;
}

enum letter_case { UPPER, LOWER, TITLE, CAPITAL };

static struct text change_case(struct jinja *j, struct text t, enum letter_case how)
{
    struct text out = text_copy(j, t);
    char *bytes = (char *)out.bytes;
    int inside = 0;
    jinja_charge(j, t.count);
    for (size_t i = 0; i < t.count; i++) {
        char c = bytes[i];
        int letter = ((c | 32) >= 'a' && (c | 32) <= 'z');
        if ((unsigned char)c >= 0x80)
            jinja_fail(j, LATHE_EUNSUPPORTED, "line %d: upper, lower, title and capitalize work on ASCII letters only", j->line);
        if (letter)
            bytes[i] = how == UPPER || (how != LOWER && !inside) ? (char)(c & ~32) : (char)(c | 32);
        inside = how == CAPITAL ? 1 : letter;
    }
    return out;
}

static struct text need_text(struct jinja *j, struct value v)
{
    if (v.type != V_STRING)
        jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected a string", j->line, value_type_name(v));
    return v.text;
}

static int64_t need_integer(struct jinja *j, struct value v)
{
    if (v.type != V_INT && v.type != V_BOOL)
        jinja_fail(j, LATHE_EFORMAT, "line %d: found a %s, expected an integer", j->line, value_type_name(v));
    return v.integer;
}

static struct value split(struct jinja *j, struct text t, const struct arguments *args)
{
    struct value out = value_list(j, 0), v;
    int64_t most = argument(args, 1, "maxsplit", &v) ? need_integer(j, v) : -1;
    jinja_charge(j, t.count);
    if (argument(args, 0, "sep", &v) && v.type != V_NONE) {
        struct text sep = need_text(j, v);
        if (!sep.count)
            jinja_fail(j, LATHE_EFORMAT, "line %d: split by an empty string", j->line);
        for (const char *found; most-- && (found = memmem(t.bytes, t.count, sep.bytes, sep.count));) {
            jinja_charge(j, 0);
            list_add(j, out.list, value_text((struct text){t.bytes, (size_t)(found - t.bytes)}));
            t.count -= (size_t)(found + sep.count - t.bytes);
            t.bytes = found + sep.count;
        }
        list_add(j, out.list, value_text(t));
        return out;
    }
    while ((t = strip(j, t, 1, 0, NULL)).count) {
        size_t n = 0, length;
        if (most-- == 0) { /* what is left, in one */
            list_add(j, out.list, value_text(strip(j, t, 0, 1, NULL)));
            break;
        }
        while (n < t.count && !is_space(utf8_get((const unsigned char *)t.bytes + n, &length)))
            n += length;
        list_add(j, out.list, value_text((struct text){t.bytes, n}));
        t.bytes += n;
        t.count -= n;
    }
    return out;
}

static struct value replace(struct jinja *j, struct text t, const struct arguments *args)
{
    struct value from, to, v;
    struct writer w = {.grows = 1};
    if (!argument(args, 0, "old", &from) || !argument(args, 1, "new", &to))
        jinja_fail(j, LATHE_EFORMAT, "line %d: replace takes what to replace and by what", j->line);
    struct text old = need_text(j, from), new = need_text(j, to);
    int64_t most = argument(args, 2, "count", &v) && v.type != V_NONE ? need_integer(j, v) : -1;
    if (!old.count)
        jinja_fail(j, LATHE_EUNSUPPORTED, "line %d: replacing an empty string isn't supported", j->line);
    for (const char *found; most-- && (found = memmem(t.bytes, t.count, old.bytes, old.count));) {
        writer_put(j, &w, (struct text){t.bytes, (size_t)(found - t.bytes)});
        writer_put(j, &w, new);
        t.count -= (size_t)(found + old.count - t.bytes);
        t.bytes = found + old.count;
    }
    writer_put(j, &w, t);
    return value_text((struct text){w.bytes ? w.bytes : "", w.count});
}

static int has_end(struct text t, struct text end, int back)
{
    return t.count >= end.count && memcmp(back ? t.bytes + t.count - end.count : t.bytes, end.bytes, end.count) == 0;
}

static struct value ends(struct jinja *j, struct text t, const struct arguments *args, int back)
{
    struct value v;
    int found = 0;
    if (!argument(args, 0, "", &v))
        jinja_fail(j, LATHE_EFORMAT, "line %d: startswith and endswith take a string", j->line);
    if (v.type != V_TUPLE)
        return value_bool(has_end(t, need_text(j, v), back));
    for (size_t i = 0; i < v.list->count && !found; i++)
        found = has_end(t, need_text(j, v.list->items[i]), back);
    return value_bool(found);
}

static struct value find(struct jinja *j, struct text t, const struct arguments *args, int count)
{
    struct value v;
    int64_t n = 0;
    if (!argument(args, 0, "", &v))
        jinja_fail(j, LATHE_EFORMAT, "line %d: find and count take a string", j->line);
    struct text what = need_text(j, v);
    const char *found = t.count ? memmem(t.bytes, t.count, what.bytes, what.count) : what.count ? NULL : t.bytes;
    jinja_charge(j, t.count);
    if (!count)
        return value_int(found ? (int64_t)text_length((struct text){t.bytes, (size_t)(found - t.bytes)}) : -1);
    if (!what.count)
        return value_int((int64_t)text_length(t) + 1);
    for (; found; n++) {
        const char *rest = found + what.count;
        found = memmem(rest, (size_t)(t.bytes + t.count - rest), what.bytes, what.count);
    }
    return value_int(n);
}

static struct value join_strings(struct jinja *j, struct text between, const struct arguments *args)
{
    struct value v;
    struct writer w = {.grows = 1};
    if (!argument(args, 0, "", &v))
        jinja_fail(j, LATHE_EFORMAT, "line %d: join takes a list", j->line);
    const struct list *items = value_items(j, v);
    for (size_t i = 0; i < items->count; i++) {
        if (i)
            writer_put(j, &w, between);
        writer_put(j, &w, need_text(j, items->items[i]));
    }
    return value_text((struct text){w.bytes ? w.bytes : "", w.count});
}

struct value string_method(struct jinja *j, struct text t, struct text name, const struct arguments *args, int *found)
{
    struct value v;
    struct text set;
    *found = 1;
    if (text_is(name, "strip") || text_is(name, "lstrip") || text_is(name, "rstrip")) {
        int chosen = argument(args, 0, "chars", &v) && v.type != V_NONE;
        if (chosen)
            set = need_text(j, v);
        return value_text(strip(j, t, name.bytes[0] != 'r', name.bytes[0] != 'l', chosen ? &set : NULL));
    }
    if (text_is(name, "upper"))
        return value_text(change_case(j, t, UPPER));
    if (text_is(name, "lower"))
        return value_text(change_case(j, t, LOWER));
    if (text_is(name, "title"))
        return value_text(change_case(j, t, TITLE));
    if (text_is(name, "capitalize"))
        return value_text(change_case(j, t, CAPITAL));
    if (text_is(name, "split"))
        return split(j, t, args);
    if (text_is(name, "replace"))
        return replace(j, t, args);
    if (text_is(name, "startswith"))
        return ends(j, t, args, 0);
    if (text_is(name, "endswith"))
        return ends(j, t, args, 1);
    if (text_is(name, "find"))
        return find(j, t, args, 0);
    if (text_is(name, "count"))
        return find(j, t, args, 1);
    if (text_is(name, "join"))
        return join_strings(j, t, args);
    *found = 0;
    return value_bool(0);
}

static struct value dict_items(struct jinja *j, const struct dict *dict, int keys, int values)
{
    struct value out = value_list(j, dict->count);
    for (size_t i = 0; i < dict->count; i++) {
        struct value one = keys ? dict->pairs[i].key : dict->pairs[i].value;
        jinja_charge(j, 0);
        if (keys && values) {
            one = value_list(j, 2);
            one.type = V_TUPLE;
            list_add(j, one.list, dict->pairs[i].key);
            list_add(j, one.list, dict->pairs[i].value);
        }
        list_add(j, out.list, one);
    }
    return out;
}

struct value call_method(struct jinja *j, struct value of, struct text name, const struct arguments *args)
{
    struct value v;
    int found = 0;
    if (of.type == V_STRING)
        v = string_method(j, of.text, name, args, &found);
    if (found)
        return v;
    if (of.type == V_DICT && text_is(name, "items"))
        return dict_items(j, of.dict, 1, 1);
    if (of.type == V_DICT && text_is(name, "keys"))
        return dict_items(j, of.dict, 1, 0);
    if (of.type == V_DICT && text_is(name, "values"))
        return dict_items(j, of.dict, 0, 1);
    if (of.type == V_DICT && text_is(name, "get") && argument(args, 0, "", &v)) {
        struct value *item = dict_get(j, of.dict, v);
        if (item)
            return *item;
        return argument(args, 1, "", &v) ? v : (struct value){.type = V_NONE};
    }
    if (of.type == V_LOOP && text_is(name, "cycle") && args->positional)
        return args->given[of.loop->index % args->positional];
    v = value_attribute(j, of, name);
    if (v.type == V_MACRO)
        return call_macro(j, v.macro, args);
    jinja_fail(j, LATHE_EUNSUPPORTED, "line %d: a %s has no method %.*s here", j->line, value_type_name(of),
               (int)(name.count < 60 ? name.count : 60), name.bytes);
}

int is_function(struct text name)
{
    return text_is(name, "range") || text_is(name, "namespace") || text_is(name, "dict") || text_is(name, "raise_exception");
}

static struct value range(struct jinja *j, const struct arguments *args)
{
    int64_t bounds[3] = {0, 0, 1};
    if (args->count != args->positional || args->count < 1 || args->count > 3)
        jinja_fail(j, LATHE_EFORMAT, "line %d: range takes one to three integers", j->line);
    for (size_t i = 0; i < args->count; i++)
        bounds[args->count == 1 ? 1 : i] = need_integer(j, args->given[i]);
    int64_t from = bounds[0], to = bounds[1], stride = bounds[2];
    if (stride == 0)
        jinja_fail(j, LATHE_EFORMAT, "line %d: range with a step of 0", j->line);
    struct value out = value_list(j, 0);
    for (int64_t i = from; stride > 0 ? i < to : i > to;) {
        if (out.list->count == JINJA_RANGE)
            jinja_fail(j, LATHE_ERANGE, "line %d: range of more than %d numbers", j->line, JINJA_RANGE);
        list_add(j, out.list, value_int(i));
        if (__builtin_add_overflow(i, stride, &i))
            break;
    }
    return out;
}

struct value call_function(struct jinja *j, struct text name, const struct arguments *args)
{
    struct value v;
    if (text_is(name, "range"))
        return range(j, args);
    struct text message = argument(args, 0, "message", &v) ? value_string(j, v) : (struct text){"", 0};
    jinja_fail(j, LATHE_EINVAL, "%.*s", (int)(message.count < 380 ? message.count : 380), message.bytes);
}

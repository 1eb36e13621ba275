/* SPDX-License-Identifier: MIT */
/* Values to text, as Python's str, repr and json.dumps (ensure_ascii off) write them. */
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void writer_put(struct jinja *j, struct writer *w, struct text t)
{
    if (w->count + t.count > JINJA_OUTPUT_BYTES)
        jinja_fail(j, LATHE_ERANGE, "line %d: the text is over %d bytes", j->line, JINJA_OUTPUT_BYTES);
    jinja_charge(j, t.count);
    if (w->grows && w->count + t.count > w->room) {
        size_t room = 2 * (w->count + t.count) + 64;
        char *bytes = jinja_alloc(j, room);
        if (w->count)
            memcpy(bytes, w->bytes, w->count);
        w->bytes = bytes;
        w->room = room;
    }
    if (t.count && w->count + t.count <= w->room)
        memcpy(w->bytes + w->count, t.bytes, t.count);
    w->count += t.count;
}

void writer_text(struct jinja *j, struct writer *w, const char *cstring)
{
    writer_put(j, w, (struct text){cstring, strlen(cstring)});
}

/* The shortest digits that read back as the number, placed as Python places them. */
static void put_float(struct jinja *j, struct writer *w, double number, int json)
{
    char digits[40], shown[64];
    if (!isfinite(number)) {
        const char *name = isnan(number) ? (json ? "NaN" : "nan") : json ? "Infinity" : "inf";
        writer_text(j, w, number < 0 ? "-" : "");
        writer_text(j, w, name);
        return;
    }
    int precision = 0;
    do
        snprintf(digits, sizeof digits, "%.*e", precision, number);
    while (strtod(digits, NULL) != number && ++precision < 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = precision - exponent;
        snprintf(shown, sizeof shown, "%.*f", decimals > 0 ? decimals : 1, number);
    } else {
        snprintf(shown, sizeof shown, "%.*e", precision, number);
    }
    writer_text(j, w, shown);
}

static void put_integer(struct jinja *j, struct writer *w, int64_t integer)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)integer);
    writer_text(j, w, digits);
}

static void put_escaped(struct jinja *j, struct writer *w, unsigned char c, char quote, int json)
{
    static const char from[] = "\n\r\t\b\f", to[] = "nrtbf";
    char shown[8];
    const char *known = c ? strchr(from, c) : NULL;
    if (c == '\\' || c == (unsigned char)quote)
        snprintf(shown, sizeof shown, "\\%c", c);
    else if (known && (json || known - from < 3))
        snprintf(shown, sizeof shown, "\\%c", to[known - from]);
    else
        snprintf(shown, sizeof shown, json ? "\\u%04x" : "\\x%02x", c);
    writer_text(j, w, shown);
}

static void put_quoted(struct jinja *j, struct writer *w, struct text t, int json)
{
    char quote = json ? '"' : '\'';
    if (!json && memchr(t.bytes, '\'', t.count) && !memchr(t.bytes, '"', t.count))
        quote = '"';
    writer_put(j, w, (struct text){&quote, 1});
    for (size_t i = 0, from = 0; i <= t.count; i++) {
        unsigned char c = i < t.count ? (unsigned char)t.bytes[i] : 0;
        int plain = i < t.count && c >= 0x20 && c != (unsigned char)quote && c != '\\' && (c != 0x7f || json);
        if (plain)
            continue;
        writer_put(j, w, (struct text){t.bytes + from, i - from});
        if (i < t.count)
            put_escaped(j, w, c, quote, json);
        from = i + 1;
    }
    writer_put(j, w, (struct text){&quote, 1});
}

struct style {
    int json;
    int indent; /* −1: on one line */
};

static void put_break(struct jinja *j, struct writer *w, struct style s, int depth)
{
    if (s.indent < 0)
        return;
    writer_text(j, w, "\n");
    for (int i = 0; i < depth * s.indent; i++)
        writer_text(j, w, " ");
}

static void put_comma(struct jinja *j, struct writer *w, struct style s, int depth)
{
    writer_text(j, w, s.indent < 0 ? ", " : ",");
    put_break(j, w, s, depth);
}

static void put_value(struct jinja *j, struct writer *w, struct value v, struct style s, int depth);

static void put_list(struct jinja *j, struct writer *w, struct value v, struct style s, int depth)
{
    int tuple = v.type == V_TUPLE && !s.json;
    writer_text(j, w, tuple ? "(" : "[");
    for (size_t i = 0; i < v.list->count; i++) {
        if (i)
            put_comma(j, w, s, depth + 1);
        else
            put_break(j, w, s, depth + 1);
        put_value(j, w, v.list->items[i], s, depth + 1);
    }
    if (v.list->count)
        put_break(j, w, s, depth);
    if (tuple && v.list->count == 1)
        writer_text(j, w, ",");
    writer_text(j, w, tuple ? ")" : "]");
}

static void put_dict(struct jinja *j, struct writer *w, struct value v, struct style s, int depth)
{
    writer_text(j, w, "{");
    for (size_t i = 0; i < v.dict->count; i++) {
        struct value key = v.dict->pairs[i].key;
        if (i)
            put_comma(j, w, s, depth + 1);
        else
            put_break(j, w, s, depth + 1);
        if (s.json && key.type != V_STRING)
            key = value_text(value_json(j, key, -1));
        put_value(j, w, key, s, depth + 1);
        writer_text(j, w, ": ");
        put_value(j, w, v.dict->pairs[i].value, s, depth + 1);
    }
    if (v.dict->count)
        put_break(j, w, s, depth);
    writer_text(j, w, "}");
}

static void put_value(struct jinja *j, struct writer *w, struct value v, struct style s, int depth)
{
    jinja_enter(j);
    switch (v.type) {
    case V_NONE: writer_text(j, w, s.json ? "null" : "None"); break;
    case V_BOOL: writer_text(j, w, s.json ? (v.integer ? "true" : "false") : v.integer ? "True" : "False"); break;
    case V_INT: put_integer(j, w, v.integer); break;
    case V_FLOAT: put_float(j, w, v.number, s.json); break;
    case V_STRING: put_quoted(j, w, v.text, s.json); break;
    case V_LIST: case V_TUPLE: put_list(j, w, v, s, depth); break;
    case V_DICT: put_dict(j, w, v, s, depth); break;
    case V_UNDEFINED:
        if (!s.json) {
            writer_text(j, w, "Undefined");
            break;
        } /* fall through */
    default: jinja_fail(j, LATHE_EFORMAT, "line %d: a %s has no text to write", j->line, value_type_name(v));
    }
    j->depth--;
}

struct text value_string(struct jinja *j, struct value v)
{
    struct writer w = {.grows = 1};
    if (v.type == V_STRING)
        return v.text;
    if (v.type != V_UNDEFINED)
        put_value(j, &w, v, (struct style){0, -1}, 0);
    return (struct text){w.bytes ? w.bytes : "", w.count};
}

struct text value_json(struct jinja *j, struct value v, int indent)
{
    struct writer w = {.grows = 1};
    put_value(j, &w, v, (struct style){1, indent}, 0);
    return (struct text){w.bytes ? w.bytes : "", w.count};
}

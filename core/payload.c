/* SPDX-License-Identifier: MIT */
/* Finding a description, and saying in words what a field holds. */
#include "payload.h"

#include <float.h>
#include <string.h>

#include "registry.h"

enum { NAMES_MAX = 64 };

/* Names of services, or with `service` of its methods; each once. */
static size_t collect_names(const char *service, const char **names)
{
    size_t total, count = 0;
    const struct payload *all = payload_all(&total);
    for (size_t i = 0; i < total && count < NAMES_MAX; i++) {
        if (service && strcmp(all[i].service, service) != 0)
            continue;
        const char *name = service ? all[i].method : all[i].service;
        if (count == 0 || strcmp(names[count - 1], name) != 0)
            names[count++] = name;
    }
    return count;
}

static int unknown(const char *service, const char *method, struct lathe_error *err)
{
    const char *names[NAMES_MAX];
    size_t count = collect_names(method ? service : NULL, names);
    const char *near = nearest_name(method ? method : service, names, count);
    char list[256] = "";
    for (size_t i = 0, used = 0; i < count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    if (method)
        return lathe_fail(err, LATHE_ENOTFOUND, "service `%s` has no method `%.60s`%s%s%s; it has %s", service, method,
                          near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "", list);
    return lathe_fail(err, LATHE_ENOTFOUND,
                      "there is no service `%.60s` whose messages are described%s%s%s; there are %s", service,
                      near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "", list);
}

int payload_find(const char *service, const char *method, const struct payload **what, struct lathe_error *err)
{
    size_t count;
    const struct payload *all = payload_all(&count);
    int known = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i].service, service) != 0)
            continue;
        known = 1;
        if (method && strcmp(all[i].method, method) != 0)
            continue;
        *what = &all[i];
        return LATHE_OK;
    }
    return unknown(service, known ? method : NULL, err);
}

int payload_member(const struct payload_struct *of, const char *member)
{
    for (size_t i = 0; i < of->count; i++)
        if (strcmp(of->fields[i].member, member) == 0)
            return (int)i;
    return -1;
}

/* ── in words ──────────────────────────────────────────────────────────────────────── */

static const char *integers(const struct payload_field *f, int type, const char *one, char *text, size_t capacity)
{
    int64_t min = (int64_t)f->min, max = (int64_t)f->max;
    if (f->min == 0 && f->max == 0) {
        switch (type) {
        case PAYLOAD_U8: min = 0, max = UINT8_MAX; break;
        case PAYLOAD_U32: min = 0, max = UINT32_MAX; break;
        case PAYLOAD_I32: min = INT32_MIN, max = INT32_MAX; break;
        case PAYLOAD_U64: min = 0, max = INT64_MAX; break;
        default: min = INT64_MIN, max = INT64_MAX;
        }
    }
    snprintf(text, capacity, "%s from %lld to %lld", one, (long long)min, (long long)max);
    return text;
}

const char *payload_expects(const struct payload_field *f, char *text, size_t capacity)
{
    int element = f->element;
    size_t used;
    switch (f->type) {
    case PAYLOAD_U8:
    case PAYLOAD_U32:
    case PAYLOAD_I32:
    case PAYLOAD_U64:
    case PAYLOAD_I64: return integers(f, f->type, "an integer", text, capacity);
    case PAYLOAD_F32:
        if (f->min == 0 && f->max == 0)
            return "a number";
        snprintf(text, capacity, "a number %s %g to %s %g", f->flags & PAYLOAD_ABOVE_MIN ? "above" : "from", f->min,
                 f->flags & PAYLOAD_BELOW_MAX ? "below" : "at most", f->max);
        return text;
    case PAYLOAD_BOOLEAN:
    case PAYLOAD_FLAGS: return "true or false";
    case PAYLOAD_CHOICE:
        used = (size_t)snprintf(text, capacity, "one of");
        for (const struct payload_name *n = f->names; n->name && used < capacity; n++)
            used += (size_t)snprintf(text + used, capacity - used, "%s %s", n > f->names ? "," : "", n->name);
        return text;
    case PAYLOAD_MASK:
        snprintf(text, capacity, "a list of integers from 0 to %u", f->bytes * 8 - 1);
        return text;
    case PAYLOAD_CHARS:
    case PAYLOAD_TEXT: return "a text";
    case PAYLOAD_JSON: return "a value that JSON can hold";
    case PAYLOAD_ROWS: return "a list of rows of numbers";
    case PAYLOAD_ATTENTION:
    case PAYLOAD_MASSES: return "a list of tables";
    case PAYLOAD_STRUCT:
    case PAYLOAD_PLACE: return "a table";
    case PAYLOAD_LIST:
    case PAYLOAD_SPAN:
    case PAYLOAD_RANGE:
        if (element == PAYLOAD_F32)
            return "a list of numbers";
        return f->of ? "a list of tables" : integers(f, element, "a list of integers", text, capacity);
    default: return "nothing";
    }
}

/* SPDX-License-Identifier: MIT */
/* Numbers and lists of numbers, from a source: see payload_read.h. */
#include "payload_read.h"

#include <math.h>
#include <string.h>

/* ── where the walk is ─────────────────────────────────────────────────────────────── */

size_t walk_enter_name(struct payload_walk *w, const char *name)
{
    size_t before = strlen(w->path);
    snprintf(w->path + before, sizeof w->path - before, "%s%s", before ? "." : "", name);
    return before;
}

size_t walk_enter_index(struct payload_walk *w, size_t index)
{
    size_t before = strlen(w->path);
    snprintf(w->path + before, sizeof w->path - before, "[%zu]", index + (size_t)w->source->first);
    w->source->element(w->source->context, index);
    return before;
}

void walk_leave(struct payload_walk *w, size_t before)
{
    w->source->leave(w->source->context);
    w->path[before] = '\0';
}

int walk_refuse(struct payload_walk *w, const char *expected)
{
    const struct payload *what = w->parts->what;
    char found[128];
    w->source->describe(w->source->context, found, sizeof found);
    return lathe_fail(w->err, LATHE_EINVAL, "%s.%s: %s should be %s, not %s", what->service, what->method,
                      w->path[0] ? w->path : "the message", expected, found);
}

int walk_refuse_field(struct payload_walk *w, const struct payload_field *field)
{
    char expected[160];
    return walk_refuse(w, payload_expects(field, expected, sizeof expected));
}

/* The same for an element of a list of numbers. */
static int refuse_element(struct payload_walk *w, const struct payload_field *field)
{
    struct payload_field element = *field;
    element.type = field->type == PAYLOAD_MASK ? PAYLOAD_U8 : field->element;
    return walk_refuse_field(w, &element);
}

/* ── numbers ───────────────────────────────────────────────────────────────────────── */

/* A whole number of any spelling: 2 and 2.0. */
static int whole(struct payload_walk *w, int64_t *value)
{
    const struct payload_source *s = w->source;
    double number;
    switch (s->kind(s->context)) {
    case PAYLOAD_IS_INTEGER: *value = s->integer(s->context); return 1;
    case PAYLOAD_IS_NUMBER:
        number = s->number(s->context);
        if (!(fabs(number) <= 9007199254740992.0) || number != floor(number))
            return 0;
        *value = (int64_t)number;
        return 1;
    default: return 0;
    }
}

static int in_range(const struct payload_field *f, int type, int64_t value)
{
    if (f->min != 0 || f->max != 0)
        return (double)value >= f->min && (double)value <= f->max;
    switch (type) {
    case PAYLOAD_U8: return value >= 0 && value <= UINT8_MAX;
    case PAYLOAD_U32: return value >= 0 && value <= UINT32_MAX;
    case PAYLOAD_I32: return value >= INT32_MIN && value <= INT32_MAX;
    case PAYLOAD_U64: return value >= 0;
    default: return 1;
    }
}

static size_t width_of(int type)
{
    return type == PAYLOAD_U8 ? 1 : type == PAYLOAD_U64 || type == PAYLOAD_I64 ? 8 : 4;
}

/* All widths hold what they are given: it was range-checked. */
void walk_put(void *at, size_t width, int64_t value)
{
    uint8_t narrow = (uint8_t)value;
    uint32_t middle = (uint32_t)value;
    memcpy(at, width == 1 ? (void *)&narrow : width == 4 ? (void *)&middle : (void *)&value, width);
}

int walk_integer(struct payload_walk *w, const struct payload_field *f, void *at)
{
    int64_t value;
    if (!whole(w, &value) || !in_range(f, f->type, value))
        return walk_refuse_field(w, f);
    walk_put(at, f->bytes, value);
    return LATHE_OK;
}

int walk_float(struct payload_walk *w, const struct payload_field *f, void *at)
{
    const struct payload_source *s = w->source;
    int kind = s->kind(s->context);
    if (kind != PAYLOAD_IS_INTEGER && kind != PAYLOAD_IS_NUMBER)
        return f ? walk_refuse_field(w, f) : walk_refuse(w, "a number");
    double value = kind == PAYLOAD_IS_INTEGER ? (double)s->integer(s->context) : s->number(s->context);
    if (f && (f->min != 0 || f->max != 0)) { /* written so that NaN fails, and what float32 rounds onto an open end */
        float stored = (float)value;
        if (!(value >= f->min && value <= f->max) || (f->flags & PAYLOAD_ABOVE_MIN && stored <= (float)f->min) ||
            (f->flags & PAYLOAD_BELOW_MAX && stored >= (float)f->max))
            return walk_refuse_field(w, f);
    }
    float single = (float)value;
    memcpy(at, &single, sizeof single);
    return LATHE_OK;
}

/* ── lists ─────────────────────────────────────────────────────────────────────────── */

/* Numbers of the current value, each of its type's width at `at`. */
static int floats(struct payload_walk *w, size_t length, unsigned char *at)
{
    for (size_t i = 0; i < length; i++) {
        size_t before = walk_enter_index(w, i);
        int rc = walk_float(w, NULL, at + i * sizeof(float));
        if (rc != LATHE_OK)
            return rc;
        walk_leave(w, before);
    }
    return LATHE_OK;
}

static int integers(struct payload_walk *w, const struct payload_field *f, size_t length, unsigned char *at)
{
    size_t width = width_of(f->element);
    for (size_t i = 0; i < length; i++) {
        int64_t value;
        size_t before = walk_enter_index(w, i);
        if (!whole(w, &value) || !in_range(f, f->element, value))
            return refuse_element(w, f);
        walk_put(at + i * width, width, value);
        walk_leave(w, before);
    }
    return LATHE_OK;
}

int walk_length(struct payload_walk *w, const struct payload_field *f, size_t *length)
{
    return w->source->list(w->source->context, length) ? LATHE_OK : walk_refuse_field(w, f);
}

/* Appended to the message's field `target`. */
int walk_append(struct payload_walk *w, const struct payload_field *f, int target, uint32_t range[2])
{
    size_t length;
    int rc = walk_length(w, f, &length);
    if (rc != LATHE_OK)
        return rc;
    range[0] = (uint32_t)w->parts->parts[target].count;
    range[1] = (uint32_t)length;
    void *at = payload_parts_add(w->parts, target, length, width_of(f->element), w->err);
    if (!at)
        return w->err->code;
    return f->element == PAYLOAD_F32 ? floats(w, length, at) : integers(w, f, length, at);
}

int walk_rows(struct payload_walk *w, const struct payload_field *f, int target)
{
    size_t rows, width = 0, length;
    int rc = walk_length(w, f, &rows);
    for (size_t r = 0; rc == LATHE_OK && r < rows; r++) {
        size_t before = walk_enter_index(w, r);
        if (!w->source->list(w->source->context, &length) || length == 0 || (r > 0 && length != width))
            return walk_refuse(w, r ? "a list of numbers as long as the first" : "a list of numbers");
        width = length;
        unsigned char *at = payload_parts_add(w->parts, target, 1, width * sizeof(float), w->err);
        if (!at)
            return w->err->code;
        for (size_t i = 0; rc == LATHE_OK && i < width; i++) {
            size_t row = walk_enter_index(w, i);
            if ((rc = walk_float(w, NULL, at + i * sizeof(float))) == LATHE_OK)
                walk_leave(w, row);
        }
        if (rc == LATHE_OK)
            walk_leave(w, before);
    }
    return rc;
}

int walk_mask(struct payload_walk *w, const struct payload_field *f, void *at)
{
    uint64_t mask[LATHE_PROBE_MAX_LAYERS / 64] = { 0 };
    size_t length;
    int rc = walk_length(w, f, &length);
    for (size_t i = 0; rc == LATHE_OK && i < length; i++) {
        int64_t bit;
        size_t before = walk_enter_index(w, i);
        if (!whole(w, &bit) || bit < 0 || bit >= (int64_t)f->bytes * 8)
            return refuse_element(w, f);
        mask[bit / 64] |= UINT64_C(1) << (bit % 64);
        walk_leave(w, before);
    }
    memcpy(at, mask, f->bytes);
    return rc;
}

/* A fixed array: its count goes to the member beside it. */
int walk_list(struct payload_walk *w, const struct payload_struct *of, const struct payload_field *f,
              unsigned char *base)
{
    size_t length, room = f->each ? f->each : f->bytes / width_of(f->element);
    int rc = walk_length(w, f, &length);
    if (rc == LATHE_OK && length > room) {
        char expected[64];
        snprintf(expected, sizeof expected, "at most %zu elements", room);
        return walk_refuse(w, expected);
    }
    const struct payload_field *count = &of->fields[payload_member(of, f->link)];
    walk_put(base + count->offset, count->bytes, (int64_t)length);
    return rc == LATHE_OK ? integers(w, f, length, base + f->offset) : rc;
}

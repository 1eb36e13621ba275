/* SPDX-License-Identifier: MIT */
/* A reply as a table: see payload.h. Everything that the method wrote about the reply itself
 * (spans, counts) is checked before it is followed, and regions are those that were asked for,
 * not those that stand in the reply now. */
#include "payload.h"

#include <string.h>

struct writing {
    const struct payload_call *call;
    const struct payload_sink *sink;
    struct lathe_error *err;
};

static int outside(const struct writing *w, const struct payload_field *f)
{
    const struct payload *what = w->call->what;
    return lathe_fail(w->err, LATHE_EINTERNAL, "%s.%s: `%s` of the reply lies outside of its own message",
                      what->service, what->method, f->name);
}

static uint64_t natural_at(const unsigned char *at, size_t width)
{
    uint64_t wide;
    uint32_t narrow;
    if (width == 1)
        return *at;
    memcpy(width == 8 ? (void *)&wide : (void *)&narrow, at, width);
    return width == 8 ? wide : narrow;
}

/* A number of a scalar type; 0: it is none. */
static int write_number(const struct payload_sink *sink, int type, const unsigned char *at)
{
    float single;
    switch (type) {
    case PAYLOAD_U8: sink->natural(sink->context, *at); return 1;
    case PAYLOAD_U32: sink->natural(sink->context, natural_at(at, 4)); return 1;
    case PAYLOAD_U64: sink->natural(sink->context, natural_at(at, 8)); return 1;
    case PAYLOAD_I32: sink->integer(sink->context, (int32_t)natural_at(at, 4)); return 1;
    case PAYLOAD_I64: sink->integer(sink->context, (int64_t)natural_at(at, 8)); return 1;
    case PAYLOAD_F32:
        memcpy(&single, at, sizeof single);
        sink->number(sink->context, single);
        return 1;
    default: return 0;
    }
}

static size_t width_of(int type)
{
    return type == PAYLOAD_U8 ? 1 : type == PAYLOAD_U64 || type == PAYLOAD_I64 ? 8 : 4;
}

static void write_numbers(const struct payload_sink *sink, int type, const unsigned char *at, size_t count)
{
    sink->list(sink->context, count);
    for (size_t i = 0; i < count; i++)
        write_number(sink, type, at + i * width_of(type));
    sink->close(sink->context);
}

/* A value that no name stands for is given as it is. */
static void write_choice(const struct payload_sink *sink, const struct payload_field *f, const unsigned char *at)
{
    uint32_t value = (uint32_t)natural_at(at, 4);
    for (const struct payload_name *n = f->names; n->name; n++)
        if (n->value == value) {
            sink->text(sink->context, n->name, strlen(n->name));
            return;
        }
    sink->integer(sink->context, (int32_t)value);
}

static int write_rows(const struct writing *w, const struct payload_field *f, uint64_t rows)
{
    size_t own = (size_t)(f - w->call->what->out->fields);
    const struct lathe_region region = w->call->regions[own];
    uint64_t width = w->call->rooms[own].width, bytes;
    if (__builtin_mul_overflow(rows, width * sizeof(float), &bytes) || bytes > region.bytes)
        return outside(w, f);
    w->sink->list(w->sink->context, rows);
    for (uint64_t r = 0; r < rows; r++)
        write_numbers(w->sink, PAYLOAD_F32,
                      (const unsigned char *)w->call->out + region.offset + r * width * sizeof(float), width);
    w->sink->close(w->sink->context);
    return LATHE_OK;
}

static int write_fields(const struct writing *w, const struct payload_struct *of, const unsigned char *base);

static int write_table(const struct writing *w, const struct payload_struct *of, const unsigned char *base)
{
    w->sink->table(w->sink->context);
    int rc = write_fields(w, of, base);
    if (rc == LATHE_OK) /* else the sink is left as it is, open */
        w->sink->close(w->sink->context);
    return rc;
}

static int write_span(const struct writing *w, const struct payload_field *f, const unsigned char *base)
{
    const struct lathe_message *out = w->call->out;
    size_t each = f->type == PAYLOAD_TEXT ? 1 : f->of ? f->of->bytes : width_of(f->element);
    size_t align = f->type == PAYLOAD_TEXT ? 1 : f->of ? 8 - f->of->bytes % 8 : each; /* 4 or 8 */
    struct lathe_span span;
    int rc = LATHE_OK;
    memcpy(&span, base + f->offset, sizeof span);
    if (!lathe_span_check(out, span, each, align))
        return outside(w, f);
    const unsigned char *at = (const unsigned char *)out + (span.count ? span.offset : 0);
    if (f->type == PAYLOAD_TEXT) {
        w->sink->text(w->sink->context, (const char *)at, span.count);
    } else if (!f->of) {
        write_numbers(w->sink, f->element, at, span.count);
    } else {
        w->sink->list(w->sink->context, span.count);
        for (uint64_t i = 0; rc == LATHE_OK && i < span.count; i++)
            rc = write_table(w, f->of, at + i * each);
        if (rc == LATHE_OK)
            w->sink->close(w->sink->context);
    }
    return rc;
}

static int write_field(const struct writing *w, const struct payload_struct *of, const struct payload_field *f,
                       const unsigned char *base)
{
    const struct payload_sink *sink = w->sink;
    const unsigned char *at = base + f->offset;
    const struct payload_field *link = f->link ? &of->fields[payload_member(of, f->link)] : NULL;
    uint64_t count = link ? natural_at(base + link->offset, link->bytes) : 0;
    switch (f->type) {
    case PAYLOAD_BOOLEAN: sink->boolean(sink->context, natural_at(at, 4) != 0); return LATHE_OK;
    case PAYLOAD_CHOICE: write_choice(sink, f, at); return LATHE_OK;
    case PAYLOAD_CHARS:
        sink->text(sink->context, (const char *)at, strnlen((const char *)at, f->bytes));
        return LATHE_OK;
    case PAYLOAD_STRUCT: return write_table(w, f->of, at);
    case PAYLOAD_TEXT:
    case PAYLOAD_SPAN: return write_span(w, f, base);
    case PAYLOAD_ROWS: return write_rows(w, f, count);
    case PAYLOAD_LIST:
        if (count > f->bytes / width_of(f->element))
            return outside(w, f);
        write_numbers(sink, f->element, at, count);
        return LATHE_OK;
    case PAYLOAD_ATTENTION:
    case PAYLOAD_MASSES: {
        const struct lathe_region region = w->call->regions[f - of->fields];
        const unsigned char *bytes = (const unsigned char *)w->call->out + region.offset;
        if (count > region.bytes)
            return outside(w, f);
        return f->type == PAYLOAD_MASSES ? payload_write_masses(w->call, bytes, count, sink, w->err)
                                         : payload_write_attention(w->call, bytes, count, sink, w->err);
    }
    default: write_number(sink, f->type, at); return LATHE_OK;
    }
}

static int write_fields(const struct writing *w, const struct payload_struct *of, const unsigned char *base)
{
    const struct payload_sink *sink = w->sink;
    int rc = LATHE_OK;
    for (size_t i = 0; rc == LATHE_OK && i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        if (f->type == PAYLOAD_FLAGS) {
            for (const struct payload_name *flag = f->names; flag->name; flag++) {
                sink->name(sink->context, flag->name);
                sink->boolean(sink->context, (natural_at(base + f->offset, 4) & flag->value) != 0);
            }
        } else if (f->type == PAYLOAD_STRUCT && !f->name) {
            rc = write_fields(w, f->of, base + f->offset);
        } else if (f->name) {
            sink->name(sink->context, f->name);
            rc = write_field(w, of, f, base);
        }
    }
    return rc;
}

int payload_write(const struct payload_call *call, const struct payload_sink *sink, struct lathe_error *err)
{
    struct writing w = { call, sink, err };
    return write_table(&w, call->what->out, (const unsigned char *)call->out);
}

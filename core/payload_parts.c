/* SPDX-License-Identifier: MIT */
/* A message in pieces: growing arrays while it is read, then laid out in one go where the bus
 * loaned room, each array aligned to a cache line as lathe_message_add does it. */
#include "payload.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 64 };

void *payload_parts_add(struct payload_parts *parts, int field, size_t count, size_t each, struct lathe_error *err)
{
    struct payload_part *part = &parts->parts[field];
    size_t wanted, bytes;
    part->each = each;
    if (__builtin_add_overflow(part->count, count, &wanted) || __builtin_mul_overflow(wanted, each, &bytes) ||
        bytes > PAYLOAD_MAX_BYTES || wanted > INT32_MAX) {
        lathe_error_set(err, LATHE_ERANGE, "%s.%s: more than %llu bytes in one message: send less at once",
                        parts->what->service, parts->what->method, (unsigned long long)PAYLOAD_MAX_BYTES);
        return NULL;
    }
    if (wanted > part->capacity || !part->bytes) {
        size_t capacity = part->capacity * 2 > wanted ? part->capacity * 2 : wanted + 16;
        unsigned char *grown = realloc(part->bytes, capacity * each);
        if (!grown) {
            lathe_error_set(err, LATHE_ENOMEM, "%s.%s: no memory for a message of %zu bytes", parts->what->service,
                            parts->what->method, capacity * each);
            return NULL;
        }
        part->bytes = grown;
        part->capacity = capacity;
    }
    unsigned char *at = part->bytes + part->count * each;
    memset(at, 0, count * each);
    part->count = wanted;
    return at;
}

void payload_parts_free(struct payload_parts *parts)
{
    for (size_t i = 0; i < PAYLOAD_FIELDS_MAX; i++)
        free(parts->parts[i].bytes);
    free(parts->fixed);
    memset(parts, 0, sizeof *parts);
}

size_t payload_in_bytes(const struct payload_parts *parts)
{
    size_t total = parts->what->in->bytes + LINE_BYTES; /* no sum wraps: each is within PAYLOAD_MAX_BYTES */
    for (size_t i = 0; i < PAYLOAD_FIELDS_MAX; i++)
        total += parts->parts[i].count * parts->parts[i].each + LINE_BYTES;
    return total;
}

int payload_lay_out(const struct payload_parts *parts, struct lathe_message *in, struct lathe_error *err)
{
    const struct payload_struct *of = parts->what->in;
    size_t wanted = payload_in_bytes(parts);
    if (in->capacity < wanted)
        return lathe_fail(err, LATHE_EFULL, "%s.%s: the message takes %zu bytes, there is room for %llu",
                          parts->what->service, parts->what->method, wanted, (unsigned long long)in->capacity);
    memcpy(in + 1, parts->fixed + sizeof *in, of->bytes - sizeof *in);
    in->bytes = of->bytes;
    for (size_t i = 0; i < of->count; i++) {
        const struct payload_part *part = &parts->parts[i];
        const struct payload_field *f = &of->fields[i];
        struct lathe_span span;
        if (part->count == 0)
            continue;
        void *at = lathe_message_add(in, &span, part->count, part->each);
        if (!at)
            return lathe_fail(err, LATHE_EINTERNAL, "%s.%s: the message outgrew its own measure", parts->what->service,
                              parts->what->method);
        memcpy(at, part->bytes, part->count * part->each);
        struct lathe_region region = { (int64_t)span.offset, span.count * part->each };
        if (f->type == PAYLOAD_ROWS || f->type == PAYLOAD_INTEGERS)
            memcpy((unsigned char *)in + f->offset, &region, sizeof region);
        else
            memcpy((unsigned char *)in + f->offset, &span, sizeof span);
    }
    return LATHE_OK;
}

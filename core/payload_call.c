/* SPDX-License-Identifier: MIT */
/* One call by hand: loan, lay out, call, and again with more room while the method says that it
 * needs more. Regions of the reply lie behind its fixed fields, in the same loan, so that they
 * are reached on every bus. */
#include "payload.h"

#include <string.h>

enum { LINE_BYTES = 64, TRIES_MAX = 4, GUESS_BYTES = 4096 };

static uint64_t line(uint64_t bytes)
{
    return (bytes + LINE_BYTES - 1) & ~(uint64_t)(LINE_BYTES - 1);
}

static int has_region(const struct payload_field *f)
{
    return f->type == PAYLOAD_ROWS || f->type == PAYLOAD_ATTENTION || f->type == PAYLOAD_MASSES;
}

static void give_back(struct payload_call *call, struct lathe_message **message)
{
    if (*message)
        call->bus->give_back(call->bus_self, *message);
    *message = NULL;
}

void payload_call_close(struct payload_call *call)
{
    give_back(call, &call->in);
    give_back(call, &call->out);
}

static int too_large(const struct payload *what, const char *which, uint64_t bytes, struct lathe_error *err)
{
    return lathe_fail(
        err, LATHE_ERANGE, "%s.%s: a %s of %llu bytes; a call by hand takes at most %llu: ask for less at once",
        what->service, what->method, which, (unsigned long long)bytes, (unsigned long long)PAYLOAD_MAX_BYTES);
}

static int send(struct payload_call *call, const struct payload_parts *parts, struct lathe_error *err)
{
    size_t bytes = payload_in_bytes(parts);
    if (bytes > PAYLOAD_MAX_BYTES)
        return too_large(call->what, "message", bytes, err);
    call->in = call->bus->loan(call->bus_self, bytes, err);
    if (!call->in)
        return err->code;
    call->in->correlation = call->correlation;
    call->in->deadline_ns = call->deadline_ns;
    call->in->flags = call->flags;
    return payload_lay_out(parts, call->in, err);
}

/* A reply of `variable` bytes beside its fixed fields and regions. */
static int prepare(struct payload_call *call, uint64_t variable, struct lathe_error *err)
{
    const struct payload_struct *of = call->what->out;
    uint64_t bytes = line(of->bytes), at;
    for (size_t i = 0; i < of->count; i++)
        bytes += call->rooms[i].bytes <= PAYLOAD_MAX_BYTES ? line(call->rooms[i].bytes) : PAYLOAD_MAX_BYTES + 1;
    at = bytes;
    if (variable > PAYLOAD_MAX_BYTES || (bytes += line(variable)) > PAYLOAD_MAX_BYTES)
        return too_large(call->what, "reply", bytes, err);
    give_back(call, &call->out);
    call->out = call->bus->loan(call->bus_self, bytes, err);
    if (!call->out)
        return err->code;
    memset((char *)call->out + sizeof *call->out, 0, of->bytes - sizeof *call->out);
    call->out_capacity = call->out->capacity;
    call->out->bytes = of->bytes;
    at = line(of->bytes);
    for (size_t i = 0; i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        if (!has_region(f))
            continue;
        call->regions[i] = (struct lathe_region){ (int64_t)at, call->rooms[i].bytes };
        memcpy((char *)call->out + f->offset, &call->regions[i], sizeof call->regions[i]);
        at += line(call->rooms[i].bytes);
    }
    return LATHE_OK;
}

static uint64_t member(const struct payload_call *call, const struct payload_field *f)
{
    uint64_t wide = 0;
    uint32_t narrow = 0;
    memcpy(f->bytes == 8 ? (void *)&wide : (void *)&narrow, (const char *)call->out + f->offset,
           f->bytes == 8 ? 8 : 4);
    return f->bytes == 8 ? wide : narrow;
}

/* What the reply says it needs. 1: it is more than there was, and rooms or *variable have grown. */
static int grow(struct payload_call *call, uint64_t *variable)
{
    const struct payload_struct *of = call->what->out;
    int grown = 0;
    for (size_t i = 0; i < of->count; i++) {
        const struct payload_field *f = &of->fields[i];
        uint64_t bytes;
        if (f->type == PAYLOAD_NEEDED && !__builtin_mul_overflow(member(call, f), (uint64_t)f->each, &bytes) &&
            bytes + LINE_BYTES > *variable) {
            *variable = bytes + LINE_BYTES;
            grown = 1;
        }
        if (f->type == PAYLOAD_ATTENTION || f->type == PAYLOAD_MASSES) {
            bytes = member(call, &of->fields[payload_member(of, f->link)]);
            if (bytes > call->rooms[i].bytes) {
                call->rooms[i].bytes = bytes;
                grown = 1;
            }
        }
    }
    return grown;
}

int payload_call_run(struct payload_call *call, const struct payload_parts *parts, struct lathe_error *err)
{
    const struct payload *what = call->what;
    int rc = send(call, parts, err);
    if (rc == LATHE_OK && what->measure)
        rc = what->measure(call->in, call->model, call->rooms, err);
    if (rc != LATHE_OK)
        return rc;
    /* No reply of today's methods is longer than four times its message, but for small ones. */
    uint64_t variable = what->measure ? 0 : GUESS_BYTES + 4 * call->in->bytes;
    if (variable > PAYLOAD_MAX_BYTES / 2)
        variable = PAYLOAD_MAX_BYTES / 2;
    for (int i = 0; i < TRIES_MAX; i++) {
        if ((rc = prepare(call, variable, err)) != LATHE_OK)
            return rc;
        rc = call->endpoint->call(call->endpoint->self, call->in, call->out, err);
        call->out->capacity = call->out_capacity; /* whatever was written there */
        if (rc > 0)
            return lathe_fail(err, LATHE_EINTERNAL, "%s.%s returned %d, which is no status", what->service,
                              what->method, rc);
        if (rc != LATHE_EFULL || !grow(call, &variable))
            return rc;
    }
    return lathe_fail(err, LATHE_EINTERNAL, "%s.%s asks for more room each time", what->service, what->method);
}

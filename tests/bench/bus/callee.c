/* SPDX-License-Identifier: MIT */
/* See callee.h. */
#include "callee.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const char recipe[] = "bench_bus";

int callee_nothing(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out, (void)err;
    return LATHE_OK;
}

static int payload(const struct lathe_message *in, struct callee_answer *out, uint64_t *bytes,
                   struct lathe_error *err)
{
    if (in->bytes < sizeof *in || in->bytes > in->capacity || out->head.capacity < sizeof *out)
        return lathe_fail(err, LATHE_EINVAL, "bench: a message of %llu bytes, room for %llu in the answer",
                          (unsigned long long)in->bytes, (unsigned long long)out->head.capacity);
    *bytes = in->bytes - sizeof *in;
    out->head.bytes = sizeof *out;
    return LATHE_OK;
}

int callee_sum(void *self, const void *in, void *out_, struct lathe_error *err)
{
    struct callee_answer *out = out_;
    uint64_t bytes;
    int status = payload(in, out, &bytes, err);
    (void)self;
    if (status == LATHE_OK)
        out->sum = bench_sum((const struct lathe_message *)in + 1, bytes);
    return status;
}

/* The copy stays from call to call: its pages are touched by the first. One worker, one thread. */
int callee_copy_sum(void *self, const void *in, void *out_, struct lathe_error *err)
{
    static void *own;
    static uint64_t room;
    struct callee_answer *out = out_;
    uint64_t bytes;
    int status = payload(in, out, &bytes, err);
    (void)self;
    if (status != LATHE_OK)
        return status;
    if (bytes > room) {
        free(own);
        own = malloc(bytes);
        room = own ? bytes : 0;
        if (!own)
            return lathe_fail(err, LATHE_ENOMEM, "bench: no memory for a copy of %llu bytes",
                              (unsigned long long)bytes);
    }
    memcpy(own, (const struct lathe_message *)in + 1, bytes);
    out->sum = bench_sum(own, bytes);
    return LATHE_OK;
}

static const struct lathe_service_method methods[] = {
    { .name = "nothing", .function = callee_nothing, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "sum", .function = callee_sum, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "copy_sum", .function = callee_copy_sum, .flags = LATHE_METHOD_IDEMPOTENT },
};

const struct lathe_service callee_service = {
    .size = sizeof callee_service,
    .method_count = sizeof methods / sizeof *methods,
    .name = "bench",
    .methods = methods,
    .concurrency = LATHE_SERIAL,
    .workers = 1,
    .recipe = recipe,
    .recipe_bytes = sizeof recipe,
};

static int open_recipe(void *context, const void *what, uint64_t bytes, const struct lathe_service **services,
                       uint32_t *count, struct lathe_error *err)
{
    (void)context;
    if (bytes != sizeof recipe || memcmp(what, recipe, bytes) != 0)
        return lathe_fail(err, LATHE_EINVAL, "bench_bus makes no service but its own");
    *services = &callee_service;
    *count = 1;
    return LATHE_OK;
}

static void close_recipe(void *context)
{
    (void)context;
}

const struct lathe_recipe_maker callee_maker = { .size = sizeof callee_maker,
                                                 .open = open_recipe,
                                                 .close = close_recipe };

/* SPDX-License-Identifier: MIT */
#include "echo.h"

#include <stdlib.h>
#include <string.h>

struct echo {
    uint64_t *own; /* grown to the largest payload seen */
    uint64_t capacity;
};

struct echo *echo_create(void)
{
    return calloc(1, sizeof(struct echo));
}

void echo_destroy(struct echo *echo)
{
    if (echo)
        free(echo->own);
    free(echo);
}

/* Four sums side by side, so that reading memory is what takes the time. */
uint64_t echo_sum(const uint64_t *words, uint64_t count)
{
    uint64_t a = 0, b = 0, c = 0, d = 0, i = 0;
    for (; i + 4 <= count; i += 4) {
        a += words[i];
        b += words[i + 1];
        c += words[i + 2];
        d += words[i + 3];
    }
    for (; i < count; i++)
        a += words[i];
    return a + b + c + d;
}

static int ping(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)err;
    ((struct lathe_message *)out)->bytes = sizeof(struct lathe_message);
    return LATHE_OK;
}

static int check(const struct echo_in *in, const struct echo_out *out, struct lathe_error *err)
{
    if (in->head.bytes < sizeof *in || out->head.capacity < sizeof *out ||
        !lathe_span_check(&in->head, in->payload, sizeof(uint64_t), sizeof(uint64_t)) ||
        in->payload.count > ECHO_MAX_BYTES / sizeof(uint64_t))
        return lathe_fail(err, LATHE_EINVAL, "echo: the payload lies outside of its message, or is larger than %d bytes",
                          ECHO_MAX_BYTES);
    return LATHE_OK;
}

static int sum(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct echo_in *in = in_;
    struct echo_out *out = out_;
    (void)self;
    int status = check(in, out, err);
    if (status != LATHE_OK)
        return status;
    out->sum = echo_sum(LATHE_SPAN(const uint64_t, in, in->payload), in->payload.count);
    out->head.bytes = sizeof *out;
    return LATHE_OK;
}

static int take(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    struct echo *echo = self;
    const struct echo_in *in = in_;
    struct echo_out *out = out_;
    int status = check(in, out, err);
    if (status != LATHE_OK)
        return status;
    uint64_t bytes = in->payload.count * sizeof(uint64_t);
    if (bytes > echo->capacity) {
        uint64_t *larger = realloc(echo->own, bytes);
        if (!larger)
            return lathe_fail(err, LATHE_ENOMEM, "echo: no memory for a copy of %llu bytes", (unsigned long long)bytes);
        echo->own = larger;
        echo->capacity = bytes;
    }
    if (bytes)
        memcpy(echo->own, LATHE_SPAN(const uint64_t, in, in->payload), bytes);
    out->sum = echo_sum(echo->own, in->payload.count);
    out->head.bytes = sizeof *out;
    return LATHE_OK;
}

void echo_methods(struct echo *echo, struct lathe_service_method *methods)
{
    methods[0] = (struct lathe_service_method){ "ping", ping, echo, LATHE_METHOD_IDEMPOTENT, 0 };
    methods[1] = (struct lathe_service_method){ "sum", sum, echo, LATHE_METHOD_IDEMPOTENT, 0 };
    methods[2] = (struct lathe_service_method){ "take", take, echo, LATHE_METHOD_IDEMPOTENT, 0 };
}

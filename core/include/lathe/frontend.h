/* SPDX-License-Identifier: MIT */
/* The frontend seam: how does the world reach the engine?
 *
 * A frontend brings requests in and takes tokens out through a table that the host hands
 * it; it runs threads of its own between start and stop.
 *
 *     create → start(door) → … submit, read, cancel … → stop → destroy */
#ifndef LATHE_FRONTEND_H
#define LATHE_FRONTEND_H

#include <lathe/host.h>
#include <lathe/request.h>
#include <lathe/sampler.h>

enum { LATHE_FRONTEND_ABI = 1 };

struct lathe_submission {
    uint32_t size;
    uint32_t max_output_tokens;
    const char *text;           /* prompt, `text_bytes` long; or: */
    uint64_t text_bytes;
    const int32_t *tokens;      /* ids, `token_count` long */
    uint64_t token_count;
    const struct lathe_sampling *sampling; /* NULL: the sampler's defaults */
    const char *correlation_id; /* at most 63 bytes; NULL: made */
    const char *tenant, *class_name; /* at most 31 bytes; NULL: "" */
    int32_t priority;
    int32_t ignore_eos;
    int64_t deadline_ns;        /* from now; 0: none */
};

/* A piece of a request's output. */
struct lathe_output {
    int32_t token;
    float logprob;
    int64_t time_ns;
    int32_t finish_reason; /* enum lathe_finish_reason; not NONE on the last piece */
    uint32_t text_bytes;
    char text[256];        /* whole UTF-8 characters, may be empty */
};

/* The engine's door. All functions are [any]; `door` is passed first. */
struct lathe_door {
    uint32_t size;
    uint32_t abi; /* LATHE_FRONTEND_ABI */
    void *door;
    /* LATHE_EFULL: overloaded, try later. LATHE_ERANGE: the prompt is beyond the context. */
    int (*submit)(void *door, const struct lathe_submission *submission, uint64_t *request,
                  struct lathe_error *err);
    /* Next piece of output, waiting at most timeout_ns; LATHE_EBUSY: nothing yet. */
    int (*read)(void *door, uint64_t request, int64_t timeout_ns, struct lathe_output *output,
                struct lathe_error *err);
    /* Takes effect between steps; the last piece then says ABORT. Unknown is ignored. */
    void (*cancel)(void *door, uint64_t request);
};

struct lathe_frontend_api {
    LATHE_API_HEAD;
    int (*start)(void *self, const struct lathe_door *door, struct lathe_error *err); /* [main] */
    /* Refuses new work, ends or cancels what is under way, joins its threads. [main] */
    void (*stop)(void *self);
};

#endif

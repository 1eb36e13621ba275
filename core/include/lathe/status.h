/* SPDX-License-Identifier: MIT */
/* Status codes, and the sentence that goes with them.
 *
 * Every call that can fail returns 0 or a negative LATHE_E… and, as its last
 * argument, takes a caller-owned `struct lathe_error` (never NULL on a seam)
 * that it fills on failure only. The message is one sentence for a person: it
 * names the object, what was found, what was expected, and what to do. A plugin
 * never prints and never exits: it returns.
 *
 * Values are appended, never renumbered: rows in databases hold them. */
#ifndef LATHE_STATUS_H
#define LATHE_STATUS_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

enum lathe_status {
    LATHE_OK = 0,
    LATHE_EINVAL = -1,       /* an argument or option is wrong */
    LATHE_ENOMEM = -2,       /* host memory ran out */
    LATHE_EIO = -3,          /* the system refused: file, device, database */
    LATHE_ENOTFOUND = -4,    /* no such plugin, file, model, method, request */
    LATHE_EFULL = -5,        /* a bounded thing is full: try again after a step,
                                or come back with the capacity that is named */
    LATHE_EBLOCKS = -6,      /* the KV pool has no block left for this */
    LATHE_ERANGE = -7,       /* a number is outside its range (context, vocabulary) */
    LATHE_EABI = -8,         /* built for another ABI of a seam */
    LATHE_EFORMAT = -9,      /* a file's bytes are not what the format says */
    LATHE_EUNSUPPORTED = -10,/* well formed, but not something this build does */
    LATHE_ECANCELLED = -11,  /* the caller took it back */
    LATHE_EDEADLINE = -12,   /* its time had passed */
    LATHE_EBUSY = -13,       /* somebody else holds it */
    LATHE_EINTERNAL = -14,   /* a broken promise inside; please report it */
    LATHE_ESTATE = -15,      /* used after close, or in the wrong order */
    LATHE_EUNAVAILABLE = -16,/* the service can't be reached now: its worker is gone, or its
                                breaker is open; nothing was begun, try again later */
    LATHE_ELOST = -17,       /* what the service held of earlier calls is gone with its worker:
                                begin from the beginning */
};

enum { LATHE_ERROR_MESSAGE_BYTES = 508 };

/* Lives where the caller likes; no pointers, so it travels in a message. */
struct lathe_error {
    int32_t code;
    char message[LATHE_ERROR_MESSAGE_BYTES]; /* NUL-terminated, cut if longer */
};

/* Fill `err` (which may be NULL) with a code and its sentence. [any] */
__attribute__((format(printf, 3, 4))) static inline void
lathe_error_set(struct lathe_error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        err->code = code;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
}

static inline int lathe_status_value(int code)
{
    return code;
}

/* `return lathe_fail(err, LATHE_EINVAL, "…", …);` sets and yields the code. A macro, so that
 * the compiler sees that it isn't 0; `code` is evaluated twice. [any] */
#define lathe_fail(err, code, ...) (lathe_error_set((err), (code), __VA_ARGS__), lathe_status_value(code))

#endif

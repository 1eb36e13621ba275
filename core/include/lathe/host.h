/* SPDX-License-Identifier: MIT */
/* What the host hands to a plugin: log, clock, memory, figures.
 *
 * The table outlives every instance. Each function takes `host->context` first.
 * A plugin keeps the pointer from `create` and needs nothing else from the host. */
#ifndef LATHE_HOST_H
#define LATHE_HOST_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/plugin.h>

enum lathe_log_level {
    LATHE_LOG_DEBUG = 0,
    LATHE_LOG_INFO = 1,
    LATHE_LOG_WARN = 2,
    LATHE_LOG_ERROR = 3,
};

/* Roles a thread can have; see <lathe/plugin.h>. */
enum lathe_thread {
    LATHE_THREAD_MAIN = 1,
    LATHE_THREAD_LOADER = 2,
    LATHE_THREAD_ENGINE = 4,
    LATHE_THREAD_WORKER = 8,
};

struct lathe_host {
    uint32_t size;
    uint32_t abi; /* LATHE_PLUGIN_ABI */
    void *context;

    /* One JSON line in the log. `correlation` is the request's number, 0 for none.
     * Not inside the step loop: it writes to a file. [any] */
    void (*log)(void *context, int level, uint64_t correlation, const char *message);

    /* The clock, real or virtual: nanoseconds since the run began. Never read the
     * machine's clock yourself, and never stamp a row: the engine does. [any] */
    int64_t (*now_ns)(void *context);

    /* Memory that the tests can make fail. `align` is a power of two, 0 for the
     * default. NULL when there is none: return LATHE_ENOMEM. Zeroed. [any] */
    void *(*alloc)(void *context, size_t bytes, size_t align);
    void (*free)(void *context, void *memory); /* NULL is ignored. [any] */

    /* A named figure of the plugin's own: registered once, at create, then
     * recorded by number. Shows up in table `metric`. The number is ≥ 0, or
     * negative on failure (too many; no recorder is not a failure). [main] */
    int (*metric)(void *context, const char *name, const char *unit, const char *help);
    /* Costs one branch when nothing records. [engine & running] */
    void (*record)(void *context, int metric, double value);

    /* The roles of the calling thread: bits of enum lathe_thread. [any] */
    uint32_t (*thread_roles)(void *context);

    /* A thread that a plugin started says what it is, once, before it calls a seam: bits of
     * enum lathe_thread. [any]                                              since plugin abi 2 */
    void (*set_thread_roles)(void *context, uint32_t roles);
    /* Wait until now_ns is at least `when_ns`: sleeps on a real clock, jumps on a virtual one.
     * Not inside the step loop, but for a retry's pause. [any]              since plugin abi 2 */
    void (*wait_until)(void *context, int64_t when_ns);
};

/* Debug builds check thread tags with this; release builds don't ask. */
#ifdef NDEBUG
#define LATHE_ASSERT_THREAD(host, roles) ((void)(host))
#else
#include <assert.h>
#define LATHE_ASSERT_THREAD(host, roles) \
    assert(((host)->thread_roles((host)->context) & (uint32_t)(roles)) != 0)
#endif

static inline void *lathe_alloc(const struct lathe_host *host, size_t bytes)
{
    return host->alloc(host->context, bytes, 0);
}

/* count × each, or NULL when the product would wrap. */
static inline void *lathe_alloc_array(const struct lathe_host *host, size_t count, size_t each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, each, &bytes))
        return NULL;
    return host->alloc(host->context, bytes, 0);
}

static inline void lathe_free(const struct lathe_host *host, void *memory)
{
    host->free(host->context, memory);
}

#endif

/* SPDX-License-Identifier: MIT */
#include "host.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "recorder.h"

struct host_context {
    char *name;
    const struct clock *clock;
    struct clock own_clock; /* until a run's clock is attached */
    struct producer *producer;
    int metric_count;
    struct host_metric metrics[HOST_MAX_METRICS];
};

/* --- thread roles ---------------------------------------------------------------- */

enum { ALL_ROLES = LATHE_THREAD_MAIN | LATHE_THREAD_LOADER | LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER };

static _Thread_local uint32_t own_roles; /* 0: not said yet */

void host_set_thread_roles(uint32_t roles)
{
    own_roles = roles;
}

uint32_t host_thread_roles(void)
{
    if (own_roles == 0)
        own_roles = syscall(SYS_gettid) == getpid() ? ALL_ROLES : LATHE_THREAD_LOADER | LATHE_THREAD_WORKER;
    return own_roles;
}

static uint32_t table_thread_roles(void *context)
{
    (void)context;
    return host_thread_roles();
}

/* --- memory ---------------------------------------------------------------------- */

/* In front of each piece, so that any alignment can come from calloc, whose large pieces
 * are pages that cost nothing until they are touched. */
struct piece {
    void *base;
    size_t bytes;
};

static _Atomic int64_t fail_after = -1;
static _Atomic uint64_t allocations, live;

void host_fail_alloc_after(int64_t n)
{
    atomic_store(&fail_after, n);
}

int host_fail_alloc_pending(void)
{
    return atomic_load(&fail_after) >= 0;
}

uint64_t host_alloc_count(void)
{
    return atomic_load(&allocations);
}

uint64_t host_alloc_live(void)
{
    return atomic_load(&live);
}

/* Counts down and says whether this is the one that fails. */
static int must_fail(void)
{
    int64_t n = atomic_load_explicit(&fail_after, memory_order_relaxed);
    if (n < 0)
        return 0;
    return atomic_fetch_sub(&fail_after, 1) == 0;
}

static void *table_alloc(void *context, size_t bytes, size_t align)
{
    size_t total;
    (void)context;
    if (align < sizeof(struct piece))
        align = sizeof(struct piece);
    if (align & (align - 1) || must_fail() || __builtin_add_overflow(bytes, align + sizeof(struct piece), &total) ||
        total > PTRDIFF_MAX)
        return NULL;
    char *base = calloc(1, total);
    if (!base)
        return NULL;
    uintptr_t at = ((uintptr_t)base + sizeof(struct piece) + align - 1) & ~(uintptr_t)(align - 1);
    struct piece *piece = (struct piece *)(void *)(base + (at - (uintptr_t)base)) - 1;
    piece->base = base;
    piece->bytes = bytes;
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return piece + 1;
}

static void table_free(void *context, void *memory)
{
    (void)context;
    if (!memory)
        return;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(((struct piece *)memory - 1)->base);
}

/* --- log, clock, figures ----------------------------------------------------------- */

static void table_log(void *context, int level, uint64_t correlation, const char *message)
{
    const struct host_context *own = context;
    char number[24] = "";
    if (!log_enabled(level))
        return;
    if (correlation != 0)
        snprintf(number, sizeof number, "%llu", (unsigned long long)correlation);
    log_write(level, own->name, *number ? number : NULL, NULL, "%s", message ? message : "");
}

static int64_t table_now(void *context)
{
    const struct host_context *own = context;
    return clock_now(own->clock ? own->clock : &own->own_clock);
}

static int table_metric(void *context, const char *name, const char *unit, const char *help)
{
    struct host_context *own = context;
    if (!name || !*name)
        return LATHE_EINVAL;
    for (int i = 0; i < own->metric_count; i++)
        if (strcmp(own->metrics[i].name, name) == 0)
            return i;
    if (own->metric_count == HOST_MAX_METRICS)
        return LATHE_EFULL;
    struct host_metric *metric = &own->metrics[own->metric_count];
    metric->name = strdup(name);
    metric->unit = strdup(unit ? unit : "");
    metric->help = strdup(help ? help : "");
    if (!metric->name || !metric->unit || !metric->help) {
        free((char *)(uintptr_t)metric->name);
        free((char *)(uintptr_t)metric->unit);
        free((char *)(uintptr_t)metric->help);
        return LATHE_ENOMEM;
    }
    return own->metric_count++;
}

static void table_record(void *context, int number, double value)
{
    struct host_context *own = context;
    if (!own->producer)
        return;
    if (number < 0 || number >= own->metric_count)
        return;
    struct record_metric row = { .time_ns = table_now(own), .value = value };
    snprintf(row.plugin, sizeof row.plugin, "%s", own->name);
    snprintf(row.name, sizeof row.name, "%s", own->metrics[number].name);
    record_metric(own->producer, &row);
}

/* --- the context --------------------------------------------------------------------- */

struct host_context *host_context_create(const char *name, const struct clock *clock, struct lathe_host *host)
{
    struct host_context *context = calloc(1, sizeof *context);
    if (!context)
        return NULL;
    context->name = strdup(name);
    if (!context->name) {
        free(context);
        return NULL;
    }
    context->clock = clock;
    clock_start(&context->own_clock, CLOCK_KIND_REAL);
    *host = (struct lathe_host){
        .size = sizeof *host,
        .abi = LATHE_PLUGIN_ABI,
        .context = context,
        .log = table_log,
        .now_ns = table_now,
        .alloc = table_alloc,
        .free = table_free,
        .metric = table_metric,
        .record = table_record,
        .thread_roles = table_thread_roles,
    };
    return context;
}

void host_context_destroy(struct host_context *context)
{
    if (!context)
        return;
    for (int i = 0; i < context->metric_count; i++) {
        free((char *)(uintptr_t)context->metrics[i].name);
        free((char *)(uintptr_t)context->metrics[i].unit);
        free((char *)(uintptr_t)context->metrics[i].help);
    }
    free(context->name);
    free(context);
}

void host_context_attach(struct host_context *context, const struct clock *clock, struct producer *producer)
{
    context->clock = clock;
    context->producer = producer;
}

int host_context_metrics(const struct host_context *context)
{
    return context->metric_count;
}

struct host_metric host_context_metric(const struct host_context *context, int number)
{
    return context->metrics[number];
}

/* SPDX-License-Identifier: MIT */
#include "host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "recorder.h"

struct host_context {
    char *name;
    struct clock *clock;
    struct clock own_clock; /* until a run's clock is attached */
    struct producer *producer;
    int metric_count;
    struct host_metric metrics[HOST_MAX_METRICS];
    /* Figures from a bus's worker threads: the producer's ring is the engine thread's alone, so
     * they wait here until that drains them. */
    pthread_mutex_t lock;
    _Atomic uint32_t waiting;
    struct record_metric deferred[HOST_MAX_DEFERRED];
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

static void table_set_thread_roles(void *context, uint32_t roles)
{
    (void)context;
    host_set_thread_roles(roles);
}

/* --- memory ---------------------------------------------------------------------- */

/* In front of each piece, so that any alignment can be had. Large pieces are pages of their own,
 * which cost nothing until they are touched, in huge pages where the system gives them on request:
 * fewer look-ups of addresses, and a speed that doesn't hang on where the small ones came to lie. */
struct piece {
    void *base;
    size_t mapped; /* bytes to unmap; 0: from calloc; PACKED: base is its pack */
};

#ifdef __SANITIZE_ADDRESS__ /* which sees more of pieces that lie apart */
enum { PACKED_PIECE = 0 };
#else
enum { PACKED_PIECE = 256 << 10 }; /* the largest */
#endif
enum { HUGE_PAGE = 2 << 20, LARGE_PIECE = 4 << 20, PACK_BYTES = 8 << 20 };

#define PACKED SIZE_MAX

/* Where pieces lie side by side while host_pack is on. It goes with the last of them. */
struct pack {
    size_t mapped, used, pieces;
};

static pthread_mutex_t pack_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pack *open_pack; /* the one that is being filled */
static int packing;

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

/* Zeroed, and cut so that it begins where a huge page does. */
static char *map_large(size_t total, size_t *mapped)
{
    size_t whole;
    if (__builtin_add_overflow(total, 2 * (size_t)HUGE_PAGE - 1, &whole))
        return NULL;
    whole &= ~((size_t)HUGE_PAGE - 1);
    char *base = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)base % HUGE_PAGE) % HUGE_PAGE;
    if (before)
        munmap(base, before);
    base += before;
    *mapped = whole - before;
    madvise(base, *mapped, MADV_HUGEPAGE); /* a system that has none says no, which is fine */
    return base;
}

void host_pack(int on)
{
    pthread_mutex_lock(&pack_lock);
    packing += on ? 1 : -1;
    if (packing == 0 && open_pack && open_pack->pieces == 0)
        munmap(open_pack, open_pack->mapped), open_pack = NULL;
    pthread_mutex_unlock(&pack_lock);
}

/* NULL: not now, or too large. Pages come zeroed, and none is used twice. */
static char *pack_take(size_t bytes, void **pack)
{
    size_t total, mapped;
    char *piece = NULL;
    if (bytes > PACKED_PIECE)
        return NULL;
    total = (bytes + 63) & ~(size_t)63;
    pthread_mutex_lock(&pack_lock);
    if (packing && (!open_pack || open_pack->used + total > open_pack->mapped)) {
        if (open_pack && open_pack->pieces == 0)
            munmap(open_pack, open_pack->mapped);
        struct pack *fresh = (struct pack *)(void *)map_large(PACK_BYTES, &mapped);
        if (fresh) {
            fresh->mapped = mapped;
            fresh->used = (sizeof *fresh + 63) & ~(size_t)63;
        }
        open_pack = fresh;
    }
    if (packing && open_pack) {
        piece = (char *)open_pack + open_pack->used;
        open_pack->used += total;
        open_pack->pieces++;
        *pack = open_pack;
    }
    pthread_mutex_unlock(&pack_lock);
    return piece;
}

static void pack_give(struct pack *pack)
{
    pthread_mutex_lock(&pack_lock);
    if (--pack->pieces == 0 && !(packing && pack == open_pack)) {
        open_pack = pack == open_pack ? NULL : open_pack;
        munmap(pack, pack->mapped);
    }
    pthread_mutex_unlock(&pack_lock);
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
    size_t mapped = 0;
    void *pack = NULL;
    char *base = pack_take(total, &pack);
    if (!base)
        base = total < LARGE_PIECE ? calloc(1, total) : map_large(total, &mapped);
    if (!base)
        return NULL;
    uintptr_t at = ((uintptr_t)base + sizeof(struct piece) + align - 1) & ~(uintptr_t)(align - 1);
    struct piece *piece = (struct piece *)(void *)(base + (at - (uintptr_t)base)) - 1;
    piece->base = pack ? pack : base;
    piece->mapped = pack ? PACKED : mapped;
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
    struct piece piece = ((struct piece *)memory)[-1];
    if (piece.mapped == PACKED)
        pack_give(piece.base);
    else if (piece.mapped)
        munmap(piece.base, piece.mapped);
    else
        free(piece.base);
}

void *host_take(size_t bytes)
{
    return table_alloc(NULL, bytes, 64);
}

void host_give(void *memory)
{
    table_free(NULL, memory);
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

static void table_wait_until(void *context, int64_t when_ns)
{
    struct host_context *own = context;
    struct clock *clock = own->clock ? own->clock : &own->own_clock;
    while (clock_now(clock) < when_ns) /* a signal may cut the sleep short */
        clock_wait_until(clock, when_ns);
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
    if ((host_thread_roles() & (LATHE_THREAD_WORKER | LATHE_THREAD_MAIN)) != LATHE_THREAD_WORKER) {
        record_metric(own->producer, &row);
        return;
    }
    pthread_mutex_lock(&own->lock);
    uint32_t n = atomic_load_explicit(&own->waiting, memory_order_relaxed);
    if (n < HOST_MAX_DEFERRED) { /* more between two steps are lost: a figure, not a decision */
        own->deferred[n] = row;
        atomic_store_explicit(&own->waiting, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&own->lock);
}

void host_context_drain(struct host_context *own)
{
    if (atomic_load_explicit(&own->waiting, memory_order_acquire) == 0)
        return;
    pthread_mutex_lock(&own->lock);
    uint32_t n = atomic_exchange_explicit(&own->waiting, 0, memory_order_relaxed);
    for (uint32_t i = 0; own->producer && i < n; i++)
        record_metric(own->producer, &own->deferred[i]);
    pthread_mutex_unlock(&own->lock);
}

/* --- the context --------------------------------------------------------------------- */

struct host_context *host_context_create(const char *name, struct clock *clock, struct lathe_host *host)
{
    struct host_context *context = calloc(1, sizeof *context);
    if (!context)
        return NULL;
    context->name = strdup(name);
    if (!context->name) {
        free(context);
        return NULL;
    }
    pthread_mutex_init(&context->lock, NULL);
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
        .set_thread_roles = table_set_thread_roles,
        .wait_until = table_wait_until,
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
    pthread_mutex_destroy(&context->lock);
    free(context->name);
    free(context);
}

void host_context_attach(struct host_context *context, struct clock *clock, struct producer *producer)
{
    host_context_drain(context); /* what the producer so far is owed */
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

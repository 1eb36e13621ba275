/* SPDX-License-Identifier: MIT */
#include "bus_watch.h"

#include <string.h>

#include "log.h"
#include <lathe/host.h>

static const char *event_name(int kind)
{
    static const char *const names[] = {
        [LATHE_BUS_WORKER_STARTED] = "worker_started",     [LATHE_BUS_WORKER_READY] = "worker_ready",
        [LATHE_BUS_WORKER_DIED] = "worker_died",           [LATHE_BUS_WORKER_STUCK] = "worker_stuck",
        [LATHE_BUS_WORKER_STOPPED] = "worker_stopped",     [LATHE_BUS_BREAKER_OPENED] = "breaker_opened",
        [LATHE_BUS_BREAKER_HALF_OPEN] = "breaker_half_open", [LATHE_BUS_BREAKER_CLOSED] = "breaker_closed",
    };
    return kind > 0 && kind < (int)(sizeof names / sizeof *names) ? names[kind] : "unknown";
}

static void copy(char *to, size_t capacity, const char *from)
{
    size_t bytes = from ? strnlen(from, capacity - 1) : 0;
    memcpy(to, from ? from : "", bytes);
    to[bytes] = '\0';
}

static void on_hop(void *context, const struct lathe_hop *hop)
{
    struct bus_watch *watch = context;
    struct record_hop row = {
        .id = (int64_t)++watch->hop,
        .parent_id = RECORD_NULL,
        .step_id = watch->step ? (int64_t)watch->step : RECORD_NULL,
        .correlation_id = (int64_t)hop->correlation,
        .sent_ns = hop->sent_ns,
        .started_ns = hop->started_ns,
        .ended_ns = hop->ended_ns,
        .bytes = (int64_t)hop->bytes,
        .status = hop->status,
        .worker = hop->worker,
    };
    copy(row.endpoint, sizeof row.endpoint, hop->endpoint->name);
    record_hop(watch->producer, &row);
}

static void add(struct bus_watch *watch, int64_t time_ns, const char *service, uint32_t worker, const char *what,
                const char *detail)
{
    pthread_mutex_lock(&watch->lock);
    uint32_t n = atomic_load_explicit(&watch->waiting, memory_order_relaxed);
    if (n < BUS_WATCH_EVENTS) {
        struct bus_watch_event *event = &watch->events[n];
        event->time_ns = time_ns;
        event->worker = worker;
        copy(event->service, sizeof event->service, service);
        copy(event->what, sizeof event->what, what);
        copy(event->detail, sizeof event->detail, detail);
        atomic_store_explicit(&watch->waiting, n + 1, memory_order_release);
    } else {
        atomic_fetch_add_explicit(&watch->lost, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&watch->lock);
}

static void on_event(void *context, const struct lathe_bus_event *event)
{
    add(context, event->time_ns, event->service, event->worker, event_name(event->kind), event->detail);
}

void bus_watch_open(struct bus_watch *watch, const struct instance *bus, struct clock *clock, struct producer *producer,
                    bool hops)
{
    memset(watch, 0, sizeof *watch);
    watch->clock = clock;
    watch->producer = producer;
    watch->hops = hops && producer;
    pthread_mutex_init(&watch->lock, NULL);
    bus_watch_move(watch, bus);
}

void bus_watch_move(struct bus_watch *watch, const struct instance *bus)
{
    struct lathe_bus_observer observer = { .size = sizeof observer, .context = watch, .hop = watch->hops ? on_hop : NULL,
                                           .event = on_event };
    if (watch->bus)
        watch->bus->observe(watch->bus_self, NULL);
    watch->bus = bus->api;
    watch->bus_self = bus->self;
    watch->bus->observe(watch->bus_self, &observer);
}

void bus_watch_close(struct bus_watch *watch)
{
    if (!watch->bus)
        return;
    watch->bus->observe(watch->bus_self, NULL);
    bus_watch_drain(watch);
    pthread_mutex_destroy(&watch->lock);
    watch->bus = NULL;
}

void bus_watch_tell(struct bus_watch *watch, const char *service, uint32_t worker, const char *what, const char *detail)
{
    add(watch, clock_now(watch->clock), service, worker, what, detail);
}

void bus_watch_drain(struct bus_watch *watch)
{
    if (atomic_load_explicit(&watch->waiting, memory_order_acquire) == 0)
        return;
    pthread_mutex_lock(&watch->lock);
    uint32_t n = atomic_exchange_explicit(&watch->waiting, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++) {
        const struct bus_watch_event *event = &watch->events[i];
        struct record_service_event row = { .time_ns = event->time_ns, .worker = event->worker };
        copy(row.service, sizeof row.service, event->service);
        copy(row.what, sizeof row.what, event->what);
        copy(row.detail, sizeof row.detail, event->detail);
        record_service_event(watch->producer, &row);
        if (log_enabled(LATHE_LOG_INFO))
            log_write(LATHE_LOG_INFO, "bus", NULL, NULL, "%s: %s%s%s", event->service, event->what,
                      event->detail[0] ? ": " : "", event->detail);
    }
    pthread_mutex_unlock(&watch->lock);
}

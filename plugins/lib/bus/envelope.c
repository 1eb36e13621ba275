/* SPDX-License-Identifier: MIT */
/* See envelope.h. A call that succeeds while nobody looks costs a load of the breaker's state,
 * two readings of the ticks, three additions (locked ones only from a second thread on) and a
 * comparison; everything else is out of line. */
#include "envelope.h"

#include <stdio.h>
#include <string.h>

#include <lathe/random.h>

enum { NAME_BYTES = 128, DETAIL_BYTES = 320 };

#define RELAXED memory_order_relaxed

static int64_t ms_to_ns(double ms)
{
    return (int64_t)(ms * 1e6);
}

int envelope_policy_read(struct envelope_policy *policy, const struct lathe_config *config, uint32_t first,
                         struct lathe_error *err)
{
    const struct lathe_option_value *v = config->values + first;
    if (config->count < first + ENVELOPE_OPTION_COUNT)
        return lathe_fail(err, LATHE_EINVAL, "the bus has %u options, and those of the envelope end at %u; put "
                          "ENVELOPE_OPTIONS into its table", config->count, first + ENVELOPE_OPTION_COUNT);
    uint32_t window = (uint32_t)v[ENVELOPE_OPTION_WINDOW].integer;
    uint32_t minimum = (uint32_t)v[ENVELOPE_OPTION_MINIMUM].integer;
    if (window > 0 && minimum > window) {
        if (!v[ENVELOPE_OPTION_MINIMUM].is_default)
            return lathe_fail(err, LATHE_EINVAL, "breaker_minimum is %u, more than the %u attempts of breaker_window, so "
                              "that it would never open; make it smaller", minimum, window);
        minimum = window;
    }
    *policy = (struct envelope_policy){
        .attempts = (uint32_t)v[ENVELOPE_OPTION_ATTEMPTS].integer,
        .base_ns = ms_to_ns(v[ENVELOPE_OPTION_BASE].number),
        .cap_ns = ms_to_ns(v[ENVELOPE_OPTION_CAP].number),
        .breaker = { .window = window, .minimum = minimum, .share = v[ENVELOPE_OPTION_SHARE].number,
                     .open_ns = ms_to_ns(v[ENVELOPE_OPTION_OPEN].number) },
    };
    return LATHE_OK;
}

void envelope_service_open(struct envelope_service *service, const struct envelope_policy *policy)
{
    memset(service, 0, sizeof *service);
    breaker_open(&service->breaker, &policy->breaker);
    pthread_mutex_init(&service->lock, NULL);
}

void envelope_service_close(struct envelope_service *service)
{
    breaker_close(&service->breaker);
    pthread_mutex_destroy(&service->lock);
}

static int64_t now(const struct envelope_bus *bus)
{
    return bus->host->now_ns(bus->host->context);
}

/* "model" of "model.forward". */
static const char *service_name(const struct envelope *e, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s", e->endpoint->name);
    char *dot = strrchr(name, '.');
    if (dot)
        *dot = '\0';
    return name;
}

void envelope_tell(struct envelope_bus *bus, int kind, const char *service, uint32_t worker, const char *detail)
{
    if (!bus->observer.event)
        return;
    struct lathe_bus_event event = { .kind = kind, .worker = worker, .service = service, .time_ns = now(bus),
                                     .detail = detail };
    bus->observer.event(bus->observer.context, &event);
}

static void tell_breaker(struct envelope *e, int event)
{
    char name[NAME_BYTES], detail[DETAIL_BYTES] = "";
    if (!event || !e->bus->observer.event)
        return;
    if (event == LATHE_BUS_BREAKER_OPENED) {
        pthread_mutex_lock(&e->service->lock);
        snprintf(detail, sizeof detail, "it keeps failing, the last time with: %.240s",
                 e->service->last_error.message);
        pthread_mutex_unlock(&e->service->lock);
    }
    envelope_tell(e->bus, event, service_name(e, name), 0, detail);
}

/* ── before ─────────────────────────────────────────────────────────────────────────── */

__attribute__((cold, noinline)) static int refuse_late(struct envelope *e, struct lathe_error *err)
{
    atomic_fetch_add_explicit(&e->expired, 1, RELAXED);
    return lathe_fail(err, LATHE_EDEADLINE, "%s: its deadline has passed; it was not begun", e->endpoint->name);
}

__attribute__((cold, noinline)) static int ask_breaker(struct envelope *e, struct envelope_attempt *attempt,
                                                       struct lathe_error *err)
{
    int64_t retry_ns = 0;
    int event;
    bool admitted = breaker_admit(&e->service->breaker, e->bus->host, &attempt->trial, &retry_ns, &event);
    tell_breaker(e, event);
    if (admitted)
        return LATHE_OK;
    char name[NAME_BYTES], last[DETAIL_BYTES];
    int64_t left_ns = retry_ns - now(e->bus);
    pthread_mutex_lock(&e->service->lock);
    snprintf(last, sizeof last, "%.240s", e->service->last_error.message);
    pthread_mutex_unlock(&e->service->lock);
    attempt->retry_ns = retry_ns;
    atomic_fetch_add_explicit(&e->refused, 1, RELAXED);
    return lathe_fail(err, LATHE_EUNAVAILABLE, "%s: service '%s' keeps failing and is left alone; try again in %.1f "
                      "ms (it last said: %s)", e->endpoint->name, service_name(e, name),
                      left_ns > 0 ? (double)left_ns / 1e6 : 0.0, last);
}

int envelope_admit(struct envelope *e, const struct lathe_message *in, struct envelope_attempt *attempt,
                   struct lathe_error *err)
{
    attempt->number++;
    attempt->trial = 0;
    if (in->deadline_ns && now(e->bus) >= in->deadline_ns)
        return refuse_late(e, err);
    if (atomic_load_explicit(&e->service->breaker.state, RELAXED) != LATHE_BREAKER_CLOSED) {
        int status = ask_breaker(e, attempt, err);
        if (status != LATHE_OK)
            return status;
    }
    if (e->bus->observer.hop) {
        attempt->sent_ns = now(e->bus);
        attempt->started_ns = attempt->ended_ns = 0;
    }
    attempt->from = ticks_read(&e->bus->ticks);
    return LATHE_OK;
}

void envelope_withdraw(struct envelope *e, struct envelope_attempt *attempt)
{
    breaker_forget(&e->service->breaker, attempt->trial);
    attempt->trial = 0;
}

/* ── after ──────────────────────────────────────────────────────────────────────────── */

int envelope_status(const struct envelope *e, int returned, struct lathe_error *err)
{
    if (returned <= 0)
        return returned;
    return lathe_fail(err, LATHE_EINTERNAL, "%s returned %d, where 0 or a LATHE_E status is due; please report it to "
                      "its author", e->endpoint->name, returned);
}

static void stamp_and_tell(struct envelope *e, const struct lathe_message *in, struct lathe_message *out, int status,
                           struct envelope_attempt *a)
{
    int64_t now_ns = now(e->bus);
    if (!a->started_ns)
        a->started_ns = a->sent_ns;
    if (!a->ended_ns)
        a->ended_ns = now_ns;
    /* A method that stamped its own work (model.forward) knows better. */
    bool own = out->started_ns >= a->sent_ns && out->ended_ns >= out->started_ns && out->ended_ns <= now_ns;
    out->sent_ns = a->sent_ns;
    if (!own) {
        out->started_ns = a->started_ns;
        out->ended_ns = a->ended_ns;
    }
    struct lathe_hop hop = { .endpoint = e->endpoint, .correlation = in->correlation, .sent_ns = a->sent_ns,
                             .started_ns = a->started_ns, .ended_ns = a->ended_ns,
                             .bytes = in->bytes + (status == LATHE_OK ? out->bytes : 0), .status = status,
                             .worker = a->worker, .attempt = a->number };
    e->bus->observer.hop(e->bus->observer.context, &hop);
}

static int64_t pause_ns(struct envelope *e, struct envelope_attempt *a)
{
    const struct envelope_policy *p = &e->bus->policy;
    int64_t below = p->base_ns;
    for (uint32_t i = 1; i < a->number && below < p->cap_ns; i++)
        below = below > INT64_MAX / 2 ? INT64_MAX : 2 * below;
    below = below < p->cap_ns ? below : p->cap_ns;
    if (a->draw == 0)
        a->draw = atomic_fetch_add_explicit(&e->bus->calls, 1, RELAXED) + 1;
    if (below < 2)
        return 0;
    double unit = lathe_random_unit(p->seed, LATHE_RANDOM_RETRY, a->draw, a->number);
    return 1 + (int64_t)(unit * (double)(below - 1));
}

/* 1 if another attempt is due; attempt->retry_ns says when. */
static int retry_due(struct envelope *e, const struct lathe_message *in, int status, struct envelope_attempt *a,
                     struct lathe_error *err)
{
    bool passing = status == LATHE_EIO || status == LATHE_EBUSY || status == LATHE_EUNAVAILABLE;
    if (!passing || !(e->method_flags & LATHE_METHOD_IDEMPOTENT) || (in->flags & LATHE_MESSAGE_ONCE) ||
        a->number >= e->bus->policy.attempts)
        return 0;
    if (atomic_load_explicit(&e->service->breaker.state, RELAXED) != LATHE_BREAKER_CLOSED)
        return 0;
    if (__builtin_add_overflow(now(e->bus), pause_ns(e, a), &a->retry_ns))
        a->retry_ns = INT64_MAX;
    if (in->deadline_ns && a->retry_ns >= in->deadline_ns) {
        char said[300];
        snprintf(said, sizeof said, "%.299s", err ? err->message : "");
        lathe_error_set(err, status, "%s (attempt %u; the next one would come after the call's deadline)", said,
                        a->number);
        return 0;
    }
    return 1;
}

__attribute__((cold, noinline)) static int settle_failure(struct envelope *e, const struct lathe_message *in,
                                                          int status, struct envelope_attempt *a,
                                                          struct lathe_error *err)
{
    bool failed = breaker_is_failure(status);
    int event;
    atomic_fetch_add_explicit(&e->failures, 1, RELAXED);
    if (failed) {
        int64_t now_ns = now(e->bus);
        pthread_mutex_lock(&e->service->lock);
        e->service->last_error_ns = now_ns ? now_ns : 1; /* 0 says that there was none */
        e->service->last_error = err ? *err : (struct lathe_error){ .message = "" };
        e->service->last_error.code = status;
        pthread_mutex_unlock(&e->service->lock);
    }
    breaker_settle(&e->service->breaker, e->bus->host, a->trial, failed, &event);
    a->trial = 0;
    tell_breaker(e, event);
    return retry_due(e, in, status, a, err);
}

/* Its address tells a thread from all others that live; one that comes to the address of one that
 * ended takes over what that owned, which is as good. Reached without a call (dlopen allows for
 * a few bytes of it). */
static _Thread_local char mark __attribute__((tls_model("initial-exec")));

static bool owns(struct envelope *e)
{
    uintptr_t nobody = 0, me = (uintptr_t)&mark;
    uintptr_t owner = atomic_load_explicit(&e->owner, RELAXED);
    return owner == me || (owner == 0 && atomic_compare_exchange_strong_explicit(&e->owner, &nobody, me, RELAXED, RELAXED));
}

static void add_alone(_Atomic uint64_t *n, uint64_t by)
{
    atomic_store_explicit(n, atomic_load_explicit(n, RELAXED) + by, RELAXED);
}

static void count(struct envelope *e, int64_t ns, uint64_t bytes)
{
    if (owns(e)) {
        latency_add_alone(&e->own.latency, ns);
        add_alone(&e->own.total_ns, (uint64_t)ns);
        add_alone(&e->own.bytes, bytes);
        if ((uint64_t)ns > atomic_load_explicit(&e->own.max_ns, RELAXED))
            atomic_store_explicit(&e->own.max_ns, (uint64_t)ns, RELAXED);
        return;
    }
    latency_add(&e->shared.latency, ns);
    atomic_fetch_add_explicit(&e->shared.total_ns, (uint64_t)ns, RELAXED);
    atomic_fetch_add_explicit(&e->shared.bytes, bytes, RELAXED);
    uint64_t most = atomic_load_explicit(&e->shared.max_ns, RELAXED);
    while ((uint64_t)ns > most &&
           !atomic_compare_exchange_weak_explicit(&e->shared.max_ns, &most, (uint64_t)ns, RELAXED, RELAXED))
        ;
}

int envelope_settle(struct envelope *e, const struct lathe_message *in, struct lathe_message *out, int status,
                    struct envelope_attempt *attempt, struct lathe_error *err)
{
    struct breaker *breaker = &e->service->breaker;
    int64_t ns = ticks_ns(&e->bus->ticks, attempt->from, ticks_read(&e->bus->ticks));
    status = status > 0 ? LATHE_EINTERNAL : status;
    count(e, ns, in->bytes + (status == LATHE_OK ? out->bytes : 0));
    if (attempt->number > 1)
        atomic_fetch_add_explicit(&e->retries, 1, RELAXED);
    out->worker = attempt->worker;
    if (e->bus->observer.hop)
        stamp_and_tell(e, in, out, status, attempt);
    if (status != LATHE_OK)
        return settle_failure(e, in, status, attempt, err);
    /* Nothing to forget in a full window without failures: the common case, without a call. */
    if (attempt->trial || atomic_load_explicit(&breaker->failures, RELAXED) ||
        atomic_load_explicit(&breaker->seen, RELAXED) < breaker->options.window) {
        int event;
        breaker_settle(breaker, e->bus->host, attempt->trial, false, &event);
        attempt->trial = 0;
        tell_breaker(e, event);
    }
    return 0;
}

int envelope_call(struct envelope *e, lathe_method *function, void *self, const void *in, void *out,
                  struct lathe_error *err)
{
    struct envelope_attempt attempt = { 0 };
    const struct lathe_host *host = e->bus->host;
    int status;
    for (;;) {
        if ((status = envelope_admit(e, in, &attempt, err)) != LATHE_OK)
            return status;
        attempt.started_ns = attempt.sent_ns; /* the caller's thread is the worker */
        status = envelope_status(e, function(self, in, out, err), err);
        if (!envelope_settle(e, in, out, status, &attempt, err))
            return status;
        host->wait_until(host->context, attempt.retry_ns);
    }
}

/* ── asked from outside ─────────────────────────────────────────────────────────────── */

void envelope_stats(const struct envelope *e, struct lathe_endpoint_stats *stats)
{
    struct latency sum = { 0 };
    uint64_t own_max = atomic_load_explicit(&e->own.max_ns, RELAXED), max = atomic_load_explicit(&e->shared.max_ns, RELAXED);
    latency_merge(&sum, &e->own.latency);
    latency_merge(&sum, &e->shared.latency);
    *stats = (struct lathe_endpoint_stats){
        .calls = latency_count(&sum),
        .failures = atomic_load_explicit(&e->failures, RELAXED),
        .bytes = atomic_load_explicit(&e->own.bytes, RELAXED) + atomic_load_explicit(&e->shared.bytes, RELAXED),
        .total_ns = (int64_t)(atomic_load_explicit(&e->own.total_ns, RELAXED) + atomic_load_explicit(&e->shared.total_ns, RELAXED)),
        .max_ns = (int64_t)(own_max > max ? own_max : max),
        .retries = atomic_load_explicit(&e->retries, RELAXED),
        .refused = atomic_load_explicit(&e->refused, RELAXED),
        .expired = atomic_load_explicit(&e->expired, RELAXED),
        .p50_ns = latency_quantile(&sum, 0.5),
        .p90_ns = latency_quantile(&sum, 0.9),
        .p99_ns = latency_quantile(&sum, 0.99),
        .p999_ns = latency_quantile(&sum, 0.999),
    };
}

void envelope_health(struct envelope_service *service, struct lathe_service_health *health)
{
    health->breaker = atomic_load_explicit(&service->breaker.state, memory_order_acquire);
    pthread_mutex_lock(&service->lock);
    health->last_error_ns = service->last_error_ns;
    health->last_error = service->last_error;
    pthread_mutex_unlock(&service->lock);
}

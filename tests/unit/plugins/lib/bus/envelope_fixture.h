/* SPDX-License-Identifier: MIT */
/* An envelope around a method that does as it is told, under a clock that the test moves. For
 * tests of one .c each; cmocka's headers come first. */
#ifndef TESTS_BUS_ENVELOPE_FIXTURE_H
#define TESTS_BUS_ENVELOPE_FIXTURE_H

#include "fake_host.h"
#include <bus/envelope.h>

enum { MS = 1000000 };

static struct fake_host fake;
static struct envelope_bus bus;
static struct envelope_service service;
static struct envelope envelope;
static const struct lathe_endpoint endpoint = { .name = "model.forward" };

/* The method: gives these statuses, the last for ever; takes so long. */
static struct {
    int statuses[8];
    uint32_t count, calls;
    int64_t takes_ns;
    int64_t at[256]; /* when it was called */
} script;

static int method(void *self, const void *in, void *out, struct lathe_error *err)
{
    uint32_t n = script.calls++;
    int status = script.statuses[n < script.count ? n : script.count - 1];
    (void)self, (void)in;
    script.at[n % 256] = fake.time_ns;
    fake.time_ns += script.takes_ns;
    ((struct lathe_message *)out)->bytes = sizeof(struct lathe_message);
    return status < 0 ? lathe_fail(err, status, "failure number %u", n + 1) : status;
}

/* The hops and events that were told. */
static struct lathe_hop hops[64];
static int32_t events[64];
static char event_service[64], event_detail[512];
static uint32_t hop_count, event_count;

static void on_hop(void *context, const struct lathe_hop *hop)
{
    (void)context;
    hops[hop_count++ % 64] = *hop;
}

static void on_event(void *context, const struct lathe_bus_event *event)
{
    (void)context;
    snprintf(event_service, sizeof event_service, "%s", event->service);
    snprintf(event_detail, sizeof event_detail, "%s", event->detail);
    events[event_count++ % 64] = event->kind;
}

static int prepare(void **state)
{
    (void)state;
    memset(&bus, 0, sizeof bus);
    memset(&envelope, 0, sizeof envelope);
    memset(&script, 0, sizeof script);
    hop_count = event_count = 0;
    bus.host = fake_host_init(&fake);
    bus.policy = (struct envelope_policy){ .attempts = 3, .base_ns = 10 * MS, .cap_ns = 1000 * MS };
    ticks_open(&bus.ticks);
    envelope_service_open(&service, &bus.policy);
    envelope = (struct envelope){ .bus = &bus, .service = &service, .endpoint = &endpoint,
                                  .method_flags = LATHE_METHOD_IDEMPOTENT };
    return 0;
}

static int clear(void **state)
{
    (void)state;
    envelope_service_close(&service);
    return 0;
}

static void with_breaker(uint32_t window, uint32_t minimum)
{
    envelope_service_close(&service);
    bus.policy.breaker = (struct breaker_options){ .window = window, .minimum = minimum, .share = 0.5,
                                                   .open_ns = 100 * MS };
    envelope_service_open(&service, &bus.policy);
}

static void answer(int status)
{
    script.statuses[0] = status;
    script.count = 1;
    script.calls = 0;
}

static struct lathe_error err;
static struct lathe_message out;

static int call_with(struct lathe_message in)
{
    in.capacity = in.bytes = sizeof in;
    out = (struct lathe_message){ .capacity = sizeof out };
    err = (struct lathe_error){ 0 };
    return envelope_call(&envelope, method, NULL, &in, &out, &err);
}

static int call(void)
{
    return call_with((struct lathe_message){ 0 });
}

static struct lathe_endpoint_stats stats(void)
{
    struct lathe_endpoint_stats s;
    envelope_stats(&envelope, &s);
    return s;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clear)

#endif

/* SPDX-License-Identifier: MIT */
/* See office.h. */
#include "office.h"

const struct lathe_bus_api *api;
_Atomic int office_calls, office_begun, office_gate;
struct office_shaky office_shaky;
pthread_t office_thread;

static int answer(const void *in_, void *out_, struct lathe_error *err)
{
    const struct letter *in = in_;
    struct letter *out = out_;
    if (in->count == 0)
        return lathe_fail(err, LATHE_ERANGE, "an empty letter");
    out->count = in->count;
    for (uint32_t i = 0; i < in->count; i++)
        out->bytes[i] = (unsigned char)(in->bytes[i] + 1);
    out->head.bytes = in->head.bytes;
    return LATHE_OK;
}

static int increment(void *self, const void *in, void *out, struct lathe_error *err)
{
    atomic_fetch_add((_Atomic int *)self, 1);
    return answer(in, out, err);
}

static int refuse(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)in, (void)out;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "never");
}

static int shaky(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct office_shaky *s = self;
    atomic_fetch_add(&s->calls, 1);
    if (atomic_load(&s->failures) == 0)
        return answer(in, out, err);
    atomic_fetch_sub(&s->failures, 1);
    lathe_error_set(err, s->status, "the lamp is out");
    return s->status;
}

static int gated(void *self, const void *in, void *out, struct lathe_error *err)
{
    atomic_fetch_add(&office_begun, 1);
    while (!atomic_load(&office_gate))
        nap(100000);
    return increment(self, in, out, err);
}

static int who(void *self, const void *in, void *out, struct lathe_error *err)
{
    *(pthread_t *)self = pthread_self();
    return answer(in, out, err);
}

static const struct lathe_service_method methods[] = {
    { .name = "increment", .function = increment, .self = &office_calls },
    { .name = "refuse", .function = refuse },
    { .name = "shaky", .function = shaky, .self = &office_shaky, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "gated", .function = gated, .self = &office_calls },
    { .name = "who", .function = who, .self = &office_thread },
};
struct lathe_service office = { .size = sizeof office, .name = "office", .methods = methods,
                                .method_count = sizeof methods / sizeof *methods, .workers = 1 };

void *open_bus(struct subject *s)
{
    struct lathe_error err = { 0 };
    void *bus = subject_create(s);
    api = (const void *)s->head;
    office_calls = office_begun = office_gate = 0;
    office_shaky.failures = office_shaky.calls = 0;
    CHECK_OK(api->add_service(bus, &office, &err), &err);
    return bus;
}

const struct lathe_endpoint *endpoint_of(void *bus, const char *name)
{
    struct lathe_error err = { 0 };
    const struct lathe_endpoint *endpoint = NULL;
    CHECK_OK(api->resolve(bus, name, &endpoint, &err), &err);
    CHECK(endpoint && !strcmp(endpoint->name, name), "'%s' was resolved to another", name);
    return endpoint;
}

struct letter *write_letter(void *bus, struct dice *d, uint32_t count)
{
    struct lathe_error err = { 0 };
    struct letter *l = (void *)api->loan(bus, sizeof *l, &err);
    CHECK(l, "%s", err.message);
    CHECK((uintptr_t)l % 64 == 0 && l->head.capacity >= sizeof *l && l->head.bytes == 0 && l->head.correlation == 0 &&
              l->head.deadline_ns == 0 && l->head.flags == 0,
          "a loan of %llu bytes at %p, or its head isn't clean", (unsigned long long)l->head.capacity, (void *)l);
    l->head.bytes = sizeof *l;
    l->count = count;
    for (uint32_t i = 0; i < count; i++)
        l->bytes[i] = (unsigned char)roll(d, 256);
    return l;
}

void check_answer(const struct letter *question, const struct letter *answer)
{
    CHECK(answer->count == question->count, "%u bytes came back of %u", answer->count, question->count);
    for (uint32_t i = 0; i < answer->count; i++)
        CHECK(answer->bytes[i] == (unsigned char)(question->bytes[i] + 1), "byte %u came back wrong", i);
}

int is_direct(const struct subject *s)
{
    return !strcmp(s->plugin->name, "direct");
}

int has_envelope(const struct subject *s)
{
    for (uint32_t i = 0; i < s->plugin->option_count; i++)
        if (!strcmp(s->plugin->options[i].name, "retry_attempts"))
            return 1;
    return 0;
}

int has_workers(void *bus)
{
    struct lathe_error err = { 0 };
    struct lathe_service_health health = { .size = sizeof health };
    CHECK_OK(api->health(bus, "office", &health, &err), &err);
    return health.workers > 0;
}

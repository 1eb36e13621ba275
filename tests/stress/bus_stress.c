/* SPDX-License-Identifier: MIT */
/* A bus with workers under load: four producers with call, post, post_many, poll, passing
 * failures, deadlines and sentences; meanwhile workers are scaled up and down, health and
 * stats are read, a guest service comes and goes. Every answer is checked, and at the end the
 * counters.
 *
 *     bus_stress plugin.so SECONDS
 *
 *   office.double    twice the number                        any number of workers
 *   office.refuse    fails, with the number in its sentence
 *   office.flaky     fails for a passing reason at the first attempt, if asked to
 *   clerk.double     with office: its workers
 *   relay.double     asks office.double, from its own worker
 *   local.double     on the caller's thread */
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include <lathe/bus.h>
#include <support/counting_host.h>

#include "stress.h"

enum { PRODUCERS = 4, BATCH = 32, WORKERS = 4, QUEUE = 64 };

struct note {
    struct lathe_message head;
    uint64_t number;
    _Atomic uint32_t *attempts; /* NULL: doesn't fail */
};

static const struct lathe_bus_api *api;
static void *bus;
static struct counting_host host;
static const struct lathe_endpoint *office_double, *office_refuse, *office_flaky, *clerk_double, *relay_double,
    *local_double;
static int64_t end_ns;
static _Atomic uint64_t doubled, refused, tried, called, late;

static int method_double(void *self, const void *in_, void *out_, struct lathe_error *err)
{
    const struct note *in = in_;
    struct note *out = out_;
    (void)self, (void)err;
    out->number = in->number * 2;
    out->head.bytes = sizeof *out;
    atomic_fetch_add_explicit(&doubled, 1, memory_order_relaxed);
    return LATHE_OK;
}

static int method_refuse(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self, (void)out;
    atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
    return lathe_fail(err, LATHE_ERANGE, "no: %llu", (unsigned long long)((const struct note *)in)->number);
}

static int method_flaky(void *self, const void *in_, void *out, struct lathe_error *err)
{
    const struct note *in = in_;
    atomic_fetch_add_explicit(&tried, 1, memory_order_relaxed);
    if (in->attempts && atomic_fetch_add(in->attempts, 1) == 0)
        return lathe_fail(err, LATHE_EIO, "the line is bad");
    return method_double(self, in, out, err);
}

static int method_relay(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)self;
    return office_double->call(office_double->self, in, out, err);
}

/* --- producers ------------------------------------------------------------------------ */

struct producer {
    uint64_t dice, next;
    struct note in[BATCH], out[BATCH];
    uint64_t tickets[BATCH];
    _Atomic uint32_t attempts[BATCH];
    const struct lathe_endpoint *to[BATCH];
};

/* Not the relay while tickets of the office are held: it needs room there, which they take. */
static const struct lathe_endpoint *any(struct producer *p, int relay)
{
    const struct lathe_endpoint *all[] = { office_double, office_double, clerk_double, office_refuse, local_double,
                                           office_flaky, relay_double };
    return all[stress_roll(&p->dice, relay ? 7 : 6)];
}

static void write_note(struct producer *p, uint32_t i, const struct lathe_endpoint *to)
{
    p->to[i] = to;
    p->attempts[i] = 0;
    p->in[i] = (struct note){ .head = { .capacity = sizeof(struct note), .bytes = sizeof(struct note) },
                              .number = p->next++ };
    p->out[i] = (struct note){ .head = { .capacity = sizeof p->out[i], .bytes = sizeof p->out[i] } };
    if (to == office_flaky && stress_roll(&p->dice, 50) == 0)
        p->in[i].attempts = &p->attempts[i];
    if (stress_roll(&p->dice, 100) == 0)
        p->in[i].head.deadline_ns = host.host.now_ns(host.host.context) + stress_roll(&p->dice, 200000) - 50000;
}

static void check(struct producer *p, uint32_t i, int status, const struct lathe_error *err)
{
    char sentence[64];
    const uint64_t number = p->in[i].number;
    if (status == LATHE_EDEADLINE && p->in[i].head.deadline_ns) {
        CHECK(!err || err->message[0], "a deadline without a sentence");
        atomic_fetch_add_explicit(&late, 1, memory_order_relaxed);
    } else if (p->to[i] == office_refuse) {
        snprintf(sentence, sizeof sentence, "no: %llu", (unsigned long long)number);
        CHECK(status == LATHE_ERANGE && (!err || !strcmp(err->message, sentence)), "call %llu: %d, %s",
              (unsigned long long)number, status, err ? err->message : "");
    } else if (p->in[i].attempts && p->attempts[i] == 1) { /* no retry: no time, or no room for it */
        CHECK(status == LATHE_EIO || (status == LATHE_EDEADLINE && p->in[i].head.deadline_ns), "%d: %s", status,
              err ? err->message : "");
    } else {
        CHECK(status == LATHE_OK, "call %llu of %s: %d, %s", (unsigned long long)number, p->to[i]->name, status,
              err ? err->message : "");
        CHECK(p->out[i].number == number * 2, "call %llu of %s got %llu", (unsigned long long)number, p->to[i]->name,
              (unsigned long long)p->out[i].number);
    }
    atomic_fetch_add_explicit(&called, 1, memory_order_relaxed);
}

static void do_call(struct producer *p)
{
    struct lathe_error err = { 0 };
    const struct lathe_endpoint *to = any(p, 1);
    write_note(p, 0, to);
    check(p, 0, to->call(to->self, &p->in[0], &p->out[0], &err), &err);
}

static void wait_for(struct producer *p, uint32_t i)
{
    struct lathe_error err = { 0 };
    int64_t timeouts[] = { -1, 0, 20000, 2000000 };
    int status;
    while ((status = api->wait(bus, p->tickets[i], timeouts[stress_roll(&p->dice, 4)], &err)) == LATHE_EBUSY)
        ;
    check(p, i, status, &err);
    status = api->wait(bus, p->tickets[i], 0, &err);
    CHECK(status == LATHE_ENOTFOUND, "a ticket was good twice: %d", status);
}

static void do_posts(struct producer *p)
{
    uint32_t n = 0, wish = 1 + stress_roll(&p->dice, BATCH / 4), first;
    while (n < wish) {
        struct lathe_error err = { 0 };
        int status;
        write_note(p, n, any(p, 0));
        status = api->post(bus, p->to[n], &p->in[n], &p->out[n], &p->tickets[n], &err);
        if (status == LATHE_EFULL)
            break;
        if (status == LATHE_OK)
            n++;
        else
            check(p, n, status, &err); /* its deadline had passed */
    }
    first = n ? stress_roll(&p->dice, n) : 0;
    for (uint32_t k = 0; k < n; k++)
        wait_for(p, (first + k) % n);
}

/* As poll's comment says: look at the tickets after each return, and nothing is missed. */
static void collect_by_poll(struct producer *p, uint32_t n)
{
    uint64_t seen = 0;
    uint32_t open = n;
    while (open) {
        struct lathe_error err = { 0 };
        CHECK(api->poll(bus, &seen, -1) == LATHE_OK, "poll gave up");
        for (uint32_t i = 0; i < n; i++) {
            int status;
            if (!p->tickets[i] || (status = api->wait(bus, p->tickets[i], 0, &err)) == LATHE_EBUSY)
                continue;
            check(p, i, status, &err);
            p->tickets[i] = 0;
            open--;
        }
    }
}

static void do_post_many(struct producer *p)
{
    const struct lathe_endpoint *to = any(p, 1);
    uint32_t n = 1 + stress_roll(&p->dice, BATCH), posted;
    const void *in[BATCH];
    void *out[BATCH];
    int statuses[BATCH], status;
    struct lathe_error err = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        write_note(p, i, to);
        in[i] = &p->in[i];
        out[i] = &p->out[i];
    }
    status = api->post_many(bus, to, in, out, p->tickets, n, &posted, &err);
    CHECK(status == LATHE_OK || (status == LATHE_EFULL && posted == 0), "post_many: %d, %s", status, err.message);
    if (stress_roll(&p->dice, 4) == 0) {
        collect_by_poll(p, posted);
        return;
    }
    api->wait_many(bus, p->tickets, statuses, posted, &err);
    for (uint32_t i = 0; i < posted; i++)
        check(p, i, statuses[i], NULL);
}

static void *produce(void *argument)
{
    struct producer *p = argument;
    while (stress_now() < end_ns) {
        switch (stress_roll(&p->dice, 3)) {
        case 0: do_call(p); break;
        case 1: do_posts(p); break;
        default: do_post_many(p); break;
        }
        stress_dawdle(&p->dice);
    }
    return NULL;
}

/* --- main ------------------------------------------------------------------------------- */

static const struct lathe_service_method office_methods[] = {
    { .name = "double", .function = method_double },
    { .name = "refuse", .function = method_refuse },
    { .name = "flaky", .function = method_flaky, .flags = LATHE_METHOD_IDEMPOTENT },
};
static const struct lathe_service_method relay_method = { .name = "double", .function = method_relay };
#define SERVICE(name_, methods_, count, ...) \
    { .size = sizeof(struct lathe_service), .name = name_, .methods = methods_, .method_count = count, __VA_ARGS__ }
static const struct lathe_service office = SERVICE("office", office_methods, 3, .concurrency = LATHE_PARALLEL,
                                                  .workers = 2);
static const struct lathe_service clerk = SERVICE("clerk", office_methods, 1, .concurrency = LATHE_PARALLEL,
                                                 .with = "office");
static const struct lathe_service relay = SERVICE("relay", &relay_method, 1, .concurrency = LATHE_SERIAL,
                                                 .workers = 1);
static const struct lathe_service local = SERVICE("local", office_methods, 1, .flags = LATHE_SERVICE_LOCAL);
static const struct lathe_service guests[] = {
    SERVICE("guest", office_methods, 1, .concurrency = LATHE_SERIAL, .workers = 1),
    SERVICE("guest", office_methods, 1, .concurrency = LATHE_PARALLEL, .with = "office"),
    SERVICE("guest", office_methods, 1, .flags = LATHE_SERVICE_LOCAL),
};

static void add(const struct lathe_service *service, const char *endpoint, const struct lathe_endpoint **to)
{
    struct lathe_error err = { 0 };
    CHECK(api->add_service(bus, service, &err) == LATHE_OK, "%s", err.message);
    CHECK(api->resolve(bus, endpoint, to, &err) == LATHE_OK, "%s", err.message);
}

/* A service for one call, one ticket that is waited for and one that is not. */
static void receive_a_guest(struct producer *p)
{
    struct lathe_error err = { 0 };
    const struct lathe_endpoint *to;
    uint32_t n = 0;
    add(&guests[stress_roll(&p->dice, 3)], "guest.double", &to);
    write_note(p, 0, to);
    check(p, 0, to->call(to->self, &p->in[0], &p->out[0], &err), &err);
    while (n < 2) {
        int status;
        write_note(p, n, to);
        p->in[n].head.deadline_ns = 0;
        status = api->post(bus, to, &p->in[n], &p->out[n], &p->tickets[n], &err);
        CHECK(status == LATHE_OK || status == LATHE_EFULL, "%d: %s", status, err.message);
        if (status == LATHE_OK)
            n++;
        else if (n == 1) /* its own first ticket may be what fills the queue */
            break;
    }
    wait_for(p, 0);
    CHECK(api->remove_service(bus, "guest", &err) == LATHE_OK, "%s", err.message);
    if (n < 2)
        return;
    CHECK(p->out[1].number == p->in[1].number * 2, "a removed service left a call undone");
    CHECK(api->wait(bus, p->tickets[1], 0, &err) == LATHE_ENOTFOUND, "the ticket of a removed service is good");
}

static void manage(struct producer *p)
{
    struct lathe_error err = { 0 };
    while (stress_now() < end_ns) {
        struct lathe_service_health health = { .size = sizeof health };
        uint32_t workers = 1 + stress_roll(&p->dice, WORKERS);
        CHECK(api->scale(bus, "office", workers, &err) == LATHE_OK, "%s", err.message);
        CHECK(api->health(bus, "clerk", &health, &err) == LATHE_OK, "%s", err.message);
        CHECK(health.workers == workers && health.alive && health.ready, "%u workers of %u", health.workers, workers);
        CHECK(health.queued <= QUEUE, "%u are queued", health.queued);
        receive_a_guest(p);
        nanosleep(&(struct timespec){ .tv_nsec = stress_roll(&p->dice, 5000000) }, NULL);
    }
}

static void check_counters(void)
{
    struct lathe_endpoint_stats stats;
    api->stats(bus, office_refuse, &stats);
    CHECK(stats.calls >= refused && stats.failures == stats.calls,
          "%llu refusals were counted as %llu calls, %llu failures", (unsigned long long)refused,
          (unsigned long long)stats.calls, (unsigned long long)stats.failures);
    api->stats(bus, office_flaky, &stats);
    CHECK(stats.calls >= tried && stats.failures >= stats.retries, "%llu attempts were counted as %llu",
          (unsigned long long)tried, (unsigned long long)stats.calls);
}

static int64_t real_now(void *context)
{
    (void)context;
    return stress_now();
}

static void real_wait(void *context, int64_t when_ns)
{
    int64_t left;
    (void)context;
    while ((left = when_ns - stress_now()) > 0)
        nanosleep(&(struct timespec){ .tv_sec = left / 1000000000, .tv_nsec = left % 1000000000 }, NULL);
}

static void no_roles(void *context, uint32_t roles)
{
    (void)context, (void)roles;
}

/* Defaults, but: a small queue, quick retries, no breaker. */
static struct lathe_config configure(const struct lathe_plugin *plugin, struct lathe_option_value *values)
{
    static const char *const own[][2] = { { "queue", "64" }, { "retry_base_ms", "0.1" }, { "breaker_window", "0" } };
    for (uint32_t i = 0; i < plugin->option_count; i++) {
        const char *text = plugin->options[i].default_text;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            if (!strcmp(plugin->options[i].name, own[k][0]))
                text = own[k][1];
        values[i] = (struct lathe_option_value){ .type = plugin->options[i].type, .integer = strtoll(text, NULL, 10),
                                                 .number = strtod(text, NULL), .text = text };
    }
    return (struct lathe_config){ .size = sizeof(struct lathe_config), .count = plugin->option_count,
                                  .values = values };
}

int main(int argc, char **argv)
{
    static struct producer producers[PRODUCERS + 1];
    struct lathe_option_value values[32];
    struct lathe_config config;
    struct lathe_error err = { 0 };
    pthread_t threads[PRODUCERS];
    const struct lathe_plugin *plugin;
    void *library;

    CHECK(argc > 1, "usage: %s plugin.so [seconds]", argv[0]);
    CHECK((library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL)), "%s", dlerror());
    CHECK((plugin = dlsym(library, LATHE_PLUGIN_SYMBOL)) && plugin->option_count <= 32, "no plugin: %s", argv[1]);
    api = plugin->api;
    config = configure(plugin, values);
    counting_host_init(&host);
    host.host.now_ns = real_now;
    host.host.wait_until = real_wait;
    host.host.set_thread_roles = no_roles;
    CHECK(api->create(&host.host, &config, &bus, &err) == LATHE_OK, "%s", err.message);
    add(&office, "office.double", &office_double);
    CHECK(api->resolve(bus, "office.refuse", &office_refuse, &err) == LATHE_OK, "%s", err.message);
    CHECK(api->resolve(bus, "office.flaky", &office_flaky, &err) == LATHE_OK, "%s", err.message);
    add(&clerk, "clerk.double", &clerk_double);
    add(&relay, "relay.double", &relay_double);
    add(&local, "local.double", &local_double);
    end_ns = stress_now() + (int64_t)(atof(argc > 2 ? argv[2] : "3") * 1e9);
    for (uint32_t i = 0; i <= PRODUCERS; i++) {
        producers[i].dice = 1000 + i;
        producers[i].next = (uint64_t)i << 56;
    }
    for (uint32_t i = 0; i < PRODUCERS; i++)
        CHECK(pthread_create(&threads[i], NULL, produce, &producers[i]) == 0, "no thread");
    manage(&producers[PRODUCERS]);
    for (uint32_t i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    check_counters();
    api->destroy(bus);
    CHECK(host.live_blocks == 0, "%zu blocks of memory were not given back", (size_t)host.live_blocks);
    printf("ok      %llu calls, %llu too late, %llu attempts of the flaky\n", (unsigned long long)called,
           (unsigned long long)late, (unsigned long long)tried);
    return 0;
}

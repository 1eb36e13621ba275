/* SPDX-License-Identifier: MIT */
/* What bus/async promises beyond what every bus keeps: workers, queues, tickets, deadlines in
 * the queue, scaling with calls under way. Nothing here depends on how long something takes. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <lathe/bus.h>
#include <support/counting_host.h>

static const struct lathe_plugin *plugin;
static const struct lathe_bus_api *api;
static struct counting_host host;
static struct lathe_error err;

struct note {
    struct lathe_message head;
    uint64_t number;
    pthread_t thread; /* who did it */
};

static struct note note(uint64_t number)
{
    return (struct note){ .head = { .capacity = sizeof(struct note), .bytes = sizeof(struct note) },
                          .number = number };
}

static void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

/* --- services --------------------------------------------------------------------------- */

static _Atomic int begun, gate, failures_left;
static void *bus;
static const struct lathe_endpoint *own;

static int method_plain(void *self, const void *in, void *out, struct lathe_error *e)
{
    (void)self, (void)e;
    begun++;
    ((struct note *)out)->number = ((const struct note *)in)->number + 1;
    ((struct note *)out)->thread = pthread_self();
    return LATHE_OK;
}

/* Until the gate is as wide as its number. */
static int method_gate(void *self, const void *in, void *out, struct lathe_error *e)
{
    int status = method_plain(self, in, out, e);
    while (gate < (int)((const struct note *)in)->number)
        nap();
    return status;
}

/* Until as many have begun as its number says: all at once, or never. */
static int method_meet(void *self, const void *in, void *out, struct lathe_error *e)
{
    int status = method_plain(self, in, out, e);
    while (begun < (int)((const struct note *)in)->number)
        nap();
    return status;
}

static int method_fail(void *self, const void *in, void *out, struct lathe_error *e)
{
    (void)in;
    if (failures_left > 0 && failures_left--)
        return lathe_fail(e, LATHE_EIO, "a passing reason");
    return method_plain(self, in, out, e);
}

/* Calls, then posts to, its own service. */
static int method_nested(void *self, const void *in_, void *out, struct lathe_error *e)
{
    struct note in = note(((const struct note *)in_)->number), other = note(0);
    uint64_t ticket;
    int status = own->call(own->self, &in, out, e);
    (void)self;
    if (status == LATHE_OK)
        status = api->post(bus, own, &in, &other, &ticket, e);
    if (status == LATHE_OK)
        status = api->wait(bus, ticket, -1, e);
    return status == LATHE_OK && other.number == in.number + 1 ? LATHE_OK : lathe_fail(e, LATHE_EINTERNAL, "nested");
}

static const struct lathe_service_method methods[] = {
    { .name = "plain", .function = method_plain },
    { .name = "gate", .function = method_gate },
    { .name = "meet", .function = method_meet },
    { .name = "fail", .function = method_fail, .flags = LATHE_METHOD_IDEMPOTENT },
    { .name = "nested", .function = method_nested },
};

static struct lathe_service service(const char *name, int concurrency, uint32_t workers)
{
    return (struct lathe_service){ .size = sizeof(struct lathe_service), .name = name, .methods = methods,
                                   .method_count = 5, .concurrency = concurrency, .workers = workers };
}

static void open_bus(const char *queue)
{
    static struct lathe_option_value values[32];
    struct lathe_config config = { .size = sizeof config, .count = plugin->option_count, .values = values };
    for (uint32_t i = 0; i < plugin->option_count; i++) {
        const char *text = plugin->options[i].default_text;
        text = queue && !strcmp(plugin->options[i].name, "queue") ? queue : text;
        values[i] = (struct lathe_option_value){ .type = plugin->options[i].type, .integer = strtoll(text, NULL, 10),
                                                 .number = strtod(text, NULL), .text = text };
    }
    begun = gate = failures_left = 0;
    counting_host_init(&host);
    assert_int_equal(api->create(&host.host, &config, &bus, &err), LATHE_OK);
}

static void close_bus(void)
{
    api->destroy(bus);
    assert_int_equal(host.live_blocks, 0);
}

static void add(struct lathe_service *s)
{
    if (api->add_service(bus, s, &err) != LATHE_OK)
        fail_msg("%s", err.message);
}

static const struct lathe_endpoint *resolve(const char *name)
{
    const struct lathe_endpoint *endpoint;
    if (api->resolve(bus, name, &endpoint, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return endpoint;
}

static uint64_t post(const struct lathe_endpoint *endpoint, struct note *in, struct note *out)
{
    uint64_t ticket = 0;
    if (api->post(bus, endpoint, in, out, &ticket, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    return ticket;
}

static struct lathe_service_health health_of(const char *name)
{
    struct lathe_service_health health = { .size = sizeof health };
    assert_int_equal(api->health(bus, name, &health, &err), LATHE_OK);
    return health;
}

#define REFUSED(call, code, part)                        \
    do {                                                 \
        err.message[0] = '\0';                           \
        assert_int_equal(call, code);                    \
        if (!strstr(err.message, part))                  \
            fail_msg("no '%s' in: %s", part, err.message); \
    } while (0)

/* --- behaviours --------------------------------------------------------------------------- */

static void a_serial_service_has_one_worker_at_most(void **state)
{
    struct lathe_service two = service("two", LATHE_SERIAL, 2), one = service("one", LATHE_SERIAL, 1),
                         many = service("many", LATHE_PARALLEL, 2), guest = service("guest", LATHE_SERIAL, 1);
    (void)state;
    open_bus(NULL);
    REFUSED(api->add_service(bus, &two, &err), LATHE_EINVAL, "one call at a time");
    add(&one);
    REFUSED(api->scale(bus, "one", 2, &err), LATHE_EINVAL, "one call at a time");
    add(&many);
    guest.with = "many";
    REFUSED(api->add_service(bus, &guest, &err), LATHE_EINVAL, "many");
    assert_int_equal(api->scale(bus, "many", 1, &err), LATHE_OK);
    add(&guest);
    REFUSED(api->scale(bus, "many", 2, &err), LATHE_EINVAL, "one call at a time");
    REFUSED(api->scale(bus, "guest", 2, &err), LATHE_EINVAL, "many");
    REFUSED(api->scale(bus, "many", 0, &err), LATHE_EINVAL, "at least one");
    REFUSED(api->scale(bus, "many", 1000, &err), LATHE_EINVAL, "at most");
    REFUSED(api->remove_service(bus, "many", &err), LATHE_EBUSY, "many");
    assert_int_equal(api->remove_service(bus, "guest", &err), LATHE_OK);
    assert_int_equal(api->scale(bus, "many", 2, &err), LATHE_OK);
    close_bus();
}

static void workers_work_at_the_same_time(void **state)
{
    struct lathe_service s = service("s", LATHE_PARALLEL, 4);
    struct note in[4], out[4];
    const void *ins[4];
    void *outs[4];
    uint64_t tickets[4];
    uint32_t posted;
    int statuses[4];
    (void)state;
    open_bus(NULL);
    add(&s);
    for (int i = 0; i < 4; i++) {
        in[i] = note(4);
        out[i] = note(0);
        ins[i] = &in[i];
        outs[i] = &out[i];
    }
    assert_int_equal(api->post_many(bus, resolve("s.meet"), ins, outs, tickets, 4, &posted, &err), LATHE_OK);
    assert_int_equal(posted, 4);
    assert_int_equal(api->wait_many(bus, tickets, statuses, 4, &err), LATHE_OK);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            assert_false(pthread_equal(out[i].thread, out[j].thread));
    close_bus();
}

static void a_full_queue_refuses_posts_and_makes_calls_wait_within_their_deadline(void **state)
{
    struct lathe_service s = service("s", LATHE_SERIAL, 1);
    const struct lathe_endpoint *e;
    struct note in = note(1), out = note(0), late = note(1), out2 = note(0);
    uint64_t tickets[4], ticket;
    uint32_t posted = 9;
    const void *ins[] = { &in };
    void *outs[] = { &out };
    (void)state;
    open_bus("4");
    add(&s);
    e = resolve("s.gate");
    for (int i = 0; i < 4; i++)
        tickets[i] = post(e, &in, &out);
    REFUSED(api->post(bus, e, &in, &out, &ticket, &err), LATHE_EFULL, "wait for one");
    REFUSED(api->post_many(bus, e, ins, outs, &ticket, 1, &posted, &err), LATHE_EFULL, "wait for one");
    assert_int_equal(posted, 0);
    late.head.deadline_ns = host.host.now_ns(&host) + 20; /* the host's clock ticks by being read */
    REFUSED(e->call(e->self, &late, &out2, &err), LATHE_EDEADLINE, "full");
    REFUSED(api->wait(bus, tickets[3], 0, &err), LATHE_EBUSY, "not done");
    REFUSED(api->wait(bus, tickets[3], 100000, &err), LATHE_EBUSY, "not done");
    gate = 1;
    for (int i = 3; i >= 0; i--)
        assert_int_equal(api->wait(bus, tickets[i], -1, &err), LATHE_OK);
    assert_int_equal(begun, 4);
    assert_int_equal(e->call(e->self, &in, &out2, &err), LATHE_OK);
    close_bus();
}

static void work_whose_time_passed_in_the_queue_is_not_begun(void **state)
{
    struct lathe_service s = service("s", LATHE_SERIAL, 1);
    struct lathe_endpoint_stats stats;
    struct note block = note(1), in = note(1), out[2] = { note(0), note(0) };
    uint64_t first, second;
    (void)state;
    open_bus(NULL);
    add(&s);
    first = post(resolve("s.gate"), &block, &out[0]);
    while (!begun)
        nap();
    in.head.deadline_ns = host.host.now_ns(&host) + 1000;
    second = post(resolve("s.plain"), &in, &out[1]);
    host.now_ns += 2000;
    gate = 1;
    assert_int_equal(api->wait(bus, first, -1, &err), LATHE_OK);
    REFUSED(api->wait(bus, second, -1, &err), LATHE_EDEADLINE, "s.plain");
    assert_int_equal(begun, 1);
    api->stats(bus, resolve("s.plain"), &stats);
    assert_int_equal(stats.expired, 1);
    close_bus();
}

static void goes_with_anothers_workers_or_on_the_callers_thread(void **state)
{
    struct lathe_service a = service("a", LATHE_PARALLEL, 1), b = service("b", LATHE_PARALLEL, 7),
                         c = service("c", LATHE_SERIAL, 3);
    const struct lathe_endpoint *e[3];
    struct note in = note(5), out[3] = { note(0), note(0), note(0) };
    (void)state;
    b.with = "a";
    c.flags = LATHE_SERVICE_LOCAL;
    open_bus(NULL);
    add(&a);
    add(&b);
    add(&c);
    e[0] = resolve("a.plain"), e[1] = resolve("b.plain"), e[2] = resolve("c.plain");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(e[i]->call(e[i]->self, &in, &out[i], &err), LATHE_OK);
        assert_int_equal(out[i].number, 6);
        assert_int_equal(out[i].head.worker, i < 2 ? 1 : 0);
    }
    assert_true(pthread_equal(out[0].thread, out[1].thread));
    assert_false(pthread_equal(out[0].thread, pthread_self()));
    assert_true(pthread_equal(out[2].thread, pthread_self()));
    assert_int_equal(health_of("b").workers, 1);
    assert_int_equal(health_of("c").workers, 0);
    assert_true(health_of("c").alive && health_of("c").ready);
    close_bus();
}

static void tickets_are_good_once_and_only_while_their_service_lives(void **state)
{
    struct lathe_service s = service("s", LATHE_SERIAL, 1), local = service("local", LATHE_SERIAL, 1);
    struct note in = note(1), out = note(0), local_out = note(0);
    uint64_t ticket, unspent[2], again;
    (void)state;
    local.flags = LATHE_SERVICE_LOCAL;
    open_bus("4");
    add(&s);
    add(&local);
    for (int i = 0; i < 20; i++) { /* laps */
        ticket = post(resolve(i % 2 ? "s.plain" : "local.plain"), &in, &out);
        assert_int_equal(api->wait(bus, ticket, -1, &err), LATHE_OK);
        REFUSED(api->wait(bus, ticket, -1, &err), LATHE_ENOTFOUND, "spent by one wait");
    }
    unspent[0] = post(resolve("s.plain"), &in, &out);
    unspent[1] = post(resolve("local.plain"), &in, &local_out);
    assert_int_equal(api->remove_service(bus, "s", &err), LATHE_OK);
    assert_int_equal(api->remove_service(bus, "local", &err), LATHE_OK);
    add(&s);
    add(&local);
    again = post(resolve("s.plain"), &in, &out);
    for (int i = 0; i < 2; i++)
        REFUSED(api->wait(bus, unspent[i], -1, &err), LATHE_ENOTFOUND, "ticket");
    assert_int_equal(api->wait(bus, again, -1, &err), LATHE_OK);
    REFUSED(api->wait(bus, 0, -1, &err), LATHE_ENOTFOUND, "ticket");
    REFUSED(api->wait(bus, UINT64_MAX, -1, &err), LATHE_ENOTFOUND, "ticket");
    close_bus();
}

static void *call_in_a_thread(void *argument)
{
    struct note in = note(1), out = note(0);
    struct lathe_error own_err;
    const struct lathe_endpoint *e = argument;
    return (void *)(intptr_t)e->call(e->self, &in, &out, &own_err);
}

static void *open_the_gate_later(void *argument)
{
    for (int i = 0; i < 50; i++)
        nap();
    gate = 1;
    return argument;
}

static void calls_under_way_are_finished_before_a_service_goes(void **state)
{
    struct lathe_service s = service("s", LATHE_PARALLEL, 2), guest = service("guest", LATHE_PARALLEL, 1);
    pthread_t callers[3], opener;
    void *status;
    (void)state;
    guest.with = "s";
    open_bus(NULL);
    add(&s);
    add(&guest);
    for (int i = 0; i < 3; i++)
        pthread_create(&callers[i], NULL, call_in_a_thread, (void *)(uintptr_t)resolve(i ? "s.gate" : "guest.gate"));
    while (begun < 2 || health_of("s").queued < 3)
        nap();
    pthread_create(&opener, NULL, open_the_gate_later, NULL);
    assert_int_equal(api->remove_service(bus, "guest", &err), LATHE_OK);
    assert_int_equal(gate, 1);
    assert_int_equal(api->remove_service(bus, "s", &err), LATHE_OK);
    for (int i = 0; i < 3; i++) {
        pthread_join(callers[i], &status);
        assert_int_equal((intptr_t)status, LATHE_OK);
    }
    pthread_join(opener, NULL);
    close_bus();
}

static void scales_with_calls_under_way(void **state)
{
    struct lathe_service s = service("s", LATHE_PARALLEL, 3);
    struct note in = note(1), out[6];
    uint64_t tickets[6], seen = 0;
    pthread_t opener;
    (void)state;
    open_bus(NULL);
    add(&s);
    assert_int_equal(api->poll(bus, &seen, 0), LATHE_OK);
    assert_int_equal(api->poll(bus, &seen, 0), LATHE_EBUSY);
    assert_int_equal(api->poll(bus, &seen, 1000), LATHE_EBUSY);
    for (int i = 0; i < 6; i++) {
        out[i] = note(0);
        tickets[i] = post(resolve("s.gate"), &in, &out[i]);
    }
    while (begun < 3)
        nap();
    assert_int_equal(health_of("s").queued, 6);
    assert_int_equal(api->scale(bus, "s", 6, &err), LATHE_OK);
    assert_int_equal(api->poll(bus, &seen, -1), LATHE_OK); /* workers came */
    while (begun < 6)
        nap();
    pthread_create(&opener, NULL, open_the_gate_later, NULL);
    assert_int_equal(api->scale(bus, "s", 1, &err), LATHE_OK); /* those that go finish first */
    assert_int_equal(health_of("s").workers, 1);
    assert_true(health_of("s").alive && health_of("s").ready);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(api->wait(bus, tickets[i], -1, &err), LATHE_OK);
        assert_int_equal(out[i].number, 2);
    }
    pthread_join(opener, NULL);
    close_bus();
}

static void a_worker_may_call_its_own_service(void **state)
{
    struct lathe_service s = service("s", LATHE_SERIAL, 1);
    const struct lathe_endpoint *e;
    struct note in = note(3), out = note(0);
    (void)state;
    open_bus(NULL);
    add(&s);
    own = resolve("s.plain");
    e = resolve("s.nested");
    if (e->call(e->self, &in, &out, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(begun, 2);
    close_bus();
}

static void a_posted_call_is_retried_in_wait_and_poll_says_when(void **state)
{
    struct lathe_service s = service("s", LATHE_SERIAL, 1);
    struct lathe_endpoint_stats stats;
    struct note in = note(1), out = note(0);
    uint64_t ticket, seen = 0;
    int status;
    (void)state;
    open_bus(NULL);
    add(&s);
    failures_left = 2;
    ticket = post(resolve("s.fail"), &in, &out);
    do
        assert_int_equal(api->poll(bus, &seen, -1), LATHE_OK);
    while ((status = api->wait(bus, ticket, 0, &err)) == LATHE_EBUSY);
    assert_int_equal(status, LATHE_OK);
    assert_int_equal(out.number, 2);
    api->stats(bus, resolve("s.fail"), &stats);
    assert_int_equal(stats.retries, 2);
    failures_left = 1000;
    ticket = post(resolve("s.fail"), &in, &out);
    REFUSED(api->wait(bus, ticket, -1, &err), LATHE_EIO, "a passing reason");
    close_bus();
}

static void a_service_may_go_while_a_retry_is_due(void **state)
{
    struct lathe_service s = service("s", LATHE_PARALLEL, 1), guest = service("guest", LATHE_PARALLEL, 1);
    struct note in = note(1), out = note(0);
    uint64_t ticket;
    (void)state;
    guest.with = "s";
    open_bus("4");
    add(&s);
    for (int lap = 0; lap < 9; lap++) { /* more than the ring has places */
        add(&guest);
        failures_left = 1000;
        ticket = post(resolve("guest.fail"), &in, &out);
        while (failures_left > 999)
            nap();
        for (int i = 0; i < lap; i++) /* before the first retry, in it, or after it */
            if (api->wait(bus, ticket, 0, &err) != LATHE_EBUSY)
                break;
        assert_int_equal(api->remove_service(bus, "guest", &err), LATHE_OK);
        REFUSED(api->wait(bus, ticket, -1, &err), LATHE_ENOTFOUND, "ticket");
    }
    assert_int_equal(health_of("s").queued, 0);
    close_bus();
}

/* --- the observer --------------------------------------------------------------------------- */

static struct lathe_hop hop;
static int events[16];

static void see_hop(void *context, const struct lathe_hop *h)
{
    (void)context;
    hop = *h;
}

static void see_event(void *context, const struct lathe_bus_event *event)
{
    (void)context;
    events[event->kind]++;
}

static void an_observer_sees_times_and_workers(void **state)
{
    struct lathe_service s = service("s", LATHE_PARALLEL, 2);
    const struct lathe_bus_observer observer = { .size = sizeof observer, .hop = see_hop, .event = see_event };
    const struct lathe_endpoint *e;
    struct note in = note(1), out = note(0);
    (void)state;
    open_bus(NULL);
    api->observe(bus, &observer);
    add(&s);
    assert_int_equal(events[LATHE_BUS_WORKER_STARTED], 2);
    assert_int_equal(events[LATHE_BUS_WORKER_READY], 2);
    e = resolve("s.plain");
    in.head.correlation = 77;
    assert_int_equal(e->call(e->self, &in, &out, &err), LATHE_OK);
    assert_ptr_equal(hop.endpoint, e);
    assert_int_equal(hop.correlation, 77);
    assert_true(hop.worker == 1 || hop.worker == 2);
    assert_true(0 < hop.sent_ns && hop.sent_ns < hop.started_ns && hop.started_ns < hop.ended_ns);
    api->observe(bus, NULL);
    hop.attempt = 0;
    assert_int_equal(e->call(e->self, &in, &out, &err), LATHE_OK);
    assert_int_equal(hop.attempt, 0);
    close_bus();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_serial_service_has_one_worker_at_most),
        cmocka_unit_test(workers_work_at_the_same_time),
        cmocka_unit_test(a_full_queue_refuses_posts_and_makes_calls_wait_within_their_deadline),
        cmocka_unit_test(work_whose_time_passed_in_the_queue_is_not_begun),
        cmocka_unit_test(goes_with_anothers_workers_or_on_the_callers_thread),
        cmocka_unit_test(tickets_are_good_once_and_only_while_their_service_lives),
        cmocka_unit_test(calls_under_way_are_finished_before_a_service_goes),
        cmocka_unit_test(scales_with_calls_under_way),
        cmocka_unit_test(a_worker_may_call_its_own_service),
        cmocka_unit_test(a_posted_call_is_retried_in_wait_and_poll_says_when),
        cmocka_unit_test(a_service_may_go_while_a_retry_is_due),
        cmocka_unit_test(an_observer_sees_times_and_workers),
    };
    void *library = dlopen(TEST_PLUGINS "/bus/async.so", RTLD_NOW | RTLD_LOCAL);
    if (!library || !(plugin = dlsym(library, LATHE_PLUGIN_SYMBOL))) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    api = plugin->api;
    return cmocka_run_group_tests_name("bus_async", tests, NULL, NULL);
}

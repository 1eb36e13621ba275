/* SPDX-License-Identifier: MIT */
/* Who does the work: the caller itself, workers of one's own or another's, more or fewer of
 * them, and what becomes of calls under way when their service goes. */
#include "office.h"

static void call_who(void *bus, const char *name, pthread_t *thread)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 31 };
    const struct lathe_endpoint *endpoint = endpoint_of(bus, name);
    struct letter *in = write_letter(bus, &d, 5), *out = write_letter(bus, &d, 0);
    CHECK_OK(endpoint->call(endpoint->self, in, out, &err), &err);
    check_answer(in, out);
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
    *thread = office_thread;
}

void runs_a_local_service_on_its_callers_thread(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_service local = office;
    struct dice d = { .seed = 32 };
    uint64_t ticket;
    pthread_t thread;
    void *bus = open_bus(s);
    local.name = "desk";
    local.flags = LATHE_SERVICE_LOCAL;
    CHECK_OK(api->add_service(bus, &local, &err), &err);
    for (int i = 0; i < 3; i++) {
        call_who(bus, "desk.who", &thread);
        CHECK(pthread_equal(thread, pthread_self()), "a local service ran on another thread than its caller's");
    }
    struct letter *in = write_letter(bus, &d, 5), *out = write_letter(bus, &d, 0);
    CHECK_OK(api->post(bus, endpoint_of(bus, "desk.who"), in, out, &ticket, &err), &err);
    CHECK_OK(api->wait(bus, ticket, -1, &err), &err);
    CHECK(pthread_equal(office_thread, pthread_self()), "a posted call of a local service ran on another thread");
    check_answer(in, out);
    call_who(bus, "office.who", &thread);
    CHECK((pthread_equal(thread, pthread_self()) == 0) == has_workers(bus),
          "a service with workers ran on its caller's thread");
    api->give_back(bus, &in->head);
    api->give_back(bus, &out->head);
    CHECK_OK(api->remove_service(bus, "desk", &err), &err);
    api->destroy(bus);
}

void lets_services_share_workers(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct lathe_service clerk = office, lost = office;
    pthread_t theirs, own;
    void *bus = open_bus(s);
    clerk.name = "clerk", clerk.with = "office";
    lost.name = "lost", lost.with = "offise";
    CHECK_FAILS(api->add_service(bus, &lost, &err), LATHE_ENOTFOUND, &err);
    CHECK_OK(api->add_service(bus, &clerk, &err), &err);
    for (int i = 0; i < 3; i++) {
        call_who(bus, "office.who", &own);
        call_who(bus, "clerk.who", &theirs);
        CHECK(pthread_equal(own, theirs), "a service that goes with another has a worker of its own");
    }
    CHECK_FAILS(api->remove_service(bus, "office", &err), LATHE_EBUSY, &err);
    call_who(bus, "office.who", &own); /* it is still there */
    CHECK_OK(api->remove_service(bus, "clerk", &err), &err);
    call_who(bus, "office.who", &own);
    CHECK_OK(api->remove_service(bus, "office", &err), &err);
    api->destroy(bus);
}

/* ── More and fewer ─────────────────────────────────────────────────────────────────── */

enum { CALLERS = 3, CALLS = 300 };

struct caller {
    void *bus;
    uint32_t number;
    _Atomic int *left; /* callers that aren't done */
};

static void one_call(void *bus, struct dice *d, const struct lathe_endpoint *endpoint, struct letter *in,
                     struct letter *out)
{
    struct lathe_error err = { 0 };
    in->count = 1 + roll(d, 64);
    for (uint32_t i = 0; i < in->count; i++)
        in->bytes[i] = (unsigned char)roll(d, 256);
    out->count = 0;
    if (roll(d, 2)) {
        CHECK_OK(endpoint->call(endpoint->self, in, out, &err), &err);
    } else {
        uint64_t ticket;
        CHECK_OK(api->post(bus, endpoint, in, out, &ticket, &err), &err);
        CHECK_OK(api->wait(bus, ticket, -1, &err), &err);
    }
    check_answer(in, out);
}

static const struct lathe_endpoint *increment_endpoint;
static struct letter *caller_in[CALLERS], *caller_out[CALLERS];

static void *keep_calling(void *context)
{
    struct caller *c = context;
    struct dice d = { .seed = 33 + c->number };
    for (int i = 0; i < CALLS; i++)
        one_call(c->bus, &d, increment_endpoint, caller_in[c->number], caller_out[c->number]);
    atomic_fetch_sub(c->left, 1);
    return NULL;
}

static void rescale(void *bus, uint32_t workers, int with_workers)
{
    struct lathe_error err = { 0 };
    struct lathe_service_health health = { .size = sizeof health };
    CHECK_OK(api->scale(bus, "office", workers, &err), &err);
    CHECK_OK(api->health(bus, "office", &health, &err), &err);
    CHECK(health.workers_wanted == workers, "%u workers are wanted, and %u were asked for", health.workers_wanted,
          workers);
    CHECK(health.workers == (with_workers ? workers : 0), "%u workers are up of %u", health.workers, workers);
}

void scales_while_calls_run(struct subject *s)
{
    static const uint32_t sizes[] = { 3, 1, 4, 2, 1, 2 };
    struct lathe_error err = { 0 };
    struct lathe_service parallel = office;
    struct dice d = { .seed = 34 };
    void *bus = open_bus(s);
    int with_workers = has_workers(bus), threads = s->plugin->concurrency == LATHE_PARALLEL ? CALLERS : 0;
    parallel.concurrency = LATHE_PARALLEL;
    parallel.workers = 2;
    CHECK_OK(api->remove_service(bus, "office", &err), &err);
    CHECK_OK(api->add_service(bus, &parallel, &err), &err);
    increment_endpoint = endpoint_of(bus, "office.increment");
    for (int i = 0; i < CALLERS; i++) {
        caller_in[i] = write_letter(bus, &d, 1);
        caller_out[i] = write_letter(bus, &d, 0);
    }
    _Atomic int left = threads;
    struct caller callers[CALLERS];
    pthread_t ids[CALLERS];
    for (int i = 0; i < threads; i++) {
        callers[i] = (struct caller){ .bus = bus, .number = (uint32_t)i, .left = &left };
        CHECK(pthread_create(&ids[i], NULL, keep_calling, &callers[i]) == 0, "no thread");
    }
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes || atomic_load(&left) > 0; i++) {
        rescale(bus, sizes[i % (sizeof sizes / sizeof *sizes)], with_workers);
        if (threads == 0)
            for (int n = 0; n < 50; n++)
                one_call(bus, &d, increment_endpoint, caller_in[0], caller_out[0]);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    CHECK(office_calls == (threads ? threads * CALLS : 300), "%d calls came through", office_calls);
    for (int i = 0; i < CALLERS; i++) {
        api->give_back(bus, &caller_in[i]->head);
        api->give_back(bus, &caller_out[i]->head);
    }
    api->destroy(bus);
}

/* ── Gone ───────────────────────────────────────────────────────────────────────────── */

static void *open_the_gate(void *unused)
{
    (void)unused;
    nap(20000000);
    atomic_store(&office_gate, 1);
    return NULL;
}

/* Posted calls, one at work and the others behind it: the removal waits for them all. */
void finishes_calls_before_it_removes(struct subject *s)
{
    enum { POSTED = 6 };
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 35 };
    void *bus = open_bus(s);
    const struct lathe_endpoint *endpoint = endpoint_of(bus, "office.gated");
    struct letter *in[POSTED], *out[POSTED];
    uint64_t tickets[POSTED];
    pthread_t opener;
    int with_workers = has_workers(bus);
    office_gate = !with_workers;
    for (int i = 0; i < POSTED; i++) {
        in[i] = write_letter(bus, &d, 7);
        out[i] = write_letter(bus, &d, 0);
        CHECK_OK(api->post(bus, endpoint, in[i], out[i], &tickets[i], &err), &err);
    }
    if (with_workers) {
        while (atomic_load(&office_begun) == 0)
            nap(100000);
        CHECK(pthread_create(&opener, NULL, open_the_gate, NULL) == 0, "no thread");
    }
    CHECK_OK(api->remove_service(bus, "office", &err), &err);
    CHECK(office_calls == POSTED, "%d of %d calls were finished when their service was gone", office_calls, POSTED);
    if (with_workers)
        pthread_join(opener, NULL);
    for (int i = 0; i < POSTED; i++) {
        int status = api->wait(bus, tickets[i], -1, &err); /* known still, or spent: never in between */
        CHECK(status == LATHE_OK || status == LATHE_ENOTFOUND, "call %d of a service that is gone: %d", i, status);
        check_answer(in[i], out[i]);
        api->give_back(bus, &in[i]->head);
        api->give_back(bus, &out[i]->head);
    }
    CHECK_FAILS(api->resolve(bus, "office.gated", &endpoint, &err), LATHE_ENOTFOUND, &err);
    CHECK_OK(api->add_service(bus, &office, &err), &err);
    endpoint = endpoint_of(bus, "office.increment");
    api->destroy(bus);
}

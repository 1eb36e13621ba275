/* SPDX-License-Identifier: MIT */
/* bus/shm: workers come and go while calls run, and no call is lost or repeated for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>

#include "support/shm_cases.h"

static void workers_come_and_go_while_it_runs(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    pid_t children[16];
    (void)state;
    open_with(&o, "byte", 1, quick);
    int files = office_open_files();
    struct office_pair p = office_pair(&o);
    OFFICE_MUST(o.api->scale(o.bus, "tokenizer", 4, &err), &err);
    assert_int_equal(office_children(children, 16), 4);
    assert_int_equal(office_health(&o, "tokenizer").workers, 4);
    OFFICE_MUST(encode(&o, &p, "four", &err), &err);
    OFFICE_MUST(o.api->scale(o.bus, "tokenizer", 1, &err), &err);
    assert_int_equal(office_children(children, 16), 1);
    assert_int_equal(office_events(&o, LATHE_BUS_WORKER_STOPPED, NULL), 3);
    assert_int_equal(office_events(&o, LATHE_BUS_WORKER_DIED, NULL), 0);
    assert_int_equal(office_open_files(), files);
    OFFICE_MUST(encode(&o, &p, "one", &err), &err);
    assert_int_equal(o.api->scale(o.bus, "tokenizer", 0, &err), LATHE_ERANGE);
    assert_int_equal(o.api->scale(o.bus, "tokenizer", 65, &err), LATHE_ERANGE);
    office_pair_back(&o, &p);
    close_all(&o);
}

/* Slow calls are on their way in every worker: they are finished, not cut off. */
static void a_worker_that_is_scaled_away_finishes_its_calls(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    enum { CALLS = 6 };
    struct office_pair p[CALLS];
    uint64_t tickets[CALLS];
    (void)state;
    open_with(&o, "mischief", 3, quick);
    const struct lathe_endpoint *endpoint = office_endpoint(&o, "tokenizer.encode");
    for (int i = 0; i < CALLS; i++) {
        p[i] = office_pair(&o);
        office_write(&p[i], "zzz");
        OFFICE_MUST(o.api->post(o.bus, endpoint, p[i].in, p[i].out, &tickets[i], &err), &err);
    }
    OFFICE_MUST(o.api->scale(o.bus, "tokenizer", 1, &err), &err);
    for (int i = 0; i < CALLS; i++) {
        OFFICE_MUST(o.api->wait(o.bus, tickets[i], -1, &err), &err);
        assert_true(office_is_right(&p[i], "zzz"));
        office_pair_back(&o, &p[i]);
    }
    struct lathe_endpoint_stats stats;
    o.api->stats(o.bus, endpoint, &stats);
    assert_int_equal(stats.calls, CALLS); /* none was cut off and repeated */
    assert_int_equal(stats.retries, 0);
    assert_int_equal(office_events(&o, LATHE_BUS_WORKER_DIED, NULL), 0);
    assert_int_equal(office_health(&o, "tokenizer").restarts, 0);
    close_all(&o);
}

/* The worker answers, then dies, and only then somebody waits. */
static void an_answer_outlives_its_worker(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    struct lathe_endpoint_stats stats;
    uint64_t ticket, seen = 0;
    (void)state;
    open_with(&o, "byte", 1, quick);
    struct office_pair p = office_pair(&o);
    OFFICE_MUST(o.api->poll(o.bus, &seen, -1), &err); /* the worker that came */
    office_write(&p, "alive");
    OFFICE_MUST(o.api->post(o.bus, office_endpoint(&o, "tokenizer.encode"), p.in, p.out, &ticket, &err), &err);
    OFFICE_MUST(o.api->poll(o.bus, &seen, -1), &err); /* the answer */
    kill((pid_t)office_health(&o, "tokenizer").pid, SIGKILL);
    await_events(&o, LATHE_BUS_WORKER_READY, 2);
    OFFICE_MUST(o.api->wait(o.bus, ticket, 0, &err), &err);
    assert_true(office_is_right(&p, "alive"));
    o.api->stats(o.bus, office_endpoint(&o, "tokenizer.encode"), &stats);
    assert_int_equal(stats.calls, 1);
    office_pair_back(&o, &p);
    close_all(&o);
}

struct load {
    struct office *o;
    const char *endpoint;
    atomic_int stop;
    uint64_t calls;
    pthread_t thread;
};

static void *load_thread(void *self)
{
    struct load *load = self;
    const struct lathe_endpoint *endpoint = office_endpoint(load->o, load->endpoint);
    struct office_pair p = office_pair(load->o);
    for (; !atomic_load(&load->stop); load->calls++) {
        struct lathe_error err = { 0 };
        office_write(&p, "some text");
        OFFICE_MUST(endpoint->call(endpoint->self, p.in, p.out, &err), &err);
        if (!office_is_right(&p, "some text"))
            abort();
    }
    office_pair_back(load->o, &p);
    return NULL;
}

/* Callers on three threads while workers come and go; no call has to be repeated. */
static void scale_under_load(struct office *o, const char *name, const char *endpoint)
{
    struct lathe_error err = { 0 };
    struct lathe_endpoint_stats stats;
    struct load load[3];
    uint64_t calls = 0;
    for (int i = 0; i < 3; i++) {
        load[i] = (struct load){ .o = o, .endpoint = endpoint };
        assert_int_equal(pthread_create(&load[i].thread, NULL, load_thread, &load[i]), 0);
    }
    for (uint32_t i = 0; i < 10; i++)
        OFFICE_MUST(o->api->scale(o->bus, name, 1 + i * 7 % 4, &err), &err);
    for (int i = 0; i < 3; i++) {
        atomic_store(&load[i].stop, 1);
        pthread_join(load[i].thread, NULL);
        calls += load[i].calls;
    }
    o->api->stats(o->bus, office_endpoint(o, endpoint), &stats);
    assert_int_equal(stats.calls, calls);
    assert_int_equal(stats.failures, 0);
    assert_int_equal(stats.retries, 0);
    assert_int_equal(office_health(o, name).restarts, 0);
    assert_int_equal(office_health(o, name).workers, 4);
}

static void processes_come_and_go_under_load(void **state)
{
    struct office o;
    (void)state;
    open_with(&o, "byte", 1, quick);
    scale_under_load(&o, "tokenizer", "tokenizer.encode");
    assert_int_equal(office_events(&o, LATHE_BUS_WORKER_DIED, NULL), 0);
    close_all(&o);
}

/* What a byte tokenizer does, on a worker thread of this process. */
static int encode_here(void *self, const void *input, void *output, struct lathe_error *err)
{
    const struct lathe_encode_in *in = input;
    struct lathe_encode_out *out = output;
    (void)self, (void)err;
    out->head.bytes = sizeof *out;
    int32_t *tokens = lathe_message_add(&out->head, &out->tokens, in->text.count, sizeof *tokens);
    for (uint64_t i = 0; i < in->text.count; i++)
        tokens[i] = LATHE_SPAN(const unsigned char, in, in->text)[i];
    return LATHE_OK;
}

static void threads_come_and_go_under_load(void **state)
{
    static const struct lathe_service_method methods[] = { { .name = "encode", .function = encode_here } };
    static const struct lathe_service here = {.size = sizeof here,
                                              .name = "here",
                                              .methods = methods,
                                              .method_count = 1,
                                              .concurrency = LATHE_PARALLEL,
                                              .workers = 2};
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    office_open(&o, NULL);
    OFFICE_MUST(o.api->add_service(o.bus, &here, &err), &err);
    scale_under_load(&o, "here", "here.encode");
    office_close(&o);
}

static void a_service_that_is_removed_leaves_tickets_with_results(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    uint64_t ticket;
    (void)state;
    open_with(&o, "mischief", 1, quick);
    int files = office_open_files();
    struct office_pair p = office_pair(&o);
    office_write(&p, "zzz");
    OFFICE_MUST(o.api->post(o.bus, office_endpoint(&o, "tokenizer.encode"), p.in, p.out, &ticket, &err), &err);
    OFFICE_MUST(o.api->remove_service(o.bus, "tokenizer", &err), &err);
    OFFICE_MUST(o.api->wait(o.bus, ticket, 0, &err), &err);
    assert_true(office_is_right(&p, "zzz"));
    pid_t children[4];
    assert_int_equal(office_children(children, 4), 0);
    assert_true(office_open_files() < files);
    OFFICE_MUST(o.api->add_service(o.bus, &service, &err), &err); /* and it may come again */
    OFFICE_MUST(encode(&o, &p, "again", &err), &err);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void posted_calls_are_repeated_too(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    uint64_t ticket, seen = 0;
    int status;
    (void)state;
    open_with(&o, "mischief", 1, quick);
    struct office_pair p = office_pair(&o), q = office_pair(&o);
    office_write(&p, "zzz");
    OFFICE_MUST(o.api->post(o.bus, office_endpoint(&o, "tokenizer.encode"), p.in, p.out, &ticket, &err), &err);
    kill((pid_t)office_health(&o, "tokenizer").pid, SIGKILL);
    while ((status = o.api->wait(o.bus, ticket, 0, &err)) == LATHE_EBUSY)
        o.api->poll(o.bus, &seen, -1); /* woken by its end, and for the retry */
    OFFICE_MUST(status, &err);
    assert_true(office_is_right(&p, "zzz"));
    office_pair_back(&o, &p);
    office_pair_back(&o, &q);
    close_all(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_come_and_go_while_it_runs),
        cmocka_unit_test(a_worker_that_is_scaled_away_finishes_its_calls),
        cmocka_unit_test(an_answer_outlives_its_worker),
        cmocka_unit_test(processes_come_and_go_under_load),
        cmocka_unit_test(threads_come_and_go_under_load),
        cmocka_unit_test(a_service_that_is_removed_leaves_tickets_with_results),
        cmocka_unit_test(posted_calls_are_repeated_too),
    };
    return cmocka_run_group_tests_name("bus/shm: scale", tests, NULL, NULL);
}

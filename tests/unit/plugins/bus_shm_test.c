/* SPDX-License-Identifier: MIT */
/* bus/shm with real worker processes: what becomes of a call, when things go well and when its
 * worker fails in each of the ways that it can. Killing at random moments under load is
 * tests/e2e/shm_chaos.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/shm_cases.h"

static void another_process_answers(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    open_with(&o, "byte", 1, quick);
    struct office_pair p = office_pair(&o);
    struct lathe_service_health health = office_health(&o, "tokenizer");
    pid_t children[4];
    assert_int_equal(office_children(children, 4), 1);
    assert_int_equal(health.pid, children[0]);
    assert_true(health.alive && health.ready && health.workers == 1 && health.workers_wanted == 1);
    for (int i = 0; i < 1000; i++) {
        OFFICE_MUST(encode(&o, &p, "Hello, worker.", &err), &err);
        assert_true(office_is_right(&p, "Hello, worker."));
    }
    assert_int_equal(encode(&o, &p, "", &err), LATHE_OK);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void messages_that_were_not_loaned_are_refused(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    struct lathe_empty in = { { .capacity = sizeof in, .bytes = sizeof in } };
    struct lathe_tokenizer_info info = { .head.capacity = sizeof info };
    (void)state;
    open_with(&o, "byte", 1, quick);
    const struct lathe_endpoint *endpoint = office_endpoint(&o, "tokenizer.describe");
    assert_int_equal(endpoint->call(endpoint->self, &in, &info, &err), LATHE_EINVAL);
    assert_said(err, "was not loaned by this bus");
    close_all(&o);
}

static void a_call_in_flight_survives_its_workers_death(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    struct lathe_endpoint_stats stats;
    char detail[500];
    (void)state;
    open_with(&o, "byte", 1, quick);
    struct office_pair p = office_pair(&o);
    OFFICE_MUST(encode(&o, &p, "before", &err), &err);
    kill((pid_t)office_health(&o, "tokenizer").pid, SIGKILL);
    OFFICE_MUST(encode(&o, &p, "after", &err), &err);
    assert_true(office_is_right(&p, "after"));
    await_events(&o, LATHE_BUS_WORKER_DIED, 1);
    office_events(&o, LATHE_BUS_WORKER_DIED, detail);
    assert_non_null(strstr(detail, "was killed by signal 9"));
    assert_int_equal(office_health(&o, "tokenizer").restarts, 1);
    o.api->stats(o.bus, office_endpoint(&o, "tokenizer.encode"), &stats);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void a_worker_that_dies_of_each_call_gives_its_sentence(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    open_with(&o, "mischief", 1, quick);
    struct office_pair p = office_pair(&o);
    assert_int_equal(encode(&o, &p, "kill", &err), LATHE_EUNAVAILABLE); /* after three attempts */
    assert_said(err, "of service 'tokenizer' (pid ");
    assert_said(err, "was killed by signal 9");
    assert_int_equal(encode(&o, &p, "xit", &err), LATHE_EUNAVAILABLE);
    assert_said(err, "exited with status 3");
    OFFICE_MUST(encode(&o, &p, "nothing", &err), &err);
    assert_int_equal(office_health(&o, "tokenizer").restarts, 6);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void a_stopped_worker_is_killed_and_replaced(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    char detail[500];
    (void)state;
    open_with(&o, "byte", 1, quick);
    struct office_pair p = office_pair(&o);
    office_stop((pid_t)office_health(&o, "tokenizer").pid);
    OFFICE_MUST(encode(&o, &p, "still there?", &err), &err);
    assert_int_equal(office_events(&o, LATHE_BUS_WORKER_STUCK, detail), 1);
    assert_non_null(strstr(detail, "its heart had not beaten"));
    office_pair_back(&o, &p);
    close_all(&o);
}

static void a_call_that_never_ends_costs_its_worker(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    const char *const options[] = { "stuck_ms", "300", "retry_attempts", "1", NULL };
    (void)state;
    open_with(&o, "mischief", 1, options);
    struct office_pair p = office_pair(&o);
    assert_int_equal(encode(&o, &p, "hang", &err), LATHE_EUNAVAILABLE);
    assert_said(err, "a call had taken");
    OFFICE_MUST(encode(&o, &p, "nothing", &err), &err);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void forged_answers_are_refused_and_cost_their_worker(void **state)
{
    static const struct { const char *text; int status; const char *says; } lies[] = {
        { "status", LATHE_EINTERNAL, "its status is no status" },
        { "bytes", LATHE_EINTERNAL, "more bytes than there are" },
        { "capacity", LATHE_EINTERNAL, "more bytes than there are" },
    };
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    open_with(&o, "mischief", 1, quick);
    struct office_pair p = office_pair(&o);
    uint64_t capacity = p.out->head.capacity;
    for (int i = 0; i < 3; i++) {
        int64_t pid = office_health(&o, "tokenizer").pid;
        assert_int_equal(encode(&o, &p, lies[i].text, &err), lies[i].status);
        assert_said(err, lies[i].says);
        assert_said(err, "tokenizer.encode");
        assert_true(p.out->head.capacity == capacity);
        await_events(&o, LATHE_BUS_WORKER_READY, i + 2);
        assert_int_not_equal(office_health(&o, "tokenizer").pid, pid);
    }
    office_pair_back(&o, &p);
    close_all(&o);
}

/* One call waits in a ring that is spoilt, others find no way in; its heart beats on. */
static void a_worker_that_writes_over_its_ring_holds_up_nobody(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    const char *const options[] = { "stuck_ms", "0", "retry_attempts", "1", "queue", "256", NULL };
    uint64_t ticket;
    (void)state;
    open_with(&o, "mischief", 1, options);
    struct office_pair p = office_pair(&o), q = office_pair(&o);
    office_write(&p, "wild");
    OFFICE_MUST(o.api->post(o.bus, office_endpoint(&o, "tokenizer.encode"), p.in, p.out, &ticket, &err), &err);
    poll(NULL, 0, 20);
    int status = encode(&o, &q, "nothing", &err); /* in the old worker's ring, or served by the new one */
    assert_true(status == LATHE_OK || status == LATHE_EUNAVAILABLE);
    assert_int_equal(o.api->wait(o.bus, ticket, -1, &err), LATHE_EUNAVAILABLE);
    assert_said(err, "it wrote over its ring");
    OFFICE_MUST(encode(&o, &q, "nothing", &err), &err);
    office_pair_back(&o, &p);
    office_pair_back(&o, &q);
    close_all(&o);
}

static void a_sentence_without_an_end_is_cut(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    open_with(&o, "mischief", 1, impatient);
    struct office_pair p = office_pair(&o);
    assert_int_equal(encode(&o, &p, "endless", &err), LATHE_EIO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(encode(&o, &p, "mute", &err), LATHE_ERANGE);
    assert_said(err, "gave no reason");
    assert_int_equal(office_health(&o, "tokenizer").restarts, 0);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void state_that_is_gone_is_told_once(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    office_open(&o, quick);
    recipe = office_recipe("byte");
    service = office_service(recipe, 1);
    service.methods = office_stateful_methods;
    service.method_count = 2;
    OFFICE_MUST(o.api->add_service(o.bus, &service, &err), &err);
    struct office_pair p = office_pair(&o);
    OFFICE_MUST(encode(&o, &p, "one", &err), &err);
    kill((pid_t)office_health(&o, "tokenizer").pid, SIGKILL);
    await_events(&o, LATHE_BUS_WORKER_READY, 2);
    assert_int_equal(encode(&o, &p, "two", &err), LATHE_ELOST); /* between two calls, unseen */
    assert_said(err, "was replaced: its state is gone");
    OFFICE_MUST(encode(&o, &p, "three", &err), &err);
    office_pair_back(&o, &p);
    close_all(&o);
}

static void a_death_that_the_caller_saw_is_not_told_again(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    (void)state;
    office_open(&o, quick);
    recipe = office_recipe("mischief");
    service = office_service(recipe, 1);
    service.methods = office_stateful_methods;
    service.method_count = 2;
    OFFICE_MUST(o.api->add_service(o.bus, &service, &err), &err);
    struct office_pair p = office_pair(&o);
    OFFICE_MUST(encode(&o, &p, "one", &err), &err);
    assert_int_equal(encode(&o, &p, "kill", &err), LATHE_ELOST);
    assert_said(err, "was killed by signal 9");
    OFFICE_MUST(encode(&o, &p, "three", &err), &err);
    assert_int_equal(office_health(&o, "tokenizer").restarts, 1); /* it was tried once */
    office_pair_back(&o, &p);
    close_all(&o);
}

static void a_late_call_is_not_begun(void **state)
{
    struct office o;
    struct lathe_error err = { 0 };
    struct lathe_bus_observer nobody = { .size = sizeof nobody };
    uint64_t slow, late;
    (void)state;
    open_with(&o, "mischief", 1, quick);
    o.api->observe(o.bus, &nobody);
    struct office_pair p = office_pair(&o), q = office_pair(&o);
    const struct lathe_endpoint *endpoint = office_endpoint(&o, "tokenizer.encode");
    office_write(&p, "zzz"); /* 300 ms */
    office_write(&q, "never");
    const struct lathe_host *host = &o.bus_instance->host;
    OFFICE_MUST(o.api->post(o.bus, endpoint, p.in, p.out, &slow, &err), &err);
    q.in->head.deadline_ns = host->now_ns(host->context) + 100000000;
    OFFICE_MUST(o.api->post(o.bus, endpoint, q.in, q.out, &late, &err), &err);
    assert_int_equal(o.api->wait(o.bus, late, -1, &err), LATHE_EDEADLINE); /* the worker's clock is the host's */
    OFFICE_MUST(o.api->wait(o.bus, slow, -1, &err), &err);
    office_pair_back(&o, &p);
    office_pair_back(&o, &q);
    close_all(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_process_answers),
        cmocka_unit_test(messages_that_were_not_loaned_are_refused),
        cmocka_unit_test(a_call_in_flight_survives_its_workers_death),
        cmocka_unit_test(a_worker_that_dies_of_each_call_gives_its_sentence),
        cmocka_unit_test(a_stopped_worker_is_killed_and_replaced),
        cmocka_unit_test(a_call_that_never_ends_costs_its_worker),
        cmocka_unit_test(forged_answers_are_refused_and_cost_their_worker),
        cmocka_unit_test(a_worker_that_writes_over_its_ring_holds_up_nobody),
        cmocka_unit_test(a_sentence_without_an_end_is_cut),
        cmocka_unit_test(state_that_is_gone_is_told_once),
        cmocka_unit_test(a_death_that_the_caller_saw_is_not_told_again),
        cmocka_unit_test(a_late_call_is_not_begun),
    };
    return cmocka_run_group_tests_name("bus/shm: calls", tests, NULL, NULL);
}

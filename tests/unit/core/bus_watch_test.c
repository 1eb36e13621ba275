/* SPDX-License-Identifier: MIT */
/* What buses tell becomes rows: a hop a call with its step and times, an event a change, from
 * whichever thread it came; a list that is full loses events and counts them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "bus_watch.h"

struct fixture {
    struct registry *registry;
    struct instance *bus;
    struct recorder *recorder;
    struct recorder_run *run;
    struct producer *producer;
    struct clock clock;
    struct bus_watch watch;
    char path[64];
};

static int answer(void *self, const void *in, void *out, struct lathe_error *err)
{
    (void)in;
    ((struct lathe_message *)out)->bytes = sizeof(struct lathe_message);
    return *(int *)self ? lathe_fail(err, LATHE_ERANGE, "as told") : LATHE_OK;
}

static void open_fixture(struct fixture *f, bool hops)
{
    const char *folders[] = { TEST_PLUGINS, NULL };
    struct lathe_error err = { 0 };
    memset(f, 0, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/lathe_bus_watch_%d.db", (int)getpid());
    unlink(f->path);
    struct recorder_params params = { .path = f->path };
    struct run_info info = { .label = "watched", .seed_index = -1, .dirty = -1, .clock = "real" };
    if (registry_open(folders, &f->registry, &err) || instance_create(f->registry, LATHE_KIND_BUS, "sync", NULL, 0, &f->bus, &err) ||
        recorder_open(&params, &f->recorder, &err) || recorder_run_begin(f->recorder, &info, &f->run, &err) ||
        recorder_producer(f->run, &f->producer, &err))
        fail_msg("%s", err.message);
    clock_start(&f->clock, CLOCK_KIND_REAL);
    instance_attach(f->bus, &f->clock, f->producer);
    bus_watch_open(&f->watch, f->bus, &f->clock, f->producer, hops);
}

static sqlite3 *close_recorder(struct fixture *f)
{
    struct lathe_error err = { 0 };
    sqlite3 *db;
    bus_watch_close(&f->watch);
    if (recorder_run_end(f->run, "done", &err) || recorder_close(f->recorder, &err))
        fail_msg("%s", err.message);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    return db;
}

static void close_fixture(struct fixture *f, sqlite3 *db)
{
    sqlite3_close(db);
    instance_destroy(f->bus);
    registry_close(f->registry);
    unlink(f->path);
}

static int64_t ask(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static void calls(struct fixture *f, int count, int *status)
{
    static struct lathe_service_method methods[1];
    static struct lathe_service service;
    const struct lathe_bus_api *api = f->bus->api;
    const struct lathe_endpoint *endpoint;
    struct lathe_message in = { .capacity = sizeof in, .bytes = sizeof in, .correlation = 99 }, out = { .capacity = sizeof out };
    struct lathe_error err = { 0 };
    methods[0] = (struct lathe_service_method){ .name = "answer", .function = answer, .self = status };
    service = (struct lathe_service){ .size = sizeof service, .name = "desk", .methods = methods, .method_count = 1, .workers = 1 };
    if (api->add_service(f->bus->self, &service, &err) || api->resolve(f->bus->self, "desk.answer", &endpoint, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < count; i++) {
        f->watch.step = (uint64_t)i + 1;
        endpoint->call(endpoint->self, &in, &out, &err);
    }
    assert_int_equal(api->remove_service(f->bus->self, "desk", &err), LATHE_OK);
}

static void writes_a_row_for_each_hop(void **state)
{
    struct fixture f;
    int status = 0;
    (void)state;
    open_fixture(&f, true);
    calls(&f, 10, &status);
    status = 1;
    calls(&f, 3, &status);
    sqlite3 *db = close_recorder(&f);
    assert_int_equal(ask(db, "select count(*) from hop"), 13);
    assert_int_equal(ask(db, "select count(distinct id) from hop"), 13);
    assert_int_equal(ask(db, "select count(*) from hop where status = -7"), 3);
    assert_int_equal(ask(db, "select count(*) from hop where endpoint = 'desk.answer' and correlation_id = 99"), 13);
    assert_int_equal(ask(db, "select count(*) from hop where sent_ns > started_ns or started_ns > ended_ns or sent_ns <= 0"), 0);
    assert_int_equal(ask(db, "select max(step_id) from hop"), 10);
    assert_int_equal(ask(db, "select sum(calls) from endpoint_latency"), 13);
    close_fixture(&f, db);
}

static void writes_no_hop_unless_told_to(void **state)
{
    struct fixture f;
    int status = 0;
    (void)state;
    open_fixture(&f, false);
    calls(&f, 10, &status);
    sqlite3 *db = close_recorder(&f);
    assert_int_equal(ask(db, "select count(*) from hop"), 0);
    close_fixture(&f, db);
}

static void *tell_from_afar(void *watch)
{
    for (int i = 0; i < 10; i++)
        bus_watch_tell(watch, "model", 1, "worker_died", "killed");
    return NULL;
}

static void writes_events_of_any_thread_when_drained(void **state)
{
    struct fixture f;
    pthread_t threads[3];
    (void)state;
    open_fixture(&f, false);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, tell_from_afar, &f.watch);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    bus_watch_tell(&f.watch, "model", 1, "worker_ready", "");
    bus_watch_drain(&f.watch);
    sqlite3 *db = close_recorder(&f);
    assert_int_equal(ask(db, "select count(*) from service_event where what = 'worker_died' and worker = 1"), 30);
    assert_int_equal(ask(db, "select count(*) from service_event where detail is null"), 1);
    assert_int_equal(ask(db, "select count(*) from how_long_was_a_worker_gone where gone_ms > 0 and why = 'killed'"), 30);
    close_fixture(&f, db);
}

static void counts_events_that_found_the_list_full(void **state)
{
    struct fixture f;
    (void)state;
    open_fixture(&f, false);
    for (int i = 0; i < BUS_WATCH_EVENTS + 7; i++)
        bus_watch_tell(&f.watch, "a service whose name is longer than the list has room for, by far and away", 0, "scaled", "");
    assert_int_equal(atomic_load(&f.watch.lost), 7);
    sqlite3 *db = close_recorder(&f);
    assert_int_equal(ask(db, "select count(*) from service_event"), BUS_WATCH_EVENTS);
    close_fixture(&f, db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_a_row_for_each_hop),
        cmocka_unit_test(writes_no_hop_unless_told_to),
        cmocka_unit_test(writes_events_of_any_thread_when_drained),
        cmocka_unit_test(counts_events_that_found_the_list_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

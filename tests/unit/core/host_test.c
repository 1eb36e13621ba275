/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "host.h"
#include "recorder.h"

static void memory_is_zeroed_and_aligned(void **state)
{
    struct lathe_host host;
    struct host_context *context = host_context_create("kind/name", NULL, &host);
    (void)state;
    for (size_t align = 1; align <= 4096; align *= 2)
        for (size_t bytes = 0; bytes < 300; bytes += 77) {
            unsigned char *p = host.alloc(host.context, bytes, align);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % align, 0);
            for (size_t i = 0; i < bytes; i++)
                assert_int_equal(p[i], 0);
            memset(p, 0xEE, bytes);
            host.free(host.context, p);
        }
    unsigned char *p = host.alloc(host.context, 1, 0);
    assert_int_equal((uintptr_t)p % 16, 0);
    host.free(host.context, p);
    host.free(host.context, NULL);
    host_context_destroy(context);
}

static void large_memory_is_zeroed_aligned_and_given_back(void **state)
{
    struct lathe_host host;
    struct host_context *context = host_context_create("kind/name", NULL, &host);
    uint64_t live = host_alloc_live();
    (void)state;
    for (size_t megabytes = 3; megabytes <= 9; megabytes++)
        for (size_t align = 16; align <= (size_t)4 << 20; align <<= 6) {
            size_t bytes = megabytes << 20;
            unsigned char *p = host.alloc(host.context, bytes, align);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % align, 0);
            for (size_t i = 0; i < bytes; i += 4096)
                assert_int_equal(p[i], 0);
            assert_int_equal(p[bytes - 1], 0);
            p[0] = p[bytes - 1] = 1;
            host.free(host.context, p);
        }
    assert_int_equal(host_alloc_live(), live);
    host_context_destroy(context);
}

static void what_is_packed_lies_side_by_side_zeroed_and_is_given_back(void **state)
{
    enum { PIECES = 3000 };
    static unsigned char *pieces[PIECES];
    uint64_t live = host_alloc_live();
    unsigned char *large;
    uintptr_t near = 0;
    (void)state;
    for (int round = 0; round < 3; round++) {
        host_pack(1);
        for (size_t i = 0; i < PIECES; i++) { /* some 18 MiB: several packs */
            size_t bytes = 1 + i % 97 * 128;
            pieces[i] = host_take(bytes);
            assert_non_null(pieces[i]);
            assert_int_equal((uintptr_t)pieces[i] % 64, 0);
            for (size_t k = 0; k < bytes; k++)
                assert_int_equal(pieces[i][k], 0);
            memset(pieces[i], 0xEE, bytes);
            near += i > 0 && (uintptr_t)pieces[i] / (8 << 20) == (uintptr_t)pieces[i - 1] / (8 << 20);
        }
        large = host_take(300 << 10);
        host_pack(0);
        assert_non_null(large);
        memset(large, 0xEE, 300 << 10);
        for (size_t i = 0; i < PIECES; i++)
            host_give(pieces[i * 7 % PIECES]); /* 7 and 3000 have no common divisor */
        host_give(large);
        host_give(NULL);
    }
#ifndef __SANITIZE_ADDRESS__
    assert_true(near > 3 * (PIECES - 8));
#endif
    assert_int_equal(host_alloc_live(), live);
}

static void sizes_and_alignments_that_make_no_sense_give_null(void **state)
{
    struct lathe_host host;
    struct host_context *context = host_context_create("kind/name", NULL, &host);
    (void)state;
    assert_null(host.alloc(host.context, SIZE_MAX, 0));
    assert_null(host.alloc(host.context, SIZE_MAX - 40, 64));
    assert_null(host.alloc(host.context, 8, (size_t)1 << 63));
    assert_null(host.alloc(host.context, 8, 48));
    assert_null(lathe_alloc_array(&host, SIZE_MAX / 4, 8));
    host_context_destroy(context);
}

static void the_asked_for_allocation_fails_and_only_that(void **state)
{
    struct lathe_host host;
    struct host_context *context = host_context_create("kind/name", NULL, &host);
    uint64_t live = host_alloc_live(), count = host_alloc_count();
    (void)state;
    host_fail_alloc_after(2);
    void *a = lathe_alloc(&host, 8), *b = lathe_alloc(&host, 8);
    assert_true(a && b && host_fail_alloc_pending());
    assert_null(lathe_alloc(&host, 8));
    assert_false(host_fail_alloc_pending());
    void *c = lathe_alloc(&host, 8);
    assert_non_null(c);
    assert_int_equal(host_alloc_live(), live + 3);
    assert_int_equal(host_alloc_count(), count + 3);
    lathe_free(&host, a);
    lathe_free(&host, b);
    lathe_free(&host, c);
    assert_int_equal(host_alloc_live(), live);
    host_context_destroy(context);
}

static void the_clock_is_the_runs_once_attached(void **state)
{
    struct lathe_host host;
    struct clock clock;
    struct host_context *context = host_context_create("kind/name", NULL, &host);
    (void)state;
    assert_true(host.now_ns(host.context) >= 0);
    clock_start(&clock, CLOCK_KIND_VIRTUAL);
    clock_wait_until(&clock, 12345);
    host_context_attach(context, &clock, NULL);
    assert_int_equal(host.now_ns(host.context), 12345);
    host_context_attach(context, NULL, NULL);
    assert_true(host.now_ns(host.context) != 12345);
    host_context_destroy(context);
}

static void metrics_are_numbered_once_and_bounded(void **state)
{
    struct lathe_host host;
    struct host_context *context = host_context_create("kind/name", NULL, &host);
    char name[16];
    (void)state;
    for (int i = 0; i < HOST_MAX_METRICS; i++) {
        snprintf(name, sizeof name, "figure_%d", i);
        assert_int_equal(host.metric(host.context, name, "tokens", "A figure."), i);
    }
    assert_int_equal(host.metric(host.context, "figure_3", "tokens", "Again."), 3);
    assert_true(host.metric(host.context, "one_too_many", "", "") < 0);
    assert_true(host.metric(host.context, NULL, "", "") < 0);
    assert_int_equal(host_context_metrics(context), HOST_MAX_METRICS);
    assert_string_equal(host_context_metric(context, 5).name, "figure_5");
    host.record(host.context, 3, 1.0); /* nothing records: nothing happens */
    host.record(host.context, -1, 1.0);
    host.record(host.context, 1000, 1.0);
    host_context_destroy(context);
}

static void *roles_of_another_thread(void *roles)
{
    ((uint32_t *)roles)[0] = host_thread_roles();
    host_set_thread_roles(LATHE_THREAD_ENGINE);
    ((uint32_t *)roles)[1] = host_thread_roles();
    return NULL;
}

static void roles_belong_to_a_thread(void **state)
{
    pthread_t thread;
    uint32_t roles[2];
    (void)state;
    assert_true(host_thread_roles() & LATHE_THREAD_MAIN);
    assert_int_equal(pthread_create(&thread, NULL, roles_of_another_thread, roles), 0);
    pthread_join(thread, NULL);
    assert_int_equal(roles[0], LATHE_THREAD_LOADER | LATHE_THREAD_WORKER);
    assert_int_equal(roles[1], LATHE_THREAD_ENGINE);
    assert_true(host_thread_roles() & LATHE_THREAD_MAIN);
}

static void *record_from_a_worker(void *argument)
{
    const struct lathe_host *host = argument;
    host->set_thread_roles(host->context, LATHE_THREAD_WORKER | LATHE_THREAD_ENGINE);
    for (int i = 0; i < HOST_MAX_DEFERRED + 5; i++)
        host->record(host->context, 0, i);
    return NULL;
}

static int rows_of_metric(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "select count(*) from metric where name = 'figure'", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int rows = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return rows;
}

/* The ring is the engine thread's alone. */
static void figures_of_a_worker_thread_wait_until_the_engine_drains_them(void **state)
{
    char path[64];
    struct lathe_host host;
    struct recorder *recorder;
    struct recorder_run *run;
    struct producer *producer;
    struct lathe_error err = { 0 };
    struct clock clock;
    pthread_t thread;
    struct run_info info = { .label = "figures", .seed_index = -1, .dirty = -1, .clock = "real" };
    (void)state;
    snprintf(path, sizeof path, "/tmp/lathe_host_test_%d.db", (int)getpid());
    unlink(path);
    struct recorder_params params = { .path = path };
    struct host_context *context = host_context_create("model/name", NULL, &host);
    if (recorder_open(&params, &recorder, &err) || recorder_run_begin(recorder, &info, &run, &err) ||
        recorder_producer(run, &producer, &err))
        fail_msg("%s", err.message);
    clock_start(&clock, CLOCK_KIND_REAL);
    host_context_attach(context, &clock, producer);
    assert_int_equal(host.metric(host.context, "figure", "", ""), 0);
    assert_int_equal(pthread_create(&thread, NULL, record_from_a_worker, &host), 0);
    pthread_join(thread, NULL);
    assert_int_equal(recorder_flush(recorder, &err), LATHE_OK);
    assert_int_equal(rows_of_metric(path), 0);
    host_context_drain(context);
    host.record(host.context, 0, 1.0); /* this thread's own goes straight in */
    assert_int_equal(recorder_flush(recorder, &err), LATHE_OK);
    assert_int_equal(rows_of_metric(path), HOST_MAX_DEFERRED + 1);
    host_context_destroy(context);
    if (recorder_run_end(run, "done", &err) || recorder_close(recorder, &err))
        fail_msg("%s", err.message);
    unlink(path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(large_memory_is_zeroed_aligned_and_given_back),
        cmocka_unit_test(what_is_packed_lies_side_by_side_zeroed_and_is_given_back),
        cmocka_unit_test(sizes_and_alignments_that_make_no_sense_give_null),
        cmocka_unit_test(the_asked_for_allocation_fails_and_only_that),
        cmocka_unit_test(the_clock_is_the_runs_once_attached),
        cmocka_unit_test(metrics_are_numbered_once_and_bounded),
        cmocka_unit_test(roles_belong_to_a_thread),
        cmocka_unit_test(figures_of_a_worker_thread_wait_until_the_engine_drains_them),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}

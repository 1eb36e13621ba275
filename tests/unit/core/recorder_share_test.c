/* SPDX-License-Identifier: MIT */
/* One recorder a file, for all runs of a process, also for those on threads of their own. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recorder.h"

enum { THREADS = 6, RUNS = 8, EVENTS = 500 };

static char folder[64], path[96];
static struct lathe_error err;

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/recorder_share_XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/x.db", folder);
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-lock" };
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    return rmdir(folder);
}

static struct recorder *borrow(void)
{
    struct recorder_params params = { .path = path };
    struct recorder *recorder = NULL;
    if (recorder_borrow(&params, &recorder, &err))
        print_error("%s\n", err.message);
    return recorder;
}

static int64_t ask(const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return value;
}

static struct recorder_run *begin(struct recorder *recorder, const char *key)
{
    struct run_info info = { .label = "shared", .seed_index = -1, .dirty = -1, .key = key };
    struct recorder_run *run = NULL;
    if (recorder_run_begin(recorder, &info, &run, &err))
        print_error("%s\n", err.message);
    return run;
}

static void a_file_has_one_recorder_until_the_last_gives_it_back(void **state)
{
    (void)state;
    char lock[128];
    snprintf(lock, sizeof lock, "%s-lock", path);
    struct recorder *one = borrow(), *two = borrow();
    assert_non_null(one);
    assert_ptr_equal(one, two);
    struct recorder_params params = { .path = path };
    struct recorder *other = NULL;
    assert_int_equal(recorder_open(&params, &other, &err), LATHE_EBUSY); /* held, as by another process */
    assert_int_equal(recorder_return(one, &err), LATHE_OK);
    assert_int_equal(access(lock, F_OK), 0);
    struct recorder_run *run = begin(two, "k");
    assert_non_null(run);
    assert_int_equal(recorder_run_end(run, "done", &err), LATHE_OK);
    assert_int_equal(ask("SELECT count(*) FROM run WHERE key = 'k' AND state = 'done'"), 1); /* while it is open */
    assert_int_equal(recorder_return(two, &err), LATHE_OK);
    assert_int_not_equal(access(lock, F_OK), 0);
}

static void rings_are_each_runs_own(void **state)
{
    (void)state;
    struct recorder *recorder = borrow();
    struct recorder_run *small = begin(recorder, NULL), *usual = begin(recorder, NULL);
    struct recorder_params wishes = { .bulk_bytes = 1 << 20, .on_full = RECORDER_DROP };
    struct producer *a, *b;
    uint64_t events, rows;
    recorder_run_rings(small, &wishes);
    assert_int_equal(recorder_producer(small, &a, &err), LATHE_OK);
    assert_int_equal(recorder_producer(usual, &b, &err), LATHE_OK);
    assert_true(record_attention_capacity(a) <= 1 << 20);
    assert_true(record_attention_capacity(b) > 1 << 20);
    assert_null(record_attention_reserve(a, 2 << 20));
    recorder_dropped(small, &events, &rows);
    assert_int_equal(rows, 1);
    recorder_dropped(usual, &events, &rows);
    assert_int_equal(rows, 0);
    assert_int_equal(recorder_run_end(small, "done", &err), LATHE_OK);
    assert_int_equal(recorder_run_end(usual, "done", &err), LATHE_OK);
    assert_int_equal(recorder_return(recorder, &err), LATHE_OK);
}

/* Returns what went wrong first, as a number: assertions are the first thread's. */
static void *record_runs(void *user)
{
    struct recorder_params params = { .path = path };
    struct lathe_error own, ignored;
    int *status = user;
    for (int i = 0; i < RUNS && !*status; i++) {
        struct run_info info = { .label = "thread", .seed_index = i, .dirty = -1 };
        struct recorder *recorder;
        struct recorder_run *run;
        struct producer *producer;
        *status = recorder_borrow(&params, &recorder, &own);
        if (*status)
            break;
        *status = recorder_run_begin(recorder, &info, &run, &own);
        if (!*status) {
            *status = recorder_factor(run, "i", "1", &own);
            if (!*status)
                *status = recorder_producer(run, &producer, &own);
            struct record_event event = { .level = "info", .correlation_id = RECORD_NULL };
            for (int j = 0; j < EVENTS && !*status; j++)
                record_event(producer, &event);
            int ended = recorder_run_end(run, "done", &own);
            *status = *status ? *status : ended;
        }
        int closed = recorder_return(recorder, &ignored);
        *status = *status ? *status : closed;
    }
    return NULL;
}

static void runs_of_several_threads_lose_nothing(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int status[THREADS] = { 0 };
    struct recorder *held = borrow();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, record_runs, &status[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(status[i], LATHE_OK);
    assert_int_equal(recorder_return(held, &err), LATHE_OK);
    assert_int_equal(ask("SELECT count(*) FROM run WHERE state = 'done' AND dropped_events = 0"), THREADS * RUNS);
    assert_int_equal(ask("SELECT min(n) FROM (SELECT count(*) AS n FROM event GROUP BY run_id)"), EVENTS);
    assert_int_equal(ask("SELECT count(*) FROM run_factor"), THREADS * RUNS);
}

static void what_cannot_be_opened_is_not_shared(void **state)
{
    (void)state;
    struct recorder_params params = { .path = folder };
    struct recorder *recorder = NULL;
    assert_int_not_equal(recorder_borrow(&params, &recorder, &err), LATHE_OK);
    assert_null(recorder);
    assert_non_null(strstr(err.message, "folder"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_has_one_recorder_until_the_last_gives_it_back),
        TEST(rings_are_each_runs_own),
        TEST(runs_of_several_threads_lose_nothing),
        TEST(what_cannot_be_opened_is_not_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host.h"

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(sizes_and_alignments_that_make_no_sense_give_null),
        cmocka_unit_test(the_asked_for_allocation_fails_and_only_that),
        cmocka_unit_test(the_clock_is_the_runs_once_attached),
        cmocka_unit_test(metrics_are_numbered_once_and_bounded),
        cmocka_unit_test(roles_belong_to_a_thread),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}

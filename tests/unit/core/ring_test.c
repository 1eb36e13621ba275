/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "ring.h"

static struct ring ring;
static struct lathe_error err;

static int close_it(void **state)
{
    (void)state;
    ring_close(&ring);
    return 0;
}

static void put(size_t bytes, int value, int64_t tag)
{
    void *room = ring_reserve(&ring, bytes);
    assert_non_null(room);
    memset(room, value, bytes);
    ring_commit(&ring, bytes, tag);
}

static void take(size_t bytes, int value, int64_t tag)
{
    const void *data;
    const struct ring_record *record = ring_peek(&ring, ring_head(&ring), &data);
    assert_non_null(record);
    assert_int_equal(record->bytes, bytes);
    assert_int_equal(record->tag, tag);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(((const uint8_t *)data)[i], value);
    ring_release(&ring);
}

static void records_come_out_as_they_went_in(void **state)
{
    const void *data;
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, 4096, 16, &err), LATHE_OK);
    assert_null(ring_peek(&ring, ring_head(&ring), &data));
    put(1, 7, -5);
    put(0, 0, 3);
    put(100, 8, INT64_MAX);
    take(1, 7, -5);
    take(0, 0, 3);
    take(100, 8, INT64_MAX);
    assert_null(ring_peek(&ring, ring_head(&ring), &data));
}

static void a_record_over_the_end_is_whole(void **state)
{
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, 4096, 16, &err), LATHE_OK);
    for (int i = 0; i < 1000; i++) { /* 1040 bytes a turn: every place comes up */
        put(1000, i & 255, i);
        put(8, 1, i);
        take(1000, i & 255, i);
        take(8, 1, i);
    }
}

static void a_record_may_fill_the_ring_wherever_it_begins(void **state)
{
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, SIZE_MAX, 64, &err), LATHE_OK);
    assert_int_equal(ring.largest, 4096 - 64);
    for (int i = 0; i < 100; i++) {
        put(64 * (size_t)(i % 7), 2, i);
        take(64 * (size_t)(i % 7), 2, i);
        put(ring.largest, i & 255, i);
        assert_null(ring_reserve(&ring, 0)); /* full: not even a header */
        take(ring.largest, i & 255, i);
    }
}

static void data_is_aligned_as_asked(void **state)
{
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, 4096, 64, &err), LATHE_OK);
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal((uintptr_t)ring_reserve(&ring, i) % 64, 0);
        put(i, 1, 0);
        take(i, 1, 0);
    }
}

static void full_is_null_and_makes_room_again(void **state)
{
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, 4096, 16, &err), LATHE_OK);
    assert_null(ring_reserve(&ring, 4096)); /* never fits: its header doesn't */
    assert_null(ring_reserve(&ring, SIZE_MAX));
    assert_false(ring_is_half_full(&ring));
    int n = 0;
    while (ring_reserve(&ring, 48)) {
        put(48, n, n);
        n++;
        assert_int_equal(ring_is_half_full(&ring), n * 64 > 2048);
    }
    assert_int_equal(n, 64);
    take(48, 0, 0);
    assert_non_null(ring_reserve(&ring, 48));
    assert_null(ring_reserve(&ring, 49));
}

static void less_may_be_committed_than_was_reserved(void **state)
{
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, 4096, 16, &err), LATHE_OK);
    memset(ring_reserve(&ring, 2000), 9, 2000);
    ring_commit(&ring, 10, 1);
    put(2000, 3, 2);
    take(10, 9, 1);
    take(2000, 3, 2);
}

static void a_bound_hides_what_came_after_it(void **state)
{
    const void *data;
    (void)state;
    assert_int_equal(ring_open(&ring, 4096, 4096, 16, &err), LATHE_OK);
    put(8, 1, 1);
    uint64_t bound = ring_head(&ring);
    put(8, 2, 2);
    assert_non_null(ring_peek(&ring, bound, &data));
    ring_release(&ring);
    assert_null(ring_peek(&ring, bound, &data));
    take(8, 2, 2);
}

static void too_much_memory_is_refused(void **state)
{
    (void)state;
    assert_int_equal(ring_open(&ring, SIZE_MAX, SIZE_MAX, 64, &err), LATHE_ENOMEM);
}

/* Two threads, records of every length; each byte is checked, so an early or torn read shows. */
enum { STRESS = 200000 };

static uint32_t length_of(uint32_t i)
{
    return (i * 2654435761u >> 7) % 700;
}

static void *produce(void *unused)
{
    for (uint32_t i = 0; i < STRESS; i++) {
        uint8_t *room;
        while (!(room = ring_reserve(&ring, length_of(i))))
            sched_yield();
        memset(room, (int)(i & 255), length_of(i));
        ring_commit(&ring, length_of(i), i);
    }
    return unused;
}

static void two_threads_lose_and_tear_nothing(void **state)
{
    pthread_t thread;
    const void *data;
    uint64_t wrong = 0;
    (void)state;
    assert_int_equal(ring_open(&ring, 8192, 1024, 16, &err), LATHE_OK);
    assert_int_equal(pthread_create(&thread, NULL, produce, NULL), 0);
    for (uint32_t i = 0; i < STRESS; i++) {
        const struct ring_record *record;
        while (!(record = ring_peek(&ring, ring_head(&ring), &data)))
            sched_yield();
        wrong += record->tag != i || record->bytes != length_of(i);
        for (size_t k = 0; k < record->bytes; k++)
            wrong += ((const uint8_t *)data)[k] != (i & 255);
        ring_release(&ring);
    }
    pthread_join(thread, NULL);
    assert_int_equal(wrong, 0);
}

#define TEST(name) cmocka_unit_test_teardown(name, close_it)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(records_come_out_as_they_went_in),
        TEST(a_record_over_the_end_is_whole),
        TEST(a_record_may_fill_the_ring_wherever_it_begins),
        TEST(data_is_aligned_as_asked),
        TEST(full_is_null_and_makes_room_again),
        TEST(less_may_be_committed_than_was_reserved),
        TEST(a_bound_hides_what_came_after_it),
        TEST(too_much_memory_is_refused),
        TEST(two_threads_lose_and_tear_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The heap of replicas against a plain search of an array, through random moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "simulate_heap.h"

enum { MOST = 300, MOVES = 200000 };

static uint64_t roll(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static uint32_t first_of(const struct event_entry *entries, uint32_t count)
{
    uint32_t first = 0;
    for (uint32_t i = 1; i < count; i++)
        if (heap_before(&entries[i], &entries[first]))
            first = i;
    return first;
}

static void compare(uint32_t replicas, uint32_t moves, uint64_t seed)
{
    struct event_entry by_replica[MOST];
    struct event_heap heap;
    struct lathe_error err;
    uint64_t state = seed;
    assert_int_equal(heap_open(&heap, replicas, &err), LATHE_OK);
    for (uint32_t i = 0; i < replicas; i++)
        by_replica[i] = (struct event_entry){ INT64_MAX, (uint64_t)EVENT_BEGIN << 32 | i };
    for (uint32_t m = 0; m < moves; m++) {
        uint32_t replica = roll(&state) % 3 ? (uint32_t)(roll(&state) % replicas) : heap_top(&heap);
        int64_t at = roll(&state) % 10 ? (int64_t)(roll(&state) % 50) : INT64_MAX; /* few times: many ties */
        int kind = roll(&state) % 2 ? EVENT_FINISH : EVENT_BEGIN;
        heap_set(&heap, replica, at, kind);
        by_replica[replica] = (struct event_entry){ at, (uint64_t)kind << 32 | replica };
        uint32_t first = first_of(by_replica, replicas);
        assert_int_equal(heap_top(&heap), first);
        assert_int_equal(heap_time(&heap), by_replica[first].at_ns);
        assert_int_equal(heap_kind(&heap), by_replica[first].order >> 32);
        assert_int_equal(heap_time_of(&heap, replica), at);
    }
    for (uint32_t i = 0; i < replicas; i++) /* each has its one entry still */
        assert_int_equal(heap_time_of(&heap, i), by_replica[i].at_ns);
    heap_close(&heap);
}

static void the_top_is_what_a_search_finds(void **state)
{
    static const uint32_t sizes[] = { 1, 2, 4, 5, 6, 21, 64, MOST };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        compare(sizes[i], sizes[i] > 64 ? MOVES / 20 : MOVES / 8, 0x9e3779b97f4a7c15u + i);
}

static void steps_end_before_others_begin_and_replicas_go_by_number(void **state)
{
    struct event_heap heap;
    struct lathe_error err;
    (void)state;
    assert_int_equal(heap_open(&heap, 4, &err), LATHE_OK);
    assert_int_equal(heap_time(&heap), INT64_MAX);
    heap_set(&heap, 3, 7, EVENT_FINISH);
    heap_set(&heap, 0, 7, EVENT_BEGIN);
    heap_set(&heap, 2, 7, EVENT_FINISH);
    heap_set(&heap, 1, 8, EVENT_FINISH);
    static const uint32_t order[] = { 2, 3, 0, 1 };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heap_top(&heap), order[i]);
        heap_set(&heap, heap_top(&heap), INT64_MAX, EVENT_BEGIN);
    }
    assert_int_equal(heap_time(&heap), INT64_MAX);
    heap_close(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_top_is_what_a_search_finds),
        cmocka_unit_test(steps_end_before_others_begin_and_replicas_go_by_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

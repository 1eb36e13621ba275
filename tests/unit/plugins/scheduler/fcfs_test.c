/* SPDX-License-Identifier: MIT */
/* scheduler/fcfs, and with it what all schedulers on the lineup share: who runs and who waits, and
 * how much of it is ranked. */
#include "tiny_engine.h"

static void first_planned_is_first_served(void **state)
{
    struct tiny t;
    struct lathe_request late = sized(5, 5), early = sized(5, 5);
    (void)state;
    tiny_open(&t, "fcfs", NULL, 1);
    late.planned_ns = 20;
    early.planned_ns = 10;
    tiny_add(&t, late);
    tiny_add(&t, early);
    tiny_add(&t, early);
    assert_string_equal(tiny_order(&t), "2 3 1");
    tiny_close(&t);
}

static void all_that_run_and_no_more_of_the_rest_than_wanted(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "fcfs", NULL, 3);
    for (int i = 0; i < 10; i++)
        tiny_add(&t, sized(5, 50));
    tiny_step(&t);
    t.wanted = 1;
    assert_string_equal(tiny_order(&t), "1 2 3 4");
    t.wanted = 5;
    assert_string_equal(tiny_order(&t), "1 2 3 4 5 6 7 8");
    t.wanted = 0;
    assert_string_equal(tiny_order(&t), "1 2 3 4 5 6 7 8 9 10");
    tiny_close(&t);
}

static void a_preempted_one_is_the_first_that_waits(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "fcfs", NULL, 2);
    for (int i = 0; i < 4; i++)
        tiny_add(&t, sized(5, 50));
    tiny_step(&t);
    assert_int_equal(t.api->victim(t.self, &t.view, t.live[0])->id, 2);
    assert_int_equal(t.api->victim(t.self, &t.view, t.live[1])->id, 2); /* itself: 1 is before it */
    tiny_preempt(&t.requests[1]);
    t.wanted = 1;
    assert_string_equal(tiny_order(&t), "1 2");
    assert_null(t.api->victim(t.self, &t.view, t.live[0])); /* alone */
    assert_int_equal(t.api->victim(t.self, &t.view, t.live[1])->id, 1);
    tiny_close(&t);
}

/* Its first step failed: it runs, and no progress said so. */
static void one_that_runs_unheard_is_seen(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "fcfs", NULL, 1);
    for (int i = 0; i < 5; i++)
        tiny_add(&t, sized(5, 50));
    t.requests[3].state = LATHE_REQUEST_RUNNING;
    t.wanted = 1;
    assert_string_equal(tiny_order(&t), "4 1");
    tiny_close(&t);
}

static void an_index_in_use_is_refused_with_a_sentence(void **state)
{
    struct tiny t;
    struct lathe_request twin, far;
    (void)state;
    tiny_open(&t, "fcfs", NULL, 1);
    twin = *tiny_add(&t, sized(5, 5));
    assert_int_equal(t.api->admit(t.self, &t.requests[0], &t.err), LATHE_OK); /* itself, again */
    assert_int_equal(t.api->admit(t.self, &twin, &t.err), LATHE_EINTERNAL);
    assert_non_null(strstr(t.err.message, "index 0"));
    far = twin;
    far.index = MOST;
    assert_int_equal(t.api->admit(t.self, &far, &t.err), LATHE_EFULL);
    assert_string_equal(tiny_order(&t), "1");
    tiny_close(&t);
}

static void binds_once(void **state)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = 4 };
    struct tiny t;
    (void)state;
    tiny_open(&t, "fcfs", NULL, 1);
    assert_int_equal(t.api->bind(t.self, &limits, &t.err), LATHE_ESTATE);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_planned_is_first_served),
        cmocka_unit_test(all_that_run_and_no_more_of_the_rest_than_wanted),
        cmocka_unit_test(a_preempted_one_is_the_first_that_waits),
        cmocka_unit_test(one_that_runs_unheard_is_seen),
        cmocka_unit_test(an_index_in_use_is_refused_with_a_sentence),
        cmocka_unit_test(binds_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* scheduler/vtc: the bound of Sheng et al. (2024), its lift, weights, and what is charged. */
#include "tiny_engine.h"

enum { PLACES = 4, LONG = 200, LONG_OUTPUT = 50, SHORT = 20, SHORT_OUTPUT = 10, BACKLOG = 5 };

static void keep_waiting(struct tiny *t, uint32_t tenant, uint32_t weight)
{
    struct lathe_request shape = tenant == 0 ? sized(LONG, LONG_OUTPUT) : sized(SHORT, SHORT_OUTPUT);
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < MOST; i++)
        waiting += t->requests[i].state == LATHE_REQUEST_WAITING && t->requests[i].tenant == tenant;
    shape.tenant = tenant;
    shape.weight = weight;
    for (; waiting < BACKLOG; waiting++)
        tiny_add(t, shape);
}

static double service(const struct tiny *t, uint32_t tenant)
{
    return (double)t->prompt_got[tenant] + 2.0 * (double)t->output_got[tenant];
}

/* The largest difference of service that two tenants, both with requests waiting all along, had between
 * any two times. */
static double unfairness(const char *name)
{
    struct tiny t;
    double least = 0.0, most = 0.0;
    tiny_open(&t, name, NULL, PLACES);
    for (int i = 0; i < 3000; i++) {
        double difference;
        keep_waiting(&t, 0, 0);
        keep_waiting(&t, 1, 0);
        tiny_step(&t);
        difference = service(&t, 0) - service(&t, 1);
        least = difference < least ? difference : least;
        most = difference > most ? difference : most;
    }
    tiny_close(&t);
    return most - least;
}

static void two_backlogged_tenants_differ_by_no_more_than_the_bound(void **state)
{
    double w_p = 1, w_q = 2, batch = PLACES * (LONG + LONG_OUTPUT);
    double bound = 2 * (w_p * LONG > w_q * batch ? w_p * LONG : w_q * batch);
    (void)state;
    assert_true(unfairness("vtc") <= bound);
    assert_true(unfairness("fcfs") > bound); /* the bound says something */
}

static void a_tenant_gets_its_weight(void **state)
{
    struct tiny t;
    (void)state;
    tiny_open(&t, "vtc", NULL, PLACES);
    for (int i = 0; i < 4000; i++) {
        keep_waiting(&t, 0, 3000);
        keep_waiting(&t, 1, 1000);
        tiny_step(&t);
    }
    assert_float_equal(service(&t, 0) / service(&t, 1), 3.0, 0.2);
    tiny_close(&t);
}

/* Tenant 1 was away while 0 was served: it comes back level with it, not far behind. */
static void idleness_is_not_saved_up(void **state)
{
    struct tiny t;
    double before;
    (void)state;
    tiny_open(&t, "vtc", NULL, PLACES);
    for (int i = 0; i < 500; i++) {
        keep_waiting(&t, 0, 0);
        tiny_step(&t);
    }
    before = service(&t, 0);
    assert_true(before > 10000);
    for (int i = 0; i < 1000; i++) {
        keep_waiting(&t, 0, 0);
        keep_waiting(&t, 1, 0);
        tiny_step(&t);
    }
    assert_float_equal((service(&t, 0) - before) / service(&t, 1), 1.0, 0.2);
    tiny_close(&t);
}

static void a_newcomer_is_lifted_to_the_last_that_left_when_nobody_waits(void **state)
{
    struct tiny t;
    struct lathe_request shape = sized(10, 30), *r;
    (void)state;
    tiny_open(&t, "vtc", NULL, 2);
    tiny_add(&t, shape);
    tiny_steps(&t, 5); /* 10 + 5 · 2 */
    shape.tenant = 1;
    r = tiny_add(&t, shape);
    assert_string_equal(tiny_why(&t, r), "vtc: waits, tenant 1's counter is 20.0, the smallest of those who wait 20.0");
    tiny_close(&t);
}

static void nothing_is_charged_twice(void **state)
{
    struct tiny t;
    struct lathe_request *r;
    (void)state;
    tiny_open(&t, "vtc", NULL, 1);
    t.chunk = 8;
    r = tiny_add(&t, sized(20, 30));
    tiny_steps(&t, 2);
    assert_string_equal(tiny_why(&t, r), "vtc: runs, tenant 0's counter is 16.0, nobody waits");
    tiny_steps(&t, 3); /* 4 of the prompt and a token; two tokens */
    assert_string_equal(tiny_why(&t, r), "vtc: runs, tenant 0's counter is 26.0, nobody waits");
    tiny_preempt(r);
    tiny_steps(&t, 3); /* 23 tokens again, in three pieces; the last gives a token */
    assert_string_equal(tiny_why(&t, r), "vtc: runs, tenant 0's counter is 28.0, nobody waits");
    tiny_close(&t);
}

static void cached_tokens_are_charged_by_choice(void **state)
{
    struct tiny t;
    (void)state;
    for (int charged = 0; charged < 2; charged++) {
        tiny_open(&t, "vtc", charged ? "charge_cached=true,w_q=0" : "charge_cached=false,w_q=0", 1);
        struct lathe_request *r = tiny_add(&t, sized(100, 10));
        r->computed_tokens = 60; /* as the engine does when the cache had them */
        tiny_step(&t);
        assert_string_equal(tiny_why(&t, r), charged ? "vtc: runs, tenant 0's counter is 100.0, nobody waits"
                                                     : "vtc: runs, tenant 0's counter is 40.0, nobody waits");
        tiny_close(&t);
    }
}

static void one_of_a_tenant_far_ahead_is_overtaken_by_choice(void **state)
{
    struct tiny t;
    struct lathe_request shape = sized(10, 90);
    (void)state;
    for (int margin = 0; margin < 2; margin++) {
        tiny_open(&t, "vtc", margin ? "preempt_margin=20" : NULL, 1);
        tiny_add(&t, shape);
        tiny_step(&t);
        shape.tenant = 1; /* lifted to 12 */
        tiny_add(&t, shape);
        shape.tenant = 0;
        tiny_steps(&t, 10); /* 0 is at 32: not more than 20 ahead */
        assert_string_equal(tiny_order(&t), "1 2");
        tiny_step(&t);
        assert_string_equal(tiny_order(&t), margin ? "2 1" : "1 2");
        tiny_close(&t);
    }
}

static void tenants_beyond_the_counters_are_safe(void **state)
{
    struct tiny t;
    struct lathe_request shape = sized(3, 3);
    (void)state;
    tiny_open(&t, "vtc", NULL, 2);
    for (uint32_t i = 0; i < 20; i++) {
        shape.tenant = i * 123456789u;
        tiny_add(&t, shape);
    }
    tiny_steps(&t, 100);
    assert_string_equal(tiny_order(&t), "");
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_backlogged_tenants_differ_by_no_more_than_the_bound),
        cmocka_unit_test(a_tenant_gets_its_weight),
        cmocka_unit_test(idleness_is_not_saved_up),
        cmocka_unit_test(a_newcomer_is_lifted_to_the_last_that_left_when_nobody_waits),
        cmocka_unit_test(nothing_is_charged_twice),
        cmocka_unit_test(cached_tokens_are_charged_by_choice),
        cmocka_unit_test(one_of_a_tenant_far_ahead_is_overtaken_by_choice),
        cmocka_unit_test(tenants_beyond_the_counters_are_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

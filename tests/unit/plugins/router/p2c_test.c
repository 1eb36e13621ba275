/* SPDX-License-Identifier: MIT */
/* Power of d choices: the mean time in the system is the supermarket model's. */
#include "fixture.h"

/* Σ λ^((d^i − d) / (d − 1)), i = 1, 2, …; d = 1: 1 / (1 − λ). Mitzenmacher 2001. */
static double supermarket(double load, double d)
{
    double sum = 0;
    if (d == 1)
        return 1 / (1 - load);
    for (int i = 1; i < 30; i++)
        sum += pow(load, (pow(d, i) - d) / (d - 1));
    return sum;
}

static double measured(const char *d, double load, double span)
{
    struct fleet *f = fleet_open("p2c", 500, (const char *const[]){ "d", d, NULL });
    double mean = fleet_mean_time(f, load, span);
    fleet_close(f);
    return mean;
}

static void times_are_the_supermarket_models(void **state)
{
    (void)state;
    near(supermarket(0.9, 2), 2.614, 0.001, "the formula, d = 2");
    near(supermarket(0.9, 3), 2.028, 0.001, "the formula, d = 3");
    near(measured("2", 0.9, 600), 2.614, 0.03, "two choices at load 0.9");
    near(measured("3", 0.9, 600), 2.028, 0.03, "three choices at load 0.9");
    near(measured("1", 0.7, 600), supermarket(0.7, 1), 0.04, "one choice at load 0.7");
    near(measured("2", 0.7, 600), supermarket(0.7, 2), 0.03, "two choices at load 0.7");
}

static void two_replicas_are_both_looked_at(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("p2c", 2, NULL);
    for (int i = 0; i < 1000; i++) {
        fleet_route(f, (struct lathe_request){ 0 });
        assert_in_range(f->r[0].waiting + 1 - f->r[1].waiting, 0, 2);
    }
    fleet_close(f);
}

static void load_is_what_the_option_says(void **state)
{
    (void)state;
    for (int tokens = 0; tokens < 2; tokens++) {
        struct fleet *f = fleet_open("p2c", 2, (const char *const[]){ "load", tokens ? "tokens" : "requests", NULL });
        f->r[0].waiting = 1, f->r[0].pending_tokens = 9000;
        f->r[1].waiting = 2, f->r[1].pending_tokens = 10;
        assert_int_equal(fleet_route(f, (struct lathe_request){ 0 }), tokens);
        fleet_close(f);
    }
}

/* Else sizes, which the formula's router doesn't know, would choose among queues of one length. */
static void equals_are_told_apart_by_the_draw_alone(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("p2c", 2, NULL);
    int first = 0;
    for (int i = 0; i < 1000; i++) {
        f->r[0].waiting = f->r[1].waiting = 1;
        f->r[0].pending_tokens = 9000, f->r[1].pending_tokens = 10;
        first += fleet_route(f, (struct lathe_request){ 0 }) == 0;
    }
    assert_in_range(first, 430, 570);
    fleet_close(f);
}

static void those_that_are_ready_are_compared(void **state)
{
    (void)state;
    struct fleet *f = fleet_open("p2c", 1000, NULL);
    for (uint32_t i = 0; i < 1000; i++)
        f->r[i].ready = i == 700 || i == 3;
    for (int i = 0; i < 500; i++)
        fleet_route(f, (struct lathe_request){ 0 });
    assert_in_range(f->r[3].waiting, 200, 300);
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_the_supermarket_models),
        cmocka_unit_test(two_replicas_are_both_looked_at),
        cmocka_unit_test(load_is_what_the_option_says),
        cmocka_unit_test(equals_are_told_apart_by_the_draw_alone),
        cmocka_unit_test(those_that_are_ready_are_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

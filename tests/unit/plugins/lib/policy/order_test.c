/* SPDX-License-Identifier: MIT */
/* plugins/lib/policy/order: against a sorted array, under random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include <lathe/random.h>
#include <policy/order.h>

#include "support/counting_host.h"

enum { INDEXES = 300, OPERATIONS = 100000 };

static uint32_t dice;

static uint32_t roll(uint32_t below)
{
    return (uint32_t)(lathe_random_u64(77, LATHE_RANDOM_USER, 0, dice++) % below);
}

struct model {
    struct order_place places[INDEXES];
    const struct lathe_request *sorted[INDEXES];
    uint32_t count;
};

static void model_remove(struct model *m, const struct lathe_request *req)
{
    uint32_t at = 0;
    while (m->sorted[at] != req)
        at++;
    m->count--;
    memmove(m->sorted + at, m->sorted + at + 1, (m->count - at) * sizeof *m->sorted);
}

static void model_insert(struct model *m, const struct lathe_request *req, struct order_key key)
{
    uint32_t at = m->count++;
    m->places[req->index] = (struct order_place){ key, req->planned_ns, req->id };
    for (; at > 0 && order_before(&m->places[req->index], &m->places[m->sorted[at - 1]->index]); at--)
        m->sorted[at] = m->sorted[at - 1];
    m->sorted[at] = req;
}

static void expect_equal(const struct order *o, const struct model *m)
{
    uint32_t n = 0;
    assert_int_equal(o->count, m->count);
    for (uint32_t i = order_first(o); i != order_end(o); i = order_next(o, i))
        assert_ptr_equal(o->links[i].req, m->sorted[n++]);
    assert_int_equal(n, m->count);
    for (uint32_t i = order_last(o); i != order_end(o); i = order_prev(o, i))
        assert_ptr_equal(o->links[i].req, m->sorted[--n]);
    assert_int_equal(n, 0);
}

static void is_a_sorted_array_under_random_operations(void **state)
{
    static struct lathe_request requests[INDEXES];
    static struct model m;
    struct counting_host host;
    struct order o;
    uint64_t next_id = 0;
    (void)state;
    assert_int_equal(order_open(&o, counting_host_init(&host), INDEXES), LATHE_OK);
    size_t calls = host.calls;
    for (int i = 0; i < OPERATIONS; i++) {
        struct lathe_request *r = &requests[roll(INDEXES)];
        struct order_key key = { roll(20), roll(3) ? 0 : roll(5) }; /* few keys: many ties */
        if (!order_contains(&o, r)) {
            *r = (struct lathe_request){ .index = (uint32_t)(r - requests), .id = ++next_id, .planned_ns = roll(10) };
            order_insert(&o, r, key);
            model_insert(&m, r, key);
        } else if (roll(2)) {
            order_remove(&o, r->index);
            model_remove(&m, r);
        } else {
            if (roll(2)) /* as keys move with each token */
                key = (struct order_key){ m.places[r->index].key.major - 1, m.places[r->index].key.minor };
            order_update(&o, r->index, key);
            model_remove(&m, r);
            model_insert(&m, r, key);
        }
        assert_int_equal(order_contains(&o, r), m.count && o.links[r->index].req == r);
        if (i % 50 == 0)
            expect_equal(&o, &m);
    }
    expect_equal(&o, &m);
    while (m.count) {
        const struct lathe_request *r = m.sorted[roll(m.count)];
        order_remove(&o, r->index);
        model_remove(&m, r);
    }
    expect_equal(&o, &m);
    assert_int_equal(host.calls, calls); /* memory is taken when it is opened, only */
    order_close(&o);
    assert_int_equal(host.live_blocks, 0);
}

static void contains_the_request_not_its_index(void **state)
{
    struct counting_host host;
    struct order o;
    struct lathe_request a = { .index = 3, .id = 1 }, b = { .index = 3, .id = 2 }, far = { .index = 9 };
    (void)state;
    assert_int_equal(order_open(&o, counting_host_init(&host), 4), LATHE_OK);
    order_insert(&o, &a, (struct order_key){ 0, 0 });
    assert_true(order_contains(&o, &a));
    assert_false(order_contains(&o, &b));
    assert_false(order_contains(&o, &far));
    order_close(&o);
}

static void numbers_keep_their_order(void **state)
{
    static const double ascending[] = { -HUGE_VAL, -1e300, -2.0, -1.0, -1e-300, 0.0, 1e-300, 0.5, 1.0, 3.0, HUGE_VAL };
    (void)state;
    for (size_t i = 1; i < sizeof ascending / sizeof *ascending; i++)
        assert_true(order_number(ascending[i - 1]) < order_number(ascending[i]));
    assert_true(order_number(-0.0) == order_number(0.0));
}

static void gives_back_what_it_took_when_memory_runs_out(void **state)
{
    struct counting_host host;
    struct order o;
    (void)state;
    for (size_t n = 1; n <= 3; n++) {
        const struct lathe_host *table = counting_host_init(&host);
        host.fail_at = n;
        assert_int_equal(order_open(&o, table, 100), LATHE_ENOMEM);
        assert_int_equal(host.live_blocks, 0);
        order_close(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_a_sorted_array_under_random_operations),
        cmocka_unit_test(contains_the_request_not_its_index),
        cmocka_unit_test(numbers_keep_their_order),
        cmocka_unit_test(gives_back_what_it_took_when_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

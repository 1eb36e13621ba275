/* SPDX-License-Identifier: MIT */
/* plugins/lib/policy/groups: against looking through all, under random joins and leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lathe/random.h>
#include <policy/groups.h>

#include "support/counting_host.h"

enum { INDEXES = 80, GROUPS = 12, ROUNDS = 3000 };

static uint32_t dice;

static uint32_t roll(uint32_t below)
{
    return (uint32_t)(lathe_random_u64(78, LATHE_RANDOM_USER, 0, dice++) % below);
}

struct world {
    struct lathe_request requests[INDEXES];
    double scores[GROUPS]; /* grows by what is taken from the group */
    struct order order;
    struct groups groups;
};

static uint32_t group_of(const struct lathe_request *r)
{
    return r->tenant;
}

static double score(void *self, uint32_t group, int64_t planned_ns)
{
    const struct world *w = self;
    (void)planned_ns;
    return w->scores[group];
}

/* Of the first of each group that isn't taken yet the one with the smallest score. */
static const struct lathe_request *best(const struct world *w, const char taken[INDEXES])
{
    const struct lathe_request *firsts[GROUPS] = { NULL }, *found = NULL;
    for (uint32_t i = 0; i < INDEXES; i++) {
        const struct lathe_request *r = &w->requests[i], **first = &firsts[group_of(r)];
        if (order_contains(&w->order, r) && !taken[i] && (!*first || r->planned_ns < (*first)->planned_ns))
            *first = r;
    }
    for (uint32_t g = 0; g < GROUPS; g++) {
        if (!firsts[g])
            continue;
        if (!found || w->scores[g] < w->scores[group_of(found)] ||
            (w->scores[g] == w->scores[group_of(found)] && firsts[g]->planned_ns < found->planned_ns))
            found = firsts[g];
    }
    return found;
}

static void gives_the_best_first_of_all_groups(void **state)
{
    static struct world w;
    struct counting_host host;
    uint64_t next_id = 0;
    (void)state;
    assert_int_equal(order_open(&w.order, counting_host_init(&host), INDEXES), LATHE_OK);
    assert_int_equal(groups_open(&w.groups, &host.host, &w.order, GROUPS), LATHE_OK);
    for (int round = 0; round < ROUNDS; round++) {
        struct lathe_request *r = &w.requests[roll(INDEXES)];
        if (order_contains(&w.order, r)) {
            groups_leave(&w.groups, r);
            order_remove(&w.order, r->index);
        } else {
            *r = (struct lathe_request){ .index = (uint32_t)(r - w.requests), .id = ++next_id, .tenant = roll(GROUPS),
                                         .planned_ns = (int64_t)roll(1000) * 10000 + round };
            order_insert(&w.order, r, (struct order_key){ group_of(r), 0 });
            groups_join(&w.groups, r);
        }
        if (round % 10)
            continue;
        char taken[INDEXES] = { 0 };
        uint32_t count = 0;
        for (uint32_t g = 0; g < GROUPS; g++)
            w.scores[g] = roll(4);
        groups_begin(&w.groups, score, &w);
        for (const struct groups_entry *next; (next = groups_next(&w.groups)); count++) {
            assert_ptr_equal(w.order.links[next->first].req, best(&w, taken));
            taken[next->first] = 1;
            w.scores[next->group] += roll(3);
            groups_pass(&w.groups, score, &w);
        }
        assert_int_equal(count, w.order.count);
    }
    groups_close(&w.groups);
    order_close(&w.order);
    assert_int_equal(host.live_blocks, 0);
}

static void gives_back_what_it_took_when_memory_runs_out(void **state)
{
    struct counting_host host;
    struct order o;
    struct groups g;
    (void)state;
    assert_int_equal(order_open(&o, counting_host_init(&host), 10), LATHE_OK);
    size_t before = host.live_blocks;
    for (size_t n = 1; n <= 5; n++) {
        host.fail_at = host.calls + n;
        assert_int_equal(groups_open(&g, &host.host, &o, 10), LATHE_ENOMEM);
        assert_int_equal(host.live_blocks, before);
        groups_close(&g);
    }
    order_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_best_first_of_all_groups),
        cmocka_unit_test(gives_back_what_it_took_when_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

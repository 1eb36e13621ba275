/* SPDX-License-Identifier: MIT */
/* Prefix affinity: what begins alike goes to one place, within the bound on the load. */
#include "fixture.h"

enum { TOKENS = 64 };

/* A prompt of the group, with an end of its own. */
static uint32_t route_prompt(struct fleet *f, int32_t group, uint64_t own)
{
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = i < 32 ? group * 100 + i : (int32_t)(own % 1000) + i;
    return fleet_route(f, (struct lathe_request){ .prompt_tokens = TOKENS, .tokens = tokens });
}

static struct fleet *opened(uint32_t count, const char *bound)
{
    return fleet_open("prefix", count, (const char *const[]){ "prefix_tokens", "32", "bound", bound, NULL });
}

static void equal_beginnings_go_together(void **state)
{
    (void)state;
    struct fleet *f = opened(50, "1000000");
    uint32_t of[40], used = 0;
    for (int32_t g = 0; g < 40; g++)
        of[g] = route_prompt(f, g, 0);
    for (uint64_t i = 1; i < 2000; i++)
        assert_int_equal(route_prompt(f, (int32_t)(i % 40), i), of[i % 40]);
    for (uint32_t i = 0; i < 50; i++)
        used += f->r[i].waiting > 0;
    assert_in_range(used, 20, 40); /* 40 balls in 50 boxes: 28 boxes */
    fleet_close(f);
}

static void a_session_stands_for_tokens_that_are_not_known(void **state)
{
    (void)state;
    struct fleet *f = opened(50, "1000000");
    uint32_t of_seven = fleet_route(f, (struct lathe_request){ .session = 7 }), others = 0;
    for (uint64_t i = 1; i < 100; i++) {
        assert_int_equal(fleet_route(f, (struct lathe_request){ .session = 7 }), of_seven);
        others += fleet_route(f, (struct lathe_request){ .session = 100 + i }) != of_seven;
        others += fleet_route(f, (struct lathe_request){ 0 }) != of_seven; /* neither: by itself */
    }
    assert_true(others > 180);
    fleet_close(f);
}

static void no_replica_has_more_than_the_bound(void **state)
{
    (void)state;
    struct fleet *f = opened(100, "1.25");
    uint32_t present = 0, draws = 0;
    for (uint32_t i = 0; i < 60000; i++) {
        /* Half of all prompts begin alike: without the bound one replica had half of the load. */
        int32_t group = fleet_unit(3, i) < 0.5 ? 0 : (int32_t)(fleet_unit(4, i) * 1000) + 1;
        uint32_t at = route_prompt(f, group, i);
        present++;
        assert_true(f->r[at].waiting <= ceil(1.25 * present / 100) + 1); /* one: the mean is a few requests old */
        for (; present > 800; present--) {
            do
                at = (uint32_t)(fleet_unit(5, draws++) * 100);
            while (f->r[at].waiting == 0);
            fleet_end(f, at);
        }
    }
    fleet_close(f);
}

static void a_popular_beginning_overflows_onto_few(void **state)
{
    (void)state;
    struct fleet *f = opened(100, "2");
    uint32_t used = 0;
    for (uint32_t i = 0; i < 100; i++)
        f->r[i].running = 10;
    for (uint32_t i = 0; i < 50; i++)
        route_prompt(f, 5, i);
    for (uint32_t i = 0; i < 100; i++)
        used += f->r[i].waiting > 0;
    assert_in_range(used, 4, 6); /* ten each, until it has twice the mean */
    fleet_close(f);
}

/* One more replica takes its part, and moves nobody else. */
static void one_more_replica_moves_few(void **state)
{
    (void)state;
    struct fleet *f = opened(101, "1000000");
    uint32_t moved = 0;
    for (int32_t g = 0; g < 4000; g++) {
        f->count = 100;
        uint32_t before = route_prompt(f, g, 0);
        f->count = 101;
        uint32_t after = route_prompt(f, g, 0);
        moved += before != after;
        assert_true(before == after || after == 100);
    }
    near(moved, 4000 / 101.0, 0.6, "keys that moved");
    fleet_close(f);
}

static void it_comes_back_when_its_replica_does(void **state)
{
    (void)state;
    struct fleet *f = opened(50, "1000000");
    uint32_t home = route_prompt(f, 1, 0);
    f->r[home].ready = 0;
    uint32_t away = route_prompt(f, 1, 1);
    assert_int_not_equal(away, home);
    assert_int_equal(route_prompt(f, 1, 2), away); /* one other, not any other */
    f->r[home].ready = 1;
    assert_int_equal(route_prompt(f, 1, 3), home);
    fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_beginnings_go_together),
        cmocka_unit_test(a_session_stands_for_tokens_that_are_not_known),
        cmocka_unit_test(no_replica_has_more_than_the_bound),
        cmocka_unit_test(a_popular_beginning_overflows_onto_few),
        cmocka_unit_test(one_more_replica_moves_few),
        cmocka_unit_test(it_comes_back_when_its_replica_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Virtual time: what happens at one instant goes in a fixed order, faults cost what they say and no
 * more, and the books find whoever idles or loses a request. */
#include "unit/core/simulate_fixture.h"

static void assert_end(const struct sim_end *end, double admitted_ms, double first_ms, double finish_ms)
{
    assert_int_equal(end->count, 1);
    assert_int_equal(end->reason, LATHE_FINISH_LENGTH);
    assert_int_equal(end->admitted_ns, MS(admitted_ms));
    assert_int_equal(end->first_token_ns, MS(first_ms));
    assert_int_equal(end->finish_ns, MS(finish_ms));
}

/* ── One instant ────────────────────────────────────────────────────────────────────── */

static void a_step_ends_before_who_comes_then_and_they_begin_together(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1), sim_request(1, 1, 1), sim_request(1, 1, 2) };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 3, (struct simulate_params){ 0 });
    assert_end(&s.ends[0], 0, 1, 1);
    assert_end(&s.ends[1], 1, 2, 2);
    assert_end(&s.ends[2], 1, 2, 3);
    assert_int_equal(s.figures.steps, 3);
    assert_true(s.figures.busy_ns == 3e6);
    sim_close(&s);
}

static void a_step_that_ends_as_its_replica_dies_has_ended(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1), sim_request(1, 1, 1) };
    const struct simulated_fault faults[] = { { MS(1), MS(4), 0, FAULT_DIES, 0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 2, (struct simulate_params){ .faults = faults, .fault_count = 1 });
    assert_end(&s.ends[0], 0, 1, 1);
    assert_end(&s.ends[1], 5, 6, 6); /* it died first, so that nobody took the one that came */
    assert_int_equal(s.ends[0].preemptions + s.ends[1].preemptions, 0);
    sim_close(&s);
}

static void replicas_go_in_the_order_of_their_numbers(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1), sim_request(0, 1, 1), sim_request(0, 1, 1) };
    (void)state;
    sim_open(&s, (struct sim_params){ .replicas = 3, .router = "round_robin" });
    sim_run(&s, r, 3, (struct simulate_params){ 0 });
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(s.ends[s.order[i]].replica, i);
    sim_close(&s);
}

/* ── Who comes when ─────────────────────────────────────────────────────────────────── */

static void a_user_thinks_and_comes_back(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(9, 1, 1), sim_request(0, 1, 1), sim_request(0, 1, 1) };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 3, (struct simulate_params){ .concurrency = 1, .think_ns = MS(2) });
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s.ends[i].planned_ns, MS(3 * i));
        assert_end(&s.ends[i], 3 * i, 3 * i + 1, 3 * i + 1);
    }
    sim_close(&s);
}

static void who_is_refused_thinks_too(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 2000, 1), sim_request(0, 1, 1) };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 2, (struct simulate_params){ .concurrency = 1, .think_ns = MS(2) });
    assert_int_equal(s.ends[0].count, 0);
    assert_int_equal(s.figures.refused, 1);
    assert_non_null(strstr(s.figures.first_refusal, "2000 tokens"));
    assert_string_equal(r[0].error, s.figures.first_refusal);
    assert_end(&s.ends[1], 2, 3, 3);
    sim_close(&s);
}

static void a_central_queue_gives_to_whoever_is_free_first(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1), sim_request(0, 1, 3), sim_request(0, 1, 1), sim_request(0.5, 1, 1) };
    (void)state;
    sim_open(&s, (struct sim_params){ .replicas = 2, .router = "central:places=1" });
    sim_run(&s, r, 4, (struct simulate_params){ 0 });
    assert_end(&s.ends[0], 0, 1, 1);
    assert_end(&s.ends[1], 0, 1, 3);
    assert_end(&s.ends[2], 1, 2, 2);
    assert_end(&s.ends[3], 2, 3, 3);
    assert_int_equal(s.ends[2].replica, s.ends[0].replica);
    assert_int_equal(s.ends[3].planned_ns, MS(0.5)); /* latency counts from there, wherever it waited */
    sim_close(&s);
}

static void who_finds_a_full_engine_waits_in_front_of_it(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 2), sim_request(0, 1, 2), sim_request(0, 1, 1) };
    (void)state;
    sim_open(&s, (struct sim_params){ .engine = { .max_requests = 1 } });
    sim_run(&s, r, 3, (struct simulate_params){ 0 });
    assert_end(&s.ends[0], 0, 1, 2);
    assert_end(&s.ends[1], 2, 3, 4);
    assert_end(&s.ends[2], 4, 5, 5);
    sim_close(&s);
}

/* ── Faults ─────────────────────────────────────────────────────────────────────────── */

static void a_death_costs_the_step_under_way_and_what_was_computed(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 3) };
    const struct simulated_fault faults[] = { { MS(1.5), MS(2), 0, FAULT_DIES, 0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 1, (struct simulate_params){ .faults = faults, .fault_count = 1 });
    assert_end(&s.ends[0], 0, 1, 5.5); /* a token, half a step, 2 ms of nothing, two tokens */
    assert_int_equal(s.ends[0].preemptions, 1);
    assert_true(s.figures.busy_ns == 3.5e6);
    sim_close(&s);
}

static void the_end_of_a_death_that_was_ignored_does_nothing(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 4) };
    const struct simulated_fault faults[] = { { MS(1.2), MS(2), 0, FAULT_DIES, 0 }, { MS(0.5), MS(1), 0, FAULT_DIES, 0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 1, (struct simulate_params){ .faults = faults, .fault_count = 2 });
    assert_end(&s.ends[0], 0, 2.5, 5.5); /* back at 1.5, and at work over 3.2 */
    sim_close(&s);
}

static void a_death_of_no_length_costs_the_cache_alone(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 2) };
    const struct simulated_fault faults[] = { { MS(0.5), 0, 0, FAULT_DIES, 0 }, { MS(2), 0, 0, FAULT_LOSES_CACHE, 0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 1, (struct simulate_params){ .faults = faults, .fault_count = 2 });
    assert_end(&s.ends[0], 0, 1.5, 3); /* the second strikes in the middle of the second token */
    sim_close(&s);
}

static void a_slow_replica_is_slow_from_its_next_step_on(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 3) };
    const struct simulated_fault faults[] = { { MS(0.5), MS(2), 0, FAULT_SLOW, 3.0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 1, (struct simulate_params){ .faults = faults, .fault_count = 1 });
    assert_end(&s.ends[0], 0, 1, 5); /* 1 + 3 + 1 */
    sim_close(&s);
}

static void of_two_slow_times_the_later_counts_to_its_end(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 4) };
    const struct simulated_fault faults[] = { { 0, MS(1.5), 0, FAULT_SLOW, 2.0 }, { MS(1), MS(9), 0, FAULT_SLOW, 3.0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ 0 });
    sim_run(&s, r, 1, (struct simulate_params){ .faults = faults, .fault_count = 2 });
    assert_end(&s.ends[0], 0, 2, 11); /* 2, then three of 3 until 10: the last began at 8 */
    sim_close(&s);
}

static void all_wait_while_every_replica_is_dead(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(1, 1, 1), sim_request(1, 1, 1) };
    const struct simulated_fault faults[] = { { 0, MS(5), 0, FAULT_DIES, 0 }, { 0, MS(3), 1, FAULT_DIES, 0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ .replicas = 2 });
    sim_run(&s, r, 2, (struct simulate_params){ .faults = faults, .fault_count = 2 });
    assert_end(&s.ends[0], 3, 4, 4);
    assert_int_equal(s.ends[0].replica, 1);
    assert_int_equal(s.ends[1].replica, 1);
    sim_close(&s);
}

static void a_fault_of_no_replica_is_one_sentence(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1) };
    const struct simulated_fault faults[] = { { 0, MS(5), 3, FAULT_DIES, 0 } };
    (void)state;
    sim_open(&s, (struct sim_params){ .replicas = 2 });
    assert_int_equal(sim_try(&s, r, 1, (struct simulate_params){ .faults = faults, .fault_count = 1 }), LATHE_ERANGE);
    assert_string_equal(s.err.message, "fault 1 is for replica 3 of 2");
    sim_close(&s);
}

/* ── The books ──────────────────────────────────────────────────────────────────────── */

static int fill_late(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking, struct lathe_plan *plan,
                     struct lathe_error *err)
{
    (void)self, (void)ranking, (void)err;
    plan->count = 0;
    plan->wake_ns = view->now_ns + MS(5);
    return LATHE_OK;
}

static int fill_never(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking, struct lathe_plan *plan,
                      struct lathe_error *err)
{
    (void)self, (void)view, (void)ranking, (void)err;
    plan->count = 0;
    return LATHE_OK;
}

static uint32_t keeps_busy(void *self)
{
    (void)self;
    return LATHE_PROMISE_WORK_CONSERVING;
}

static uint32_t nothing(void *self)
{
    (void)self;
    return 0;
}

static struct lathe_batching_api batching_like(int (*fill)(void *, const struct lathe_step_view *, const struct lathe_ranking *,
                                                           struct lathe_plan *, struct lathe_error *),
                                               uint32_t (*promises)(void *))
{
    struct sim s;
    sim_open(&s, (struct sim_params){ 0 });
    struct lathe_batching_api api = *(const struct lathe_batching_api *)s.parts.batching->api; /* stays mapped */
    sim_close(&s);
    api.fill = fill;
    api.promises = promises;
    return api;
}

static void who_promises_to_work_and_idles_is_found(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1) };
    struct lathe_batching_api liar = batching_like(fill_late, keeps_busy);
    (void)state;
    sim_open(&s, (struct sim_params){ .batching_api = &liar });
    assert_int_equal(sim_try(&s, r, 1, (struct simulate_params){ 0 }), LATHE_EINTERNAL);
    assert_non_null(strstr(s.err.message, "idles at 0.000000 s with 1 requests, although its scheduler and batching promise"));
    sim_close(&s);
}

static void who_never_works_is_found_though_it_promised_nothing(void **state)
{
    struct sim s;
    struct planned_request r[] = { sim_request(0, 1, 1) };
    struct lathe_batching_api idler = batching_like(fill_never, nothing);
    (void)state;
    sim_open(&s, (struct sim_params){ .batching_api = &idler });
    assert_int_equal(sim_try(&s, r, 1, (struct simulate_params){ 0 }), LATHE_EINTERNAL);
    assert_non_null(strstr(s.err.message, "no stage will ever run them"));
    sim_close(&s);
}

enum { MANY = 2000 };

static void many(struct planned_request *r)
{
    uint64_t roll = 88172645463325252u;
    double at = 0;
    for (int i = 0; i < MANY; i++) {
        roll ^= roll << 13, roll ^= roll >> 7, roll ^= roll << 17;
        at += (double)(roll % 500) * 1e-3;
        r[i] = sim_request(at, 1 + roll % 50, 1 + roll % 7);
    }
}

static void run_many(struct sim *s, struct planned_request *r)
{
    const struct simulated_fault faults[] = { { MS(100), MS(30), 1, FAULT_DIES, 0 }, { MS(200), MS(300), 0, FAULT_SLOW, 2.5 },
                                              { MS(300), 0, 2, FAULT_LOSES_CACHE, 0 } };
    sim_open(s, (struct sim_params){ .replicas = 3, .router = "p2c", .scheduler = "srpt:preempt=recompute",
                                     .kvcache = "paged:block_tokens=8,blocks=9,preempt=swap", .model = "noise=0.2" });
    many(r);
    sim_run(s, r, MANY, (struct simulate_params){ .faults = faults, .fault_count = 3 });
}

static void the_number_in_the_system_integrates_to_the_times_in_it(void **state)
{
    static struct planned_request r[MANY];
    struct sim s;
    double times = 0;
    (void)state;
    run_many(&s, r);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(s.ends[i].count, 1);
        times += (double)(s.ends[i].finish_ns - s.ends[i].planned_ns);
    }
    assert_true(s.figures.area_ns == times);
    assert_true(s.figures.preemptions > 100);
    assert_int_equal(s.figures.requests, MANY);
    sim_close(&s);
}

static void two_runs_are_the_same_end_for_end(void **state)
{
    static struct planned_request r[MANY];
    static struct sim a, b;
    (void)state;
    run_many(&a, r);
    run_many(&b, r);
    assert_memory_equal(a.order, b.order, sizeof a.order);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(a.ends[i].replica, b.ends[i].replica);
        assert_int_equal(a.ends[i].finish_ns, b.ends[i].finish_ns);
        assert_int_equal(a.ends[i].first_token_ns, b.ends[i].first_token_ns);
    }
    sim_close(&a);
    sim_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_ends_before_who_comes_then_and_they_begin_together),
        cmocka_unit_test(a_step_that_ends_as_its_replica_dies_has_ended),
        cmocka_unit_test(replicas_go_in_the_order_of_their_numbers),
        cmocka_unit_test(a_user_thinks_and_comes_back),
        cmocka_unit_test(who_is_refused_thinks_too),
        cmocka_unit_test(a_central_queue_gives_to_whoever_is_free_first),
        cmocka_unit_test(who_finds_a_full_engine_waits_in_front_of_it),
        cmocka_unit_test(a_death_costs_the_step_under_way_and_what_was_computed),
        cmocka_unit_test(the_end_of_a_death_that_was_ignored_does_nothing),
        cmocka_unit_test(a_death_of_no_length_costs_the_cache_alone),
        cmocka_unit_test(a_slow_replica_is_slow_from_its_next_step_on),
        cmocka_unit_test(of_two_slow_times_the_later_counts_to_its_end),
        cmocka_unit_test(all_wait_while_every_replica_is_dead),
        cmocka_unit_test(a_fault_of_no_replica_is_one_sentence),
        cmocka_unit_test(who_promises_to_work_and_idles_is_found),
        cmocka_unit_test(who_never_works_is_found_though_it_promised_nothing),
        cmocka_unit_test(the_number_in_the_system_integrates_to_the_times_in_it),
        cmocka_unit_test(two_runs_are_the_same_end_for_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* The envelope but for its retries: deadlines, breaker, counters, hops, events, options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>

#include "envelope_fixture.h"

static void a_passed_deadline_is_refused_and_no_call(void **state)
{
    (void)state;
    answer(LATHE_OK);
    for (int64_t late = 0; late < 2; late++) {
        assert_int_equal(call_with((struct lathe_message){ .deadline_ns = fake.time_ns - late }), LATHE_EDEADLINE);
        assert_non_null(strstr(err.message, "model.forward"));
        assert_non_null(strstr(err.message, "deadline"));
    }
    assert_int_equal(script.calls, 0);
    assert_int_equal(stats().calls, 0);
    assert_int_equal(stats().failures, 0);
    assert_int_equal(stats().expired, 2);
    assert_int_equal(call_with((struct lathe_message){ .deadline_ns = fake.time_ns + 1 }), LATHE_OK);
    assert_int_equal(stats().calls, 1);
}

static void a_positive_status_is_a_broken_promise(void **state)
{
    (void)state;
    answer(7);
    assert_int_equal(call(), LATHE_EINTERNAL);
    assert_int_equal(err.code, LATHE_EINTERNAL);
    assert_non_null(strstr(err.message, "model.forward returned 7"));
    assert_int_equal(script.calls, 1);
    assert_int_equal(stats().failures, 1);
}

static void an_open_breaker_refuses_and_says_when_to_try_again(void **state)
{
    struct lathe_service_health health = { 0 };
    (void)state;
    with_breaker(4, 2);
    bus.policy.attempts = 1;
    answer(LATHE_EIO);
    call();
    call();
    assert_int_equal(service.breaker.state, LATHE_BREAKER_OPEN);
    fake.time_ns += 25 * MS;
    assert_int_equal(call(), LATHE_EUNAVAILABLE);
    assert_non_null(strstr(err.message, "try again in 75.0 ms"));
    assert_non_null(strstr(err.message, "'model'"));
    assert_non_null(strstr(err.message, "failure number 2"));
    assert_int_equal(script.calls, 2);
    assert_int_equal(stats().calls, 2);
    assert_int_equal(stats().refused, 1);
    envelope_health(&service, &health);
    assert_int_equal(health.breaker, LATHE_BREAKER_OPEN);
    assert_int_equal(health.last_error.code, LATHE_EIO);
    assert_string_equal(health.last_error.message, "failure number 2");
    assert_int_equal(health.last_error_ns, 1000);
    fake.time_ns += 75 * MS;
    answer(LATHE_OK);
    assert_int_equal(call(), LATHE_OK);
    assert_int_equal(service.breaker.state, LATHE_BREAKER_CLOSED);
}

static void retries_stop_when_the_breaker_opens(void **state)
{
    (void)state;
    with_breaker(4, 2);
    bus.policy.attempts = 50;
    answer(LATHE_EIO);
    assert_int_equal(call(), LATHE_EIO); /* the failure itself, not the refusal */
    assert_int_equal(script.calls, 2);
    assert_string_equal(err.message, "failure number 2");
}

static void a_failed_trial_is_not_retried(void **state)
{
    (void)state;
    with_breaker(4, 2);
    answer(LATHE_EIO);
    call();
    fake.time_ns += 100 * MS;
    script.calls = 0;
    assert_int_equal(call(), LATHE_EIO);
    assert_int_equal(script.calls, 1);
    assert_int_equal(service.breaker.state, LATHE_BREAKER_OPEN);
}

static void the_callers_own_mistakes_open_nothing(void **state)
{
    struct lathe_service_health health = { 0 };
    (void)state;
    with_breaker(4, 2);
    answer(LATHE_EINVAL);
    for (int i = 0; i < 20; i++)
        assert_int_equal(call(), LATHE_EINVAL);
    envelope_health(&service, &health);
    assert_int_equal(health.breaker, LATHE_BREAKER_CLOSED);
    assert_int_equal(health.last_error_ns, 0);
    assert_int_equal(stats().failures, 20);
}

static void a_withdrawn_trial_is_given_back(void **state)
{
    struct lathe_message in = { .capacity = sizeof in, .bytes = sizeof in };
    struct envelope_attempt first = { 0 }, second = { 0 }, third = { 0 };
    (void)state;
    with_breaker(4, 2);
    answer(LATHE_EIO);
    call();
    fake.time_ns += 100 * MS;
    assert_int_equal(envelope_admit(&envelope, &in, &first, &err), LATHE_OK);
    assert_int_equal(envelope_admit(&envelope, &in, &second, &err), LATHE_EUNAVAILABLE);
    envelope_withdraw(&envelope, &first);
    assert_int_equal(envelope_admit(&envelope, &in, &third, &err), LATHE_OK);
    assert_int_equal(stats().calls, 2); /* what was withdrawn was no attempt */
    assert_int_equal(envelope_settle(&envelope, &in, &out, LATHE_OK, &third, &err), 0);
    assert_int_equal(service.breaker.state, LATHE_BREAKER_CLOSED);
}

static void counts_calls_bytes_and_times(void **state)
{
    (void)state;
    answer(LATHE_OK);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(call(), LATHE_OK);
    struct lathe_endpoint_stats s = stats();
    assert_int_equal(s.calls, 1000);
    assert_int_equal(s.bytes, 1000 * 2 * sizeof(struct lathe_message));
    assert_int_equal(s.failures + s.retries + s.refused + s.expired, 0);
    assert_true(s.p50_ns <= s.p90_ns && s.p90_ns <= s.p99_ns && s.p99_ns <= s.p999_ns);
    assert_true((double)s.p999_ns <= (double)s.max_ns * 33 / 32 + 1);
    assert_true(s.max_ns <= s.total_ns);
    assert_int_equal(fake.waits, 0);
}

enum { CALLERS = 4, CALLS_EACH = 20000 };

static void *settle_many(void *arg)
{
    struct lathe_message in = { .capacity = sizeof in, .bytes = sizeof in }, reply = in;
    struct lathe_error own;
    (void)arg;
    for (int i = 0; i < CALLS_EACH; i++) {
        struct envelope_attempt attempt = { 0 };
        if (envelope_admit(&envelope, &in, &attempt, &own) != LATHE_OK ||
            envelope_settle(&envelope, &in, &reply, LATHE_OK, &attempt, &own) != 0)
            return arg;
    }
    return NULL;
}

/* One of them owns a tally without a lock; nothing is lost between it and the others. */
static void calls_of_several_threads_are_all_counted(void **state)
{
    pthread_t threads[CALLERS];
    for (int round = 1; round <= 3; round++) { /* the owner ends, and others come */
        for (size_t i = 0; i < CALLERS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, settle_many, state), 0);
        for (size_t i = 0; i < CALLERS; i++) {
            void *failed;
            pthread_join(threads[i], &failed);
            assert_null(failed);
        }
        assert_int_equal(stats().calls, round * CALLERS * CALLS_EACH);
        assert_int_equal(stats().bytes, (uint64_t)round * CALLERS * CALLS_EACH * 2 * sizeof(struct lathe_message));
        assert_true(stats().max_ns <= stats().total_ns);
    }
}

static void each_attempt_is_one_hop(void **state)
{
    (void)state;
    bus.observer = (struct lathe_bus_observer){ .size = sizeof bus.observer, .hop = on_hop, .event = on_event };
    script.statuses[0] = LATHE_EIO;
    script.statuses[1] = LATHE_OK;
    script.count = 2;
    script.takes_ns = 5;
    assert_int_equal(call_with((struct lathe_message){ .correlation = 42 }), LATHE_OK);
    assert_int_equal(hop_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_ptr_equal(hops[i].endpoint, &endpoint);
        assert_int_equal(hops[i].correlation, 42);
        assert_int_equal(hops[i].attempt, i + 1);
        assert_int_equal(hops[i].status, i ? LATHE_OK : LATHE_EIO);
        assert_int_equal(hops[i].sent_ns, script.at[i]);
        assert_int_equal(hops[i].started_ns, script.at[i]);
        assert_int_equal(hops[i].ended_ns, script.at[i] + 5);
        assert_int_equal(hops[i].worker, 0);
        assert_int_equal(hops[i].bytes, (i ? 2 : 1) * sizeof(struct lathe_message));
    }
    assert_int_equal(out.sent_ns, script.at[1]);
    assert_int_equal(out.ended_ns, script.at[1] + 5);
    assert_int_equal(event_count, 0);
}

static void refusals_are_no_hops(void **state)
{
    (void)state;
    bus.observer.hop = on_hop;
    answer(LATHE_OK);
    assert_int_equal(call_with((struct lathe_message){ .deadline_ns = 1 }), LATHE_EDEADLINE);
    assert_int_equal(hop_count, 0);
}

static void nothing_is_stamped_while_nobody_looks(void **state)
{
    (void)state;
    answer(LATHE_OK);
    call();
    assert_int_equal(out.sent_ns + out.started_ns + out.ended_ns, 0);
}

static void the_breakers_changes_are_told(void **state)
{
    static const int32_t expected[] = {
        LATHE_BUS_BREAKER_OPENED,    LATHE_BUS_BREAKER_HALF_OPEN, LATHE_BUS_BREAKER_OPENED,
        LATHE_BUS_BREAKER_HALF_OPEN, LATHE_BUS_BREAKER_CLOSED,
    };
    (void)state;
    bus.observer.event = on_event;
    with_breaker(4, 2);
    bus.policy.attempts = 1;
    answer(LATHE_EIO);
    call();
    call();
    assert_string_equal(event_service, "model");
    assert_non_null(strstr(event_detail, "failure number 2"));
    fake.time_ns += 100 * MS;
    call();
    fake.time_ns += 100 * MS;
    answer(LATHE_OK);
    call();
    assert_int_equal(event_count, 5);
    assert_memory_equal(events, expected, sizeof expected);
}

static void options_become_the_policy(void **state)
{
    struct lathe_option_value v[2 + ENVELOPE_OPTION_COUNT] = { { .type = 0 } };
    struct lathe_config config = { .size = sizeof config, .count = 2 + ENVELOPE_OPTION_COUNT, .values = v };
    static const double values[ENVELOPE_OPTION_COUNT] = { 7, 1.5, 20, 16, 4, 0.25, 300 };
    struct envelope_policy p;
    (void)state;
    for (int i = 0; i < ENVELOPE_OPTION_COUNT; i++)
        v[2 + i] = (struct lathe_option_value){ .number = values[i], .integer = (int64_t)values[i] };
    assert_int_equal(envelope_policy_read(&p, &config, 2, &err), LATHE_OK);
    assert_int_equal(p.attempts, 7);
    assert_int_equal(p.base_ns, 1500000);
    assert_int_equal(p.cap_ns, 20 * MS);
    assert_int_equal(p.breaker.window, 16);
    assert_int_equal(p.breaker.minimum, 4);
    assert_true(p.breaker.share == 0.25);
    assert_int_equal(p.breaker.open_ns, 300 * MS);
    v[2 + ENVELOPE_OPTION_MINIMUM].integer = 17; /* of 16 */
    assert_int_equal(envelope_policy_read(&p, &config, 2, &err), LATHE_EINVAL);
    assert_non_null(strstr(err.message, "breaker_minimum"));
    v[2 + ENVELOPE_OPTION_MINIMUM].is_default = 1; /* not the user's wish: it follows the window */
    assert_int_equal(envelope_policy_read(&p, &config, 2, &err), LATHE_OK);
    assert_int_equal(p.breaker.minimum, 16);
    config.count--;
    assert_int_equal(envelope_policy_read(&p, &config, 2, &err), LATHE_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_passed_deadline_is_refused_and_no_call),
        TEST(a_positive_status_is_a_broken_promise),
        TEST(an_open_breaker_refuses_and_says_when_to_try_again),
        TEST(retries_stop_when_the_breaker_opens),
        TEST(a_failed_trial_is_not_retried),
        TEST(the_callers_own_mistakes_open_nothing),
        TEST(a_withdrawn_trial_is_given_back),
        TEST(counts_calls_bytes_and_times),
        TEST(calls_of_several_threads_are_all_counted),
        TEST(each_attempt_is_one_hop),
        TEST(refusals_are_no_hops),
        TEST(nothing_is_stamped_while_nobody_looks),
        TEST(the_breakers_changes_are_told),
        TEST(options_become_the_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

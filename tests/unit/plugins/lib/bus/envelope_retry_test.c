/* SPDX-License-Identifier: MIT */
/* The envelope's retries: what is repeated and what isn't, how long the pauses are, and that
 * none lasts beyond the deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "envelope_fixture.h"

static void what_is_retried(void **state)
{
    enum { I = LATHE_METHOD_IDEMPOTENT, S = I | LATHE_METHOD_STATEFUL, ONCE = LATHE_MESSAGE_ONCE };
    static const struct {
        int status;
        uint32_t method_flags, message_flags, attempts, calls;
    } table[] = {
        { LATHE_EIO, I, 0, 3, 3 },
        { LATHE_EBUSY, I, 0, 3, 3 },
        { LATHE_EUNAVAILABLE, I, 0, 3, 3 },
        { LATHE_EUNAVAILABLE, I, 0, 1, 1 },
        { LATHE_EIO, I, 0, 100, 100 },
        { LATHE_EIO, 0, 0, 3, 1 },
        { LATHE_EIO, I, ONCE, 3, 1 },
        { LATHE_EIO, 0, ONCE, 3, 1 },
        { LATHE_EIO, S, 0, 3, 3 },
        { LATHE_EUNAVAILABLE, S, 0, 3, 3 }, /* nothing was begun */
        { LATHE_ELOST, S, 0, 3, 1 },        /* its state went with the worker */
        { LATHE_ELOST, I, 0, 3, 1 },
        { LATHE_EINVAL, I, 0, 3, 1 },
        { LATHE_ENOMEM, I, 0, 3, 1 },
        { LATHE_ENOTFOUND, I, 0, 3, 1 },
        { LATHE_EFULL, I, 0, 3, 1 },
        { LATHE_EBLOCKS, I, 0, 3, 1 },
        { LATHE_ERANGE, I, 0, 3, 1 },
        { LATHE_EABI, I, 0, 3, 1 },
        { LATHE_EFORMAT, I, 0, 3, 1 },
        { LATHE_EUNSUPPORTED, I, 0, 3, 1 },
        { LATHE_ECANCELLED, I, 0, 3, 1 },
        { LATHE_EDEADLINE, I, 0, 3, 1 },
        { LATHE_EINTERNAL, I, 0, 3, 1 },
        { LATHE_ESTATE, I, 0, 3, 1 },
        { LATHE_OK, I, 0, 3, 1 },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        prepare(state);
        bus.policy.attempts = table[i].attempts;
        envelope.method_flags = table[i].method_flags;
        answer(table[i].status);
        int status = call_with((struct lathe_message){ .flags = table[i].message_flags });
        struct lathe_endpoint_stats s = stats();
        if (status != table[i].status || script.calls != table[i].calls || s.calls != table[i].calls ||
            s.retries != table[i].calls - 1 || s.failures != (status ? table[i].calls : 0) ||
            fake.waits != table[i].calls - 1)
            fail_msg("row %zu: status %d, %u calls, %u waits", i, status, script.calls, fake.waits);
        if (status) { /* the last attempt's sentence */
            char said[64];
            snprintf(said, sizeof said, "failure number %u", table[i].calls);
            assert_string_equal(err.message, said);
        }
        clear(state);
    }
}

static void a_retry_that_succeeds_is_a_success(void **state)
{
    (void)state;
    script.statuses[0] = LATHE_EIO;
    script.statuses[1] = LATHE_EBUSY;
    script.statuses[2] = LATHE_OK;
    script.count = 3;
    assert_int_equal(call(), LATHE_OK);
    assert_int_equal(script.calls, 3);
    assert_int_equal(stats().failures, 2);
    assert_int_equal(stats().retries, 2);
}

/* Full jitter: uniform in (0, min (cap, base · 2^attempt)). */
static void pauses_are_random_below_a_doubling_bound(void **state)
{
    enum { DRAWS = 4000, ATTEMPTS = 6 };
    double sum[ATTEMPTS] = { 0 }, square[ATTEMPTS] = { 0 };
    (void)state;
    bus.policy.attempts = ATTEMPTS + 1;
    bus.policy.cap_ns = 120 * MS; /* bounds 10, 20, 40, 80, 120, 120 ms */
    answer(LATHE_EIO);
    for (int draw = 0; draw < DRAWS; draw++) {
        script.calls = 0;
        assert_int_equal(call(), LATHE_EIO);
        assert_int_equal(script.calls, ATTEMPTS + 1);
        for (int i = 0; i < ATTEMPTS; i++) {
            int64_t bound = bus.policy.base_ns << i, pause = script.at[i + 1] - script.at[i];
            bound = bound < bus.policy.cap_ns ? bound : bus.policy.cap_ns;
            assert_true(pause > 0 && pause < bound);
            sum[i] += (double)pause / (double)bound;
            square[i] += ((double)pause / (double)bound) * ((double)pause / (double)bound);
        }
    }
    for (int i = 0; i < ATTEMPTS; i++) { /* of a uniform: mean 1/2 ± 0.0046, second moment 1/3 */
        assert_true(sum[i] / DRAWS > 0.48 && sum[i] / DRAWS < 0.52);
        assert_true(square[i] / DRAWS > 0.31 && square[i] / DRAWS < 0.355);
    }
}

static void the_same_seed_draws_the_same_pauses(void **state)
{
    int64_t first[3][2];
    for (int round = 0; round < 3; round++) {
        prepare(state);
        bus.policy.seed = round == 2 ? 9 : 0;
        answer(LATHE_EIO);
        call();
        for (int i = 0; i < 2; i++)
            first[round][i] = script.at[i + 1] - script.at[i];
        clear(state);
    }
    prepare(state);
    assert_memory_equal(first[0], first[1], sizeof first[0]);
    assert_true(first[0][0] != first[2][0]);
}

static void without_a_base_there_is_no_pause(void **state)
{
    (void)state;
    bus.policy.base_ns = 0;
    answer(LATHE_EIO);
    call();
    assert_int_equal(script.calls, 3);
    assert_int_equal(script.at[2], script.at[0]);
}

static void a_huge_base_does_not_overflow(void **state)
{
    (void)state;
    bus.policy.attempts = 100;
    bus.policy.base_ns = bus.policy.cap_ns = INT64_MAX;
    answer(LATHE_EIO);
    assert_int_equal(call_with((struct lathe_message){ .deadline_ns = fake.time_ns + 5 }), LATHE_EIO);
    assert_int_equal(script.calls, 1);
}

/* Whatever the pause drawn: no attempt begins at or after the deadline, and if time was why
 * there were fewer than allowed, the sentence says so. */
static void no_retry_begins_after_the_deadline(void **state)
{
    uint32_t cut = 0;
    (void)state;
    bus.policy.attempts = 5;
    answer(LATHE_EIO);
    for (int i = 0; i < 500; i++) {
        int64_t deadline_ns = fake.time_ns + (i % 100) * MS + 1;
        script.calls = 0;
        assert_int_equal(call_with((struct lathe_message){ .deadline_ns = deadline_ns }), LATHE_EIO);
        for (uint32_t n = 0; n < script.calls; n++)
            assert_true(script.at[n] < deadline_ns);
        assert_true(fake.time_ns < deadline_ns); /* it doesn't sleep for nothing either */
        assert_non_null(strstr(err.message, "failure number"));
        assert_int_equal(strstr(err.message, "deadline") != NULL, script.calls < 5);
        cut += script.calls < 5;
    }
    assert_true(cut > 50 && cut < 500);
}

static void a_pause_that_lasted_too_long_ends_in_the_deadline(void **state)
{
    (void)state;
    answer(LATHE_EIO);
    fake.oversleep_ns = 1000 * MS;
    assert_int_equal(call_with((struct lathe_message){ .deadline_ns = fake.time_ns + 500 * MS }), LATHE_EDEADLINE);
    assert_int_equal(script.calls, 1);
    assert_int_equal(stats().expired, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_retried),
        TEST(a_retry_that_succeeds_is_a_success),
        TEST(pauses_are_random_below_a_doubling_bound),
        TEST(the_same_seed_draws_the_same_pauses),
        TEST(without_a_base_there_is_no_pause),
        TEST(a_huge_base_does_not_overflow),
        TEST(no_retry_begins_after_the_deadline),
        TEST(a_pause_that_lasted_too_long_ends_in_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

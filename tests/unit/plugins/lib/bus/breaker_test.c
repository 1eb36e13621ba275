/* SPDX-License-Identifier: MIT */
/* The breaker under a clock that the test moves: each cell of its table of states, the window's
 * arithmetic against a plain array, one trial at a time, and several threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>

#include "fake_host.h"
#include <bus/breaker.h>
#include <lathe/random.h>

enum { OPEN_NS = 500 };

static const struct breaker_options usual = { .window = 4, .minimum = 2, .share = 0.5, .open_ns = OPEN_NS };
static struct fake_host fake;

/* Into a state, by the ways that lead there. *trial: the one under way, if any. */
static void reach(struct breaker *b, int state, uint64_t *trial)
{
    int event;
    int64_t retry_ns;
    fake_host_init(&fake);
    breaker_open(b, &usual);
    *trial = 0;
    if (state == LATHE_BREAKER_CLOSED)
        return;
    breaker_settle(b, &fake.counting.host, 0, true, &event);
    breaker_settle(b, &fake.counting.host, 0, true, &event);
    assert_int_equal(event, LATHE_BUS_BREAKER_OPENED);
    if (state == LATHE_BREAKER_HALF_OPEN) {
        fake.time_ns += OPEN_NS;
        assert_true(breaker_admit(b, &fake.counting.host, trial, &retry_ns, &event));
        assert_int_equal(event, LATHE_BUS_BREAKER_HALF_OPEN);
        assert_true(*trial != 0);
    }
    assert_int_equal(b->state, state);
}

enum { C = LATHE_BREAKER_CLOSED, O = LATHE_BREAKER_OPEN, H = LATHE_BREAKER_HALF_OPEN };
enum what { ADMIT, OK_LATE, FAILED_LATE, OK_TRIAL, FAILED_TRIAL, OK_OLD_TRIAL, FAILED_OLD_TRIAL, FORGET, FORGET_OLD };

static void every_cell_of_the_table(void **state)
{
    static const struct {
        int from;
        enum what what;
        int64_t after_ns; /* the clock moves so far before */
        int yes, trial;   /* of ADMIT: admitted, as a trial */
        int to, event;
    } table[] = {
        { C, ADMIT, 0, 1, 0, C, 0 },
        { C, OK_LATE, 0, 0, 0, C, 0 },
        { C, FAILED_LATE, 0, 0, 0, C, 0 }, /* one of one, but fewer than the minimum */
        { C, OK_OLD_TRIAL, 0, 0, 0, C, 0 },
        { C, FAILED_OLD_TRIAL, 0, 0, 0, C, 0 },
        { C, FORGET_OLD, 0, 0, 0, C, 0 },
        { O, ADMIT, 0, 0, 0, O, 0 },
        { O, ADMIT, OPEN_NS - 1, 0, 0, O, 0 },
        { O, ADMIT, OPEN_NS, 1, 1, H, LATHE_BUS_BREAKER_HALF_OPEN },
        { O, ADMIT, OPEN_NS * 100, 1, 1, H, LATHE_BUS_BREAKER_HALF_OPEN },
        { O, OK_LATE, OPEN_NS * 2, 0, 0, O, 0 },
        { O, FAILED_LATE, OPEN_NS * 2, 0, 0, O, 0 },
        { O, OK_OLD_TRIAL, 0, 0, 0, O, 0 },
        { O, FAILED_OLD_TRIAL, 0, 0, 0, O, 0 },
        { H, ADMIT, 0, 0, 0, H, 0 },
        { H, ADMIT, OPEN_NS * 100, 0, 0, H, 0 }, /* however long the trial takes */
        { H, OK_LATE, 0, 0, 0, H, 0 },
        { H, FAILED_LATE, 0, 0, 0, H, 0 },
        { H, OK_OLD_TRIAL, 0, 0, 0, H, 0 },
        { H, FAILED_OLD_TRIAL, 0, 0, 0, H, 0 },
        { H, OK_TRIAL, 0, 0, 0, C, LATHE_BUS_BREAKER_CLOSED },
        { H, FAILED_TRIAL, 0, 0, 0, O, LATHE_BUS_BREAKER_OPENED },
        { H, FORGET, 0, 0, 0, H, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct breaker b;
        uint64_t trial, got;
        int event = 0;
        int64_t retry_ns = -1;
        const struct lathe_host *host = &fake.counting.host;
        reach(&b, table[i].from, &trial);
        fake.time_ns += table[i].after_ns;
        switch (table[i].what) {
        case ADMIT:
            assert_int_equal(breaker_admit(&b, host, &got, &retry_ns, &event), table[i].yes);
            assert_int_equal(got != 0, table[i].trial);
            if (!table[i].yes)
                assert_true(retry_ns > fake.time_ns);
            break;
        case OK_LATE:
        case FAILED_LATE:
            breaker_settle(&b, host, 0, table[i].what == FAILED_LATE, &event);
            break;
        case OK_TRIAL:
        case FAILED_TRIAL:
            breaker_settle(&b, host, trial, table[i].what == FAILED_TRIAL, &event);
            break;
        case OK_OLD_TRIAL:
        case FAILED_OLD_TRIAL:
            breaker_settle(&b, host, 99, table[i].what == FAILED_OLD_TRIAL, &event);
            break;
        case FORGET:
        case FORGET_OLD:
            breaker_forget(&b, table[i].what == FORGET ? trial : 99);
        }
        if (b.state != table[i].to || event != table[i].event)
            fail_msg("row %zu: state %d, expected %d; event %d, expected %d", i, b.state, table[i].to, event,
                     table[i].event);
        breaker_close(&b);
    }
}

static void an_open_breaker_says_when_to_ask_again(void **state)
{
    struct breaker b;
    uint64_t trial;
    int64_t retry_ns;
    int event;
    (void)state;
    reach(&b, O, &trial);
    int64_t opened_ns = fake.time_ns;
    fake.time_ns += 123;
    assert_false(breaker_admit(&b, &fake.counting.host, &trial, &retry_ns, &event));
    assert_int_equal(retry_ns, opened_ns + OPEN_NS);
    breaker_close(&b);
}

static void a_forgotten_trial_lets_another_be_tried(void **state)
{
    struct breaker b;
    uint64_t first, second;
    int64_t retry_ns;
    int event;
    const struct lathe_host *host = &fake.counting.host;
    (void)state;
    reach(&b, H, &first);
    breaker_forget(&b, first);
    assert_true(breaker_admit(&b, host, &second, &retry_ns, &event));
    assert_true(second != 0 && second != first);
    assert_int_equal(event, 0); /* it was half open before */
    breaker_settle(&b, host, first, false, &event); /* the forgotten one's answer means nothing */
    assert_int_equal(b.state, H);
    breaker_settle(&b, host, second, true, &event);
    assert_int_equal(b.state, O);
    breaker_close(&b);
}

static void a_closed_breaker_has_forgotten_the_past(void **state)
{
    struct breaker b;
    uint64_t trial;
    int event;
    const struct lathe_host *host = &fake.counting.host;
    (void)state;
    reach(&b, H, &trial);
    breaker_settle(&b, host, trial, false, &event);
    breaker_settle(&b, host, 0, true, &event); /* 1 of 1: below the minimum of 2 */
    assert_int_equal(b.state, C);
    breaker_settle(&b, host, 0, true, &event);
    assert_int_equal(b.state, O);
    breaker_close(&b);
}

static void without_a_window_it_never_opens(void **state)
{
    struct breaker b;
    uint64_t trial;
    int64_t retry_ns;
    int event;
    const struct lathe_host *host = fake_host_init(&fake);
    (void)state;
    breaker_open(&b, &(struct breaker_options){ .window = 0, .minimum = 1, .share = 0.5, .open_ns = 1 });
    for (int i = 0; i < 1000; i++) {
        breaker_settle(&b, host, 0, true, &event);
        assert_int_equal(event, 0);
        assert_true(breaker_admit(&b, host, &trial, &retry_ns, &event));
    }
    breaker_close(&b);
}

/* Random answers, beside an array of the last `window` of them. */
static void the_window_counts_as_an_array_does(void **state)
{
    const struct lathe_host *host = fake_host_init(&fake);
    (void)state;
    for (uint32_t round = 0; round < 400; round++) {
        uint64_t draw = lathe_random_u64(3, LATHE_RANDOM_USER, round, 0);
        struct breaker_options o = { .window = 1 + (uint32_t)(draw % 64), .open_ns = 1 };
        bool past[300];
        int event, opened = 0;
        struct breaker b;
        o.minimum = 1 + (uint32_t)((draw >> 8) % o.window);
        o.share = (double)(1 + (draw >> 16) % 100) / 100;
        breaker_open(&b, &o);
        double share_failing = (double)((draw >> 24) % 100) / 100;
        for (uint32_t n = 0; n < 300 && !opened; n++) {
            uint32_t failures = 0, seen = n + 1 < o.window ? n + 1 : o.window;
            past[n] = lathe_random_unit(3, LATHE_RANDOM_USER, round, n + 1) < share_failing;
            for (uint32_t i = 0; i < seen; i++)
                failures += past[n - i];
            breaker_settle(&b, host, 0, past[n], &event);
            opened = event == LATHE_BUS_BREAKER_OPENED;
            /* It opens at a failure; after a success the share can only have fallen, or a failure
             * of before have met the minimum, which the next failure notices. */
            int due = past[n] && seen >= o.minimum && (double)failures >= o.share * seen - 1e-9;
            assert_int_equal(opened, due);
        }
        breaker_close(&b);
    }
}

static void passing_reasons_and_broken_promises_are_failures(void **state)
{
    static const int failures[] = { LATHE_EIO, LATHE_EBUSY, LATHE_EUNAVAILABLE, LATHE_ENOMEM, LATHE_EINTERNAL,
                                    LATHE_EDEADLINE, LATHE_ELOST };
    (void)state;
    for (int status = 0; status >= LATHE_ELOST; status--) {
        int expected = 0;
        for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
            expected |= failures[i] == status;
        assert_int_equal(breaker_is_failure(status), expected);
    }
    assert_true(breaker_is_failure(1));
}

/* ── Several threads ────────────────────────────────────────────────────────────────── */

enum { THREADS = 4 };
static struct breaker shared;
static _Atomic uint32_t trials, refusals, ready;

static void *ask(void *unused)
{
    uint64_t trial;
    int64_t retry_ns;
    int event;
    (void)unused;
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < THREADS)
        ;
    if (breaker_admit(&shared, &fake.counting.host, &trial, &retry_ns, &event))
        atomic_fetch_add(trial ? &trials : &refusals, trial ? 1 : 1000);
    else
        atomic_fetch_add(&refusals, 1);
    return NULL;
}

static void of_threads_that_ask_at_once_one_is_the_trial(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        pthread_t threads[THREADS];
        uint64_t none;
        reach(&shared, O, &none);
        fake.time_ns += OPEN_NS;
        trials = refusals = ready = 0;
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, ask, NULL), 0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(trials, 1);
        assert_int_equal(refusals, THREADS - 1);
        breaker_close(&shared);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_of_the_table),
        cmocka_unit_test(an_open_breaker_says_when_to_ask_again),
        cmocka_unit_test(a_forgotten_trial_lets_another_be_tried),
        cmocka_unit_test(a_closed_breaker_has_forgotten_the_past),
        cmocka_unit_test(without_a_window_it_never_opens),
        cmocka_unit_test(the_window_counts_as_an_array_does),
        cmocka_unit_test(passing_reasons_and_broken_promises_are_failures),
        cmocka_unit_test(of_threads_that_ask_at_once_one_is_the_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

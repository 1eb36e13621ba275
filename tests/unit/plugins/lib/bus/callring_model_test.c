/* SPDX-License-Identifier: MIT */
/* The ring's own code under a simulator of C11's memory model (tests/support/weak_memory.h):
 * over many random schedules every call is answered once, with its own answer, nothing is
 * torn and nobody sleeps for ever. Then the same with one ordering taken away at a time: each
 * must be missed, so nothing in callring.c is stronger than it needs to be, and the simulator
 * can see.
 *
 *     callring_model_test [schedules] */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <support/weak_memory.h>

#define CALLRING_LOAD(word, order) wm_load(word, order, __func__, #word)
#define CALLRING_STORE(word, value, order) wm_store(word, value, order, __func__, #word)
#define CALLRING_CAS(word, expected, value, order) wm_cas(word, expected, value, order)
#define CALLRING_ADD(word, value, order) wm_add(word, value, order, __func__, #word)
#define CALLRING_FENCE() wm_fence(__func__)
#define CALLRING_FUTEX_WAIT(word, value, timeout_ns, shared) \
    ((void)(timeout_ns), (void)(shared), wm_futex_wait(word, value))
#define CALLRING_FUTEX_WAKE(word, count, shared) ((void)(shared), wm_futex_wake(word, count, __func__))
#define CALLRING_NOW() (wm.now_ns += 30)
#define CALLRING_LOOK() wm_schedule()
#define CALLRING_RELAX() wm_schedule()
#define CALLRING_YIELD() wm_schedule()

#include <bus/callring.c>

enum { CALLERS = 2, WORKERS = 2, CALLS = 4, CAPACITY = 4 };

static struct {
    alignas(64) unsigned char memory[sizeof(struct callring) + CAPACITY * sizeof(struct callring_cell)];
    struct callring *ring;
    _Atomic uint32_t stop, met; /* only simulated */
    uint32_t unfinished, served[CALLERS * CALLS];
    uint32_t calls, batch;
    int64_t spin_ns;
    bool rendezvous;            /* calls are done in pairs that wait for each other */
} office;

static uint64_t plain_read(const uint64_t *word)
{
    wm_plain_access(word, false);
    return *word;
}

static void plain_write(uint64_t *word, uint64_t value)
{
    wm_plain_access(word, true);
    *word = value;
}

static void caller(void *argument)
{
    uint64_t number = (uint64_t)(uintptr_t)argument * office.calls;
    for (uint32_t done = 0, n; done < office.calls; done += n) {
        uint32_t first, left = office.calls - done;
        while (!(n = callring_take_many(office.ring, office.batch < left ? office.batch : left, &first)))
            wm_schedule();
        for (uint32_t i = 0; i < n; i++) {
            plain_write(&callring_cell(office.ring, first + i)->words[0], number + done + i);
            callring_fill(office.ring, first + i, office.batch > 1);
        }
        if (office.batch > 1)
            callring_ring(office.ring, n);
        for (uint32_t i = 0; i < n; i++) {
            callring_wait(office.ring, first + i, office.spin_ns, -1);
            if (plain_read(&callring_cell(office.ring, first + i)->words[1]) != (number + done + i) * 3 + 1) {
                wm_fail("a caller got another one's answer");
                return;
            }
            callring_collect(office.ring, first + i);
        }
    }
    if (--office.unfinished == 0) {
        CALLRING_STORE(&office.stop, 1, memory_order_release);
        callring_ring(office.ring, WORKERS);
    }
}

/* Until an even number of calls was begun. */
static void meet(void)
{
    uint32_t mine = CALLRING_ADD(&office.met, 1, memory_order_acq_rel), now;
    CALLRING_FUTEX_WAKE(&office.met, WORKERS, 0);
    while ((now = CALLRING_LOAD(&office.met, memory_order_acquire)) < (mine | 1) + 1)
        CALLRING_FUTEX_WAIT(&office.met, now, -1, 0);
}

static void worker(void *argument)
{
    (void)argument;
    while (!CALLRING_LOAD(&office.stop, memory_order_acquire)) {
        uint32_t position;
        struct callring_cell *cell = callring_next(office.ring, &position);
        uint64_t number;
        if (!cell) {
            callring_idle(office.ring, office.spin_ns, -1, &office.stop);
            continue;
        }
        number = plain_read(&cell->words[0]);
        if (number >= CALLERS * office.calls || office.served[number]++) {
            wm_fail("a call was worked on twice, or one that nobody made");
            return;
        }
        if (office.rendezvous)
            meet();
        plain_write(&cell->words[1], number * 3 + 1);
        callring_answer(office.ring, position);
    }
}

struct scenario {
    const char *name;
    uint32_t calls, batch;
    int64_t spin_ns;
    bool rendezvous, spurious;
};

static const struct scenario scenarios[] = {
    { "sleeping at once", 3, 1, 0, false, false },
    { "spinning first", 3, 1, 60, false, false },
    { "in batches", 4, 2, 0, false, false },
    { "pairs that wait for each other", 1, 1, 0, true, false },
    { "waking for no reason", 3, 1, 0, false, true },
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

static const char *run_once(const struct scenario *s, uint64_t seed, const struct wm_mutation *mutation)
{
    const char *failure;
    wm_begin(seed, mutation);
    wm.spurious = s->spurious;
    memset(office.served, 0, sizeof office.served);
    office.ring = (struct callring *)(void *)office.memory;
    office.unfinished = CALLERS;
    office.calls = s->calls;
    office.batch = s->batch;
    office.spin_ns = s->spin_ns;
    office.rendezvous = s->rendezvous;
    callring_init(office.ring, CAPACITY, 0);
    for (uintptr_t i = 0; i < CALLERS; i++)
        wm_start(caller, (void *)i);
    for (uintptr_t i = 0; i < WORKERS; i++)
        wm_start(worker, NULL);
    failure = wm_run();
    for (uint32_t i = 0; !failure && i < CALLERS * s->calls; i++)
        failure = office.served[i] == 1 ? NULL : "a call was lost";
    return failure;
}

static uint64_t schedules = 100000;

static void every_call_is_answered_once_on_every_schedule(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < schedules; i++) {
        const struct scenario *s = &scenarios[i % SCENARIOS];
        const char *failure = run_once(s, i, NULL);
        if (failure)
            fail_msg("schedule %llu (%s): %s", (unsigned long long)i, s->name, failure);
    }
}

static void misses_each_ordering_that_is_taken_away(void **state)
{
    static const struct wm_mutation mutations[] = {
        { "callring_take_many", "load", "&callring_cell(ring, p + n)->turn", WM_RELAXED },
        { "callring_fill", "store", NULL, WM_RELAXED },
        { "callring_ring", "fence", NULL, WM_DROPPED },
        { "callring_ring", "wake", NULL, WM_DROPPED },
        { "callring_answered", "load", NULL, WM_RELAXED },
        { "callring_wait", "fence", NULL, WM_DROPPED },
        { "callring_collect", "store", NULL, WM_RELAXED },
        { "callring_next", "load", "&cell->turn", WM_RELAXED },
        { "callring_next", "load", "&ring->sleepers", WM_READS_ZERO }, /* doesn't wake a colleague */
        { "callring_idle", "fence", NULL, WM_DROPPED },
        { "callring_answer", "store", NULL, WM_RELAXED },
        { "callring_answer", "fence", NULL, WM_DROPPED },
        { "callring_answer", "wake", NULL, WM_DROPPED },
    };
    (void)state;
    for (size_t m = 0; m < sizeof mutations / sizeof *mutations; m++) {
        const char *failure = NULL;
        uint64_t i = 0;
        while (i < schedules && !(failure = run_once(&scenarios[i % SCENARIOS], i, &mutations[m])))
            i++;
        if (!failure)
            fail_msg("%s without its %s: %llu schedules saw nothing", mutations[m].function, mutations[m].operation,
                     (unsigned long long)i);
        print_message("    %-18s without its %-5s: schedule %5llu, %s\n", mutations[m].function,
                      mutations[m].operation, (unsigned long long)i, failure);
    }
}

/* --- the simulator itself: store buffering, with and without fences ------------------------- */

static _Atomic uint32_t left_word, right_word;
static uint32_t saw[2];
static bool fenced;

static void litmus(void *argument)
{
    bool left = argument != NULL;
    wm_store(left ? &left_word : &right_word, 1, memory_order_relaxed, __func__, "");
    if (fenced)
        wm_fence(__func__);
    saw[left] = wm_load(left ? &right_word : &left_word, memory_order_relaxed, __func__, "");
}

static int times_both_saw_nothing(bool with_fences)
{
    int times = 0;
    fenced = with_fences;
    for (uint64_t i = 0; i < 10000; i++) {
        wm_begin(i, NULL);
        wm_start(litmus, NULL);
        wm_start(litmus, &saw);
        assert_null(wm_run());
        times += saw[0] == 0 && saw[1] == 0;
    }
    return times;
}

static void the_simulator_reorders_stores_and_loads_unless_fenced(void **state)
{
    (void)state;
    assert_true(times_both_saw_nothing(false) > 100);
    assert_int_equal(times_both_saw_nothing(true), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_simulator_reorders_stores_and_loads_unless_fenced),
        cmocka_unit_test(every_call_is_answered_once_on_every_schedule),
        cmocka_unit_test(misses_each_ordering_that_is_taken_away),
    };
#if defined __SANITIZE_THREAD__
    return 77; /* one real thread, on stacks that ThreadSanitizer doesn't know */
#elif defined __SANITIZE_ADDRESS__
    schedules = 20000;
#endif
    if (argc > 1)
        schedules = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests_name("callring_model", tests, NULL, NULL);
}

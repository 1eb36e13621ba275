/* SPDX-License-Identifier: MIT */
/* A scheduler written in Lua decides what its C twin decides: both are driven side by side through
 * thousands of random steps, and every ranking and every victim is compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lathe/random.h>

#include "policy_fixture.h"

enum { STEPS = 6000 };

struct world {
    struct lathe_request slots[PLACES];
    const struct lathe_request *live[PLACES];
    struct lathe_step_view view;
    uint64_t next_id;
    int64_t now_ns;
    uint32_t draws, seed;
};

static uint32_t roll(struct world *w, uint32_t below)
{
    return (uint32_t)(lathe_random_u64(w->seed, LATHE_RANDOM_USER, 0, w->draws++) % below);
}

static int lives(const struct lathe_request *r)
{
    return r->id && r->state != LATHE_REQUEST_FINISHED;
}

static void look(struct world *w)
{
    w->view = (struct lathe_step_view){ .size = sizeof w->view, .live = w->live, .now_ns = w->now_ns,
                                        .step = w->view.step + 1, .max_batch_tokens = 64, .max_batch_requests = 4,
                                        .blocks_available = 50, .blocks_total = 100, .block_tokens = 16 };
    for (uint32_t i = 0; i < PLACES; i++) {
        if (!lives(&w->slots[i]))
            continue;
        w->live[w->view.live_count++] = &w->slots[i];
        w->view.running += w->slots[i].state == LATHE_REQUEST_RUNNING;
    }
    w->view.waiting = w->view.live_count - w->view.running;
}

/* Few different lengths and times, so that ties are common. */
static struct lathe_request *arrive(struct world *w)
{
    uint32_t index = roll(w, PLACES);
    struct lathe_request *r = &w->slots[index];
    if (lives(r))
        return NULL;
    *r = (struct lathe_request){ .size = sizeof *r, .index = index, .id = ++w->next_id, .state = LATHE_REQUEST_WAITING,
                                 .priority = (int32_t)roll(w, 3) - 1, .planned_ns = w->now_ns - (int64_t)roll(w, 3),
                                 .arrival_ns = w->now_ns, .admitted_ns = -1, .first_token_ns = -1, .deadline_ns = INT64_MAX,
                                 .prompt_tokens = 1 + roll(w, 12), .max_output_tokens = 1 + roll(w, 8) };
    r->predicted_output_tokens = roll(w, 3) ? r->max_output_tokens : 0;
    return r;
}

static void preempt(struct lathe_request *r)
{
    r->state = LATHE_REQUEST_PREEMPTED;
    r->computed_tokens = 0;
    r->preemptions++;
}

static void compare(struct world *w, struct scheduler *a, struct scheduler *b, struct ranked *of_a, struct ranked *of_b)
{
    struct lathe_error err = { 0 };
    look(w);
    assert_int_equal(scheduler_rank(a, &w->view, of_a, &err), LATHE_OK);
    if (scheduler_rank(b, &w->view, of_b, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    assert_int_equal(of_a->ranking.count, of_b->ranking.count);
    for (uint32_t i = 0; i < of_a->ranking.count; i++)
        if (of_a->requests[i] != of_b->requests[i])
            fail_msg("step %llu, place %u: request %llu in C, %llu in Lua", (unsigned long long)w->view.step, i,
                     (unsigned long long)of_a->requests[i]->id, (unsigned long long)of_b->requests[i]->id);
    assert_int_equal(of_a->ranking.preempt_count, of_b->ranking.preempt_count);
    assert_true(of_a->ranking.wake_ns == of_b->ranking.wake_ns);
}

static void compare_victims(struct world *w, struct scheduler *a, struct scheduler *b)
{
    look(w);
    if (!w->view.live_count)
        return;
    const struct lathe_request *needy = w->live[roll(w, w->view.live_count)];
    const struct lathe_request *victim = a->api->victim(a->self, &w->view, needy);
    assert_ptr_equal(victim, b->api->victim(b->self, &w->view, needy));
    if (victim)
        preempt(&w->slots[victim->index]);
}

static void retire(struct world *w, struct scheduler *a, struct scheduler *b, struct lathe_request *r)
{
    (void)w;
    r->state = LATHE_REQUEST_FINISHED;
    a->api->retire(a->self, r);
    b->api->retire(b->self, r);
}

static void progress(struct world *w, struct scheduler *a, struct scheduler *b, const struct ranked *order)
{
    for (uint32_t i = 0; i < order->ranking.count && i < 4; i++) {
        struct lathe_request *r = &w->slots[order->requests[i]->index];
        uint32_t tokens = lathe_request_pending(r) < 5 ? lathe_request_pending(r) : 5;
        if (r->admitted_ns < 0)
            r->admitted_ns = w->now_ns;
        r->state = LATHE_REQUEST_RUNNING;
        r->computed_tokens += tokens;
        if (a->api->progress)
            a->api->progress(a->self, r, tokens);
        if (b->api->progress)
            b->api->progress(b->self, r, tokens);
        if (lathe_request_pending(r) == 0 && ++r->output_tokens >= r->max_output_tokens)
            retire(w, a, b, r);
    }
}

static void drive(const char *twin, const char *const *twin_settings, const char *const *policy, uint32_t seed)
{
    struct lathe_error err = { 0 };
    struct world w = { .seed = seed, .now_ns = 1000 };
    struct ranked of_a, of_b;
    struct scheduler a, b;
    assert_int_equal(scheduler_open(&a, twin, twin_settings, &err), LATHE_OK);
    if (scheduler_open(&b, "lua", policy, &err) != LATHE_OK)
        fail_msg("%s", err.message);
    for (int step = 0; step < STEPS; step++) {
        struct lathe_request *r = roll(&w, 2) == 0 ? arrive(&w) : NULL;
        if (r) {
            assert_int_equal(a.api->admit(a.self, r, &err), LATHE_OK);
            assert_int_equal(b.api->admit(b.self, r, &err), LATHE_OK);
        }
        if (roll(&w, 12) == 0)
            compare_victims(&w, &a, &b);
        r = &w.slots[roll(&w, PLACES)];
        if (roll(&w, 40) == 0 && lives(r))
            retire(&w, &a, &b, r); /* cancelled */
        compare(&w, &a, &b, &of_a, &of_b);
        progress(&w, &a, &b, &of_a);
        w.now_ns += roll(&w, 3);
    }
    assert_true(w.next_id > 500);
    assert_int_equal(scheduler_close(&a), 0);
    assert_int_equal(scheduler_close(&b), 0);
}

#define POLICIES TEST_SOURCE "/experiments/policies/"

static void fcfs_in_lua_is_fcfs(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 3; seed++)
        drive("fcfs", NULL, (const char *const[]){ "file", POLICIES "fcfs.lua", NULL }, seed);
}

static void sjf_in_lua_is_sjf(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 3; seed++)
        drive("sjf", NULL, (const char *const[]){ "file", POLICIES "sjf.lua", NULL }, seed);
}

static void sjf_with_an_option_is_sjf_with_it(void **state)
{
    (void)state;
    drive("sjf", (const char *const[]){ "preemptive", "true", NULL },
          (const char *const[]){ "file", POLICIES "sjf.lua", "options", "preemptive=true", NULL }, 4);
}

/* The other way to write it: the whole ranking, and the victim, in Lua. */
static void a_whole_ranking_is_the_same_as_a_key(void **state)
{
    drive("sjf", NULL, (const char *const[]){ "file", POLICIES "sjf_rank.lua", NULL }, 6);
    static const char text[] =
        "local function before(a, b)\n"
        "  local running = a.state == 'running'\n"
        "  if running ~= (b.state == 'running') then return running end\n"
        "  if running and a.admitted ~= b.admitted then return a.admitted < b.admitted end\n"
        "  if a.planned ~= b.planned then return a.planned < b.planned end\n"
        "  return a.id < b.id\n"
        "end\n"
        "return {\n"
        "  rank = function(view, requests) table.sort(requests, before) return requests end,\n"
        "  victim = function(running) table.sort(running, before) return running[#running] end,\n"
        "}\n";
    (void)state;
    drive("fcfs", NULL, (const char *const[]){ "text", text, NULL }, 5);
}

static void srpt_climbs_as_it_runs(void **state)
{
    struct lathe_error err = { 0 };
    struct scheduler s;
    struct ranked r;
    struct lathe_step_view view = { .size = sizeof view };
    struct lathe_request jobs[] = { { .index = 0, .id = 1, .state = LATHE_REQUEST_WAITING, .prompt_tokens = 50,
                                      .predicted_output_tokens = 10 },
                                    { .index = 1, .id = 2, .state = LATHE_REQUEST_WAITING, .prompt_tokens = 20,
                                      .predicted_output_tokens = 10 } };
    (void)state;
    assert_int_equal(scheduler_open(&s, "lua", (const char *const[]){ "file", POLICIES "srpt.lua", NULL }, &err), LATHE_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(s.api->admit(s.self, &jobs[i], &err), LATHE_OK);
    assert_int_equal(scheduler_rank(&s, &view, &r, &err), LATHE_OK);
    assert_ptr_equal(r.requests[0], &jobs[1]);
    jobs[0].computed_tokens = 45;
    jobs[0].state = LATHE_REQUEST_RUNNING;
    s.api->progress(s.self, &jobs[0], 45);
    assert_int_equal(scheduler_rank(&s, &view, &r, &err), LATHE_OK);
    assert_ptr_equal(r.requests[0], &jobs[0]);
    assert_int_equal(scheduler_close(&s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fcfs_in_lua_is_fcfs),
        cmocka_unit_test(sjf_in_lua_is_sjf),
        cmocka_unit_test(sjf_with_an_option_is_sjf_with_it),
        cmocka_unit_test(a_whole_ranking_is_the_same_as_a_key),
        cmocka_unit_test(srpt_climbs_as_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "world.h"

const struct lathe_scheduler_api *api;

static int always(void *engine, const struct lathe_request *req, uint32_t tokens)
{
    (void)engine, (void)req, (void)tokens;
    return 1;
}

/* Some of each prompt, but nothing of request 1, whom starves_nobody_if_it_says_so watches. */
static uint32_t cached(void *engine, const struct lathe_request *req)
{
    (void)engine;
    return req->id == 1 ? 0 : 1 + (uint32_t)(req->id * 7919 % req->prompt_tokens);
}

void *open_scheduler(struct subject *s, struct world *w)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = SLOTS, .seed = 11,
                                             .cached_prefix = 1 };
    struct lathe_error err = { 0 };
    void *self = subject_create(s);
    api = (const void *)s->head;
    CHECK_OK(api->bind(self, &limits, &err), &err);
    w->promised = api->size >= offsetof(struct lathe_scheduler_api, promises) + sizeof(void *) && api->promises
                      ? api->promises(self)
                      : 0;
    w->step_ns = 500;
    return self;
}

struct lathe_request *arrive(struct world *w, struct dice *d)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct lathe_request *r = &w->slots[i];
        if (r->id && r->state != LATHE_REQUEST_FINISHED)
            continue;
        *r = (struct lathe_request){ .size = sizeof *r, .index = i, .id = ++w->next_id, .state = LATHE_REQUEST_WAITING,
                                     .priority = (int32_t)roll(d, 3) - 1, .tenant = roll(d, 3), .class_id = roll(d, 2),
                                     .planned_ns = w->now_ns - (int64_t)roll(d, 1000), .arrival_ns = w->now_ns,
                                     .admitted_ns = -1, .first_token_ns = -1, .prompt_tokens = 1 + roll(d, 60),
                                     .deadline_ns = roll(d, 2) ? INT64_MAX : w->now_ns + roll(d, 100000),
                                     .slo_ttft_ns = roll(d, 2) ? 20000 : 0, .slo_tpot_ns = roll(d, 2) ? 2000 : 0,
                                     .weight = roll(d, 2) ? 1500 : 0, .max_output_tokens = 1 + roll(d, 20) };
        r->predicted_output_tokens = roll(d, 3) ? r->max_output_tokens : 0;
        return r;
    }
    return NULL;
}

void world_look(struct world *w)
{
    uint32_t running = 0;
    w->live_count = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (w->slots[i].id && w->slots[i].state != LATHE_REQUEST_FINISHED)
            w->live[w->live_count++] = &w->slots[i];
        running += w->slots[i].id && w->slots[i].state == LATHE_REQUEST_RUNNING;
    }
    w->view = (struct lathe_step_view){ .size = sizeof w->view, .live_count = w->live_count, .live = w->live,
                                        .now_ns = w->now_ns, .step = w->step, .waiting = w->live_count - running,
                                        .running = running, .max_batch_tokens = 64, .max_batch_requests = PLACES,
                                        .blocks_available = 100, .blocks_total = 100, .block_tokens = 16,
                                        .ranking_wanted = w->wanted, .can_reserve = always,
                                        .cached_prefix = w->blind ? NULL : cached };
}

/* Lives, and comes once. */
static void each_is_somebody(const struct world *w)
{
    for (uint32_t i = 0; i < w->ranking.count; i++) {
        uint32_t k = 0;
        while (k < w->live_count && w->live[k] != w->ranked[i])
            k++;
        CHECK(k < w->live_count, "rank %u is nobody who lives", i);
        for (uint32_t j = 0; j < i; j++)
            CHECK(w->ranked[i] != w->ranked[j], "request %llu is ranked twice", (unsigned long long)w->ranked[i]->id);
    }
}

static void keeps_its_promises(const struct world *w)
{
    uint32_t running = 0, in_front = 0, others = 0;
    for (uint32_t i = 0; i < w->ranking.count; i++) {
        if (w->ranked[i]->state == LATHE_REQUEST_RUNNING) {
            running++;
            in_front += others == 0;
        } else {
            others++;
        }
    }
    if (w->promised & LATHE_PROMISE_NO_PREEMPTION) {
        CHECK(w->ranking.preempt_count == 0, "it promised to preempt nobody and named %u", w->ranking.preempt_count);
        CHECK(running == w->view.running, "it promised to preempt nobody: %u run, %u of them are ranked",
              w->view.running, running);
        CHECK(in_front == running, "it promised to preempt nobody: %u that run stand behind some that don't",
              running - in_front);
    }
    if (w->promised & LATHE_PROMISE_WORK_CONSERVING) {
        uint32_t useful = w->wanted && w->wanted < w->view.waiting ? w->wanted : w->view.waiting;
        CHECK(others >= useful, "it promised never to idle: %u wait, %u were wanted, %u are ranked", w->view.waiting,
              w->wanted, others);
        CHECK(w->live_count == 0 || w->ranking.count > 0, "it promised never to idle: %u live, none is ranked",
              w->live_count);
    }
}

void world_rank(struct world *w, void *self)
{
    struct lathe_error err = { 0 };
    world_look(w);
    w->ranking = (struct lathe_ranking){ .capacity = SLOTS, .requests = w->ranked, .preempt_capacity = SLOTS,
                                         .preempt = w->preempt, .wake_ns = INT64_MAX };
    CHECK_OK(api->rank(self, &w->view, &w->ranking, &err), &err);
    CHECK(w->ranking.count <= w->live_count, "%u ranked, %u live", w->ranking.count, w->live_count);
    each_is_somebody(w);
    CHECK(w->ranking.preempt_count <= SLOTS, "%u to preempt", w->ranking.preempt_count);
    for (uint32_t i = 0; i < w->ranking.preempt_count; i++)
        CHECK(w->preempt[i]->state == LATHE_REQUEST_RUNNING, "one that doesn't run is to be preempted");
    CHECK(w->live_count == 0 || w->ranking.count > 0 || w->ranking.wake_ns < INT64_MAX,
          "%u live, none ranked, and no time to ask again", w->live_count);
    keeps_its_promises(w);
}

void world_preempt(struct lathe_request *r)
{
    r->state = LATHE_REQUEST_PREEMPTED;
    r->computed_tokens = 0;
    r->preemptions++;
}

void world_finish(void *self, struct lathe_request *r)
{
    r->state = LATHE_REQUEST_FINISHED;
    api->retire(self, r);
}

/* The first PLACES of the ranking get what they have pending, up to 32 tokens. */
void world_step(struct world *w, void *self)
{
    for (uint32_t i = 0; i < w->ranking.preempt_count; i++)
        world_preempt(&w->slots[w->preempt[i]->index]);
    for (uint32_t i = 0, given = 0; i < w->ranking.count && given < PLACES; i++) {
        struct lathe_request *r = &w->slots[w->ranked[i]->index];
        uint32_t tokens = lathe_request_pending(r) < 32 ? lathe_request_pending(r) : 32;
        given++;
        if (r->admitted_ns < 0)
            r->admitted_ns = w->now_ns;
        r->state = LATHE_REQUEST_RUNNING;
        r->computed_tokens += tokens;
        if (api->progress)
            api->progress(self, r, tokens);
        if (lathe_request_pending(r) > 0)
            continue;
        if (++r->output_tokens == 1)
            r->first_token_ns = w->now_ns + w->step_ns;
        if (r->output_tokens >= r->max_output_tokens)
            world_finish(self, r);
    }
    w->step++;
    w->now_ns += w->step_ns;
}

void world_drain(struct world *w, void *self, int most)
{
    while (world_rank(w, self), w->live_count > 0) {
        CHECK(most-- > 0, "request %llu never ends", (unsigned long long)w->live[0]->id);
        world_step(w, self);
    }
}

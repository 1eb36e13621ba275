/* SPDX-License-Identifier: MIT */
/* What every scheduler must keep, seen by an engine in miniature (scheduler/world.h): requests
 * arrive at random, the first of the ranking get tokens, now and then memory is short and somebody
 * is preempted or a request is taken back. What it promises is in scheduler/promises.c. */
#include "scheduler/world.h"

enum { ROUNDS = 4000 };

static void victim(struct world *w, void *self, struct dice *d)
{
    const struct lathe_request *needy, *v;
    world_look(w);
    if (!w->live_count)
        return;
    needy = w->live[roll(d, w->live_count)];
    v = api->victim(self, &w->view, needy);
    CHECK(!v || (v >= w->slots && v < w->slots + SLOTS && v->state == LATHE_REQUEST_RUNNING),
          "the victim doesn't run");
    if (v)
        world_preempt(&w->slots[v->index]);
}

static void ranks_only_the_living_and_ends_all(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 31 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s, w);

    for (uint32_t rounds = 0; rounds < ROUNDS; rounds++) {
        struct lathe_request *r;
        if (roll(&d, 8) == 0 && (r = arrive(w, &d)))
            CHECK_OK(api->admit(self, r, &err), &err);
        if (roll(&d, 10) == 0)
            victim(w, self, &d);
        if (roll(&d, 30) == 0) {
            r = &w->slots[roll(&d, SLOTS)];
            if (r->id && r->state != LATHE_REQUEST_FINISHED)
                world_finish(self, r); /* cancelled */
        }
        world_rank(w, self);
        world_step(w, self);
    }
    world_drain(w, self, 5000); /* nobody arrives any more: all must end */
    CHECK(w->next_id > 100, "%llu requests only", (unsigned long long)w->next_id);
    api->destroy(self);
    free(w);
}

static void ranks_the_same_requests_the_same_way(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct world *w = calloc(2, sizeof *w);
    for (int k = 0; k < 2; k++) {
        struct dice d = { .seed = 5 };
        void *self = open_scheduler(s, &w[k]);
        for (int i = 0; i < 12; i++)
            CHECK_OK(api->admit(self, arrive(&w[k], &d), &err), &err);
        for (int i = 0; i < 5; i++) {
            world_rank(&w[k], self);
            world_step(&w[k], self);
        }
        world_rank(&w[k], self);
        api->destroy(self);
    }
    CHECK(w[0].ranking.count == w[1].ranking.count, "%u and %u", w[0].ranking.count, w[1].ranking.count);
    for (uint32_t i = 0; i < w[0].ranking.count; i++)
        CHECK(w[0].ranked[i]->id == w[1].ranked[i]->id, "rank %u differs between two equal runs", i);
    free(w);
}

/* Waiting, running, preempted and swapped ones. */
static void takes_over_the_live_requests_of_another(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 6 };
    struct world *w = calloc(1, sizeof *w);
    void *before = open_scheduler(s, w), *after;
    uint32_t running = 0;
    for (int i = 0; i < 15; i++)
        CHECK_OK(api->admit(before, arrive(w, &d), &err), &err);
    for (int i = 0; i < 4; i++) {
        world_rank(w, before);
        world_step(w, before);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (w->slots[i].state != LATHE_REQUEST_RUNNING)
            continue;
        if (running == 0)
            world_preempt(&w->slots[i]);
        else if (running == 1)
            w->slots[i].state = LATHE_REQUEST_SWAPPED;
        running++;
    }
    CHECK(running > 1, "%u run", running);
    after = open_scheduler(s, w);
    world_look(w);
    for (uint32_t i = 0; i < w->live_count; i++)
        CHECK_OK(api->admit(after, w->live[i], &err), &err);
    api->destroy(before);
    world_drain(w, after, 5000);
    api->destroy(after);
    free(w);
}

static void names_no_victim_among_those_that_wait(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 8 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s, w);
    struct lathe_request *a = arrive(w, &d), *b = arrive(w, &d);
    CHECK_OK(api->admit(self, a, &err), &err);
    CHECK_OK(api->admit(self, b, &err), &err);
    world_look(w);
    CHECK(!api->victim(self, &w->view, a), "a victim among waiting requests");
    a->state = LATHE_REQUEST_RUNNING;
    world_look(w);
    CHECK(api->victim(self, &w->view, a) == NULL, "one that runs alone gives way to itself for ever");
    api->destroy(self);
    free(w);
}

/* Retiring who was never admitted leaves who has its index alone; a retired index is free. */
static void ignores_strangers_and_forgets_the_retired(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 10 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s, w);
    struct lathe_request *r = arrive(w, &d), stranger = *r;
    api->retire(self, r);
    CHECK_OK(api->admit(self, r, &err), &err);
    api->retire(self, &stranger);
    world_rank(w, self);
    CHECK(w->ranking.count == 1 && w->ranked[0] == r, "a stranger's end took another's place");
    api->retire(self, r);
    CHECK_OK(api->admit(self, &stranger, &err), &err);
    r->state = LATHE_REQUEST_FINISHED;
    api->retire(self, &stranger);
    world_rank(w, self);
    CHECK(w->ranking.count == 0, "%u ranked, none live", w->ranking.count);
    api->destroy(self);
    free(w);
}

static void fits_a_small_ranking_and_explains_itself(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 9 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s, w);
    char text[200], small[5] = "xxxx";
    const struct lathe_request *out[4] = { NULL, NULL, NULL, NULL };
    for (int i = 0; i < 10; i++)
        CHECK_OK(api->admit(self, arrive(w, &d), &err), &err);
    world_look(w);
    w->ranking = (struct lathe_ranking){ .capacity = 3, .requests = out, .preempt = w->preempt,
                                         .preempt_capacity = SLOTS };
    CHECK_OK(api->rank(self, &w->view, &w->ranking, &err), &err);
    CHECK(w->ranking.count <= 3 && !out[3], "%u written where 3 fit", w->ranking.count);
    if (api->explain) {
        for (uint32_t i = 0; i < w->live_count; i++) {
            int length = api->explain(self, w->live[i], text, sizeof text);
            CHECK(length > 0 && strlen(text) == (size_t)length && !strchr(text, '\n'), "explained as '%s'", text);
            CHECK(api->explain(self, w->live[i], small, 4) == length && !small[3], "a small buffer");
        }
        api->retire(self, w->live[0]);
        CHECK(api->explain(self, w->live[0], text, sizeof text) > 0, "nothing is said of one that isn't there");
    }
    api->destroy(self);
    free(w);
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = SLOTS, .seed = 1,
                                             .cached_prefix = 1 };
    struct dice d = { .seed = 1 };
    struct world *w = calloc(1, sizeof *w);
    struct lathe_request *r = arrive(w, &d);
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status == LATHE_OK) {
        if ((status = api->bind(self, &limits, err)) == LATHE_OK && (status = api->admit(self, r, err)) == LATHE_OK) {
            size_t calls = atomic_load(&s->host.calls);
            world_rank(w, self);
            world_step(w, self);
            CHECK(atomic_load(&s->host.calls) == calls, "memory was taken inside the step loop");
            api->retire(self, r);
        }
        api->destroy(self);
    }
    free(w);
    return status;
}

int main(int argc, char **argv)
{
#define BEHAVIOUR(name) { #name, name }
    static const struct behaviour behaviours[] = {
        BEHAVIOUR(ranks_only_the_living_and_ends_all),
        BEHAVIOUR(ranks_the_same_requests_the_same_way),
        BEHAVIOUR(takes_over_the_live_requests_of_another),
        BEHAVIOUR(names_no_victim_among_those_that_wait),
        BEHAVIOUR(ignores_strangers_and_forgets_the_retired),
        BEHAVIOUR(fits_a_small_ranking_and_explains_itself),
        BEHAVIOUR(ranks_what_is_wanted_best_first),
        BEHAVIOUR(starves_nobody_if_it_says_so),
        BEHAVIOUR(does_without_cached_prefixes_or_refuses),
    };
    return conformance(argc, argv, LATHE_KIND_SCHEDULER, LATHE_SCHEDULER_ABI,
                       offsetof(struct lathe_scheduler_api, retire) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

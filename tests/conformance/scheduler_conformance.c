/* SPDX-License-Identifier: MIT */
/* What every scheduler must keep, seen by an engine in miniature: requests arrive at random,
 * the first of the ranking get tokens, now and then memory is short and somebody is preempted
 * or a request is taken back. Requests live in slots that are used again. */
#include <lathe/scheduler.h>

#include "harness.h"

enum { SLOTS = 24, ROUNDS = 4000, PLACES = 4 };

static const struct lathe_scheduler_api *api;

struct world {
    struct lathe_request slots[SLOTS];
    const struct lathe_request *live[SLOTS];
    uint32_t live_count;
    uint64_t next_id, step;
    int64_t now_ns;
    struct lathe_step_view view;
    const struct lathe_request *ranked[SLOTS], *preempt[SLOTS];
    struct lathe_ranking ranking;
};

static int always(void *engine, const struct lathe_request *req, uint32_t tokens)
{
    (void)engine, (void)req, (void)tokens;
    return 1;
}

static void *open_scheduler(struct subject *s)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = SLOTS, .seed = 11 };
    struct lathe_error err = { 0 };
    void *self = subject_create(s);
    api = (const void *)s->head;
    CHECK_OK(api->bind(self, &limits, &err), &err);
    return self;
}

static void view(struct world *w)
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
                                        .can_reserve = always };
}

static struct lathe_request *arrive(struct world *w, struct dice *d)
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
                                     .max_output_tokens = 1 + roll(d, 20) };
        r->predicted_output_tokens = roll(d, 3) ? r->max_output_tokens : 0;
        return r;
    }
    return NULL;
}

/* Ranks, and checks what a ranking may be. */
static void rank(struct world *w, void *self)
{
    struct lathe_error err = { 0 };
    view(w);
    w->ranking = (struct lathe_ranking){ .capacity = SLOTS, .requests = w->ranked, .preempt_capacity = SLOTS,
                                         .preempt = w->preempt, .wake_ns = INT64_MAX };
    CHECK_OK(api->rank(self, &w->view, &w->ranking, &err), &err);
    CHECK(w->ranking.count <= w->live_count, "%u ranked, %u live", w->ranking.count, w->live_count);
    for (uint32_t i = 0; i < w->ranking.count; i++) {
        uint32_t k = 0;
        while (k < w->live_count && w->live[k] != w->ranked[i])
            k++;
        CHECK(k < w->live_count, "rank %u is nobody who lives", i);
        for (uint32_t j = 0; j < i; j++)
            CHECK(w->ranked[i] != w->ranked[j], "request %llu is ranked twice", (unsigned long long)w->ranked[i]->id);
    }
    CHECK(w->ranking.preempt_count <= SLOTS, "%u to preempt", w->ranking.preempt_count);
    for (uint32_t i = 0; i < w->ranking.preempt_count; i++)
        CHECK(w->preempt[i]->state == LATHE_REQUEST_RUNNING, "one that doesn't run is to be preempted");
    CHECK(w->live_count == 0 || w->ranking.count > 0 || w->ranking.wake_ns < INT64_MAX,
          "%u live, none ranked, and no time to ask again", w->live_count);
}

static void preempt(struct lathe_request *r)
{
    r->state = LATHE_REQUEST_PREEMPTED;
    r->computed_tokens = 0;
    r->preemptions++;
}

static void finish(struct world *w, void *self, struct lathe_request *r)
{
    (void)w;
    r->state = LATHE_REQUEST_FINISHED;
    api->retire(self, r);
}

/* The first PLACES of the ranking get what they have pending. */
static void give_tokens(struct world *w, void *self)
{
    for (uint32_t i = 0; i < w->ranking.preempt_count; i++)
        preempt(&w->slots[w->preempt[i]->index]);
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
        if (lathe_request_pending(r) == 0 && ++r->output_tokens >= r->max_output_tokens)
            finish(w, self, r);
    }
    w->step++;
    w->now_ns += 500;
}

static void victim(struct world *w, void *self, struct dice *d)
{
    const struct lathe_request *needy, *v;
    view(w);
    if (!w->live_count)
        return;
    needy = w->live[roll(d, w->live_count)];
    v = api->victim(self, &w->view, needy);
    CHECK(!v || (v >= w->slots && v < w->slots + SLOTS && v->state == LATHE_REQUEST_RUNNING),
          "the victim doesn't run");
    if (v)
        preempt(&w->slots[v->index]);
}

static void ranks_only_the_living_and_ends_all(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 31 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s);
    uint32_t rounds = 0;

    for (; rounds < ROUNDS; rounds++) {
        struct lathe_request *r;
        if (roll(&d, 8) == 0 && (r = arrive(w, &d)))
            CHECK_OK(api->admit(self, r, &err), &err);
        if (roll(&d, 10) == 0)
            victim(w, self, &d);
        if (roll(&d, 30) == 0 && w->live_count) {
            r = &w->slots[roll(&d, SLOTS)];
            if (r->id && r->state != LATHE_REQUEST_FINISHED)
                finish(w, self, r); /* cancelled */
        }
        rank(w, self);
        give_tokens(w, self);
    }
    while (rank(w, self), w->live_count > 0) { /* nobody arrives any more: all must end */
        give_tokens(w, self);
        CHECK(++rounds < ROUNDS + 5000, "request %llu never ends", (unsigned long long)w->live[0]->id);
    }
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
        void *self = open_scheduler(s);
        for (int i = 0; i < 12; i++)
            CHECK_OK(api->admit(self, arrive(&w[k], &d), &err), &err);
        for (int i = 0; i < 5; i++) {
            rank(&w[k], self);
            give_tokens(&w[k], self);
        }
        rank(&w[k], self);
        api->destroy(self);
    }
    CHECK(w[0].ranking.count == w[1].ranking.count, "%u and %u", w[0].ranking.count, w[1].ranking.count);
    for (uint32_t i = 0; i < w[0].ranking.count; i++)
        CHECK(w[0].ranked[i]->id == w[1].ranked[i]->id, "rank %u differs between two equal runs", i);
    free(w);
}

static void takes_over_the_live_requests_of_another(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 6 };
    struct world *w = calloc(1, sizeof *w);
    void *before = open_scheduler(s), *after;
    for (int i = 0; i < 15; i++)
        CHECK_OK(api->admit(before, arrive(w, &d), &err), &err);
    for (int i = 0; i < 8; i++) {
        rank(w, before);
        give_tokens(w, before);
    }
    after = open_scheduler(s);
    view(w);
    for (uint32_t i = 0; i < w->live_count; i++)
        CHECK_OK(api->admit(after, w->live[i], &err), &err);
    api->destroy(before);
    for (int rounds = 0; rank(w, after), w->live_count > 0; rounds++) {
        CHECK(rounds < 5000, "request %llu never ends", (unsigned long long)w->live[0]->id);
        give_tokens(w, after);
    }
    api->destroy(after);
    free(w);
}

static void names_no_victim_among_those_that_wait(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 8 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s);
    struct lathe_request *a = arrive(w, &d), *b = arrive(w, &d);
    CHECK_OK(api->admit(self, a, &err), &err);
    CHECK_OK(api->admit(self, b, &err), &err);
    view(w);
    CHECK(!api->victim(self, &w->view, a), "a victim among waiting requests");
    a->state = LATHE_REQUEST_RUNNING;
    view(w);
    CHECK(api->victim(self, &w->view, a) == NULL, "one that runs alone gives way to itself for ever");
    api->destroy(self);
    free(w);
}

static void fits_a_small_ranking_and_explains_itself(struct subject *s)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 9 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s);
    char text[200], small[5] = "xxxx";
    const struct lathe_request *out[4] = { NULL, NULL, NULL, NULL };
    for (int i = 0; i < 10; i++)
        CHECK_OK(api->admit(self, arrive(w, &d), &err), &err);
    view(w);
    w->ranking = (struct lathe_ranking){ .capacity = 3, .requests = out, .preempt = w->preempt,
                                         .preempt_capacity = SLOTS };
    CHECK_OK(api->rank(self, &w->view, &w->ranking, &err), &err);
    CHECK(w->ranking.count <= 3 && !out[3], "%u written where 3 fit", w->ranking.count);
    if (api->explain) {
        int length = api->explain(self, w->live[0], text, sizeof text);
        CHECK(length > 0 && strlen(text) == (size_t)length && !strchr(text, '\n'), "explained as '%s'", text);
        CHECK(api->explain(self, w->live[0], small, 4) == length && !small[3], "a small buffer");
    }
    api->destroy(self);
    free(w);
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = SLOTS, .seed = 1 };
    struct dice d = { .seed = 1 };
    struct world *w = calloc(1, sizeof *w);
    struct lathe_request *r = arrive(w, &d);
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status == LATHE_OK) {
        if ((status = api->bind(self, &limits, err)) == LATHE_OK && (status = api->admit(self, r, err)) == LATHE_OK) {
            size_t calls = atomic_load(&s->host.calls);
            rank(w, self);
            give_tokens(w, self);
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
        BEHAVIOUR(fits_a_small_ranking_and_explains_itself),
    };
    return conformance(argc, argv, LATHE_KIND_SCHEDULER, LATHE_SCHEDULER_ABI,
                       offsetof(struct lathe_scheduler_api, retire) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

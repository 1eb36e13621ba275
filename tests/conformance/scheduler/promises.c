/* SPDX-License-Identifier: MIT */
/* What a scheduler is held to beyond the rankings' own rules: world_rank checks in every ranking
 * that it doesn't preempt or idle if it said so; here, that nobody starves, and what it makes of
 * the view's wishes. */
#include "world.h"

/* The first ones that don't run are the same however many were wanted. */
void ranks_what_is_wanted_best_first(struct subject *s)
{
    static const uint32_t wishes[] = { 1, 5 };
    struct lathe_error err = { 0 };
    for (int k = 0; k < 2; k++) {
        struct dice d = { .seed = 12 };
        struct world *w = calloc(1, sizeof *w);
        void *self = open_scheduler(s, w);
        for (int i = 0; i < 400; i++) {
            const struct lathe_request *all[SLOTS], *r;
            uint32_t count = 0, seen = 0;
            if (roll(&d, 3) == 0 && (r = arrive(w, &d)))
                CHECK_OK(api->admit(self, r, &err), &err);
            w->wanted = 0;
            world_rank(w, self);
            for (uint32_t j = 0; j < w->ranking.count; j++)
                if (w->ranked[j]->state != LATHE_REQUEST_RUNNING)
                    all[count++] = w->ranked[j];
            w->wanted = wishes[k];
            world_rank(w, self);
            for (uint32_t j = 0; j < w->ranking.count && seen < wishes[k]; j++) {
                if (w->ranked[j]->state == LATHE_REQUEST_RUNNING)
                    continue;
                CHECK(seen < count && w->ranked[j] == all[seen], "with %u wanted number %u is request %llu", wishes[k],
                      seen, (unsigned long long)w->ranked[j]->id);
                seen++;
            }
            world_step(w, self);
        }
        world_drain(w, self, 5000);
        api->destroy(self);
        free(w);
    }
}

/* Request 1 is what most orders put last: low, long (or short), of no deadline, of one tenant,
 * with nothing cached. New ones of the other kind take every place that becomes free. */
static void outlives_a_stream(struct subject *s, int long_ones)
{
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 13 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_scheduler(s, w);
    struct lathe_request *first = arrive(w, &d), *r;
    w->step_ns = 100000000;
    first->priority = -3;
    first->tenant = 1;
    first->weight = 0;
    first->deadline_ns = INT64_MAX;
    first->slo_ttft_ns = first->slo_tpot_ns = 0;
    first->prompt_tokens = long_ones ? 1 : 60;
    first->predicted_output_tokens = long_ones ? 1 : 0;
    first->max_output_tokens = long_ones ? 2 : 30;
    for (int round = 0; w->promised & LATHE_PROMISE_NO_STARVATION; round++) {
        CHECK(round < 20000, "it promised that nobody starves: request 1 is at %u of %u tokens after %d steps",
              first->output_tokens, first->max_output_tokens, round);
        while ((r = arrive(w, &d))) {
            r->planned_ns = w->now_ns;
            r->priority = 1;
            r->tenant = 0;
            r->deadline_ns = w->now_ns + 1000;
            r->prompt_tokens = long_ones ? 60 : 2;
            r->max_output_tokens = r->predicted_output_tokens = long_ones ? 20 : 2;
            CHECK_OK(api->admit(self, r, &err), &err);
            if (r->id == SLOTS) /* behind those that were there first */
                CHECK_OK(api->admit(self, first, &err), &err);
        }
        world_rank(w, self);
        world_step(w, self);
        if (first->id != 1 || first->state == LATHE_REQUEST_FINISHED)
            break;
    }
    api->destroy(self);
    free(w);
}

void starves_nobody_if_it_says_so(struct subject *s)
{
    outlives_a_stream(s, 0);
    outlives_a_stream(s, 1);
}

void does_without_cached_prefixes_or_refuses(struct subject *s)
{
    struct lathe_scheduler_limits limits = { .size = sizeof limits, .max_requests = SLOTS, .seed = 1 };
    struct lathe_error err = { 0 };
    struct dice d = { .seed = 14 };
    struct world *w = calloc(1, sizeof *w);
    void *self = subject_create(s);
    int status = api->bind(self, &limits, &err);
    if (status == LATHE_EUNSUPPORTED) {
        CHECK(err.message[0], "it refused without a sentence");
    } else {
        CHECK_OK(status, &err);
        w->blind = 1;
        w->step_ns = 500;
        for (int i = 0; i < 12; i++)
            CHECK_OK(api->admit(self, arrive(w, &d), &err), &err);
        world_drain(w, self, 5000);
    }
    api->destroy(self);
    free(w);
}

/* SPDX-License-Identifier: MIT */
/* What every batching strategy must keep, seen by an engine in miniature (batching/world.h,
 * which checks every plan): all requests end in a bounded number of steps, whatever the ranking,
 * whatever room is refused, whoever vanishes, and with each of the options that are known. */
#include "batching/world.h"

enum { REQUESTS = 1000, MOST_STEPS = 400000 };

/* To the end of `requests`, cancelled ones included. */
static void run(struct world *w, uint32_t requests)
{
    uint32_t steps = 0;
    while (w->next_id < requests || w->ended + w->vanished < w->next_id) {
        while (w->next_id < requests && roll(&w->dice, 4) == 0)
            if (!world_arrive(w))
                break;
        world_step(w);
        if (w->plan.count == 0 && w->live_count > 0 && !w->refuse_percent && !w->hold_percent)
            CHECK(world_preempt(w), "%u live, none running, nothing planned: it stands still for ever", w->live_count);
        CHECK(++steps < MOST_STEPS, "%llu of %u ended after %u steps", (unsigned long long)w->ended, requests, steps);
    }
}

static void ends_all_requests_within_its_budgets(struct subject *s)
{
    struct world *w = world_open(s, 12);
    run(w, REQUESTS);
    world_close(w);
}

static void ends_all_whatever_the_ranking(struct subject *s)
{
    struct world *w = world_open(s, 13);
    w->shuffled = 1;
    run(w, REQUESTS);
    world_close(w);
}

static void ends_all_when_room_is_refused_at_random(struct subject *s)
{
    struct world *w = world_open(s, 14);
    w->refuse_percent = 10;
    run(w, REQUESTS);
    world_close(w);
}

static void survives_requests_that_vanish(struct subject *s)
{
    struct world *w = world_open(s, 15);
    w->vanish_percent = 20;
    run(w, REQUESTS);
    CHECK(w->vanished > 20, "%llu vanished", (unsigned long long)w->vanished);
    world_close(w);
}

static void ends_all_when_only_the_first_are_ranked(struct subject *s)
{
    struct world *w = world_open(s, 16);
    w->window = 3;
    run(w, REQUESTS);
    world_close(w);
}

static void survives_all_of_that_at_once(struct subject *s, uint64_t seed)
{
    struct world *w = world_open(s, seed);
    w->shuffled = seed % 2 == 0;
    w->refuse_percent = 5;
    w->vanish_percent = 5;
    w->hold_percent = 10;
    w->window = 6;
    run(w, REQUESTS);
    world_close(w);
}

/* Every choice, both sides of every switch, and the ends of what is known by name. */
static void keeps_its_budgets_with_other_options(struct subject *s)
{
    static const char *const known[][2] = {
        { "window_ms", "0" }, { "watermark", "0.01" }, { "watermark", "0.5" }, { "watermark", "1" },
        { "trust", "0.1" }, { "batch", "3" }, { "batch", "1" }, { "budget", "7" }, { "max_tokens", "5" },
        { "max_requests", "2" }, { "max_partial", "4" }, { "buckets", "" }, { "buckets", "5,20" },
        { "padded_tokens", "60" },
    };
    survives_all_of_that_at_once(s, 17);
    survives_all_of_that_at_once(s, 18);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        for (uint32_t i = 0; i < s->plugin->option_count; i++) {
            if (strcmp(s->plugin->options[i].name, known[k][0]))
                continue;
            const char *before = s->config.values[i].text;
            subject_set(s, known[k][0], known[k][1]);
            survives_all_of_that_at_once(s, 19);
            survives_all_of_that_at_once(s, 20);
            ends_all_requests_within_its_budgets(s);
            subject_set(s, known[k][0], before);
        }
    }
    for (uint32_t i = 0; i < s->plugin->option_count; i++) {
        const struct lathe_option *o = &s->plugin->options[i];
        const char *before = s->config.values[i].text;
        char choices[200] = "true|false", *at = choices, *choice;
        if (o->type != LATHE_OPTION_BOOLEAN && o->type != LATHE_OPTION_CHOICE)
            continue;
        if (o->type == LATHE_OPTION_CHOICE)
            snprintf(choices, sizeof choices, "%s", o->choices);
        while ((choice = strsep(&at, "|"))) {
            subject_set(s, o->name, choice);
            survives_all_of_that_at_once(s, 21);
            ends_all_requests_within_its_budgets(s);
            subject_set(s, o->name, before);
        }
    }
}

static void keeps_its_budgets_when_some_are_held_back(struct subject *s)
{
    struct world *w = world_open(s, 40);
    w->shuffled = 1;
    for (int step = 0; step < 5000; step++) {
        if (roll(&w->dice, 3) == 0)
            world_arrive(w);
        w->hold_percent = roll(&w->dice, 4) ? 0 : roll(&w->dice, 100);
        world_step(w);
        if (w->plan.count == 0)
            world_preempt(w);
    }
    CHECK(w->ended > 50, "%llu requests ended in 5000 steps", (unsigned long long)w->ended);
    world_close(w);
}

/* First come first, a large one, and small ones that keep coming. */
static void lets_nobody_starve_if_it_promised(struct subject *s)
{
    struct world *w = world_open(s, 44);
    if (w->promises & LATHE_PROMISE_NO_STARVATION) {
        struct lathe_request *large;
        uint32_t steps = 0;
        for (int i = 0; i < SLOTS / 2; i++)
            world_arrive_with(w, 20, 10);
        large = world_arrive_with(w, 240, 60); /* most of the pool, at its end */
        while (large->state != LATHE_REQUEST_FINISHED || w->slots[large->index].id != large->id) {
            while (world_arrive_with(w, 1 + roll(&w->dice, 20), 1 + roll(&w->dice, 10)))
                ;
            world_step(w);
            CHECK(++steps < 20000, "one that needs most of the pool has waited for %u steps", steps);
        }
    }
    world_close(w);
}

static void never_idles_if_it_promised(struct subject *s)
{
    struct world *w = world_open(s, 45);
    for (int step = 0; step < 3000 && (w->promises & LATHE_PROMISE_WORK_CONSERVING); step++) {
        if (roll(&w->dice, 20) == 0)
            world_arrive_with(w, 1 + roll(&w->dice, 8), 1 + roll(&w->dice, 7)); /* two blocks at most: there is room */
        world_rank(w);
        world_fill(w);
        CHECK(w->plan.count > 0 || w->ranking.count == 0, "%u are ranked, there is room, and nothing is planned",
              w->ranking.count);
        world_carry_out(w);
    }
    world_close(w);
}

static void plans_something_when_the_first_fits(struct subject *s)
{
    for (uint32_t k = 0; k < 50; k++) {
        struct world *w = world_open(s, 41 + 100 * k);
        uint32_t count = 1 + roll(&w->dice, SLOTS);
        for (uint32_t i = 0; i < count; i++)
            world_arrive(w);
        world_step(w);
        CHECK(w->plan.count > 0, "%u wait in an empty pool, and nothing is planned", count);
        world_close(w);
    }
}

static void plans_nothing_for_nobody(struct subject *s)
{
    struct world *w = world_open(s, 42);
    world_rank(w);
    world_fill(w);
    CHECK(w->plan.count == 0 && w->plan.wake_ns == INT64_MAX, "a plan of %u for nobody", w->plan.count);
    if (w->api->retire)
        w->api->retire(w->self, &w->slots[0]); /* never seen: ignored */
    world_close(w);
}

static void gives_no_tokens_where_there_is_no_room(struct subject *s)
{
    struct world *w = world_open(s, 43);
    for (uint32_t i = 0; i < 5; i++)
        world_arrive(w);
    w->now_ns += 10ll * 1000000000; /* beyond any window */
    w->held[SLOTS - 1] = BLOCKS;    /* somebody else's */
    world_rank(w);
    world_fill(w);
    CHECK(w->plan.count == 0, "%u planned in a full pool", w->plan.count);
    world_close(w);
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_batching_limits limits = { .size = sizeof limits, .max_requests = SLOTS,
                                            .max_batch_tokens = MAX_TOKENS, .max_batch_requests = MAX_SLICES };
    const struct lathe_batching_api *api = (const void *)s->head;
    void *self;
    int status = subject_try_create(s, &self, err);
    if (status != LATHE_OK)
        return status;
    if ((status = api->bind(self, &limits, err)) != LATHE_OK) {
        api->destroy(self);
        return status;
    }
    size_t calls = atomic_load(&s->host.calls);
    struct world *w = world_around(api, self, 1);
    run(w, 20);
    CHECK(atomic_load(&s->host.calls) == calls, "memory was taken inside the step loop");
    world_close(w);
    return LATHE_OK;
}

int main(int argc, char **argv)
{
#define BEHAVIOUR(name) { #name, name }
    static const struct behaviour behaviours[] = {
        BEHAVIOUR(ends_all_requests_within_its_budgets),
        BEHAVIOUR(ends_all_whatever_the_ranking),
        BEHAVIOUR(ends_all_when_room_is_refused_at_random),
        BEHAVIOUR(survives_requests_that_vanish),
        BEHAVIOUR(ends_all_when_only_the_first_are_ranked),
        BEHAVIOUR(keeps_its_budgets_with_other_options),
        BEHAVIOUR(keeps_its_budgets_when_some_are_held_back),
        BEHAVIOUR(lets_nobody_starve_if_it_promised),
        BEHAVIOUR(never_idles_if_it_promised),
        BEHAVIOUR(plans_something_when_the_first_fits),
        BEHAVIOUR(plans_nothing_for_nobody),
        BEHAVIOUR(gives_no_tokens_where_there_is_no_room),
    };
    return conformance(argc, argv, LATHE_KIND_BATCHING, LATHE_BATCHING_ABI,
                       offsetof(struct lathe_batching_api, fill) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

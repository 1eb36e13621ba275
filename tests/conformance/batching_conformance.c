/* SPDX-License-Identifier: MIT */
/* What every batching strategy must keep, seen by an engine in miniature with a real budget:
 * a pool of blocks with promises, a limit on rows and on slices, requests that prefill,
 * decode, end, and are preempted when nothing else helps. All must end in a bounded number
 * of steps, whatever the ranking. */
#include <lathe/batching.h>

#include "harness.h"

enum { SLOTS = 20, MAX_TOKENS = 48, MAX_SLICES = 6, BLOCK = 8, BLOCKS = 40, REQUESTS = 150 };

static const struct lathe_batching_api *api;

struct world {
    struct lathe_request slots[SLOTS];
    uint32_t held[SLOTS];      /* blocks */
    uint32_t promised[SLOTS];  /* blocks, beside those held, in this plan */
    uint32_t asked[SLOTS];     /* positions that can_reserve said 1 to, in this plan */
    const struct lathe_request *live[SLOTS], *ranked[SLOTS];
    uint32_t live_count;
    uint64_t next_id, ended;
    int64_t now_ns;
    struct lathe_step_view view;
    struct lathe_ranking ranking;
    struct lathe_plan_entry entries[MAX_SLICES + 2];
    struct lathe_plan plan;
    uint64_t preemptions, padding;
};

static uint32_t free_blocks(const struct world *w)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        used += w->held[i] + w->promised[i];
    return BLOCKS - used;
}

static int can_reserve(void *engine, const struct lathe_request *req, uint32_t tokens)
{
    struct world *w = engine;
    uint32_t i = req->index, want = (tokens + BLOCK - 1) / BLOCK, have = w->held[i] + w->promised[i];
    CHECK(req == &w->slots[i] && req->state != LATHE_REQUEST_FINISHED, "can_reserve for one that isn't there");
    if (want > have) {
        if (want - have > free_blocks(w))
            return 0;
        w->promised[i] += want - have;
    }
    if (tokens > w->asked[i])
        w->asked[i] = tokens;
    return 1;
}

static void *open_batching(struct subject *s)
{
    struct lathe_batching_limits limits = { .size = sizeof limits, .max_requests = SLOTS,
                                            .max_batch_tokens = MAX_TOKENS, .max_batch_requests = MAX_SLICES };
    struct lathe_error err = { 0 };
    void *self = subject_create(s);
    api = (const void *)s->head;
    CHECK_OK(api->bind(self, &limits, &err), &err);
    return self;
}

static void arrive(struct world *w, struct dice *d)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct lathe_request *r = &w->slots[i];
        if (r->id && r->state != LATHE_REQUEST_FINISHED)
            continue;
        *r = (struct lathe_request){ .size = sizeof *r, .index = i, .id = ++w->next_id, .state = LATHE_REQUEST_WAITING,
                                     .planned_ns = w->now_ns, .arrival_ns = w->now_ns, .admitted_ns = -1,
                                     .first_token_ns = -1, .deadline_ns = INT64_MAX,
                                     .prompt_tokens = 1 + (roll(d, 4) ? roll(d, 30) : roll(d, 150)),
                                     .max_output_tokens = 1 + roll(d, 40) };
        return;
    }
}

/* A view and a ranking: running ones first in half of the cases, otherwise any order. */
static void prepare(struct world *w, struct dice *d, int shuffled)
{
    uint32_t running = 0;
    w->live_count = 0;
    memset(w->promised, 0, sizeof w->promised);
    memset(w->asked, 0, sizeof w->asked);
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (w->slots[i].id && w->slots[i].state != LATHE_REQUEST_FINISHED)
            w->live[w->live_count++] = &w->slots[i];
        running += w->slots[i].id && w->slots[i].state == LATHE_REQUEST_RUNNING;
    }
    memcpy(w->ranked, w->live, sizeof w->ranked);
    for (uint32_t i = 1; i < w->live_count; i++) { /* by id: first come first */
        for (uint32_t j = i; j > 0 && w->ranked[j]->id < w->ranked[j - 1]->id; j--) {
            const struct lathe_request *swap = w->ranked[j];
            w->ranked[j] = w->ranked[j - 1];
            w->ranked[j - 1] = swap;
        }
    }
    for (uint32_t i = w->live_count; shuffled && i > 1; i--) {
        uint32_t j = roll(d, i);
        const struct lathe_request *swap = w->ranked[j];
        w->ranked[j] = w->ranked[i - 1];
        w->ranked[i - 1] = swap;
    }
    w->ranking = (struct lathe_ranking){ .capacity = SLOTS, .count = w->live_count, .requests = w->ranked,
                                         .wake_ns = INT64_MAX };
    w->view = (struct lathe_step_view){ .size = sizeof w->view, .live_count = w->live_count, .live = w->live,
                                        .now_ns = w->now_ns, .waiting = w->live_count - running, .running = running,
                                        .max_batch_tokens = MAX_TOKENS, .max_batch_requests = MAX_SLICES,
                                        .blocks_available = free_blocks(w), .blocks_total = BLOCKS,
                                        .block_tokens = BLOCK, .can_reserve = can_reserve, .engine = w };
}

/* Fills, and checks what a plan may be. */
static void fill(struct world *w, void *self)
{
    struct lathe_error err = { 0 };
    uint32_t rows = 0, real = 0;
    memset(w->entries, 0xee, sizeof w->entries);
    w->plan = (struct lathe_plan){ .capacity = MAX_SLICES, .entries = w->entries, .wake_ns = INT64_MAX };
    CHECK_OK(api->fill(self, &w->view, &w->ranking, &w->plan, &err), &err);
    CHECK(w->plan.count <= MAX_SLICES, "%u entries in a plan for %d", w->plan.count, MAX_SLICES);
    for (uint32_t i = 0; i < w->plan.count; i++) {
        const struct lathe_plan_entry *e = &w->entries[i];
        uint32_t k = 0;
        CHECK(e->tokens <= MAX_TOKENS && e->padding <= MAX_TOKENS, "entry %u: %u and %u rows", i, e->tokens, e->padding);
        rows += e->tokens + e->padding;
        real += e->tokens;
        if (!e->request) {
            CHECK(e->tokens == 0 && e->padding > 0, "entry %u: %u tokens of nobody", i, e->tokens);
            continue;
        }
        while (k < w->ranking.count && w->ranked[k] != e->request)
            k++;
        CHECK(k < w->ranking.count, "entry %u is of one that wasn't ranked", i);
        CHECK(e->tokens > 0 && e->tokens <= lathe_request_pending(e->request), "request %llu gets %u of %u tokens",
              (unsigned long long)e->request->id, e->tokens, lathe_request_pending(e->request));
        CHECK(w->asked[e->request->index] >= e->request->computed_tokens + e->tokens,
              "request %llu gets tokens without a promise of room", (unsigned long long)e->request->id);
        for (uint32_t j = 0; j < i; j++)
            CHECK(w->entries[j].request != e->request, "request %llu is planned twice",
                  (unsigned long long)e->request->id);
        w->padding += e->padding;
    }
    CHECK(rows <= MAX_TOKENS, "%u rows in a step of %d", rows, MAX_TOKENS);
    CHECK(w->plan.count == 0 || real > 0, "a step of padding alone");
    CHECK(w->plan.count || w->plan.wake_ns > w->now_ns, "nothing is planned, and to be asked again at once");
}

static void carry_out(struct world *w, void *self)
{
    for (uint32_t i = 0; i < w->plan.count; i++) {
        const struct lathe_plan_entry *e = &w->entries[i];
        struct lathe_request *r;
        uint32_t blocks;
        if (!e->request)
            continue;
        r = &w->slots[e->request->index];
        r->state = LATHE_REQUEST_RUNNING;
        r->computed_tokens += e->tokens;
        blocks = (r->computed_tokens + BLOCK - 1) / BLOCK;
        w->held[r->index] = blocks > w->held[r->index] ? blocks : w->held[r->index];
        if (lathe_request_pending(r) == 0 && ++r->output_tokens >= r->max_output_tokens) {
            r->state = LATHE_REQUEST_FINISHED;
            w->held[r->index] = 0;
            w->ended++;
            if (api->retire)
                api->retire(self, r);
        }
    }
    w->now_ns += 1000000;
}

/* Nothing could be planned: the last running one of the ranking gives way, as engines do. */
static int preempt_one(struct world *w, void *self)
{
    for (uint32_t i = w->ranking.count; i-- > 0;) {
        struct lathe_request *r = &w->slots[w->ranked[i]->index];
        if (r->state == LATHE_REQUEST_RUNNING) {
            r->state = LATHE_REQUEST_PREEMPTED;
            r->computed_tokens = 0;
            w->held[r->index] = 0;
            w->preemptions++;
            if (api->retire)
                api->retire(self, r);
            return 1;
        }
    }
    return 0;
}

static void run_to_the_end(struct subject *s, int shuffled)
{
    struct dice d = { .seed = 12 + (uint64_t)shuffled };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_batching(s);
    uint32_t steps = 0;

    while (w->ended < REQUESTS) {
        int64_t first_wait = w->now_ns;
        while (w->next_id < REQUESTS && roll(&d, 4) == 0)
            arrive(w, &d);
        prepare(w, &d, shuffled);
        fill(w, self);
        while (w->plan.count == 0 && w->plan.wake_ns < INT64_MAX) { /* a window: it must pass */
            CHECK(w->plan.wake_ns - first_wait < 100ll * 1000000000, "a window of more than 100 s");
            w->now_ns = w->plan.wake_ns;
            prepare(w, &d, 0);
            fill(w, self);
        }
        if (w->plan.count == 0 && w->live_count > 0)
            CHECK(preempt_one(w, self), "%u live, none running, nothing planned: it stands still for ever",
                  w->live_count);
        carry_out(w, self);
        CHECK(++steps < 60000, "%llu of %d ended after %u steps", (unsigned long long)w->ended, REQUESTS, steps);
    }
    api->destroy(self);
    free(w);
}

static void ends_all_requests_within_its_budgets(struct subject *s)
{
    run_to_the_end(s, 0);
}

static void keeps_its_budgets_whatever_the_ranking(struct subject *s)
{
    struct dice d = { .seed = 40 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_batching(s);
    for (int step = 0; step < 5000; step++) {
        uint32_t drop;
        if (roll(&d, 3) == 0)
            arrive(w, &d);
        prepare(w, &d, 1);
        drop = roll(&d, 4) ? 0 : roll(&d, w->ranking.count + 1); /* some are held back */
        w->ranking.count -= drop;
        fill(w, self);
        if (w->plan.count == 0)
            preempt_one(w, self);
        carry_out(w, self);
    }
    CHECK(w->ended > 50, "%llu requests ended in 5000 steps", (unsigned long long)w->ended);
    api->destroy(self);
    free(w);
}

static void plans_something_when_the_first_fits(struct subject *s)
{
    struct dice d = { .seed = 41 };
    for (int k = 0; k < 50; k++) {
        struct world *w = calloc(1, sizeof *w);
        void *self = open_batching(s);
        uint32_t count = 1 + roll(&d, SLOTS);
        for (uint32_t i = 0; i < count; i++)
            arrive(w, &d);
        prepare(w, &d, 0);
        fill(w, self);
        if (w->plan.count == 0) {
            CHECK(w->plan.wake_ns < INT64_MAX, "%u wait in an empty pool, and nothing is planned", count);
            w->now_ns = w->plan.wake_ns;
            prepare(w, &d, 0);
            fill(w, self);
        }
        CHECK(w->plan.count > 0, "%u wait in an empty pool, and nothing is planned", count);
        api->destroy(self);
        free(w);
    }
}

static void plans_nothing_for_nobody(struct subject *s)
{
    struct dice d = { .seed = 42 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_batching(s);
    prepare(w, &d, 0);
    fill(w, self);
    CHECK(w->plan.count == 0 && w->plan.wake_ns == INT64_MAX, "a plan of %u for nobody", w->plan.count);
    if (api->retire)
        api->retire(self, &w->slots[0]); /* never seen: ignored */
    api->destroy(self);
    free(w);
}

static void gives_no_tokens_where_there_is_no_room(struct subject *s)
{
    struct dice d = { .seed = 43 };
    struct world *w = calloc(1, sizeof *w);
    void *self = open_batching(s);
    for (uint32_t i = 0; i < 5; i++)
        arrive(w, &d);
    w->now_ns += 10ll * 1000000000; /* beyond any window */
    prepare(w, &d, 0);
    w->held[SLOTS - 1] = BLOCKS; /* somebody else's */
    fill(w, self);
    CHECK(w->plan.count == 0, "%u planned in a full pool", w->plan.count);
    api->destroy(self);
    free(w);
}

static int life(struct subject *s, struct lathe_error *err)
{
    struct lathe_batching_limits limits = { .size = sizeof limits, .max_requests = SLOTS,
                                            .max_batch_tokens = MAX_TOKENS, .max_batch_requests = MAX_SLICES };
    struct dice d = { .seed = 1 };
    struct world *w = calloc(1, sizeof *w);
    void *self;
    int status = subject_try_create(s, &self, err);
    api = (const void *)s->head;
    if (status == LATHE_OK) {
        if ((status = api->bind(self, &limits, err)) == LATHE_OK) {
            size_t calls = atomic_load(&s->host.calls);
            arrive(w, &d);
            prepare(w, &d, 0);
            fill(w, self);
            CHECK(atomic_load(&s->host.calls) == calls, "memory was taken inside the step loop");
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
        BEHAVIOUR(ends_all_requests_within_its_budgets),
        BEHAVIOUR(keeps_its_budgets_whatever_the_ranking),
        BEHAVIOUR(plans_something_when_the_first_fits),
        BEHAVIOUR(plans_nothing_for_nobody),
        BEHAVIOUR(gives_no_tokens_where_there_is_no_room),
    };
    return conformance(argc, argv, LATHE_KIND_BATCHING, LATHE_BATCHING_ABI,
                       offsetof(struct lathe_batching_api, fill) + sizeof(void *), behaviours,
                       sizeof behaviours / sizeof *behaviours, life);
}

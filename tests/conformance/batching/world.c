/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "world.h"

static const struct lathe_batching_limits limits = { .size = sizeof limits, .max_requests = SLOTS,
                                                     .max_batch_tokens = MAX_TOKENS,
                                                     .max_batch_requests = MAX_SLICES };

static uint32_t free_blocks(const struct world *w)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        used += w->held[i];
    return used < BLOCKS ? BLOCKS - used : 0;
}

/* As the engine's: a promise made twice counts twice. */
static int can_reserve(void *engine, const struct lathe_request *req, uint32_t tokens)
{
    struct world *w = engine;
    uint32_t i = req->index, want = (tokens + BLOCK - 1) / BLOCK, need = want > w->held[i] ? want - w->held[i] : 0;
    CHECK(req == &w->slots[i] && req->id && req->state != LATHE_REQUEST_FINISHED,
          "can_reserve for one that isn't there");
    w->questions++;
    if (need + w->promised > free_blocks(w) || (w->refuse_percent && roll(&w->dice, 100) < w->refuse_percent)) {
        w->refused[i] = 1;
        w->refusals++;
        return 0;
    }
    w->promised += need;
    if (tokens > w->asked[i])
        w->asked[i] = tokens;
    return 1;
}

struct world *world_around(const struct lathe_batching_api *api, void *self, uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    CHECK(w, "no memory for a world");
    w->api = api;
    w->self = self;
    w->dice.seed = seed;
    w->promises = api->size > offsetof(struct lathe_batching_api, promises) && api->promises ? api->promises(self) : 0;
    return w;
}

struct world *world_open(struct subject *s, uint64_t seed)
{
    struct lathe_error err = { 0 };
    void *self = subject_create(s);
    const struct lathe_batching_api *api = (const void *)s->head;
    CHECK_OK(api->bind(self, &limits, &err), &err);
    return world_around(api, self, seed);
}

void world_close(struct world *w)
{
    w->api->destroy(w->self);
    free(w);
}

struct lathe_request *world_arrive_with(struct world *w, uint32_t prompt, uint32_t output)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct lathe_request *r = &w->slots[i];
        if (r->id && r->state != LATHE_REQUEST_FINISHED)
            continue;
        *r = (struct lathe_request){ .size = sizeof *r, .index = i, .id = ++w->next_id, .state = LATHE_REQUEST_WAITING,
                                     .planned_ns = w->now_ns, .arrival_ns = w->now_ns, .admitted_ns = -1,
                                     .first_token_ns = -1, .deadline_ns = INT64_MAX, .prompt_tokens = prompt,
                                     .max_output_tokens = output,
                                     .predicted_output_tokens = w->next_id % 3 ? 1 + output / 2 : 0 };
        w->passed[i] = 0;
        return r;
    }
    return NULL;
}

struct lathe_request *world_arrive(struct world *w)
{
    uint32_t prompt = 1 + (roll(&w->dice, 4) ? roll(&w->dice, 30) : roll(&w->dice, 150));
    return world_arrive_with(w, prompt, 1 + roll(&w->dice, 40));
}

static void swap(const struct lathe_request **a, const struct lathe_request **b)
{
    const struct lathe_request *t = *a;
    *a = *b;
    *b = t;
}

void world_rank(struct world *w)
{
    uint32_t running = 0, kept = 0, waiting = 0;
    w->live_count = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (w->slots[i].id && w->slots[i].state != LATHE_REQUEST_FINISHED)
            w->live[w->live_count++] = &w->slots[i];
        running += w->slots[i].id && w->slots[i].state == LATHE_REQUEST_RUNNING;
    }
    memcpy(w->ranked, w->live, sizeof w->ranked);
    for (uint32_t i = 1; i < w->live_count; i++) /* by id: first come first */
        for (uint32_t j = i; j > 0 && w->ranked[j]->id < w->ranked[j - 1]->id; j--)
            swap(&w->ranked[j], &w->ranked[j - 1]);
    for (uint32_t i = w->live_count; w->shuffled && i > 1; i--)
        swap(&w->ranked[roll(&w->dice, i)], &w->ranked[i - 1]);
    for (uint32_t i = 0; i < w->live_count; i++) {
        int waits = w->ranked[i]->state != LATHE_REQUEST_RUNNING;
        if ((w->window && waits && waiting == w->window) || (w->hold_percent && roll(&w->dice, 100) < w->hold_percent))
            continue;
        waiting += (uint32_t)waits;
        w->ranked[kept++] = w->ranked[i];
    }
    w->ranking = (struct lathe_ranking){ .capacity = SLOTS, .count = kept, .requests = w->ranked,
                                         .wake_ns = INT64_MAX };
    w->view = (struct lathe_step_view){ .size = sizeof w->view, .live_count = w->live_count, .live = w->live,
                                        .now_ns = w->now_ns, .step = w->view.step + 1,
                                        .waiting = w->live_count - running, .running = running,
                                        .max_batch_tokens = MAX_TOKENS, .max_batch_requests = MAX_SLICES,
                                        .blocks_available = free_blocks(w), .blocks_total = BLOCKS,
                                        .block_tokens = BLOCK, .ranking_wanted = w->window,
                                        .can_reserve = can_reserve, .engine = w };
}

static int is_planned(const struct world *w, const struct lathe_request *req)
{
    for (uint32_t i = 0; i < w->plan.count; i++)
        if (w->entries[i].request == req)
            return 1;
    return 0;
}

static void check_entry(struct world *w, uint32_t i)
{
    const struct lathe_plan_entry *e = &w->entries[i];
    unsigned long long id = e->request ? (unsigned long long)e->request->id : 0;
    uint32_t k = 0;
    CHECK(e->tokens <= MAX_TOKENS && e->padding <= MAX_TOKENS, "entry %u: %u and %u rows", i, e->tokens, e->padding);
    if (!e->request) {
        CHECK(e->tokens == 0 && e->padding > 0, "entry %u: %u tokens of nobody", i, e->tokens);
        return;
    }
    while (k < w->ranking.count && w->ranked[k] != e->request)
        k++;
    CHECK(k < w->ranking.count, "entry %u is of one that wasn't ranked", i);
    CHECK(e->tokens > 0 && e->tokens <= lathe_request_pending(e->request), "request %llu gets %u of %u tokens", id,
          e->tokens, lathe_request_pending(e->request));
    CHECK(w->asked[e->request->index] >= e->request->computed_tokens + e->tokens,
          "request %llu gets tokens without a promise of room", id);
    for (uint32_t j = 0; j < i; j++)
        CHECK(w->entries[j].request != e->request, "request %llu is planned twice", id);
}

void world_fill(struct world *w)
{
    struct lathe_error err = { 0 };
    uint32_t rows = 0, real = 0;
    memset(w->asked, 0, sizeof w->asked);
    memset(w->refused, 0, sizeof w->refused);
    memset(w->entries, 0xee, sizeof w->entries);
    w->promised = w->refusals = w->questions = 0;
    w->plan = (struct lathe_plan){ .capacity = MAX_SLICES, .entries = w->entries, .wake_ns = INT64_MAX };
    CHECK_OK(w->api->fill(w->self, &w->view, &w->ranking, &w->plan, &err), &err);
    CHECK(w->plan.count <= MAX_SLICES, "%u entries in a plan for %d", w->plan.count, MAX_SLICES);
    for (uint32_t i = 0; i < w->plan.count; i++) {
        check_entry(w, i);
        rows += w->entries[i].tokens + w->entries[i].padding;
        real += w->entries[i].tokens;
        w->padding += w->entries[i].padding;
    }
    CHECK(rows <= MAX_TOKENS, "%u rows in a step of %d", rows, MAX_TOKENS);
    CHECK(w->plan.count == 0 || real > 0, "a step of padding alone");
    CHECK(w->questions <= 4 * w->ranking.count + 4, "%u questions about room for %u ranked", w->questions,
          w->ranking.count);
    if (w->plan.count > 0)
        return;
    CHECK(w->plan.wake_ns > w->now_ns, "nothing is planned, and to be asked again at once");
    CHECK(w->plan.wake_ns < INT64_MAX || w->ranking.count == 0 || w->refusals > 0,
          "%u are ranked, none was refused room, and nothing is planned", w->ranking.count);
    CHECK(!(w->promises & LATHE_PROMISE_WORK_CONSERVING) || w->plan.wake_ns == INT64_MAX,
          "a window of a batching that promised never to idle");
}

void world_carry_out(struct world *w)
{
    for (uint32_t i = 0; i < w->ranking.count && w->plan.count > 0; i++) {
        uint32_t index = w->ranked[i]->index;
        int waits = w->ranked[i]->state == LATHE_REQUEST_RUNNING && !is_planned(w, w->ranked[i]);
        w->passed[index] = waits ? w->passed[index] + 1 : 0;
        CHECK(w->passed[index] < 10000, "request %llu runs and was forgotten in 10000 steps",
              (unsigned long long)w->ranked[i]->id);
    }
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
            if (w->api->retire)
                w->api->retire(w->self, r);
        }
    }
    w->now_ns += 1000000;
}

int world_preempt(struct world *w)
{
    struct lathe_request *last = NULL;
    for (uint32_t i = 0; i < SLOTS; i++)
        if (w->slots[i].id && w->slots[i].state == LATHE_REQUEST_RUNNING && (!last || w->slots[i].id > last->id))
            last = &w->slots[i];
    if (!last)
        return 0;
    last->state = LATHE_REQUEST_PREEMPTED;
    last->computed_tokens = 0;
    last->preemptions++;
    w->held[last->index] = 0;
    w->preemptions++;
    if (w->api->retire)
        w->api->retire(w->self, last);
    return 1;
}

/* Cancelled: gone between two steps, and its slot may be taken at once. */
static void vanish(struct world *w)
{
    struct lathe_request *r = &w->slots[roll(&w->dice, SLOTS)];
    if (!r->id || r->state == LATHE_REQUEST_FINISHED)
        return;
    r->state = LATHE_REQUEST_FINISHED;
    w->held[r->index] = 0;
    w->vanished++;
    if (w->api->retire)
        w->api->retire(w->self, r);
    if (roll(&w->dice, 2))
        world_arrive(w);
}

static int somebody_is_needy(const struct world *w)
{
    for (uint32_t i = 0; i < w->ranking.count; i++)
        if (w->ranked[i]->state == LATHE_REQUEST_RUNNING && w->refused[w->ranked[i]->index] &&
            !is_planned(w, w->ranked[i]))
            return 1;
    return 0;
}

void world_step(struct world *w)
{
    int64_t first_wait = w->now_ns;
    world_rank(w);
    for (;;) {
        world_fill(w);
        if (w->view.running > 1 && somebody_is_needy(w)) {
            world_preempt(w);
            world_rank(w);
        } else if (w->plan.count == 0 && w->plan.wake_ns < INT64_MAX) { /* a window: it must pass */
            CHECK(w->plan.wake_ns - first_wait < 100ll * 1000000000, "a window of more than 100 s");
            w->now_ns = w->plan.wake_ns;
            world_rank(w);
        } else {
            break;
        }
    }
    world_carry_out(w);
    if (w->vanish_percent && roll(&w->dice, 100) < w->vanish_percent)
        vanish(w);
}

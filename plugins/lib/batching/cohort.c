/* SPDX-License-Identifier: MIT */
/* See cohort.h. */
#include "cohort.h"

#include "budget.h"

int cohort_bind(struct cohort *c, const char *name, int64_t batch, const struct lathe_batching_limits *limits,
                struct lathe_error *err)
{
    int status = batching_check_limits(name, limits, err);
    if (status != LATHE_OK)
        return status;
    if (c->members)
        return lathe_fail(err, LATHE_ESTATE, "batching %s: bound twice; make a second instance instead", name);
    c->capacity = batching_limit(batch, limits->max_batch_requests);
    c->capacity = batching_limit(c->capacity, limits->max_batch_tokens); /* each place takes a row a step */
    c->members = lathe_alloc_array(c->host, c->capacity, sizeof *c->members);
    c->seen = lathe_alloc_array(c->host, c->capacity, sizeof *c->seen);
    c->place = lathe_alloc_array(c->host, limits->max_requests, sizeof *c->place);
    if (!c->members || !c->seen || !c->place) {
        cohort_free(c);
        return lathe_fail(err, LATHE_ENOMEM, "batching %s: no memory for a batch of %u", name, c->capacity);
    }
    c->max_tokens = limits->max_batch_tokens;
    c->max_requests = limits->max_requests;
    return LATHE_OK;
}

void cohort_free(struct cohort *c)
{
    lathe_free(c->host, c->members);
    lathe_free(c->host, c->seen);
    lathe_free(c->host, c->place);
    c->members = NULL;
    c->seen = NULL;
    c->place = NULL;
}

uint32_t cohort_look(struct cohort *c, const struct lathe_ranking *ranking)
{
    uint32_t seen = 0;
    c->looks++;
    c->fresh = 0;
    for (uint32_t i = 0; i < ranking->count && seen < c->alive; i++) {
        uint32_t place = c->place[ranking->requests[i]->index];
        if (place) {
            c->seen[place - 1] = c->looks;
            seen++;
        }
    }
    return seen;
}

void cohort_clear(struct cohort *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->members[i])
            c->place[c->members[i]->index] = 0;
    c->count = c->alive = 0;
    c->turned_away = 0;
    c->fresh = 1;
}

/* Up to its end; or, for the first one, which a pool too small for that must not keep out for
 * ever, and where batches grow, what it has. */
static int has_room(const struct cohort *c, const struct lathe_step_view *view, const struct lathe_request *req)
{
    uint32_t known = req->prompt_tokens + req->output_tokens;
    uint32_t rest = req->max_output_tokens > req->output_tokens ? req->max_output_tokens - req->output_tokens : 0;
    if (c->rules.reserve_end && known <= UINT32_MAX - rest && view->can_reserve(view->engine, req, known + rest))
        return 1;
    return (!c->rules.reserve_end || c->count == 0) && view->can_reserve(view->engine, req, known);
}

void cohort_take(struct cohort *c, const struct lathe_step_view *view, const struct lathe_request *req)
{
    int running = req->state == LATHE_REQUEST_RUNNING;
    if (c->count == c->capacity || lathe_request_pending(req) == 0 || (c->turned_away && !running))
        return;
    if (!has_room(c, view, req)) {
        c->turned_away |= !running;
        return;
    }
    c->members[c->count++] = req;
    c->place[req->index] = c->count;
    c->alive++;
}

/* What it must have computed when `left` columns are to come: 0 for one that isn't ranked. */
static uint32_t share(const struct cohort *c, uint32_t i, uint32_t left)
{
    const struct lathe_request *req = c->members[i];
    uint32_t pending = req && (c->fresh || c->seen[i] == c->looks) ? lathe_request_pending(req) : 0;
    return pending > left ? pending - left : 0;
}

/* The most columns of `longest` whose own tokens fit into `rows`. */
static uint32_t unpadded_columns(const struct cohort *c, uint32_t longest, uint32_t rows)
{
    uint32_t low = 1, high = longest < rows ? longest : rows;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        uint64_t sum = 0;
        for (uint32_t i = 0; i < c->count; i++)
            sum += share(c, i, longest - middle);
        if (sum <= rows)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

struct refusals {
    uint32_t all, running;
};

/* → real rows; 0 where those who were to go found no room: they are left out of this look. */
static uint32_t attempt(struct cohort *c, const struct lathe_step_view *view, struct lathe_plan *plan,
                        struct refusals *refused)
{
    uint32_t longest = 0, places = c->rules.shrink ? c->alive : c->count, columns, real = 0;

    plan->count = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        uint32_t pending = share(c, i, 0);
        longest = pending > longest ? pending : longest;
    }
    if (longest == 0)
        return 0;
    columns = c->max_tokens / places;
    columns = longest < columns ? longest : columns;
    if (!c->rules.pad && columns < longest)
        columns = unpadded_columns(c, longest, c->max_tokens - (places - c->alive));

    for (uint32_t i = 0; i < c->count; i++) {
        const struct lathe_request *req = c->members[i];
        uint32_t tokens = share(c, i, longest - columns), padding;
        if (tokens && !c->fresh && !view->can_reserve(view->engine, req, req->computed_tokens + tokens)) {
            refused->all++;
            refused->running += req->state == LATHE_REQUEST_RUNNING;
            c->seen[i] = 0;
            tokens = 0; /* keeps its place */
        }
        padding = c->rules.pad ? columns - tokens : 0;
        if (!req)
            padding = c->rules.shrink ? 0 : c->rules.pad ? columns : 1;
        if (tokens + padding)
            plan->entries[plan->count++] = (struct lathe_plan_entry){ .request = tokens ? req : NULL,
                                                                      .tokens = tokens, .padding = padding };
        real += tokens;
    }
    return real;
}

int cohort_plan(struct cohort *c, const struct lathe_step_view *view, struct lathe_plan *plan)
{
    struct refusals refused = { 0 };
    uint32_t before;
    do {
        before = refused.all;
        if (attempt(c, view, plan, &refused) > 0)
            return 1;
    } while (refused.all > before);
    plan->count = 0; /* padding alone is no step */
    return refused.running > 0;
}

void cohort_retire(struct cohort *c, const struct lathe_request *req)
{
    uint32_t place = req->index < c->max_requests ? c->place[req->index] : 0;
    if (place == 0 || c->members[place - 1] != req)
        return;
    c->members[place - 1] = NULL;
    c->place[req->index] = 0;
    if (--c->alive == 0)
        c->count = 0;
}

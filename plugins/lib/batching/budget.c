/* SPDX-License-Identifier: MIT */
/* See budget.h. */
#include "budget.h"

uint32_t batching_limit(int64_t wanted, uint32_t engine)
{
    return wanted > 0 && wanted < engine ? (uint32_t)wanted : engine;
}

int batching_check_limits(const char *name, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    if (limits->max_batch_tokens == 0 || limits->max_batch_requests == 0)
        return lathe_fail(err, LATHE_EINVAL, "batching %s: the engine offers %u tokens and %u requests a step; both "
                          "must be at least 1", name, limits->max_batch_tokens, limits->max_batch_requests);
    return LATHE_OK;
}

void budget_begin(struct budget *b, const struct lathe_step_view *view, struct lathe_plan *plan, uint32_t rows,
                  uint32_t places, double watermark)
{
    *b = (struct budget){ .view = view, .plan = plan, .rows = rows,
                          .places = places < plan->capacity ? places : plan->capacity,
                          .blocks = view->blocks_available,
                          .free_blocks = (uint32_t)(watermark * view->blocks_total) };
    plan->count = 0;
    plan->wake_ns = INT64_MAX;
}

/* Blocks beside those it holds. What was swapped out holds none. */
static uint32_t more_blocks(const struct lathe_step_view *view, const struct lathe_request *req, uint32_t tokens)
{
    uint32_t held = req->state == LATHE_REQUEST_SWAPPED ? 0 : batching_blocks(view, req->computed_tokens);
    return batching_blocks(view, (uint64_t)req->computed_tokens + tokens) - held;
}

int budget_leaves_free(const struct budget *b, const struct lathe_request *req, uint32_t tokens)
{
    return (uint64_t)more_blocks(b->view, req, tokens) + b->free_blocks <= b->blocks;
}

uint32_t budget_give(struct budget *b, const struct lathe_request *req, uint32_t most)
{
    uint32_t tokens = lathe_request_pending(req), blocks;
    tokens = tokens < most ? tokens : most;
    tokens = tokens < b->rows ? tokens : b->rows;
    if (tokens == 0 || b->places == 0 || !b->view->can_reserve(b->view->engine, req, req->computed_tokens + tokens))
        return 0;
    blocks = more_blocks(b->view, req, tokens);
    b->blocks -= blocks < b->blocks ? blocks : b->blocks;
    b->plan->entries[b->plan->count++] = (struct lathe_plan_entry){ .request = req, .tokens = tokens };
    b->rows -= tokens;
    b->places--;
    return tokens;
}

struct running budget_give_running(struct budget *b, const struct lathe_ranking *ranking, uint32_t partial)
{
    struct running r = { 0 };
    uint32_t end = 0, begun = 0;

    for (; end < ranking->count && r.ranked < b->view->running; end++) {
        const struct lathe_request *req = ranking->requests[end];
        if (req->state != LATHE_REQUEST_RUNNING)
            continue;
        r.ranked++;
        if (!lathe_request_decoding(req))
            begun++;
        else if (!budget_is_spent(b) && budget_give(b, req, 1) == 0)
            r.refused++;
    }
    r.unfinished = begun;
    r.sharing = partial < begun + b->view->waiting ? partial : begun + b->view->waiting;
    for (uint32_t i = 0; i < end && begun > 0 && !budget_is_spent(b); i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t given;
        if (req->state != LATHE_REQUEST_RUNNING || lathe_request_decoding(req))
            continue;
        begun--;
        given = budget_give(b, req, budget_share(b, &r));
        r.refused += given == 0;
        r.unfinished -= given == lathe_request_pending(req);
    }
    return r;
}

void budget_top_up(struct budget *b)
{
    for (uint32_t i = 0; i < b->plan->count && b->rows > 0; i++) {
        struct lathe_plan_entry *entry = &b->plan->entries[i];
        uint32_t more = lathe_request_pending(entry->request) - entry->tokens;
        more = more < b->rows ? more : b->rows;
        if (more > 0 && b->view->can_reserve(b->view->engine, entry->request,
                                             entry->request->computed_tokens + entry->tokens + more)) {
            entry->tokens += more;
            b->rows -= more;
        }
    }
}

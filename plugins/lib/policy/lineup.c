/* SPDX-License-Identifier: MIT */
/* See lineup.h. */
#include "lineup.h"

void *lineup_create(const struct lathe_host *host, const struct lineup_rules *rules, size_t bytes,
                    struct lathe_error *err)
{
    struct lineup *l = lathe_alloc(host, bytes);
    if (!l) {
        lathe_error_set(err, LATHE_ENOMEM, "scheduler %s: no memory for %zu bytes", rules->name, bytes);
        return NULL;
    }
    l->host = host;
    l->rules = rules;
    return l;
}

static void unbind(struct lineup *l)
{
    order_close(&l->waiting);
    order_close(&l->running);
    lathe_free(l->host, l->notes);
    l->notes = NULL;
}

void lineup_destroy(void *self)
{
    struct lineup *l = self;
    if (!l)
        return;
    unbind(l);
    lathe_free(l->host, l);
}

int lineup_bind(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct lineup *l = self;
    const struct lineup_rules *rules = l->rules;
    if (l->waiting.links)
        return lathe_fail(err, LATHE_ESTATE, "scheduler %s: bound twice; bind once, before the first admit",
                          rules->name);
    if (rules->note_bytes)
        l->notes = lathe_alloc_array(l->host, limits->max_requests, rules->note_bytes);
    if ((rules->note_bytes && !l->notes) || order_open(&l->waiting, l->host, limits->max_requests) != LATHE_OK ||
        order_open(&l->running, l->host, limits->max_requests) != LATHE_OK) {
        unbind(l);
        return lathe_fail(err, LATHE_ENOMEM, "scheduler %s: no memory for a line of %u requests; lower max_requests",
                          rules->name, limits->max_requests);
    }
    return LATHE_OK;
}

static void join_waiting(struct lineup *l, const struct lathe_request *req)
{
    order_insert(&l->waiting, req, l->rules->key(l, req, 0));
    if (l->rules->waits)
        l->rules->waits(l, req, 1);
}

static void leave_waiting(struct lineup *l, const struct lathe_request *req)
{
    if (l->rules->waits)
        l->rules->waits(l, req, 0);
    order_remove(&l->waiting, req->index);
}

static void join_running(struct lineup *l, const struct lathe_request *req)
{
    order_insert(&l->running, req, l->rules->key(l, req, 1));
}

int lineup_has_room(const struct lineup *l, const struct lathe_request *req, struct lathe_error *err)
{
    if (req->index >= l->waiting.capacity)
        return lathe_fail(err, LATHE_EFULL, "scheduler %s: index %u is beyond the %u requests it was bound for; try "
                          "again after a step", l->rules->name, req->index, l->waiting.capacity);
    if (l->waiting.links[req->index].req || l->running.links[req->index].req)
        return lathe_fail(err, LATHE_EINTERNAL, "scheduler %s: index %u belongs to another live request; retire that "
                          "one first", l->rules->name, req->index);
    return LATHE_OK;
}

int lineup_admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct lineup *l = self;
    int status;
    if (lineup_knows(l, req))
        return LATHE_OK;
    if ((status = lineup_has_room(l, req, err)) != LATHE_OK)
        return status;
    if (req->state == LATHE_REQUEST_RUNNING)
        join_running(l, req);
    else
        join_waiting(l, req);
    return LATHE_OK;
}

void lineup_progress(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct lineup *l = self;
    (void)tokens;
    if (order_contains(&l->running, req) || !order_contains(&l->waiting, req))
        return; /* mostly it runs: then the other set's memory is left alone */
    leave_waiting(l, req);
    join_running(l, req);
}

void lineup_retire(void *self, const struct lathe_request *req)
{
    struct lineup *l = self;
    if (order_contains(&l->running, req))
        order_remove(&l->running, req->index);
    else if (order_contains(&l->waiting, req))
        leave_waiting(l, req);
}

void lineup_rekey(struct lineup *l, const struct lathe_request *req)
{
    if (order_contains(&l->running, req))
        order_update(&l->running, req->index, l->rules->key(l, req, 1));
    else if (order_contains(&l->waiting, req))
        order_update(&l->waiting, req->index, l->rules->key(l, req, 0));
}

/* Nobody says that a request was preempted: it is seen. That one runs is heard from progress(),
 * unless its first step failed; only then are all looked through. */
void lineup_settle(struct lineup *l, const struct lathe_step_view *view)
{
    LATHE_ASSERT_THREAD(l->host, LATHE_THREAD_ENGINE);
    for (uint32_t i = order_first(&l->running), next; i != order_end(&l->running); i = next) {
        const struct lathe_request *req = l->running.links[i].req;
        next = order_next(&l->running, i);
        if (req->state != LATHE_REQUEST_RUNNING) {
            order_remove(&l->running, i);
            join_waiting(l, req);
        }
    }
    if (l->running.count != view->running)
        for (uint32_t i = 0; i < view->live_count; i++)
            if (view->live[i]->state == LATHE_REQUEST_RUNNING)
                lineup_progress(l, view->live[i], 0);
}

void lineup_clear(struct lathe_ranking *ranking)
{
    ranking->count = ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX;
}

void lineup_rank_running(const struct lineup *l, struct lathe_ranking *ranking)
{
    for (uint32_t i = order_first(&l->running); i != order_end(&l->running); i = order_next(&l->running, i))
        lineup_put(ranking, l->running.links[i].req);
}

/* Whoever runs beyond the first max_batch_requests can't be served in this step. */
static void drop_overtaken(const struct lathe_step_view *view, struct lathe_ranking *ranking)
{
    for (uint32_t i = view->max_batch_requests; i < ranking->count; i++)
        if (ranking->requests[i]->state == LATHE_REQUEST_RUNNING && ranking->preempt_count < ranking->preempt_capacity)
            ranking->preempt[ranking->preempt_count++] = ranking->requests[i];
}

void lineup_rank_all(const struct lineup *l, const struct lathe_step_view *view, struct lathe_ranking *ranking)
{
    const struct order *r = &l->running, *w = &l->waiting;
    uint32_t running = order_first(r), waiting = order_first(w), left = lineup_wanted(view);
    while (left > 0 && waiting != order_end(w)) {
        if (running != order_end(r) && (!l->merged || order_before(&r->places[running], &w->places[waiting]))) {
            lineup_put(ranking, r->links[running].req);
            running = order_next(r, running);
        } else {
            lineup_put(ranking, w->links[waiting].req);
            waiting = order_next(w, waiting);
            left--;
        }
    }
    for (; running != order_end(r); running = order_next(r, running))
        lineup_put(ranking, r->links[running].req);
    if (l->recompute)
        drop_overtaken(view, ranking);
}

int lineup_rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct lineup *l = self;
    (void)err;
    lineup_settle(l, view);
    lineup_clear(ranking);
    lineup_rank_all(l, view, ranking);
    return LATHE_OK;
}

/* The last in the ranking that runs: it is the one the policy would miss least. Never one that
 * runs alone: giving its room back to itself would go on for ever. */
const struct lathe_request *lineup_victim(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy)
{
    struct lineup *l = self;
    const struct lathe_request *last;
    lineup_settle(l, view);
    last = l->running.count ? l->running.links[order_last(&l->running)].req : NULL;
    return last == needy && l->running.count == 1 ? NULL : last;
}

int lineup_explain(const struct lineup *l, const struct lathe_request *req, char *text, uint32_t capacity)
{
    int running = order_contains(&l->running, req);
    const struct order *o = running ? &l->running : &l->waiting;
    uint32_t place = 1;
    if (!order_contains(o, req))
        return snprintf(text, capacity, "%s: not admitted", l->rules->name);
    for (uint32_t i = order_prev(o, req->index); i != order_end(o); i = order_prev(o, i))
        place++;
    return snprintf(text, capacity, "%s: %u of %u that %s", l->rules->name, place, o->count, running ? "run" : "wait");
}

int lineup_explain_more(char *text, uint32_t capacity, int length, const char *format, ...)
{
    uint32_t used = (uint32_t)length < capacity ? (uint32_t)length : capacity;
    va_list args;
    va_start(args, format);
    int more = vsnprintf(text + used, capacity - used, format, args);
    va_end(args);
    return length + more;
}

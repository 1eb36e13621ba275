/* SPDX-License-Identifier: MIT */
/* Room in the KV pool. Memory pressure has one path: batching asks can_reserve, the
 * kvcache evicts within its policy, and when a running request still gets no room the
 * scheduler names a victim, which the engine swaps out or lets recompute. A kvcache may say that
 * nobody makes room: then the request that lacks it ends, with a sentence.
 *
 * A victim gets nothing in the step that it lost its place in, whatever the ranking says: those
 * who run use the room at least once. Otherwise a policy that names last whom it ranks first would
 * give it its own room back, step after step, and nobody would ever get on.
 *
 * With a cache that shares prefixes, whoever is let in holds what was found, planned or not, and
 * nobody can evict it meanwhile. So before a running request costs another its place, and before one
 * is called too large for the pool, those who hold blocks without a place in the plan let go of them. */
#include "engine_internal.h"

static void refuse(struct engine *e, struct live *live)
{
    if (live->refused != e->fill_number && live->req.state == LATHE_REQUEST_RUNNING)
        e->refused_running++;
    live->refused = e->fill_number;
}

/* The cache hears of it. One that is full for now leaves it waiting. */
static bool let_in(struct engine *e, struct live *live)
{
    struct lathe_error err;
    uint32_t cached = 0;
    if (e->kv->admit(e->kv_self, &live->req, &cached, &err) != LATHE_OK)
        return false;
    if (cached < live->carried)
        cached = live->carried;
    live->in_kv = true;
    e->tried[e->tried_count++] = live;
    request_computed(e, live, cached);
    if (live->req.output_tokens == 0)
        live->req.cached_tokens = cached;
    return true;
}

/* A promise: blocks that this plan has already given away count as taken. */
int memory_can_reserve(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct engine *e = self;
    struct live *live = live_of(e, req);
    if (e->barring && live->barred == e->begins)
        return 0;
    if (!live->in_kv && (e->kv->cached_prefix || !let_in(e, live))) {
        /* A cache that shares prefixes has let in as many as a batch can hold: not this step. */
        refuse(e, live);
        return 0;
    }
    uint32_t need = e->kv->blocks_needed(e->kv_self, req, tokens);
    uint32_t available = e->kv->blocks_available(e->kv_self);
    if (need > available || need + e->promised_blocks > available) {
        e->short_of_blocks = true;
        refuse(e, live);
        return 0;
    }
    e->promised_blocks += need;
    return 1;
}

void memory_begin_plan(struct engine *e)
{
    e->fill_number++;
    e->promised_blocks = e->refused_running = 0;
    e->short_of_blocks = false;
    if (!e->kv->cached_prefix)
        return;
    uint32_t left = e->lets_in;
    for (uint32_t i = 0; i < e->ranking.count && left > 0; i++) {
        struct live *live = live_of(e, e->ranking.requests[i]);
        if (live->in_kv || (e->barring && live->barred == e->begins))
            continue;
        left--;
        if (!let_in(e, live))
            refuse(e, live);
    }
}

/* How many were let go; who is planned stays on the list. */
static uint32_t release_unplanned(struct engine *e)
{
    uint32_t kept = 0, released = 0;
    for (uint32_t i = 0; i < e->tried_count; i++) {
        struct live *live = e->tried[i];
        if (!live->in_kv || (live->req.state != LATHE_REQUEST_WAITING && live->req.state != LATHE_REQUEST_PREEMPTED))
            continue;
        if (live->planned == e->fill_number) {
            e->tried[kept++] = live;
            continue;
        }
        e->kv->release(e->kv_self, &live->req);
        live->in_kv = false;
        request_computed(e, live, live->carried);
        released++;
    }
    e->tried_count = kept;
    return released;
}

void memory_release_unplanned(struct engine *e)
{
    release_unplanned(e);
    e->tried_count = 0;
}

bool memory_let_go(struct engine *e)
{
    uint32_t most = e->refused_running > 0 ? 0 : 1; /* of those that don't run, next time */
    bool stuck = e->refused_running > 0 || (e->plan.count == 0 && e->running_count == 0);
    if (!e->kv->cached_prefix || !e->short_of_blocks || !stuck || e->lets_in <= most)
        return false;
    e->lets_in = most;
    return release_unplanned(e) > most;
}

void memory_preempt(struct engine *e, struct live *victim, const char *cause, int64_t now_ns)
{
    struct lathe_error err;
    int32_t state = LATHE_REQUEST_PREEMPTED;

    if (victim->req.state != LATHE_REQUEST_RUNNING)
        return;
    if (e->kv->preempt_choice && e->kv->swap_out && e->kv->swap_in &&
        e->kv->preempt_choice(e->kv_self, &victim->req) == LATHE_KV_SWAP &&
        e->kv->swap_out(e->kv_self, &victim->req, &e->ops, &err) == LATHE_OK) {
        state = LATHE_REQUEST_SWAPPED;
    } else {
        e->kv->release(e->kv_self, &victim->req);
        victim->in_kv = false;
        victim->carried = 0;
        request_computed(e, victim, 0);
    }
    victim->req.preemptions++;
    e->stats.preemptions++;
    request_enter(e, victim, state, cause, now_ns);
    if (e->batching->retire)
        e->batching->retire(e->batching_self, &victim->req);
}

/* The first running request, in ranking order, that was refused room and isn't planned. */
static struct live *needy_request(struct engine *e)
{
    for (uint32_t i = 0; e->refused_running > 0 && i < e->ranking.count; i++) {
        struct live *live = live_of(e, e->ranking.requests[i]);
        if (live->refused == e->fill_number && live->planned != e->fill_number &&
            live->req.state == LATHE_REQUEST_RUNNING)
            return live;
    }
    return NULL;
}

bool memory_make_room(struct engine *e, int64_t now_ns)
{
    struct live *needy = needy_request(e);
    if (!needy)
        return false;

    if (e->kv->preempt_choice && e->kv->preempt_choice(e->kv_self, &needy->req) == LATHE_KV_REFUSE) {
        char why[ERROR_BYTES];
        snprintf(why, sizeof why,
                 "out of KV blocks: the pool's %u blocks of %u tokens are taken, and kvcache/%s refuses who needs more "
                 "instead of preempting others; give it more memory or let it preempt",
                 e->geometry.blocks, e->geometry.block_tokens, e->params.parts.kvcache->plugin->name);
        request_finish(e, needy, LATHE_FINISH_ERROR, why, now_ns);
        return true;
    }

    const struct lathe_request *named = e->scheduler->victim(e->scheduler_self, &e->view, &needy->req);
    struct live *victim = named ? live_of(e, named) : NULL;
    if (victim && victim->req.state != LATHE_REQUEST_RUNNING)
        victim = NULL;

    /* Alone in the pool and still short: no victim can help it, now or later. */
    if (e->running_count == 1 && (!victim || victim == needy)) {
        char why[ERROR_BYTES];
        snprintf(why, sizeof why,
                 "out of KV blocks: the pool's %u blocks of %u tokens can't hold its %u tokens; give the kvcache more "
                 "memory or ask for fewer tokens",
                 e->geometry.blocks, e->geometry.block_tokens, needy->req.prompt_tokens + needy->req.output_tokens);
        request_finish(e, needy, LATHE_FINISH_ERROR, why, now_ns);
        return true;
    }
    if (!victim)
        return false; /* it waits for the others */
    memory_preempt(e, victim, "out of KV blocks", now_ns);
    if (e->running_count > 0) {
        victim->barred = e->begins;
        e->barring = true;
    }
    return true;
}

int memory_reserve(struct engine *e, struct live *live, uint32_t tokens, struct lathe_error *err)
{
    int status;
    if (live->req.state == LATHE_REQUEST_SWAPPED) {
        status = e->kv->swap_in(e->kv_self, &live->req, &e->ops, err);
        if (status != LATHE_OK)
            return status;
        live->in_kv = true;
    }
    return e->kv->reserve(e->kv_self, &live->req, tokens, &e->ops, err);
}

/* SPDX-License-Identifier: MIT */
/* The step loop.
 *
 *     begin(now)   expire → rank → plan (preempting if running requests lack room) → reserve
 *                  → build the message → post the forward          [schedule_ns, reserve_ns]
 *     finish(at)   wait for the forward → sample → hand out tokens → retire → rows
 *                                                                  [forward_ns, sample_ns]
 *
 * Nothing here allocates, locks, looks up a string or calls the system (a full output
 * queue skips its request; a full ring waits or drops, as the run chose). */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

#include "host.h"

/* Cancelled requests, and those whose deadline has passed. */
static void expire(struct engine *e, int64_t now_ns)
{
    bool look_at_deadlines = now_ns >= e->next_deadline_ns;
    int64_t next = INT64_MAX;

    if (!look_at_deadlines && !atomic_load_explicit(&e->cancels, memory_order_relaxed))
        return;
    atomic_exchange_explicit(&e->cancels, false, memory_order_acquire); /* before looking: a later one sets it again */
    for (uint32_t i = e->live_count; i-- > 0;) { /* backwards: finishing takes it out of the list */
        struct live *live = live_of(e, e->live[i]);
        if (atomic_load_explicit(&live->cancelled, memory_order_relaxed))
            request_finish(e, live, LATHE_FINISH_ABORT, "", now_ns);
        else if (look_at_deadlines && live->req.deadline_ns <= now_ns)
            request_finish(e, live, LATHE_FINISH_DEADLINE, "its deadline passed", now_ns);
        else if (look_at_deadlines && live->req.deadline_ns < next)
            next = live->req.deadline_ns;
    }
    if (look_at_deadlines)
        e->next_deadline_ns = next;
}

void step_look(struct engine *e, int64_t now_ns)
{
    struct lathe_step_view *view = &e->view;
    view->live_count = e->live_count;
    view->live = e->live;
    view->now_ns = now_ns;
    view->step = e->begun + 1;
    view->running = e->running_count;
    view->waiting = e->live_count - e->running_count;
    view->blocks_available = e->kv->blocks_available(e->kv_self);
}

/* A service of the host's own, on this thread: what it works on is the engine, which is its self. */
static int call_local(struct engine *e, const struct lathe_endpoint *endpoint, struct lathe_error *err)
{
    e->step_in.bytes = e->step_in.capacity = e->step_out.capacity = sizeof(struct lathe_message);
    e->step_in.correlation = e->begun + 1;
    e->stepping = true;
    int status = endpoint->call(endpoint->self, &e->step_in, &e->step_out, err);
    e->stepping = false;
    return status;
}

/* Filling and reserving change what is under way: nobody else may call them by name. */
static int refuse_outside(const struct engine *e, const char *method, struct lathe_error *err)
{
    return e->stepping ? LATHE_OK : lathe_fail(err, LATHE_ESTATE, "%s is for the engine's own step only", method);
}

/* scheduler.rank: the scheduler's word, checked. A reply with room gets it laid out. */
int step_rank(void *self, const void *in, void *out_, struct lathe_error *err)
{
    struct engine *e = self;
    struct lathe_ranking *ranking = &e->ranking;
    struct lathe_message *out = out_;
    bool by_name = out->capacity > sizeof *out;
    (void)in;
    out->bytes = sizeof *out;
    if (by_name)
        step_look(e, clock_now(e->clock));
    ranking->count = ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX;
    int status = e->scheduler->rank(e->scheduler_self, &e->view, ranking, err);
    if (status != LATHE_OK)
        return status;
    if (ranking->count > ranking->capacity || ranking->preempt_count > ranking->preempt_capacity)
        return lathe_fail(err, LATHE_EINTERNAL, "scheduler/%s ranked more requests than there is room for",
                          e->params.parts.scheduler->plugin->name);
    return by_name ? local_rank_reply(e, out, err) : LATHE_OK;
}

/* batching.fill: the plan for that ranking. */
int step_fill(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct engine *e = self;
    (void)in;
    if (refuse_outside(e, "batching.fill", err) != LATHE_OK)
        return LATHE_ESTATE;
    ((struct lathe_message *)out)->bytes = sizeof(struct lathe_message);
    return e->batching->fill(e->batching_self, &e->view, &e->ranking, &e->plan, err);
}

/* Ask the scheduler; carry out its preemptions; leave out whoever must not run. */
static int rank(struct engine *e, int64_t now_ns, struct lathe_error *err)
{
    struct lathe_ranking *ranking = &e->ranking;
    int status = call_local(e, e->rank, err);
    if (status != LATHE_OK)
        return status;

    for (uint32_t i = 0; i < ranking->preempt_count; i++)
        memory_preempt(e, live_of(e, ranking->preempt[i]), "scheduler", now_ns);
    if (ranking->preempt_count > 0)
        step_look(e, now_ns); /* fewer run, and batching must not count on them */

    uint32_t kept = 0;
    for (uint32_t i = 0; i < ranking->count; i++) {
        struct live *live = live_of(e, ranking->requests[i]);
        if (live->req.state == LATHE_REQUEST_FINISHED)
            return lathe_fail(err, LATHE_EINTERNAL, "scheduler/%s ranked request %" PRIu64 ", which has finished",
                              e->params.parts.scheduler->plugin->name, live->req.id);
        if (live->unread || !request_reader_is_behind(e, live)) /* a slow reader holds up itself only */
            ranking->requests[kept++] = &live->req;
    }
    ranking->count = kept;
    return LATHE_OK;
}

/* A plan is the plugin's word: check it before anything is built on it. */
static int check_plan(struct engine *e, struct lathe_error *err)
{
    const char *name = e->params.parts.batching->plugin->name;
    uint64_t rows = 0;

    if (e->plan.count > e->plan.capacity)
        return lathe_fail(err, LATHE_EINTERNAL, "batching/%s planned %u entries, there is room for %u", name,
                          e->plan.count, e->plan.capacity);
    for (uint32_t i = 0; i < e->plan.count; i++) {
        const struct lathe_plan_entry *entry = &e->plan.entries[i];
        rows += (uint64_t)entry->tokens + entry->padding;
        if (!entry->request)
            continue;
        struct live *live = live_of(e, entry->request);
        if (live->planned == e->fill_number || entry->tokens == 0 || entry->tokens > lathe_request_pending(&live->req) ||
            live->req.state == LATHE_REQUEST_FINISHED)
            return lathe_fail(err, LATHE_EINTERNAL,
                              "batching/%s planned %u tokens of request %" PRIu64 ", which has %u pending%s", name,
                              entry->tokens, live->req.id, lathe_request_pending(&live->req),
                              live->planned == e->fill_number ? " and was planned already" : "");
        live->planned = e->fill_number;
    }
    if (rows > e->params.batch_tokens)
        return lathe_fail(err, LATHE_EINTERNAL, "batching/%s planned %" PRIu64 " rows, the budget is %u", name, rows,
                          e->params.batch_tokens);
    return LATHE_OK;
}

/* Fill the plan, preempting until no running request that should go lacks room. Where nobody else
 * can go, whoever gave its room away may have it back. */
static int fill(struct engine *e, int64_t now_ns, struct lathe_error *err)
{
    for (uint32_t tries = 0; tries <= 2 * e->params.max_requests; tries++) {
        e->plan.count = 0;
        e->plan.wake_ns = INT64_MAX;
        memory_begin_plan(e);
        int status = call_local(e, e->fill, err);
        if (status != LATHE_OK || (status = check_plan(e, err)) != LATHE_OK)
            return status;
        if (memory_let_go(e))
            continue;
        if (!memory_make_room(e, now_ns)) {
            if (e->plan.count > 0 || !e->barring)
                break;
            e->barring = false;
        }
        e->lets_in = e->params.batch_requests; /* what a victim gave up may be for whoever waits */
        step_look(e, now_ns);
        if ((status = rank(e, now_ns, err)) != LATHE_OK)
            return status;
    }
    return LATHE_OK;
}

/* Nothing could be planned although nothing runs and nobody waits for a time: whoever is
 * first can never get room, and would wait forever. */
static bool fail_hopeless(struct engine *e, int64_t now_ns)
{
    if (e->ranking.count == 0 || e->ranking.wake_ns != INT64_MAX || e->plan.wake_ns != INT64_MAX || e->running_count > 0)
        return false;
    for (uint32_t i = 0; i < e->ranking.count; i++) {
        struct live *live = live_of(e, e->ranking.requests[i]);
        if (live->refused != e->fill_number)
            continue;
        char why[ERROR_BYTES];
        snprintf(why, sizeof why,
                 "out of KV blocks: %u tokens need more than the pool's %u blocks of %u tokens; give the kvcache more "
                 "memory or %s",
                 live->req.prompt_tokens + live->req.output_tokens, e->geometry.blocks, e->geometry.block_tokens,
                 e->kv->kept ? "take the prompt in smaller pieces (batch_tokens)" : "shorten the prompt");
        request_finish(e, live, LATHE_FINISH_ERROR, why, now_ns);
        return true;
    }
    return false;
}

/* memory.reserve: the plan becomes entries with room in the pool. What turns out to have none
 * after all (the kvcache broke its promise) is left out of this step. */
int step_reserve(void *self, const void *in, void *out, struct lathe_error *err)
{
    struct engine *e = self;
    const int64_t now_ns = e->now_ns;
    uint32_t count = 0;
    (void)in;
    if (refuse_outside(e, "memory.reserve", err) != LATHE_OK)
        return LATHE_ESTATE;
    ((struct lathe_message *)out)->bytes = sizeof(struct lathe_message);
    for (uint32_t i = 0; i < e->plan.count; i++) {
        const struct lathe_plan_entry *planned = &e->plan.entries[i];
        struct step_entry *entry = &e->entries[count];
        struct lathe_error none;

        *entry = (struct step_entry){ .tokens = planned->tokens, .padding = planned->padding };
        if (planned->request) {
            struct live *live = live_of(e, planned->request);
            if (memory_reserve(e, live, live->req.computed_tokens + planned->tokens, &none) != LATHE_OK) {
                live->planned = 0;
                continue;
            }
            entry->live = live;
            entry->first = live->req.computed_tokens;
            entry->prefill = !lathe_request_decoding(&live->req);
            if (live->req.state != LATHE_REQUEST_RUNNING) {
                if (live->req.admitted_ns < 0)
                    live->req.admitted_ns = now_ns;
                request_enter(e, live, LATHE_REQUEST_RUNNING, "admitted", now_ns);
            }
        }
        count++;
    }
    e->entry_count = count;
    return LATHE_OK;
}

/* Collects the forward; timeout_ns as for the bus's wait. */
static int collect(struct engine *e, int64_t timeout_ns)
{
    if (e->params.watch)
        e->params.watch->step = e->step;
    int status = e->bus->wait(e->bus_self, e->ticket, timeout_ns, &e->forward_err);
    if (timeout_ns == 0 && status == LATHE_EBUSY)
        return 0;
    e->forward_status = status;
    e->forwarded = true;
    e->due_ns = e->now_ns;
    if (e->tells_time && status == LATHE_OK)
        e->due_ns += e->slowness == 1.0 ? e->forward_out->duration_ns
                                        : (int64_t)(e->slowness * (double)e->forward_out->duration_ns);
    return 1;
}

int engine_begin(struct engine *e, int64_t now_ns, int *state, int64_t *until_ns, struct lathe_error *err)
{
    struct record_step *row = &e->row;
    int status;

    if (e->started)
        return lathe_fail(err, LATHE_ESTATE, "the engine's step %" PRIu64 " must be finished first", e->step);
    *state = ENGINE_IDLE;
    *until_ns = INT64_MAX;
    row->start_ns = e->now_ns = now_ns;
    e->begins++;
    e->barring = false;
    e->lets_in = e->params.batch_requests; /* no more: a look-up costs time */

    expire(e, now_ns);
    if (e->params.watch)
        bus_watch_drain(e->params.watch);
    if (!health_admits_step(e, now_ns, until_ns))
        return LATHE_OK;
    if (e->params.degrade_wait_ns > 0 || e->degraded || e->unavailable)
        health_judge(e, now_ns);
    do {
        if (e->live_count == 0)
            return LATHE_OK;
        step_look(e, now_ns);
        if ((status = rank(e, now_ns, err)) != LATHE_OK || (status = fill(e, now_ns, err)) != LATHE_OK)
            return status;
        memory_release_unplanned(e);
    } while (e->plan.count == 0 && fail_hopeless(e, now_ns));

    if (e->plan.count == 0) {
        *until_ns = e->plan.wake_ns < e->ranking.wake_ns ? e->plan.wake_ns : e->ranking.wake_ns;
        if (e->next_deadline_ns < *until_ns)
            *until_ns = e->next_deadline_ns;
        return LATHE_OK;
    }
    fit_plan(e);
    int64_t scheduled = clock_now(e->clock);
    row->schedule_ns = scheduled - now_ns;

    if ((status = call_local(e, e->reserve, err)) != LATHE_OK)
        return status;
    if (e->entry_count == 0)
        return lathe_fail(err, LATHE_EINTERNAL, "kvcache/%s promised room and then had none",
                          e->params.parts.kvcache->plugin->name);
    e->ops_sent = e->ops.count;
    if ((status = message_build_forward(e, err)) != LATHE_OK)
        return status;
    int64_t reserved = clock_now(e->clock);
    row->reserve_ns = reserved - scheduled;
    row->forward_ns = reserved; /* until finish: when it began */

    e->step = ++e->numbers->step;
    if (e->params.watch)
        e->params.watch->step = e->step;
    status = e->bus->post(e->bus_self, e->forward, e->forward_in, e->forward_out, &e->ticket, err);
    if (status != LATHE_OK && e->attention)
        message_commit_attention(e, false);
    if (status == LATHE_EUNAVAILABLE || status == LATHE_EFULL) { /* nothing was begun: the same again, later */
        e->numbers->step--;
        e->ops.count = e->ops_sent;
        health_unavailable(e, now_ns);
        *until_ns = e->ask_again_ns;
        return LATHE_OK;
    }
    if (status == LATHE_ELOST) { /* its worker died since the last step */
        e->entry_count = 0;
        health_lost(e, err->message, now_ns);
        *until_ns = e->ask_again_ns;
        return LATHE_OK;
    }
    if (status != LATHE_OK)
        return status;
    e->begun++;
    e->started = true;
    e->forwarded = false;
    e->due_ns = INT64_MAX;
    *state = ENGINE_STARTED;
    *until_ns = now_ns;
    if (e->tells_time && e->clock->kind == CLOCK_KIND_VIRTUAL) { /* the bus has no workers: it is done */
        collect(e, -1);
        *until_ns = e->due_ns;
    }
    return LATHE_OK;
}

int64_t engine_due(const struct engine *e)
{
    return e->started && e->forwarded ? e->due_ns : INT64_MAX;
}

/* How the KV pool is used, as a row. */
static void record_usage(struct engine *e, const struct lathe_kv_usage *usage, int64_t now_ns)
{
    struct record_kv_usage row = {
        .step_id = (int64_t)e->step,
        .replica = e->params.replica,
        .time_ns = now_ns,
        .blocks_total = usage->blocks_total,
        .blocks_used = usage->blocks_used,
        .blocks_cached = usage->blocks_cached,
        .blocks_shared = usage->blocks_shared,
        .reserved_tokens = (int64_t)usage->reserved_tokens,
        .filled_tokens = (int64_t)usage->filled_tokens,
        .evicted_blocks = (int64_t)usage->evicted_blocks,
        .evicted_tokens = (int64_t)usage->evicted_tokens,
        .hit_tokens = (int64_t)usage->hit_tokens,
        .looked_up_tokens = (int64_t)usage->looked_up_tokens,
    };
    record_kv_usage(e->producer, &row);
}

/* Keys that the entry's last row looks at: those are what attention's time grows with. */
static int64_t keys_of(const struct engine *e, const struct step_entry *entry)
{
    return (int64_t)(e->by_length ? entry->first : entry->kept) + entry->tokens;
}

/* Blocks of it that hold something which may still be looked at. */
static int64_t blocks_of(struct engine *e, const struct step_entry *entry)
{
    const int32_t *table;
    uint32_t count, held = 0, whole = (entry->first + entry->tokens + e->geometry.block_tokens - 1) / e->geometry.block_tokens;
    if (e->by_length || !entry->positions)
        return whole;
    e->kv->table(e->kv_self, &entry->live->req, &table, &count);
    for (uint32_t i = 0; i < count && i < whole; i++)
        held += table[i] >= 0;
    return held;
}

/* The step's own row, and one for each request in it. */
static void record_rows(struct engine *e, int64_t end_ns)
{
    struct record_step *row = &e->row;
    struct lathe_kv_usage usage;

    bool of_kv = e->params.kv_every && e->begun % e->params.kv_every == 0;
    if (!e->producer || (!of_kv && e->params.rows > ENGINE_ROWS_STEPS))
        return;
    e->kv->usage(e->kv_self, &usage);
    if (of_kv)
        record_usage(e, &usage, end_ns);
    if (e->params.rows > ENGINE_ROWS_STEPS)
        return;
    row->id = (int64_t)e->step;
    row->replica = e->params.replica;
    row->end_ns = end_ns;
    row->requests = 0;
    row->prefill_tokens = row->decode_tokens = row->padding_tokens = 0;
    row->decode_context_tokens = row->prefill_token_context = 0;
    row->waiting = e->view.waiting;
    row->kv_blocks_used = usage.blocks_used;
    row->kv_blocks_total = usage.blocks_total;
    for (uint32_t i = 0; i < e->entry_count; i++) {
        const struct step_entry *entry = &e->entries[i];
        row->padding_tokens += entry->padding;
        if (!entry->live)
            continue;
        row->requests++;
        if (entry->prefill) {
            row->prefill_tokens += entry->tokens;
            row->prefill_token_context +=
                (int64_t)entry->tokens * (keys_of(e, entry) - entry->tokens) + (int64_t)entry->tokens * (entry->tokens - 1) / 2;
        } else {
            row->decode_tokens += entry->tokens;
            row->decode_context_tokens += keys_of(e, entry);
        }
        if (e->params.rows > ENGINE_ROWS_STEP_REQUESTS)
            continue;
        struct record_step_request request = {
            .step_id = (int64_t)e->step,
            .request_id = (int64_t)entry->live->req.id,
            .first_position = entry->first,
            .tokens = entry->tokens,
            .context = keys_of(e, entry),
            .kv_blocks = blocks_of(e, entry),
        };
        memcpy(request.phase, entry->prefill ? "prefill" : "decode", entry->prefill ? 8 : 7);
        record_step_request(e->producer, &request);
    }
    record_step(e->producer, row);
}

int engine_ready(struct engine *e)
{
    return e->started && (e->forwarded || collect(e, 0)) && (!e->tells_time || clock_now(e->clock) >= e->due_ns);
}

int engine_is_started(const struct engine *e)
{
    return e->started;
}

int engine_is_empty(const struct engine *e)
{
    for (uint32_t i = 0; i < e->params.max_requests; i++)
        if (atomic_load_explicit(&e->slots[i].id, memory_order_acquire) != 0)
            return 0;
    return !e->started;
}

int engine_finish(struct engine *e, int64_t at_ns, struct lathe_error *err)
{
    if (!e->started)
        return lathe_fail(err, LATHE_ESTATE, "no step is under way");
    if (!e->forwarded)
        collect(e, -1);
    if (e->tells_time)
        clock_wait_until(e->clock, e->due_ns); /* a real clock: it takes the time that it told */
    e->started = false;

    struct lathe_error *why = &e->forward_err;
    int status = e->forward_status;
    int64_t forwarded = clock_now(e->clock);
    e->row.forward_ns = forwarded - e->row.forward_ns;
    e->row.sample_ns = 0;
    if (e->attention)
        message_commit_attention(e, status == LATHE_OK);
    if (status == LATHE_EUNAVAILABLE) { /* nothing was begun: the same again, later */
        e->ops.count = e->ops_sent;
        health_unavailable(e, forwarded);
        return LATHE_OK;
    }

    if (status == LATHE_OK) {
        e->unavailable = false;
        status = message_observe(e, why);
    }
    if (status == LATHE_OK) {
        for (uint32_t i = 0; i < e->entry_count; i++) {
            struct step_entry *entry = &e->entries[i];
            if (!entry->live)
                continue;
            struct lathe_request *req = &entry->live->req;
            request_computed(e, entry->live, req->computed_tokens + entry->tokens);
            e->kv->filled(e->kv_self, req, req->computed_tokens);
            if (e->scheduler->progress)
                e->scheduler->progress(e->scheduler_self, req, entry->tokens);
            if (entry->prefill)
                e->stats.prompt_tokens += entry->tokens;
        }
        status = e->picks ? message_check_picked(e, why) : message_sample(e, why);
        if (status == LATHE_EUNAVAILABLE) /* logits that nobody can sample now are computed again */
            status = LATHE_ELOST;
    }
    int64_t sampled = clock_now(e->clock);
    e->row.sample_ns = sampled - forwarded;
    if (sampled < at_ns)
        sampled = at_ns; /* virtual time: not before the step's end */
    e->stats.steps++;
    record_rows(e, sampled);
    host_context_drain(e->params.parts.model->context); /* figures that its worker recorded */
    if (!e->picks)
        host_context_drain(e->params.parts.sampler->context);
    if (status == LATHE_ELOST) {
        health_lost(e, why->message, sampled);
        return LATHE_OK;
    }

    /* A failing forward fails those who were in it, not the engine. */
    for (uint32_t i = 0, row = 0; i < e->entry_count; i++) {
        struct step_entry *entry = &e->entries[i];
        if (!entry->live)
            continue;
        if (status != LATHE_OK) {
            char text[ERROR_BYTES];
            snprintf(text, sizeof text, "step %" PRIu64 " failed: %.150s", e->step, why->message);
            request_finish(e, entry->live, LATHE_FINISH_ERROR, text, sampled);
        } else if (entry->samples) {
            request_token(e, entry->live, message_sampled(e, row++), sampled);
        }
    }
    return LATHE_OK;
}

int engine_step(struct engine *e, int *state, int64_t *until_ns, struct lathe_error *err)
{
    int status = engine_begin(e, clock_now(e->clock), state, until_ns, err);
    if (status != LATHE_OK || *state != ENGINE_STARTED)
        return status;
    clock_wait_until(e->clock, *until_ns);
    return engine_finish(e, *until_ns, err);
}

/* ── Faults ─────────────────────────────────────────────────────────────────────────── */

void engine_set_slowness(struct engine *e, double factor)
{
    e->slowness = factor;
}

int engine_lose(struct engine *e, int64_t now_ns, const char *why, struct lathe_error *err)
{
    if (e->started) { /* as if its worker had died in the middle of the step */
        e->forwarded = true;
        e->forward_status = lathe_fail(&e->forward_err, LATHE_ELOST, "%s", why);
        e->due_ns = now_ns;
        int status = engine_finish(e, now_ns, err);
        if (status != LATHE_OK)
            return status;
    } else {
        e->entry_count = 0;
        health_lost(e, why, now_ns);
    }
    e->unavailable = false; /* when it is back is for whoever simulates to say */
    return LATHE_OK;
}

/* SPDX-License-Identifier: MIT */
#include "simulate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "simulate_heap.h"
#include <lathe/router.h>

enum { EVENTS_A_LOOK = 4096 }; /* between looks at the machine's clock, for progress and interrupts */

struct simulation {
    const struct simulate_params *params;
    struct clock *clock;
    struct event_heap heap;
    bool *busy, *down;             /* by replica */
    int64_t *down_until_ns, *slow_until_ns; /* the end of the fault that counts; likewise */
    uint32_t replicas;
    bool conserving;

    size_t next, total;            /* arrivals so far, and in all */
    struct engine_submit coming;   /* of a workload: the next one, drawn already */
    bool has_coming;
    int64_t *ready;                /* closed: a ring of when users come back, ascending; (concurrency) */
    uint32_t ready_first, ready_count;

    struct engine_submit *held;    /* those that nobody takes yet: the router holds them back, or their replica is
                                      full; a ring, first come first served; (held_capacity) */
    size_t held_first, held_count, held_capacity;
    bool something_ended;

    struct split *split;           /* NULL: every replica does both */

    struct simulated_fault *faults; /* by time; the end of a fault is one of negative kind */
    size_t fault, fault_count;

    struct figures *figures;
    uint64_t in_system, ended;
    int64_t area_at_ns;            /* area is up to here */
    __int128 area, times;          /* ∫ number in system, Σ times in system; ns */
    struct clock machine;          /* for pacing what is told */
    int64_t look_at_ns;            /* by it */
    uint64_t events;
};

int simulate_open(struct simulation **simulation, struct lathe_error *err)
{
    *simulation = calloc(1, sizeof **simulation);
    return *simulation ? LATHE_OK : lathe_fail(err, LATHE_ENOMEM, "no memory for a simulation");
}

static void drop_memory(struct simulation *s)
{
    heap_close(&s->heap);
    split_close(s->split);
    free(s->busy);
    free(s->down);
    free(s->down_until_ns);
    free(s->slow_until_ns);
    free(s->ready);
    free(s->held);
    free(s->faults);
    s->busy = s->down = NULL, s->down_until_ns = s->slow_until_ns = s->ready = NULL, s->held = NULL, s->faults = NULL;
    s->split = NULL;
}

void simulate_close(struct simulation *s)
{
    if (s)
        drop_memory(s);
    free(s);
}

/* ── the books ──────────────────────────────────────────────────────────────────────── */

static void advance_area(struct simulation *s, int64_t now_ns)
{
    s->area += (__int128)s->in_system * (now_ns - s->area_at_ns);
    s->area_at_ns = now_ns;
}

static void count_in(struct simulation *s, int64_t now_ns)
{
    if (s->figures->requests++ == 0)
        s->figures->first_ns = now_ns;
    advance_area(s, now_ns);
    s->in_system++;
}

static void count_out(struct simulation *s, int64_t planned_ns, int64_t now_ns)
{
    advance_area(s, now_ns);
    s->in_system--;
    s->ended++;
    s->times += now_ns - planned_ns;
    s->figures->last_ns = now_ns > s->figures->last_ns ? now_ns : s->figures->last_ns;
    if (s->params->concurrency) /* its user thinks, and comes back */
        s->ready[(s->ready_first + s->ready_count++) % s->params->concurrency] = now_ns + s->params->think_ns;
}

/* A request, be it one or two for the engines. */
static void whole_ended(struct simulation *s, const struct engine_ended *ended, const struct lathe_request *r)
{
    count_out(s, r->planned_ns, ended->finish_ns);
    s->figures->output_tokens += r->output_tokens;
    s->figures->prompt_tokens += r->prompt_tokens;
    s->figures->preemptions += r->preemptions;
    s->figures->failed += ended->finish_reason == LATHE_FINISH_ERROR;
    if (ended->finish_reason != LATHE_FINISH_ERROR && r->output_tokens > 0 && ended->tag >= s->params->warmup_requests)
        figures_count(s->figures, r, ended->finish_ns);
    if (!s->params->workload) {
        struct planned_request *planned = &s->params->requests[ended->tag];
        planned->id = ended->id;
        planned->replica = ended->replica;
        planned->finish_reason = ended->finish_reason;
        snprintf(planned->error, sizeof planned->error, "%s", ended->error);
    }
}

void simulate_ended(void *simulation, const struct engine_ended *ended)
{
    struct simulation *s = simulation;
    if (!s->params) /* the deployment is being closed */
        return;
    s->something_ended = true;
    if (!s->split) {
        whole_ended(s, ended, ended->request);
        return;
    }
    struct engine_ended whole = *ended;
    struct lathe_request request = *ended->request;
    if (split_ended(s->split, &whole, &request))
        whole_ended(s, &whole, &request);
}

/* ── arrivals ───────────────────────────────────────────────────────────────────────── */

static void draw_next(struct simulation *s)
{
    struct workload_request w;
    s->has_coming = s->next < s->total && s->params->workload && workload_next(s->params->workload, &w);
    if (!s->has_coming)
        return;
    s->coming = (struct engine_submit){
        .token_count = w.prompt_tokens, .forced_output_tokens = w.output_tokens, .unread = 1, .tag = s->next,
        .predicted_output_tokens = w.predicted_output_tokens, .priority = w.priority, .class_name = w.class_name,
        .tenant = w.tenant, .weight = w.weight, .planned_ns = w.planned_ns, .slo_ttft_ns = w.slo_ttft_ns,
        .slo_tpot_ns = w.slo_tpot_ns, .deadline_ns = w.deadline_ns, /* from its arrival, until that is known */
    };
}

static int64_t next_arrival(const struct simulation *s)
{
    if (s->next == s->total)
        return INT64_MAX;
    if (s->params->concurrency)
        return s->ready_count ? s->ready[s->ready_first] : INT64_MAX;
    return s->params->workload ? s->coming.planned_ns : s->params->requests[s->next].submit.planned_ns;
}

static int hold(struct simulation *s, const struct engine_submit *submit, struct lathe_error *err)
{
    if (s->held_count == s->held_capacity) {
        size_t capacity = s->held_capacity ? 2 * s->held_capacity : 64;
        struct engine_submit *larger = calloc(capacity, sizeof *larger);
        if (!larger)
            return lathe_fail(err, LATHE_ENOMEM, "no memory for %zu requests that nobody takes yet", capacity);
        for (size_t i = 0; i < s->held_count; i++)
            larger[i] = s->held[(s->held_first + i) % s->held_capacity];
        free(s->held);
        s->held = larger;
        s->held_first = 0;
        s->held_capacity = capacity;
    }
    s->held[(s->held_first + s->held_count++) % s->held_capacity] = *submit;
    return LATHE_OK;
}

static void refused(struct simulation *s, const struct engine_submit *request, uint32_t replica, const char *why)
{
    size_t number = request->tag;
    int64_t planned_ns = request->planned_ns;
    uint64_t id = 0;
    if (s->figures->refused++ == 0)
        snprintf(s->figures->first_refusal, sizeof s->figures->first_refusal, "%.*s",
                 (int)sizeof s->figures->first_refusal - 1, why);
    if (s->split)
        number = split_refused(s->split, request->tag, &planned_ns, &id);
    count_out(s, planned_ns, clock_now(s->clock));
    if (s->params->workload) { /* those of a list get their rows when all is over (run_job.c) */
        engine_record_refusal(deployment_engine(s->params->deployment, replica), request);
        return;
    }
    struct planned_request *planned = &s->params->requests[number];
    planned->id = id; /* of its first half, which has a row */
    planned->finish_reason = LATHE_FINISH_ERROR;
    snprintf(planned->error, sizeof planned->error, "%.*s", (int)sizeof planned->error - 1, why);
}

/* To a replica, if one takes it: LATHE_EFULL otherwise. A request that can't be served ends here. */
static int submit(struct simulation *s, const struct engine_submit *request, struct lathe_error *err)
{
    uint32_t choice;
    uint64_t id;
    int status = deployment_choose(s->params->deployment, request, &choice, err);
    if (status == LATHE_EBUSY || (status == LATHE_OK && choice == LATHE_ROUTER_HOLD))
        return LATHE_EFULL;
    if (status != LATHE_OK)
        return status;
    status = engine_submit(deployment_engine(s->params->deployment, choice), request, &id, err);
    if (status != LATHE_OK)
        deployment_not_taken(s->params->deployment, request, choice);
    if (status == LATHE_EFULL)
        return status;
    if (status != LATHE_OK) {
        refused(s, request, choice, err->message);
        return LATHE_OK;
    }
    deployment_refresh(s->params->deployment, choice);
    if (!s->busy[choice] && !s->down[choice])
        heap_set(&s->heap, choice, clock_now(s->clock), EVENT_BEGIN);
    return LATHE_OK;
}

static int arrive(struct simulation *s, struct lathe_error *err)
{
    const int64_t now = clock_now(s->clock);
    struct engine_submit request = s->params->workload ? s->coming : s->params->requests[s->next].submit;
    size_t number = s->next++;
    if (s->params->concurrency) {
        s->ready_first = (s->ready_first + 1) % s->params->concurrency;
        s->ready_count--;
        request.planned_ns = now;
    }
    request.unread = 1;
    request.tag = number;
    if (s->params->workload) {
        if (request.deadline_ns)
            request.deadline_ns += request.planned_ns;
        draw_next(s);
    }
    int status = s->split ? split_begin(s->split, &request, number, err) : LATHE_OK;
    if (status != LATHE_OK)
        return status;
    count_in(s, now);
    status = s->held_count ? LATHE_EFULL : submit(s, &request, err);
    return status == LATHE_EFULL ? hold(s, &request, err) : status;
}

/* Those that have moved, in order, as long as one of their replicas takes them. */
static int release_moved(struct simulation *s, struct lathe_error *err)
{
    const struct engine_submit *first;
    while (s->split && (first = split_first(s->split))) {
        int status = submit(s, first, err);
        if (status != LATHE_OK)
            return status == LATHE_EFULL ? LATHE_OK : status;
        split_taken(s->split);
    }
    return LATHE_OK;
}

/* Who waits in front is offered again, in order. */
static int release_held(struct simulation *s, struct lathe_error *err)
{
    while (s->held_count) {
        int status = submit(s, &s->held[s->held_first], err);
        if (status != LATHE_OK && status != LATHE_EFULL)
            return status;
        if (status == LATHE_EFULL)
            break;
        s->held_first = (s->held_first + 1) % s->held_capacity;
        s->held_count--;
    }
    return release_moved(s, err);
}

static int moved(struct simulation *s, struct lathe_error *err)
{
    split_moved(s->split);
    return release_moved(s, err);
}

/* ── steps ──────────────────────────────────────────────────────────────────────────── */

static int after_ends(struct simulation *s, struct lathe_error *err)
{
    if (!s->something_ended)
        return LATHE_OK;
    s->something_ended = false;
    return release_held(s, err);
}

static int begin(struct simulation *s, uint32_t replica, struct lathe_error *err)
{
    struct engine *engine = deployment_engine(s->params->deployment, replica);
    const int64_t now = clock_now(s->clock);
    struct engine_load load;
    int state;
    int64_t until;
    int status = engine_begin(engine, now, &state, &until, err);
    if (status != LATHE_OK)
        return status;
    deployment_refresh(s->params->deployment, replica);
    if (state == ENGINE_STARTED) {
        s->busy[replica] = true;
        s->figures->busy_ns += (double)(until - now);
        s->figures->steps++;
        heap_set(&s->heap, replica, until, EVENT_FINISH);
        return after_ends(s, err); /* deadlines that passed */
    }
    if (s->conserving) {
        engine_get_load(engine, &load);
        if (load.waiting + load.running > 0)
            return lathe_fail(err, LATHE_EINTERNAL, "replica %u idles at %.6f s with %u requests, although its scheduler and "
                              "batching promise to be work conserving", replica, (double)now * 1e-9,
                              load.waiting + load.running);
    }
    heap_set(&s->heap, replica, until > now ? until : now + 1000, EVENT_BEGIN);
    return after_ends(s, err);
}

static int finish(struct simulation *s, uint32_t replica, struct lathe_error *err)
{
    const int64_t now = clock_now(s->clock);
    int status = engine_finish(deployment_engine(s->params->deployment, replica), now, err);
    if (status != LATHE_OK)
        return status;
    s->busy[replica] = false;
    deployment_refresh(s->params->deployment, replica);
    heap_set(&s->heap, replica, now, EVENT_BEGIN);
    return after_ends(s, err);
}

/* ── faults ─────────────────────────────────────────────────────────────────────────── */

/* At one instant what lasted ends before anything begins, and what lasts no time ends after it began. */
static int rank_of(const struct simulated_fault *f)
{
    return f->kind > 0 ? 1 : f->for_ns > 0 ? 0 : 2;
}

static int by_time(const void *a, const void *b)
{
    const struct simulated_fault *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    if (rank_of(x) != rank_of(y))
        return rank_of(x) - rank_of(y);
    if (x->replica != y->replica)
        return x->replica < y->replica ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind - y->kind;
    return (x->for_ns > y->for_ns) - (x->for_ns < y->for_ns);
}

/* Each fault that lasts becomes two events. */
static int plan_faults(struct simulation *s, struct lathe_error *err)
{
    const struct simulate_params *p = s->params;
    s->fault = s->fault_count = 0;
    s->faults = calloc(2 * p->fault_count + 1, sizeof *s->faults);
    if (!s->faults)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %zu faults", p->fault_count);
    for (size_t i = 0; i < p->fault_count; i++) {
        const struct simulated_fault *f = &p->faults[i];
        if (f->replica >= s->replicas)
            return lathe_fail(err, LATHE_ERANGE, "fault %zu is for replica %u of %u", i + 1, f->replica, s->replicas);
        s->faults[s->fault_count++] = *f;
        if (f->kind == FAULT_LOSES_CACHE)
            continue;
        s->faults[s->fault_count] = *f;
        s->faults[s->fault_count].at_ns += f->for_ns;
        s->faults[s->fault_count++].kind = -f->kind; /* its end */
    }
    qsort(s->faults, s->fault_count, sizeof *s->faults, by_time);
    return LATHE_OK;
}

static int strike(struct simulation *s, const struct simulated_fault *f, struct lathe_error *err)
{
    struct engine *engine = deployment_engine(s->params->deployment, f->replica);
    const int64_t now = clock_now(s->clock);
    int status = LATHE_OK;
    switch (f->kind) {
    case FAULT_SLOW: /* of several the latest to begin counts */
        engine_set_slowness(engine, f->factor);
        s->slow_until_ns[f->replica] = now + f->for_ns;
        break;
    case -FAULT_SLOW:
        if (now == s->slow_until_ns[f->replica])
            engine_set_slowness(engine, 1.0);
        break;
    case -FAULT_DIES: /* the end of a death that was ignored says nothing */
        if (!s->down[f->replica] || now != s->down_until_ns[f->replica])
            return LATHE_OK;
        s->down[f->replica] = false;
        deployment_set_ready(s->params->deployment, f->replica, 1);
        heap_set(&s->heap, f->replica, now, EVENT_BEGIN);
        return release_held(s, err);
    default: /* dies, loses its cache */
        if (s->down[f->replica])
            return LATHE_OK; /* dead is dead: it comes back when the first of its deaths ends */
        status = engine_lose(engine, now, f->kind == FAULT_DIES ? "the replica died" : "its cache was lost", err);
        if (status != LATHE_OK)
            return status;
        if (s->busy[f->replica]) /* the rest of its step will not be */
            s->figures->busy_ns -= (double)(heap_time_of(&s->heap, f->replica) - now);
        s->busy[f->replica] = false;
        deployment_refresh(s->params->deployment, f->replica);
        s->down[f->replica] = f->kind == FAULT_DIES;
        s->down_until_ns[f->replica] = now + f->for_ns;
        if (f->kind == FAULT_DIES)
            deployment_set_ready(s->params->deployment, f->replica, 0);
        heap_set(&s->heap, f->replica, f->kind == FAULT_DIES ? INT64_MAX : now, EVENT_BEGIN);
        return after_ends(s, err);
    }
    return status;
}

/* ── the loop ───────────────────────────────────────────────────────────────────────── */

static int tell(struct simulation *s, bool last)
{
    const struct simulate_params *p = s->params;
    if (!p->progress || (!last && ++s->events % EVENTS_A_LOOK))
        return 0;
    int64_t now = clock_now(&s->machine);
    if (!last && now < s->look_at_ns)
        return 0;
    s->look_at_ns = now + (p->progress_interval_ns ? p->progress_interval_ns : 100000000);
    struct drive_progress progress = { .now_ns = clock_now(s->clock), .machine_ns = now, .finished = s->ended, .total = s->total,
                                       .output_tokens = s->figures->output_tokens, .steps = s->figures->steps,
                                       .waiting = (uint32_t)s->held_count, .running = (uint32_t)(s->in_system - s->held_count) };
    return p->progress(p->user, &progress);
}

/* One event, the next in (time, kind) order. */
static int turn(struct simulation *s, struct lathe_error *err)
{
    int64_t top = heap_time(&s->heap), arrival = next_arrival(s);
    int64_t fault = s->fault < s->fault_count ? s->faults[s->fault].at_ns : INT64_MAX;
    int64_t move = s->split ? split_next(s->split) : INT64_MAX;
    int64_t at = top < arrival ? top : arrival;
    at = fault < at ? fault : at;
    at = move < at ? move : at;
    if (at == INT64_MAX)
        return lathe_fail(err, LATHE_EINTERNAL, "%" PRIu64 " requests wait and no stage will ever run them: the scheduler, "
                          "batching or router plugin idles with work at hand, or no replica is left", s->in_system);
    clock_wait_until(s->clock, at);
    if (top == at && heap_kind(&s->heap) == EVENT_FINISH)
        return finish(s, heap_top(&s->heap), err);
    if (fault == at)
        return strike(s, &s->faults[s->fault++], err);
    if (move == at)
        return moved(s, err);
    if (arrival == at)
        return arrive(s, err);
    return begin(s, heap_top(&s->heap), err);
}

static int check_books(const struct simulation *s, struct lathe_error *err)
{
    if (s->ended != s->total || s->in_system != 0 || s->figures->requests != s->total)
        return lathe_fail(err, LATHE_EINTERNAL, "of %zu requests %" PRIu64 " came and %" PRIu64 " ended: one was lost or ended "
                          "twice", s->total, s->figures->requests, s->ended);
    if (s->area != s->times)
        return lathe_fail(err, LATHE_EINTERNAL, "Little's law is off by %.0f ns: the integral of the number in the system isn't "
                          "the sum of the times in it", (double)(s->area - s->times));
    return LATHE_OK;
}

static int prepare(struct simulation *s, struct lathe_error *err)
{
    const struct simulate_params *p = s->params;
    s->clock = p->clock;
    clock_start(&s->machine, CLOCK_KIND_REAL);
    s->figures = p->figures;
    s->replicas = s->figures->replicas = deployment_replicas(p->deployment);
    s->total = p->workload ? workload_count(p->workload) : p->count;
    s->conserving = engine_is_work_conserving(deployment_engine(p->deployment, 0));
    s->busy = calloc(s->replicas, sizeof *s->busy);
    s->down = calloc(s->replicas, sizeof *s->down);
    s->down_until_ns = calloc(s->replicas, sizeof *s->down_until_ns);
    s->slow_until_ns = calloc(s->replicas, sizeof *s->slow_until_ns);
    s->ready = calloc(p->concurrency ? p->concurrency : 1, sizeof *s->ready);
    if (!s->busy || !s->down || !s->down_until_ns || !s->slow_until_ns || !s->ready)
        return lathe_fail(err, LATHE_ENOMEM, "no memory to simulate %u replicas", s->replicas);
    int status = heap_open(&s->heap, s->replicas, err);
    if (status == LATHE_OK && p->split)
        status = split_open(&s->split, p->split, err);
    if (status == LATHE_OK)
        status = plan_faults(s, err);
    s->ready_count = p->concurrency; /* all users come at once */
    if (p->workload)
        workload_rewind(p->workload);
    draw_next(s);
    return status;
}

int simulate(struct simulation *s, const struct simulate_params *params, struct lathe_error *err)
{
    s->params = params;
    int status = prepare(s, err);
    while (status == LATHE_OK && s->ended < s->total) {
        status = turn(s, err);
        if (status == LATHE_OK && tell(s, false))
            status = lathe_fail(err, LATHE_ECANCELLED, "interrupted after %" PRIu64 " of %zu requests", s->ended, s->total);
    }
    if (status == LATHE_OK) {
        status = check_books(s, err);
        s->figures->area_ns = (double)s->area;
        tell(s, true);
    }
    s->params = NULL;
    drop_memory(s);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* An engine in trouble.
 *
 * A lost worker. When the process that holds the KV dies, everything computed there is gone,
 * and nothing else: tokens, queues and rows are the host's. Requests that had KV go back to
 * waiting (state preempted, cause "worker lost") and are prefilled again, prompt and output,
 * once the bus has a worker again; what they draw next depends on (seed, request, index) only,
 * so the text goes on as if nothing had been. A request that was in MAX_LOSSES steps that
 * killed their worker is thought to be the killer, and fails alone.
 *
 * Degradation. Rather less than nothing at all:
 *
 *     NORMAL      ─ model unreachable, or somebody waited degrade_wait ─▶ PROBES_OFF
 *     PROBES_OFF  ─ somebody waited 2 · degrade_wait ───────────────────▶ REFUSING
 *     any         ─ reachable, and nobody waited degrade_wait / 2 ──────▶ NORMAL
 *
 * REFUSING ends one request a step: of those that never ran, the one with the longest prompt,
 * since it would hold up the most. Each change is a row of service_event. */
#include "engine_internal.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_LOSSES = 3 };

static const int64_t give_up_ns = 60 * INT64_C(1000000000); /* then waiting requests are told so */

static void tell(struct engine *e, const char *what, const char *detail)
{
    if (e->params.watch)
        bus_watch_tell(e->params.watch, "engine", e->params.replica, what, detail);
}

void health_unavailable(struct engine *e, int64_t now_ns)
{
    if (!e->unavailable)
        e->unavailable_since_ns = now_ns;
    e->unavailable = true;
    e->ask_again_ns = now_ns + ENGINE_ASK_AGAIN_NS;
}

void health_lost(struct engine *e, const char *why, int64_t now_ns)
{
    char detail[256];
    uint32_t restarted = 0;

    e->ops.count = 0; /* they were about blocks that are gone */
    e->stats.losses++;
    for (uint32_t i = e->live_count; i-- > 0;) {
        struct live *live = live_of(e, e->live[i]);
        if (live->in_kv || live->req.state == LATHE_REQUEST_SWAPPED)
            e->kv->release(e->kv_self, &live->req);
        live->in_kv = false;
        live->carried = 0; /* also of one that waits: what came with it lay there */
        request_computed(e, live, 0);
        if (live->req.state != LATHE_REQUEST_RUNNING && live->req.state != LATHE_REQUEST_SWAPPED)
            continue;
        restarted++;
        live->req.preemptions++;
        e->stats.preemptions++;
        request_enter(e, live, LATHE_REQUEST_PREEMPTED, "worker lost", now_ns);
        if (e->batching->retire)
            e->batching->retire(e->batching_self, &live->req);
    }
    if (e->kv->forget)
        e->kv->forget(e->kv_self);
    snprintf(detail, sizeof detail, "%u requests are prefilled again: %.200s", restarted, why);
    tell(e, "state_lost", detail);
    for (uint32_t i = 0; i < e->entry_count; i++) {
        struct live *live = e->entries[i].live;
        if (!live || live->req.state == LATHE_REQUEST_FINISHED || ++live->losses < MAX_LOSSES)
            continue;
        char text[ERROR_BYTES];
        snprintf(text, sizeof text, "the model's worker died in %u steps with this request in them; the last: %.110s",
                 live->losses, why);
        request_finish(e, live, LATHE_FINISH_ERROR, text, now_ns);
    }
    health_unavailable(e, now_ns);
}

bool health_admits_step(struct engine *e, int64_t now_ns, int64_t *until_ns)
{
    struct lathe_service_health health = { .size = sizeof health };
    struct lathe_error err;

    if (!e->unavailable)
        return true;
    *until_ns = e->ask_again_ns;
    if (now_ns < e->ask_again_ns)
        return false;
    /* With a worker up, trying is how to find out: an open breaker refuses at no cost. */
    if (e->bus->health(e->bus_self, e->services[SERVICE_MODEL].name, &health, &err) != LATHE_OK || health.ready ||
        health.alive || health.workers > 0)
        return true;
    *until_ns = e->ask_again_ns = now_ns + ENGINE_ASK_AGAIN_NS;
    if (now_ns - e->unavailable_since_ns > give_up_ns) {
        char text[ERROR_BYTES];
        snprintf(text, sizeof text, "the model could not be reached for %d s; its last error: %.120s",
                 (int)(give_up_ns / 1000000000), health.last_error.message[0] ? health.last_error.message : "none is known");
        while (e->live_count > 0)
            request_finish(e, live_of(e, e->live[0]), LATHE_FINISH_ERROR, text, now_ns);
        *until_ns = INT64_MAX;
    }
    return false;
}

/* The longest prompt among those that never ran. */
static struct live *longest_waiting(struct engine *e)
{
    struct live *longest = NULL;
    for (uint32_t i = 0; i < e->live_count; i++) {
        struct live *live = live_of(e, e->live[i]);
        if (live->req.state == LATHE_REQUEST_WAITING && live->req.output_tokens == 0 &&
            (!longest || live->req.prompt_tokens > longest->req.prompt_tokens))
            longest = live;
    }
    return longest;
}

/* When whoever waits longest should have arrived; INT64_MAX: nobody waits. */
static int64_t oldest_waiting_ns(const struct engine *e)
{
    int64_t oldest = INT64_MAX;
    for (uint32_t i = 0; i < e->live_count; i++)
        if (e->live[i]->state == LATHE_REQUEST_WAITING && e->live[i]->planned_ns < oldest)
            oldest = e->live[i]->planned_ns;
    return oldest;
}

void health_judge(struct engine *e, int64_t now_ns)
{
    int64_t oldest = oldest_waiting_ns(e);
    int64_t limit = e->params.degrade_wait_ns;
    int64_t waited = limit > 0 && oldest < now_ns ? now_ns - oldest : 0;
    uint32_t next = e->degraded;
    char detail[128];

    if (limit > 0 && waited > 2 * limit)
        next = ENGINE_REFUSING;
    else if (e->unavailable || (limit > 0 && waited > limit))
        next = next > ENGINE_PROBES_OFF ? next : ENGINE_PROBES_OFF;
    else if (waited <= limit / 2)
        next = ENGINE_NORMAL;

    if (next != e->degraded) {
        snprintf(detail, sizeof detail, "%s; the longest wait is %" PRId64 " ms%s",
                 next == ENGINE_NORMAL       ? "back to normal"
                 : next == ENGINE_PROBES_OFF ? "attention is not traced"
                                             : "attention is not traced, longest waiting prompts are refused",
                 waited / 1000000, e->unavailable ? "; the model can't be reached" : "");
        tell(e, next > e->degraded ? "degraded" : "restored", detail);
        e->degraded = e->stats.degraded = next;
    }
    if (e->degraded == ENGINE_REFUSING) {
        struct live *live = longest_waiting(e);
        if (!live)
            return;
        char text[ERROR_BYTES];
        snprintf(text, sizeof text, "refused: the engine is overloaded (somebody waits since %" PRId64 " ms) and its prompt of "
                 "%u tokens is the longest that waits; try again later", waited / 1000000, live->req.prompt_tokens);
        e->stats.refused++;
        request_finish(e, live, LATHE_FINISH_ERROR, text, now_ns);
    }
}

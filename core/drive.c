/* SPDX-License-Identifier: MIT */
/* The loop around a deployment: arrivals in, pieces out, progress now and then. */
#include "drive.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct driving {
    const struct drive_params *params;
    size_t next;                /* the next to submit */
    size_t *flying;             /* indexes of those in the engine */
    size_t flying_count;
    uint64_t finished, output_tokens, steps;
    int64_t closed_at_ns;       /* closed loop: the next may arrive then */
    int64_t progress_at_ns;
};

static int grow(void **memory, size_t count, size_t each, struct lathe_error *err)
{
    void *larger = count > SIZE_MAX / each ? NULL : realloc(*memory, count * each);
    if (!larger)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %zu pieces of output", count);
    *memory = larger;
    return LATHE_OK;
}

/* A piece joins what its request has said so far. */
static int keep(struct planned_request *r, const struct lathe_output *piece, struct lathe_error *err)
{
    int status;
    if (piece->token >= 0) {
        if (r->output_count == r->output_capacity) {
            uint32_t capacity = r->output_capacity ? 2 * r->output_capacity : 64;
            if ((status = grow((void **)&r->output, capacity, sizeof *r->output, err)) != LATHE_OK ||
                (status = grow((void **)&r->logprobs, capacity, sizeof *r->logprobs, err)) != LATHE_OK)
                return status;
            r->output_capacity = capacity;
        }
        r->output[r->output_count] = piece->token;
        r->logprobs[r->output_count++] = piece->logprob;
    }
    if (r->submit.want_text) {
        size_t end = r->text_bytes + piece->text_bytes;
        if (end + 1 > r->text_capacity) {
            size_t capacity = 2 * end + 256;
            if ((status = grow((void **)&r->text, capacity, 1, err)) != LATHE_OK)
                return status;
            r->text_capacity = capacity;
        }
        memcpy(r->text + r->text_bytes, piece->text, piece->text_bytes);
        r->text[end] = '\0';
        r->text_bytes = end;
    }
    return LATHE_OK;
}

int planned_request_read(struct deployment *deployment, struct planned_request *r, bool *finished, struct lathe_error *err)
{
    const struct deployment_request request = { r->id, r->replica };
    const char *why = deployment_request_error(deployment, request); /* its slot keeps the text until the next submit */
    struct lathe_output piece;
    struct lathe_error busy;
    *finished = false;
    while (!*finished && deployment_read(deployment, request, &piece, &busy) == LATHE_OK) {
        int status = keep(r, &piece, err);
        if (status != LATHE_OK)
            return status;
        if (piece.finish_reason != LATHE_FINISH_NONE) {
            r->finish_reason = piece.finish_reason;
            snprintf(r->error, sizeof r->error, "%s", why);
            *finished = true;
        }
    }
    return LATHE_OK;
}

/* Read all that is ready; whoever ended makes room for the next. */
static int drain(struct driving *d, struct lathe_error *err)
{
    for (size_t i = d->flying_count; i-- > 0;) {
        struct planned_request *r = &d->params->requests[d->flying[i]];
        uint32_t before = r->output_count;
        bool finished;
        int status = planned_request_read(d->params->deployment, r, &finished, err);
        if (status != LATHE_OK)
            return status;
        d->output_tokens += r->output_count - before;
        if (!finished)
            continue;
        d->flying[i] = d->flying[--d->flying_count];
        d->finished++;
        d->closed_at_ns = clock_now(d->params->clock) + d->params->think_ns;
    }
    return LATHE_OK;
}

/* When may the next request come? INT64_MAX: not before something ends. */
static int64_t next_arrival(const struct driving *d)
{
    if (d->next == d->params->count)
        return INT64_MAX;
    if (d->params->concurrency == 0)
        return d->params->requests[d->next].submit.planned_ns;
    return d->flying_count < d->params->concurrency ? d->closed_at_ns : INT64_MAX;
}

/* Submit whatever is due. A full engine is asked again after a step. */
static void arrive(struct driving *d)
{
    while (next_arrival(d) <= clock_now(d->params->clock)) {
        struct planned_request *r = &d->params->requests[d->next];
        struct lathe_error err;
        if (d->params->concurrency > 0)
            r->submit.planned_ns = -1;
        struct deployment_request request = { 0 };
        int status = deployment_submit(d->params->deployment, &r->submit, &request, &err);
        r->id = request.id, r->replica = request.replica;
        if (status == LATHE_EFULL && d->flying_count > 0)
            return;
        d->next++;
        if (status == LATHE_OK) {
            d->flying[d->flying_count++] = (size_t)(r - d->params->requests);
            continue;
        }
        r->finish_reason = LATHE_FINISH_ERROR;
        snprintf(r->error, sizeof r->error, "%.*s", (int)sizeof r->error - 1, err.message);
        d->finished++;
    }
}

static int tell(struct driving *d, int64_t now_ns, bool always)
{
    const struct drive_params *p = d->params;
    if (!p->progress || (!always && now_ns < d->progress_at_ns))
        return 0;
    struct engine_stats stats;
    deployment_get_stats(p->deployment, &stats);
    struct drive_progress progress = { .now_ns = now_ns,
                                       .machine_ns = now_ns,
                                       .finished = d->finished,
                                       .total = p->count,
                                       .output_tokens = d->output_tokens,
                                       .steps = stats.steps,
                                       .waiting = stats.waiting,
                                       .running = stats.running };
    d->progress_at_ns = now_ns + (p->progress_interval_ns ? p->progress_interval_ns : 100000000);
    return p->progress(p->user, &progress);
}

int drive(const struct drive_params *params, struct lathe_error *err)
{
    struct driving d = { .params = params };
    int status = LATHE_OK;

    d.flying = calloc(params->count ? params->count : 1, sizeof *d.flying);
    if (!d.flying)
        return lathe_fail(err, LATHE_ENOMEM, "no memory to drive %zu requests", params->count);

    while (status == LATHE_OK && d.finished < params->count) {
        int state;
        int64_t until;
        if (tell(&d, clock_now(params->clock), false)) {
            status = lathe_fail(err, LATHE_ECANCELLED, "interrupted after %zu of %zu requests", (size_t)d.finished,
                                params->count);
            break;
        }
        arrive(&d);
        if ((status = deployment_turn(params->deployment, next_arrival(&d), &state, &until, err)) != LATHE_OK ||
            (status = drain(&d, err)) != LATHE_OK)
            break;
        if (state == ENGINE_STARTED)
            continue;

        /* Idle: until the next arrival, what the policies said, or the next word on progress. */
        int64_t arrival = next_arrival(&d);
        int64_t wake = arrival < until ? arrival : until;
        if (d.finished == params->count)
            break;
        if (wake == INT64_MAX) {
            status = lathe_fail(err, LATHE_EINTERNAL,
                                "%zu requests wait and no stage will ever run them: the scheduler or batching plugin "
                                "idles with work at hand",
                                d.flying_count);
            break;
        }
        if (params->progress && params->clock->kind == CLOCK_KIND_REAL && d.progress_at_ns < wake)
            wake = d.progress_at_ns;
        clock_wait_until(params->clock, wake);
    }
    tell(&d, clock_now(params->clock), true);
    free(d.flying);
    return status;
}

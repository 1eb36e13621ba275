/* SPDX-License-Identifier: MIT */
/* See simulate_split.h. Places are taken from a free list and grow in number only when a request
 * comes, so that an end, which is told from within the engine, needs no memory: those that move lie
 * in a heap that has room for all of them, those that have moved are linked. */
#include "simulate_split.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NOBODY = UINT32_MAX, FIRST_PLACES = 256, CORRELATION_BYTES = 64 };
enum { DEFAULT_OUTPUTS = 256 }; /* engine_submit's max_output_tokens, if it is 0 */

struct whole {
    struct engine_submit submit; /* as it came; then its second half */
    size_t number;
    uint32_t outputs;            /* wanted in all */
    bool second;                 /* the first half has ended */
    uint64_t id;                 /* the first half's, and what was known when it ended */
    uint32_t prompt_tokens, preemptions;
    int64_t planned_ns, admitted_ns, first_token_ns, slo_ttft_ns;
    char correlation_id[CORRELATION_BYTES];
    uint32_t behind;             /* in line: who comes next */
    uint32_t next_free;
};

struct moving {
    int64_t at_ns;
    uint64_t order; /* at one instant, who left first */
    uint32_t place;
};

struct split {
    struct split_params params;
    struct whole *wholes;   /* (capacity) */
    struct moving *moving;  /* a heap, the earliest on top; (capacity) */
    uint32_t capacity, moving_count;
    uint64_t moved;         /* ever */
    uint32_t free;
    uint32_t first, last;   /* of the line */
};

int split_open(struct split **split, const struct split_params *params, struct lathe_error *err)
{
    struct split *s = calloc(1, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "no memory to keep prefill and decode apart");
    s->params = *params;
    s->free = s->first = s->last = NOBODY;
    *split = s;
    return LATHE_OK;
}

void split_close(struct split *s)
{
    if (!s)
        return;
    free(s->wholes);
    free(s->moving);
    free(s);
}

/* ── places ─────────────────────────────────────────────────────────────────────────── */

static int grow(struct split *s, struct lathe_error *err)
{
    uint32_t capacity = s->capacity ? 2 * s->capacity : FIRST_PLACES;
    struct whole *wholes = capacity > s->capacity ? realloc(s->wholes, capacity * sizeof *wholes) : NULL;
    s->wholes = wholes ? wholes : s->wholes;
    struct moving *moving = wholes ? realloc(s->moving, capacity * sizeof *moving) : NULL;
    if (!moving)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u requests whose prefill is kept apart", capacity);
    s->moving = moving;
    for (uint32_t i = capacity; i-- > s->capacity;) {
        s->wholes[i].next_free = s->free;
        s->free = i;
    }
    s->capacity = capacity;
    return LATHE_OK;
}

static void give_back(struct split *s, uint32_t place)
{
    s->wholes[place].next_free = s->free;
    s->free = place;
}

/* ── those that move: a binary heap ─────────────────────────────────────────────────── */

static bool before(const struct moving *a, const struct moving *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct split *s, struct moving m)
{
    uint32_t at = s->moving_count++;
    for (; at > 0 && before(&m, &s->moving[(at - 1) / 2]); at = (at - 1) / 2)
        s->moving[at] = s->moving[(at - 1) / 2];
    s->moving[at] = m;
}

static uint32_t pop(struct split *s)
{
    const uint32_t place = s->moving[0].place;
    const struct moving m = s->moving[--s->moving_count];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < s->moving_count; at = child) {
        child += child + 1 < s->moving_count && before(&s->moving[child + 1], &s->moving[child]);
        if (!before(&s->moving[child], &m))
            break;
        s->moving[at] = s->moving[child];
    }
    s->moving[at] = m;
    return place;
}

int64_t split_next(const struct split *s)
{
    return s->moving_count ? s->moving[0].at_ns : INT64_MAX;
}

void split_moved(struct split *s)
{
    uint32_t place = pop(s);
    s->wholes[place].behind = NOBODY;
    if (s->first == NOBODY)
        s->first = place;
    else
        s->wholes[s->last].behind = place;
    s->last = place;
}

const struct engine_submit *split_first(struct split *s)
{
    if (s->first == NOBODY)
        return NULL;
    struct whole *w = &s->wholes[s->first];
    w->submit.correlation_id = w->correlation_id; /* places may have moved in memory */
    return &w->submit;
}

void split_taken(struct split *s)
{
    s->first = s->wholes[s->first].behind;
}

/* ── halves ─────────────────────────────────────────────────────────────────────────── */

int split_begin(struct split *s, struct engine_submit *submit, size_t number, struct lathe_error *err)
{
    if (s->free == NOBODY) {
        int status = grow(s, err);
        if (status != LATHE_OK)
            return status;
    }
    const uint32_t place = s->free, outputs = submit->forced_output_tokens ? submit->forced_output_tokens
                                              : submit->max_output_tokens  ? submit->max_output_tokens
                                                                           : DEFAULT_OUTPUTS;
    struct whole *w = &s->wholes[place];
    s->free = w->next_free;
    *w = (struct whole){ .submit = *submit, .number = number, .outputs = outputs, .planned_ns = submit->planned_ns,
                         .slo_ttft_ns = submit->slo_ttft_ns };
    submit->tag = place;
    submit->slo_tpot_ns = outputs > 1 ? 0 : submit->slo_tpot_ns;
    submit->predicted_output_tokens = submit->predicted_output_tokens ? 1 : 0;
    if (submit->forced_output_tokens)
        submit->forced_output_tokens = 1;
    else
        submit->max_output_tokens = 1;
    return LATHE_OK;
}

/* The first half has its token: the second is made, and on its way. */
static void move(struct split *s, struct whole *w, const struct engine_ended *ended, const struct lathe_request *r)
{
    struct engine_submit *next = &w->submit;
    w->second = true;
    w->id = ended->id;
    w->prompt_tokens = r->prompt_tokens, w->preemptions = r->preemptions;
    w->admitted_ns = r->admitted_ns, w->first_token_ns = r->first_token_ns;
    if (next->correlation_id && *next->correlation_id)
        snprintf(w->correlation_id, sizeof w->correlation_id, "%.63s", next->correlation_id);
    else /* as the engine made it */
        snprintf(w->correlation_id, sizeof w->correlation_id, "%016" PRIx64, r->correlation);
    next->text = NULL, next->tokens = NULL; /* known by its length from here on */
    next->token_count = (uint64_t)r->prompt_tokens + 1;
    next->carried_tokens = r->prompt_tokens;
    next->forced_output_tokens -= next->forced_output_tokens > 0;
    next->max_output_tokens = w->outputs - 1;
    next->predicted_output_tokens -= next->predicted_output_tokens > 1;
    next->planned_ns = ended->finish_ns;
    next->slo_ttft_ns = 0;
    next->unread = 1;
    next->tag = (uint64_t)(w - s->wholes);
    push(s, (struct moving){ .order = s->moved++, .place = (uint32_t)(w - s->wholes),
                             .at_ns = ended->finish_ns + s->params.transfer_ns +
                                      (int64_t)(s->params.transfer_token_ns * r->prompt_tokens) });
}

bool split_ended(struct split *s, struct engine_ended *ended, struct lathe_request *request)
{
    struct whole *w = &s->wholes[ended->tag];
    const bool well = ended->finish_reason == LATHE_FINISH_LENGTH;
    if (!w->second && well && w->outputs > 1) {
        move(s, w, ended, request);
        return false;
    }
    if (w->second) {
        request->prompt_tokens = w->prompt_tokens;
        request->output_tokens++;
        request->preemptions += w->preemptions;
        request->planned_ns = w->planned_ns;
        request->admitted_ns = w->admitted_ns;
        request->first_token_ns = w->first_token_ns;
        request->slo_ttft_ns = w->slo_ttft_ns;
    }
    give_back(s, (uint32_t)ended->tag);
    ended->tag = w->number;
    return true;
}

size_t split_refused(struct split *s, uint64_t tag, int64_t *planned_ns, uint64_t *id)
{
    const struct whole *w = &s->wholes[tag];
    *planned_ns = w->planned_ns;
    *id = w->id;
    give_back(s, (uint32_t)tag);
    return w->number;
}

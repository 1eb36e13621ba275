/* SPDX-License-Identifier: MIT */
/* A workload that is drawn as it comes; see workload.h. Here: who comes, and with what lengths.
 *
 *     workload_arrivals.c   when            workload_trace.c   a trace's file
 *     workload_draw.c       distributions */
#include "workload_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <lathe/random.h>

enum { MAX_CLASSES = 4096, NAME_BYTES = 63 };
static const size_t MOST_REQUESTS = INT32_MAX; /* a normal draw takes two counters of 32 bits */

/* ── checks ────────────────────────────────────────────────────────────────────────── */

static int check_length(const struct workload_params *p, size_t number, const char *which,
                        const struct workload_length *length, struct lathe_error *err)
{
    char what[48];
    snprintf(what, sizeof what, "class %zu's %s", number, which);
    if (length->kind == WORKLOAD_OF_TRACE && p->arrivals != WORKLOAD_TRACE)
        return lathe_fail(err, LATHE_EINVAL, "%s is to be as the trace says, but the arrivals are no trace", what);
    return workload_length_check(length, what, err);
}

static int check_class(const struct workload_params *p, size_t i, struct lathe_error *err)
{
    const struct workload_class *c = &p->classes[i];
    int status;
    if (!(c->share >= 0 && c->share <= 1e9))
        return lathe_fail(err, LATHE_EINVAL, "class %zu's share is %g, but should be 0 to 1e9", i + 1, c->share);
    if ((c->name && strlen(c->name) > NAME_BYTES) || (c->tenant && strlen(c->tenant) > NAME_BYTES))
        return lathe_fail(err, LATHE_EINVAL, "class %zu's name or tenant has more than %d bytes", i + 1, NAME_BYTES);
    if ((status = check_length(p, i + 1, "prompt", &c->prompt, err)) ||
        (status = check_length(p, i + 1, "output", &c->output, err)))
        return status;
    if (c->prediction < WORKLOAD_UNPREDICTED || c->prediction > WORKLOAD_MEAN)
        return lathe_fail(err, LATHE_EINVAL, "class %zu: there is no prediction of kind %d", i + 1, c->prediction);
    if (c->prediction == WORKLOAD_NOISY && !(c->noise >= 0 && c->noise <= 20))
        return lathe_fail(err, LATHE_EINVAL, "class %zu's prediction has a noise of %g, but it should be 0 to 20", i + 1,
                          c->noise);
    if (c->prediction == WORKLOAD_NOISY && !(c->bias >= -20 && c->bias <= 20))
        return lathe_fail(err, LATHE_EINVAL, "class %zu's prediction has a bias of %g, but it should be -20 to 20", i + 1,
                          c->bias);
    if (c->slo_ttft_ns < 0 || c->slo_tpot_ns < 0 || c->deadline_ns < 0)
        return lathe_fail(err, LATHE_EINVAL, "class %zu's targets and deadline should be 0 (none) or a time ahead", i + 1);
    return LATHE_OK;
}

static int check(const struct workload_params *p, struct lathe_error *err)
{
    double shares = 0;
    int status;
    if (p->requests < 1 || p->requests > MOST_REQUESTS)
        return lathe_fail(err, LATHE_EINVAL, "a workload of %zu requests, but it should have 1 to %zu", p->requests,
                          MOST_REQUESTS);
    if (p->class_count < 1 || p->class_count > MAX_CLASSES)
        return lathe_fail(err, LATHE_EINVAL, "a workload of %zu classes, but it should have 1 to %d", p->class_count,
                          MAX_CLASSES);
    if ((status = workload_arrivals_check(p, err)))
        return status;
    for (size_t i = 0; i < p->class_count; i++) {
        if ((status = check_class(p, i, err)))
            return status;
        shares += p->classes[i].share;
    }
    if (!(shares > 0))
        return lathe_fail(err, LATHE_EINVAL, "no class has a share: give one of them more than 0");
    return LATHE_OK;
}

/* ── open and close ────────────────────────────────────────────────────────────────── */

static void *copy(const void *from, size_t count, size_t each)
{
    void *to = calloc(count ? count : 1, each); /* calloc checks the product */
    if (to && count)
        memcpy(to, from, count * each);
    return to;
}

/* A class whose pointers are ours, or NULL where memory ran out. */
static int copy_class(struct workload_class *to, const struct workload_class *from)
{
    *to = *from;
    to->name = strdup(from->name ? from->name : "");
    to->tenant = strdup(from->tenant ? from->tenant : "");
    to->prompt.values = copy(from->prompt.values, from->prompt.value_count, sizeof *from->prompt.values);
    to->output.values = copy(from->output.values, from->output.value_count, sizeof *from->output.values);
    return to->name && to->tenant && to->prompt.values && to->output.values;
}

static double output_mean(const struct workload *w, const struct workload_class *c)
{
    double sum = 0;
    if (c->output.kind != WORKLOAD_OF_TRACE)
        return workload_length_mean(&c->output);
    for (size_t i = 0; i < w->params.row_count; i++)
        sum += workload_length_cut(&c->output, w->rows[i].output_tokens);
    return sum / (double)w->params.row_count;
}

int workload_open(const struct workload_params *params, struct workload **workload, struct lathe_error *err)
{
    struct workload_params p = *params;
    double sum = 0;
    int status;
    if (p.arrivals != WORKLOAD_TRACE)
        p.row_count = 0;
    else if (!p.requests)
        p.requests = p.row_count;
    if ((status = check(&p, err)))
        return status;
    struct workload *w = calloc(1, sizeof *w);
    if (!w)
        return lathe_fail(err, LATHE_ENOMEM, "no memory left for a workload");
    w->params = p;
    w->classes = calloc(p.class_count, sizeof *w->classes);
    w->shares = calloc(p.class_count, sizeof *w->shares);
    w->means = calloc(p.class_count, sizeof *w->means);
    w->rows = copy(p.rows, p.row_count, sizeof *p.rows);
    int complete = w->classes && w->shares && w->means && w->rows;
    w->params.rows = w->rows;
    for (size_t i = 0; i < p.class_count && complete; i++) {
        complete = copy_class(&w->classes[i], &p.classes[i]);
        w->shares[i] = sum += p.classes[i].share;
        w->means[i] = complete ? output_mean(w, &w->classes[i]) : 0;
    }
    w->params.classes = w->classes;
    if (!complete) {
        workload_close(w);
        return lathe_fail(err, LATHE_ENOMEM, "no memory left for a workload of %zu classes and %zu rows", p.class_count,
                          p.row_count);
    }
    *workload = w;
    return LATHE_OK;
}

void workload_close(struct workload *w)
{
    if (!w)
        return;
    for (size_t i = 0; w->classes && i < w->params.class_count; i++) {
        free((void *)w->classes[i].name);
        free((void *)w->classes[i].tenant);
        free((void *)w->classes[i].prompt.values);
        free((void *)w->classes[i].output.values);
    }
    free(w->classes);
    free(w->shares);
    free(w->means);
    free(w->rows);
    free(w);
}

int workload_copy(const struct workload *from, struct workload **copy, struct lathe_error *err)
{
    return workload_open(&from->params, copy, err);
}

size_t workload_count(const struct workload *w)
{
    return w->params.requests;
}

void workload_rewind(struct workload *w)
{
    w->drawn = 0;
    w->arrivals = (struct workload_arrivals){ 0 };
}

/* ── draws ─────────────────────────────────────────────────────────────────────────── */

static uint32_t draw_class(const struct workload *w, uint32_t number)
{
    uint32_t low = 0, high = (uint32_t)w->params.class_count - 1;
    if (high == 0)
        return 0;
    double at = w->shares[high] *
                lathe_random_unit(w->params.seed_classes, LATHE_RANDOM_LENGTHS, WORKLOAD_STREAM_CLASSES, number);
    while (low < high) { /* the first whose running sum is beyond */
        uint32_t middle = low + (high - low) / 2;
        if (w->shares[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint32_t predict(const struct workload *w, uint32_t class_number, uint32_t output, uint32_t number)
{
    static const struct workload_length any = { .kind = WORKLOAD_FIXED };
    const struct workload_class *c = &w->classes[class_number];
    struct workload_key key = { w->params.seed_predictions, WORKLOAD_STREAM_PREDICTIONS, LATHE_RANDOM_NOISE };
    switch (c->prediction) {
    case WORKLOAD_TRUE: return output;
    case WORKLOAD_NOISY:
        return workload_length_cut(&any, output * exp(c->bias + c->noise * workload_normal(key, number)));
    case WORKLOAD_MEAN: return workload_length_cut(&any, w->means[class_number]);
    default: return 0;
    }
}

int workload_next(struct workload *w, struct workload_request *request)
{
    const struct workload_params *p = &w->params;
    const struct workload_trace_row *row;
    if (w->drawn >= p->requests)
        return 0;
    uint32_t number = (uint32_t)++w->drawn;
    double at_s = workload_arrivals_next(w, number, &row);
    uint32_t class_number = draw_class(w, number);
    const struct workload_class *c = &w->classes[class_number];
    struct workload_key prompts = { p->seed_prompts, WORKLOAD_STREAM_PROMPTS, LATHE_RANDOM_LENGTHS };
    struct workload_key outputs = { p->seed_outputs, WORKLOAD_STREAM_OUTPUTS, LATHE_RANDOM_LENGTHS };
    uint32_t output = workload_length_draw(&c->output, outputs, number, row ? row->output_tokens : 0);
    *request = (struct workload_request){
        .planned_ns = p->arrivals == WORKLOAD_CLOSED ? -1 : llround(at_s * 1e9),
        .prompt_tokens = workload_length_draw(&c->prompt, prompts, number, row ? row->prompt_tokens : 0),
        .output_tokens = output,
        .predicted_output_tokens = predict(w, class_number, output, number),
        .class_number = class_number,
        .class_name = c->name,
        .tenant = c->tenant,
        .priority = c->priority,
        .weight = c->weight ? c->weight : 1000,
        .slo_ttft_ns = c->slo_ttft_ns,
        .slo_tpot_ns = c->slo_tpot_ns,
        .deadline_ns = c->deadline_ns,
    };
    return 1;
}

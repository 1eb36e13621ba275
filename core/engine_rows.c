/* SPDX-License-Identifier: MIT */
/* What a request leaves in the database: its row, its prompt, and how likely a given answer was. */
#include "engine_internal.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *const request_finish_names[] = { "", "stop", "length", "abort", "error", "deadline" };

static int64_t or_null(int64_t value, int64_t none)
{
    return value == none ? RECORD_NULL : value;
}

/* The request's own wishes as JSON: what a replay asks for again. */
static void copy_sampling(char *to, size_t capacity, const struct lathe_sampling *s)
{
    snprintf(to, capacity,
             "{\"temperature\":%.9g,\"top_p\":%.9g,\"min_p\":%.9g,\"top_k\":%d,\"repetition_penalty\":%.9g,"
             "\"presence_penalty\":%.9g,\"frequency_penalty\":%.9g,\"seed\":%" PRIu64 "}",
             (double)s->temperature, (double)s->top_p, (double)s->min_p, s->top_k, (double)s->repetition_penalty,
             (double)s->presence_penalty, (double)s->frequency_penalty, s->seed);
}

void request_record(struct engine *e, const struct live *live, int64_t finish_ns)
{
    const struct lathe_request *r = &live->req;
    if (!e->producer)
        return;
    struct record_request row = {
        .id = (int64_t)r->id,
        .session = or_null((int64_t)r->session, 0),
        .turn = r->session ? live->turn : RECORD_NULL,
        .priority = r->priority,
        .replica = e->params.replica,
        .planned_ns = r->planned_ns,
        .arrival_ns = r->arrival_ns,
        .admitted_ns = or_null(r->admitted_ns, -1),
        .first_token_ns = or_null(r->first_token_ns, -1),
        .finish_ns = or_null(finish_ns, -1),
        .prompt_tokens = r->prompt_tokens,
        .cached_tokens = r->cached_tokens,
        .output_tokens = r->output_tokens,
        .preemptions = r->preemptions,
        .slo_ttft_ns = or_null(r->slo_ttft_ns, 0),
        .slo_tpot_ns = or_null(r->slo_tpot_ns, 0),
        .deadline_ns = or_null(r->deadline_ns, INT64_MAX),
        .predicted_tokens = or_null(r->predicted_output_tokens, 0),
        .weight = or_null(r->weight, 1000),
        .max_tokens = r->max_output_tokens,
        .ignore_eos = live->ignore_eos,
    };
    copy_name(row.class, sizeof row.class, e->names[r->class_id]);
    copy_name(row.tenant, sizeof row.tenant, e->names[r->tenant]);
    copy_name(row.model, sizeof row.model, e->model_info.name);
    copy_name(row.finish_reason, sizeof row.finish_reason, request_finish_names[live->finish_reason]);
    copy_name(row.correlation_id, sizeof row.correlation_id, live->correlation_id);
    copy_name(row.prompt_sha256, sizeof row.prompt_sha256, live->prompt_sha256);
    if (live->own_sampling)
        copy_sampling(row.sampling, sizeof row.sampling, &live->sampling);
    record_request(e->producer, &row);
}

void request_record_prompt(struct engine *e, const struct live *live)
{
    for (uint32_t i = 0; i < live->req.prompt_tokens; i++) {
        struct record_token row = { .request_id = (int64_t)live->req.id, .position = i, .step_id = RECORD_NULL,
                                    .token = live->tokens[i], .time_ns = RECORD_NULL, .gap_ns = RECORD_NULL,
                                    .logprob = NAN };
        memcpy(row.kind, "prompt", 7);
        record_token(e->producer, &row);
    }
}

void request_record_likelihood(struct engine *e, const struct live *live)
{
    struct record_score row = { .request_id = (int64_t)live->req.id, .value = live->nll, .n = live->req.output_tokens };
    if (live->req.output_tokens == 0)
        return;
    memcpy(row.name, "nll", 4);
    record_score(e->producer, &row);
}

void engine_record_refusal(struct engine *e, const struct engine_submit *submit)
{
    int64_t now = clock_now(e->clock);
    struct record_request row = {
        .id = (int64_t)++e->numbers->request, .session = or_null((int64_t)submit->session, 0),
        .turn = submit->session ? submit->turn : RECORD_NULL, .priority = submit->priority, .replica = e->params.replica,
        .planned_ns = submit->planned_ns, .arrival_ns = now, .admitted_ns = RECORD_NULL, .first_token_ns = RECORD_NULL,
        .finish_ns = now, .prompt_tokens = (int64_t)submit->token_count,
        .slo_ttft_ns = or_null(submit->slo_ttft_ns, 0), .slo_tpot_ns = or_null(submit->slo_tpot_ns, 0),
        .deadline_ns = or_null(submit->deadline_ns, 0),
    };
    copy_name(row.class, sizeof row.class, submit->class_name);
    copy_name(row.tenant, sizeof row.tenant, submit->tenant);
    copy_name(row.model, sizeof row.model, e->model_info.name);
    copy_name(row.finish_reason, sizeof row.finish_reason, request_finish_names[LATHE_FINISH_ERROR]);
    record_request(e->producer, &row);
}

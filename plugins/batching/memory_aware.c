/* SPDX-License-Identifier: MIT */
/* Admission by predicted KV: a request comes in when its end fits, not when its prompt does.
 *
 *     pool 100 blocks, watermark 0.9     what each will hold at its end
 *     running   r1 30   r2 25            55
 *     waiting   a 30                     85 ≤ 90: comes in
 *               b 10                     95 > 90: waits, and all behind it
 *
 * Continuous batching lets in whoever's prompt fits, and pays with preemptions when answers
 * grow into each other; taking each at its longest never preempts, and leaves most of the pool
 * empty. In between lies a prediction of the answer's length (S³): the peaks of all that run,
 * prompt + predicted output, must stay below `watermark` of the pool's blocks.
 *
 *     assume = pessimistic   each answer is as long as it may be (max_output_tokens)
 *              predicted     as predicted × trust; as long as it may be where nothing is known
 *              optimistic    as long as it is: what the next step needs, no more
 *
 * A trust above 1 is a margin for answers that turn out longer, below 1 a bet. One that has
 * outgrown its prediction counts as what it is. Decodes go first, then prompts that are under
 * way, then new ones, cut at the budget, none passing another; whoever would leave the step
 * empty is let in regardless. If a prediction was wrong the pool runs short, and the scheduler
 * names a victim as ever.
 *
 * Promises: none is passed by those behind it; it never idles if it refuses by room alone.
 * Weakness: answers don't peak at the same time, so the sum of peaks is too careful even when
 * every prediction is right; blocks that requests share are counted for each. */
#include <batching/budget.h>

enum { OPT_ASSUME, OPT_TRUST, OPT_WATERMARK, OPT_MAX_REQUESTS, OPT_MAX_TOKENS, OPT_COUNT };
enum { PESSIMISTIC, PREDICTED, OPTIMISTIC };

static const struct lathe_option options[OPT_COUNT] = {
    { "assume", LATHE_OPTION_CHOICE, "predicted", 0, 0, "", "pessimistic|predicted|optimistic",
      "How long answers are taken to be: as long as allowed, as predicted, or as they are now." },
    { "trust", LATHE_OPTION_NUMBER, "1", 0.01, 100, "", NULL,
      "Predicted lengths are multiplied by this; above 1 is a margin for longer ones." },
    { "watermark", LATHE_OPTION_NUMBER, "0.95", 0.01, 1, "", NULL,
      "Share of the KV pool's blocks that the predicted peaks together may take." },
    { "max_requests", LATHE_OPTION_INTEGER, "0", 0, 1e6, "requests", NULL,
      "Most requests in one step; 0 takes the engine's limit." },
    { "max_tokens", LATHE_OPTION_INTEGER, "0", 0, 1e9, "tokens", NULL,
      "Most tokens computed in one step; 0 takes the engine's limit." },
};

struct memory_aware {
    const struct lathe_host *host;
    int64_t want_requests, want_tokens;
    uint32_t max_requests, max_tokens;
    int assume;
    double trust, watermark;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct memory_aware *m = lathe_alloc(host, sizeof *m);
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "batching memory_aware: no memory for %zu bytes", sizeof *m);
    m->host = host;
    m->assume = (int)config->values[OPT_ASSUME].integer;
    m->trust = config->values[OPT_TRUST].number;
    m->watermark = config->values[OPT_WATERMARK].number;
    m->want_requests = config->values[OPT_MAX_REQUESTS].integer;
    m->want_tokens = config->values[OPT_MAX_TOKENS].integer;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct memory_aware *m = self;
    if (m)
        lathe_free(m->host, m);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct memory_aware *m = self;
    int status = batching_check_limits("memory_aware", limits, err);
    if (status != LATHE_OK)
        return status;
    m->max_requests = batching_limit(m->want_requests, limits->max_batch_requests);
    m->max_tokens = batching_limit(m->want_tokens, limits->max_batch_tokens);
    return LATHE_OK;
}

/* Blocks that it is taken to hold at its end; never less than what its known tokens need. */
static uint32_t peak_blocks(const struct memory_aware *m, const struct lathe_step_view *view,
                            const struct lathe_request *req)
{
    double output = req->max_output_tokens;
    if (m->assume == OPTIMISTIC)
        output = req->output_tokens;
    else if (m->assume == PREDICTED && req->predicted_output_tokens > 0 &&
             req->predicted_output_tokens * m->trust < output)
        output = req->predicted_output_tokens * m->trust;
    if (output < req->output_tokens)
        output = req->output_tokens;
    return batching_blocks(view, req->prompt_tokens + (uint64_t)output);
}

/* The sum of the peaks of all that run, ranked or not. */
static uint64_t running_blocks(const struct memory_aware *m, const struct lathe_step_view *view,
                               const struct lathe_ranking *ranking)
{
    uint64_t sum = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < ranking->count && seen < view->running; i++) {
        if (ranking->requests[i]->state == LATHE_REQUEST_RUNNING) {
            sum += peak_blocks(m, view, ranking->requests[i]);
            seen++;
        }
    }
    if (seen == view->running)
        return sum;
    sum = 0; /* some are held back: their KV stays */
    for (uint32_t i = 0; i < view->live_count; i++)
        if (view->live[i]->state == LATHE_REQUEST_RUNNING)
            sum += peak_blocks(m, view, view->live[i]);
    return sum;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    const struct memory_aware *m = self;
    uint64_t taken = running_blocks(m, view, ranking), most = (uint64_t)(m->watermark * view->blocks_total);
    struct budget b;
    struct running r;

    (void)err;
    LATHE_ASSERT_THREAD(m->host, LATHE_THREAD_ENGINE);
    budget_begin(&b, view, plan, m->max_tokens, m->max_requests, 0);
    r = budget_give_running(&b, ranking, 1);
    for (uint32_t i = 0; i < ranking->count && !budget_is_spent(&b) && r.refused == 0; i++) {
        const struct lathe_request *req = ranking->requests[i];
        if (req->state == LATHE_REQUEST_RUNNING)
            continue;
        taken += peak_blocks(m, view, req);
        if ((plan->count > 0 && taken > most) || budget_give(&b, req, m->max_tokens) == 0)
            break; /* in order: nobody passes it */
    }
    return LATHE_OK;
}

static uint32_t promises(void *self)
{
    const struct memory_aware *m = self;
    return LATHE_PROMISE_NO_STARVATION |
           (m->assume == OPTIMISTIC && m->watermark >= 1 ? LATHE_PROMISE_WORK_CONSERVING : 0);
}

static const struct lathe_batching_api api = {
    .size = sizeof api,
    .abi = LATHE_BATCHING_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .fill = fill,
    .promises = promises,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BATCHING,
    .concurrency = LATHE_SERIAL,
    .name = "memory_aware",
    .version = "1.0.0",
    .summary = "continuous batching that lets in whom the KV pool can hold up to a predicted end",
    .citation = "@inproceedings{jin2023s3,\n"
                "  title = {{S}$^3$: Increasing {GPU} Utilization during Generative Inference for Higher "
                "Throughput},\n"
                "  author = {Jin, Yunho and Wu, Chun-Feng and Brooks, David and Wei, Gu-Yeon},\n"
                "  booktitle = {Advances in Neural Information Processing Systems 36 (NeurIPS 2023)},\n"
                "  year = {2023}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

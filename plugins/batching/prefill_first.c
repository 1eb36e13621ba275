/* SPDX-License-Identifier: MIT */
/* Prompts before decodes, never both in one step: vLLM's first scheduler (v0).
 *
 *     running r1 r2        waiting a (300)  b (150)  c (200)      max_tokens 512
 *     step 1   prefill     a 300  b 150                           r1 and r2 stand still
 *     step 2   prefill     c 200                                  they still do
 *     step 3   decode      r1 r2 a b c, one token each            nobody waits: decodes go on
 *
 * If any waiting request may come in, the step takes in whole prompts, in the order of the
 * ranking, as many as the budget, the places and the KV pool allow; otherwise every running
 * request decodes. First tokens come soon, and tokens of those who run come late: the stall
 * that chunked prefill is measured against.
 *
 * A request comes in only if `watermark` of the pool's blocks stays free after its prompt, so
 * that those who run can grow for a while; whoever is alone is let in regardless. A prompt
 * that is longer than the whole budget is cut, alone in its steps. After a preemption a decode
 * step goes first: the room was made for it.
 *
 * Promises: none is passed by those behind it, and decodes are held up by no more prompts than
 * there are places; it never idles with watermark = 0.
 * Weakness: the gap between tokens grows with the prompts that arrive. */
#include <batching/budget.h>

enum { OPT_MAX_REQUESTS, OPT_MAX_TOKENS, OPT_WATERMARK, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "max_requests", LATHE_OPTION_INTEGER, "0", 0, 1e6, "requests", NULL,
      "Most requests that run; 0 takes the engine's limit." },
    { "max_tokens", LATHE_OPTION_INTEGER, "0", 0, 1e9, "tokens", NULL,
      "Most prompt tokens of a prefill step; 0 takes the engine's limit." },
    { "watermark", LATHE_OPTION_NUMBER, "0.01", 0, 1, "", NULL,
      "Share of the KV pool's blocks that stays free when a request comes in." },
};

struct prefill_first {
    const struct lathe_host *host;
    int64_t want_requests, want_tokens;
    uint32_t max_requests, max_tokens;
    double watermark;
    int decodes_next; /* somebody was preempted since the last decode step */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct prefill_first *p = lathe_alloc(host, sizeof *p);
    if (!p)
        return lathe_fail(err, LATHE_ENOMEM, "batching prefill_first: no memory for %zu bytes", sizeof *p);
    p->host = host;
    p->want_requests = config->values[OPT_MAX_REQUESTS].integer;
    p->want_tokens = config->values[OPT_MAX_TOKENS].integer;
    p->watermark = config->values[OPT_WATERMARK].number;
    *self = p;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct prefill_first *p = self;
    if (p)
        lathe_free(p->host, p);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct prefill_first *p = self;
    int status = batching_check_limits("prefill_first", limits, err);
    if (status != LATHE_OK)
        return status;
    p->max_requests = batching_limit(p->want_requests, limits->max_batch_requests);
    p->max_tokens = batching_limit(p->want_tokens, limits->max_batch_tokens);
    /* every running request decodes in one step */
    p->max_requests = batching_limit(p->max_requests, limits->max_batch_tokens);
    return LATHE_OK;
}

/* Prompts that are under way, then new ones. */
static void prefill(const struct prefill_first *p, struct budget *b, const struct lathe_ranking *ranking)
{
    uint32_t running = 0, unfinished = 0;

    for (uint32_t i = 0; i < ranking->count && running < b->view->running; i++) {
        const struct lathe_request *req = ranking->requests[i];
        if (req->state != LATHE_REQUEST_RUNNING)
            continue;
        running++;
        if (!lathe_request_decoding(req))
            unfinished += budget_give(b, req, p->max_tokens) < lathe_request_pending(req);
    }
    for (uint32_t i = 0; i < ranking->count && !budget_is_spent(b) && !unfinished && running < p->max_requests; i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t pending = lathe_request_pending(req);
        int alone = running == 0;
        if (req->state == LATHE_REQUEST_RUNNING)
            continue;
        if ((pending > b->rows && b->plan->count > 0) || (!alone && !budget_leaves_free(b, req, pending)) ||
            budget_give(b, req, pending) == 0)
            return; /* in order: nobody passes it */
        running++;
    }
}

/* → how many found no room. */
static uint32_t decode(const struct prefill_first *p, struct budget *b, const struct lathe_ranking *ranking)
{
    uint32_t running = 0, refused = 0;
    b->rows = p->max_requests; /* max_tokens is about prompts */
    for (uint32_t i = 0; i < ranking->count && running < b->view->running && !budget_is_spent(b); i++) {
        const struct lathe_request *req = ranking->requests[i];
        if (req->state != LATHE_REQUEST_RUNNING)
            continue;
        running++;
        refused += lathe_request_decoding(req) && budget_give(b, req, 1) == 0;
    }
    return refused;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    struct prefill_first *p = self;
    struct budget b;

    (void)err;
    LATHE_ASSERT_THREAD(p->host, LATHE_THREAD_ENGINE);
    budget_begin(&b, view, plan, p->max_tokens, p->max_requests, p->watermark);
    if (p->decodes_next) {
        p->decodes_next = 0;
        if (decode(p, &b, ranking) > 0 || plan->count > 0)
            return LATHE_OK; /* or the scheduler will be asked for the next victim */
        b.rows = p->max_tokens;
    }
    prefill(p, &b, ranking);
    if (plan->count == 0)
        decode(p, &b, ranking);
    return LATHE_OK;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct prefill_first *p = self;
    p->decodes_next |= req->state == LATHE_REQUEST_PREEMPTED || req->state == LATHE_REQUEST_SWAPPED;
}

static uint32_t promises(void *self)
{
    const struct prefill_first *p = self;
    return LATHE_PROMISE_NO_STARVATION | (p->watermark > 0 ? 0 : LATHE_PROMISE_WORK_CONSERVING);
}

static const struct lathe_batching_api api = {
    .size = sizeof api,
    .abi = LATHE_BATCHING_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .fill = fill,
    .retire = retire,
    .promises = promises,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BATCHING,
    .concurrency = LATHE_SERIAL,
    .name = "prefill_first",
    .version = "1.0.0",
    .summary = "steps of whole prompts while any can come in, otherwise steps of decodes",
    .citation = "@inproceedings{kwon2023vllm,\n"
                "  title = {Efficient Memory Management for Large Language Model Serving with PagedAttention},\n"
                "  author = {Kwon, Woosuk and Li, Zhuohan and Zhuang, Siyuan and Sheng, Ying and Zheng, Lianmin and "
                "Yu, Cody Hao and Gonzalez, Joseph E. and Zhang, Hao and Stoica, Ion},\n"
                "  booktitle = {Proceedings of the 29th Symposium on Operating Systems Principles (SOSP 23)},\n"
                "  pages = {611--626},\n"
                "  year = {2023}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* Chunked prefill: stall-free batching as Sarathi-Serve has it.
 *
 *     budget 512       running r1 r2 (decoding), p (700 of its prompt left)   waiting a (20)
 *     step 1           r1 1  r2 1  p 510
 *     step 2           r1 1  r2 1  p 190  a 20          the budget isn't full: nobody is left
 *     step 3           r1 1  r2 1  p 1    a 1
 *
 * A step's budget of tokens bounds its time, and with it the gap between two tokens. All decodes
 * go first, so no prompt ever stalls them; what the budget has left is filled with the prompts
 * that are under way, then with new ones, the last of them cut to fit exactly. Weights are read
 * once for both: decodes wait for memory, prefill for arithmetic, and together they use both.
 *
 * New prompts come in by the ranking, none passing another, each only if the pool has room for
 * all of it and `watermark` of the blocks stays free; whoever would leave the step empty is let
 * in regardless. At most `max_partial` prompts are in the middle of their prefill: with 1 each is
 * served to its end, with more they share the budget evenly, so that a short prompt does not
 * wait behind a long one, and the long one's first token comes later.
 *
 * Promises: none is passed by those behind it; it never idles with watermark = 0. A decode that
 * is ranked and has room is in every step while no more than the budget run.
 * Weakness: a small budget reads the weights once more for every chunk; a scheduler that ranks a
 * waiting request above running ones gets it in only by leaving them out or by preempting. */
#include <batching/budget.h>

enum { OPT_BUDGET, OPT_MAX_REQUESTS, OPT_WATERMARK, OPT_MAX_PARTIAL, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "budget", LATHE_OPTION_INTEGER, "512", 1, 1e9, "tokens", NULL,
      "Most tokens computed in one step; the engine's limit where that is less." },
    { "max_requests", LATHE_OPTION_INTEGER, "0", 0, 1e6, "requests", NULL,
      "Most requests in one step; 0 takes the engine's limit." },
    { "watermark", LATHE_OPTION_NUMBER, "0", 0, 1, "", NULL,
      "Share of the KV pool's blocks that stays free when a request comes in." },
    { "max_partial", LATHE_OPTION_INTEGER, "1", 1, 1e6, "requests", NULL,
      "Most prompts that may be in the middle of their prefill at once; they share the budget." },
};

struct chunked {
    const struct lathe_host *host;
    int64_t want_budget, want_requests;
    uint32_t budget, max_requests, max_partial;
    double watermark;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct chunked *c = lathe_alloc(host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "batching chunked: no memory for %zu bytes", sizeof *c);
    c->host = host;
    c->want_budget = config->values[OPT_BUDGET].integer;
    c->want_requests = config->values[OPT_MAX_REQUESTS].integer;
    c->watermark = config->values[OPT_WATERMARK].number;
    c->max_partial = (uint32_t)config->values[OPT_MAX_PARTIAL].integer;
    *self = c;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct chunked *c = self;
    if (c)
        lathe_free(c->host, c);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct chunked *c = self;
    int status = batching_check_limits("chunked", limits, err);
    if (status != LATHE_OK)
        return status;
    c->budget = batching_limit(c->want_budget, limits->max_batch_tokens);
    c->max_requests = batching_limit(c->want_requests, limits->max_batch_requests);
    return LATHE_OK;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    const struct chunked *c = self;
    struct budget b;
    struct running r;

    (void)err;
    LATHE_ASSERT_THREAD(c->host, LATHE_THREAD_ENGINE);
    budget_begin(&b, view, plan, c->budget, c->max_requests, c->watermark);
    r = budget_give_running(&b, ranking, c->max_partial);
    for (uint32_t i = 0; i < ranking->count && !budget_is_spent(&b) && r.refused == 0; i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t pending = lathe_request_pending(req), share, given;
        if (req->state == LATHE_REQUEST_RUNNING)
            continue;
        share = budget_share(&b, &r);
        if ((pending > share && r.unfinished >= c->max_partial) ||
            (plan->count > 0 && !budget_leaves_free(&b, req, pending)) || (given = budget_give(&b, req, share)) == 0)
            break; /* in order: nobody passes it */
        r.unfinished += given < pending;
    }
    budget_top_up(&b);
    return LATHE_OK;
}

static uint32_t promises(void *self)
{
    const struct chunked *c = self;
    return LATHE_PROMISE_NO_STARVATION | (c->watermark > 0 ? 0 : LATHE_PROMISE_WORK_CONSERVING);
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
    .name = "chunked",
    .version = "1.0.0",
    .summary = "a token budget a step: all decodes, then chunks of prompts",
    .citation = "@inproceedings{agrawal2024sarathi,\n"
                "  title = {Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve},\n"
                "  author = {Agrawal, Amey and Kedia, Nitin and Panwar, Ashish and Mohan, Jayashree and Kwatra, "
                "Nipun and Gulavani, Bhargav S. and Tumanov, Alexey and Ramjee, Ramachandran},\n"
                "  booktitle = {18th USENIX Symposium on Operating Systems Design and Implementation (OSDI 24)},\n"
                "  pages = {117--134},\n"
                "  year = {2024}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

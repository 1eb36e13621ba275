/* SPDX-License-Identifier: MIT */
/* Continuous batching: the batch is made anew for every step (Orca, OSDI 2022).
 *
 * Requests join and leave between steps; nobody waits for the longest. The ranking is
 * followed in order, within three budgets: rows of the forward, slices of it, and KV
 * blocks (view->can_reserve). Prefill and decode rows mix.
 *
 *     budget 512   ranking a (1 pending)  b (700)      c (20)
 *     split_prompts=true    a 1           b 511        –
 *     split_prompts=false   a 1           –            c 20     b's turn comes whole
 *
 * A prompt that is longer than the whole budget is always cut: it could not run otherwise.
 *
 * Who gets no room in the KV pool gets nothing; after a waiting request was turned away
 * so, no other waiting request is let in behind it, since small ones would go on taking
 * what a large one waits for (option `overtake` allows it). Running ones still go.
 *
 * Promises: it never idles; nobody is passed for ever, unless small prompts may go round large
 * ones (split_prompts = false, overtake = true).
 * Weakness: a prompt that fits into the budget delays the decodes that share its step. */
#include <batching/budget.h>

enum { OPT_MAX_REQUESTS, OPT_MAX_TOKENS, OPT_SPLIT_PROMPTS, OPT_OVERTAKE, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "max_requests", LATHE_OPTION_INTEGER, "0", 0, 1e6, "requests", NULL,
      "Most requests in one step; 0 takes the engine's limit." },
    { "max_tokens", LATHE_OPTION_INTEGER, "0", 0, 1e9, "tokens", NULL,
      "Most tokens computed in one step; 0 takes the engine's limit." },
    { "split_prompts", LATHE_OPTION_BOOLEAN, "true", 0, 0, "", NULL,
      "A prompt that exceeds what is left of the budget is cut there and goes on in the next step." },
    { "overtake", LATHE_OPTION_BOOLEAN, "false", 0, 0, "", NULL,
      "A waiting request may pass one that found no room in the KV pool; large ones can then starve." },
};

struct continuous {
    const struct lathe_host *host;
    int64_t want_requests, want_tokens;
    uint32_t max_requests, max_tokens;
    int split_prompts, overtake;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct continuous *c = lathe_alloc(host, sizeof *c);
    if (!c)
        return lathe_fail(err, LATHE_ENOMEM, "batching continuous: no memory for %zu bytes", sizeof *c);
    c->host = host;
    c->want_requests = config->values[OPT_MAX_REQUESTS].integer;
    c->want_tokens = config->values[OPT_MAX_TOKENS].integer;
    c->split_prompts = config->values[OPT_SPLIT_PROMPTS].integer != 0;
    c->overtake = config->values[OPT_OVERTAKE].integer != 0;
    *self = c;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct continuous *c = self;
    if (c)
        lathe_free(c->host, c);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct continuous *c = self;
    int status = batching_check_limits("continuous", limits, err);
    if (status != LATHE_OK)
        return status;
    c->max_requests = batching_limit(c->want_requests, limits->max_batch_requests);
    c->max_tokens = batching_limit(c->want_tokens, limits->max_batch_tokens);
    return LATHE_OK;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    struct continuous *c = self;
    struct budget b;
    int turned_away = 0;

    (void)err;
    LATHE_ASSERT_THREAD(c->host, LATHE_THREAD_ENGINE);
    budget_begin(&b, view, plan, c->max_tokens, c->max_requests, 0);
    for (uint32_t i = 0; i < ranking->count && !budget_is_spent(&b); i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t pending = lathe_request_pending(req);
        int running = req->state == LATHE_REQUEST_RUNNING;

        if (turned_away && !running && !c->overtake)
            continue;
        if (pending > b.rows && !c->split_prompts && pending <= c->max_tokens)
            continue; /* whole, in a step that has the room */
        if (budget_give(&b, req, pending) == 0)
            turned_away |= !running;
    }
    return LATHE_OK;
}

static uint32_t promises(void *self)
{
    const struct continuous *c = self;
    return LATHE_PROMISE_WORK_CONSERVING | (c->split_prompts && !c->overtake ? LATHE_PROMISE_NO_STARVATION : 0);
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
    .name = "continuous",
    .version = "1.0.0",
    .summary = "iteration-level batching: requests join and leave between steps",
    .citation = "@inproceedings{yu2022orca,\n"
                "  title = {Orca: A Distributed Serving System for Transformer-Based Generative Models},\n"
                "  author = {Yu, Gyeong-In and Jeong, Joo Seong and Kim, Geon-Woo and Kim, Soojeong and Chun, "
                "Byung-Gon},\n"
                "  booktitle = {16th USENIX Symposium on Operating Systems Design and Implementation (OSDI 22)},\n"
                "  pages = {521--538},\n"
                "  year = {2022}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

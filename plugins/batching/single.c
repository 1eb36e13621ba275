/* SPDX-License-Identifier: MIT */
/* One request at a time: the server of queueing theory.
 *
 *     sticky = true     a a a a a a | c c c | b b b b      to its end, then the first of the ranking
 *     sticky = false    a a | c c c | a a a a | b b b b    c ranks first meanwhile: a is set aside
 *
 * A step holds one request: its prompt, cut at the step's budget, then a token a step. With a
 * scheduler in front this is M/G/1: `fcfs` meets Pollaczek and Khinchine's formula, and with
 * `sticky = false` a preemptive one, such as srpt, meets its own. A request that is set aside
 * keeps its KV.
 *
 * Promises: it never idles, and lets none pass that the scheduler did not put first.
 * Weakness: the weights are read once a token; batching exists because that is what costs. */
#include <batching/budget.h>

enum { OPT_STICKY, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "sticky", LATHE_OPTION_BOOLEAN, "true", 0, 0, "", NULL,
      "Stay with a request to its end; false: each step serves whoever ranks first, for preemptive schedulers." },
};

struct single {
    const struct lathe_host *host;
    int sticky;
    uint32_t max_tokens;
    const struct lathe_request *served; /* it has begun and has not ended; NULL: none */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct single *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "batching single: no memory for %zu bytes", sizeof *s);
    s->host = host;
    s->sticky = config->values[OPT_STICKY].integer != 0;
    *self = s;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct single *s = self;
    if (s)
        lathe_free(s->host, s);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct single *s = self;
    int status = batching_check_limits("single", limits, err);
    s->max_tokens = limits->max_batch_tokens;
    return status;
}

/* The place of the one that is served, or `count` when it never began after all or isn't ranked. */
static uint32_t find(const struct lathe_ranking *ranking, const struct lathe_request *served)
{
    uint32_t i = served && served->state == LATHE_REQUEST_RUNNING ? 0 : ranking->count;
    while (i < ranking->count && ranking->requests[i] != served)
        i++;
    return i;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    struct single *s = self;
    struct budget b;
    uint32_t at = s->sticky ? find(ranking, s->served) : ranking->count;
    int turned_away = 0;

    (void)err;
    LATHE_ASSERT_THREAD(s->host, LATHE_THREAD_ENGINE);
    budget_begin(&b, view, plan, s->max_tokens, 1, 0);
    if (at < ranking->count) { /* without room nobody else gets its place: the scheduler names a victim */
        budget_give(&b, s->served, s->max_tokens);
        return LATHE_OK;
    }
    /* In order. Behind one that found no room only those go on who may be holding it. */
    for (uint32_t i = 0; i < ranking->count && !budget_is_spent(&b); i++) {
        const struct lathe_request *req = ranking->requests[i];
        int running = req->state == LATHE_REQUEST_RUNNING;
        if (turned_away && !running)
            continue;
        if (budget_give(&b, req, s->max_tokens))
            s->served = req;
        else if (running)
            break;
        turned_away = 1;
    }
    return LATHE_OK;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct single *s = self;
    if (s->served == req)
        s->served = NULL;
}

static uint32_t promises(void *self)
{
    (void)self;
    return LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_STARVATION;
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
    .name = "single",
    .version = "1.0.0",
    .summary = "one request at a time, the server of queueing theory",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

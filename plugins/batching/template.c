/* SPDX-License-Identifier: MIT */
/* A batching strategy to copy. It works: every running request gets its one token first,
 * then one prompt at most goes in, cut at what is left of the budget.
 *
 *   1. Say in this comment what your strategy does, and cite its paper below.
 *   2. Declare your options: name, type, default, range, unit, help. The host checks them.
 *   3. bind: take the engine's limits, allocate what you need.
 *   4. fill: walk the ranking, give tokens. Stay within the limits; ask can_reserve first.
 *   5. Name it in lathe_plugin, at the end, as the file is named.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.run { batching = "mine", … } */
#include <lathe/batching.h>

/* Step 2. create finds the values in this order. */
enum { OPT_PROMPTS, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "prompts", LATHE_OPTION_INTEGER, "1", 1, 1e6, "requests", NULL, "Most prompts that a step takes in." },
};

struct mine {
    const struct lathe_host *host;
    uint32_t prompts;
    struct lathe_batching_limits limits;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "batching template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    m->prompts = (uint32_t)config->values[OPT_PROMPTS].integer;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (m)
        lathe_free(m->host, m);
}

/* Step 3. Allocate here: in fill nothing may be. */
static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    (void)err;
    ((struct mine *)self)->limits = *limits;
    return LATHE_OK;
}

/* Give `req` up to `most` tokens, if the KV pool has room; returns how many. A 1 from
 * can_reserve is a promise: the room is kept for this plan. */
static uint32_t give(const struct lathe_step_view *view, struct lathe_plan *plan, const struct lathe_request *req,
                     uint32_t most)
{
    uint32_t pending = lathe_request_pending(req), tokens = pending < most ? pending : most;
    if (tokens == 0 || !view->can_reserve(view->engine, req, req->computed_tokens + tokens))
        return 0;
    plan->entries[plan->count++] = (struct lathe_plan_entry){ .request = req, .tokens = tokens };
    return tokens;
}

/* Step 4. */
static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    const struct mine *m = self;
    uint32_t left = m->limits.max_batch_tokens, prompts = 0;
    uint32_t entries = m->limits.max_batch_requests < plan->capacity ? m->limits.max_batch_requests : plan->capacity;

    (void)err;
    plan->count = 0;
    plan->wake_ns = INT64_MAX; /* if nothing is planned: ask again on the next event */
    for (uint32_t i = 0; i < ranking->count && plan->count < entries; i++)
        if (lathe_request_decoding(ranking->requests[i]))
            left -= give(view, plan, ranking->requests[i], left);
    for (uint32_t i = 0; i < ranking->count && plan->count < entries && prompts < m->prompts; i++) {
        if (!lathe_request_decoding(ranking->requests[i])) {
            uint32_t tokens = give(view, plan, ranking->requests[i], left);
            left -= tokens;
            prompts += tokens > 0;
        }
    }
    return LATHE_OK;
}

static const struct lathe_batching_api api = {
    .size = sizeof api,
    .abi = LATHE_BATCHING_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .fill = fill,
};

/* Step 5. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BATCHING,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a batching strategy to copy: decodes first, then one prompt",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

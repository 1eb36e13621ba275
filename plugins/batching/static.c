/* SPDX-License-Identifier: MIT */
/* Static batching: a batch is gathered, padded, and run until its longest ends.
 *
 * What serving was before Orca, and what continuous batching is compared with.
 *
 *            step 1 (prefill, padded to 5)   2    3    4 …
 *     a      . . a a a                       a    a    a
 *     b      b b b b b                       b    end  .     a row of padding from here on
 *     c      . . . . c                       c    c    c
 *                                                            nobody joins before all ended
 *
 * A batch is made of the first requests in the ranking, as soon as `batch` of them are
 * there or the first of them has waited `window_ms`. Prompts are padded on the left to the
 * longest, as training frameworks do it; where that is more than a step's budget, the prefill
 * takes several steps, and all first tokens come with the last of them (cohort.h). A place whose
 * request ended or was preempted is computed on as padding: the waste is real, and counted in
 * the step's row. So the time of a batch is E[max] of its lengths, not their mean.
 *
 * With `reserve = end` a request is taken only if the pool has room for it up to its end, and
 * since nobody joins later it never runs short; with `grow` it is taken with room for its prompt,
 * more go together, and some may have to give way.
 *
 * Promises: none is passed by those behind it; with window_ms = 0 it never idles.
 * Weakness: who comes a moment too late waits for the longest of those before; one long prompt
 * makes all of its batch long (`padded_tokens` bounds that, `dynamic` has buckets). */
#include <batching/cohort.h>

enum { OPT_BATCH, OPT_WINDOW, OPT_RESERVE, OPT_PADDED_TOKENS, OPT_COUNT };
enum { RESERVE_END, RESERVE_GROW };

static const struct lathe_option options[OPT_COUNT] = {
    { "batch", LATHE_OPTION_INTEGER, "8", 1, 1e6, "requests", NULL, "Most requests in a batch." },
    { "window_ms", LATHE_OPTION_NUMBER, "50", 0, 1e6, "ms", NULL,
      "How long the first request waits for others before a smaller batch goes." },
    { "reserve", LATHE_OPTION_CHOICE, "end", 0, 0, "", "end|grow",
      "A batch takes whom the KV pool can hold up to its end, or whose prompt it can hold." },
    { "padded_tokens", LATHE_OPTION_INTEGER, "0", 0, 1e9, "tokens", NULL,
      "Most tokens of a batch's padded prompts (requests × longest), but always one request; 0: unbounded." },
};

struct static_batching {
    int64_t want_batch, window_ns;
    uint64_t padded_tokens;
    struct cohort cohort;
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct static_batching *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "batching static: no memory for %zu bytes", sizeof *s);
    s->want_batch = config->values[OPT_BATCH].integer;
    s->window_ns = (int64_t)(config->values[OPT_WINDOW].number * 1e6);
    s->padded_tokens = (uint64_t)config->values[OPT_PADDED_TOKENS].integer;
    if (s->padded_tokens == 0)
        s->padded_tokens = UINT64_MAX;
    s->cohort.host = host;
    s->cohort.rules = (struct cohort_rules){ .pad = 1,
                                             .reserve_end = config->values[OPT_RESERVE].integer == RESERVE_END };
    *self = s;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct static_batching *s = self;
    if (!s)
        return;
    cohort_free(&s->cohort);
    lathe_free(s->cohort.host, s);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct static_batching *s = self;
    return cohort_bind(&s->cohort, "static", s->want_batch, limits, err);
}

/* How many entries of the ranking the next batch is looked for in, and since when the oldest
 * of them waits. *full: more would not help. */
static uint32_t candidates(const struct static_batching *s, const struct lathe_ranking *ranking, int64_t *oldest_ns,
                           int *full)
{
    uint32_t count = 0, longest = 0, i = 0;
    *oldest_ns = INT64_MAX;
    for (; i < ranking->count && count < s->cohort.capacity; i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t pending = lathe_request_pending(req);
        if (pending == 0)
            continue;
        longest = pending > longest ? pending : longest;
        if (count > 0 && (uint64_t)longest * (count + 1) > s->padded_tokens)
            break;
        if (req->arrival_ns < *oldest_ns)
            *oldest_ns = req->arrival_ns;
        count++;
    }
    *full = i < ranking->count || count == s->cohort.capacity;
    return i;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    struct static_batching *s = self;

    (void)err;
    LATHE_ASSERT_THREAD(s->cohort.host, LATHE_THREAD_ENGINE);
    plan->count = 0;
    plan->wake_ns = INT64_MAX;
    if (cohort_look(&s->cohort, ranking) > 0 && cohort_plan(&s->cohort, view, plan))
        return LATHE_OK;
    /* None under way, or the scheduler holds all of it back, or none of it had begun and finds room. */
    int64_t oldest_ns, go_ns;
    int full;
    uint32_t count = candidates(s, ranking, &oldest_ns, &full);
    go_ns = oldest_ns > INT64_MAX - s->window_ns ? INT64_MAX : oldest_ns + s->window_ns;
    if (count == 0)
        return LATHE_OK;
    if (!full && view->now_ns < go_ns) {
        plan->wake_ns = go_ns; /* others may yet come */
        return LATHE_OK;
    }
    cohort_clear(&s->cohort);
    for (uint32_t i = 0; i < count; i++)
        cohort_take(&s->cohort, view, ranking->requests[i]);
    cohort_plan(&s->cohort, view, plan);
    return LATHE_OK;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct static_batching *s = self;
    cohort_retire(&s->cohort, req);
}

static uint32_t promises(void *self)
{
    const struct static_batching *s = self;
    return LATHE_PROMISE_NO_STARVATION | (s->window_ns == 0 ? LATHE_PROMISE_WORK_CONSERVING : 0);
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
    .name = "static",
    .version = "1.1.0",
    .summary = "a padded batch that runs until its longest request ends",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* Static batching: a batch is gathered, padded, and run until its longest ends.
 *
 * What serving was before Orca, and what continuous batching is compared with.
 *
 *            step 1 (prefill, padded to 5)   2    3    4 …
 *     a      a a a . .                       a    a    a
 *     b      b b b b b                       b    end  .     a row of padding from here on
 *     c      c . . . .                       c    c    c
 *                                                            nobody joins before all ended
 *
 * A batch is made of the first requests in the ranking, as soon as `batch` of them are
 * there or the first of them has waited `window_ms`. It takes no more than fit when each is
 * padded to the longest, and, since nobody joins later, asks for KV room up to the end of
 * each; so it hardly ever runs short. A prompt longer than the step's budget runs alone
 * and in parts. A place whose request ended or was preempted is computed on as padding:
 * the waste is real, and counted in the step's row. */
#include <string.h>

#include <lathe/batching.h>

enum { OPT_BATCH, OPT_WINDOW, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "batch", LATHE_OPTION_INTEGER, "8", 1, 1e6, "requests", NULL, "Most requests in a batch." },
    { "window_ms", LATHE_OPTION_NUMBER, "50", 0, 1e6, "ms", NULL,
      "How long the first request waits for others before a smaller batch goes." },
};

struct static_batching {
    const struct lathe_host *host;
    int64_t want_batch, window_ns;
    uint32_t batch, max_tokens, max_requests;
    uint32_t count, alive;                /* places of the batch under way, and how many of them live */
    const struct lathe_request **members; /* NULL: ended, padding; (batch) */
    uint64_t fills;
    uint64_t *ranked;                     /* by index: the fill in which it was ranked last; (max_requests) */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct static_batching *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "batching static: no memory for %zu bytes", sizeof *s);
    s->host = host;
    s->want_batch = config->values[OPT_BATCH].integer;
    s->window_ns = (int64_t)(config->values[OPT_WINDOW].number * 1e6);
    *self = s;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct static_batching *s = self;
    if (!s)
        return;
    lathe_free(s->host, s->members);
    lathe_free(s->host, s->ranked);
    lathe_free(s->host, s);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct static_batching *s = self;
    if (s->members)
        return lathe_fail(err, LATHE_ESTATE, "batching static: bound twice; make a second instance instead");
    if (limits->max_batch_tokens == 0 || limits->max_batch_requests == 0)
        return lathe_fail(err, LATHE_EINVAL, "batching static: the engine offers %u tokens and %u requests a step; "
                          "both must be at least 1", limits->max_batch_tokens, limits->max_batch_requests);
    s->batch = s->want_batch < limits->max_batch_requests ? (uint32_t)s->want_batch : limits->max_batch_requests;
    if (s->batch > limits->max_batch_tokens)
        s->batch = limits->max_batch_tokens; /* each place takes a row a step */
    s->members = lathe_alloc_array(s->host, s->batch, sizeof *s->members);
    s->ranked = lathe_alloc_array(s->host, limits->max_requests, sizeof *s->ranked);
    if (!s->members || !s->ranked) {
        lathe_free(s->host, s->members);
        lathe_free(s->host, s->ranked);
        s->members = NULL, s->ranked = NULL;
        return lathe_fail(err, LATHE_ENOMEM, "batching static: no memory for a batch of %u", s->batch);
    }
    s->max_tokens = limits->max_batch_tokens;
    s->max_requests = limits->max_requests;
    return LATHE_OK;
}

/* How many of the ranking's first fit into one step when each is padded to the longest. */
static uint32_t candidates(const struct static_batching *s, const struct lathe_ranking *ranking, uint32_t most,
                           int64_t *oldest_ns)
{
    uint32_t count = 0, longest = 0;
    *oldest_ns = INT64_MAX;
    for (uint32_t i = 0; i < ranking->count && count < most; i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t pending = lathe_request_pending(req);
        if (pending == 0)
            continue;
        longest = pending > longest ? pending : longest;
        if (count > 0 && (uint64_t)longest * (count + 1) > s->max_tokens)
            break;
        if (req->arrival_ns < *oldest_ns)
            *oldest_ns = req->arrival_ns;
        count++;
    }
    return count;
}

/* Room up to its end, or, if the pool is too small for that, at least for what it has. */
static int has_room(const struct lathe_step_view *view, const struct lathe_request *req, int alone)
{
    uint32_t known = req->prompt_tokens + req->output_tokens, rest = req->max_output_tokens - req->output_tokens;
    if (req->max_output_tokens > req->output_tokens && known <= UINT32_MAX - rest &&
        view->can_reserve(view->engine, req, known + rest))
        return 1;
    return alone && view->can_reserve(view->engine, req, known);
}

static void gather(struct static_batching *s, const struct lathe_step_view *view,
                   const struct lathe_ranking *ranking, uint32_t count)
{
    s->count = 0;
    for (uint32_t i = 0; i < ranking->count && s->count < count; i++) {
        const struct lathe_request *req = ranking->requests[i];
        if (lathe_request_pending(req) == 0)
            continue;
        if (!has_room(view, req, s->count == 0))
            break; /* in order: nobody passes one that found no room */
        s->members[s->count++] = req;
    }
    s->alive = s->count;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    struct static_batching *s = self;
    uint32_t rows = 0, each, ranked = 0;
    int fresh = 0;

    (void)err;
    LATHE_ASSERT_THREAD(s->host, LATHE_THREAD_ENGINE);
    plan->count = 0;
    plan->wake_ns = INT64_MAX;
    s->fills++;
    for (uint32_t i = 0; i < ranking->count; i++)
        if (ranking->requests[i]->index < s->max_requests)
            s->ranked[ranking->requests[i]->index] = s->fills;
    for (uint32_t i = 0; i < s->count; i++)
        ranked += s->members[i] && s->ranked[s->members[i]->index] == s->fills;
    if (ranked == 0) { /* none under way, or the scheduler holds all of it back */
        uint32_t most = s->batch < plan->capacity ? s->batch : plan->capacity, count;
        int64_t oldest_ns, go_ns;
        s->count = s->alive = 0;
        count = candidates(s, ranking, most, &oldest_ns);
        if (count == 0)
            return LATHE_OK;
        go_ns = oldest_ns > INT64_MAX - s->window_ns ? INT64_MAX : oldest_ns + s->window_ns;
        if (count < most && count == ranking->count && view->now_ns < go_ns) {
            plan->wake_ns = go_ns; /* others may yet come */
            return LATHE_OK;
        }
        gather(s, view, ranking, count);
        fresh = 1;
    }

    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t pending = s->members[i] ? lathe_request_pending(s->members[i]) : 0;
        rows = pending > rows ? pending : rows;
    }
    each = s->count ? s->max_tokens / s->count : 0;
    rows = rows < each ? rows : each;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct lathe_request *req = s->members[i];
        uint32_t pending = req ? lathe_request_pending(req) : 0, tokens = pending < rows ? pending : rows;
        if (req && (s->ranked[req->index] != s->fills ||
                    (!fresh && !view->can_reserve(view->engine, req, req->computed_tokens + tokens))))
            tokens = 0; /* keeps its place */
        plan->entries[plan->count++] = (struct lathe_plan_entry){ .request = tokens ? req : NULL, .tokens = tokens,
                                                                  .padding = rows - tokens };
    }
    for (uint32_t i = 0; i < plan->count; i++)
        if (plan->entries[i].tokens)
            return LATHE_OK;
    plan->count = 0; /* padding alone is no step */
    return LATHE_OK;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct static_batching *s = self;
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->members[i] == req) {
            s->members[i] = NULL;
            if (--s->alive == 0)
                s->count = 0;
            return;
        }
    }
}

static const struct lathe_batching_api api = {
    .size = sizeof api,
    .abi = LATHE_BATCHING_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .fill = fill,
    .retire = retire,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_BATCHING,
    .concurrency = LATHE_SERIAL,
    .name = "static",
    .version = "1.0.0",
    .summary = "a padded batch that runs until its longest request ends",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

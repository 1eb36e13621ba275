/* SPDX-License-Identifier: MIT */
/* Dynamic batching, as model servers (TensorFlow Serving, Triton) know it: whole requests are
 * gathered for a moment, and those of like length go together.
 *
 *     buckets = 64,256      waiting, first come first:   a 30   b 500   c 50   d 40   e 200
 *                           bucket ≤ 64    a c d         full with batch = 3: they go at once
 *                                  ≤ 256   e             goes when it has waited window_ms
 *                                  more    b             likewise; the ranking says who is first
 *
 * The ranking is walked from its head, and the first of two events decides whose bucket goes:
 * a request that has waited `window_ms`, or a bucket with `batch` requests in it. Prompts are
 * padded to the longest of those that go, so a bucket bounds the padding; with `pad = false`
 * nothing is padded (ragged kernels). The batch runs until all of it ended: the place of an
 * ended request is computed on, unless `shrink = true` drops it. Nobody joins meanwhile, and
 * a request is taken only if the pool has room for it up to its end.
 *
 * Promises: under a ranking by arrival none waits for ever, since whoever has waited longest
 * decides; with window_ms = 0 it never idles.
 * Weakness: that of all request-level batching, the wait for the longest answer; buckets know
 * prompts only. Small buckets make small batches. */
#include <stdlib.h>

#include <batching/cohort.h>

enum { OPT_BATCH, OPT_WINDOW, OPT_BUCKETS, OPT_PAD, OPT_SHRINK, OPT_COUNT };
enum { MAX_BOUNDS = 16 };

static const struct lathe_option options[OPT_COUNT] = {
    { "batch", LATHE_OPTION_INTEGER, "8", 1, 1e6, "requests", NULL, "Most requests in a batch; so many go at once." },
    { "window_ms", LATHE_OPTION_NUMBER, "50", 0, 1e6, "ms", NULL,
      "How long a request waits for others of its bucket before a smaller batch goes." },
    { "buckets", LATHE_OPTION_STRING, "64,256,1024", 0, 0, "tokens", NULL,
      "Prompt lengths up to which a bucket reaches, ascending, with commas; longer ones share the last; empty: one "
      "bucket." },
    { "pad", LATHE_OPTION_BOOLEAN, "true", 0, 0, "", NULL, "Pad the prompts of a batch to its longest." },
    { "shrink", LATHE_OPTION_BOOLEAN, "false", 0, 0, "", NULL,
      "Drop the row of a request that ended, instead of computing it on as padding." },
};

struct dynamic {
    int64_t want_batch, window_ns;
    uint32_t bound_count, bounds[MAX_BOUNDS]; /* bucket i holds prompts up to bounds[i]; the last is unbounded */
    struct cohort cohort;
};

static int parse_buckets(struct dynamic *d, const char *text, struct lathe_error *err)
{
    for (const char *at = text; *at;) {
        char *end = NULL;
        unsigned long long bound = *at >= '0' && *at <= '9' ? strtoull(at, &end, 10) : 0;
        if (bound == 0 || bound > UINT32_MAX || (*end != ',' && *end != '\0') || (*end == ',' && end[1] == '\0') ||
            (d->bound_count > 0 && bound <= d->bounds[d->bound_count - 1]))
            return lathe_fail(err, LATHE_EINVAL, "batching dynamic: buckets is '%s'; write ascending numbers of tokens "
                              "with commas between, such as 64,256,1024", text);
        if (d->bound_count == MAX_BOUNDS)
            return lathe_fail(err, LATHE_ERANGE, "batching dynamic: buckets is '%s', which has more than %d bounds; "
                              "leave some out", text, MAX_BOUNDS);
        d->bounds[d->bound_count++] = (uint32_t)bound;
        at = *end ? end + 1 : end;
    }
    return LATHE_OK;
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct dynamic *d = lathe_alloc(host, sizeof *d);
    int status;
    if (!d)
        return lathe_fail(err, LATHE_ENOMEM, "batching dynamic: no memory for %zu bytes", sizeof *d);
    d->want_batch = config->values[OPT_BATCH].integer;
    d->window_ns = (int64_t)(config->values[OPT_WINDOW].number * 1e6);
    d->cohort.host = host;
    d->cohort.rules = (struct cohort_rules){ .pad = config->values[OPT_PAD].integer != 0,
                                             .shrink = config->values[OPT_SHRINK].integer != 0, .reserve_end = 1 };
    if ((status = parse_buckets(d, config->values[OPT_BUCKETS].text, err)) != LATHE_OK) {
        lathe_free(host, d);
        return status;
    }
    *self = d;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct dynamic *d = self;
    if (!d)
        return;
    cohort_free(&d->cohort);
    lathe_free(d->cohort.host, d);
}

static int bind_limits(void *self, const struct lathe_batching_limits *limits, struct lathe_error *err)
{
    struct dynamic *d = self;
    return cohort_bind(&d->cohort, "dynamic", d->want_batch, limits, err);
}

static uint32_t bucket_of(const struct dynamic *d, uint32_t tokens)
{
    uint32_t i = 0;
    while (i < d->bound_count && tokens > d->bounds[i])
        i++;
    return i;
}

/* The bucket that goes now, or −1, with *wake_ns when to look again. */
static int choose(const struct dynamic *d, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                  int64_t *wake_ns)
{
    uint32_t counts[MAX_BOUNDS + 1] = { 0 };
    for (uint32_t i = 0; i < ranking->count; i++) {
        const struct lathe_request *req = ranking->requests[i];
        uint32_t pending = lathe_request_pending(req), bucket = bucket_of(d, pending);
        int64_t go_ns = req->arrival_ns > INT64_MAX - d->window_ns ? INT64_MAX : req->arrival_ns + d->window_ns;
        if (pending == 0)
            continue;
        if (go_ns <= view->now_ns || ++counts[bucket] == d->cohort.capacity)
            return (int)bucket;
        *wake_ns = go_ns < *wake_ns ? go_ns : *wake_ns;
    }
    return -1;
}

static int fill(void *self, const struct lathe_step_view *view, const struct lathe_ranking *ranking,
                struct lathe_plan *plan, struct lathe_error *err)
{
    struct dynamic *d = self;
    struct cohort *c = &d->cohort;
    int bucket;

    (void)err;
    LATHE_ASSERT_THREAD(c->host, LATHE_THREAD_ENGINE);
    plan->count = 0;
    plan->wake_ns = INT64_MAX;
    if (cohort_look(c, ranking) > 0 && cohort_plan(c, view, plan))
        return LATHE_OK;
    if ((bucket = choose(d, view, ranking, &plan->wake_ns)) < 0)
        return LATHE_OK;
    plan->wake_ns = INT64_MAX;
    cohort_clear(c);
    for (uint32_t i = 0; i < ranking->count && c->count < c->capacity && !c->turned_away; i++)
        if (bucket_of(d, lathe_request_pending(ranking->requests[i])) == (uint32_t)bucket)
            cohort_take(c, view, ranking->requests[i]);
    if (c->count == 0) /* no room for the first: whoever holds the room goes on, whatever its bucket */
        for (uint32_t i = 0; i < ranking->count && c->count < c->capacity; i++)
            if (ranking->requests[i]->state == LATHE_REQUEST_RUNNING)
                cohort_take(c, view, ranking->requests[i]);
    cohort_plan(c, view, plan);
    return LATHE_OK;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct dynamic *d = self;
    cohort_retire(&d->cohort, req);
}

static uint32_t promises(void *self)
{
    const struct dynamic *d = self;
    return LATHE_PROMISE_NO_STARVATION | (d->window_ns == 0 ? LATHE_PROMISE_WORK_CONSERVING : 0);
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
    .name = "dynamic",
    .version = "1.0.0",
    .summary = "request-level batching with a window and buckets of like prompt lengths",
    .citation = "@article{olston2017tensorflow,\n"
                "  title = {TensorFlow-Serving: Flexible, High-Performance ML Serving},\n"
                "  author = {Olston, Christopher and Fiedel, Noah and Gorovoy, Kiril and Harmsen, Jeremiah and Lao, Li "
                "and Li, Fangwei and Rajashekhar, Vinu and Ramesh, Sukriti and Soyke, Jordan},\n"
                "  journal = {arXiv preprint arXiv:1712.06139},\n"
                "  year = {2017}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* A scheduler to copy. It works: last come, first served, so that a run with it differs
 * visibly from fcfs. `lathe new scheduler mine` copies it under a name of yours.
 *
 *   1. Say in this comment what your policy does, and cite its paper below.
 *   2. Declare your options: name, type, default, range, unit, help. The host checks them.
 *   3. Keep what you remember: here, all that live in the order of the policy. What you remember of
 *      each request goes into an array indexed by req->index.
 *   4. admit, retire: requests come and go. Borrow the pointer between the two, no longer.
 *   5. rank: who may run now, best first. This is the policy.
 *   6. victim: who gives way when memory runs short.
 *   7. Name it in lathe_plugin, at the end, as the file is named.
 *
 * It looks at all that live once in each step. Where thousands do, plugins/lib/policy/lineup.h ranks in
 * O(running + wanted): see fcfs.c, and fcfs.cmake, which links it.
 *
 * Build, and the conformance tests run on it by themselves; then swap it in:
 *     lathe.run { scheduler = "mine", … } */
#include <lathe/scheduler.h>

/* Step 2. create finds the values in this order. */
enum { OPT_KEEP_RUNNING, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "keep_running", LATHE_OPTION_BOOLEAN, "false", 0, 0, "", NULL,
      "Running requests go before waiting ones, however late those came." },
};

/* Step 3. */
struct mine {
    const struct lathe_host *host;
    int keep_running;
    uint32_t capacity, count;
    const struct lathe_request **line; /* who is to go last comes first: newcomers mostly join at its end; (capacity) */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mine *m = lathe_alloc(host, sizeof *m); /* zeroed */
    if (!m)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler template: no memory for %zu bytes", sizeof *m);
    m->host = host;
    m->keep_running = config->values[OPT_KEEP_RUNNING].integer != 0;
    *self = m;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct mine *m = self;
    if (!m)
        return;
    lathe_free(m->host, m->line);
    lathe_free(m->host, m);
}

/* Allocate here: from now on nothing may be. */
static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct mine *m = self;
    m->line = lathe_alloc_array(m->host, limits->max_requests, sizeof *m->line);
    if (!m->line)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler template: no memory for %u requests", limits->max_requests);
    m->capacity = limits->max_requests;
    return LATHE_OK;
}

/* Step 4. Does a go before b? Ties must be broken by something that doesn't change. */
static int before(const struct lathe_request *a, const struct lathe_request *b)
{
    return a->planned_ns != b->planned_ns ? a->planned_ns > b->planned_ns : a->id > b->id;
}

static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct mine *m = self;
    uint32_t at = m->count;
    if (m->count == m->capacity)
        return lathe_fail(err, LATHE_EFULL, "scheduler template: it was bound for %u requests and has as many; try again "
                          "after a step", m->capacity);
    for (; at > 0 && before(m->line[at - 1], req); at--)
        m->line[at] = m->line[at - 1];
    m->line[at] = req;
    m->count++;
    return LATHE_OK;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct mine *m = self;
    uint32_t at = 0;
    while (at < m->count && m->line[at] != req)
        at++;
    if (at == m->count)
        return;
    for (m->count--; at < m->count; at++)
        m->line[at] = m->line[at + 1];
}

/* Step 5. Those of the line, from its end, that run, or don't, or (-1) all. */
static void put(const struct mine *m, int running, struct lathe_ranking *ranking)
{
    for (uint32_t i = m->count; i-- > 0 && ranking->count < ranking->capacity;)
        if (running < 0 || (m->line[i]->state == LATHE_REQUEST_RUNNING) == running)
            ranking->requests[ranking->count++] = m->line[i];
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    const struct mine *m = self;
    (void)view, (void)err;
    ranking->count = ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX; /* nothing to wait for but the next event */
    if (m->keep_running) {
        put(m, 1, ranking);
        put(m, 0, ranking);
    } else {
        put(m, -1, ranking);
    }
    return LATHE_OK;
}

/* Step 6. The last in the ranking that runs; nobody is asked to give way to itself alone. */
static const struct lathe_request *victim(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy)
{
    const struct mine *m = self;
    for (uint32_t i = 0; i < m->count; i++)
        if (m->line[i]->state == LATHE_REQUEST_RUNNING)
            return m->line[i] == needy && view->running == 1 ? NULL : m->line[i];
    return NULL;
}

static const struct lathe_scheduler_api api = {
    .size = sizeof api,
    .abi = LATHE_SCHEDULER_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .admit = admit,
    .rank = rank,
    .victim = victim,
    .retire = retire,
};

/* Step 7. */
extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_SCHEDULER,
    .concurrency = LATHE_SERIAL,
    .name = "template",
    .version = "1.0.0",
    .summary = "a scheduler to copy: last come, first served",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

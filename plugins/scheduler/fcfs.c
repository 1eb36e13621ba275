/* SPDX-License-Identifier: MIT */
/* First come, first served.
 *
 * Requests run in the order in which they were planned to arrive (then by id), whatever
 * their length: the baseline that every other scheduler is compared with. Planned, not
 * actual, arrival: a driver that falls behind must not change who was first.
 *
 * The live requests are kept sorted, so ranking is one copy. A preempted request keeps
 * its place in the line.
 *
 * Memory pressure takes from the end of the line: the victim is the latest arrived
 * running request, since it has the least work to lose and everyone before it keeps the
 * order. A request that runs alone is never named: giving its room back to itself would
 * go on for ever. */
#include <string.h>

#include <lathe/scheduler.h>

struct fcfs {
    const struct lathe_host *host;
    uint32_t capacity, count;
    const struct lathe_request **line; /* live, first come first; (capacity) */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct fcfs *f = lathe_alloc(host, sizeof *f);
    (void)config;
    if (!f)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler fcfs: no memory for %zu bytes", sizeof *f);
    f->host = host;
    *self = f;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct fcfs *f = self;
    if (!f)
        return;
    lathe_free(f->host, f->line);
    lathe_free(f->host, f);
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct fcfs *f = self;
    if (f->line)
        return lathe_fail(err, LATHE_ESTATE, "scheduler fcfs: bound twice; bind once, before the first admit");
    f->line = lathe_alloc_array(f->host, limits->max_requests, sizeof *f->line);
    if (!f->line)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler fcfs: no memory for a line of %u requests",
                          limits->max_requests);
    f->capacity = limits->max_requests;
    return LATHE_OK;
}

static int before(const struct lathe_request *a, const struct lathe_request *b)
{
    return a->planned_ns != b->planned_ns ? a->planned_ns < b->planned_ns : a->id < b->id;
}

/* The first place in the line whose request doesn't come before `req`. */
static uint32_t place(const struct fcfs *f, const struct lathe_request *req)
{
    uint32_t low = 0, high = f->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (before(f->line[middle], req))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct fcfs *f = self;
    uint32_t at = place(f, req);
    if (at < f->count && f->line[at] == req)
        return LATHE_OK; /* already in the line */
    if (f->count == f->capacity)
        return lathe_fail(err, LATHE_EFULL, "scheduler fcfs: %u requests are live, the most it was bound for; "
                          "try again after a step", f->capacity);
    memmove(f->line + at + 1, f->line + at, (f->count - at) * sizeof *f->line);
    f->line[at] = req;
    f->count++;
    return LATHE_OK;
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct fcfs *f = self;
    uint32_t n = f->count < ranking->capacity ? f->count : ranking->capacity;
    (void)view, (void)err;
    if (n)
        memcpy(ranking->requests, f->line, n * sizeof *f->line);
    ranking->count = n;
    ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX;
    return LATHE_OK;
}

static const struct lathe_request *victim(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy)
{
    struct fcfs *f = self;
    const struct lathe_request *last = NULL;
    uint32_t running = 0;
    (void)view;
    for (uint32_t i = 0; i < f->count; i++) {
        if (f->line[i]->state == LATHE_REQUEST_RUNNING) {
            last = f->line[i];
            running++;
        }
    }
    return last == needy && running == 1 ? NULL : last;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct fcfs *f = self;
    uint32_t at = place(f, req);
    if (at == f->count || f->line[at] != req)
        return;
    f->count--;
    memmove(f->line + at, f->line + at + 1, (f->count - at) * sizeof *f->line);
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    struct fcfs *f = self;
    return snprintf(text, capacity, "fcfs: %u of %u in the line, planned at %.3f ms", place(f, req) + 1, f->count,
                    (double)req->planned_ns * 1e-6);
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
    .explain = explain,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_SCHEDULER,
    .concurrency = LATHE_SERIAL,
    .name = "fcfs",
    .version = "1.0.0",
    .summary = "first come, first served",
    .api = &api,
};

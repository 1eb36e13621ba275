/* SPDX-License-Identifier: MIT */
/* First come, first served.
 *
 * Requests run in the order in which they were planned to arrive (then by id), whatever
 * their length: the baseline that every other scheduler is compared with. Planned, not
 * actual, arrival: a driver that falls behind must not change who was first. Whoever runs
 * already goes on, in the order of being let in. A preempted request keeps its place in the line.
 *
 * Memory pressure takes from the end of the line: the victim is the running request
 * that was let in last, since it has the least work to lose and everyone before it keeps the
 * order. A request that runs alone is never named (lineup_victim says why).
 *
 * Promises: never idle, nobody starves, nobody is preempted for another. It is bad where
 * lengths differ much: a short request waits for every long one before it. */
#include <policy/lineup.h>

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    (void)self;
    return (struct order_key){ running ? req->admitted_ns : 0, 0 }; /* equal keys go by planned arrival */
}

static const struct lineup_rules rules = { .name = "fcfs", .key = key };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    void *lineup = lineup_create(host, &rules, sizeof(struct lineup), err);
    (void)config;
    if (!lineup)
        return LATHE_ENOMEM;
    *self = lineup;
    return LATHE_OK;
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    int length = lineup_explain(self, req, text, capacity);
    return lineup_explain_more(text, capacity, length, ", planned at %.3f ms", (double)req->planned_ns * 1e-6);
}

static uint32_t promises(void *self)
{
    (void)self;
    return LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_STARVATION | LATHE_PROMISE_NO_PREEMPTION;
}

static const struct lathe_scheduler_api api = {
    .size = sizeof api,
    .abi = LATHE_SCHEDULER_ABI,
    .create = create,
    .destroy = lineup_destroy,
    .bind = lineup_bind,
    .admit = lineup_admit,
    .rank = lineup_rank,
    .victim = lineup_victim,
    .progress = lineup_progress,
    .retire = lineup_retire,
    .explain = explain,
    .promises = promises,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_SCHEDULER,
    .concurrency = LATHE_SERIAL,
    .name = "fcfs",
    .version = "1.1.0",
    .summary = "first come, first served",
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* Priority classes: the larger req->priority goes first, first come first served in a class.
 *
 *   aging_s      each such many seconds since its arrival raise a request by one level; 0: never
 *   preemptive   a running request may be overtaken by one of a higher class
 *   preempt      of one that is overtaken: `keep`, it holds its KV; `recompute`, it loses it when
 *                it falls outside of what one batch holds
 *
 * Everybody ages alike, running or waiting, so two requests never change places: the level is
 * priority + (now − planned) / aging, and `now` is the same for all. Nobody who runs is
 * overtaken by one that merely waited longer, only by a newcomer of so much higher a class.
 *
 * Promises: never idle; with aging_s nobody starves; unless preemptive, nobody is preempted
 * for another. Without aging the low classes starve when the high ones fill the machine. */
#include <policy/lineup.h>

enum { PREEMPT_KEEP, PREEMPT_RECOMPUTE };
enum { OPT_AGING, OPT_PREEMPTIVE, OPT_PREEMPT, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "aging_s", LATHE_OPTION_NUMBER, "0", 0, 1e6, "s", NULL,
      "Each such many seconds since its arrival raise a request by one level; 0: never." },
    { "preemptive", LATHE_OPTION_BOOLEAN, "false", 0, 0, "", NULL,
      "A running request may be overtaken by one of a higher level." },
    { "preempt", LATHE_OPTION_CHOICE, "keep", 0, 0, "", "keep|recompute",
      "A running request that is overtaken keeps its KV, or gives it back and is computed again." },
};

struct priority {
    struct lineup lineup;
    double aging_ns;
};

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    const struct priority *p = self;
    (void)running;
    if (p->aging_ns > 0.0)
        return (struct order_key){ order_number((double)req->planned_ns / p->aging_ns - req->priority), 0 };
    return (struct order_key){ -(int64_t)req->priority, 0 };
}

static const struct lineup_rules rules = { .name = "priority", .key = key };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct priority *p = lineup_create(host, &rules, sizeof *p, err);
    if (!p)
        return LATHE_ENOMEM;
    p->aging_ns = config->values[OPT_AGING].number * 1e9;
    p->lineup.merged = config->values[OPT_PREEMPTIVE].integer != 0;
    p->lineup.recompute = p->lineup.merged && config->values[OPT_PREEMPT].integer == PREEMPT_RECOMPUTE;
    *self = p;
    return LATHE_OK;
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct priority *p = self;
    int length = lineup_explain(self, req, text, capacity);
    length = lineup_explain_more(text, capacity, length, ", priority %d", req->priority);
    if (p->aging_ns > 0.0)
        length = lineup_explain_more(text, capacity, length, ", a level more each %g s", p->aging_ns * 1e-9);
    return length;
}

static uint32_t promises(void *self)
{
    const struct priority *p = self;
    return LATHE_PROMISE_WORK_CONSERVING | (p->aging_ns > 0.0 ? LATHE_PROMISE_NO_STARVATION : 0) |
           (p->lineup.merged ? 0 : LATHE_PROMISE_NO_PREEMPTION);
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
    .name = "priority",
    .version = "1.0.0",
    .summary = "priority classes, with aging and preemption by choice",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

/* SPDX-License-Identifier: MIT */
/* Earliest deadline first.
 *
 * A request is due at its own deadline if it has one, whatever it has produced; else at that of
 * its next token: before the first one planned + slo_ttft, then slo_tpot for each token after the
 * first (target = token). With target = request it is due when the last token would be:
 * planned + slo_ttft + slo_tpot · predicted (or maximal) output. No SLO, no deadline: last, by
 * arrival.
 *
 * Where all deadlines can be met EDF meets them (Liu & Layland 1973, on one preemptible
 * processor). Where they can't, serving the most overdue first makes the next ones late too; so
 * `late` says where those past their due time stand:
 *
 *     first         as EDF has it           overdue  on time  none
 *     last          behind who can be helped         on time  overdue  none
 *     drop-to-end   behind all                       on time  none  overdue
 *
 * Promises: never idle; unless preemptive, nobody is preempted for another. Whoever has no
 * deadline starves behind those who do. */
#include <policy/lineup.h>

enum { TARGET_TOKEN, TARGET_REQUEST };
enum { LATE_FIRST, LATE_LAST, LATE_DROP };
enum { OPT_TARGET, OPT_LATE, OPT_PREEMPTIVE, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "target", LATHE_OPTION_CHOICE, "token", 0, 0, "", "token|request",
      "Without a deadline of its own a request is due with its next token's SLO, or with its last one's." },
    { "late", LATHE_OPTION_CHOICE, "first", 0, 0, "", "first|last|drop-to-end",
      "Requests past their due time go first, behind those on time, or behind all." },
    { "preemptive", LATHE_OPTION_BOOLEAN, "true", 0, 0, "", NULL,
      "A running request may be overtaken by one that is due sooner." },
};

/* The major key. */
enum { ON_TIME, OVERDUE, NO_DEADLINE, DROPPED };

struct edf {
    struct lineup lineup;
    int target, late;
    int64_t now_ns;
};

static int64_t after(int64_t from_ns, int64_t each_ns, int64_t count)
{
    int64_t all, due;
    return __builtin_mul_overflow(each_ns, count, &all) || __builtin_add_overflow(from_ns, all, &due) ? INT64_MAX : due;
}

/* INT64_MAX: never. */
static int64_t due_ns(const struct edf *e, const struct lathe_request *req)
{
    int64_t output = req->output_tokens;
    if (req->deadline_ns != INT64_MAX)
        return req->deadline_ns;
    if (e->target == TARGET_REQUEST) {
        output = req->predicted_output_tokens ? req->predicted_output_tokens : req->max_output_tokens;
        return req->slo_ttft_ns || req->slo_tpot_ns
                   ? after(after(req->planned_ns, req->slo_ttft_ns, 1), req->slo_tpot_ns, output)
                   : INT64_MAX;
    }
    if (output == 0)
        return req->slo_ttft_ns ? after(req->planned_ns, req->slo_ttft_ns, 1) : INT64_MAX;
    return req->slo_tpot_ns ? after(req->first_token_ns, req->slo_tpot_ns, output) : INT64_MAX;
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    const struct edf *e = self;
    int64_t due = due_ns(e, req);
    (void)running;
    if (due == INT64_MAX)
        return (struct order_key){ NO_DEADLINE, 0 };
    if (e->late == LATE_FIRST || due >= e->now_ns)
        return (struct order_key){ ON_TIME, due };
    return (struct order_key){ e->late == LATE_LAST ? OVERDUE : DROPPED, due };
}

static const struct lineup_rules rules = { .name = "edf", .key = key };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct edf *e = lineup_create(host, &rules, sizeof *e, err);
    if (!e)
        return LATHE_ENOMEM;
    e->target = (int)config->values[OPT_TARGET].integer;
    e->late = (int)config->values[OPT_LATE].integer;
    e->lineup.merged = config->values[OPT_PREEMPTIVE].integer != 0;
    *self = e;
    return LATHE_OK;
}

/* Who waits is due when it was; of these, whoever has become overdue since the last ranking stands
 * in front. */
static void move_the_late(struct edf *e)
{
    struct order *o = &e->lineup.waiting;
    for (uint32_t i = order_first(o), next; i != order_end(o); i = next) {
        if (o->places[i].key.major != ON_TIME || o->places[i].key.minor >= e->now_ns)
            return;
        next = order_next(o, i);
        lineup_rekey(&e->lineup, o->links[i].req);
    }
}

/* Each token that came makes the next one due later. The last goes first, so that those that move
 * together find their new places free and need no search. */
static void move_the_served(struct edf *e)
{
    struct order *o = &e->lineup.running;
    for (uint32_t i = order_last(o), prev; i != order_end(o); i = prev) {
        prev = order_prev(o, i);
        order_update(o, i, key(e, o->links[i].req, 1));
    }
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct edf *e = self;
    e->now_ns = view->now_ns;
    if (e->late != LATE_FIRST)
        move_the_late(e);
    move_the_served(e);
    return lineup_rank(self, view, ranking, err);
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct edf *e = self;
    int length = lineup_explain(self, req, text, capacity);
    int64_t due = due_ns(e, req);
    if (due == INT64_MAX)
        return lineup_explain_more(text, capacity, length, ", without a deadline");
    return lineup_explain_more(text, capacity, length, ", due at %.3f ms%s", (double)due * 1e-6,
                               due < e->now_ns ? ", overdue" : "");
}

static uint32_t promises(void *self)
{
    const struct lineup *l = self;
    return LATHE_PROMISE_WORK_CONSERVING | (l->merged ? 0 : LATHE_PROMISE_NO_PREEMPTION);
}

static const struct lathe_scheduler_api api = {
    .size = sizeof api,
    .abi = LATHE_SCHEDULER_ABI,
    .create = create,
    .destroy = lineup_destroy,
    .bind = lineup_bind,
    .admit = lineup_admit,
    .rank = rank,
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
    .name = "edf",
    .version = "1.0.0",
    .summary = "earliest deadline first, from deadlines or SLOs",
    .citation = "@article{liu1973edf,\n"
                "  title = {Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment},\n"
                "  author = {Liu, C. L. and Layland, James W.},\n"
                "  journal = {Journal of the ACM},\n"
                "  volume = {20},\n"
                "  number = {1},\n"
                "  pages = {46--61},\n"
                "  year = {1973}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

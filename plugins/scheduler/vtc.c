/* SPDX-License-Identifier: MIT */
/* Virtual token counter: fair shares among tenants (Sheng et al. 2024).
 *
 * A counter for each tenant adds up what it got: w_p for a prompt token, w_q for an output token,
 * divided by its weight. The next place goes to the tenant with the smallest counter, within a
 * tenant first come first served. Nothing is reserved: who is alone gets all.
 *
 *     counters  A 120  B 80   →  B's first (prompt 60) → B 140 → A's first → …
 *
 * A tenant that comes back from having nobody waiting is lifted to the smallest counter of those
 * who do wait (if none do, to that of the tenant that waited last), so that idleness isn't saved
 * up. Then two tenants that both have requests waiting all along never differ by more than
 * 2 · max(w_p · L_input, w_q · M) of weighted service, L_input the longest prompt and M the tokens
 * that a batch can hold.
 *
 *   charge_cached    prompt tokens that the KV cache had already count too
 *   preempt_margin   0: whoever runs goes on. Else a running request is overtaken by those who
 *                    wait while its tenant's counter is larger by more than this; it keeps its KV
 *
 * What is computed again after a preemption is not charged again. Tenants' numbers are below 256;
 * should there be more, those that share their lowest byte share a counter.
 *
 * Promises: never idle, nobody starves, with preempt_margin 0 nobody is preempted for another.
 * It is bad for those who look at latency alone: the one with a short queue waits no less. */
#include <math.h>

#include <policy/groups.h>
#include <policy/lineup.h>

enum { TENANTS = 256 };
enum { OPT_W_P, OPT_W_Q, OPT_CHARGE_CACHED, OPT_PREEMPT_MARGIN, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "w_p", LATHE_OPTION_NUMBER, "1", 0, 1e6, "", NULL, "What a prompt token costs." },
    { "w_q", LATHE_OPTION_NUMBER, "2", 0, 1e6, "", NULL, "What an output token costs." },
    { "charge_cached", LATHE_OPTION_BOOLEAN, "false", 0, 0, "", NULL,
      "Prompt tokens that the KV cache had already are charged like computed ones." },
    { "preempt_margin", LATHE_OPTION_NUMBER, "0", 0, 1e12, "cost", NULL,
      "A running request of a tenant whose counter is so much larger is overtaken; 0: never." },
};

struct note {
    uint32_t charged; /* positions of the prompt */
    double to_come;   /* what the rest of the prompt will cost */
};

struct vtc {
    struct lineup lineup;
    struct groups tenants;
    double w_p, w_q, margin;
    int charge_cached;
    uint32_t last;           /* the tenant that left those who wait last */
    double counter[TENANTS]; /* weighted cost so far */
    double ahead[TENANTS];   /* while a ranking is made: the counters, as if those ranked were served */
};

static uint32_t tenant_of(const struct lathe_request *req)
{
    return req->tenant % TENANTS;
}

/* What `cost` is to its tenant. */
static double weighted(const struct lathe_request *req, double cost)
{
    return req->weight == 0 || req->weight == 1000 ? cost : cost * 1000.0 / req->weight;
}

static struct note *note_of(const struct vtc *v, uint32_t index)
{
    return lineup_note(&v->lineup, index);
}

static void charged_up_to(const struct vtc *v, const struct lathe_request *req, uint32_t positions)
{
    uint32_t left = req->prompt_tokens > positions ? req->prompt_tokens - positions : 0;
    *note_of(v, req->index) = (struct note){ .charged = positions, .to_come = weighted(req, v->w_p * left) };
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    (void)self;
    return (struct order_key){ running ? req->admitted_ns : tenant_of(req), 0 };
}

static void waits(void *self, const struct lathe_request *req, int joins)
{
    struct vtc *v = self;
    if (joins) {
        groups_join(&v->tenants, req);
    } else {
        v->last = tenant_of(req);
        groups_leave(&v->tenants, req);
    }
}

static const struct lineup_rules rules = {
    .name = "vtc", .key = key, .waits = waits, .note_bytes = sizeof(struct note),
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct vtc *v = lineup_create(host, &rules, sizeof *v, err);
    if (!v)
        return LATHE_ENOMEM;
    v->w_p = config->values[OPT_W_P].number;
    v->w_q = config->values[OPT_W_Q].number;
    v->charge_cached = config->values[OPT_CHARGE_CACHED].integer != 0;
    v->margin = config->values[OPT_PREEMPT_MARGIN].number;
    v->last = TENANTS;
    *self = v;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct vtc *v = self;
    if (v)
        groups_close(&v->tenants);
    lineup_destroy(self);
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct vtc *v = self;
    int status = lineup_bind(self, limits, err);
    if (status != LATHE_OK)
        return status;
    if (groups_open(&v->tenants, v->lineup.host, &v->lineup.waiting, TENANTS) != LATHE_OK)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler vtc: no memory for %d tenants", TENANTS);
    return LATHE_OK;
}

/* The smallest counter of those who wait; without any, HUGE_VAL. */
static double smallest(const struct vtc *v)
{
    double least = HUGE_VAL;
    for (uint32_t i = 0; i < v->tenants.active; i++)
        if (v->counter[v->tenants.members[i]] < least)
            least = v->counter[v->tenants.members[i]];
    return least;
}

/* The lift comes before the request waits itself. */
static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct vtc *v = self;
    uint32_t tenant = tenant_of(req);
    int status;
    if (lineup_knows(&v->lineup, req))
        return LATHE_OK;
    if ((status = lineup_has_room(&v->lineup, req, err)) != LATHE_OK)
        return status;
    charged_up_to(v, req, req->computed_tokens);
    if (req->state != LATHE_REQUEST_RUNNING && !groups_first(&v->tenants, tenant)) {
        double least = v->tenants.active ? smallest(v) : v->last < TENANTS ? v->counter[v->last] : 0.0;
        v->counter[tenant] = fmax(v->counter[tenant], least);
    }
    return lineup_admit(self, req, err);
}

/* Prompt positions that weren't charged yet; and where everything known is in KV now, the token
 * that comes of it. */
static void progress(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct vtc *v = self;
    double cost;
    if (!lineup_knows(&v->lineup, req))
        return;
    lineup_progress(self, req, tokens);
    uint32_t from = note_of(v, req->index)->charged;
    uint32_t to = req->computed_tokens < req->prompt_tokens ? req->computed_tokens : req->prompt_tokens;
    if (!v->charge_cached && req->computed_tokens - tokens > from)
        from = req->computed_tokens - tokens;
    cost = lathe_request_pending(req) == 0 ? v->w_q : 0.0;
    if (to > from) {
        cost += v->w_p * (to - from);
        charged_up_to(v, req, to);
    }
    v->counter[tenant_of(req)] += weighted(req, cost);
}

static double score(void *self, uint32_t tenant, int64_t planned_ns)
{
    const struct vtc *v = self;
    (void)planned_ns;
    return v->ahead[tenant];
}

/* Up to `left` of those who wait, while the smallest counter isn't above `most`. */
static uint32_t rank_waiting(struct vtc *v, struct lathe_ranking *ranking, uint32_t left, double most)
{
    const struct groups_entry *next;
    for (; left > 0 && (next = groups_next(&v->tenants)) && next->score <= most; left--) {
        lineup_put(ranking, v->lineup.waiting.links[next->first].req);
        v->ahead[next->group] += note_of(v, next->first)->to_come;
        groups_pass(&v->tenants, score, v);
    }
    return left;
}

static void rank_running(const struct vtc *v, struct lathe_ranking *ranking, double threshold, int above)
{
    const struct order *r = &v->lineup.running;
    for (uint32_t i = order_first(r); i != order_end(r); i = order_next(r, i))
        if ((v->counter[tenant_of(r->links[i].req)] > threshold) == above)
            lineup_put(ranking, r->links[i].req);
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct vtc *v = self;
    (void)err;
    lineup_settle(&v->lineup, view);
    lineup_clear(ranking);
    for (uint32_t i = 0; i < v->tenants.active; i++)
        v->ahead[v->tenants.members[i]] = v->counter[v->tenants.members[i]];
    groups_begin(&v->tenants, score, v);
    if (v->margin == 0.0) {
        lineup_rank_running(&v->lineup, ranking);
        rank_waiting(v, ranking, lineup_wanted(view), HUGE_VAL);
    } else {
        double threshold = smallest(v) + v->margin;
        rank_running(v, ranking, threshold, 0);
        uint32_t left = rank_waiting(v, ranking, lineup_wanted(view), threshold);
        rank_running(v, ranking, threshold, 1);
        rank_waiting(v, ranking, left, HUGE_VAL);
    }
    return LATHE_OK;
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct vtc *v = self;
    double least = smallest(v);
    const char *doing = order_contains(&v->lineup.waiting, req) ? "waits" : "runs";
    if (!lineup_knows(&v->lineup, req))
        return snprintf(text, capacity, "vtc: not admitted");
    if (least == HUGE_VAL)
        return snprintf(text, capacity, "vtc: %s, tenant %u's counter is %.1f, nobody waits", doing, tenant_of(req),
                        v->counter[tenant_of(req)]);
    return snprintf(text, capacity, "vtc: %s, tenant %u's counter is %.1f, the smallest of those who wait %.1f", doing,
                    tenant_of(req), v->counter[tenant_of(req)], least);
}

static uint32_t promises(void *self)
{
    const struct vtc *v = self;
    return LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_STARVATION |
           (v->margin == 0.0 ? LATHE_PROMISE_NO_PREEMPTION : 0);
}

static const struct lathe_scheduler_api api = {
    .size = sizeof api,
    .abi = LATHE_SCHEDULER_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
    .admit = admit,
    .rank = rank,
    .victim = lineup_victim,
    .progress = progress,
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
    .name = "vtc",
    .version = "1.0.0",
    .summary = "virtual token counter: fair shares among tenants",
    .citation = "@inproceedings{sheng2024vtc,\n"
                "  title = {Fairness in Serving Large Language Models},\n"
                "  author = {Sheng, Ying and Cao, Shiyi and Li, Dacheng and Zhu, Banghua and Li, Zhuohan and Zhuo, "
                "Danyang and Gonzalez, Joseph E. and Stoica, Ion},\n"
                "  booktitle = {18th USENIX Symposium on Operating Systems Design and Implementation (OSDI 24)},\n"
                "  pages = {965--988},\n"
                "  year = {2024}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

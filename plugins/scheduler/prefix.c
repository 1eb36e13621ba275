/* SPDX-License-Identifier: MIT */
/* Longest cached prefix first (SGLang's cache-aware order).
 *
 * Of those that wait, the one of whose prompt most is in the KV cache now: it is served while
 * the cache has it, and requests that share a prefix follow each other. Whoever runs goes on.
 *
 *     waiting, first come first   a b c d e │ f g …     window 5
 *     cached tokens               0 96 0 640 96
 *     ranked                      d b e a c │ f g …
 *
 * A look into the cache costs, so only the first `window` of those that wait are compared, and of
 * these no more than `looks` are looked at in one step: the newest comers first, then whose look
 * is oldest. In between the number of the last look counts; the cache may have changed.
 *
 *   aging_s   who has waited so long goes first, by arrival; 0: never
 *
 * Promises: never idle, nobody is preempted for another; with aging_s nobody starves. It is bad
 * where no prefixes are shared: then it is fcfs, with looks. It can't do without a KV cache that
 * tells what it holds, and refuses to be bound without.
 *
 * Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", NeurIPS 2024. */
#include <policy/lineup.h>

enum { OPT_WINDOW, OPT_LOOKS, OPT_AGING, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "window", LATHE_OPTION_INTEGER, "64", 1, 1e5, "requests", NULL,
      "How many of those that wait are compared, in order of arrival; the rest stay behind them." },
    { "looks", LATHE_OPTION_INTEGER, "16", 1, 1e5, "requests", NULL,
      "How many requests are looked up in the cache in one step." },
    { "aging_s", LATHE_OPTION_NUMBER, "30", 0, 1e6, "s", NULL,
      "A request that has waited so long goes before all others that wait; 0: never." },
};

struct note {
    uint64_t round; /* of looks, when it was last looked at; 0: never */
    uint32_t cached;
};

struct candidate {
    const struct lathe_request *req;
    uint32_t cached;
};

struct prefix {
    struct lineup lineup;
    int64_t aging_ns; /* INT64_MAX: never */
    uint32_t window, looks;
    uint64_t round, step;
    uint32_t left;                /* looks of this step */
    struct candidate *candidates; /* (window) */
};

static struct note *note_of(const struct prefix *p, const struct lathe_request *req)
{
    return lineup_note(&p->lineup, req->index);
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    (void)self;
    return (struct order_key){ running ? req->admitted_ns : 0, 0 };
}

static const struct lineup_rules rules = { .name = "prefix", .key = key, .note_bytes = sizeof(struct note) };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct prefix *p = lineup_create(host, &rules, sizeof *p, err);
    double aging_s = config->values[OPT_AGING].number;
    if (!p)
        return LATHE_ENOMEM;
    p->window = (uint32_t)config->values[OPT_WINDOW].integer;
    p->looks = (uint32_t)config->values[OPT_LOOKS].integer;
    p->aging_ns = aging_s > 0.0 ? (int64_t)(aging_s * 1e9) : INT64_MAX;
    p->round = 1;
    p->step = UINT64_MAX;
    *self = p;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct prefix *p = self;
    if (p)
        lathe_free(p->lineup.host, p->candidates);
    lineup_destroy(self);
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct prefix *p = self;
    int status;
    if (!limits->cached_prefix)
        return lathe_fail(err, LATHE_EUNSUPPORTED, "scheduler prefix: this kvcache can't tell which prefixes it holds; "
                          "take one that shares prefixes, or another scheduler");
    if ((status = lineup_bind(self, limits, err)) != LATHE_OK)
        return status;
    p->candidates = lathe_alloc_array(p->lineup.host, p->window, sizeof *p->candidates);
    if (!p->candidates)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler prefix: no memory for a window of %u requests", p->window);
    return LATHE_OK;
}

static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct prefix *p = self;
    int status;
    if (lineup_knows(&p->lineup, req))
        return LATHE_OK;
    if ((status = lineup_has_room(&p->lineup, req, err)) != LATHE_OK)
        return status;
    *note_of(p, req) = (struct note){ 0 };
    return lineup_admit(self, req, err);
}

/* Look at those of the window that weren't in this round (`fresh`: never), as far as the step's
 * budget goes. */
static void look(struct prefix *p, const struct lathe_step_view *view, uint32_t count, int fresh)
{
    for (uint32_t i = 0; i < count && p->left > 0; i++) {
        struct note *n = note_of(p, p->candidates[i].req);
        if (fresh ? n->round != 0 : n->round == p->round)
            continue;
        n->cached = view->cached_prefix(view->engine, p->candidates[i].req);
        n->round = p->round;
        p->left--;
    }
}

/* A round ends when all of the window were looked at once; then the first of it come again. */
static void compare(struct prefix *p, const struct lathe_step_view *view, uint32_t count)
{
    if (p->step != view->step) {
        p->step = view->step;
        p->left = !view->cached_prefix ? 0 : p->looks < count ? p->looks : count;
    }
    look(p, view, count, 1);
    look(p, view, count, 0);
    if (p->left > 0) {
        p->round++;
        look(p, view, count, 0);
    }
    for (uint32_t i = 0; i < count; i++)
        p->candidates[i].cached = note_of(p, p->candidates[i].req)->cached;
}

/* Longest first; the order of arrival stays among equals. */
static void sort(struct candidate *c, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct candidate moving = c[i];
        uint32_t j = i;
        for (; j > 0 && c[j - 1].cached < moving.cached; j--)
            c[j] = c[j - 1];
        c[j] = moving;
    }
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct prefix *p = self;
    const struct order *w = &p->lineup.waiting;
    uint32_t at, count = 0, left = lineup_wanted(view);
    (void)err;
    lineup_settle(&p->lineup, view);
    lineup_clear(ranking);
    lineup_rank_running(&p->lineup, ranking);
    for (at = order_first(w); at != order_end(w) && left > 0; at = order_next(w, at), left--) {
        if (view->now_ns - w->places[at].planned_ns < p->aging_ns)
            break;
        lineup_put(ranking, w->links[at].req);
    }
    if (left == 0)
        return LATHE_OK;
    for (; at != order_end(w) && count < p->window; at = order_next(w, at))
        p->candidates[count++] = (struct candidate){ .req = w->links[at].req };
    compare(p, view, count);
    sort(p->candidates, count);
    for (uint32_t i = 0; i < count && left > 0; i++, left--)
        lineup_put(ranking, p->candidates[i].req);
    for (; at != order_end(w) && left > 0; at = order_next(w, at), left--)
        lineup_put(ranking, w->links[at].req);
    return LATHE_OK;
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct prefix *p = self;
    int length = lineup_explain(&p->lineup, req, text, capacity);
    if (!order_contains(&p->lineup.waiting, req))
        return length;
    const struct note *n = note_of(p, req);
    if (!n->round)
        return lineup_explain_more(text, capacity, length, " by arrival, not looked up in the cache yet");
    return lineup_explain_more(text, capacity, length, " by arrival, %u of %u prompt tokens were in the cache",
                               n->cached, req->prompt_tokens);
}

static uint32_t promises(void *self)
{
    const struct prefix *p = self;
    return LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_PREEMPTION |
           (p->aging_ns != INT64_MAX ? LATHE_PROMISE_NO_STARVATION : 0);
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
    .name = "prefix",
    .version = "1.0.0",
    .summary = "longest cached prefix first",
    .citation = "@inproceedings{zheng2024sglang,\n"
                "  title = {{SGLang}: Efficient Execution of Structured Language Model Programs},\n"
                "  author = {Zheng, Lianmin and Yin, Liangsheng and Xie, Zhiqiang and Sun, Chuyue and Huang, Jeff and "
                "Yu, Cody Hao and Cao, Shiyi and Kozyrakis, Christos and Stoica, Ion and Gonzalez, Joseph E. and "
                "Barrett, Clark and Sheng, Ying},\n"
                "  booktitle = {Advances in Neural Information Processing Systems 37 (NeurIPS 2024)},\n"
                "  year = {2024}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

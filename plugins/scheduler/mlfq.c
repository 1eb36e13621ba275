/* SPDX-License-Identifier: MIT */
/* Skip-join multi-level feedback queue (FastServe).
 *
 * Short answers first without knowing which are short: each request begins high and sinks as it
 * uses up what its level grants. Plain MLFQ would put every newcomer on top, where a long
 * prompt's first step alone uses the quantum up; so a newcomer skips the levels whose quantum
 * its prompt exceeds.
 *
 *     quantum 32, factor 4, four levels     prompt_weight 0.1
 *     level 0    32    prompts to 320       ┐ sinks when
 *     level 1   128    prompts to 1280      │ the quantum
 *     level 2   512    prompts to 5120      ▼ is used
 *     level 3    –     longer, and whoever has used all
 *
 * Used is what progress() tells: an output token counts 1, a prompt token prompt_weight, since a
 * prefill computes many at once; positions that are computed again after a preemption count
 * nothing. In a level it is first come, first served, by when the level was joined. A request
 * that got nothing for starve_s goes back to the top with a fresh quantum.
 *
 * Preemption is by rank: who is overtaken keeps its KV (`keep`), or loses it when it falls
 * outside of what one batch holds (`recompute`; FastServe swaps ahead of time instead).
 *
 * Promises: never idle; with starve_s nobody starves. It is bad where all answers are long:
 * then it is a round robin that holds everyone's KV at once.
 *
 * Wu et al., "Fast Distributed Inference Serving for Large Language Models", 2023. */
#include <policy/lineup.h>

enum { PREEMPT_KEEP, PREEMPT_RECOMPUTE };
enum { OPT_LEVELS, OPT_QUANTUM, OPT_FACTOR, OPT_PROMPT_WEIGHT, OPT_STARVE, OPT_PREEMPT, OPT_COUNT };
enum { MAX_LEVELS = 16 };

static const struct lathe_option options[OPT_COUNT] = {
    { "levels", LATHE_OPTION_INTEGER, "4", 1, MAX_LEVELS, "", NULL, "How many levels there are." },
    { "quantum", LATHE_OPTION_NUMBER, "32", 1, 1e9, "tokens", NULL, "What the highest level grants." },
    { "factor", LATHE_OPTION_NUMBER, "4", 1, 1024, "", NULL, "How many times as much each next level grants." },
    { "prompt_weight", LATHE_OPTION_NUMBER, "0.1", 0, 1e3, "", NULL,
      "What a prompt token uses of a quantum, where an output token uses 1." },
    { "starve_s", LATHE_OPTION_NUMBER, "10", 0, 1e6, "s", NULL,
      "A request that got nothing for so long goes back to the highest level; 0: never." },
    { "preempt", LATHE_OPTION_CHOICE, "keep", 0, 0, "", "keep|recompute",
      "A running request that is overtaken keeps its KV, or gives it back and is computed again." },
};

/* Of one request. Those that live are chained by when they were last served, longest ago first. */
struct note {
    int64_t joined;    /* its level: a number that grows */
    int64_t served_ns;
    double used;       /* of its level's quantum */
    uint32_t level;
    uint32_t positions; /* counted so far */
    uint32_t next, prev;
    const struct lathe_request *req;
};

struct mlfq {
    struct lineup lineup;
    uint32_t last; /* level */
    double quantum[MAX_LEVELS];
    double prompt_weight;
    int64_t starve_ns; /* INT64_MAX: never */
    int64_t now_ns, joins;
    uint32_t oldest, newest; /* of the chain; NONE: empty */
};

enum { NONE = UINT32_MAX };

static struct note *note_of(const struct mlfq *m, uint32_t index)
{
    return lineup_note(&m->lineup, index);
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    const struct note *n = note_of(self, req->index);
    (void)running;
    return (struct order_key){ n->level, n->joined };
}

static const struct lineup_rules rules = { .name = "mlfq", .key = key, .note_bytes = sizeof(struct note) };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct mlfq *m = lineup_create(host, &rules, sizeof *m, err);
    double starve_s = config->values[OPT_STARVE].number;
    if (!m)
        return LATHE_ENOMEM;
    m->last = (uint32_t)config->values[OPT_LEVELS].integer - 1;
    m->quantum[0] = config->values[OPT_QUANTUM].number;
    for (uint32_t i = 1; i <= m->last; i++)
        m->quantum[i] = m->quantum[i - 1] * config->values[OPT_FACTOR].number;
    m->prompt_weight = config->values[OPT_PROMPT_WEIGHT].number;
    m->starve_ns = starve_s > 0.0 ? (int64_t)(starve_s * 1e9) : INT64_MAX;
    m->lineup.merged = 1;
    m->lineup.recompute = config->values[OPT_PREEMPT].integer == PREEMPT_RECOMPUTE;
    m->oldest = m->newest = NONE;
    *self = m;
    return LATHE_OK;
}

static void join(struct mlfq *m, struct note *n, uint32_t level)
{
    n->level = level;
    n->used = 0.0;
    n->joined = ++m->joins;
}

static void chain(struct mlfq *m, uint32_t index)
{
    struct note *n = note_of(m, index);
    n->served_ns = m->now_ns;
    n->next = NONE;
    n->prev = m->newest;
    if (m->newest != NONE)
        note_of(m, m->newest)->next = index;
    else
        m->oldest = index;
    m->newest = index;
}

static void unchain(struct mlfq *m, uint32_t index)
{
    struct note *n = note_of(m, index);
    if (n->next != NONE)
        note_of(m, n->next)->prev = n->prev;
    else
        m->newest = n->prev;
    if (n->prev != NONE)
        note_of(m, n->prev)->next = n->next;
    else
        m->oldest = n->next;
}

/* Skip-join: the highest level that grants its prompt (and output, if it comes from another
 * scheduler). */
static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct mlfq *m = self;
    double cost = m->prompt_weight * req->prompt_tokens + req->output_tokens;
    int64_t now_ns = m->lineup.host->now_ns(m->lineup.host->context);
    uint32_t level = 0;
    int status;
    if (lineup_knows(&m->lineup, req))
        return LATHE_OK;
    if ((status = lineup_has_room(&m->lineup, req, err)) != LATHE_OK)
        return status;
    while (level < m->last && cost > m->quantum[level])
        level++;
    if (now_ns > m->now_ns)
        m->now_ns = now_ns;
    *note_of(m, req->index) = (struct note){ .req = req, .positions = req->computed_tokens };
    join(m, note_of(m, req->index), level);
    chain(m, req->index);
    return lineup_admit(self, req, err);
}

static void retire(void *self, const struct lathe_request *req)
{
    struct mlfq *m = self;
    if (lineup_knows(&m->lineup, req))
        unchain(m, req->index);
    lineup_retire(self, req);
}

static void progress(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct mlfq *m = self;
    struct note *n;
    if (!lineup_knows(&m->lineup, req))
        return;
    lineup_progress(self, req, tokens);
    n = note_of(m, req->index);
    unchain(m, req->index);
    chain(m, req->index);
    uint32_t from = req->computed_tokens - tokens > n->positions ? req->computed_tokens - tokens : n->positions;
    if (req->computed_tokens <= from)
        return;
    n->positions = req->computed_tokens;
    uint32_t prompt = from < req->prompt_tokens
                          ? (req->computed_tokens < req->prompt_tokens ? req->computed_tokens : req->prompt_tokens) - from
                          : 0;
    n->used += prompt * m->prompt_weight + (req->computed_tokens - from - prompt);
    if (n->level < m->last && n->used >= m->quantum[n->level]) {
        join(m, n, n->level + 1);
        lineup_rekey(&m->lineup, req);
    }
}

static void promote_the_starving(struct mlfq *m)
{
    while (m->oldest != NONE) {
        uint32_t index = m->oldest;
        struct note *n = note_of(m, index);
        if (m->now_ns - n->served_ns < m->starve_ns)
            return;
        unchain(m, index);
        chain(m, index);
        if (n->level > 0) { /* who is there already keeps its place */
            join(m, n, 0);
            lineup_rekey(&m->lineup, n->req);
        }
    }
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct mlfq *m = self;
    if (view->now_ns > m->now_ns)
        m->now_ns = view->now_ns;
    promote_the_starving(m);
    return lineup_rank(self, view, ranking, err);
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct mlfq *m = self;
    int length = lineup_explain(self, req, text, capacity);
    if (!lineup_knows(&m->lineup, req))
        return length;
    const struct note *n = note_of(m, req->index);
    if (n->level == m->last)
        return lineup_explain_more(text, capacity, length, ", in the lowest level, %u", n->level);
    return lineup_explain_more(text, capacity, length, ", in level %u, where it used %.1f of %.0f tokens", n->level,
                               n->used, m->quantum[n->level]);
}

static uint32_t promises(void *self)
{
    const struct mlfq *m = self;
    return LATHE_PROMISE_WORK_CONSERVING | (m->starve_ns != INT64_MAX ? LATHE_PROMISE_NO_STARVATION : 0);
}

static const struct lathe_scheduler_api api = {
    .size = sizeof api,
    .abi = LATHE_SCHEDULER_ABI,
    .create = create,
    .destroy = lineup_destroy,
    .bind = lineup_bind,
    .admit = admit,
    .rank = rank,
    .victim = lineup_victim,
    .progress = progress,
    .retire = retire,
    .explain = explain,
    .promises = promises,
};

extern const struct lathe_plugin lathe_plugin;
LATHE_EXPORT const struct lathe_plugin lathe_plugin = {
    .size = sizeof lathe_plugin,
    .abi = LATHE_PLUGIN_ABI,
    .kind = LATHE_KIND_SCHEDULER,
    .concurrency = LATHE_SERIAL,
    .name = "mlfq",
    .version = "1.0.0",
    .summary = "skip-join multi-level feedback queue: short answers first, without predictions",
    .citation = "@article{wu2023fastserve,\n"
                "  title = {Fast Distributed Inference Serving for Large Language Models},\n"
                "  author = {Wu, Bingyang and Zhong, Yinmin and Zhang, Zili and Liu, Shengyu and Liu, Fangyue and Sun, "
                "Yuanhang and Huang, Gang and Liu, Xuanzhe and Jin, Xin},\n"
                "  journal = {arXiv preprint arXiv:2305.05920},\n"
                "  year = {2023}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

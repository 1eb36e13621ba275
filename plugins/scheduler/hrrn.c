/* SPDX-License-Identifier: MIT */
/* Highest response ratio next.
 *
 * Of those that wait the one whose (waited + length) / length is largest: short ones go first,
 * but a long one gains as it waits, and a short one only sooner (Brinch Hansen 1971). Whoever
 * runs goes on. In which unit lengths are doesn't matter: the order is that of waited / length.
 *
 * The ratios cross as time goes, so no fixed key gives this order. Requests of equal length keep
 * theirs, first come first, so lengths (prompt + predicted output) are put into classes an eighth
 * of an octave wide and the first of each class is compared: a length is taken 4.5% too long or
 * short at most, much less than predictions are off by.
 *
 * Promises: never idle, nobody is preempted for another. Long ones end while the queue is
 * stable; under lasting overload, when the short ones' waiting grows too, they may not. It is
 * bad with bad predictions, though less so than sjf. */
#include <math.h>

#include <policy/groups.h>
#include <policy/lineup.h>

enum { KEY_TOTAL, KEY_OUTPUT };
enum { UNKNOWN_MAX, UNKNOWN_PROMPT };
enum { OPT_KEY, OPT_UNKNOWN, OPT_COUNT };
enum { AN_OCTAVE = 8, CLASSES = 34 * AN_OCTAVE }; /* lengths below 2³³ */

static const struct lathe_option options[OPT_COUNT] = {
    { "key", LATHE_OPTION_CHOICE, "total", 0, 0, "", "total|output",
      "What a length is: prompt and predicted output, or the output alone." },
    { "unknown", LATHE_OPTION_CHOICE, "max", 0, 0, "", "max|prompt",
      "A request without a predicted output counts with its maximal output, or with its prompt alone." },
};

struct hrrn {
    struct lineup lineup;
    struct groups classes;
    int key, unknown;
    int64_t now_ns;
    double per_token[CLASSES]; /* 1 / length, in the middle of the class */
};

/* In tokens, at least 1. */
static double length_of(const struct hrrn *h, const struct lathe_request *req)
{
    double prompt = req->prompt_tokens, output = req->predicted_output_tokens, length;
    if (output == 0.0 && h->unknown == UNKNOWN_PROMPT)
        return prompt > 1.0 ? prompt : 1.0;
    if (output == 0.0)
        output = req->max_output_tokens;
    length = h->key == KEY_OUTPUT ? output : prompt + output;
    return length > 1.0 ? length : 1.0;
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    if (running)
        return (struct order_key){ req->admitted_ns, 0 };
    return (struct order_key){ (int64_t)(AN_OCTAVE * log2(length_of(self, req))), 0 };
}

static void waits(void *self, const struct lathe_request *req, int joins)
{
    struct hrrn *h = self;
    (joins ? groups_join : groups_leave)(&h->classes, req);
}

static const struct lineup_rules rules = { .name = "hrrn", .key = key, .waits = waits };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct hrrn *h = lineup_create(host, &rules, sizeof *h, err);
    if (!h)
        return LATHE_ENOMEM;
    h->key = (int)config->values[OPT_KEY].integer;
    h->unknown = (int)config->values[OPT_UNKNOWN].integer;
    for (int i = 0; i < CLASSES; i++)
        h->per_token[i] = exp2(-(i + 0.5) / AN_OCTAVE);
    *self = h;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct hrrn *h = self;
    if (h)
        groups_close(&h->classes);
    lineup_destroy(self);
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct hrrn *h = self;
    int status = lineup_bind(self, limits, err);
    if (status != LATHE_OK)
        return status;
    if (groups_open(&h->classes, h->lineup.host, &h->lineup.waiting, CLASSES) != LATHE_OK)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler hrrn: no memory for %d classes of length", CLASSES);
    return LATHE_OK;
}

/* Minus waited / length. */
static double score(void *self, uint32_t class, int64_t planned_ns)
{
    const struct hrrn *h = self;
    return (double)(planned_ns - h->now_ns) * h->per_token[class];
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct hrrn *h = self;
    const struct groups_entry *next;
    (void)err;
    h->now_ns = view->now_ns;
    lineup_settle(&h->lineup, view);
    lineup_clear(ranking);
    lineup_rank_running(&h->lineup, ranking);
    groups_begin(&h->classes, score, h);
    for (uint32_t left = lineup_wanted(view); left > 0 && (next = groups_next(&h->classes)); left--) {
        lineup_put(ranking, h->lineup.waiting.links[next->first].req);
        groups_pass(&h->classes, score, h);
    }
    return LATHE_OK;
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct hrrn *h = self;
    double length = length_of(h, req), waited_s = (double)(h->now_ns - req->planned_ns) * 1e-9;
    if (!order_contains(&h->lineup.waiting, req))
        return lineup_explain(&h->lineup, req, text, capacity);
    return snprintf(text, capacity, "hrrn: waits, %.0f tokens long, %.3f s since its arrival, %.3g ms a token", length,
                    waited_s, waited_s / length * 1e3);
}

static uint32_t promises(void *self)
{
    (void)self;
    return LATHE_PROMISE_WORK_CONSERVING | LATHE_PROMISE_NO_PREEMPTION;
}

static const struct lathe_scheduler_api api = {
    .size = sizeof api,
    .abi = LATHE_SCHEDULER_ABI,
    .create = create,
    .destroy = destroy,
    .bind = bind_limits,
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
    .name = "hrrn",
    .version = "1.0.0",
    .summary = "highest response ratio next: short first, and long as they wait",
    .citation = "@inproceedings{brinchhansen1971hrrn,\n"
                "  title = {An Analysis of Response Ratio Scheduling},\n"
                "  author = {Brinch Hansen, Per},\n"
                "  booktitle = {Information Processing 71: Proceedings of the IFIP Congress 71},\n"
                "  year = {1971}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

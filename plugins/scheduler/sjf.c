/* SPDX-License-Identifier: MIT */
/* Shortest job first.
 *
 * A job's length is prompt + predicted output (or one of them: option `key`); the least
 * mean waiting time if lengths are known, and starvation of the long ones if short ones
 * keep coming. Three knobs:
 *
 *   unknown      where a request without a prediction stands: behind all others (`last`),
 *                or by its prompt alone (`prompt`)
 *   preemptive   false: running ones first, in the order in which they were let in, so
 *                that a short newcomer waits for a place. true: ranked by length alone; a
 *                long running one that is overtaken keeps its KV but may get no tokens
 *   aging_s      each such many seconds of waiting halve a job's length in the ranking,
 *                so that everyone's turn comes; 0: never
 *
 * Length is the whole job, not what remains of it: a job doesn't climb as it runs (that
 * is srpt). Ties go by planned arrival, then id.
 *
 * Aging costs nothing: length · 2^(−waited / aging) falls for all at the same rate, so its
 * order is that of log2(length) + planned / aging, which never changes. A job of unknown
 * length ages from the longest that was seen before it.
 *
 * Promises: never idle; with aging_s nobody starves; unless preemptive, nobody is preempted
 * for another. It is bad where predictions are, and to long jobs under load.
 *
 * Fu et al., "Efficient LLM Scheduling by Learning to Rank", NeurIPS 2024: the predicted
 * rank is enough for most of what SJF gains. */
#include <math.h>

#include <policy/lineup.h>

enum { KEY_TOTAL, KEY_OUTPUT, KEY_PROMPT };
enum { UNKNOWN_LAST, UNKNOWN_PROMPT };
enum { OPT_KEY, OPT_UNKNOWN, OPT_PREEMPTIVE, OPT_AGING, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "key", LATHE_OPTION_CHOICE, "total", 0, 0, "", "total|output|prompt",
      "What a job's length is: prompt and predicted output, or one of them." },
    { "unknown", LATHE_OPTION_CHOICE, "last", 0, 0, "", "last|prompt",
      "A request without a predicted output ranks last, or by its prompt." },
    { "preemptive", LATHE_OPTION_BOOLEAN, "false", 0, 0, "", NULL,
      "A running request may be overtaken by a shorter one." },
    { "aging_s", LATHE_OPTION_NUMBER, "0", 0, 1e6, "s", NULL,
      "Waiting this long halves a job's length in the ranking; 0: never." },
};

struct sjf {
    struct lineup lineup;
    int key, unknown;
    double aging_ns;
    double longest; /* tokens, of the known ones so far */
};

/* In tokens; HUGE_VAL: unknown. */
static double length_of(const struct sjf *s, const struct lathe_request *req)
{
    double prompt = req->prompt_tokens, output = req->predicted_output_tokens;
    if (s->key == KEY_PROMPT)
        return prompt;
    if (output == 0.0)
        return s->unknown == UNKNOWN_PROMPT ? prompt : HUGE_VAL;
    return s->key == KEY_OUTPUT ? output : prompt + output;
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    struct sjf *s = self;
    double length = length_of(s, req);
    if (running && !s->lineup.merged)
        return (struct order_key){ req->admitted_ns, order_number(length) };
    if (length != HUGE_VAL && length > s->longest)
        s->longest = length;
    if (s->aging_ns > 0.0) {
        double from = length == HUGE_VAL ? s->longest + 1.0 : length;
        return (struct order_key){ order_number(log2(from) + (double)req->planned_ns / s->aging_ns), 0 };
    }
    return (struct order_key){ order_number(length), 0 };
}

static const struct lineup_rules rules = { .name = "sjf", .key = key };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct sjf *s = lineup_create(host, &rules, sizeof *s, err);
    if (!s)
        return LATHE_ENOMEM;
    s->key = (int)config->values[OPT_KEY].integer;
    s->unknown = (int)config->values[OPT_UNKNOWN].integer;
    s->lineup.merged = config->values[OPT_PREEMPTIVE].integer != 0;
    s->aging_ns = config->values[OPT_AGING].number * 1e9;
    s->longest = 1.0;
    *self = s;
    return LATHE_OK;
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    const struct sjf *s = self;
    int length = lineup_explain(self, req, text, capacity);
    if (length_of(s, req) == HUGE_VAL)
        return lineup_explain_more(text, capacity, length, ", of unknown length");
    return lineup_explain_more(text, capacity, length, ", %.0f tokens long", length_of(s, req));
}

static uint32_t promises(void *self)
{
    const struct sjf *s = self;
    return LATHE_PROMISE_WORK_CONSERVING | (s->aging_ns > 0.0 ? LATHE_PROMISE_NO_STARVATION : 0) |
           (s->lineup.merged ? 0 : LATHE_PROMISE_NO_PREEMPTION);
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
    .name = "sjf",
    .version = "1.1.0",
    .summary = "shortest job first, by predicted length",
    .citation = "@inproceedings{fu2024rank,\n"
                "  title = {Efficient {LLM} Scheduling by Learning to Rank},\n"
                "  author = {Fu, Yichao and Zhu, Siqi and Su, Runlong and Qiao, Aurick and Stoica, Ion and Zhang, "
                "Hao},\n"
                "  booktitle = {Advances in Neural Information Processing Systems 37 (NeurIPS 2024)},\n"
                "  year = {2024}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

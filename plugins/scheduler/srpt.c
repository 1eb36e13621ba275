/* SPDX-License-Identifier: MIT */
/* Shortest remaining processing time first.
 *
 * What remains of a request is the tokens still to be computed: what is pending (prompt, or
 * prompt and output again after a preemption) and the rest of its predicted output. Of all
 * orders it has the least mean response time, if predictions are right (Schrage 1968).
 *
 *     prompt 100, predicted 20    waiting 119   prefilled 19   after 5 tokens 14 … 1
 *
 *   preemptive   true (SRPT): a shorter newcomer goes before those that run. false: whoever
 *                runs goes on, and the shortest of those that wait takes the next place
 *   preempt      of a running one that is overtaken: `keep`, it is only ranked lower, holds its
 *                KV and gets what the batch has left; `recompute`, it loses place and KV when
 *                it falls outside of what one batch holds
 *   outrun       when there is more output than was predicted: `stay`, one more token remains,
 *                always; `double`, the prediction doubles until it is ahead again
 *
 * Promises: never idle; unless preemptive, nobody is preempted for another. Long requests can
 * starve. It is bad with bad predictions: under `stay` a request that has outrun its own
 * remains in front of everyone however long it goes on, which `double` mends at the price of
 * ranking the truly almost-done ones too low. */
#include <policy/lineup.h>

enum { KEY_TOTAL, KEY_OUTPUT };
enum { UNKNOWN_LAST, UNKNOWN_PROMPT };
enum { PREEMPT_KEEP, PREEMPT_RECOMPUTE };
enum { OUTRUN_STAY, OUTRUN_DOUBLE };
enum { OPT_KEY, OPT_UNKNOWN, OPT_PREEMPTIVE, OPT_PREEMPT, OPT_OUTRUN, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "key", LATHE_OPTION_CHOICE, "total", 0, 0, "", "total|output",
      "What remains of a request: pending prompt and predicted output, or the output alone." },
    { "unknown", LATHE_OPTION_CHOICE, "last", 0, 0, "", "last|prompt",
      "A request without a predicted output ranks last, or by its pending prompt." },
    { "preemptive", LATHE_OPTION_BOOLEAN, "true", 0, 0, "", NULL,
      "A running request may be overtaken by one of which less remains." },
    { "preempt", LATHE_OPTION_CHOICE, "keep", 0, 0, "", "keep|recompute",
      "A running request that is overtaken keeps its KV, or gives it back and is computed again." },
    { "outrun", LATHE_OPTION_CHOICE, "stay", 0, 0, "", "stay|double",
      "Output beyond its prediction: one more token remains, or the prediction doubles." },
};

struct srpt {
    struct lineup lineup;
    int key, unknown, outrun;
};

/* Output still to come, at least 1. Where all known tokens are in KV the next one is on its way,
 * so that a step's progress and the ranking after it see the same. */
static int64_t output_left(const struct srpt *s, const struct lathe_request *req)
{
    int64_t predicted = req->predicted_output_tokens;
    int64_t output = (int64_t)req->output_tokens + (lathe_request_pending(req) == 0);
    if (s->outrun == OUTRUN_DOUBLE)
        while (predicted > 0 && predicted <= output)
            predicted *= 2;
    return predicted > output ? predicted - output : 1;
}

static struct order_key key(void *self, const struct lathe_request *req, int running)
{
    const struct srpt *s = self;
    int64_t pending = lathe_request_pending(req);
    (void)running;
    if (req->predicted_output_tokens == 0)
        return s->unknown == UNKNOWN_PROMPT ? (struct order_key){ 0, pending } : (struct order_key){ 1, 0 };
    if (s->key == KEY_OUTPUT)
        return (struct order_key){ 0, output_left(s, req) };
    return (struct order_key){ 0, pending + output_left(s, req) - (pending > 0) };
}

static const struct lineup_rules rules = { .name = "srpt", .key = key };

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct srpt *s = lineup_create(host, &rules, sizeof *s, err);
    if (!s)
        return LATHE_ENOMEM;
    s->key = (int)config->values[OPT_KEY].integer;
    s->unknown = (int)config->values[OPT_UNKNOWN].integer;
    s->lineup.merged = config->values[OPT_PREEMPTIVE].integer != 0;
    s->lineup.recompute = s->lineup.merged && config->values[OPT_PREEMPT].integer == PREEMPT_RECOMPUTE;
    s->outrun = (int)config->values[OPT_OUTRUN].integer;
    *self = s;
    return LATHE_OK;
}

static void progress(void *self, const struct lathe_request *req, uint32_t tokens)
{
    lineup_progress(self, req, tokens);
    lineup_rekey(self, req);
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    int length = lineup_explain(self, req, text, capacity);
    struct order_key k = key(self, req, 0);
    if (k.major)
        return lineup_explain_more(text, capacity, length, ", nobody knows how much remains");
    return lineup_explain_more(text, capacity, length, ", %lld tokens remain", (long long)k.minor);
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
    .rank = lineup_rank,
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
    .name = "srpt",
    .version = "1.0.0",
    .summary = "shortest remaining processing time first, by predicted output",
    .citation = "@article{schrage1968srpt,\n"
                "  title = {A Proof of the Optimality of the Shortest Remaining Processing Time Discipline},\n"
                "  author = {Schrage, Linus},\n"
                "  journal = {Operations Research},\n"
                "  volume = {16},\n"
                "  number = {3},\n"
                "  pages = {687--690},\n"
                "  year = {1968}\n"
                "}\n",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

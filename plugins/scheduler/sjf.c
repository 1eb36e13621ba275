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
 * would be SRPT). Ties go by planned arrival, then id.
 *
 * The live ones are kept in an array that stays nearly sorted from step to step, so the
 * insertion sort of each ranking is linear unless aging stirs it. */
#include <math.h>
#include <string.h>

#include <lathe/scheduler.h>

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

struct job {
    const struct lathe_request *req;
    double length; /* tokens, without aging; HUGE_VAL: unknown */
    double key;    /* as ranked in this step */
};

struct sjf {
    const struct lathe_host *host;
    int key, unknown, preemptive;
    double aging_ns;
    uint32_t capacity, count;
    struct job *jobs; /* live; (capacity) */
};

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self,
                  struct lathe_error *err)
{
    struct sjf *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler sjf: no memory for %zu bytes", sizeof *s);
    s->host = host;
    s->key = (int)config->values[OPT_KEY].integer;
    s->unknown = (int)config->values[OPT_UNKNOWN].integer;
    s->preemptive = config->values[OPT_PREEMPTIVE].integer != 0;
    s->aging_ns = config->values[OPT_AGING].number * 1e9;
    *self = s;
    return LATHE_OK;
}

static void destroy(void *self)
{
    struct sjf *s = self;
    if (!s)
        return;
    lathe_free(s->host, s->jobs);
    lathe_free(s->host, s);
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct sjf *s = self;
    if (s->jobs)
        return lathe_fail(err, LATHE_ESTATE, "scheduler sjf: bound twice; bind once, before the first admit");
    s->jobs = lathe_alloc_array(s->host, limits->max_requests, sizeof *s->jobs);
    if (!s->jobs)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler sjf: no memory for %u jobs", limits->max_requests);
    s->capacity = limits->max_requests;
    return LATHE_OK;
}

static double length_of(const struct sjf *s, const struct lathe_request *req)
{
    double prompt = req->prompt_tokens, output = req->predicted_output_tokens;
    if (s->key == KEY_PROMPT)
        return prompt;
    if (output == 0.0)
        return s->unknown == UNKNOWN_PROMPT ? prompt : HUGE_VAL;
    return s->key == KEY_OUTPUT ? output : prompt + output;
}

static uint32_t place(const struct sjf *s, const struct lathe_request *req)
{
    uint32_t i = 0;
    while (i < s->count && s->jobs[i].req != req)
        i++;
    return i;
}

static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct sjf *s = self;
    if (place(s, req) < s->count)
        return LATHE_OK; /* known already */
    if (s->count == s->capacity)
        return lathe_fail(err, LATHE_EFULL, "scheduler sjf: %u requests are live, the most it was bound for; try "
                          "again after a step", s->capacity);
    s->jobs[s->count++] = (struct job){ .req = req, .length = length_of(s, req), .key = length_of(s, req) };
    return LATHE_OK;
}

static int first_come(const struct lathe_request *a, const struct lathe_request *b)
{
    return a->planned_ns != b->planned_ns ? a->planned_ns < b->planned_ns : a->id < b->id;
}

static int before(const struct sjf *s, const struct job *a, const struct job *b)
{
    if (!s->preemptive) {
        int running_a = a->req->state == LATHE_REQUEST_RUNNING, running_b = b->req->state == LATHE_REQUEST_RUNNING;
        if (running_a != running_b)
            return running_a;
        if (running_a && a->req->admitted_ns != b->req->admitted_ns)
            return a->req->admitted_ns < b->req->admitted_ns;
    }
    return a->key != b->key ? a->key < b->key : first_come(a->req, b->req);
}

/* Aging of a job of unknown length starts from the longest that is known, so that it isn't
 * infinite for ever. */
static void age(struct sjf *s, int64_t now_ns)
{
    double longest = 1.0;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->jobs[i].length != HUGE_VAL && s->jobs[i].length > longest)
            longest = s->jobs[i].length;
    for (uint32_t i = 0; i < s->count; i++) {
        struct job *job = &s->jobs[i];
        double waited = (double)(now_ns - job->req->planned_ns);
        double length = job->length == HUGE_VAL ? longest + 1.0 : job->length;
        job->key = waited > 0.0 ? length * exp2(-waited / s->aging_ns) : length;
    }
}

static void sort(struct sjf *s)
{
    for (uint32_t i = 1; i < s->count; i++) {
        struct job moving = s->jobs[i];
        uint32_t j = i;
        for (; j > 0 && before(s, &moving, &s->jobs[j - 1]); j--)
            s->jobs[j] = s->jobs[j - 1];
        s->jobs[j] = moving;
    }
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking,
                struct lathe_error *err)
{
    struct sjf *s = self;
    (void)err;
    LATHE_ASSERT_THREAD(s->host, LATHE_THREAD_ENGINE);
    if (s->aging_ns > 0.0)
        age(s, view->now_ns);
    sort(s);
    ranking->count = s->count < ranking->capacity ? s->count : ranking->capacity;
    ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX;
    for (uint32_t i = 0; i < ranking->count; i++)
        ranking->requests[i] = s->jobs[i].req;
    return LATHE_OK;
}

/* The last in the ranking that runs; never one that runs alone (see fcfs). */
static const struct lathe_request *victim(void *self, const struct lathe_step_view *view,
                                          const struct lathe_request *needy)
{
    struct sjf *s = self;
    const struct lathe_request *last = NULL;
    uint32_t running = 0;
    (void)view;
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->jobs[i].req->state == LATHE_REQUEST_RUNNING) {
            last = s->jobs[i].req;
            running++;
        }
    }
    return last == needy && running == 1 ? NULL : last;
}

static void retire(void *self, const struct lathe_request *req)
{
    struct sjf *s = self;
    uint32_t at = place(s, req);
    if (at == s->count)
        return;
    s->count--;
    memmove(s->jobs + at, s->jobs + at + 1, (s->count - at) * sizeof *s->jobs);
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    struct sjf *s = self;
    uint32_t at = place(s, req);
    if (at == s->count)
        return snprintf(text, capacity, "sjf: not admitted");
    if (s->jobs[at].length == HUGE_VAL)
        return snprintf(text, capacity, "sjf: %u of %u, of unknown length", at + 1, s->count);
    return snprintf(text, capacity, "sjf: %u of %u, %.0f tokens long, ranked as %.1f", at + 1, s->count,
                    s->jobs[at].length, s->jobs[at].key);
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
    .name = "sjf",
    .version = "1.0.0",
    .summary = "shortest job first, by predicted length",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

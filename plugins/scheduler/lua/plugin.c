/* SPDX-License-Identifier: MIT */
/* A scheduler whose policy is a few lines of Lua.
 *
 *     return { name = "shortest prompt", key = function(r) return r.prompt_tokens end }
 *
 * What a policy may say stands in policy.h, what it sees of a request in request.h, what keeps it
 * from doing harm in sandbox.h. A policy with a `key` is asked once a request (again as it says
 * itself); the line is then sorted here, in C, and a step in which no key changed doesn't enter
 * Lua at all. A policy with a `rank` is asked in every step and has the whole ranking in its hands.
 *
 * Ties, and who gives way, are as in the schedulers written in C: running ones first, in the order
 * in which they were let in, unless the policy is preemptive; equal keys by planned arrival, then
 * id; the victim is the last in the ranking that runs, but never one that runs alone.
 *
 * When the policy errs: in rank or key, the ranking fails, and the run ends with its sentence. In
 * admit, that request is refused. progress and retire can't fail, so the next ranking does. In
 * victim, nobody gives way; that is said once, in the log, when the scheduler is destroyed.
 *
 * What a step costs in time, the engine says (schedule_ns of table step). This plugin counts what
 * the policy did: figures lua_instructions, lua_calls and lua_memory_bytes, a row a ranking. */
#include "calls.h"

#include <string.h>

enum { OPT_FILE, OPT_TEXT, OPT_OPTIONS, OPT_MEMORY, OPT_INSTRUCTIONS, OPT_COUNT };

static const struct lathe_option options[OPT_COUNT] = {
    { "file", LATHE_OPTION_PATH, "", 0, 0, "", NULL, "The policy: a Lua file that returns a table of functions." },
    { "text", LATHE_OPTION_STRING, "", 0, 0, "", NULL, "The policy itself, instead of a file." },
    { "options", LATHE_OPTION_STRING, "", 0, 0, "", NULL,
      "What the policy finds in its table `options`: a=1;b=x, separated by commas or semicolons." },
    { "memory_mb", LATHE_OPTION_NUMBER, "4", 0.001, 1024, "MB", NULL,
      "What the policy may hold; set aside when the scheduler is made." },
    { "instructions", LATHE_OPTION_INTEGER, "10000000", 1000, 1e12, "instructions", NULL,
      "What one call of the policy may take; one that takes more is ended with an error." },
};

static void destroy(void *self)
{
    struct lua_scheduler *s = self;
    if (!s)
        return;
    if (s->victim_errors) {
        char text[LATHE_ERROR_MESSAGE_BYTES + 96];
        snprintf(text, sizeof text, "%s (the policy's victim failed %llu times; nobody gave way)", s->victim_error.message,
                 (unsigned long long)s->victim_errors);
        s->host->log(s->host->context, LATHE_LOG_WARN, 0, text);
    }
    sandbox_close(&s->sandbox);
    lathe_free(s->host, s->seats);
    lathe_free(s->host, s->line);
    lathe_free(s->host, s->next_line);
    lathe_free(s->host, s);
}

static int open_policy(struct lua_scheduler *s, const struct lathe_option_value *v, struct lathe_error *err)
{
    const char *file = v[OPT_FILE].text, *text = v[OPT_TEXT].text;
    int status;
    if (!*file == !*text)
        return lathe_fail(err, LATHE_EINVAL, "scheduler lua: give its policy as `file` or as `text`%s",
                          *file ? ", not as both" : "");
    if ((status = sandbox_open(&s->sandbox, s->host, v[OPT_MEMORY].number, v[OPT_INSTRUCTIONS].integer, err)) != LATHE_OK ||
        (status = policy_load(&s->policy, &s->sandbox, file, text, v[OPT_OPTIONS].text, err)) != LATHE_OK)
        return status;
    return calls_open(s, err);
}

static int create(const struct lathe_host *host, const struct lathe_config *config, void **self, struct lathe_error *err)
{
    struct lua_scheduler *s = lathe_alloc(host, sizeof *s);
    if (!s)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler lua: no memory for %zu bytes", sizeof *s);
    s->host = s->sandbox.host = host;
    int status = open_policy(s, config->values, err);
    if (status != LATHE_OK) {
        destroy(s);
        return status;
    }
    s->figures[FIGURE_INSTRUCTIONS] = host->metric(host->context, "lua_instructions", "instructions",
                                                   "of the policy since the last ranking, to 128");
    s->figures[FIGURE_CALLS] = host->metric(host->context, "lua_calls", "calls", "into the policy since the last ranking");
    s->figures[FIGURE_MEMORY] = host->metric(host->context, "lua_memory_bytes", "bytes", "that the policy holds after a ranking");
    *self = s;
    return LATHE_OK;
}

static int bind_limits(void *self, const struct lathe_scheduler_limits *limits, struct lathe_error *err)
{
    struct lua_scheduler *s = self;
    if (s->seats)
        return lathe_fail(err, LATHE_ESTATE, "scheduler lua: bound twice; bind once, before the first admit");
    s->seats = lathe_alloc_array(s->host, limits->max_requests, sizeof *s->seats);
    s->line = lathe_alloc_array(s->host, limits->max_requests, sizeof *s->line);
    s->next_line = lathe_alloc_array(s->host, limits->max_requests, sizeof *s->next_line);
    if (!s->seats || !s->line || !s->next_line)
        return lathe_fail(err, LATHE_ENOMEM, "scheduler lua: no memory for %u requests", limits->max_requests);
    s->capacity = limits->max_requests;
    return sandbox_seed(&s->sandbox, limits->seed, err);
}

static struct seat *seat_of(const struct lua_scheduler *s, const struct lathe_request *req)
{
    return req->index < s->capacity && s->seats[req->index].req == req ? &s->seats[req->index] : NULL;
}

static void leave(struct lua_scheduler *s, struct seat *seat)
{
    uint32_t at = 0;
    if (seat->object)
        seat->object->req = NULL;
    *seat = (struct seat){ .req = NULL };
    while (at < s->count && s->line[at] != seat)
        at++;
    if (at == s->count)
        return;
    s->count--;
    memmove(s->line + at, s->line + at + 1, (s->count - at) * sizeof *s->line);
}

static int admit(void *self, const struct lathe_request *req, struct lathe_error *err)
{
    struct lua_scheduler *s = self;
    if (seat_of(s, req))
        return LATHE_OK; /* known already */
    if (req->index >= s->capacity || s->seats[req->index].req)
        return lathe_fail(err, LATHE_EFULL, "scheduler lua: place %u of %u is taken or beyond what it was bound for; try "
                          "again after a step", req->index, s->capacity);
    struct seat *seat = &s->seats[req->index];
    *seat = (struct seat){ .req = req };
    int status = calls_admit(s, seat, err);
    if (status != LATHE_OK) {
        leave(s, seat);
        return status;
    }
    s->line[s->count++] = seat;
    return LATHE_OK;
}

/* ── the line, by keys ───────────────────────────────────────────────────────────── */

static bool before(const struct lua_scheduler *s, const struct seat *a, const struct seat *b)
{
    if (!s->policy.preemptive) {
        bool running_a = a->req->state == LATHE_REQUEST_RUNNING, running_b = b->req->state == LATHE_REQUEST_RUNNING;
        if (running_a != running_b)
            return running_a;
        if (running_a && a->req->admitted_ns != b->req->admitted_ns)
            return a->req->admitted_ns < b->req->admitted_ns;
    }
    if (a->key != b->key)
        return a->key < b->key;
    if (a->second != b->second)
        return a->second < b->second;
    return a->req->planned_ns != b->req->planned_ns ? a->req->planned_ns < b->req->planned_ns : a->req->id < b->req->id;
}

/* Nearly sorted from step to step, so nearly linear. */
static void sort(struct lua_scheduler *s)
{
    for (uint32_t i = 1; i < s->count; i++) {
        struct seat *moving = s->line[i];
        uint32_t j = i;
        for (; j > 0 && before(s, moving, s->line[j - 1]); j--)
            s->line[j] = s->line[j - 1];
        s->line[j] = moving;
    }
}

static int rank_by_keys(struct lua_scheduler *s, struct lathe_ranking *ranking, struct lathe_error *err)
{
    bool stale = false;
    for (uint32_t i = 0; i < s->count; i++) {
        struct seat *seat = s->line[i];
        seat->stale = seat->stale || s->policy.dynamic == DYNAMIC_STEP;
        stale = stale || seat->stale;
    }
    int status = stale ? calls_keys(s, err) : LATHE_OK;
    if (status != LATHE_OK)
        return status;
    sort(s);
    ranking->count = s->count < ranking->capacity ? s->count : ranking->capacity;
    for (uint32_t i = 0; i < ranking->count; i++)
        ranking->requests[i] = s->line[i]->req;
    return LATHE_OK;
}

static void record(struct lua_scheduler *s)
{
    const double values[FIGURES] = { (double)s->sandbox.instructions, (double)s->sandbox.calls, (double)s->sandbox.pool.used };
    for (int i = 0; i < FIGURES; i++)
        if (s->figures[i] >= 0)
            s->host->record(s->host->context, s->figures[i], values[i]);
    s->sandbox.instructions = s->sandbox.calls = 0;
}

static int rank(void *self, const struct lathe_step_view *view, struct lathe_ranking *ranking, struct lathe_error *err)
{
    struct lua_scheduler *s = self;
    LATHE_ASSERT_THREAD(s->host, LATHE_THREAD_ENGINE);
    ranking->count = ranking->preempt_count = 0;
    ranking->wake_ns = INT64_MAX;
    s->now_ns = view->now_ns;
    s->rankings++;
    if (s->broken.code)
        return lathe_fail(err, s->broken.code, "%s", s->broken.message);
    int status = s->policy.functions[POLICY_RANK] != LUA_NOREF ? calls_rank(s, view, ranking, err)
                                                               : rank_by_keys(s, ranking, err);
    sandbox_collect(&s->sandbox);
    record(s);
    return status;
}

static const struct lathe_request *victim(void *self, const struct lathe_step_view *view, const struct lathe_request *needy)
{
    struct lua_scheduler *s = self;
    const struct seat *lowest = NULL;
    bool keyed = s->policy.functions[POLICY_RANK] == LUA_NOREF; /* then as it would be ranked now, not as it was */
    uint32_t running = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->line[i]->req->state != LATHE_REQUEST_RUNNING)
            continue;
        if (!lowest || !keyed || before(s, lowest, s->line[i]))
            lowest = s->line[i];
        running++;
    }
    const struct lathe_request *last = lowest ? lowest->req : NULL;
    if (s->policy.functions[POLICY_VICTIM] != LUA_NOREF &&
        calls_victim(s, view, needy, &last, &s->victim_error) != LATHE_OK)
        s->victim_errors++;
    return last == needy && running == 1 ? NULL : last;
}

static void progress(void *self, const struct lathe_request *req, uint32_t tokens)
{
    struct lua_scheduler *s = self;
    struct seat *seat = seat_of(s, req);
    if (!seat)
        return;
    seat->stale |= s->policy.dynamic == DYNAMIC_PROGRESS;
    if (!s->broken.code)
        calls_progress(s, seat, tokens, &s->broken);
}

static void retire(void *self, const struct lathe_request *req)
{
    struct lua_scheduler *s = self;
    struct seat *seat = seat_of(s, req);
    if (!seat)
        return;
    if (!s->broken.code)
        calls_retire(s, seat, &s->broken);
    leave(s, seat);
}

static int explain(void *self, const struct lathe_request *req, char *text, uint32_t capacity)
{
    struct lua_scheduler *s = self;
    const struct seat *seat = seat_of(s, req);
    uint32_t at = 0;
    if (!seat)
        return snprintf(text, capacity, "lua, %s: not admitted", s->policy.name);
    while (at < s->count && s->line[at] != seat)
        at++;
    if (s->policy.functions[POLICY_KEY] == LUA_NOREF)
        return snprintf(text, capacity, "lua, %s: %u of %u, as the policy ranked", s->policy.name, at + 1, s->count);
    return snprintf(text, capacity, "lua, %s: %u of %u, key %g", s->policy.name, at + 1, s->count, seat->key);
}

static uint32_t promises(void *self)
{
    return ((struct lua_scheduler *)self)->policy.promises;
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
    .name = "lua",
    .version = "1.0.0",
    .summary = "a policy written in Lua, in a sandbox",
    .options = options,
    .option_count = OPT_COUNT,
    .api = &api,
};

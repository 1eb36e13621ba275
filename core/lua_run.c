/* SPDX-License-Identifier: MIT */
/* lathe.run { model = …, scheduler = "sjf", workload = …, seed = 1, trace = … }: one run,
 * on the calling thread, and a handle to ask about it.
 *
 * This file reads the description; run_job.c carries it out without Lua. Everything that
 * a bad field could leak hangs on one userdata, the job. */
#include "lua_internal.h"

#include <stdlib.h>
#include <string.h>

#include "run_key.h"
#include "sha256.h"

static const char *const run_fields[] = {
    "model", "sampler",  "kvcache", "scheduler", "batching", "bus",     "workload", "clock",      "seed",
    "label", "question", "trace",   "engine",    "database", "factors", "sweep",    "seed_index", "workers",
    "router",  "models", "faults",   "warmup",   "resume",  "disaggregate", "interventions", NULL,
};
static const char *const engine_fields[] = {
    "batch_tokens", "batch_requests", "max_requests", "context_tokens", "kv_memory_mb", "threads", "kv_dtype",
    "degrade_wait_s", NULL,
};
static const char *const worker_fields[] = { "tokenizer", "model", NULL };

enum { MAX_FACTORS = 64, MAX_ARTIFACTS = 4 };

/* The job, and what its pointers point at. */
struct lua_job {
    struct run_job job;
    struct run_factor factors[MAX_FACTORS];
    struct run_artifact artifacts[MAX_ARTIFACTS];
    char database[4096], label[160], config_hash[65], key[65], *machine;
};

static int job_collect(lua_State *L)
{
    struct lua_job *own = luaL_checkudata(L, 1, LUA_LATHE_JOB);
    run_job_close(&own->job);
    run_requests_free(own->job.requests, own->job.count);
    free(own->machine);
    memset(own, 0, sizeof *own);
    return 0;
}

struct run_job *lua_job_of(lua_State *L, int index)
{
    return &((struct lua_job *)luaL_checkudata(L, index, LUA_LATHE_JOB))->job;
}

/* A text that lives as long as the job: its user value holds it. Pops it. */
static const char *keep_text(lua_State *L, int job_index)
{
    const char *text = lua_tostring(L, -1);
    lua_getiuservalue(L, job_index, 1);
    lua_insert(L, -2);
    luaL_ref(L, -2);
    lua_pop(L, 1);
    return text;
}

/* ── fields ────────────────────────────────────────────────────────────────────────── */

static void read_stages(lua_State *L, const struct lua_lathe *lathe, struct run_job *job)
{
    static const struct {
        const char *name;
        int kind;
    } stages[] = { { "sampler", LATHE_KIND_SAMPLER },     { "kvcache", LATHE_KIND_KVCACHE },
                   { "scheduler", LATHE_KIND_SCHEDULER }, { "batching", LATHE_KIND_BATCHING },
                   { "bus", LATHE_KIND_BUS },             { "router", LATHE_KIND_ROUTER } };
    struct lathe_error err;
    char what[64];
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        struct stage *stage = &job->stages[stages[i].kind];
        snprintf(what, sizeof what, "%s: %s", job->who, stages[i].name);
        lua_getfield(L, 1, stages[i].name);
        lua_check_stage(L, -1, what, stages[i].kind, stage);
        lua_pop(L, 1);
        if (overrides_apply(&lathe->overrides, stages[i].kind, stage, &err))
            lua_fail_error(L, what, &err);
    }
    if (parts_open(lathe->registry, job->model, job->stages, &job->parts, &err))
        lua_fail_error(L, job->who, &err);
}

static void read_engine(lua_State *L, struct run_job *job)
{
    char text[128], what[64];
    snprintf(what, sizeof what, "%s: engine", job->who);
    if (lua_getfield(L, 1, "engine") != LUA_TNIL) {
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: should be a table, not %s", what, lua_describe(L, -1, text, sizeof text));
        int table = lua_gettop(L);
        lua_check_fields(L, table, what, engine_fields, 0);
        struct engine_params *engine = &job->engine;
        engine->batch_tokens = (uint32_t)lua_field_integer(L, table, what, "batch_tokens", 1, 1 << 20, 0);
        engine->batch_requests = (uint32_t)lua_field_integer(L, table, what, "batch_requests", 1, 1 << 16, 0);
        engine->max_requests = (uint32_t)lua_field_integer(L, table, what, "max_requests", 1, 1 << 20, 0);
        engine->context_tokens = (uint32_t)lua_field_integer(L, table, what, "context_tokens", 2, 1 << 24, 0);
        engine->threads = (uint32_t)lua_field_integer(L, table, what, "threads", 1, 1024, 0);
        engine->kv_memory_bytes = (uint64_t)(lua_field_number(L, table, what, "kv_memory_mb", 0.001, 1e7, 0) * 1048576);
        engine->degrade_wait_ns = lua_field_seconds(L, table, what, "degrade_wait_s", 0);
        const char *dtype = lua_field_string(L, table, what, "kv_dtype", "f32");
        if (strcmp(dtype, "f32") && strcmp(dtype, "f16") && strcmp(dtype, "q8_0"))
            lua_fail(L, "%s: \"kv_dtype\" is \"f32\", \"f16\" or \"q8_0\", not \"%s\"", what, dtype);
        engine->kv_dtype = !strcmp(dtype, "f16") ? LATHE_F16 : !strcmp(dtype, "q8_0") ? LATHE_Q8_0 : LATHE_F32;
    }
    lua_pop(L, 1);
}

/* models = { { model = a, replicas = 2, weight = 3 }, { model = b } }: beside each other, instead of `model`. */
static void read_models(lua_State *L, struct run_job *job)
{
    static const char *const fields[] = { "model", "replicas", "weight", NULL };
    char text[128], what[96];
    if (lua_getfield(L, 1, "models") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    if (!lua_istable(L, -1) || luaL_len(L, -1) < 1 || luaL_len(L, -1) > RUN_MAX_MODELS)
        lua_fail(L, "%s: \"models\" should be 1 to %d of { model = …, replicas = n, weight = w }, not %s", job->who,
                 RUN_MAX_MODELS, lua_describe(L, -1, text, sizeof text));
    int array = lua_gettop(L);
    lua_Integer count = luaL_len(L, array);
    for (lua_Integer i = 1; i <= count; i++) {
        snprintf(what, sizeof what, "%s: models: %lld", job->who, (long long)i);
        lua_rawgeti(L, array, i);
        int table = lua_gettop(L);
        lua_check_fields(L, table, what, fields, 0);
        struct deployment_group *group = &job->groups[job->model_count];
        lua_getfield(L, table, "model");
        const struct loaded_model *model = &lua_check_model(L, -1, what)->loaded;
        group->model = model->model;
        group->replicas = (uint32_t)lua_field_integer(L, table, what, "replicas", 1, DEPLOYMENT_MAX_SIMULATED, 1);
        group->weight = lua_field_weight(L, table, what);
        group->weight = group->weight ? group->weight : 1000;
        job->models[job->model_count++] = model;
        job->replicas += group->replicas;
        if (strcmp(model->tokens.name, job->models[0]->tokens.name) ||
            model->tokens.vocab_tokens != job->models[0]->tokens.vocab_tokens)
            lua_fail(L, "%s: its tokenizer is not the first model's, and one serves all", what);
        lua_settop(L, array);
    }
    lua_pop(L, 1);
    uint32_t most = job->clock_kind == CLOCK_KIND_VIRTUAL ? DEPLOYMENT_MAX_SIMULATED : DEPLOYMENT_MAX_REPLICAS;
    if (job->replicas > most)
        lua_fail(L, "%s: models: %u replicas in all, at most %u", job->who, job->replicas, most);
}

/* workers = { tokenizer = 2, model = 2 }: of the model, replicas with a KV pool each. */
static void read_workers(lua_State *L, struct run_job *job)
{
    char text[128], what[64];
    snprintf(what, sizeof what, "%s: workers", job->who);
    if (lua_getfield(L, 1, "workers") != LUA_TNIL) {
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: should be { tokenizer = n, model = n }, not %s", what, lua_describe(L, -1, text, sizeof text));
        int table = lua_gettop(L);
        lua_check_fields(L, table, what, worker_fields, 0);
        bool simulated = job->clock_kind == CLOCK_KIND_VIRTUAL;
        lua_getfield(L, table, "model");
        if (job->model_count && !lua_isnil(L, -1))
            lua_fail(L, "%s: \"models\" says how many replicas there are of each", what);
        lua_pop(L, 1);
        if (!job->model_count)
            job->replicas = (uint32_t)lua_field_integer(L, table, what, "model", 1,
                                                    simulated ? DEPLOYMENT_MAX_SIMULATED : DEPLOYMENT_MAX_REPLICAS, 1);
        job->engine.tokenizer_workers = (uint32_t)lua_field_integer(L, table, what, "tokenizer", 1, 64, 1);
    }
    lua_pop(L, 1);
}

/* clock = "virtual": nothing sleeps; wants a model that tells its time. */
static void read_clock(lua_State *L, struct run_job *job, bool with_workload)
{
    const char *clock = lua_field_string(L, 1, job->who, "clock", "real");
    if (strcmp(clock, "real") && strcmp(clock, "virtual"))
        lua_fail(L, "%s: \"clock\" is \"real\" or \"virtual\", not \"%s\"", job->who, clock);
    if (!strcmp(clock, "real"))
        return;
    const struct lathe_model_api *api = job->model->model->api;
    if (!api->get_extension || !api->get_extension(job->model->model->self, LATHE_MODEL_TIME))
        lua_fail(L, "%s: clock = \"virtual\" wants a model that tells its time, such as \"sim\", not \"%s\"", job->who,
                 job->model->model->entry->name);
    if (!with_workload)
        lua_fail(L, "%s: is driven by hand, in real time: use lathe.run for a virtual clock", job->who);
    job->clock_kind = CLOCK_KIND_VIRTUAL;
}

/* faults = { { at = 10, kind = "dies", replica = 0, lasts = 5 }, { …, kind = "slow", factor = 3 },
 * { …, kind = "loses_cache" } }: seconds, replicas from 0 as in the tables. */
static void read_faults(lua_State *L, struct run_job *job)
{
    static const char *const fields[] = { "at", "kind", "replica", "lasts", "factor", NULL };
    static const char *const kinds[] = { "dies", "slow", "loses_cache" }; /* enum simulated_fault_kind, less one */
    char text[128], what[96];
    if (lua_getfield(L, 1, "faults") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: \"faults\" should be { { at = seconds, kind = … }, … }, not %s", job->who,
                 lua_describe(L, -1, text, sizeof text));
    if (job->clock_kind != CLOCK_KIND_VIRTUAL)
        lua_fail(L, "%s: \"faults\" are for clock = \"virtual\"", job->who);
    int array = lua_gettop(L);
    lua_Integer count = luaL_len(L, array);
    if (count > 1 << 20)
        lua_fail(L, "%s: faults: %lld are more than %d", job->who, (long long)count, 1 << 20);
    job->faults = calloc(count ? (size_t)count : 1, sizeof *job->faults);
    if (!job->faults)
        lua_fail(L, "%s: no memory left for %lld faults", job->who, (long long)count);
    for (lua_Integer i = 1; i <= count; i++) {
        struct simulated_fault *fault = &job->faults[job->fault_count++];
        snprintf(what, sizeof what, "%s: fault %lld", job->who, (long long)i);
        lua_rawgeti(L, array, i);
        int table = lua_gettop(L);
        lua_check_fields(L, table, what, fields, 0);
        const char *kind = lua_field_string(L, table, what, "kind", NULL);
        for (int k = 0; k < 3; k++)
            fault->kind = kind && !strcmp(kind, kinds[k]) ? k + 1 : fault->kind;
        if (!fault->kind)
            lua_fail(L, "%s: \"kind\" is \"dies\", \"slow\" or \"loses_cache\", not \"%s\"", what, kind ? kind : "");
        fault->at_ns = lua_field_seconds(L, table, what, "at", 0);
        fault->for_ns = lua_field_seconds(L, table, what, "lasts", fault->kind == FAULT_LOSES_CACHE ? 0 : 10);
        fault->replica = (uint32_t)lua_field_integer(L, table, what, "replica", 0, (job->replicas ? job->replicas : 1) - 1, 0);
        fault->factor = lua_field_number(L, table, what, "factor", 0.001, 1e6, 2);
        lua_settop(L, array);
    }
    lua_pop(L, 1);
}

/* disaggregate = { prefill = 2, transfer_us_per_token = 5, transfer_us = 500 }: the first so many replicas
 * prefill only, see simulate_split.h. */
static void read_disaggregate(lua_State *L, struct run_job *job)
{
    static const char *const fields[] = { "prefill", "transfer_us_per_token", "transfer_us", NULL };
    char text[128], what[64];
    if (lua_getfield(L, 1, "disaggregate") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    snprintf(what, sizeof what, "%s: disaggregate", job->who);
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: should be { prefill = n, transfer_us_per_token = t, transfer_us = t }, not %s", what,
                 lua_describe(L, -1, text, sizeof text));
    if (job->clock_kind != CLOCK_KIND_VIRTUAL)
        lua_fail(L, "%s: is for clock = \"virtual\"", what);
    if (job->model_count > 0)
        lua_fail(L, "%s: is for replicas of one model, not for \"models\": keys and values mean nothing to another", what);
    if (job->replicas < 2)
        lua_fail(L, "%s: wants two replicas at least, one that prefills and one that decodes: workers = { model = 2 }", what);
    int table = lua_gettop(L);
    lua_check_fields(L, table, what, fields, 0);
    job->split.prefill = (uint32_t)lua_field_integer(L, table, what, "prefill", 1, job->replicas - 1, 0);
    if (!job->split.prefill)
        lua_fail(L, "%s: \"prefill\" should say how many of the %u replicas prefill only", what, job->replicas);
    job->split.transfer_ns = (int64_t)(1e3 * lua_field_number(L, table, what, "transfer_us", 0, 1e12, 0));
    job->split.transfer_token_ns = 1e3 * lua_field_number(L, table, what, "transfer_us_per_token", 0, 1e9, 0);
    lua_pop(L, 1);
}

static int by_factor_name(const void *a, const void *b)
{
    return strcmp(((const struct run_factor *)a)->name, ((const struct run_factor *)b)->name);
}

static void read_factors(lua_State *L, int job_index, struct lua_job *own)
{
    char text[128];
    if (lua_getfield(L, 1, "factors") != LUA_TNIL) {
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: \"factors\" should be { name = value }, not %s", own->job.who,
                     lua_describe(L, -1, text, sizeof text));
        int table = lua_gettop(L);
        for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
            if (lua_type(L, -2) != LUA_TSTRING)
                lua_fail(L, "%s: factors: a name can't be %s", own->job.who, lua_describe(L, -2, text, sizeof text));
            if (own->job.factor_count == MAX_FACTORS)
                lua_fail(L, "%s: factors: more than %d", own->job.who, MAX_FACTORS);
            snprintf(text, sizeof text, "%s: factors", own->job.who);
            lua_json_push(L, -1, text);
            struct run_factor *factor = &own->factors[own->job.factor_count++];
            factor->value_json = keep_text(L, job_index);
            factor->name = lua_tostring(L, -2);
        }
        qsort(own->factors, own->job.factor_count, sizeof *own->factors, by_factor_name);
    }
    own->job.factors = own->factors;
    lua_pop(L, 1);
}

void lua_database_path(const struct lua_lathe *lathe, const char *wanted, char *path, size_t capacity)
{
    if (lathe->database || wanted)
        snprintf(path, capacity, "%s", lathe->database ? lathe->database : wanted);
    else
        snprintf(path, capacity, "results/%s.db", lathe->name);
}

static void read_identity(lua_State *L, const struct lua_lathe *lathe, struct lua_job *own)
{
    const char *const what = own->job.who;
    struct run_info *info = &own->job.info;
    info->clock = own->job.clock_kind == CLOCK_KIND_VIRTUAL ? "virtual" : "real";
    info->seed = (uint64_t)lua_field_integer(L, 1, what, "seed", 0, INT64_MAX, 1);
    own->job.engine.seed = info->seed;
    const struct stage *s = own->job.stages;
    snprintf(own->label, sizeof own->label, "%.60s %.60s",
             s[LATHE_KIND_SCHEDULER].name ? s[LATHE_KIND_SCHEDULER].name : stage_default(LATHE_KIND_SCHEDULER),
             s[LATHE_KIND_BATCHING].name ? s[LATHE_KIND_BATCHING].name : stage_default(LATHE_KIND_BATCHING));
    info->label = lua_field_string(L, 1, what, "label", own->label);
    info->question = lua_field_string(L, 1, what, "question", lathe->question);
    info->sweep = lua_field_string(L, 1, what, "sweep", NULL);
    info->seed_index = lua_field_integer(L, 1, what, "seed_index", 0, INT64_MAX, -1);
    info->experiment = lathe->name;
    info->argv_json = lathe->argv_json;
    info->machine_json = own->machine = machine_json();
    info->commit_id = build_commit(&info->dirty);
    if (info->commit_id && !info->commit_id[0])
        info->commit_id = NULL;
    bool resume = lua_field_boolean(L, 1, what, "resume", false); /* lathe/init.lua acts on it */
    if (resume && !own->job.count && !own->job.workload)
        lua_fail(L, "%s: can't resume: what its requests will be, nobody knows yet", what);
    lua_database_path(lathe, lua_field_string(L, 1, what, "database", NULL), own->database, sizeof own->database);
    own->job.database = own->database;
}

static void add_artifact(struct lua_job *own, const char *kind, const char *name, const char *path)
{
    if (path && *path && own->job.artifact_count < MAX_ARTIFACTS)
        own->artifacts[own->job.artifact_count++] = (struct run_artifact){ .kind = kind, .name = name, .path = path };
    own->job.artifacts = own->artifacts;
}

static void read_artifacts(lua_State *L, int job_index, const struct lua_lathe *lathe, struct lua_job *own)
{
    add_artifact(own, "model", own->job.model->info.name, own->job.model->path);
    add_artifact(own, "script", lathe->name, lathe->script);
    lua_getfield(L, 1, "workload");
    if (lua_istable(L, -1) && lua_getfield(L, -1, "source") == LUA_TSTRING) {
        const char *path = keep_text(L, job_index);
        add_artifact(own, "trace", path, path);
        lua_pop(L, 1);
    } else {
        lua_settop(L, job_index);
    }
}

size_t lua_job_failures(const struct run_job *job, const struct planned_request **first)
{
    size_t failed = 0;
    *first = NULL;
    for (size_t i = 0; i < job->count; i++) {
        if (job->requests[i].finish_reason != LATHE_FINISH_ERROR)
            continue;
        failed++;
        *first = *first ? *first : &job->requests[i];
    }
    if (job->figures && job->workload) /* drawn as they came: only counted */
        failed = job->figures->failed + job->figures->refused;
    return failed;
}

/* Requests that failed are no error of the script; but nobody should have to look for them. */
static void tell_failures(const struct run_job *job)
{
    const struct planned_request *first;
    size_t failed = lua_job_failures(job, &first);
    if (first && !job->quiet)
        fprintf(stderr, "%s: %zu of %zu requests failed; request %zu: %s\n", job->info.label, failed, job->count,
                (size_t)(first - job->requests) + 1, first->error[0] ? first->error : "no reason was given");
}

/* ── lathe.run ─────────────────────────────────────────────────────────────────────── */

/* The model, or the first of several. */
static void push_model(lua_State *L, const char *what)
{
    int model = lua_getfield(L, 1, "model"), models = lua_getfield(L, 1, "models");
    if (model != LUA_TNIL && models != LUA_TNIL)
        lua_fail(L, "%s: give \"model\" or \"models\", not both", what);
    if (models != LUA_TNIL && (models != LUA_TTABLE || lua_rawgeti(L, -1, 1) != LUA_TTABLE))
        lua_fail(L, "%s: \"models\" should be 1 to %d of { model = …, replicas = n, weight = w }", what, RUN_MAX_MODELS);
    if (models != LUA_TNIL) {
        lua_getfield(L, -1, "model");
        lua_replace(L, -4);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

struct run_job *lua_job_read(lua_State *L, const char *what, bool with_workload)
{
    struct lua_lathe *lathe = lua_lathe_of(L);
    char text[128];
    lua_stop_if_help(L);
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        lua_fail(L, "%s: takes a table { model = …%s }, not %s", what, with_workload ? ", workload = …" : "",
                 lua_describe(L, 1, text, sizeof text));
    lua_check_fields(L, 1, what, run_fields, 0);

    struct lua_job *own = lua_newuserdatauv(L, sizeof *own, 1);
    const int job_index = 2;
    memset(own, 0, sizeof *own);
    luaL_setmetatable(L, LUA_LATHE_JOB);
    lua_newtable(L);
    lua_setiuservalue(L, job_index, 1);

    struct run_job *job = &own->job;
    job->who = what;
    job->registry = lathe->registry;
    job->quiet = lathe->quiet;
    job->interrupted = interrupt_wanted;
    push_model(L, what);
    snprintf(text, sizeof text, "%s: \"model\"", what);
    job->model = &lua_check_model(L, -1, text)->loaded;
    lua_pop(L, 1);
    read_clock(L, job, with_workload);
    read_stages(L, lathe, job);
    read_engine(L, job);
    read_models(L, job);
    read_workers(L, job);
    read_faults(L, job);
    read_disaggregate(L, job);
    job->warmup_requests = (uint64_t)lua_field_integer(L, 1, what, "warmup", 0, INT64_MAX, 0);
    lua_getfield(L, 1, "workload");
    if (with_workload)
        lua_check_workload(L, -1, job_index, job);
    else if (!lua_isnil(L, -1))
        lua_fail(L, "%s: takes no workload: post requests to it, or use lathe.run", what);
    lua_pop(L, 1);
    lua_getfield(L, 1, "trace");
    lua_check_trace(L, lua_gettop(L), job);
    lua_getfield(L, 1, "interventions");
    lua_check_interventions(L, lua_gettop(L), job);
    lua_settop(L, job_index);
    read_factors(L, job_index, own);
    read_identity(L, lathe, own);
    read_artifacts(L, job_index, lathe, own);
    lua_push_configuration(L, job);
    job->info.config_json = keep_text(L, job_index);
    sha256_bytes(job->info.config_json, strlen(job->info.config_json), own->config_hash);
    job->info.config_hash = own->config_hash;
    if (with_workload && job->recording) {
        struct lathe_error err;
        if (run_key(job, own->key, &err))
            lua_fail_error(L, what, &err);
        job->info.key = own->key;
    }
    return job;
}

int lua_run(lua_State *L)
{
    struct lathe_error err;
    struct run_job *job = lua_job_read(L, "lathe.run", true);
    int status = run_job(job, &err);
    if (job->was_interrupted)
        lua_sethook(L, NULL, 0, 0); /* the run has seen it: Lua need not be stopped as well */
    if (status && job->was_interrupted && job->recording)
        lua_fail(L, "lathe.run: interrupted: run %lld is marked failed, its rows are in %s", (long long)job->id,
                 job->database_path);
    if (status)
        lua_fail_error(L, "lathe.run", &err);
    tell_failures(job);
    lua_handle_push(L, job);
    run_job_close(job);
    return 1;
}

void lua_run_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_JOB, NULL, job_collect);
}

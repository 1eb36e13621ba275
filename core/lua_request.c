/* SPDX-License-Identifier: MIT */
/* A workload's requests, from Lua tables to what the engine is given.
 *
 *     { prompt = "…", at = 0.5, max_tokens = 32, sampling = { temperature = 0.7 }, … }
 *
 * One of prompt (text), tokens (ids) or messages (a chat, through the model's template)
 * says what goes in; a bare text is { prompt = text }. Times are seconds, here and
 * everywhere in Lua; nanoseconds begin behind this file.
 *
 * Texts stay Lua's: the workload's table holds them until lathe.run returns. What is made
 * here (ids, templates' output) lies in userdata that the job's user value holds. */
#include "lua_internal.h"

#include <stdlib.h>
#include <string.h>

#include "service.h"

static const char *const request_fields[] = {
    "prompt",   "prompt_tokens", "tokens", "messages", "special", "bos",     "at",   "max_tokens", "output_tokens",
    "ignore_eos", "predicted", "priority", "class",  "tenant",  "session", "turn", "deadline_s", "slo",
    "sampling", "weight", "correlation_id", "probe", "stop_ids", "forced", NULL,
};
static const char *const slo_fields[] = { "ttft", "tpot", NULL };
static const char *const sampling_fields[] = {
    "temperature", "top_p", "min_p", "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", NULL,
};
static const char *const workload_fields[] = { "requests", "concurrency", "think", "name", "parameters", "source", "draw", NULL };

/* Memory that lives as long as the job: anchored in its user value. */
static void *keep(lua_State *L, int job_index, size_t bytes)
{
    void *memory = lua_newuserdatauv(L, bytes ? bytes : 1, 0);
    lua_getiuservalue(L, job_index, 1);
    lua_insert(L, -2);
    luaL_ref(L, -2);
    lua_pop(L, 1);
    return memory;
}

/* The array of integers on top of the stack, kept. */
static int32_t *keep_ids(lua_State *L, int job_index, const char *what, const char *name, size_t *count)
{
    char text[128];
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: \"%s\" should be an array of token ids, not %s", what, name,
                 lua_describe(L, -1, text, sizeof text));
    int table = lua_gettop(L);
    *count = (size_t)luaL_len(L, table);
    int32_t *ids = keep(L, job_index, *count * sizeof *ids);
    for (size_t i = 0; i < *count; i++) {
        int whole;
        lua_rawgeti(L, table, (lua_Integer)i + 1);
        lua_Integer id = lua_tointegerx(L, -1, &whole);
        if (!whole || id < 0 || id > INT32_MAX)
            lua_fail(L, "%s: element %zu of \"%s\" should be a token id, not %s", what, i + 1, name,
                     lua_describe(L, -1, text, sizeof text));
        ids[i] = (int32_t)id;
        lua_pop(L, 1);
    }
    return ids;
}

static void read_messages(lua_State *L, int job_index, const struct run_job *job, const char *what,
                          struct engine_submit *submit)
{
    struct lathe_error err;
    char *text;
    size_t bytes;
    lua_json_push(L, -1, what);
    if (tokenizer_template(job->model->tokenizer, lua_tostring(L, -1), 1, NULL, &text, &bytes, &err))
        lua_fail_error(L, what, &err);
    char *copy = keep(L, job_index, bytes + 1);
    memcpy(copy, text, bytes + 1);
    free(text);
    lua_pop(L, 1);
    submit->text = copy;
    submit->text_bytes = bytes;
    submit->parse_special = 1; /* the template writes <|im_start|>; bos too, if it wants one */
    submit->add_bos = 0;
}

static void read_prompt(lua_State *L, int request, int job_index, const struct run_job *job, const char *what,
                        struct engine_submit *submit)
{
    char text[128];
    int given = 0;
    size_t bytes;
    submit->parse_special = lua_field_boolean(L, request, what, "special", false);
    submit->add_bos = lua_field_boolean(L, request, what, "bos", true);
    if (lua_getfield(L, request, "prompt") != LUA_TNIL) {
        given++;
        if (lua_type(L, -1) != LUA_TSTRING)
            lua_fail(L, "%s: \"prompt\" should be a text, not %s", what, lua_describe(L, -1, text, sizeof text));
        submit->text = lua_tolstring(L, -1, &bytes);
        submit->text_bytes = bytes;
    }
    lua_pop(L, 1);
    if (lua_getfield(L, request, "tokens") != LUA_TNIL) {
        given++;
        submit->tokens = keep_ids(L, job_index, what, "tokens", &bytes);
        submit->token_count = bytes;
    }
    lua_pop(L, 1);
    if (lua_getfield(L, request, "messages") != LUA_TNIL) {
        given++;
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: \"messages\" should be { { role = \"user\", content = \"…\" }, … }, not %s", what,
                     lua_describe(L, -1, text, sizeof text));
        read_messages(L, job_index, job, what, submit);
    }
    lua_pop(L, 1);
    if (job->clock_kind == CLOCK_KIND_VIRTUAL) { /* a length is all that a simulation needs */
        submit->token_count = given && submit->tokens ? submit->token_count : 0;
        lua_Integer length = lua_field_integer(L, request, what, "prompt_tokens", 1, 1 << 24, 0);
        if (length)
            given++, submit->token_count = (uint64_t)length;
    }
    if (given != 1)
        lua_fail(L, "%s: give one of prompt (text), tokens (ids) and messages (a chat), not %s", what,
                 given ? "several" : "none");
}

/* A wish that the sampler has no option for would be ignored, and the reader never told. */
static void check_wishes(lua_State *L, int table, const char *what, const struct instance *sampler)
{
    const struct lathe_plugin *plugin = sampler->plugin;
    for (size_t i = 0; sampling_fields[i]; i++) {
        bool given = lua_getfield(L, table, sampling_fields[i]) != LUA_TNIL, known = !strcmp(sampling_fields[i], "seed");
        lua_pop(L, 1);
        for (uint32_t j = 0; j < plugin->option_count && !known; j++)
            known = !strcmp(plugin->options[j].name, sampling_fields[i]);
        if (given && !known)
            lua_fail(L, "%s: sampler \"%s\" knows no \"%s\": choose another with lathe.run { sampler = … }", what,
                     plugin->name, sampling_fields[i]);
    }
}

static void read_sampling(lua_State *L, int request, int job_index, const struct run_job *job, const char *what,
                          struct engine_submit *submit)
{
    char inner[160], text[128];
    struct lathe_error err;
    if (lua_getfield(L, request, "sampling") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    if (!lua_istable(L, -1))
        lua_fail(L, "%s: \"sampling\" should be a table, not %s", what, lua_describe(L, -1, text, sizeof text));
    int table = lua_gettop(L);
    snprintf(inner, sizeof inner, "%s: sampling", what);
    lua_check_fields(L, table, inner, sampling_fields, 0);
    check_wishes(L, table, inner, job->parts.sampler);
    struct lathe_sampling *s = keep(L, job_index, sizeof *s);
    const struct lathe_sampler_api *api = job->parts.sampler->api;
    if (api->defaults(job->parts.sampler->self, s, &err))
        lua_fail_error(L, inner, &err);
    /* The ranges are those of <lathe/sampler.h>. */
    s->temperature = (float)lua_field_number(L, table, inner, "temperature", 0, 1000, s->temperature);
    s->top_p = (float)lua_field_number(L, table, inner, "top_p", 1e-6, 1, s->top_p);
    s->min_p = (float)lua_field_number(L, table, inner, "min_p", 0, 0.999999, s->min_p);
    s->top_k = (int32_t)lua_field_integer(L, table, inner, "top_k", 0, INT32_MAX, s->top_k);
    s->repetition_penalty =
        (float)lua_field_number(L, table, inner, "repetition_penalty", 1e-3, 1e3, s->repetition_penalty);
    s->presence_penalty = (float)lua_field_number(L, table, inner, "presence_penalty", -2, 2, s->presence_penalty);
    s->frequency_penalty = (float)lua_field_number(L, table, inner, "frequency_penalty", -2, 2, s->frequency_penalty);
    s->seed = (uint64_t)lua_field_integer(L, table, inner, "seed", 0, INT64_MAX, (lua_Integer)s->seed);
    submit->sampling = s;
    lua_pop(L, 1);
}

static void read_slo(lua_State *L, int request, const char *what, struct engine_submit *submit)
{
    char inner[160], text[128];
    if (lua_getfield(L, request, "slo") != LUA_TNIL) {
        if (!lua_istable(L, -1))
            lua_fail(L, "%s: \"slo\" should be { ttft = seconds, tpot = seconds }, not %s", what,
                     lua_describe(L, -1, text, sizeof text));
        snprintf(inner, sizeof inner, "%s: slo", what);
        lua_check_fields(L, -1, inner, slo_fields, 0);
        submit->slo_ttft_ns = lua_field_seconds(L, lua_gettop(L), inner, "ttft", 0);
        submit->slo_tpot_ns = lua_field_seconds(L, lua_gettop(L), inner, "tpot", 0);
    }
    lua_pop(L, 1);
}

static const char *short_text(lua_State *L, int request, const char *what, const char *name)
{
    const char *text = lua_field_string(L, request, what, name, NULL);
    if (text && strlen(text) > 63)
        lua_fail(L, "%s: \"%s\" may have 63 bytes, but has %zu", what, name, strlen(text));
    return text;
}

/* forced = { ids }: the answer is given (teacher forcing), and how likely it was is what is asked. */
static void read_forced(lua_State *L, int request, int job_index, const struct run_job *job, const char *what,
                        struct engine_submit *submit)
{
    size_t count;
    if (lua_getfield(L, request, "forced") != LUA_TNIL) {
        if (submit->max_output_tokens || submit->forced_output_tokens)
            lua_fail(L, "%s: \"forced\" says how many tokens come out: leave out max_tokens and output_tokens", what);
        submit->forced_tokens = keep_ids(L, job_index, what, "forced", &count);
        if (count < 1 || count > 1 << 24)
            lua_fail(L, "%s: \"forced\" should have 1 to %d token ids, but has %zu", what, 1 << 24, count);
        for (size_t i = 0; i < count; i++)
            if ((uint32_t)submit->forced_tokens[i] >= job->model->info.vocab_tokens)
                lua_fail(L, "%s: element %zu of \"forced\" is %d, but this model's tokens are 0 to %u", what, i + 1,
                         submit->forced_tokens[i], job->model->info.vocab_tokens - 1);
        submit->forced_output_tokens = (uint32_t)count;
    }
    lua_pop(L, 1);
}

void lua_check_request(lua_State *L, int request, int job_index, const struct run_job *job, size_t number,
                       struct engine_submit *submit)
{
    char what[96], text[128];
    if (number)
        snprintf(what, sizeof what, "%s: request %zu", job->who, number);
    else
        snprintf(what, sizeof what, "engine:post");
    if (lua_type(L, request) == LUA_TSTRING) { /* a bare text: the same as { prompt = text } */
        size_t bytes;
        submit->text = lua_tolstring(L, request, &bytes);
        submit->text_bytes = bytes;
        submit->add_bos = 1;
        submit->want_text = 1;
        submit->planned_ns = 0;
        submit->probes = UINT32_MAX;
        submit->interventions = UINT64_MAX;
        return;
    }
    if (!lua_istable(L, request))
        lua_fail(L, "%s: should be a table or a text, not %s", what, lua_describe(L, request, text, sizeof text));
    lua_check_fields(L, request, what, request_fields, 0);
    read_prompt(L, request, job_index, job, what, submit);
    read_sampling(L, request, job_index, job, what, submit);
    read_slo(L, request, what, submit);
    submit->want_text = 1;
    submit->planned_ns = lua_field_seconds(L, request, what, "at", 0);
    submit->max_output_tokens = (uint32_t)lua_field_integer(L, request, what, "max_tokens", 1, 1 << 24, 0);
    submit->forced_output_tokens = (uint32_t)lua_field_integer(L, request, what, "output_tokens", 1, 1 << 24, 0);
    submit->ignore_eos = lua_field_boolean(L, request, what, "ignore_eos", false);
    submit->predicted_output_tokens = (uint32_t)lua_field_integer(L, request, what, "predicted", 0, 1 << 24, 0);
    submit->priority = (int32_t)lua_field_integer(L, request, what, "priority", INT32_MIN, INT32_MAX, 0);
    submit->weight = lua_field_weight(L, request, what);
    submit->class_name = short_text(L, request, what, "class");
    submit->tenant = short_text(L, request, what, "tenant");
    submit->correlation_id = short_text(L, request, what, "correlation_id");
    submit->session = (uint64_t)lua_field_integer(L, request, what, "session", 0, INT64_MAX, 0);
    submit->turn = (uint32_t)lua_field_integer(L, request, what, "turn", 0, UINT32_MAX, 0);
    int64_t deadline = lua_field_seconds(L, request, what, "deadline_s", 0);
    if (deadline && job->concurrency)
        lua_fail(L, "%s: \"deadline_s\" counts from the arrival, which in a closed loop nobody knows beforehand", what);
    if (deadline) /* after arrival, in Lua; absolute, in the engine */
        submit->deadline_ns = submit->planned_ns + deadline;
    if (lua_getfield(L, request, "stop_ids") != LUA_TNIL) {
        size_t count;
        submit->stop_ids = keep_ids(L, job_index, what, "stop_ids", &count);
        if (count > 8)
            lua_fail(L, "%s: \"stop_ids\" may have 8 ids, but has %zu", what, count);
        submit->stop_id_count = (uint32_t)count;
    }
    lua_pop(L, 1);
    /* lua_trace.c and lua_intervene.c say which there are */
    submit->probes = lua_field_boolean(L, request, what, "probe", true) ? UINT32_MAX : 0;
    submit->interventions = UINT64_MAX;
    read_forced(L, request, job_index, job, what, submit);
}

void lua_check_workload(lua_State *L, int index, int job_index, struct run_job *job)
{
    char text[128];
    index = lua_absindex(L, index);
    const int top = lua_gettop(L);
    if (!lua_istable(L, index))
        lua_fail(L, "lathe.run: \"workload\" should be an array of requests, or what a lathe.workload function makes, "
                    "not %s", lua_describe(L, index, text, sizeof text));
    if (job->clock_kind == CLOCK_KIND_VIRTUAL && lua_getfield(L, index, "draw") == LUA_TUSERDATA) {
        lua_check_fields(L, index, "lathe.run: workload", workload_fields, 0);
        job->workload = lua_check_drawn(L, -1, "lathe.run: workload"); /* the description holds it until the run is over */
        job->concurrency = (uint32_t)lua_field_integer(L, index, "lathe.run: workload", "concurrency", 0, 1 << 20, 0);
        job->think_ns = lua_field_seconds(L, index, "lathe.run: workload", "think", 0);
        lua_pop(L, 1);
        return;
    }
    lua_settop(L, top);
    if (lua_getfield(L, index, "requests") != LUA_TNIL) {
        lua_check_fields(L, index, "lathe.run: workload", workload_fields, 0);
        if (!lua_istable(L, -1))
            lua_fail(L, "lathe.run: workload: \"requests\" should be an array, not %s",
                     lua_describe(L, -1, text, sizeof text));
        job->concurrency = (uint32_t)lua_field_integer(L, index, "lathe.run: workload", "concurrency", 0, 1 << 20, 0);
        job->think_ns = lua_field_seconds(L, index, "lathe.run: workload", "think", 0);
    } else {
        lua_pop(L, 1);
        lua_pushvalue(L, index);
    }
    int array = lua_gettop(L);
    lua_Integer count = luaL_len(L, array);
    if (count < 1)
        lua_fail(L, "lathe.run: the workload has no requests");
    if (count > 1 << 24)
        lua_fail(L, "lathe.run: the workload has %lld requests, more than %d", (long long)count, 1 << 24);
    job->requests = calloc((size_t)count, sizeof *job->requests);
    if (!job->requests)
        lua_fail(L, "lathe.run: no memory left for %lld requests", (long long)count);
    job->count = (size_t)count;
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, array, i);
        lua_check_request(L, lua_gettop(L), job_index, job, (size_t)i, &job->requests[i - 1].submit);
        lua_settop(L, array);
    }
    lua_pop(L, 1);
}

/* SPDX-License-Identifier: MIT */
/* lathe.engine { model = …, bus = "async", workers = { model = 2 }, … }: an engine that the
 * script drives itself. The fields are lathe.run's, but for the workload: requests are posted.
 *
 *     local e <close> = lathe.engine { model = model, bus = "shm" }
 *     local a, b = e:post "One", e:post { prompt = "Two", max_tokens = 8 }
 *     print(a:await().text, b:await().text)   -- awaiting one advances all
 *     e:advance(0.2)                          -- what comes in 0.2 s; → requests not yet done
 *     e:swap("bus", "sync")                   -- the others' tokens stay what they would have been
 *     e:scale("model", 2)   e:health()   e:stats()   e:call("tokenizer", "encode", { text = "Hi" })
 *     e:results():query "select * from service_event where run_id = :run"
 *
 * Everything happens on the script's thread, in await, advance, scale and close; between them
 * only the workers of the bus go on with what they have. */
#include "lua_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lua_payload.h"

enum { JOB_VALUE = 1, DESCRIPTION_VALUE = 2, MAX_SWAPPED = 8 };

struct lua_engine {
    struct run_job *job; /* in the job's userdata, user value 1; the description is user value 2 */
    size_t capacity;     /* of job->requests */
    size_t *flying;      /* indexes of those not done */
    size_t flying_count;
    bool open;
    struct lua_swapped { /* buses that were swapped in, to be swapped in again */
        struct instance *bus;
        char name[64];
    } swapped[MAX_SWAPPED];
    size_t swapped_count;
};

/* One posted request; user value 1 is the engine. */
struct lua_post {
    struct lua_engine *engine;
    size_t index;
};


static struct lua_engine *check_engine(lua_State *L, int index, const char *what)
{
    char text[128];
    struct lua_engine *e = luaL_testudata(L, index, LUA_LATHE_ENGINE);
    if (!e)
        lua_fail(L, "%s: should be called with a colon on an engine, not on %s", what,
                 lua_describe(L, index, text, sizeof text));
    if (!e->open)
        lua_fail(L, "%s: the engine is used after it was closed", what);
    return e;
}

struct run_job *lua_engine_job(lua_State *L, int index, const char *what)
{
    return check_engine(L, index, what)->job;
}

/* The run fails with it: rows that were recorded stay. */
static void fail_engine(lua_State *L, struct lua_engine *e, const char *what, int status, struct lathe_error *err)
{
    struct lathe_error why = *err;
    e->open = false;
    run_job_end(e->job, status, &why);
    lua_fail_error(L, what, err);
}

/* ── driving ───────────────────────────────────────────────────────────────────────── */

static int read_all(struct lua_engine *e, struct lathe_error *err)
{
    for (size_t i = e->flying_count; i-- > 0;) {
        bool finished;
        int status = planned_request_read(e->job->deployment, &e->job->requests[e->flying[i]], &finished, err);
        if (status != LATHE_OK)
            return status;
        if (finished)
            e->flying[i] = e->flying[--e->flying_count];
    }
    return LATHE_OK;
}

/* Turns until `wanted` is done (SIZE_MAX: until none is left), or until the clock says so. */
static void advance(lua_State *L, struct lua_engine *e, const char *what, size_t wanted, int64_t until_ns)
{
    struct run_job *job = e->job;
    struct lathe_error err;
    while (e->flying_count > 0 && clock_now(&job->clock) < until_ns) {
        int state, status;
        int64_t wake;
        if (interrupt_wanted())
            lua_fail(L, "%s: interrupted", what);
        if ((status = deployment_turn(job->deployment, until_ns, &state, &wake, &err)) != LATHE_OK ||
            (status = read_all(e, &err)) != LATHE_OK)
            fail_engine(L, e, what, status, &err);
        if (wanted != SIZE_MAX && job->requests[wanted].finish_reason != LATHE_FINISH_NONE)
            return;
        if (state == ENGINE_IDLE && e->flying_count > 0) {
            if (wake == INT64_MAX)
                lua_fail(L, "%s: %zu requests wait and no stage will ever run them: the scheduler or batching plugin idles "
                         "with work at hand", what, e->flying_count);
            clock_wait_until(&job->clock, wake < until_ns ? wake : until_ns);
        }
    }
}

/* ── requests ──────────────────────────────────────────────────────────────────────── */

static int grow(struct lua_engine *e)
{
    struct run_job *job = e->job;
    if (job->count < e->capacity)
        return 1;
    size_t capacity = e->capacity ? 2 * e->capacity : 16;
    struct planned_request *requests = realloc(job->requests, capacity * sizeof *requests);
    if (requests)
        job->requests = requests;
    size_t *flying = realloc(e->flying, capacity * sizeof *flying);
    if (flying)
        e->flying = flying;
    if (!requests || !flying)
        return 0;
    e->capacity = capacity;
    return 1;
}

static int engine_post(lua_State *L)
{
    struct lua_engine *e = check_engine(L, 1, "engine:post");
    struct run_job *job = e->job;
    struct engine_submit submit = { 0 };
    struct deployment_request request = { 0 };
    struct lathe_error err;

    lua_settop(L, 2);
    lua_getiuservalue(L, 1, JOB_VALUE); /* index 3 */
    lua_check_request(L, 2, 3, job, 0, &submit);
    submit.probes &= lua_all_probes(job);
    submit.interventions &= lua_all_interventions(job);
    if (submit.deadline_ns) /* counted from now */
        submit.deadline_ns += clock_now(&job->clock) - submit.planned_ns;
    submit.planned_ns = -1;
    if (!grow(e))
        lua_fail(L, "engine:post: no memory left for another request");

    int status = deployment_submit(job->deployment, &submit, &request, &err);
    if (status == LATHE_EFULL || status == LATHE_EBUSY) { /* try again later: no request was made */
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        lua_pushinteger(L, status);
        return 3;
    }
    struct planned_request *r = &job->requests[job->count];
    memset(r, 0, sizeof *r);
    r->id = request.id;
    r->replica = request.replica;
    r->submit.want_text = 1;
    r->submit.max_output_tokens = submit.max_output_tokens;
    if (status != LATHE_OK) {
        r->finish_reason = LATHE_FINISH_ERROR;
        snprintf(r->error, sizeof r->error, "%.*s", (int)sizeof r->error - 1, err.message);
    } else {
        e->flying[e->flying_count++] = job->count;
    }
    struct lua_post *post = lua_newuserdatauv(L, sizeof *post, 1);
    *post = (struct lua_post){ .engine = e, .index = job->count++ };
    luaL_setmetatable(L, LUA_LATHE_POST);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    return 1;
}

static struct lua_post *check_post(lua_State *L, const char *what)
{
    char text[128];
    struct lua_post *post = luaL_testudata(L, 1, LUA_LATHE_POST);
    if (!post)
        lua_fail(L, "%s: should be called with a colon on what engine:post gave, not on %s", what,
                 lua_describe(L, 1, text, sizeof text));
    if (!post->engine->open)
        lua_fail(L, "%s: its engine was closed", what);
    return post;
}

static int post_await(lua_State *L)
{
    struct lua_post *post = check_post(L, "await");
    struct lua_engine *e = post->engine;
    if (e->job->requests[post->index].finish_reason == LATHE_FINISH_NONE)
        advance(L, e, "await", post->index, INT64_MAX);
    lua_push_output(L, &e->job->requests[post->index]);
    return 1;
}

static int post_done(lua_State *L)
{
    const struct lua_post *post = check_post(L, "done");
    lua_pushboolean(L, post->engine->job->requests[post->index].finish_reason != LATHE_FINISH_NONE);
    return 1;
}

static int post_cancel(lua_State *L)
{
    const struct lua_post *post = check_post(L, "cancel");
    const struct planned_request *r = &post->engine->job->requests[post->index];
    if (r->finish_reason == LATHE_FINISH_NONE)
        deployment_cancel(post->engine->job->deployment, (struct deployment_request){ r->id, r->replica });
    return 0;
}

/* ── the engine ────────────────────────────────────────────────────────────────────── */

static int engine_advance(lua_State *L)
{
    struct lua_engine *e = check_engine(L, 1, "engine:advance");
    lua_Number seconds = luaL_optnumber(L, 2, -1);
    if (!(seconds <= 1e9))
        lua_fail(L, "engine:advance: seconds should be a number up to 1e9");
    advance(L, e, "engine:advance", SIZE_MAX,
            seconds < 0 ? INT64_MAX : clock_now(&e->job->clock) + (int64_t)(seconds * 1e9));
    lua_pushinteger(L, (lua_Integer)e->flying_count);
    return 1;
}

static int engine_scale(lua_State *L)
{
    struct lua_engine *e = check_engine(L, 1, "engine:scale");
    const char *service = luaL_checkstring(L, 2);
    lua_Integer count = luaL_checkinteger(L, 3);
    struct lathe_error err;
    int status = count < 0 || count > INT32_MAX
                     ? lathe_fail(&err, LATHE_ERANGE, "%lld workers can't be had", (long long)count)
                     : deployment_scale(e->job->deployment, service, (uint32_t)count, &err);
    if (status != LATHE_OK) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        lua_pushinteger(L, status);
        return 3;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* The bus of that name with its own options: the one it was opened with, one that was swapped in
 * before, or a new one. */
static int find_bus(lua_State *L, struct lua_engine *e, const char *name, struct instance **bus, struct lathe_error *err)
{
    struct stage stage = { 0 };
    if (!strcmp(e->job->parts.bus->entry->name, name)) {
        *bus = e->job->parts.bus;
        return LATHE_OK;
    }
    for (size_t i = 0; i < e->swapped_count; i++)
        if (!strcmp(e->swapped[i].name, name)) {
            *bus = e->swapped[i].bus;
            return LATHE_OK;
        }
    if (e->swapped_count == MAX_SWAPPED || strlen(name) >= sizeof e->swapped->name)
        return lathe_fail(err, LATHE_ERANGE, "an engine can have %d buses in turn, no more", MAX_SWAPPED + 1);
    int status = stage_choose(&stage, LATHE_KIND_BUS, name, err);
    if (status == LATHE_OK)
        status = stage_create(lua_lathe_of(L)->registry, LATHE_KIND_BUS, &stage, bus, err);
    stage_clear(&stage);
    if (status != LATHE_OK)
        return status;
    e->swapped[e->swapped_count].bus = *bus;
    snprintf(e->swapped[e->swapped_count++].name, sizeof e->swapped->name, "%s", name);
    return LATHE_OK;
}

/* engine:swap("bus", "sync"): between steps, whatever is under way. */
static int engine_swap(lua_State *L)
{
    struct lua_engine *e = check_engine(L, 1, "engine:swap");
    const char *kind = luaL_checkstring(L, 2), *name = luaL_checkstring(L, 3);
    struct lathe_error err;
    struct instance *bus;
    int status;
    if (strcmp(kind, "bus"))
        lua_fail(L, "engine:swap: \"bus\" is what can be swapped, not \"%s\"", kind);
    if (find_bus(L, e, name, &bus, &err))
        lua_fail_error(L, "engine:swap", &err);
    while ((status = deployment_swap_bus(e->job->deployment, bus, &err)) == LATHE_ESTATE) {
        int state;
        int64_t wake;
        if ((status = deployment_turn(e->job->deployment, INT64_MAX, &state, &wake, &err)) != LATHE_OK ||
            (status = read_all(e, &err)) != LATHE_OK)
            fail_engine(L, e, "engine:swap", status, &err);
    }
    if (status != LATHE_OK)
        lua_fail_error(L, "engine:swap", &err);
    return 0;
}

/* engine:call(service, method[, table]) → table; or nil, message, code */
static int engine_call(lua_State *L)
{
    struct lua_engine *e = check_engine(L, 1, "engine:call");
    struct lua_payload_bus on = { .model = engine_model_info(deployment_engine(e->job->deployment, 0)) };
    on.bus = deployment_bus(e->job->deployment, &on.bus_self);
    return lua_payload_call(L, &on, luaL_checkstring(L, 2), luaL_checkstring(L, 3), 4);
}

/* engine:results() → the run so far, as lathe.run's handle: :query sees what was recorded until now. */
static int engine_results(lua_State *L)
{
    struct lua_engine *e = check_engine(L, 1, "engine:results");
    struct lathe_error err;
    if (!e->job->recording)
        lua_fail(L, "engine:results: this engine records nothing (trace = false)");
    if (recorder_flush(e->job->open_recorder, &err))
        lua_fail_error(L, "engine:results", &err);
    struct run_job view = *e->job; /* its requests stay the engine's */
    view.requests = NULL;
    view.count = 0;
    view.elapsed_s = (double)clock_now(&e->job->clock) * 1e-9;
    lua_handle_push(L, &view);
    return 1;
}

/* ── making and closing ────────────────────────────────────────────────────────────── */

static int engine_close_lua(lua_State *L)
{
    struct lua_engine *e = luaL_checkudata(L, 1, LUA_LATHE_ENGINE);
    struct lathe_error err;
    int status = LATHE_OK;
    if (e->open) {
        e->open = false;
        status = run_job_end(e->job, LATHE_OK, &err);
    }
    while (e->swapped_count > 0)
        instance_destroy(e->swapped[--e->swapped_count].bus);
    free(e->flying);
    e->flying = NULL;
    e->flying_count = 0;
    if (status != LATHE_OK)
        lua_fail_error(L, "engine:close", &err);
    return 0;
}

int lua_engine_new(lua_State *L)
{
    struct lathe_error err;
    struct run_job *job = lua_job_read(L, "lathe.engine", false); /* index 2 */
    struct lua_engine *e = lua_newuserdatauv(L, sizeof *e, 2);
    memset(e, 0, sizeof *e);
    e->job = job;
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, JOB_VALUE);
    lua_pushvalue(L, 1); /* holds the model */
    lua_setiuservalue(L, -2, DESCRIPTION_VALUE);
    luaL_setmetatable(L, LUA_LATHE_ENGINE);
    if (run_job_open(job, &err))
        lua_fail_error(L, "lathe.engine", &err);
    e->open = true;
    return 1;
}

static const luaL_Reg engine_methods[] = {
    { "post", engine_post },     { "advance", engine_advance }, { "scale", engine_scale },
    { "health", lua_engine_health }, { "stats", lua_engine_stats }, { "call", engine_call },
    { "results", engine_results }, { "swap", engine_swap }, { "close", engine_close_lua }, { NULL, NULL },
};
static const luaL_Reg post_methods[] = {
    { "await", post_await }, { "done", post_done }, { "cancel", post_cancel }, { NULL, NULL },
};

static int post_collect(lua_State *L)
{
    (void)L; /* the request goes on; its output is the engine's */
    return 0;
}

void lua_engine_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_ENGINE, engine_methods, engine_close_lua);
    lua_class(L, LUA_LATHE_POST, post_methods, post_collect);
}

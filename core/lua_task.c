/* SPDX-License-Identifier: MIT */
/* A run that was described and waits to be carried out: lathe.run in pieces, for lathe.sweep.
 *
 *     local task = core.task(description)     -- read and checked here; errors are the script's
 *     task:key()  task:database()  task:recording()
 *     task:run()                              -- on this thread, or
 *     task:start()                            -- on one of its own, without Lua
 *     core.wait_any { task, … } → index       -- of one that ended
 *     task:finish() → handle, requests that failed, why the first did
 *                   | nil, sentence, run's number (nil: it left no row)
 *
 * A thread of its own is for virtual time only: in real time runs would disturb each other's
 * figures. Model and tokenizer are loaded again for it, since the run's clock hangs on them; the
 * recorder is the process's one for that file (recorder_share.c). Signals stay the first
 * thread's, whose handler sets a flag that every run looks at between its steps. */
#include "lua_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

enum { JOB_VALUE = 1, DESCRIPTION_VALUE = 2 };

struct lua_task {
    struct run_job *job; /* in the job's userdata, user value 1; the description is user value 2 */
    struct loaded_model own;       /* of a run on a thread of its own */
    struct loaded_model *others;   /* the same, of several models: those after the first; (model_count) */
    struct workload *own_workload; /* the same; NULL: its requests are listed */
    pthread_t thread;
    bool started, threaded, finished;
    bool ended; /* under ended_lock */
    int status;
    struct lathe_error err;
};

static pthread_mutex_t ended_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some_ended = PTHREAD_COND_INITIALIZER;

static struct lua_task *check_task(lua_State *L, int index)
{
    return luaL_checkudata(L, index, LUA_LATHE_TASK);
}

static void close_own(struct lua_task *task)
{
    if (task->job)
        run_job_close(task->job); /* before the model that its parts were made for */
    loaded_model_close(&task->own);
    for (uint32_t i = 1; task->others && i < task->job->model_count; i++)
        loaded_model_close(&task->others[i]);
    free(task->others);
    task->others = NULL;
    workload_close(task->own_workload);
    task->own_workload = NULL;
}

static int task_collect(lua_State *L)
{
    struct lua_task *task = check_task(L, 1);
    if (task->threaded)
        pthread_join(task->thread, NULL);
    close_own(task);
    memset(task, 0, sizeof *task);
    return 0;
}

int lua_task_new(lua_State *L)
{
    struct run_job *job = lua_job_read(L, "lathe.run", true); /* description, job */
    job->quiet = true;
    struct lua_task *task = lua_newuserdatauv(L, sizeof *task, 2);
    memset(task, 0, sizeof *task);
    task->job = job;
    luaL_setmetatable(L, LUA_LATHE_TASK);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, JOB_VALUE);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, DESCRIPTION_VALUE);
    return 1;
}

static int task_key(lua_State *L)
{
    lua_pushstring(L, check_task(L, 1)->job->info.key);
    return 1;
}

static int task_database(lua_State *L)
{
    lua_pushstring(L, check_task(L, 1)->job->database);
    return 1;
}

static int task_recording(lua_State *L)
{
    lua_pushboolean(L, check_task(L, 1)->job->recording);
    return 1;
}

static struct lua_task *begin(lua_State *L)
{
    struct lua_task *task = check_task(L, 1);
    if (task->started)
        lua_fail(L, "lathe.run: a run is carried out once");
    task->started = true;
    return task;
}

static int task_run(lua_State *L)
{
    struct lua_task *task = begin(L);
    task->status = run_job(task->job, &task->err);
    task->ended = true;
    return 0;
}

/* Each model a second time, since the run's clock hangs on it. */
static int copy_models(struct lua_task *task, struct lathe_error *err)
{
    struct run_job *job = task->job;
    int status = loaded_model_copy(job->registry, job->model, &task->own, err);
    if (status)
        return status;
    job->model = &task->own;
    job->parts.model = task->own.model;
    job->parts.tokenizer = task->own.tokenizer;
    if (!job->model_count)
        return LATHE_OK;
    task->others = calloc(job->model_count, sizeof *task->others);
    if (!task->others)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for %u models", job->model_count);
    job->models[0] = &task->own;
    job->groups[0].model = task->own.model;
    for (uint32_t i = 1; i < job->model_count && !status; i++) {
        status = loaded_model_copy(job->registry, job->models[i], &task->others[i], err);
        if (!status)
            job->models[i] = &task->others[i], job->groups[i].model = task->others[i].model;
    }
    return status;
}

static void *thread_main(void *user)
{
    struct lua_task *task = user;
    struct run_job *job = task->job;
    host_set_thread_roles(LATHE_THREAD_MAIN | LATHE_THREAD_LOADER | LATHE_THREAD_ENGINE | LATHE_THREAD_WORKER);
    int status = copy_models(task, &task->err);
    if (!status && job->workload && !(status = workload_copy(job->workload, &task->own_workload, &task->err)))
        job->workload = task->own_workload; /* several runs may have been given the same */
    if (!status)
        status = run_job(job, &task->err);
    pthread_mutex_lock(&ended_lock);
    task->status = status;
    task->ended = true;
    pthread_cond_broadcast(&some_ended);
    pthread_mutex_unlock(&ended_lock);
    return NULL;
}

/* task:start([really]): `really` leaves the clock unasked; for tests of the threads. */
static int task_start(lua_State *L)
{
    struct lua_task *task = check_task(L, 1);
    sigset_t all, before;
    if (strcmp(task->job->info.clock, "virtual") && !lua_toboolean(L, 2))
        lua_fail(L, "runs side by side would disturb each other in real time: give clock = \"virtual\", or jobs = 1");
    begin(L);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: handlers belong to the first thread */
    int failed = pthread_create(&task->thread, NULL, thread_main, task);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        lua_fail(L, "lathe.run: no thread for a run: %s; give fewer jobs", strerror(failed));
    task->threaded = true;
    return 0;
}

static bool has_ended(struct lua_task *task)
{
    return !task->threaded || task->ended;
}

int lua_task_wait_any(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer count = luaL_len(L, 1), found = 0;
    luaL_argcheck(L, count > 0 && count <= 1024, 1, "1 to 1024 tasks");
    struct lua_task **tasks = lua_newuserdatauv(L, (size_t)count * sizeof *tasks, 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(L, 1, i + 1);
        tasks[i] = check_task(L, -1);
        lua_pop(L, 1);
    }
    pthread_mutex_lock(&ended_lock);
    for (;;) {
        for (lua_Integer i = 0; !found && i < count; i++)
            found = has_ended(tasks[i]) ? i + 1 : 0;
        if (found)
            break;
        pthread_cond_wait(&some_ended, &ended_lock); /* Ctrl-C ends the runs, and that ends this */
    }
    pthread_mutex_unlock(&ended_lock);
    lua_pushinteger(L, found);
    return 1;
}

static int task_finish(lua_State *L)
{
    struct lua_task *task = check_task(L, 1);
    struct run_job *job = task->job;
    if (!task->started || task->finished)
        lua_fail(L, "lathe.run: a run is finished once, after it was started");
    if (task->threaded)
        pthread_join(task->thread, NULL);
    task->threaded = false;
    task->finished = true;
    if (!task->status) {
        const struct planned_request *first;
        lua_Integer failed = (lua_Integer)lua_job_failures(job, &first);
        lua_pushstring(L, first ? first->error : NULL);
        lua_handle_push(L, job); /* which takes the requests and the figures */
        lua_insert(L, -2);
        lua_pushinteger(L, failed);
        lua_insert(L, -2);
    } else {
        lua_pushnil(L);
        lua_pushstring(L, task->err.message);
        job->id ? lua_pushinteger(L, job->id) : lua_pushnil(L);
    }
    close_own(task);
    return 3;
}

static const luaL_Reg methods[] = {
    { "key", task_key }, { "database", task_database }, { "recording", task_recording }, { "run", task_run },
    { "start", task_start }, { "finish", task_finish }, { NULL, NULL },
};

void lua_task_register(lua_State *L)
{
    lua_class(L, LUA_LATHE_TASK, methods, task_collect);
}

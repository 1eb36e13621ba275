/* SPDX-License-Identifier: MIT */
/* What the files of the Lua binding share, and nobody else includes but `lathe run`.
 *
 *   lua_state.c     one state: libraries, require, strict globals, errors, interrupts
 *   lua_check.c     arguments: fields, types, ranges; errors at the caller's line
 *   lua_json.c      Lua values to JSON and back
 *   lua_payload.c   tables to messages of services and back (lua_payload.h)
 *   lua_model.c     lathe.model
 *   lua_request.c   a workload's requests, as the engine wants them
 *   lua_workload.c  workloads that are drawn in C
 *   lua_trace.c     `trace = …`: what to record
 *   lua_run.c       lathe.run: reads the description, hands it to run_job.c
 *   lua_task.c      a run that was described and waits to be carried out: lathe.sweep's
 *   lua_sweep.c     what lathe.sweep needs beside it: a held recorder, rows of points that failed
 *   lua_run_config.c  what a run was, as JSON
 *   lua_handle.c    what lathe.run returns, and lathe.sql
 *   lua_bus.c       lathe.bus: a bus by itself, to be measured
 *   lua_probe.c     one probe: format, layers, heads, positions, whose
 *   lua_intervene.c interventions
 *   lua_activations.c  what layers did, back from the database
 *   lua_engine.c    lathe.engine: an engine that a script drives itself, scaling, calls by name
 *   lua_health.c    how it fares
 *
 * Errors. Whatever is wrong with what the script wrote is a Lua error whose message
 * starts with the script's line: the innermost function that is not the Lua library's
 * own. C resources hang on userdata, so an error leaks nothing. [main] throughout. */
#ifndef CORE_LUA_INTERNAL_H
#define CORE_LUA_INTERNAL_H

#include <stdbool.h>

#include <lauxlib.h>
#include <lua.h>
#include <sqlite3.h>

#include "interrupt.h"
#include "run_job.h"
#include "stages.h"

#define LUA_LATHE_MODEL "lathe.model"
#define LUA_LATHE_RUN "lathe.run"
#define LUA_LATHE_SQL "lathe.sql"
#define LUA_LATHE_JOB "lathe.job"
#define LUA_LATHE_ENGINE "lathe.engine"
#define LUA_LATHE_POST "lathe.post"
#define LUA_LATHE_TASK "lathe.task"
#define LUA_LATHE_WORKLOAD "lathe.workload"

/* One `lathe run`: what the command line said. Lives in cmd_run.c, outlives the state. */
struct lua_lathe {
    struct registry *registry;
    struct stage_overrides overrides;
    const char *script;   /* as it was named */
    char name[128];       /* its file name without .lua */
    char *question;       /* its first comment line, or NULL */
    char *argv_json;
    const char *database; /* --database, or NULL */
    bool quiet;
    bool resume;          /* --resume: every lathe.run */
    bool help;            /* describe the options, run nothing */
    bool stopped;         /* --help has said all there is: the error that ended the script is none */
    bool usage;           /* the error is about the script's options: status 2 */
    size_t memory_left;   /* bytes that the state may still take */
    char library[4096];   /* where the Lua library lies: its frames are not the caller */
};

/* lua_state.c */
/* A state with everything registered. NULL: no memory, or the library isn't found. */
lua_State *lua_lathe_open(struct lua_lathe *lathe, struct lathe_error *err);
struct lua_lathe *lua_lathe_of(lua_State *L);
/* Calls what is on the stack with `arguments`; the error message (one line, with the
 * script's line) goes to `err`. */
int lua_lathe_call(lua_State *L, int arguments, int results, struct lathe_error *err);
/* With --help, a script that gets as far as this has no options to describe: it ends here. */
void lua_stop_if_help(lua_State *L);
/* Ctrl-C also ends Lua code that loops; until interrupt_unwatch. */
void lua_interrupt_watch(lua_State *L);

/* lua_check.c */
/* Raises `message` at the caller's line. */
__attribute__((format(printf, 2, 3), noreturn)) void lua_fail(lua_State *L, const char *format, ...);
/* The same for a failed call of the core. */
__attribute__((noreturn)) void lua_fail_error(lua_State *L, const char *what, const struct lathe_error *err);
/* A description for messages: `a string ("abc")`, `the number 1.5`, `nothing`. */
const char *lua_describe(lua_State *L, int index, char *text, size_t capacity);
/* Every key of the table must be one of `names` (NULL-terminated), or an integer 1 … positional. */
void lua_check_fields(lua_State *L, int table, const char *what, const char *const *names, lua_Integer positional);
/* Fields of a table; absent: the given default. Wrong type or range is an error. Strings
 * stay the table's. */
const char *lua_field_string(lua_State *L, int table, const char *what, const char *name, const char *absent);
lua_Integer lua_field_integer(lua_State *L, int table, const char *what, const char *name, lua_Integer min,
                              lua_Integer max, lua_Integer absent);
double lua_field_number(lua_State *L, int table, const char *what, const char *name, double min, double max,
                        double absent);
bool lua_field_boolean(lua_State *L, int table, const char *what, const char *name, bool absent);
/* Seconds to nanoseconds, at most about 292 years. */
int64_t lua_field_seconds(lua_State *L, int table, const char *what, const char *name, double absent);
/* "weight", a tenant's share beside 1: in thousandths, 0 if absent. */
uint32_t lua_field_weight(lua_State *L, int table, const char *what);
/* nil: left alone; "name"; or { "name", option = value, … }. */
void lua_check_stage(lua_State *L, int index, const char *what, int kind, struct stage *stage);
/* Fields of the table on top of the stack. */
void lua_set_integer(lua_State *L, const char *name, int64_t value);
void lua_set_number(lua_State *L, const char *name, double value);
void lua_set_boolean(lua_State *L, const char *name, bool value);
void lua_set_text(lua_State *L, const char *name, const char *value);
/* A metatable: methods, __name, __gc and __close. `close` may be NULL. Leaves nothing. */
void lua_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction collect);

/* lua_json.c */
/* Pushes the JSON text of the value. What JSON can't say (functions, NaN, cycles) is an error. */
void lua_json_push(lua_State *L, int index, const char *what);
/* The same, malloc'd and without errors: NULL when JSON can't say it or memory ran out. */
char *lua_json_text(lua_State *L, int index);
int lua_json_encode(lua_State *L);
int lua_json_decode(lua_State *L);

/* lua_model.c */
struct lua_model {
    struct loaded_model loaded;
    bool open;
};
int lua_model_new(lua_State *L);
void lua_model_register(lua_State *L);
struct lua_model *lua_check_model(lua_State *L, int index, const char *what);

/* One request at `request` (absolute), as a workload would hold it; `number` is for sentences (0: posted). */
void lua_check_request(lua_State *L, int request, int job_index, const struct run_job *job, size_t number,
                       struct engine_submit *submit);
/* lua_request.c: fills job->requests as written; memory hangs on the job's userdata at `job_index`. */
void lua_check_workload(lua_State *L, int index, int job_index, struct run_job *job);

/* lua_run_config.c: pushes it, the seed left out, so that runs which differ in it alone have one hash.
 * The description is at stack index 1. */
void lua_push_configuration(lua_State *L, const struct run_job *job);

/* lua_workload.c */
struct workload;
extern const luaL_Reg lua_workload_functions[]; /* of lathe.core */
/* The open source at `index` (a workload's field `draw`), or an error; the userdata owns it. */
struct workload *lua_check_drawn(lua_State *L, int index, const char *what);
void lua_workload_register(lua_State *L);

/* lua_probe.c */
/* Bits for the array of numbers in field `name`, each below `limit`; all of them if it is absent. */
void lua_read_mask(lua_State *L, int table, const char *what, const char *name, uint32_t limit, uint64_t mask[4]);
/* Field positions = { first, last } or { first }: absolute, inclusive; false: absent, and all (0, −1). */
bool lua_read_positions(lua_State *L, int table, const char *what, int32_t *first, int32_t *last);
/* Field requests = { 1, 3 } or "all" or absent: is each of the job's requests in it? NULL: all. The memory is pushed. */
const bool *lua_read_requests(lua_State *L, int table, const char *what, const struct run_job *job);
/* Adds the probe that the table, or text, at `index` describes, of a format up to `most`. */
void lua_read_probe(lua_State *L, int index, const char *what, struct run_job *job, uint32_t most);
/* The bits of all of the job's probes, and of all its interventions. */
uint32_t lua_all_probes(const struct run_job *job);
uint64_t lua_all_interventions(const struct run_job *job);

/* lua_intervene.c: what the run changes in the forward; after the workload. nil: nothing. */
void lua_check_interventions(lua_State *L, int index, struct run_job *job);
/* Pushes them again as plain Lua, for the configuration: of many values, their sum alone. */
void lua_push_interventions(lua_State *L, int index);

/* lua_trace.c: what the run records, and whom it probes; after the workload. nil is the default. */
void lua_check_trace(lua_State *L, int index, struct run_job *job);

/* lua_run.c */
int lua_run(lua_State *L);
/* Reads the description at index 1, which becomes the whole stack but for the job's userdata at
 * index 2, which is what every pointer in it hangs on. */
struct run_job *lua_job_read(lua_State *L, const char *what, bool with_workload);
struct run_job *lua_job_of(lua_State *L, int index); /* of that userdata */
/* How many requests of a run failed, and the first of them (NULL: none, or nobody kept it). */
size_t lua_job_failures(const struct run_job *job, const struct planned_request **first);
/* Where rows land: --database, else `wanted`, else results/SCRIPT.db. */
void lua_database_path(const struct lua_lathe *lathe, const char *wanted, char *path, size_t capacity);
void lua_run_register(lua_State *L);

/* lua_task.c */
int lua_task_new(lua_State *L);
int lua_task_wait_any(lua_State *L);
void lua_task_register(lua_State *L);

/* lua_sweep.c */
int lua_sweep_hold(lua_State *L);
int lua_sweep_failed(lua_State *L);
int lua_sweep_database(lua_State *L);
int lua_sweep_interrupted(lua_State *L);
void lua_sweep_register(lua_State *L);

/* lua_handle.c */
/* Takes the job's results; pushes the handle. */
void lua_handle_push(lua_State *L, struct run_job *job);
void lua_handle_register(lua_State *L);
/* { text, tokens, logprobs, finish_reason, error, id } of what a request came to. */
void lua_push_output(lua_State *L, const struct planned_request *request);
/* core.earlier(database, run) → the handle of a run that is in the database already. */
int lua_handle_earlier(lua_State *L);
int lua_sql_open(lua_State *L);

/* lua_bus.c */
int lua_bus_new(lua_State *L);
void lua_bus_register(lua_State *L);

/* lua_health.c */
int lua_engine_health(lua_State *L);
int lua_engine_stats(lua_State *L);

/* lua_engine.c */
int lua_engine_new(lua_State *L);
/* The open engine's job at `index`, or an error in `what`. */
struct run_job *lua_engine_job(lua_State *L, int index, const char *what);
void lua_engine_register(lua_State *L);

#endif

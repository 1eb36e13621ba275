/* SPDX-License-Identifier: MIT */
/* The scheduler that a policy is, and its calls into Lua.
 *
 * plugin.c keeps the line of live requests and sorts it by the policy's keys; what must be asked
 * of Lua is asked by the functions here, each one protected call. */
#ifndef SCHEDULER_LUA_CALLS_H
#define SCHEDULER_LUA_CALLS_H

#include <lathe/scheduler.h>

#include "policy.h"
#include "request.h"

/* What is remembered of a live request, by its index. */
struct seat {
    const struct lathe_request *req; /* NULL: nobody */
    struct request_object *object;
    double key, second;
    bool stale;    /* the key must be asked for again */
    uint64_t seen; /* in this ranking already */
};

enum { FIGURE_INSTRUCTIONS, FIGURE_CALLS, FIGURE_MEMORY, FIGURES };

struct lua_scheduler {
    const struct lathe_host *host;
    struct sandbox sandbox;
    struct policy policy;
    uint32_t capacity, count;
    struct seat *seats;      /* by index; (capacity) */
    struct seat **line;      /* the live ones, as last ranked, new ones behind; (capacity) */
    struct seat **next_line; /* (capacity) */
    int64_t now_ns;          /* of the last ranking */
    uint64_t rankings;
    const struct lathe_step_view *view; /* while Lua may ask for it */
    int objects, requests, running, look; /* tables of the state: index + 1 → object; arguments, used again */
    struct lathe_error broken;          /* an error that could not be returned: the next ranking ends with it */
    struct lathe_error victim_error;    /* the last of these, and how many */
    uint64_t victim_errors;
    int figures[FIGURES];
};

/* The tables. [main] */
int calls_open(struct lua_scheduler *s, struct lathe_error *err);

/* An object for the seat; the policy's admit, and its first key. [engine] */
int calls_admit(struct lua_scheduler *s, struct seat *seat, struct lathe_error *err);

/* The keys of those that are stale. [engine & running] */
int calls_keys(struct lua_scheduler *s, struct lathe_error *err);

/* The policy's own ranking: into `ranking`, and the line follows it. [engine & running] */
int calls_rank(struct lua_scheduler *s, const struct lathe_step_view *view, struct lathe_ranking *ranking,
               struct lathe_error *err);

/* The policy's victim, which runs, or NULL. [engine & running] */
int calls_victim(struct lua_scheduler *s, const struct lathe_step_view *view, const struct lathe_request *needy,
                 const struct lathe_request **victim, struct lathe_error *err);

/* Inside a protected call: a function of the policy, the object of a seat's request, an error
 * that opens with where the function was written. */
void calls_push_function(lua_State *L, const struct lua_scheduler *s, int function);
void calls_push_seat(lua_State *L, const struct lua_scheduler *s, const struct seat *seat);
__attribute__((noreturn)) void calls_blame(lua_State *L, const struct lua_scheduler *s, int function, const char *why);

int calls_progress(struct lua_scheduler *s, struct seat *seat, uint32_t tokens, struct lathe_error *err);
int calls_retire(struct lua_scheduler *s, struct seat *seat, struct lathe_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/* Requests as a policy sees them: one object a request, from admit to retire.
 *
 * An object is a pointer into the engine's request, read field by field when it is asked
 * for: nothing is copied from step to step, and most fields of most requests are never
 * looked at. Objects are never reused: one that a policy keeps too long says so when it
 * is read, and isn't taken for the next request of its slot.
 *
 *     id, index, state ("waiting", "running", "preempted", "swapped", "finished")
 *     priority, tenant, class, session, weight (1: a common share)
 *     planned, arrival, admitted, first_token   seconds since the run began; nil until they happen
 *     deadline                                  likewise; math.huge: none
 *     slo_ttft, slo_tpot                        seconds; 0: none
 *     prompt_tokens, cached_tokens, computed_tokens, output_tokens, max_output_tokens
 *     predicted                                 tokens of output; 0: unknown
 *     pending                                   tokens known but not yet in KV
 *     preemptions
 *     notes                                     a table of the policy's own, empty at first */
#ifndef SCHEDULER_LUA_REQUEST_H
#define SCHEDULER_LUA_REQUEST_H

#include <lua.h>

#include <lathe/request.h>

struct request_object {
    const struct lathe_request *req; /* NULL: it was retired */
};

/* Once a state. Raises for want of memory, as the next one does. */
void request_object_open(lua_State *L);

/* Pushes a new object. It lives as long as something in the state refers to it. */
struct request_object *request_object_push(lua_State *L, const struct lathe_request *req);

/* NULL: what stands there is no request's object. Raises nothing. */
struct request_object *request_object_at(lua_State *L, int index);

#endif

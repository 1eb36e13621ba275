/* SPDX-License-Identifier: MIT */
/* The libraries of a policy's state: opened once, inside a protected call. */
#ifndef SCHEDULER_LUA_LIBRARY_H
#define SCHEDULER_LUA_LIBRARY_H

#include <lua.h>

int library_open(lua_State *L);

/* math.random draws from the uint64_t that the first argument points to. */
int library_seed(lua_State *L);

#endif

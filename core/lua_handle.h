/* SPDX-License-Identifier: MIT */
/* What lua_handle.c and lua_activations.c share: a run in the script's hands. */
#ifndef CORE_LUA_HANDLE_H
#define CORE_LUA_HANDLE_H

#include "lua_internal.h"

struct lua_handle {
    bool open, recorded, resumed;
    int64_t run; /* 0: lathe.sql, or nothing was recorded */
    double elapsed_s, wall_s;
    struct figures *figures; /* NULL: the clock was real */
    sqlite3 *connection;
    struct planned_request *requests;
    size_t count;
    char label[160], path[4096];
};

/* The open handle at index 1, or an error in `what`. */
struct lua_handle *lua_check_handle(lua_State *L, const char *what);
/* Opens its database if it isn't open. */
void lua_handle_connect(lua_State *L, struct lua_handle *handle, const char *what);
/* The number in the tables of the workload's request at `index` (from 1). */
int64_t lua_handle_request(lua_State *L, const struct lua_handle *handle, const char *what, lua_Integer number);

/* lua_activations.c: methods */
int lua_handle_perplexity(lua_State *L);
int lua_handle_activations(lua_State *L);
int lua_handle_write_npy(lua_State *L);

#endif

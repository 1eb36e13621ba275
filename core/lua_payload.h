/* SPDX-License-Identifier: MIT */
/* Services called by name from Lua, with tables: the face of payload.h.
 *
 *     local reply, message, code = engine:call("tokenizer", "encode", { text = "Hello" })
 *
 * A reply is a table; a refusal is nil, its sentence and its number (enum lathe_status), also
 * for a wrong field: the sentence names service.method and the field's path, lists counted
 * from 1. Positions, ids, layers, heads and rows keep their own numbers, from 0. */
#ifndef CORE_LUA_PAYLOAD_H
#define CORE_LUA_PAYLOAD_H

#include <lua.h>

#include "payload.h"

/* On whose behalf. */
struct lua_payload_bus {
    const struct lathe_bus_api *bus;
    void *bus_self;
    const struct lathe_model_info *model; /* NULL: unknown; model.forward wants it */
    uint64_t correlation;
    int64_t deadline_ns; /* 0: none */
};

/* Calls with the table at `index` (nil or none: an empty one). Pushes one value or three, returns
 * how many. Only memory running out is a Lua error; nothing is leaked by it. [main] */
int lua_payload_call(lua_State *L, const struct lua_payload_bus *bus, const char *service, const char *method,
                     int index);

/* The two halves. They may raise when memory runs out: call them protected. `parts` is the
 * caller's to free, whatever happens. */
int lua_payload_read(lua_State *L, int index, const struct payload *what, const struct lathe_model_info *model,
                     struct payload_parts *parts, struct lathe_error *err);
/* Pushes the reply's table; on failure nothing. */
int lua_payload_push(lua_State *L, const struct payload_call *call, struct lathe_error *err);

#endif

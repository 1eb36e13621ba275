/* SPDX-License-Identifier: MIT */
/* A Lua state that can't do harm: nothing in it reaches the system, and every call ends.
 *
 *   what is there   base, math, string and table, less whatever reads, loads, prints, patterns
 *                   or runs beside: no io, os, debug, package, coroutine, load, xpcall, string.find.
 *                   A name that isn't there is an error where it is read. Chunks are text: bytecode
 *                   isn't checked when it is loaded, and a wrong byte of it can crash the process.
 *   memory          one region (pool.h), taken when it opens; no block may be more than a sixteenth
 *                   of it, so that no single instruction works on megabytes
 *   time            instructions, counted by a hook: no clock, so that the same policy fails at the
 *                   same place on every machine. Work that C does within one instruction (copying
 *                   strings, shifting tables) is charged in instructions, too.
 *
 * Why so few functions. A hook isn't called inside C: a pattern that backtracks would never
 * return, so patterns are absent. Nor while a hook runs: an xpcall's handler of the hook's own
 * error would be out of reach. Nor in finalizers: so metatables with __gc are refused. And
 * each coroutine counts for itself. Once the budget is spent, the hook is armed at every single
 * instruction, so that `while true do pcall(f) end` fails at the instruction after the pcall. */
#ifndef SCHEDULER_LUA_SANDBOX_H
#define SCHEDULER_LUA_SANDBOX_H

#include <lauxlib.h>
#include <lua.h>

#include <lathe/host.h>

#include "pool.h"

struct sandbox {
    const struct lathe_host *host;
    lua_State *L;
    struct pool pool;
    void *memory;
    double memory_mb;             /* as the option said */
    int64_t limit;                /* instructions a call */
    int64_t left;                 /* of the call that runs */
    int spent;                    /* it has none left */
    char where[LUA_IDSIZE + 16];  /* "file.lua:3", once it is spent */
    size_t made;                  /* bytes, since the last collection */
    uint64_t instructions, calls; /* since the last look: figures */
};

/* LATHE_ENOMEM. Close it whatever it returned. [main] */
int sandbox_open(struct sandbox *s, const struct lathe_host *host, double memory_mb, int64_t instructions,
                 struct lathe_error *err);
void sandbox_close(struct sandbox *s);

/* Math.random draws from this from now on. LATHE_ENOMEM. [main] */
int sandbox_seed(struct sandbox *s, uint64_t seed, struct lathe_error *err);

/* f(argument as light userdata), protected, within the budget; the stack is as it was, after.
 * LATHE_ENOMEM, or LATHE_EINVAL with one sentence that opens with file:line where there is
 * one; `what` names the call where there is none. [main or engine] */
int sandbox_call(struct sandbox *s, lua_CFunction f, void *argument, const char *what, struct lathe_error *err);

/* A step of the collector, as long as what was made since the last one is large. Nothing else
 * collects, unless the region is full. [engine] */
void sandbox_collect(struct sandbox *s);

/* Work within one instruction, in instructions; raises when there are none left. */
void sandbox_charge(lua_State *L, uint64_t instructions);

/* Raises an error that opens with where the function on top of the stack was written. */
__attribute__((noreturn, format(printf, 2, 3))) void sandbox_blame(lua_State *L, const char *format, ...);

#endif

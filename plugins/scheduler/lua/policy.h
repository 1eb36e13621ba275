/* SPDX-License-Identifier: MIT */
/* A policy file: what it may say, and how it is read.
 *
 *     local aging = options.aging or 0            -- from the scheduler's option `options`, "aging=2,mode=fast"
 *     return {
 *       name = "mine",
 *       key  = function(r, now) return r.prompt_tokens end,
 *       …
 *     }
 *
 *   key(r, now) → number [, number]   smaller goes first; asked when r is admitted (`dynamic`: more often)
 *   dynamic                           true: key is asked again after each progress; "step": before each ranking
 *   preemptive                        with key. false (so unless said): the running ones first, in the order in
 *                                     which they were let in
 *   rank(view, requests) → order [, preempt [, wake]]
 *                                     instead of key: the requests that may run, best first; those to preempt
 *                                     now; if none may run, when (seconds) to ask again. `requests` is every
 *                                     live one, as first ranked last time, and may be sorted and returned itself
 *   victim(running, needy) → r        who gives way; nil: needy waits. Without it: the last ranked that runs
 *   admit(r), progress(r, tokens), retire(r)
 *   promises                          { "work_conserving", "no_starvation", "no_preemption" }, what it keeps
 *
 * Either key or rank must be there. Equal keys go by planned arrival, then by id. The order in
 * which `pairs` walks names differs from run to run: decide by arrays and numbers. */
#ifndef SCHEDULER_LUA_POLICY_H
#define SCHEDULER_LUA_POLICY_H

#include <stdbool.h>

#include "sandbox.h"

enum { POLICY_KEY, POLICY_RANK, POLICY_VICTIM, POLICY_ADMIT, POLICY_PROGRESS, POLICY_RETIRE, POLICY_FUNCTIONS };
enum { DYNAMIC_NEVER, DYNAMIC_PROGRESS, DYNAMIC_STEP };

struct policy {
    char name[48];
    int functions[POLICY_FUNCTIONS]; /* registry references; LUA_NOREF: absent */
    int dynamic;
    bool preemptive;
    uint32_t promises;               /* bits of enum lathe_policy_promise */
};

/* Either `file` or `text` is there; `options` is "a=1,b=x" (";" may separate, too). [main] */
int policy_load(struct policy *policy, struct sandbox *sandbox, const char *file, const char *text, const char *options,
                struct lathe_error *err);

#endif

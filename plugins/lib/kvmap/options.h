/* SPDX-License-Identifier: MIT */
/* Options that all KV caches have, declared once: how the pool is cut, what becomes of a victim, how
 * keys and values are stored, and for those that evict, how many positions may stay.
 *
 *     static const struct lathe_option options[] = { KVMAP_OPTIONS(KVMAP_PREEMPT), KVMAP_BUDGET_OPTIONS, … };
 *
 * A plugin's own come behind them: enum { OPT_SINKS = KVMAP_BUDGET_COUNT, … }. */
#ifndef KVMAP_OPTIONS_H
#define KVMAP_OPTIONS_H

#include <lathe/kvcache.h>

enum {
    KVMAP_BLOCK_TOKENS, KVMAP_BLOCKS, KVMAP_MEMORY_MB, KVMAP_PREEMPTION, KVMAP_DTYPE, KVMAP_COUNT,
    KVMAP_BUDGET = KVMAP_COUNT, KVMAP_POOL_BUDGET, KVMAP_BUDGET_COUNT,
};

/* Values of `preempt`. */
#define KVMAP_PREEMPT "recompute|swap|refuse"
#define KVMAP_PREEMPT_OR_EVICT "recompute|swap|refuse|evict"

#define KVMAP_OPTIONS(preempt_choices) \
    { "block_tokens", LATHE_OPTION_INTEGER, "16", 1, 4096, "tokens", NULL, "Positions a block holds." }, \
    { "blocks", LATHE_OPTION_INTEGER, "0", 0, 1e9, "blocks", NULL, \
      "Blocks in the pool; 0: as many as the memory holds." }, \
    { "memory_mb", LATHE_OPTION_INTEGER, "256", 1, 1e9, "MiB", NULL, \
      "Memory for keys and values, if neither `blocks` nor the engine says." }, \
    { "preempt", LATHE_OPTION_CHOICE, "recompute", 0, 0, "", preempt_choices, \
      "Who is in the way when the pool is short: a victim, computed again later or moved to host memory meanwhile; " \
      "whoever wants more, who ends (refuse); or everybody's older positions, and then a victim (evict)." }, \
    { "dtype", LATHE_OPTION_CHOICE, "engine", 0, 0, "", "engine|f32|f16|q8_0", \
      "How keys and values are stored; engine: as the engine was asked for." }

#define KVMAP_BUDGET_OPTIONS \
    { "budget", LATHE_OPTION_INTEGER, "0", 0, 1e9, "tokens", NULL, "Positions that a request keeps; 0: all." }, \
    { "pool_budget", LATHE_OPTION_INTEGER, "0", 0, 1e12, "tokens", NULL, \
      "Positions that all requests keep together, shared evenly by those that are in; 0: all." }

struct kvmap_wishes {
    int64_t block_tokens, blocks, memory_mb, budget, pool_budget;
    int32_t dtype;   /* enum lathe_dtype, −1: the engine's */
    int preempt;     /* enum lathe_kv_preempt */
    int evict;       /* a short pool shortens everybody */
};

/* The values of KVMAP_OPTIONS, and of KVMAP_BUDGET_OPTIONS where `budgets` says that they are there. */
void kvmap_read(const struct lathe_config *config, int budgets, struct kvmap_wishes *wishes);

/* Decides block_tokens, blocks and kv_dtype, and says no to a demand that can't be met. `name` is the plugin's. */
int kvmap_size(const struct kvmap_wishes *wishes, const char *name, const struct lathe_kv_demand *demand,
               struct lathe_kv_geometry *geometry, struct lathe_error *err);

#endif

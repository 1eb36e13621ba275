/* SPDX-License-Identifier: MIT */
/* What batchings share: a step's budget of rows and places, and room in the KV pool.
 *
 *     begin (an empty plan) → give, give, … each asks can_reserve before it writes an entry
 *
 * can_reserve makes a promise with every 1, and a promise made twice counts twice; so `give`
 * asks once for each request, and the watermark is judged by arithmetic, before it asks. */
#ifndef BATCHING_BUDGET_H
#define BATCHING_BUDGET_H

#include <lathe/batching.h>

struct budget {
    const struct lathe_step_view *view;
    struct lathe_plan *plan;
    uint32_t rows, places; /* left */
    uint32_t blocks;       /* of the pool, left after what this plan takes; an estimate where blocks are shared */
    uint32_t free_blocks;  /* to be kept free when a new request comes in */
};

/* What the option says, or the engine's limit where that is less or the option is 0. [any] */
uint32_t batching_limit(int64_t wanted, uint32_t engine);

/* LATHE_EINVAL when the engine offers no tokens or no requests a step. [main] */
int batching_check_limits(const char *name, const struct lathe_batching_limits *limits, struct lathe_error *err);

/* An empty plan and the whole budget: `rows` tokens, `places` entries (or what the plan has).
 * `watermark` is the share of the pool that `budget_leaves_free` keeps. [engine & running] */
void budget_begin(struct budget *b, const struct lathe_step_view *view, struct lathe_plan *plan, uint32_t rows,
                  uint32_t places, double watermark);

static inline int budget_is_spent(const struct budget *b)
{
    return b->rows == 0 || b->places == 0;
}

/* Gives `req` up to `most` of its pending tokens, as the rows allow. → how many; 0: the budget
 * is spent or the pool has no room. [engine & running] */
uint32_t budget_give(struct budget *b, const struct lathe_request *req, uint32_t most);

/* Would the watermark's blocks stay free if `req` grew by `tokens`? A caller must let in without
 * asking whoever would otherwise leave the step empty, or nobody ever would. [engine & running] */
int budget_leaves_free(const struct budget *b, const struct lathe_request *req, uint32_t tokens);

/* What became of the running ones in a step. */
struct running {
    uint32_t ranked;     /* how many of them were in the ranking */
    uint32_t unfinished; /* of those, in the middle of their prompt after this step */
    uint32_t refused;    /* found no room: none should come in beside them */
    uint32_t sharing;    /* prompts for which rows are still kept */
};

/* All decodes of the ranking, a row each, then the prompts that are under way, as far as the
 * budget goes. Stops looking when view->running have been seen. `partial` prompts, those to come
 * included, get equal shares of what decodes leave; 1: each all that there is.
 * [engine & running] */
struct running budget_give_running(struct budget *b, const struct lathe_ranking *ranking, uint32_t partial);

/* The share of the next prompt, which then no longer counts among the sharing. [engine & running] */
static inline uint32_t budget_share(const struct budget *b, struct running *r)
{
    uint32_t share = r->sharing > 1 ? b->rows / r->sharing : b->rows;
    r->sharing -= r->sharing > 0;
    return share > 0 ? share : 1;
}

/* Rows that are left go to prompts of the plan that have more, in its order. [engine & running] */
void budget_top_up(struct budget *b);

/* Blocks of `tokens` positions. [any] */
static inline uint32_t batching_blocks(const struct lathe_step_view *view, uint64_t tokens)
{
    uint64_t each = view->block_tokens ? view->block_tokens : 1, blocks = (tokens + each - 1) / each;
    return blocks < UINT32_MAX ? (uint32_t)blocks : UINT32_MAX;
}

#endif

/* SPDX-License-Identifier: MIT */
/* What a step costs: a function of what is in it, and of nothing else.
 *
 *     t = step + prefill · P + prefill_context · Σ past + decode · D + decode_context · Σ context
 *           + padding · rows thrown away + swap · blocks moved
 *     t = max(t, floor) · noise
 *
 *     P     prompt rows computed            Σ past     over them, the positions before each
 *     D     rows that decode                Σ context  over them, the positions that each looks at
 *
 * Linear, since that is what a step's time is: weights are read once (step), each row costs
 * arithmetic (prefill, decode), attention reads what is in the KV cache (context). `floor` is for
 * machines whose small steps all take as long. experiments/calibrate.lua fits the coefficients to
 * a real model's steps by least squares and says how far off they are. */
#ifndef SIM_COST_H
#define SIM_COST_H

#include <lathe/model.h>

struct sim_cost {
    double step_us, floor_us;
    double prefill_us, prefill_context_ns; /* a prompt row; a prompt row and a position before it */
    double decode_us, decode_context_ns;   /* a decoded row; a position that it looks at */
    double padding_us, swap_us;            /* a row thrown away; a block moved out or in */
    double noise;                          /* sigma of the log-normal factor with mean 1; 0: none */
};

/* In the order of the plugin's options and of a profile's names. */
enum { SIM_STEP, SIM_FLOOR, SIM_PREFILL, SIM_PREFILL_CONTEXT, SIM_DECODE, SIM_DECODE_CONTEXT, SIM_PADDING, SIM_SWAP,
       SIM_NOISE, SIM_COST_COUNT };

struct sim_work {
    uint64_t prefill_tokens, prefill_context, decode_tokens, decode_context, padding_tokens, moved_blocks;
};

/* Adds a slice. One row with something before it counts as decoding: the last row of a prompt
 * that was cut just there costs the same. */
void sim_work_add(struct sim_work *work, const struct lathe_slice *slice);
/* Nanoseconds, at least 1. The noise is a function of (seed, step). */
int64_t sim_duration_ns(const struct sim_cost *cost, const struct sim_work *work, uint64_t seed, uint64_t step);

/* profile.c: reads `name = value` lines over `values` (SIM_COST_COUNT of them, in the order above);
 * given[i] says which were there. An unknown name or a value that is no number ≥ 0 is one sentence
 * with the line. */
int sim_profile_read(const char *path, double *values, int *given, struct lathe_error *err);

extern const char *const sim_cost_names[SIM_COST_COUNT];

#endif

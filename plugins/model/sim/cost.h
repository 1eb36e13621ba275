/* SPDX-License-Identifier: MIT */
/* What a step costs: a function of what is in it, and of nothing else.
 *
 *     t = step + prefill · P + prefill_context · Σ past + decode · D + decode_context · Σ context
 *           + padding · Z + swap · blocks moved
 *           + rows(P + D + Z) + rest((P + D + Z) mod group) + outputs(O)
 *     t = max(t, floor) · noise
 *
 *     P     prompt rows computed            Σ past     over them, the positions before each
 *     D     rows that decode                Σ context  over them, the positions that each looks at
 *     Z     rows that are thrown away       O          rows that give a token
 *
 * The first two lines are what a step's time is on a large accelerator: weights are read once
 * (step), each row costs arithmetic (prefill, decode), attention reads what is in the KV cache
 * (context). `floor` is for machines whose small steps all take as long.
 *
 * On a processor the line isn't straight: a handful of rows go through other kernels than many,
 * and a matrix product whose rows are no multiple of the kernel's group pays for a pass that is
 * partly empty. Hence tables, empty unless given: `rows` is piecewise linear in the rows of the
 * products with the layers' weights, `outputs` in the rows of the last product (the vocabulary's,
 * and the sampler after it), `rest` is what each remainder adds between the knots of `rows`. SmolLM2-135M on two cores, steps
 * that decode n requests, ms (AMD EPYC, AVX2): straight lines miss them by a third.
 *
 *     n    1     2     3     4     6     7     8     9    10    12    14    16    17    20
 *        8.3  10.5  12.3  11.2  15.7  17.6  16.3  34.8  35.5  31.5  39.9  37.6  48.7  47.8
 *
 * scripts/lathe/calibrate.lua fits all of it to a real model's steps and says how far off it is. */
#ifndef SIM_COST_H
#define SIM_COST_H

#include <lathe/model.h>

/* Piecewise linear: through (at[i], us[i]), and through (0, 0) if nothing is said of smaller ones;
 * beyond the last on along the last piece. Empty: 0 everywhere. */
enum { SIM_TABLE_MOST = 96 };
struct sim_table {
    uint32_t count;
    double at[SIM_TABLE_MOST], us[SIM_TABLE_MOST];
};

struct sim_cost {
    double step_us, floor_us;
    double prefill_us, prefill_context_ns; /* a prompt row; a prompt row and a position before it */
    double decode_us, decode_context_ns;   /* a decoded row; a position that it looks at */
    double padding_us, swap_us;            /* a row thrown away; a block moved out or in */
    double noise;                          /* sigma of the log-normal factor with mean 1; 0: none */
    struct sim_table rows, rest, outputs;  /* rest: at = 1 … group − 1 */
};

/* In the order of the plugin's options and of a profile's names. */
enum { SIM_STEP, SIM_FLOOR, SIM_PREFILL, SIM_PREFILL_CONTEXT, SIM_DECODE, SIM_DECODE_CONTEXT, SIM_PADDING, SIM_SWAP,
       SIM_NOISE, SIM_COST_COUNT };
enum { SIM_ROWS, SIM_REST, SIM_OUTPUTS, SIM_TABLE_COUNT };

struct sim_work {
    uint64_t prefill_tokens, prefill_context, decode_tokens, decode_context, padding_tokens, moved_blocks, outputs;
};

/* Adds a slice. One row with something before it counts as decoding: the last row of a prompt
 * that was cut just there costs the same. */
void sim_work_add(struct sim_work *work, const struct lathe_slice *slice);
/* Nanoseconds, at least 1. The noise is a function of (seed, step). */
int64_t sim_duration_ns(const struct sim_cost *cost, const struct sim_work *work, uint64_t seed, uint64_t step);

/* table.c. `where` names what is read, in errors. An empty text is an empty table. */
int sim_table_read(const char *where, const char *text, struct sim_table *table, struct lathe_error *err);
double sim_table_at(const struct sim_table *table, double x);
/* Remainders are 1, 2, … without a gap; one more than the last is the group. Where the table `rows`
 * has a knot at x it says all there is to say, and there is no rest. */
int sim_rest_check(const char *where, const struct sim_table *rest, struct lathe_error *err);
double sim_rest_at(const struct sim_table *rest, const struct sim_table *rows, uint64_t x);

/* profile.c: what a file of `name = value` lines gives, in the orders above; what it doesn't is 0
 * or empty. An unknown name or a value that is no number ≥ 0 is one sentence with the line. */
struct sim_profile {
    double values[SIM_COST_COUNT];
    struct sim_table tables[SIM_TABLE_COUNT];
    int given[SIM_COST_COUNT + SIM_TABLE_COUNT];
};
int sim_profile_read(const char *path, struct sim_profile *profile, struct lathe_error *err);

extern const char *const sim_cost_names[SIM_COST_COUNT + SIM_TABLE_COUNT];

#endif

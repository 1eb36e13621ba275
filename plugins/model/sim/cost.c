/* SPDX-License-Identifier: MIT */
#include "cost.h"

#include <math.h>

#include <lathe/random.h>

void sim_work_add(struct sim_work *work, const struct lathe_slice *slice)
{
    uint64_t rows = slice->token_count, past = (uint64_t)slice->first_position;
    work->outputs += slice->output_count;
    if (slice->flags & LATHE_SLICE_PADDING) {
        work->padding_tokens += rows;
    } else if (rows == 1 && past > 0) {
        work->decode_tokens++;
        work->decode_context += past + 1;
    } else {
        work->prefill_tokens += rows;
        work->prefill_context += rows * past + rows * (rows - 1) / 2;
    }
}

/* exp(N(−s²/2, s²)): mean 1, so that noise changes no average. */
static double noise_of(double sigma, uint64_t seed, uint64_t step)
{
    double u = 1.0 - lathe_random_unit(seed, LATHE_RANDOM_NOISE, step, 0); /* (0, 1] */
    double v = lathe_random_unit(seed, LATHE_RANDOM_NOISE, step, 1);
    double normal = sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
    return exp(sigma * normal - 0.5 * sigma * sigma);
}

int64_t sim_duration_ns(const struct sim_cost *c, const struct sim_work *w, uint64_t seed, uint64_t step)
{
    uint64_t rows = w->prefill_tokens + w->decode_tokens + w->padding_tokens;
    double us = c->step_us + c->prefill_us * (double)w->prefill_tokens + c->decode_us * (double)w->decode_tokens +
                c->padding_us * (double)w->padding_tokens + c->swap_us * (double)w->moved_blocks +
                1e-3 * (c->prefill_context_ns * (double)w->prefill_context +
                        c->decode_context_ns * (double)w->decode_context) +
                sim_table_at(&c->rows, (double)rows) + sim_rest_at(&c->rest, &c->rows, rows) +
                sim_table_at(&c->outputs, (double)w->outputs);
    if (us < c->floor_us)
        us = c->floor_us;
    if (c->noise > 0.0)
        us *= noise_of(c->noise, seed, step);
    double ns = us * 1e3 + 0.5;
    return ns < 1.0 ? 1 : ns < 9e18 ? (int64_t)ns : INT64_MAX / 2;
}

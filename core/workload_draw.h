/* SPDX-License-Identifier: MIT */
/* The draws that a workload is made of, each a pure function of (seed, purpose, stream, counter);
 * see <lathe/random.h>. The arithmetic is that of scripts/lathe/random.lua, operation for
 * operation, so that a script which draws for itself gets the same numbers. [any] */
#ifndef CORE_WORKLOAD_DRAW_H
#define CORE_WORKLOAD_DRAW_H

#include "workload.h"

/* What draws are for, within a purpose. A gap of gamma arrivals has a stream of its own above 2^39. */
enum workload_stream {
    WORKLOAD_STREAM_GAPS = 0,        /* purpose arrivals: the i-th gap */
    WORKLOAD_STREAM_PROMPTS = 1,     /* purpose lengths: the i-th request's prompt */
    WORKLOAD_STREAM_OUTPUTS = 2,
    WORKLOAD_STREAM_CLASSES = 3,     /* purpose lengths: which class */
    WORKLOAD_STREAM_PREDICTIONS = 4, /* purpose noise: how wrong the prediction is */
    WORKLOAD_STREAM_STAYS = 5,       /* purpose arrivals: how long the n-th state lasts */
    WORKLOAD_STREAM_STATES = 6,      /* purpose arrivals: which state comes n-th */
};

enum { WORKLOAD_MAX_TOKENS = 1 << 24 };

struct workload_key { /* of a draw, all but its counter */
    uint64_t seed, stream;
    uint32_t purpose;
};

double workload_normal(struct workload_key key, uint32_t counter);      /* takes counters 2n and 2n + 1 */
double workload_exponential(struct workload_key key, uint32_t counter); /* mean 1 */
double workload_gamma(double shape, struct workload_key key, uint32_t counter); /* scale 1 */

/* A distribution that can be drawn from, or the sentence; `what` is its name in it. */
int workload_length_check(const struct workload_length *length, const char *what, struct lathe_error *err);
/* 1 … 2^24 tokens. `traced` is what the trace's row says, for WORKLOAD_OF_TRACE. */
uint32_t workload_length_draw(const struct workload_length *length, struct workload_key key, uint32_t counter,
                              uint32_t traced);
/* Rounded, to the limits of the length. */
uint32_t workload_length_cut(const struct workload_length *length, double tokens);
/* Its expectation after the cut, but for the rounding. Not of a trace. */
double workload_length_mean(const struct workload_length *length);

#endif

/* SPDX-License-Identifier: MIT */
/* A workload's inside: what workload.c (who, how much) and workload_arrivals.c (when) share. */
#ifndef CORE_WORKLOAD_INTERNAL_H
#define CORE_WORKLOAD_INTERNAL_H

#include "workload_draw.h"

/* Where the arrivals have got to; a rewind zeroes it. */
struct workload_arrivals {
    double now_s;        /* of the last arrival */
    double until_s;      /* MMPP: when the state ends */
    uint32_t state;
    uint32_t visits;     /* states seen so far: the counter of their draws */
    size_t row;          /* of a trace: the next one */
    double round_s;      /* of a trace: when it was begun from its start */
};

struct workload {
    struct workload_params params; /* its arrays are our copies */
    double *shares;                /* running sums, so that a class is found by bisection */
    double *means;                 /* of each class's output, for WORKLOAD_MEAN */
    struct workload_class *classes;
    struct workload_trace_row *rows;
    size_t drawn;                  /* requests so far */
    struct workload_arrivals arrivals;
};

/* Rates that make sense, and a last arrival that nanoseconds can hold. */
int workload_arrivals_check(const struct workload_params *params, struct lathe_error *err);
/* Seconds of request `number`'s (1, 2, …) arrival; `row` is the trace's for it, or NULL. */
double workload_arrivals_next(struct workload *workload, uint32_t number, const struct workload_trace_row **row);

#endif

/* SPDX-License-Identifier: MIT */
/* The figures of a simulated run, kept as it goes: sums, and histograms fine enough for a
 * percentile's interval. A million requests need no rows to say how long they took. */
#ifndef CORE_FIGURES_H
#define CORE_FIGURES_H

#include <stdint.h>

#include <lathe/request.h>
#include <lathe/status.h>

/* Log-linear: 2^FIGURES_BITS cells a power of two, so a value is off by 0.05% at most. */
enum { FIGURES_BITS = 10, FIGURES_CELLS = (65 - FIGURES_BITS) << FIGURES_BITS };

struct figure {
    uint64_t count;
    double sum, sum_of_squares; /* ns, ns² */
    int64_t max;
    uint32_t *cells;            /* (FIGURES_CELLS) */
};

enum figure_of { FIGURE_RESPONSE, FIGURE_TTFT, FIGURE_QUEUE, FIGURE_TPOT, FIGURE_COUNT };

struct figures {
    struct figure of[FIGURE_COUNT]; /* end, first token, first step, all from the planned arrival; a token's mean gap */
    uint64_t requests, failed, refused; /* all that came, of them ended as error or were not taken */
    uint64_t prompt_tokens, output_tokens, steps, preemptions;
    uint64_t met_slo, with_slo;     /* of those counted: had a target, met all of theirs */
    int64_t first_ns, last_ns;      /* the first arrival, the last end */
    double area_ns;                 /* the integral of the number in the system */
    double busy_ns;                 /* summed over replicas: a step was under way */
    uint32_t replicas;
    char first_refusal[200];        /* why the first that wasn't taken was not; "" */
};

int figures_open(struct figures *figures, struct lathe_error *err);
void figures_close(struct figures *figures);
void figure_add(struct figure *figure, int64_t ns);
/* The value below which a share p (0 … 1) lies: a cell's middle. NaN of nothing. */
double figure_percentile(const struct figure *figure, double p);
/* One that ended well. */
void figures_count(struct figures *figures, const struct lathe_request *request, int64_t finish_ns);

#endif

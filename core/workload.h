/* SPDX-License-Identifier: MIT */
/* A workload that is drawn as it comes: who arrives when, with what lengths. Nothing is loaded
 * beforehand, so a million requests take no more memory than one.
 *
 *     arrivals   when           constant, Poisson, gamma, Markov-modulated, bursts, a trace; or closed
 *     classes    who            each with a share, a tenant, lengths, targets (SLOs)
 *     lengths    how much       prompt and output tokens, and what a predictor says of the output
 *
 * Streams. Every draw is a function of (seed, purpose, stream, number of the request), see
 * <lathe/random.h>: arrivals, classes, prompts, outputs and predictions never shift each other,
 * and two runs that differ in one of them share all the rest (common random numbers).
 *
 * scripts/lathe/workload.lua describes; what it draws when a script wants to see the requests is
 * drawn here too, so that both are the same numbers. */
#ifndef CORE_WORKLOAD_H
#define CORE_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

#include <lathe/status.h>

struct workload;

/* A distribution of a number of tokens, 1 … 2^24, cut to min … max. */
enum workload_length_kind {
    WORKLOAD_FIXED,       /* a tokens */
    WORKLOAD_UNIFORM,     /* a … b */
    WORKLOAD_LOGNORMAL,   /* exp(N(ln a, b²)) */
    WORKLOAD_EXPONENTIAL, /* mean a */
    WORKLOAD_EMPIRICAL,   /* one of `values`, each as likely */
    WORKLOAD_OF_TRACE,    /* as the trace's row says */
};
struct workload_length {
    int kind;
    double a, b;
    uint32_t min, max; /* 0: 1 and 2^24 */
    const uint32_t *values; /* copied */
    size_t value_count;
};

enum workload_prediction {
    WORKLOAD_UNPREDICTED, /* policies are told nothing (0) */
    WORKLOAD_TRUE,        /* the output's length */
    WORKLOAD_NOISY,       /* times exp(N(bias, noise²)): how wrong real predictors are */
    WORKLOAD_MEAN,        /* the mean of its class, for all of it alike */
};

/* Strings are copied. */
struct workload_class {
    const char *name, *tenant; /* NULL: "" */
    double share;              /* of the requests, relative to the other classes */
    struct workload_length prompt, output;
    int prediction;            /* enum workload_prediction */
    double noise, bias;        /* of NOISY: sigma and mean of the error's logarithm; bias < 0 predicts too short */
    int32_t priority;
    uint32_t weight;           /* of the tenant, thousandths; 0: 1000 */
    int64_t slo_ttft_ns, slo_tpot_ns, deadline_ns; /* 0: none; the deadline counts from the arrival */
};

enum workload_arrivals_kind {
    WORKLOAD_CONSTANT, /* the i-th (from 0) at i / rate */
    WORKLOAD_POISSON,
    WORKLOAD_GAMMA,    /* gaps with coefficient of variation cv */
    WORKLOAD_MMPP,     /* Poisson whose rate follows a Markov chain: rates[], mean stays[] seconds */
    WORKLOAD_BURST,    /* `size` at once, every `every_s` */
    WORKLOAD_TRACE,    /* rows of a file */
    WORKLOAD_CLOSED,   /* whoever drives says when */
};
enum { WORKLOAD_MAX_STATES = 8 };
struct workload_trace_row {
    double at_s;
    uint32_t prompt_tokens, output_tokens;
};

struct workload_params {
    size_t requests;             /* 0: a trace's rows, once */
    uint64_t seed_arrivals, seed_prompts, seed_outputs, seed_classes, seed_predictions;
    int arrivals;                /* enum workload_arrivals_kind */
    double rate, cv;
    double rates[WORKLOAD_MAX_STATES], stays_s[WORKLOAD_MAX_STATES]; /* the next state is any other, alike */
    uint32_t states;
    uint32_t size;
    double every_s;
    const struct workload_trace_row *rows; /* ascending by at_s; copied */
    size_t row_count;
    double speed;                /* a trace's; 0: 1. Read again from the start (its span and a mean
                                    gap later) while more requests are wanted */
    const struct workload_class *classes;
    size_t class_count;          /* ≥ 1 */
};

/* One request, as it comes. Strings are the workload's and live as long as it. */
struct workload_request {
    int64_t planned_ns;          /* −1: closed, whenever the driver says */
    uint32_t prompt_tokens, output_tokens, predicted_output_tokens;
    uint32_t class_number;       /* into the classes */
    const char *class_name, *tenant;
    int32_t priority;
    uint32_t weight;
    int64_t slo_ttft_ns, slo_tpot_ns, deadline_ns; /* the deadline from arrival, 0: none */
};

/* Everything is copied and checked; a bad rate or share is one sentence. [main] */
int workload_open(const struct workload_params *params, struct workload **workload, struct lathe_error *err);
/* The same from its first request on, for a run on another thread. [any, while nobody closes `from`] */
int workload_copy(const struct workload *from, struct workload **copy, struct lathe_error *err);
void workload_close(struct workload *workload); /* NULL is ignored */
size_t workload_count(const struct workload *workload);
/* The next one, in order of arrival; 0 when there are no more. Allocates nothing. [one thread] */
int workload_next(struct workload *workload, struct workload_request *request);
void workload_rewind(struct workload *workload); /* the first is next again */

#endif

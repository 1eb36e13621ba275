/* SPDX-License-Identifier: MIT */
/* What the parts of bench_bus share.
 *
 * A case is one figure: nanoseconds an operation. In each round every case is sampled once;
 * cases that are compared form a group and are sampled one after the other, the order of groups
 * and within each drawn anew. (A virtual machine's cores move: a cache line's way to the other
 * one and back may take 45 ns now and 400 ns in a minute. Only neighbours can be compared.) A
 * sample opens all that it needs (threads, processes, a bus), warms up, times, and closes, so
 * that nothing of one case spins or wakes while another is measured.
 *
 *     round 1: group 3: case 7, case 2, case 11; group 1: …      round 2: group 2: …      …
 *                       └ open ─ warm up ─ batches of about 2 ms ─ close
 *
 * A sample's value is the median of its batches: a batch during which something else had the
 * core falls out. Reported are the median, the quartiles and the quickest over the rounds.
 * Caller and worker are pinned to two cores; nothing is subtracted unless the row says so. */
#ifndef BENCH_BUS_BENCH_H
#define BENCH_BUS_BENCH_H

#include <stdatomic.h>
#include <stdint.h>

#include <lathe/bus.h>

enum { BENCH_MAX_ROUNDS = 255, BENCH_MAX_CASES = 128, BENCH_MESSAGE_BYTES = 64 };

struct bench {
    int caller_cpu, worker_cpu;
    const char *plugins; /* folder of plugins/<kind>/<name>.so */
    int64_t warm_ns, batch_ns;
    uint32_t batches; /* a sample; fewer of operations that take longer than a batch */
};

struct bench_case;
typedef int bench_sampler(const struct bench *b, const struct bench_case *c, double *ns, struct lathe_error *err);

struct bench_case {
    char id[64]; /* "call/async/spin" */
    int group;
    const char *title;
    bench_sampler *sample; /* LATHE_EUNSUPPORTED: can't be measured here, for ever; err says why */
    const char *bus;       /* the case's own: what they mean is the sampler's */
    int how;
    uint64_t count;
    /* what came out */
    char missing[160]; /* "" or why there is no figure */
    double ns[BENCH_MAX_ROUNDS];
    double quickest; /* batch of all */
};

/* Which cases are compared; payloads are a group for each size: BENCH_COPY + its index. */
enum bench_group { BENCH_CALLS, BENCH_SPINNING, BENCH_SLEEPING, BENCH_RATES, BENCH_COPY };

struct bench_list {
    uint32_t count, rounds;
    struct bench_case cases[BENCH_MAX_CASES];
};

/* The parts: each appends its cases. */
void floor_cases(struct bench_list *list);
void ring_cases(struct bench_list *list);
void zeromq_cases(struct bench_list *list);
void nng_cases(struct bench_list *list);
void bus_cases(struct bench_list *list);
void copy_cases(struct bench_list *list);
/* Sizes of payloads, and of batches; 0 ends. */
extern const uint64_t copy_sizes[], bench_batches[];

__attribute__((format(printf, 8, 9))) void bench_add(struct bench_list *list, int group, bench_sampler *sample,
                                                     const char *title, const char *bus, int how, uint64_t count,
                                                     const char *id, ...);
/* NULL: there is none, or it has no figures. */
const struct bench_case *bench_find(const struct bench_list *list, const char *id);
/* 0 ≤ q ≤ 1, of `count` values, which are sorted. */
double bench_quantile(double *values, uint32_t count, double q);

/* Does something `times` times; the context is its own. */
typedef int bench_step(void *context, uint64_t times, struct lathe_error *err);
/* Warms up, times batches; *ns is the median of an operation. Also notes the case's quickest. */
int bench_time(const struct bench *b, const struct bench_case *c, bench_step *step, void *context, double *ns,
               struct lathe_error *err);

int64_t bench_now_ns(void);
/* The calling thread, and what it starts from then on. cpu < 0: both cores. */
void bench_pin(const struct bench *b, int cpu);
/* This program again, on the worker's core, with its own arguments; < 0: it can't be. */
int bench_spawn(const struct bench *b, char *const arguments[]);

/* The work of the zero-copy rows, the same code wherever it runs; 8-byte words. */
void bench_write(void *payload, uint64_t bytes, uint64_t seed);
uint64_t bench_sum(const void *payload, uint64_t bytes);
uint64_t bench_expected(uint64_t bytes, uint64_t seed);

/* A goal, judged round by round: the median over rounds counts, the quartiles show how sure it is. */
struct bench_goal {
    char text[200];
    const char *unit;
    double value, low, high, limit; /* median, quartiles */
    int at_least;                   /* 1: value ≥ limit is wanted; 0: value ≤ limit */
    int known;                      /* 0: a figure is missing */
};
enum { BENCH_MAX_GOALS = 24 };
uint32_t goals_judge(const struct bench_list *list, struct bench_goal goals[BENCH_MAX_GOALS]);
static inline int goal_met(const struct bench_goal *g)
{
    return g->at_least ? g->value >= g->limit : g->value <= g->limit;
}
/* (loan − same − hop) / same in one round, in percent; `same` is copy/alone, or copy/threads less its own
 * bare hand-over. 0 when a figure is missing. */
int goals_loan_excess(const struct bench_list *list, uint64_t bytes, int threads, uint32_t round, double *percent);

struct bench_machine {
    char cpu[128], kernel[160], commit[64], load_before[64], load_after[64];
    uint32_t cores;
    double seconds;
};
int report_table(const struct bench_list *list);
int report_json(const struct bench_list *list, const struct bench_machine *machine);
int report_markdown(const struct bench_list *list, const struct bench_machine *machine, const char *file);

#endif

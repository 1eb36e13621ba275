/* SPDX-License-Identifier: MIT */
/* lathe bench: how quick is a model on this machine, and how near to what the machine can do?
 *
 *     command line ─▶ tests ─▶ machine's limits ─▶ each test: forward, and by --engine the engine
 *                                                       └▶ table | json | csv | sql
 *
 * A test is llama-bench's: so many prompt tokens, then so many generated ones, after a context
 * that is there already; here also for several sequences at once. Tokens are drawn, none is
 * sampled, as there. A limit is a bound: the seconds that reading what must be read takes at the
 * machine's read bandwidth, and those that the products take at its peak, whichever is more. */
#ifndef CORE_BENCH_H
#define CORE_BENCH_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "service.h"
#include "stages.h"

enum { BENCH_MAX_TESTS = 256, BENCH_MAX_REPETITIONS = 1000, BENCH_MAX_VALUES = 16, BENCH_NAME_BYTES = 64 };

struct bench_test {
    uint32_t prompt, generated; /* tokens of each sequence */
    uint32_t depth;             /* positions that are in the KV cache before the clock starts */
    uint32_t sequences;
    uint32_t threads;
};

/* "pp512", "tg128", "pp512+tg128", "tg128 x16", "tg128 @ d4096" */
void bench_test_name(const struct bench_test *test, char name[BENCH_NAME_BYTES]);
/* Tokens that the rate counts: of all sequences. */
double bench_test_tokens(const struct bench_test *test);

/* ── what the machine can do ── */

enum bench_arithmetic { BENCH_F32 = 0, BENCH_INT8 = 1, BENCH_ARITHMETICS = 2 };

struct bench_machine {
    uint32_t threads;
    size_t buffer_bytes, cache_bytes; /* what was read; the last cache, 0: unknown */
    double read_bytes_s;
    double ops_s[BENCH_ARITHMETICS];  /* a multiplication and an addition are two; 0: it has no such instructions */
    const char *set[BENCH_ARITHMETICS]; /* "AVX-512", "AVX-512 VNNI" … */
};

/* A third of a second with so many threads. [main] */
int bench_machine_measure(uint32_t threads, struct bench_machine *machine, struct lathe_error *err);
/* Loops that do nothing but arithmetic: the widest that processor and LATHE_KERNELS allow. */
struct bench_loop {
    const char *set;
    double (*run)(uint64_t rounds); /* returns the operations that it did */
};
/* run NULL: there is none of this type. [any] */
struct bench_loop bench_peak_loop(int arithmetic);

/* ── what a test asks of it ── */

struct bench_demand {
    double bytes;                         /* that must be read at least */
    double ops[BENCH_ARITHMETICS];
};

struct bench_model {
    struct lathe_model_info info;
    int arithmetic;                       /* enum bench_arithmetic: of products with weights */
    double kv_bytes_per_token;            /* of the type they are kept in */
    uint32_t chunk;                       /* most rows of one forward */
};

void bench_demand(const struct bench_model *model, const struct bench_test *test, struct bench_demand *demand);

enum bench_bound { BENCH_NO_BOUND = 0, BENCH_MEMORY = 1, BENCH_ARITHMETIC = 2 };

struct bench_limit {
    double memory_s, arithmetic_s; /* 0: unknown */
    int bound;                     /* enum bench_bound: the larger of the two */
    double tokens_s;               /* that it allows */
};

void bench_limit(const struct bench_machine *machine, const struct bench_demand *demand, double tokens,
                 struct bench_limit *limit);

/* ── running ── */

struct bench_samples {
    uint32_t count;
    double seconds[BENCH_MAX_REPETITIONS];
};

struct bench_figures {
    double mean_ns, sd_ns, mean_rate, sd_rate; /* rates: tokens a second; sd: of the sample, 0 of one */
};

void bench_figures(const struct bench_samples *samples, double tokens, struct bench_figures *figures);

/* A test's context and message: kept from repetition to repetition. */
struct bench_forward;
int bench_forward_open(const struct instance *model, const struct bench_test *test, uint32_t chunk, int32_t kv_dtype,
                       struct bench_forward **forward, struct lathe_error *err);
void bench_forward_close(struct bench_forward *forward); /* NULL is ignored */
/* Fills the context up to the depth; not timed. */
int bench_forward_fill(struct bench_forward *forward, struct lathe_error *err);
/* The test once: its seconds, by the model's own word if it tells its time, else by the clock. At
 * most so many prompt and generated tokens of it (a warm-up is short); UINT32_MAX: all. */
int bench_forward_run(struct bench_forward *forward, uint32_t most_prompt, uint32_t most_generated, double *seconds,
                      struct lathe_error *err);

/* The same through the engine, its steps recorded into a database that is thrown away. */
struct bench_engine_result {
    double seconds;   /* from the first step that is wholly of the test to the end of the last */
    double tokens;    /* in these steps */
    double forward_s; /* of which the model had so much */
};

struct bench_engine {
    struct registry *registry;
    const struct loaded_model *loaded;
    const struct stage *stages; /* by kind */
    uint32_t chunk;
    int32_t kv_dtype;
};

/* Only prompts without depth, or generation without a prompt: of these the steps tell which are the
 * test's. LATHE_EUNSUPPORTED: another. */
int bench_engine_run(const struct bench_engine *engine, const struct bench_test *test,
                     struct bench_engine_result *result, struct lathe_error *err);
bool bench_engine_can(const struct bench_test *test);

/* ── telling ── */

struct bench_result {
    struct bench_test test;
    struct bench_samples samples;
    struct bench_figures figures;
    struct bench_demand demand;
    struct bench_limit limit;
    const struct bench_machine *machine; /* NULL: not measured */
    bool engine;                         /* was it run through the engine? */
    struct bench_samples engine_samples;
    struct bench_figures engine_figures;
    double engine_own_share;             /* of a step's time, all that is not the model's */
    int64_t when_s;                      /* since 1970 */
};

struct bench_subject {
    const struct bench_model *model;
    const char *path;   /* of the file, "" if none */
    const char *kv_type;
};

enum bench_output { BENCH_TABLE, BENCH_JSON, BENCH_CSV, BENCH_SQL };

int bench_print(FILE *out, int output, const struct bench_subject *subject, const struct bench_result *results,
                size_t count, struct lathe_error *err);
/* How the limits came about, in words and figures. */
void bench_explain(FILE *out, const struct bench_subject *subject, const struct bench_result *results, size_t count);

#endif

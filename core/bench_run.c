/* SPDX-License-Identifier: MIT */
/* Carrying a plan out: the machine first, then test by test, then what was found. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"

static int stopped(struct lathe_error *err)
{
    return interrupt_wanted() ? lathe_fail(err, LATHE_ECANCELLED, "interrupted") : LATHE_OK;
}

/* A forward and, if wished, the engine in turn, so that what else the machine does falls on both. */
static int run_test(const struct bench_wishes *w, const struct bench_engine *engine, struct bench_result *r,
                    struct lathe_error *err)
{
    struct bench_forward *forward;
    double tokens = bench_test_tokens(&r->test), engine_seconds = 0, parts[BENCH_PARTS] = { 0 }, ignored;
    int status = bench_forward_open(engine->loaded->model, &r->test, engine->chunk, engine->kv_dtype, &forward, err);
    if (status)
        return status;
    r->engine = w->engine && bench_engine_can(&r->test);
    r->when_s = (int64_t)time(NULL);
    if (!(status = bench_forward_fill(forward, err)))
        status = bench_forward_run(forward, UINT32_MAX, 4, &ignored, err);
    for (uint32_t i = 0; !status && i < w->repetitions; i++) {
        struct bench_engine_result through;
        if ((status = stopped(err)) ||
            (status = bench_forward_run(forward, UINT32_MAX, UINT32_MAX, &r->samples.seconds[i], err)))
            break;
        r->samples.count++;
        if (!r->engine)
            continue;
        if ((status = bench_engine_run(engine, &r->test, &through, err)))
            break;
        r->engine_samples.seconds[r->engine_samples.count++] = through.seconds * tokens / through.tokens;
        engine_seconds += through.seconds;
        for (int part = 0; part < BENCH_PARTS; part++)
            parts[part] += through.parts_s[part];
    }
    bench_forward_close(forward);
    bench_figures(&r->samples, tokens, &r->figures);
    bench_figures(&r->engine_samples, tokens, &r->engine_figures);
    for (int part = 0; engine_seconds > 0 && part < BENCH_PARTS; part++)
        r->engine_shares[part] = parts[part] / engine_seconds;
    r->engine_own_share = 1 - r->engine_shares[BENCH_FORWARD];
    return status;
}

static int measure_machines(const struct bench_plan *plan, struct bench_result *results, struct bench_machine *machines,
                            struct lathe_error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        size_t k = 0;
        while (k < count && machines[k].threads != plan->tests[i].threads)
            k++;
        int status = k == count ? bench_machine_measure(plan->tests[i].threads, &machines[count++], err) : LATHE_OK;
        if (status)
            return status;
        results[i].machine = &machines[k];
    }
    return LATHE_OK;
}

/* Once more at the end: a limit that others' work hid at the start would flatter. */
static int measure_again(struct bench_machine *machines, size_t count, struct lathe_error *err)
{
    for (size_t i = 0; i < count && machines[i].threads; i++) {
        struct bench_machine later;
        int status = bench_machine_measure(machines[i].threads, &later, err);
        if (status)
            return status;
        if (later.read_bytes_s > machines[i].read_bytes_s)
            machines[i].read_bytes_s = later.read_bytes_s;
        for (int type = 0; type < BENCH_ARITHMETICS; type++)
            if (later.ops_s[type] > machines[i].ops_s[type])
                machines[i].ops_s[type] = later.ops_s[type];
    }
    return LATHE_OK;
}

static void show_progress(const struct bench_wishes *w, const struct bench_plan *plan, size_t i)
{
    char name[BENCH_NAME_BYTES] = "";
    if (!isatty(STDERR_FILENO))
        return;
    if (i < plan->count)
        bench_test_name(&plan->tests[i], name);
    fprintf(stderr, i < plan->count ? "\r\033[K%zu of %zu: %s, %u times" : "\r\033[K", i + 1, plan->count, name, w->repetitions);
}

/* Of a model whose option `compute` says int8, or leaves it to the model (auto) and keeps quantized
 * weights as they are, products are counted as int8; of every other as float32. */
static int arithmetic_of(const struct bench_wishes *w, const struct loaded_model *loaded)
{
    if (w->arithmetic >= 0)
        return w->arithmetic;
    json_t *options = json_loads(loaded->model->options_json, 0, NULL);
    const char *compute = json_string_value(json_object_get(options, "compute"));
    const char *weights = json_string_value(json_object_get(options, "weights"));
    bool kept = strchr(loaded->info.quantization, 'Q') && !(weights && !strcmp(weights, "f32"));
    bool int8 = kept && compute && (!strcmp(compute, "int8") || !strcmp(compute, "auto"));
    json_decref(options);
    return int8 ? BENCH_INT8 : BENCH_F32;
}

int bench_run(const struct bench_wishes *w, const struct bench_plan *plan, const struct bench_engine *engine,
              struct lathe_error *err)
{
    static const char *const kv_types[] = { [LATHE_F32] = "f32", [LATHE_F16] = "f16", [LATHE_Q8_0] = "q8_0" };
    const struct loaded_model *loaded = engine->loaded;
    struct bench_result *results = calloc(plan->count, sizeof *results);
    struct bench_machine *machines = calloc(plan->count, sizeof *machines);
    struct bench_model model = { .info = loaded->info, .arithmetic = arithmetic_of(w, loaded), .chunk = engine->chunk };
    struct bench_subject subject = { &model, loaded->path, kv_types[w->kv_dtype] };
    int status = results && machines ? LATHE_OK : lathe_fail(err, LATHE_ENOMEM, "no memory for %zu results", plan->count);
    model.kv_bytes_per_token = (double)loaded->info.kv_bytes_per_token *
                               (w->kv_dtype == LATHE_F16 ? 0.5 : w->kv_dtype == LATHE_Q8_0 ? 34.0 / 128 : 1);
    if (!status && !w->no_limits && loaded->info.weight_bytes) /* a model without weights only simulates */
        status = measure_machines(plan, results, machines, err);
    interrupt_watch(NULL);
    for (size_t i = 0; !status && i < plan->count; i++) {
        struct bench_result *r = &results[i];
        show_progress(w, plan, i);
        r->test = plan->tests[i];
        bench_demand(&model, &r->test, &r->demand);
        status = run_test(w, engine, r, err);
    }
    if (!status)
        status = measure_again(machines, plan->count, err);
    for (size_t i = 0; !status && i < plan->count; i++)
        if (results[i].machine)
            bench_limit(results[i].machine, &results[i].demand, bench_test_tokens(&results[i].test), &results[i].limit);
    show_progress(w, plan, plan->count);
    interrupt_unwatch();
    if (!status)
        status = bench_print(stdout, w->output, &subject, results, plan->count, err);
    if (!status && w->explain)
        bench_explain(w->output == BENCH_TABLE ? stdout : stderr, &subject, results, plan->count);
    free(results);
    free(machines);
    return status;
}

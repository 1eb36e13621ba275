/* SPDX-License-Identifier: MIT */
/* lathe bench: llama-bench's tests, with the machine's limits beside them. See bench.h. */
#include "command.h"

#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "interrupt.h"

static const char usage[] =
    "usage: lathe bench -m MODEL [options]\n"
    "\n"
    "How many tokens a second a model takes in and gives out here, and how near that is to what this machine's\n"
    "memory and arithmetic allow. Tests and fields are llama-bench's; lists are separated by commas.\n"
    "\n"
    "  -m, --model MODEL       a GGUF file, or a short name such as smollm2-135m\n"
    "  -p, --n-prompt N,…      a test of a prompt of N tokens: ppN (512); 0: none\n"
    "  -n, --n-gen N,…         a test of N tokens generated one after the other: tgN (128); 0: none\n"
    "      -pg P,N             and a test of both in turn; may be repeated\n"
    "  -d, --n-depth N,…       each test after a context of N tokens that is there already (0)\n"
    "  -b, --sequences N,…     of generation: N sequences at once, tg128 x16 (1); their tokens are summed\n"
    "  -t, --threads N,…       (as many as there are processors)\n"
    "  -r, --repetitions N     of each test, after a short one that doesn't count (5)\n"
    "      -ub, --ubatch N     most rows of one forward (512)\n"
    "      --kv-type TYPE      keys and values: f32, f16 or q8_0 (f32)\n"
    "  -o, --output FORMAT     table, json, csv or sql (table)\n"
    "      --engine            each test through the whole engine too, in turn, with scheduler and recorder:\n"
    "                          what it makes of the model's rate, and its own share of a step\n"
    "      --explain           how the limits come about, in figures\n"
    "      --arithmetic TYPE   what products with weights are counted as: int8 or f32 (by the model's option compute)\n"
    "      --no-limits         don't measure the machine\n"
    "      --set KIND=NAME:OPTION=VALUE,…\n"
    "                          another plugin or option; may be repeated\n"
    "  -h, --help\n"
    "\n"
    "LATHE_KERNELS (plain, avx2, avx512) caps the instructions of model and limits alike.\n";

struct list {
    uint32_t values[BENCH_MAX_VALUES];
    size_t count;
};

struct wishes {
    const char *model;
    struct list prompts, generated, depths, sequences, threads;
    struct list pair_prompts, pair_generated;
    uint32_t repetitions, chunk;
    int32_t kv_dtype;
    int output, arithmetic; /* arithmetic −1: by the model */
    bool engine, explain, no_limits;
    struct stage_overrides overrides;
};

/* ── the command line ──────────────────────────────────────────────────────────────── */

enum { OPTION_PAIR = 256, OPTION_UBATCH, OPTION_KV_TYPE, OPTION_ENGINE, OPTION_EXPLAIN, OPTION_ARITHMETIC, OPTION_NO_LIMITS,
       OPTION_SET };

static const struct option long_options[] = {
    { "model", required_argument, NULL, 'm' },
    { "n-prompt", required_argument, NULL, 'p' },
    { "n-gen", required_argument, NULL, 'n' },
    { "pg", required_argument, NULL, OPTION_PAIR },
    { "n-depth", required_argument, NULL, 'd' },
    { "sequences", required_argument, NULL, 'b' },
    { "threads", required_argument, NULL, 't' },
    { "repetitions", required_argument, NULL, 'r' },
    { "ubatch", required_argument, NULL, OPTION_UBATCH },
    { "kv-type", required_argument, NULL, OPTION_KV_TYPE },
    { "output", required_argument, NULL, 'o' },
    { "engine", no_argument, NULL, OPTION_ENGINE },
    { "explain", no_argument, NULL, OPTION_EXPLAIN },
    { "arithmetic", required_argument, NULL, OPTION_ARITHMETIC },
    { "no-limits", no_argument, NULL, OPTION_NO_LIMITS },
    { "set", required_argument, NULL, OPTION_SET },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

/* Numbers separated by commas, least … most each; added to the list if `list` has some already. */
static int add_values(const char *option, const char *text, uint32_t least, uint32_t most, struct list *list)
{
    for (const char *at = text;; at++) {
        char *end;
        unsigned long value = strtoul(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || (*end && *end != ',') || value < least || value > most)
            return command_usage("bench", "%s %s: numbers from %u to %u, separated by commas, are expected", option, text, least,
                                 most);
        if (list->count == BENCH_MAX_VALUES)
            return command_usage("bench", "%s %s: at most %d numbers", option, text, BENCH_MAX_VALUES);
        list->values[list->count++] = (uint32_t)value;
        if (!*end)
            return 0;
        at = end;
    }
}

static int set_values(const char *option, const char *text, uint32_t least, uint32_t most, struct list *list)
{
    list->count = 0;
    return add_values(option, text, least, most, list);
}

static int set_number(const char *option, const char *text, uint32_t least, uint32_t most, uint32_t *value)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (end == text || *end || *text < '0' || *text > '9' || number < least || number > most)
        return command_usage("bench", "%s %s: a number from %u to %u is expected", option, text, least, most);
    *value = (uint32_t)number;
    return 0;
}

/* The place of a word among several; −1 after saying so. */
static int choose(const char *option, const char *text, const char *const *words, int count, const char *expected)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(text, words[i]))
            return i;
    command_usage("bench", "%s %s: %s is expected", option, text, expected);
    return -1;
}

static int add_pair(const char *text, struct wishes *w)
{
    struct list pair = { .count = 0 };
    int status = add_values("-pg", text, 1, 1 << 20, &pair);
    if (!status && (pair.count != 2 || w->pair_prompts.count == BENCH_MAX_VALUES))
        status = command_usage("bench", "-pg %s: a prompt's tokens and the generated ones, 512,128, are expected, at most %d times",
                               text, BENCH_MAX_VALUES);
    if (!status) {
        w->pair_prompts.values[w->pair_prompts.count++] = pair.values[0];
        w->pair_generated.values[w->pair_generated.count++] = pair.values[1];
    }
    return status;
}

static int unknown_option(const char *word)
{
    const char *names[sizeof long_options / sizeof long_options[0]], *near = NULL;
    size_t count = 0;
    for (; long_options[count].name; count++)
        names[count] = long_options[count].name;
    if (word && !strncmp(word, "--", 2))
        near = nearest_name(word + 2, names, count);
    return command_usage("bench", "there is no option %s, or its value is missing%s%s%s", word ? word : "",
                         near ? ": did you mean --" : "", near ? near : "", near ? "?" : "");
}

/* 0: go on; 2: reported; −1: help was shown. */
static int parse_option(int c, struct wishes *w)
{
    static const char *const outputs[] = { "table", "json", "csv", "sql", "md" };
    static const char *const kv_types[] = { "f32", "f16", "q8_0" };
    static const int32_t dtypes[] = { LATHE_F32, LATHE_F16, LATHE_Q8_0 };
    static const char *const arithmetics[] = { "f32", "int8" };
    const uint32_t most = 1 << 20;
    struct lathe_error err;
    int chosen = 0;
    switch (c) {
    case 'm': w->model = optarg; return 0;
    case 'p': return set_values("-p", optarg, 0, most, &w->prompts);
    case 'n': return set_values("-n", optarg, 0, most, &w->generated);
    case 'd': return set_values("-d", optarg, 0, most, &w->depths);
    case 'b': return set_values("-b", optarg, 1, 4096, &w->sequences);
    case 't': return set_values("-t", optarg, 1, 1024, &w->threads);
    case 'r': return set_number("-r", optarg, 1, BENCH_MAX_REPETITIONS, &w->repetitions);
    case OPTION_PAIR: return add_pair(optarg, w);
    case OPTION_UBATCH: return set_number("--ubatch", optarg, 1, 1 << 16, &w->chunk);
    case OPTION_KV_TYPE:
        chosen = choose("--kv-type", optarg, kv_types, 3, "f32, f16 or q8_0");
        w->kv_dtype = chosen >= 0 ? dtypes[chosen] : 0;
        break;
    case 'o':
        chosen = choose("-o", optarg, outputs, 5, "table, json, csv or sql");
        w->output = chosen == 4 ? BENCH_TABLE : chosen; /* llama-bench's word for a table */
        break;
    case OPTION_ARITHMETIC:
        chosen = choose("--arithmetic", optarg, arithmetics, 2, "int8 or f32");
        w->arithmetic = chosen;
        break;
    case OPTION_ENGINE: w->engine = true; break;
    case OPTION_EXPLAIN: w->explain = true; break;
    case OPTION_NO_LIMITS: w->no_limits = true; break;
    case OPTION_SET:
        if (overrides_add(&w->overrides, optarg, &err))
            return command_usage("bench", "%s", err.message);
        break;
    case 'h': fputs(usage, stdout); return -1;
    }
    return chosen < 0 ? 2 : 0;
}

static uint32_t processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : (uint32_t)CPU_COUNT(&set);
}

static int parse(int argc, char **argv, struct wishes *w)
{
    *w = (struct wishes){
        .prompts = { { 512 }, 1 }, .generated = { { 128 }, 1 }, .depths = { { 0 }, 1 }, .sequences = { { 1 }, 1 },
        .threads = { { processors() }, 1 }, .repetitions = 5, .chunk = 512, .kv_dtype = LATHE_F32, .arithmetic = -1,
    };
    for (int i = 1; i < argc; i++) { /* llama-bench's words of two letters and one dash */
        static char pair[] = "--pg", ubatch[] = "--ubatch";
        argv[i] = !strcmp(argv[i], "-pg") ? pair : !strcmp(argv[i], "-ub") ? ubatch : argv[i];
    }
    optind = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "m:p:n:d:b:t:r:o:h", long_options, NULL)) != -1;) {
        int status = c == '?' ? unknown_option(argv[optind - 1]) : parse_option(c, w);
        if (status)
            return status;
    }
    if (optind < argc)
        return command_usage("bench", "\"%s\" belongs to no option", argv[optind]);
    if (!w->model && !w->overrides.stages[LATHE_KIND_MODEL].name)
        return command_usage("bench", "which model? -m smollm2-135m, or -m FILE.gguf");
    return 0;
}

/* ── the tests ─────────────────────────────────────────────────────────────────────── */

struct plan {
    struct bench_test tests[BENCH_MAX_TESTS];
    size_t count;
    bool full;
};

static void add_test(struct plan *plan, uint32_t prompt, uint32_t generated, uint32_t sequences, uint32_t depth,
                     uint32_t threads)
{
    if (prompt + generated == 0)
        return;
    plan->full |= plan->count == BENCH_MAX_TESTS;
    if (!plan->full)
        plan->tests[plan->count++] = (struct bench_test){ prompt, generated, depth, sequences, threads };
}

/* Prompts alone are of one sequence: several would be the same, one after the other. */
static int make_plan(const struct wishes *w, struct plan *plan)
{
    for (size_t t = 0; t < w->threads.count; t++)
        for (size_t d = 0; d < w->depths.count; d++) {
            const uint32_t threads = w->threads.values[t], depth = w->depths.values[d];
            for (size_t i = 0; i < w->prompts.count; i++)
                add_test(plan, w->prompts.values[i], 0, 1, depth, threads);
            for (size_t i = 0; i < w->generated.count; i++)
                for (size_t b = 0; b < w->sequences.count; b++)
                    add_test(plan, 0, w->generated.values[i], w->sequences.values[b], depth, threads);
            for (size_t i = 0; i < w->pair_prompts.count; i++)
                for (size_t b = 0; b < w->sequences.count; b++)
                    add_test(plan, w->pair_prompts.values[i], w->pair_generated.values[i], w->sequences.values[b], depth, threads);
        }
    if (plan->full)
        return command_usage("bench", "more than %d tests: ask for fewer at once", BENCH_MAX_TESTS);
    if (!plan->count)
        return command_usage("bench", "no test is left: -p 0 and -n 0 leave out both");
    return 0;
}

/* ── running ───────────────────────────────────────────────────────────────────────── */

static int stopped(struct lathe_error *err)
{
    return interrupt_wanted() ? lathe_fail(err, LATHE_ECANCELLED, "interrupted") : LATHE_OK;
}

/* A forward and, if wished, the engine in turn, so that what else the machine does falls on both. */
static int run_test(const struct wishes *w, const struct bench_engine *engine, struct bench_result *r, struct lathe_error *err)
{
    struct bench_forward *forward;
    double tokens = bench_test_tokens(&r->test), engine_seconds = 0, engine_forward = 0, ignored;
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
        engine_forward += through.forward_s;
    }
    bench_forward_close(forward);
    bench_figures(&r->samples, tokens, &r->figures);
    bench_figures(&r->engine_samples, tokens, &r->engine_figures);
    r->engine_own_share = engine_seconds > 0 ? 1 - engine_forward / engine_seconds : 0;
    return status;
}

static int measure_machines(const struct plan *plan, struct bench_result *results, struct bench_machine *machines,
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

static void show_progress(const struct wishes *w, const struct plan *plan, size_t i)
{
    char name[BENCH_NAME_BYTES] = "";
    if (!isatty(STDERR_FILENO))
        return;
    if (i < plan->count)
        bench_test_name(&plan->tests[i], name);
    fprintf(stderr, i < plan->count ? "\r\033[K%zu of %zu: %s, %u times" : "\r\033[K", i + 1, plan->count, name, w->repetitions);
}

/* Quantized weights stay so, unless the model's option `compute` says that it turns them into floats.
 * A model without that option computes in float32. */
static int arithmetic_of(const struct wishes *w, const struct loaded_model *loaded)
{
    const struct lathe_plugin *plugin = loaded->model->plugin;
    if (w->arithmetic >= 0)
        return w->arithmetic;
    json_t *options = json_loads(loaded->model->options_json, 0, NULL);
    const char *compute = json_string_value(json_object_get(options, "compute"));
    bool int8 = plugin->option_count && compute && strcmp(compute, "blas") && strcmp(compute, "float") &&
                strchr(loaded->info.quantization, 'Q');
    json_decref(options);
    return int8 ? BENCH_INT8 : BENCH_F32;
}

static int run_tests(const struct wishes *w, const struct plan *plan, const struct bench_engine *engine, struct lathe_error *err)
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
        if (!status && r->machine)
            bench_limit(r->machine, &r->demand, bench_test_tokens(&r->test), &r->limit);
    }
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

static int choose_stages(const struct wishes *w, struct stage *stages, struct lathe_error *err)
{
    int status = stage_choose(&stages[LATHE_KIND_MODEL], LATHE_KIND_MODEL, "llama", err);
    if (!status && w->model)
        status = stage_set(&stages[LATHE_KIND_MODEL], "path", w->model, err);
    for (int kind = 1; !status && kind <= LATHE_KIND_BUS; kind++)
        status = overrides_apply(&w->overrides, kind, &stages[kind], err);
    return status;
}

static int bench(const struct wishes *w, const struct plan *plan, struct lathe_error *err)
{
    struct stage stages[LATHE_KIND_FRONTEND + 1] = { 0 };
    struct loaded_model loaded = { 0 };
    struct bench_engine engine = { .loaded = &loaded, .stages = stages, .chunk = w->chunk, .kv_dtype = w->kv_dtype };
    int status = registry_open(NULL, &engine.registry, err);
    if (status)
        return status;
    status = choose_stages(w, stages, err);
    if (!status)
        status = loaded_model_open(engine.registry, &stages[LATHE_KIND_MODEL], &stages[LATHE_KIND_TOKENIZER], &loaded, err);
    if (!status)
        status = run_tests(w, plan, &engine, err);
    loaded_model_close(&loaded);
    for (int kind = 0; kind <= LATHE_KIND_FRONTEND; kind++)
        stage_clear(&stages[kind]);
    registry_close(engine.registry);
    return status;
}

int cmd_bench(int argc, char **argv)
{
    struct wishes wishes;
    struct lathe_error err = { 0 };
    static struct plan plan;
    int status = parse(argc, argv, &wishes);
    if (status == 0)
        status = make_plan(&wishes, &plan);
    if (status == 0 && bench(&wishes, &plan, &err))
        status = command_fail("bench", 1, &err);
    overrides_clear(&wishes.overrides);
    return status < 0 ? 0 : status;
}

/* SPDX-License-Identifier: MIT */
/* What was measured, told: a table, or llama-bench's fields as JSON, CSV or SQL.
 *
 * A result becomes one flat object, fields in order; each format is a walk over it. Names are
 * llama-bench's where it has the field (build_commit, model_type, n_prompt, avg_ts, samples_ts …),
 * so that what reads its output reads this; what it hasn't stands behind: `test` (in its table only),
 * n_sequences, the limits, and the engine's figures, null where they weren't asked for. Samples
 * are lists, in JSON alone, as there. */
#include "bench.h"

#include <string.h>
#include <time.h>

#include "product.h"
#include "run_job.h"

static json_t *real_or_null(bool known, double value)
{
    return known ? json_real(value) : json_null();
}

static void set(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}

static void add_build(json_t *o)
{
    char *text = machine_json();
    json_t *machine = text ? json_loads(text, 0, NULL) : NULL;
    const char *cpu = json_string_value(json_object_get(machine, "cpu"));
    int dirty;
    set(o, "build_commit", json_string(build_commit(&dirty)));
    set(o, "build_number", json_string(product_version()));
    set(o, "cpu_info", json_string(cpu ? cpu : ""));
    set(o, "gpu_info", json_string(""));
    set(o, "backends", json_string("CPU"));
    json_decref(machine);
    free(text);
}

/* "llama 135M Q4_1" */
static void model_type(const struct lathe_model_info *info, char *text, size_t capacity)
{
    double millions = (double)info->parameters * 1e-6;
    if (info->parameters)
        snprintf(text, capacity, "%s %.*f%s %s", info->architecture, millions < 1000 ? 0 : 2,
                 millions < 1000 ? millions : millions * 1e-3, millions < 1000 ? "M" : "B", info->quantization);
    else
        snprintf(text, capacity, "%s", info->architecture);
}

static void add_figures(json_t *o, const char *prefix, const struct bench_figures *f, bool known)
{
    static const char *const names[] = { "avg_ns", "stddev_ns", "avg_ts", "stddev_ts" };
    const double values[] = { f->mean_ns, f->sd_ns, f->mean_rate, f->sd_rate };
    char name[32];
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, names[i]);
        set(o, name, real_or_null(known, values[i]));
    }
}

static json_t *samples_of(const struct bench_samples *samples, double tokens)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < samples->count; i++)
        json_array_append_new(list, json_real(tokens > 0 ? tokens / samples->seconds[i] : samples->seconds[i] * 1e9));
    return list;
}

static void add_limits(json_t *o, const struct bench_subject *s, const struct bench_result *r)
{
    static const char *const bounds[] = { NULL, "memory", "arithmetic" };
    const struct bench_machine *m = r->machine;
    const struct bench_limit *l = &r->limit;
    double tokens = bench_test_tokens(&r->test);
    set(o, "arithmetic", json_string(s->model->arithmetic == BENCH_INT8 ? "int8" : "f32"));
    set(o, "bytes", json_real(r->demand.bytes));
    set(o, "f32_ops", json_real(r->demand.ops[BENCH_F32]));
    set(o, "int8_ops", json_real(r->demand.ops[BENCH_INT8]));
    set(o, "read_bytes_per_s", real_or_null(m, m ? m->read_bytes_s : 0));
    set(o, "f32_set", m ? json_string(m->set[BENCH_F32]) : json_null());
    set(o, "f32_ops_per_s", real_or_null(m, m ? m->ops_s[BENCH_F32] : 0));
    set(o, "int8_set", m ? json_string(m->set[BENCH_INT8]) : json_null());
    set(o, "int8_ops_per_s", real_or_null(m, m ? m->ops_s[BENCH_INT8] : 0));
    set(o, "memory_ts", real_or_null(l->memory_s > 0, l->memory_s > 0 ? tokens / l->memory_s : 0));
    set(o, "arithmetic_ts", real_or_null(l->arithmetic_s > 0, l->arithmetic_s > 0 ? tokens / l->arithmetic_s : 0));
    set(o, "limit", l->bound ? json_string(bounds[l->bound]) : json_null());
    set(o, "limit_ts", real_or_null(l->bound, l->tokens_s));
    set(o, "limit_share", real_or_null(l->bound, l->bound ? r->figures.mean_rate / l->tokens_s : 0));
}

static json_t *object_of(const struct bench_subject *s, const struct bench_result *r, bool lists)
{
    char name[BENCH_NAME_BYTES], type[160], when[32];
    const struct lathe_model_info *info = &s->model->info;
    double tokens = bench_test_tokens(&r->test);
    time_t seconds = (time_t)r->when_s;
    struct tm utc;
    json_t *o = json_object();
    add_build(o);
    model_type(info, type, sizeof type);
    bench_test_name(&r->test, name);
    gmtime_r(&seconds, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    set(o, "model_filename", json_string(s->path));
    set(o, "model_type", json_string(type));
    set(o, "model_size", json_integer((json_int_t)info->weight_bytes));
    set(o, "model_n_params", json_integer((json_int_t)info->parameters));
    set(o, "n_batch", json_integer(s->model->chunk));
    set(o, "n_ubatch", json_integer(s->model->chunk));
    set(o, "n_threads", json_integer(r->test.threads));
    set(o, "type_k", json_string(s->kv_type));
    set(o, "type_v", json_string(s->kv_type));
    set(o, "n_gpu_layers", json_integer(0));
    set(o, "n_prompt", json_integer(r->test.prompt));
    set(o, "n_gen", json_integer(r->test.generated));
    set(o, "n_depth", json_integer(r->test.depth));
    set(o, "test_time", json_string(when));
    add_figures(o, "", &r->figures, true);
    set(o, "test", json_string(name));
    set(o, "n_sequences", json_integer(r->test.sequences));
    add_limits(o, s, r);
    add_figures(o, "engine_", &r->engine_figures, r->engine);
    set(o, "engine_own_share", real_or_null(r->engine, r->engine_own_share));
    if (lists) {
        set(o, "samples_ns", samples_of(&r->samples, 0));
        set(o, "samples_ts", samples_of(&r->samples, tokens));
        set(o, "engine_samples_ns", samples_of(&r->engine_samples, 0));
        set(o, "engine_samples_ts", samples_of(&r->engine_samples, tokens));
    }
    return o;
}

/* A quoted string with its quotes doubled, as CSV (") and SQL (') both want it; numbers as they are. */
static void print_value(FILE *out, const json_t *value, char quote, const char *null)
{
    if (json_is_null(value)) {
        fputs(null, out);
    } else if (json_is_string(value)) {
        fputc(quote, out);
        for (const char *at = json_string_value(value); *at; at++) {
            if (*at == quote)
                fputc(quote, out);
            fputc(*at, out);
        }
        fputc(quote, out);
    } else if (json_is_integer(value)) {
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else {
        fprintf(out, "%.9g", json_real_value(value));
    }
}

static void print_csv(FILE *out, json_t *o, bool head)
{
    const char *name, *between = "";
    json_t *value;
    if (head) {
        json_object_foreach(o, name, value) {
            fprintf(out, "%s%s", between, name);
            between = ",";
        }
        fputc('\n', out);
    }
    between = "";
    json_object_foreach(o, name, value) {
        fputs(between, out);
        print_value(out, value, '"', "");
        between = ",";
    }
    fputc('\n', out);
}

static void print_sql(FILE *out, json_t *o, bool head)
{
    const char *name, *between = "";
    json_t *value;
    if (head) {
        fputs("CREATE TABLE IF NOT EXISTS lathe_bench (\n", out);
        json_object_foreach(o, name, value) {
            const char *type = json_is_string(value) ? "TEXT" : json_is_integer(value) ? "INTEGER" : "REAL";
            if (json_is_null(value) && (!strcmp(name, "limit") || strstr(name, "_set")))
                type = "TEXT";
            fprintf(out, "%s  \"%s\" %s", between, name, type);
            between = ",\n";
        }
        fputs("\n);\n", out);
    }
    fputs("INSERT INTO lathe_bench VALUES (", out);
    between = "";
    json_object_foreach(o, name, value) {
        fputs(between, out);
        print_value(out, value, '\'', "NULL");
        between = ", ";
    }
    fputs(");\n", out);
}

/* "81% of what memory allows" */
static void describe_share(const struct bench_subject *s, const struct bench_result *r, char *text, size_t capacity)
{
    const char *what = r->limit.bound == BENCH_MEMORY               ? "memory"
                       : s->model->arithmetic == BENCH_INT8 ? "int8 arithmetic"
                                                            : "f32 arithmetic";
    if (r->limit.bound)
        snprintf(text, capacity, "%.0f%% of what %s allows", 100 * r->figures.mean_rate / r->limit.tokens_s, what);
    else
        snprintf(text, capacity, "–");
}

static void print_table(FILE *out, const struct bench_subject *s, const struct bench_result *results, size_t count)
{
    const struct lathe_model_info *info = &s->model->info;
    char type[160], share[80], name[BENCH_NAME_BYTES], rate[48], through[48], own[48];
    bool engine = false;
    for (size_t i = 0; i < count; i++)
        engine |= results[i].engine;
    model_type(info, type, sizeof type);
    fprintf(out, "| %-22s | %10s | %10s | %-7s | %7s | %18s | %20s | %-36s |", "model", "size", "params", "backend", "threads",
            "test", "t/s", "of the machine's limit");
    fprintf(out, engine ? " %20s | %18s |\n" : "\n", "through the engine", "engine's own share");
    fprintf(out, "| %.22s | %.9s: | %.9s: | %.7s | %.6s: | %.17s: | %.19s: | %.36s |", "----------------------", "---------", "---------",
            "-------", "------", "-----------------", "-------------------", "------------------------------------");
    fprintf(out, engine ? " %.19s: | %.17s: |\n" : "\n", "-------------------", "-----------------");
    for (size_t i = 0; i < count; i++) {
        const struct bench_result *r = &results[i];
        bench_test_name(&r->test, name);
        describe_share(s, r, share, sizeof share);
        snprintf(rate, sizeof rate, "%.2f ± %.2f", r->figures.mean_rate, r->figures.sd_rate);
        fprintf(out, "| %-22s | %6.2f MiB | %8.2f M | %-7s | %7u | %18s | %*s | %-*s |", type,
                (double)info->weight_bytes / (1 << 20), (double)info->parameters * 1e-6, "CPU", r->test.threads, name,
                21, rate, r->limit.bound ? 36 : 38, share); /* ± and – are two and three bytes, one column each */
        if (engine && r->engine) {
            snprintf(through, sizeof through, "%.2f ± %.2f", r->engine_figures.mean_rate, r->engine_figures.sd_rate);
            snprintf(own, sizeof own, "%.2f%%", 100 * r->engine_own_share);
            fprintf(out, " %21s | %18s |", through, own);
        } else if (engine) {
            fprintf(out, " %22s | %20s |", "–", "–");
        }
        fputc('\n', out);
    }
    for (size_t i = 0; i < count; i++) { /* the machine, once for each number of threads */
        const struct bench_machine *m = results[i].machine;
        bool told = !m;
        for (size_t k = 0; k < i; k++)
            told |= results[k].machine == m;
        if (told)
            continue;
        fprintf(out, "\n%u thread%s of this machine: %.1f GB/s read, %.0f GFLOP/s of f32 (%s)", m->threads,
                m->threads == 1 ? "" : "s", m->read_bytes_s * 1e-9, m->ops_s[BENCH_F32] * 1e-9, m->set[BENCH_F32]);
        if (m->ops_s[BENCH_INT8] > 0)
            fprintf(out, ", %.0f Gop/s of int8 (%s)", m->ops_s[BENCH_INT8] * 1e-9, m->set[BENCH_INT8]);
        fputs("\n", out);
    }
}

int bench_print(FILE *out, int output, const struct bench_subject *subject, const struct bench_result *results,
                size_t count, struct lathe_error *err)
{
    json_t *all = json_array();
    int status = LATHE_OK;
    if (output == BENCH_TABLE)
        print_table(out, subject, results, count);
    for (size_t i = 0; output != BENCH_TABLE && i < count; i++) {
        json_t *o = object_of(subject, &results[i], output == BENCH_JSON);
        if (output == BENCH_CSV)
            print_csv(out, o, i == 0);
        else if (output == BENCH_SQL)
            print_sql(out, o, i == 0);
        json_array_append_new(all, o);
    }
    if (output == BENCH_JSON) {
        if (json_dumpf(all, out, JSON_INDENT(2) | JSON_REAL_PRECISION(12)))
            status = lathe_fail(err, LATHE_ENOMEM, "no memory to write the results as JSON");
        fputc('\n', out);
    }
    json_decref(all);
    return status;
}

void bench_explain(FILE *out, const struct bench_subject *s, const struct bench_result *results, size_t count)
{
    const struct bench_model *model = s->model;
    const struct lathe_model_info *info = &model->info;
    double output = (double)info->vocab_tokens * info->embedding_width, body = (double)info->parameters - output;
    fprintf(out,
            "\nHow the limits come about\n\n"
            "A test can't be quicker than reading what it must read, nor than multiplying what it must multiply; both can\n"
            "go on at once, so the slower of the two bounds. Everything is counted at its least:\n\n"
            "  bytes       a forward reads all weights once, %.1f MB, whatever its rows, and of each sequence its keys and\n"
            "              values, %.0f bytes a position (%s); chunks of a prompt but the last leave the output matrix out\n"
            "  operations  a row takes 2 × %.1f M for the layers' weights, 2 × %.1f M for the output matrix if it gives a\n"
            "              token, and 4 × %u layers × %u heads × %u for each key that it sees\n"
            "  types       products with weights: %s; attention: f32. Seconds: the sum of operations of each type over\n"
            "              that type's peak (where the processor has no int8 products: f32's)\n\n"
            "Measured at the start, the best of several rounds. What could pass a limit: a model that fits the last cache;\n"
            "4-bit products summed in 16 bits, on AVX2. An embedding beside the output matrix counts as read, though it isn't.\n",
            (double)info->weight_bytes * 1e-6, model->kv_bytes_per_token, s->kv_type, body > 0 ? body * 1e-6 : 0,
            info->parameters ? output * 1e-6 : 0, info->layers, info->heads, info->head_width,
            model->arithmetic == BENCH_INT8 ? "int8" : "f32");
    for (size_t i = 0; i < count; i++) {
        const struct bench_result *r = &results[i];
        const struct bench_machine *m = r->machine;
        double tokens = bench_test_tokens(&r->test);
        char name[BENCH_NAME_BYTES], share[80];
        if (!m || !r->limit.bound)
            continue;
        bench_test_name(&r->test, name);
        describe_share(s, r, share, sizeof share);
        fprintf(out,
                "\n%s, %u thread%s (buffer of %zu MB, last cache %zu MB):\n"
                "  memory      %.1f MB over %.1f GB/s = %.2f ms: %.0f t/s\n"
                "  arithmetic  %.2f G of f32 over %.0f G/s (%s) + %.2f G of int8 over %.0f G/s (%s) = %.2f ms: %.0f t/s\n"
                "  measured    %.2f ms: %.1f t/s, %s\n",
                name, m->threads, m->threads == 1 ? "" : "s", m->buffer_bytes / 1000000, m->cache_bytes / 1000000,
                r->demand.bytes * 1e-6, m->read_bytes_s * 1e-9, r->limit.memory_s * 1e3,
                r->limit.memory_s > 0 ? tokens / r->limit.memory_s : 0, r->demand.ops[BENCH_F32] * 1e-9,
                m->ops_s[BENCH_F32] * 1e-9, m->set[BENCH_F32], r->demand.ops[BENCH_INT8] * 1e-9, m->ops_s[BENCH_INT8] * 1e-9,
                m->set[BENCH_INT8], r->limit.arithmetic_s * 1e3,
                r->limit.arithmetic_s > 0 ? tokens / r->limit.arithmetic_s : 0, r->figures.mean_ns * 1e-6, r->figures.mean_rate,
                share);
    }
}

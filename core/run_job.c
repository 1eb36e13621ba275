/* SPDX-License-Identifier: MIT */
/* One run from its first row to its last. See run_job.h. */
#include "run_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "service.h"

/* ── the database ──────────────────────────────────────────────────────────────────── */

int make_folders(const char *path, struct lathe_error *err)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0777) && errno != EEXIST)
            return lathe_fail(err, LATHE_EIO, "can't make the folder %s: %s", folder, strerror(errno));
        *slash = '/';
    }
    return LATHE_OK;
}

static int record_parts(struct recorder_run *run, const struct engine_parts *parts, struct lathe_error *err)
{
    const struct instance *all[] = { parts->tokenizer, parts->model,    parts->sampler, parts->kvcache,
                                     parts->scheduler, parts->batching, parts->bus };
    int status = LATHE_OK;
    for (size_t i = 0; !status && i < sizeof all / sizeof all[0]; i++) {
        const struct registry_entry *entry = all[i]->entry;
        status = recorder_plugin(run, kind_name(entry->kind), entry->name, all[i]->plugin->version,
                                 ((const struct lathe_api_head *)all[i]->api)->abi, entry->sha256,
                                 all[i]->options_json, 0, RECORD_NULL, err);
    }
    return status;
}

static int record_artifacts(const struct run_job *job, struct recorder_run *run, struct lathe_error *err)
{
    int status = LATHE_OK;
    for (size_t i = 0; !status && i < job->artifact_count; i++) {
        const struct run_artifact *artifact = &job->artifacts[i];
        char hex[65];
        status = file_sha256_cached(artifact->path, hex, err);
        if (!status)
            status = recorder_artifact(run, artifact->kind, artifact->name, NULL, artifact->path, hex, err);
    }
    return status;
}

static int record_description(const struct run_job *job, struct recorder_run *run, struct lathe_error *err)
{
    int status = record_parts(run, &job->parts, err);
    if (!status)
        status = record_artifacts(job, run, err);
    for (size_t i = 0; !status && i < job->factor_count; i++)
        status = recorder_factor(run, job->factors[i].name, job->factors[i].value_json, err);
    for (uint32_t i = 0; !status && i < job->probe_count; i++)
        status = recorder_probe(run, &job->probes[i], err);
    for (uint32_t i = 0; !status && i < job->intervention_count; i++)
        status = recorder_intervention(run, i + 1, &job->interventions[i], job->intervention_keys, err);
    return status;
}

/* ── token texts ───────────────────────────────────────────────────────────────────── */

static int record_text(const struct run_job *job, struct recorder_run *run, uint8_t *seen, const int32_t *tokens,
                       size_t count, struct lathe_error *err)
{
    int status = LATHE_OK;
    for (size_t i = 0; !status && i < count; i++) {
        uint32_t id = (uint32_t)tokens[i];
        if (id >= job->model->tokens.vocab_tokens || (seen[id / 8] >> (id % 8) & 1))
            continue;
        char *text;
        size_t bytes;
        seen[id / 8] |= (uint8_t)(1 << (id % 8));
        status = tokenizer_decode(job->model->tokenizer, &tokens[i], 1, LATHE_DECODE_RAW | LATHE_DECODE_SPECIAL, &text,
                                  &bytes, err);
        if (status)
            break;
        status = recorder_token_text(run, tokens[i], text, bytes, err);
        free(text);
    }
    return status;
}

/* The vocabulary as far as it was used, so that views show text and not numbers. */
static int record_token_texts(const struct run_job *job, struct recorder_run *run, struct lathe_error *err)
{
    uint8_t *seen = calloc(job->model->tokens.vocab_tokens / 8 + 1, 1);
    int status = seen ? LATHE_OK : lathe_fail(err, LATHE_ENOMEM, "no memory left to list the tokens used");
    for (size_t i = 0; !status && i < job->count; i++) {
        const struct planned_request *request = &job->requests[i];
        const struct engine_submit *submit = &request->submit;
        status = record_text(job, run, seen, request->output, request->output_count, err);
        if (status || !job->engine.record_prompt_tokens || request->finish_reason == LATHE_FINISH_ERROR)
            continue;
        if (submit->tokens) {
            status = record_text(job, run, seen, submit->tokens, submit->token_count, err);
            continue;
        }
        int32_t *tokens;
        size_t count;
        status = tokenizer_encode(job->model->tokenizer, submit->text, submit->text_bytes,
                                  (submit->parse_special ? LATHE_ENCODE_SPECIAL : 0u) |
                                      (submit->add_bos ? LATHE_ENCODE_BOS : 0u),
                                  &tokens, &count, err);
        if (status)
            break;
        status = record_text(job, run, seen, tokens, count, err);
        free(tokens);
    }
    free(seen);
    return status;
}

/* ── order of arrival ──────────────────────────────────────────────────────────────── */

struct arrival {
    int64_t planned_ns;
    size_t number;
};

static int by_arrival(const void *a, const void *b)
{
    const struct arrival *x = a, *y = b;
    if (x->planned_ns != y->planned_ns)
        return x->planned_ns < y->planned_ns ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* drive wants open workloads sorted by time; the caller wants them back as written. */
static int sort_requests(struct run_job *job, size_t **order, struct lathe_error *err)
{
    struct planned_request *sorted = calloc(job->count, sizeof *sorted);
    struct arrival *arrivals = calloc(job->count, sizeof *arrivals);
    *order = calloc(job->count, sizeof **order);
    if (!sorted || !arrivals || !*order) {
        free(sorted);
        free(arrivals);
        free(*order);
        *order = NULL;
        return lathe_fail(err, LATHE_ENOMEM, "no memory left for %zu requests", job->count);
    }
    for (size_t i = 0; i < job->count; i++)
        arrivals[i] = (struct arrival){ job->concurrency ? 0 : job->requests[i].submit.planned_ns, i };
    qsort(arrivals, job->count, sizeof *arrivals, by_arrival);
    for (size_t i = 0; i < job->count; i++) {
        sorted[i] = job->requests[arrivals[i].number];
        (*order)[i] = arrivals[i].number;
    }
    free(arrivals);
    free(job->requests);
    job->requests = sorted;
    return LATHE_OK;
}

static void unsort_requests(struct run_job *job, size_t *order)
{
    struct planned_request *written = order ? calloc(job->count, sizeof *written) : NULL;
    if (written) { /* without memory they stay sorted: nothing is lost */
        for (size_t i = 0; i < job->count; i++)
            written[order[i]] = job->requests[i];
        free(job->requests);
        job->requests = written;
    }
    free(order);
}

/* ── driving ───────────────────────────────────────────────────────────────────────── */

struct watch {
    struct run_job *job;
    struct progress progress;
    struct drive_progress last;
};

static int on_progress(void *user, const struct drive_progress *now)
{
    struct watch *watch = user;
    watch->last = *now;
    if (!watch->job->quiet)
        progress_show(&watch->progress, now, false);
    if (watch->job->interrupted && watch->job->interrupted()) {
        watch->job->was_interrupted = true;
        return 1;
    }
    return 0;
}

/* Does nobody's prompt have tokens or text? */
static bool only_lengths(const struct run_job *job)
{
    for (size_t i = 0; i < job->count; i++)
        if (job->requests[i].submit.tokens || job->requests[i].submit.text)
            return false;
    return true;
}

/* Where nothing was said: a queue can grow long in a simulation, and many replicas share the memory. */
static void simulated_sizes(const struct run_job *job, struct engine_params *engine)
{
    const uint32_t most = 16384, least = 256;
    uint32_t each = most / (job->replicas ? job->replicas : 1);
    if (!engine->max_requests)
        engine->max_requests = each > least ? each : least;
    if (!engine->context_tokens && engine->lengths_only)
        engine->context_tokens = job->model->info.context_tokens;
    if (!engine->output_queue)
        engine->output_queue = 1; /* nobody reads */
}

static int open_deployment(struct run_job *job, struct lathe_error *err)
{
    struct deployment_params params = {
        .engine = job->engine, .replicas = job->replicas, .prefill = job->split.prefill, .groups = job->groups,
        .group_count = job->model_count, .hops = job->hops, .registry = job->registry,
        .stages = job->stages,
    };
    params.engine.parts = job->parts;
    params.engine.clock = &job->clock;
    params.engine.run = job->run;
    params.engine.probes = job->probes;
    params.engine.probe_count = job->probe_count;
    params.engine.interventions = job->interventions;
    params.engine.intervention_count = job->intervention_count;
    params.engine.intervention_floats = job->intervention_floats;
    params.engine.intervention_float_count = job->intervention_float_count;
    params.engine.intervention_keys = job->intervention_keys;
    params.engine.intervention_key_count = job->intervention_key_count;
    if (job->clock_kind == CLOCK_KIND_VIRTUAL) {
        int status = simulate_open(&job->simulation, err);
        if (status != LATHE_OK)
            return status;
        params.ended = simulate_ended;
        params.user = job->simulation;
        params.engine.lengths_only = only_lengths(job);
        simulated_sizes(job, &params.engine);
    }
    return deployment_open(&params, &job->deployment, err);
}

static int simulate_requests(struct run_job *job, struct watch *watch, struct lathe_error *err)
{
    struct simulate_params simulating = {
        .deployment = job->deployment, .clock = &job->clock, .requests = job->requests, .count = job->count,
        .workload = job->workload, .concurrency = job->concurrency, .think_ns = job->think_ns, .faults = job->faults,
        .fault_count = job->fault_count, .split = job->split.prefill ? &job->split : NULL, .warmup_requests = job->warmup_requests, .progress = on_progress, .user = watch,
    };
    job->figures = calloc(1, sizeof *job->figures);
    if (!job->figures)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the run's figures");
    int status = figures_open(job->figures, err);
    if (status != LATHE_OK)
        return status;
    simulating.figures = job->figures;
    return simulate(job->simulation, &simulating, err);
}

static int drive_requests(struct run_job *job, struct lathe_error *err)
{
    struct watch watch = { .job = job };
    struct drive_params driving = {
        .deployment = job->deployment, .clock = &job->clock, .requests = job->requests, .count = job->count,
        .concurrency = job->concurrency, .think_ns = job->think_ns, .progress = on_progress, .user = &watch,
    };
    if (!job->quiet)
        progress_start(&watch.progress, job->info.label);
    struct clock machine;
    clock_start(&machine, CLOCK_KIND_REAL);
    clock_start(&job->clock, job->clock_kind); /* the run begins: what was before is loading */
    int status = job->simulation ? simulate_requests(job, &watch, err) : drive(&driving, err);
    job->wall_s = (double)clock_now(&machine) * 1e-9;
    job->elapsed_s = (double)clock_now(&job->clock) * 1e-9;
    if (!job->quiet) {
        watch.last.now_ns = clock_now(&job->clock);
        watch.last.machine_ns += watch.last.machine_ns ? 0 : watch.last.now_ns;
        progress_show(&watch.progress, &watch.last, true);
    }
    if (job->was_interrupted && !status)
        status = lathe_fail(err, LATHE_ECANCELLED, "interrupted");
    return status;
}

/* Why a run failed, as a row beside those that it left. */
static void record_failure(struct recorder_run *run, const struct clock *clock, const struct lathe_error *why)
{
    struct producer *producer;
    struct lathe_error ignored;
    if (recorder_producer(run, &producer, &ignored))
        return;
    struct record_event event = { .time_ns = clock_now(clock), .correlation_id = RECORD_NULL };
    snprintf(event.level, sizeof event.level, "error");
    snprintf(event.message, sizeof event.message, "%.*s", (int)sizeof event.message - 1, why->message);
    record_event(producer, &event);
}

static void copy_text(char *to, size_t capacity, const char *from)
{
    snprintf(to, capacity, "%.*s", (int)capacity - 1, from ? from : "");
}

/* The engine knows nothing of a request that it refused; the run still owes it a row. Its
 * number follows those of the others. */
static int record_refused(const struct run_job *job, struct recorder_run *run, struct lathe_error *err)
{
    struct producer *producer = NULL;
    int64_t last = 0;
    for (size_t i = 0; i < job->count; i++)
        last = (int64_t)job->requests[i].id > last ? (int64_t)job->requests[i].id : last;
    for (size_t i = 0; i < job->count; i++) {
        struct planned_request *request = &job->requests[i];
        const struct engine_submit *submit = &request->submit;
        if (request->id || request->finish_reason != LATHE_FINISH_ERROR)
            continue;
        int status = producer ? LATHE_OK : recorder_producer(run, &producer, err);
        if (status)
            return status;
        int64_t came = submit->planned_ns > 0 ? submit->planned_ns : 0;
        struct record_request row = {
            .id = ++last, .session = submit->session ? (int64_t)submit->session : RECORD_NULL,
            .turn = submit->session ? submit->turn : RECORD_NULL, .priority = submit->priority,
            .planned_ns = came, .arrival_ns = came, .admitted_ns = RECORD_NULL, .first_token_ns = RECORD_NULL,
            .finish_ns = came, .slo_ttft_ns = submit->slo_ttft_ns ? submit->slo_ttft_ns : RECORD_NULL,
            .slo_tpot_ns = submit->slo_tpot_ns ? submit->slo_tpot_ns : RECORD_NULL,
            .deadline_ns = submit->deadline_ns ? submit->deadline_ns : RECORD_NULL,
            .predicted_tokens = submit->predicted_output_tokens ? submit->predicted_output_tokens : RECORD_NULL,
            .weight = RECORD_NULL, .max_tokens = RECORD_NULL, .ignore_eos = RECORD_NULL,
        };
        copy_text(row.class, sizeof row.class, submit->class_name);
        copy_text(row.tenant, sizeof row.tenant, submit->tenant);
        copy_text(row.model, sizeof row.model, job->model->info.name);
        copy_text(row.finish_reason, sizeof row.finish_reason, "error");
        copy_text(row.correlation_id, sizeof row.correlation_id, submit->correlation_id);
        record_request(producer, &row);
        request->id = (uint64_t)row.id;
    }
    return LATHE_OK;
}

/* The most positions that a request can come to: a token is at least a byte of text. */
static uint64_t longest_request(const struct run_job *job)
{
    uint64_t longest = job->count ? 1 : UINT32_MAX; /* none are known beforehand: as long as can be */
    for (size_t i = 0; i < job->count; i++) {
        const struct engine_submit *submit = &job->requests[i].submit;
        uint64_t output = submit->forced_output_tokens ? submit->forced_output_tokens
                          : submit->max_output_tokens  ? submit->max_output_tokens
                                                       : 256;
        uint64_t tokens = (submit->tokens ? submit->token_count : submit->text_bytes) + output + 1;
        longest = tokens > longest ? tokens : longest;
    }
    return longest;
}

/* The recorder's bulk ring holds two steps' attention: whole rows of a long prompt are large. */
static size_t attention_bytes(const struct run_job *job)
{
    const size_t usual = (size_t)16 << 20, most = (size_t)512 << 20;
    if (!job->probe_count)
        return 0;
    uint64_t longest = longest_request(job), context = job->model->info.context_tokens;
    if (job->engine.context_tokens && job->engine.context_tokens < context)
        context = job->engine.context_tokens;
    uint32_t keys = (uint32_t)(longest < context ? longest : context);
    uint64_t rows = job->engine.batch_tokens ? job->engine.batch_tokens : 512;
    if (job->count && rows > (uint64_t)keys * job->count)
        rows = (uint64_t)keys * job->count;
    uint64_t row = 0;
    for (uint32_t i = 0; i < job->probe_count; i++)
        row += lathe_attention_row_bytes(&job->probes[i], keys); /* < 2^5 · 2^33 */
    uint64_t wanted = row > most / rows ? most : 2 * rows * row;
    return wanted < usual ? usual : wanted > most ? most : (size_t)wanted;
}

static int open_recording(struct run_job *job, struct lathe_error *err)
{
    struct recorder_params params = job->recorder;
    int status = LATHE_OK;
    params.path = job->database;
    params.bulk_bytes = attention_bytes(job);
    /* The sums first: they take long, and the run's wall clock starts with its row. */
    for (size_t i = 0; !status && i < job->artifact_count; i++) {
        char hex[65];
        status = file_sha256_cached(job->artifacts[i].path, hex, err);
    }
    if (!status)
        status = make_folders(job->database, err);
    if (!status)
        status = recorder_borrow(&params, &job->open_recorder, err);
    if (!status)
        status = recorder_run_begin(job->open_recorder, &job->info, &job->run, err);
    if (status)
        return status;
    recorder_run_rings(job->run, &params);
    snprintf(job->database_path, sizeof job->database_path, "%s", recorder_path(job->open_recorder));
    job->id = recorder_run_id(job->run);
    return record_description(job, job->run, err);
}

int run_job_open(struct run_job *job, struct lathe_error *err)
{
    clock_start(&job->clock, job->clock_kind);
    int status = job->recording ? open_recording(job, err) : LATHE_OK;
    if (!status)
        status = open_deployment(job, err);
    if (!status)
        clock_start(&job->clock, job->clock_kind);
    if (status) {
        struct lathe_error why = *err;
        run_job_end(job, status, &why);
    }
    return status;
}

int run_job_end(struct run_job *job, int status, struct lathe_error *err)
{
    struct lathe_error closing;
    deployment_close(job->deployment);
    simulate_close(job->simulation);
    job->deployment = NULL;
    job->simulation = NULL;
    if (!status && job->run)
        status = record_refused(job, job->run, err);
    if (!status && job->run)
        status = record_token_texts(job, job->run, err);
    if (status && job->run)
        record_failure(job->run, &job->clock, err);
    if (job->run && recorder_run_end(job->run, status ? "failed" : "done", &closing) && !status)
        *err = closing, status = closing.code;
    if (job->open_recorder && recorder_return(job->open_recorder, &closing) && !status)
        *err = closing, status = closing.code;
    job->run = NULL;
    job->open_recorder = NULL;
    return status;
}

int run_job(struct run_job *job, struct lathe_error *err)
{
    size_t *order = NULL;
    int status = sort_requests(job, &order, err);
    if (!status && (status = run_job_open(job, err)) == LATHE_OK) {
        status = drive_requests(job, err);
        status = run_job_end(job, status, err);
    }
    unsort_requests(job, order);
    return status;
}

void run_job_close(struct run_job *job)
{
    parts_close(&job->parts);
    free(job->faults);
    free(job->intervention_floats);
    free(job->intervention_keys);
    job->faults = NULL;
    job->intervention_floats = NULL;
    job->intervention_keys = NULL;
    if (job->figures)
        figures_close(job->figures);
    free(job->figures);
    job->figures = NULL;
    for (size_t i = 0; i < sizeof job->stages / sizeof job->stages[0]; i++)
        stage_clear(&job->stages[i]);
}

void run_requests_free(struct planned_request *requests, size_t count)
{
    for (size_t i = 0; requests && i < count; i++) {
        free(requests[i].output);
        free(requests[i].logprobs);
        free(requests[i].text);
    }
    free(requests);
}

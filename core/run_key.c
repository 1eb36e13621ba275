/* SPDX-License-Identifier: MIT */
/* SHA-256 over everything that decides what a run does:
 *
 *     configuration (JSON) · clock · seed · sweep · factors
 *     · every request: its text or ids, times, lengths, wishes
 *     · the bytes of each plugin's .so, of the model's file, of the script and of a trace
 *     · the bytes of every file that a plugin's option of type path names
 *
 * Each piece goes in as name, length, bytes, so that no two descriptions run together. Labels,
 * questions, the place in the seeds' list and the database are left out: they change nothing.
 * So is the build of lathe itself: a key that changed with every commit would resume nothing;
 * run.commit_id tells builds apart, and `fresh = true` runs all again. */
#include "run_key.h"

#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "sha256.h"
#include "workload.h"

enum { DRAWN_REQUESTS = 4096 }; /* of a million, 2 ms worth */

static void add(struct sha256 *sha, const char *name, const void *bytes, size_t count)
{
    uint64_t lengths[2] = { strlen(name), count };
    sha256_add(sha, lengths, sizeof lengths);
    sha256_add(sha, name, strlen(name));
    if (count)
        sha256_add(sha, bytes, count);
}

static void add_text(struct sha256 *sha, const char *name, const char *text)
{
    add(sha, name, text, text ? strlen(text) : 0);
}

static void add_number(struct sha256 *sha, const char *name, int64_t value)
{
    add(sha, name, &value, sizeof value);
}

static void add_request(struct sha256 *sha, const struct engine_submit *s)
{
    const int64_t numbers[] = {
        s->parse_special, s->add_bos, s->max_output_tokens, s->forced_output_tokens, s->ignore_eos,
        s->predicted_output_tokens, s->priority, (int64_t)s->session, s->turn, s->planned_ns, s->deadline_ns,
        s->slo_ttft_ns, s->slo_tpot_ns, s->probes, s->weight, (int64_t)s->token_count,
    };
    add(sha, "request", numbers, sizeof numbers);
    if (s->tokens)
        add(sha, "tokens", s->tokens, s->token_count * sizeof *s->tokens);
    else
        add(sha, "text", s->text, s->text_bytes);
    if (s->forced_tokens)
        add(sha, "forced", s->forced_tokens, s->forced_output_tokens * sizeof *s->forced_tokens);
    if (s->interventions)
        add_number(sha, "interventions", (int64_t)s->interventions);
    add_text(sha, "class", s->class_name);
    add_text(sha, "tenant", s->tenant);
    add(sha, "stops", s->stop_ids, s->stop_id_count * sizeof *s->stop_ids);
    if (s->sampling) {
        const struct lathe_sampling *w = s->sampling;
        const double wishes[] = { (double)w->temperature, (double)w->top_p, (double)w->min_p, w->top_k,
                                  (double)w->repetition_penalty, (double)w->presence_penalty,
                                  (double)w->frequency_penalty };
        add(sha, "sampling", wishes, sizeof wishes);
        add_number(sha, "its seed", (int64_t)w->seed);
    }
}

/* A workload that is drawn as it comes. The configuration has its distributions and seeds; the
 * first requests tell apart what that leaves out (the values of an empirical one). */
static void add_drawn(struct sha256 *sha, struct workload *workload)
{
    struct workload_request r;
    add_number(sha, "drawn", (int64_t)workload_count(workload));
    workload_rewind(workload);
    for (int i = 0; i < DRAWN_REQUESTS && workload_next(workload, &r); i++) {
        const int64_t numbers[] = { r.planned_ns, r.prompt_tokens, r.output_tokens, r.predicted_output_tokens, r.class_number,
                                    r.priority, r.weight, r.slo_ttft_ns, r.slo_tpot_ns, r.deadline_ns };
        add(sha, "request", numbers, sizeof numbers);
        add_text(sha, "class", r.class_name);
        add_text(sha, "tenant", r.tenant);
    }
    workload_rewind(workload);
}

/* The files that an instance's options name; a folder, or what is no file, has its name only. */
static int add_files(struct sha256 *sha, const struct instance *instance, struct lathe_error *err)
{
    const struct lathe_plugin *plugin = instance->plugin;
    json_t *options = instance->options_json ? json_loads(instance->options_json, 0, NULL) : NULL;
    int status = LATHE_OK;
    for (uint32_t i = 0; !status && i < plugin->option_count; i++) {
        char path[4096], hex[65];
        struct stat found;
        struct lathe_error ignored;
        const char *text = json_string_value(json_object_get(options, plugin->options[i].name));
        if (plugin->options[i].type != LATHE_OPTION_PATH || !text || !*text)
            continue;
        if (model_path_resolve(text, path, sizeof path, &ignored))
            snprintf(path, sizeof path, "%s", text);
        if (stat(path, &found) || !S_ISREG(found.st_mode))
            continue;
        status = file_sha256_cached(path, hex, err);
        add_text(sha, plugin->options[i].name, status ? NULL : hex);
    }
    json_decref(options);
    return status;
}

/* The router is made by the deployment, and only where there is something to choose. */
static int add_router(struct sha256 *sha, const struct run_job *job, struct lathe_error *err)
{
    const struct stage *stage = &job->stages[LATHE_KIND_ROUTER];
    const struct registry_entry *entry;
    if (job->replicas < 2)
        return LATHE_OK;
    int status = registry_find(job->registry, LATHE_KIND_ROUTER,
                               stage->name ? stage->name : stage_default(LATHE_KIND_ROUTER), &entry, err);
    if (status)
        return status;
    add_text(sha, entry->name, entry->sha256);
    for (size_t i = 0; i < stage->count; i++)
        add_text(sha, stage->settings[i].name, stage->settings[i].text);
    return LATHE_OK;
}

int run_key(const struct run_job *job, char hex[65], struct lathe_error *err)
{
    const struct engine_parts *p = &job->parts;
    const struct instance *parts[] = { p->tokenizer, p->model, p->sampler, p->kvcache, p->scheduler, p->batching, p->bus };
    struct sha256 sha;
    sha256_begin(&sha);
    add_text(&sha, "config", job->info.config_json);
    add_text(&sha, "clock", job->info.clock);
    add_number(&sha, "seed", (int64_t)job->info.seed);
    add_text(&sha, "sweep", job->info.sweep);
    for (size_t i = 0; i < job->factor_count; i++)
        add_text(&sha, job->factors[i].name, job->factors[i].value_json);
    add_number(&sha, "concurrency", job->concurrency);
    add_number(&sha, "think", job->think_ns);
    for (size_t i = 0; i < job->count; i++)
        add_request(&sha, &job->requests[i].submit);
    if (job->workload)
        add_drawn(&sha, job->workload);
    int status = LATHE_OK;
    for (size_t i = 0; !status && i < sizeof parts / sizeof parts[0]; i++) {
        add_text(&sha, parts[i]->entry->name, parts[i]->entry->sha256);
        status = add_files(&sha, parts[i], err);
    }
    for (uint32_t i = 1; !status && i < job->model_count; i++) {
        add_text(&sha, "another model", job->groups[i].model->entry->sha256);
        status = add_files(&sha, job->groups[i].model, err);
    }
    if (!status)
        status = add_router(&sha, job, err);
    for (size_t i = 0; !status && i < job->artifact_count; i++) {
        char sum[65];
        status = file_sha256_cached(job->artifacts[i].path, sum, err);
        add_text(&sha, job->artifacts[i].kind, status ? NULL : sum);
    }
    sha256_end(&sha, hex);
    return status;
}

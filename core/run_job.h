/* SPDX-License-Identifier: MIT */
/* A run: one engine, one workload, one row in table `run`. What lathe.run describes,
 * carried out without Lua:
 *
 *     open the database → rows: run, factors, artifacts, probes → open the engine
 *     → rows: plugins → drive, with progress → token texts → close, state done or failed */
#ifndef CORE_RUN_JOB_H
#define CORE_RUN_JOB_H

#include <stdbool.h>

#include "simulate.h"
#include "stages.h"

enum { RUN_MAX_MODELS = 16 };

struct run_factor {
    const char *name, *value_json;
};

struct run_artifact {
    const char *kind, *name, *path;
};

/* All strings are borrowed. */
struct run_job {
    /* Filled by the caller. */
    const char *who;                              /* "lathe.run": for sentences */
    struct registry *registry;
    const struct loaded_model *model;
    struct stage stages[LATHE_KIND_FRONTEND + 1]; /* by kind; the job's own */
    struct engine_parts parts;                    /* opened by the caller, closed by run_job_close */
    struct engine_params engine;                  /* sizes only; the rest is filled in */
    uint32_t replicas;                            /* of the model, or of all models; 0: 1 */
    const struct loaded_model *models[RUN_MAX_MODELS]; /* several: the first is `model`; borrowed */
    struct deployment_group groups[RUN_MAX_MODELS];    /* what is deployed of each */
    uint32_t model_count;                         /* 0: `model` alone */
    bool hops;                                    /* a row for each call of a service */
    struct planned_request *requests;             /* freed by the caller with run_requests_free */
    size_t count;
    struct workload *workload;                    /* instead of requests, virtual only: drawn as it comes; borrowed */
    uint32_t concurrency;
    int64_t think_ns;
    int clock_kind;                               /* enum clock_kind */
    struct simulated_fault *faults;               /* virtual only; freed by run_job_close */
    size_t fault_count;
    struct split_params split;                    /* virtual only; prefill 0: not */
    uint64_t warmup_requests;                     /* virtual: the figures are of those after */
    bool recording;
    const char *database;                         /* path; folders are made */
    struct recorder_params recorder;
    struct run_info info;
    const struct run_factor *factors;
    size_t factor_count;
    const struct run_artifact *artifacts;
    size_t artifact_count;
    struct lathe_probe probes[LATHE_MAX_PROBES];
    uint32_t probe_count;
    struct lathe_intervention interventions[LATHE_MAX_INTERVENTIONS];
    uint32_t intervention_count;
    float *intervention_floats;                   /* malloc'd, freed by run_job_close, like the next */
    uint32_t intervention_float_count;
    int32_t *intervention_keys;
    uint32_t intervention_key_count;
    bool quiet;                                   /* no progress */
    bool (*interrupted)(void);                    /* asked between steps; may be NULL */

    /* Between run_job_open and run_job_end. */
    struct recorder *open_recorder;
    struct recorder_run *run;
    struct clock clock;
    struct deployment *deployment;
    struct simulation *simulation;

    /* Filled by run_job. */
    int64_t id; /* 0: not recorded */
    double elapsed_s;                             /* by the run's clock */
    double wall_s;                                /* by the machine's */
    struct figures *figures;                      /* virtual only; malloc'd, freed by run_job_close unless taken */
    char database_path[4096];
    bool was_interrupted;
};

/* Runs it. On failure the rows that were recorded stay, and the run is marked failed. [main] */
int run_job(struct run_job *job, struct lathe_error *err);
/* Its parts, for a run that somebody else drives (lathe.engine): open makes the rows and the
 * deployment, on failure nothing stays open; end closes both, with the status that the driving
 * came to (*err is then why). `requests` may be filled in between. */
int run_job_open(struct run_job *job, struct lathe_error *err);
int run_job_end(struct run_job *job, int status, struct lathe_error *err);
/* Closes parts and stages; what it did not open is ignored. */
void run_job_close(struct run_job *job);
void run_requests_free(struct planned_request *requests, size_t count);

/* The folders above `path`, as mkdir -p makes them. */
int make_folders(const char *path, struct lathe_error *err);
/* {"hostname": …, "cpu": …, …}; malloc'd, NULL without memory. [main] */
char *machine_json(void);
/* The commit that this was built from ("" if unknown), and whether the tree was changed:
 * 1, 0, −1 unknown. */
const char *build_commit(int *dirty);
/* SHA-256 of a file, remembered by path, size and time of change for as long as the process lives. [any, not & running] */
int file_sha256_cached(const char *path, char hex[65], struct lathe_error *err);

/* A bar on a terminal, plain lines elsewhere; on stderr. [main] */
struct progress {
    bool terminal, shown;
    int64_t last_ns;
    uint64_t last_finished;
    const char *label;
};
void progress_start(struct progress *progress, const char *label);
void progress_show(struct progress *progress, const struct drive_progress *now, bool last);

#endif

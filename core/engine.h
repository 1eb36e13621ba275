/* SPDX-License-Identifier: MIT */
/* The engine: one replica of one model; a state machine that somebody drives.
 *
 *     submit ─▶ waiting ─▶ [ begin(now) … finish(at) ] ─▶ tokens out ─▶ finished
 *
 * A step has two halves. `begin` ranks, fills, reserves and starts the forward, and says
 * when it will be done, or until when there is nothing to do. `finish` takes the results:
 * samples, hands tokens out, retires. Nothing of a step is visible before `finish`. In real
 * time one thread calls them in turn (engine_step); in virtual time an event heap does.
 *
 * The engine calls services (tokenizer, model, sampler) through the bus's endpoints with
 * flat messages that it keeps from step to step. Policies (scheduler, batching, kvcache) are
 * called with pointers, by local services of the host's own (engine_services.c), so that they
 * too are timed, traced and called by name. It stamps all times; plugins stamp none.
 * Everything is sized by engine_open: the step loop allocates nothing.
 *
 * An engine is one replica; deployment.h puts several behind one bus. When its model's worker
 * dies the requests keep their tokens and are prefilled again (engine_health.c). */
#ifndef CORE_ENGINE_H
#define CORE_ENGINE_H

#include <stdint.h>

#include "bus_watch.h"
#include "clock.h"
#include "recorder.h"
#include "registry.h"
#include <lathe/attention.h>
#include <lathe/frontend.h>
#include <lathe/model.h>
#include <lathe/request.h>
#include <lathe/sampler.h>
#include <lathe/tokenizer.h>

struct engine;

/* The stages. All are borrowed and must outlive the engine. */
struct engine_parts {
    struct instance *tokenizer, *model, *sampler, *kvcache, *scheduler, *batching, *bus;
};

/* Counters that the replicas of one run share, so that their numbers are the run's. */
struct engine_numbers {
    uint64_t request, step;
};

/* How much of a run becomes rows: each level has the rows of those before it. */
enum engine_rows {
    ENGINE_ROWS_TOKENS = 0,        /* request, request_span, step, step_request, token */
    ENGINE_ROWS_STEP_REQUESTS = 1, /* all but token */
    ENGINE_ROWS_STEPS = 2,         /* request, request_span, step */
    ENGINE_ROWS_REQUESTS = 3,      /* request */
};

/* What is known of a request when it ends: for whoever drives without reading pieces. */
struct engine_ended {
    uint64_t id, tag;    /* tag: as submitted */
    uint32_t replica;
    int finish_reason;   /* enum lathe_finish_reason */
    const char *error;   /* "" unless it failed; until return, like the next */
    const struct lathe_request *request;
    int64_t finish_ns;
};

struct engine_params {
    struct engine_parts parts;
    struct clock *clock;
    struct recorder_run *run;    /* NULL: record nothing */
    struct bus_watch *watch;     /* told of steps and of changes of health; NULL: nobody is */
    struct engine_numbers *numbers; /* NULL: its own */
    uint32_t tokenizer_workers;  /* wished for when this engine brings the service to the bus; 0: 1 */
    int64_t degrade_wait_ns;     /* a request waited so long: degraded (engine_health.c); 0: never for that */
    uint32_t max_requests;       /* live at once; 0: 256. More: engine_submit says LATHE_EFULL */
    uint32_t batch_tokens;       /* rows of one forward; 0: 512 */
    uint32_t batch_requests;     /* 0: 32 */
    uint32_t context_tokens;     /* 0: the model's, at most 8192 */
    uint32_t output_queue;       /* pieces a request may be ahead of its reader; 0: 64 */
    uint64_t kv_memory_bytes;    /* 0: as the kvcache's options say */
    uint32_t threads;            /* 0: the model's own option */
    int32_t kv_dtype;            /* LATHE_F32 (0), LATHE_F16 or LATHE_Q8_0: unless the kvcache says another */
    uint64_t seed;               /* of the run */
    uint32_t replica;
    int attach_model;            /* its model isn't replica 0's, and no replica before it has it */
    int record_prompt_tokens;    /* token rows of kind prompt too */
    int rows;                    /* enum engine_rows */
    struct producer *producer;   /* of `run`, shared with others on the same thread; NULL: one of its own */
    int lengths_only;            /* requests come by their lengths, no token ids are kept (a model of
                                    LATHE_MODEL_LENGTHS) */
    void (*ended)(void *user, const struct engine_ended *ended); /* of every request; must not call the engine */
    void *user;
    const struct lathe_probe *probes; /* copied; a submitted request names some; at most LATHE_MAX_PROBES */
    uint32_t probe_count;
    const struct lathe_intervention *interventions; /* copied, with their vectors and keys; a submitted request */
    uint32_t intervention_count;                    /* names some; at most LATHE_MAX_INTERVENTIONS */
    const float *intervention_floats;
    uint32_t intervention_float_count;
    const int32_t *intervention_keys;
    uint32_t intervention_key_count;
    uint32_t kv_every;           /* a row of kv_usage every so many steps; 0: none */
};

/* [main]; the model's context is made here. */
int engine_open(const struct engine_params *params, struct engine **engine, struct lathe_error *err);
/* Live requests end as aborted. NULL is ignored. [main] */
void engine_close(struct engine *engine);

/* One request. Strings and arrays are copied. Zeroed fields are defaults. */
struct engine_submit {
    const char *text;            /* prompt bytes, `text_bytes` long; or ids: */
    uint64_t text_bytes;
    const int32_t *tokens;
    uint64_t token_count;        /* without text and tokens: a prompt that is known by its length alone */
    int unread;                  /* nobody reads its pieces: its slot is free when it ends */
    uint32_t carried_tokens;     /* positions of the prompt whose keys and values come with it, from another replica:
                                    they take room, and no forward (simulations of separate prefill) */
    uint64_t tag;                /* whatever the caller wants to find again in `ended` */
    int parse_special;           /* text: <|im_start|> and the like are tokens */
    int add_bos;
    const struct lathe_sampling *sampling; /* NULL: the sampler's defaults */
    uint32_t max_output_tokens;  /* 0: 256 */
    uint32_t forced_output_tokens; /* > 0: exactly this many, whatever the model says (implies ignore_eos) */
    int ignore_eos;              /* stop tokens are banned, not obeyed */
    uint32_t predicted_output_tokens; /* 0: unknown; policies by length see it */
    int32_t priority;
    uint32_t weight;             /* of its tenant, thousandths; 0: 1000 */
    const char *class_name, *tenant, *correlation_id; /* at most 63 bytes; correlation id made if NULL */
    uint64_t session;
    uint32_t turn;
    int64_t planned_ns;          /* when it should have arrived; < 0: now */
    int64_t deadline_ns;         /* absolute, 0: none */
    int64_t slo_ttft_ns, slo_tpot_ns;
    uint32_t probes;             /* bit i: the engine's probe i */
    uint64_t interventions;      /* bit i: the engine's intervention i */
    const int32_t *forced_tokens; /* forced_output_tokens of them come out, whatever the model says (teacher forcing): their
                                    log-probabilities are rows of `token`, and their sum is the score `nll`; NULL: free */
    int want_text;               /* decode pieces; otherwise their text is empty */
    const int32_t *stop_ids;     /* more ids that end it */
    uint32_t stop_id_count;      /* at most 8 */
};

/* The number that stands for a correlation id in messages: FNV-1a. [any] */
static inline uint64_t engine_correlation(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

/* Tokenizes and queues it. LATHE_ERANGE: prompt (and one token) beyond the context.
 * LATHE_EFULL: max_requests live. [engine] */
int engine_submit(struct engine *engine, const struct engine_submit *submit, uint64_t *id, struct lathe_error *err);
/* A row, with the run's next number, of a request that engine_submit refused. [engine] */
void engine_record_refusal(struct engine *engine, const struct engine_submit *submit);
/* Takes effect between steps; unknown ids are ignored. [any] */
void engine_cancel(struct engine *engine, uint64_t id);

enum engine_state {
    ENGINE_IDLE = 0,    /* nothing to do until *until_ns (INT64_MAX: until a submit) */
    ENGINE_STARTED = 1, /* a step is under way; finish it at *until_ns */
};

/* Both return a status; *state says which. A failing forward fails the requests in it
 * (finish reason error), not the engine; an engine that can't go on says so. [engine] */
int engine_begin(struct engine *engine, int64_t now_ns, int *state, int64_t *until_ns, struct lathe_error *err);
int engine_finish(struct engine *engine, int64_t at_ns, struct lathe_error *err);
/* 1 if the forward of the step under way is done: finish won't wait. [engine] */
int engine_ready(struct engine *engine);
int engine_is_started(const struct engine *engine);
/* When the step under way is done, if that is known already (a model that tells its time); else INT64_MAX. */
int64_t engine_due(const struct engine *engine);
/* 1 if it has no request, and the last piece of each was read. [engine] */
int engine_is_empty(const struct engine *engine);
/* begin and, if started, finish, by the real clock. [engine] */
int engine_step(struct engine *engine, int *state, int64_t *until_ns, struct lathe_error *err);

/* Next piece of a request's output. LATHE_EBUSY: nothing yet. After the last piece
 * (finish_reason set) the id is forgotten. [engine, or one reader thread a request] */
int engine_read(struct engine *engine, uint64_t id, struct lathe_output *output, struct lathe_error *err);

struct engine_stats {
    uint32_t waiting, running, live;
    uint64_t steps, finished, failed, preemptions;
    uint64_t losses;         /* times that its KV was lost with a worker */
    uint64_t refused;        /* waiting requests refused while degraded */
    uint64_t pending_tokens; /* of all live requests, known and not yet in KV */
    uint32_t degraded;       /* enum engine_degraded */
    uint64_t prompt_tokens, output_tokens;
    struct lathe_kv_usage_figures { uint32_t total, used, cached, shared; } kv;
};
void engine_get_stats(const struct engine *engine, struct engine_stats *stats); /* [any] */

/* What a router is told of it; costs no look at its requests. [engine] */
struct engine_load {
    uint32_t waiting, running;
    uint64_t pending_tokens;
    uint32_t blocks_used, blocks_total;
};
void engine_get_load(const struct engine *engine, struct engine_load *load);
/* 1 if scheduler and batching both promise to be work conserving. */
int engine_is_work_conserving(const struct engine *engine);

/* ── Faults, for simulations ── */

/* From the next step on, what the model says takes `factor` times as long. [engine] */
void engine_set_slowness(struct engine *engine, double factor);
/* The step under way, if any, and all keys and values are lost, as when the worker that had them
 * died: requests are prefilled again. Afterwards no step is under way. [engine] */
int engine_lose(struct engine *engine, int64_t now_ns, const char *why, struct lathe_error *err);

const struct lathe_model_info *engine_model_info(const struct engine *engine);
const struct lathe_tokenizer_info *engine_tokenizer_info(const struct engine *engine);

/* A last sentence about why a request ended in error, "" if none; valid until the next step. [engine] */
const char *engine_request_error(const struct engine *engine, uint64_t id);

/* Rather less than nothing at all: what an engine leaves out when it is in trouble. */
enum engine_degraded {
    ENGINE_NORMAL = 0,
    ENGINE_PROBES_OFF = 1, /* attention isn't traced */
    ENGINE_REFUSING = 2,   /* and the longest waiting prompts are refused, one a step */
};

/* The names of its services on the bus: "model", or "model:1" for replica 1. NULL past the
 * last. [any] */
const char *engine_service(const struct engine *engine, uint32_t number);

/* Swap a policy between steps; the old instance is free to be destroyed afterwards. [engine] */
int engine_swap_scheduler(struct engine *engine, struct instance *next, struct lathe_error *err);

/* Its services leave the bus and join `next`, between steps; two calls, since replicas share
 * services: all leave before any joins. Messages stay where the first bus lent them, so that bus
 * must outlive the engine; one whose workers are processes can neither be left nor joined. [engine] */
int engine_leave_bus(struct engine *engine, struct lathe_error *err);
int engine_join_bus(struct engine *engine, struct instance *next, struct lathe_error *err);

#endif

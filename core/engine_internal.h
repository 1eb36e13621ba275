/* SPDX-License-Identifier: MIT */
/* What the engine's files share, and nobody else includes.
 *
 *   engine.c          opens and closes: sizes everything, binds the stages to each other
 *   engine_submit.c   a request comes in
 *   engine_request.c  its output, its end
 *   engine_rows.c     what it leaves in the database
 *   engine_step.c     the step loop: begin and finish
 *   engine_memory.c   room in the KV pool: admit, promise, preempt, swap
 *   engine_message.c  a plan into flat messages, and a message's results back
 *   engine_fit.c      what of a plan the messages and the recorder's ring have room for
 *   engine_probes.c   probes and interventions: checked once, named by each slice
 *   engine_services.c its services on the bus
 *   engine_local.c    what the local ones answer by name
 *   engine_health.c   a lost worker, and what is left out when in trouble
 *
 * Slots. A request lives in one of max_requests slots from submit until its last piece
 * was read. Its id says where to look first (id modulo max_requests), so finding it is
 * one probe mostly. A slot's `id` is atomic: a reader thread finds its slot without a
 * lock, and the slot can't be reused before that reader has read the last piece. */
#ifndef CORE_ENGINE_INTERNAL_H
#define CORE_ENGINE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine.h"
#include <lathe/batching.h>
#include <lathe/bus.h>
#include <lathe/kvcache.h>
#include <lathe/scheduler.h>

enum { MAX_STOP_IDS = 8, MAX_NAMES = 256, NAME_BYTES = 64, ERROR_BYTES = 200 };
enum { ENGINE_ASK_AGAIN_NS = 10000000 }; /* of a model that can't be reached: a worker takes some 100 ms to start */

enum { SERVICE_TOKENIZER, SERVICE_MODEL, SERVICE_SAMPLER, SERVICE_SCHEDULER, SERVICE_BATCHING, SERVICE_MEMORY,
       SERVICE_COUNT };

/* Pieces of output on their way from the engine's thread to one reader. */
struct output_queue {
    _Atomic uint32_t written, read; /* counts; the difference is what lies in between */
    uint32_t mask;
    struct lathe_output *pieces;
};

/* What a step looks at of a request that decodes is in the first three cache lines. */
struct live {
    _Alignas(64) struct lathe_request req; /* what plugins see */
    uint64_t planned, refused;      /* in this plan; turned away by can_reserve: if it is engine's `fill_number` */
    int64_t last_token_ns;
    uint32_t forced;                /* exact output length, 0: free */
    uint32_t live_at;               /* its place in the engine's list */
    _Atomic uint64_t id;            /* 0: the slot is free */
    atomic_bool cancelled;
    bool in_kv;                     /* the kvcache knows it */
    bool unread;                    /* no pieces: `ended` is told */
    bool ignore_eos;
    uint32_t carried;               /* positions that came with it; 0 once they were lost */

    uint64_t tag;
    uint64_t barred;                /* gave its room to others in that begin, and gets none in it */
    bool own_sampling;              /* `sampling` was asked for, not the sampler's defaults */
    bool want_text;
    bool teacher;                   /* its answer is given: tokens[] holds it already */
    uint32_t probes;                /* bit i: probes[i] */
    uint64_t interventions;         /* bit i: interventions[i] */
    double nll;                     /* of given tokens so far, nats */
    uint32_t losses;                /* steps of its own that a worker died in */
    uint32_t undecoded;             /* newest tokens whose text is still owed */
    int finish_reason;
    int64_t span_from_ns;
    const char *span_cause;         /* why the present state was entered */
    int32_t *tokens;                /* into the engine's slab: context_tokens + 1 of them */
    struct lathe_sampling sampling;
    struct lathe_decode_state decode;
    struct output_queue queue;
    uint32_t turn;
    uint32_t stop_id_count;
    int32_t stop_ids[MAX_STOP_IDS];
    char correlation_id[NAME_BYTES], prompt_sha256[65];
    char error[ERROR_BYTES];
};
_Static_assert(offsetof(struct live, tag) <= 192, "a decoding request's part of struct live takes three cache lines");

/* One entry of the step under way, after all checks. */
struct step_entry {
    struct live *live;      /* NULL: padding only */
    uint32_t tokens, padding;
    uint32_t first;         /* position of its first row */
    uint32_t kept;          /* earlier positions that its rows see */
    const int32_t *positions; /* which, set by set; NULL: all */
    bool prefill;
    bool samples;           /* its last row's logits give a token */
    uint32_t probe, probe_count; /* of the message's; LATHE_NO_PROBE: none */
    uint64_t interventions; /* of the message's */
};

struct engine {
    struct engine_params params;
    struct lathe_model_info model_info;
    struct lathe_tokenizer_info tokenizer_info;
    struct clock *clock;
    struct producer *producer;

    /* The stages: tables and selves, so that a call is one indirection. */
    const struct lathe_model_api *model;
    void *model_context;
    const struct lathe_kvcache_api *kv;
    void *kv_self;
    const struct lathe_scheduler_api *scheduler;
    void *scheduler_self;
    const struct lathe_batching_api *batching;
    void *batching_self;
    const struct lathe_sampler_api *sampler;
    const struct lathe_bus_api *bus, *lender; /* the lender: whose loans the messages are */
    void *bus_self, *lender_self;
    bool remote;                       /* model and tokenizer run in processes of their own */
    const struct lathe_endpoint *encode, *decode, *forward, *sample, *rank, *fill, *reserve;
    struct engine_service {
        struct lathe_service what;     /* the bus borrows it */
        struct lathe_service_method methods[4];
        char name[24], with[24];
        void *recipe;                  /* malloc'd */
        bool added;
    } services[SERVICE_COUNT];

    struct lathe_kv_geometry geometry;
    struct lathe_context_params context;
    uint32_t kv_sets;        /* of kept positions, by the geometry's scope */
    uint64_t kept_room;      /* numbers of kept[], of all sets, that the message has room for */
    uint64_t mass_room;      /* floats */
    struct lathe_probe *probes;
    struct lathe_intervention *interventions;
    float *intervention_floats;
    int32_t *intervention_keys;

    /* Requests. */
    struct live *slots;
    struct lathe_message *slab; /* loaned, since the sampler reads histories where they lie */
    int32_t *token_slab; /* (max_requests, context_tokens + 1) */
    struct lathe_output *piece_slab;
    uint32_t token_stride, queue_pieces, queue_spare;
    struct engine_numbers *numbers, own_numbers;
    const struct lathe_request **live; /* not finished; in no order that matters */
    uint32_t live_count, running_count;
    uint64_t pending_tokens;           /* of all of them, known and not in KV */
    atomic_bool cancels;               /* somebody was cancelled since the last step */
    uint32_t *free_slots, free_count;  /* of unread requests that ended: taken again first, last first */
    char (*names)[NAME_BYTES];         /* interned classes and tenants; 0 is "" */
    uint32_t name_count;
    int64_t next_deadline_ns;          /* a lower bound */

    /* The step under way; sized once. */
    bool started;
    bool stepping;           /* a local service is called by the step itself */
    bool forwarded;          /* the forward was waited for: forward_status, forward_err */
    int forward_status;
    struct lathe_error forward_err;
    int64_t now_ns;          /* of begin */
    uint64_t step;           /* the run's number for it */
    uint64_t begun;          /* steps of this engine's own */
    struct lathe_step_view view;
    struct lathe_ranking ranking;
    struct lathe_plan plan;
    struct step_entry *entries;
    uint32_t entry_count;
    uint32_t promised_blocks;
    uint64_t fill_number;    /* of the plan: marks of an older one are void */
    uint64_t begins;         /* of engine_begin, from 1 on */
    bool barring;            /* in this one, somebody is barred */
    uint32_t refused_running;
    struct live **tried;     /* let into the KV cache to be asked about, not planned yet; (max_requests) */
    uint32_t tried_count;
    bool picks, tells_time, by_length, tells_mass; /* abilities of the model */
    uint32_t lets_in;        /* how many that don't run are let into the cache for a plan, see memory_begin_plan */
    bool short_of_blocks;    /* somebody was refused because of blocks, in this plan */
    double slowness;
    int64_t due_ns;          /* of the forward under way, if it told its time */
    struct lathe_kv_ops ops; /* wait for the next forward */
    uint32_t ops_sent;       /* of them in the forward under way */
    uint64_t ticket;
    size_t attention_room;   /* reserved in the recorder for this step */
    void *attention;
    struct lathe_message *attention_loan; /* remote: the worker writes here, and it is copied */
    struct lathe_message step_in, step_out; /* of the local services */
    struct lathe_forward_in *forward_in;
    struct lathe_forward_out *forward_out;
    struct lathe_sample_in *sample_in;
    struct lathe_sample_out *sample_out;
    struct lathe_decode_in *decode_in;
    struct lathe_decode_out *decode_out;
    struct record_step row;

    /* Health. */
    bool unavailable;        /* the model can't be reached: no step until it can */
    int64_t unavailable_since_ns, ask_again_ns;
    uint32_t degraded;       /* enum engine_degraded */

    struct engine_stats stats;
};

/* A text of at most capacity − 1 bytes; NULL is "". */
static inline void copy_name(char *to, size_t capacity, const char *from)
{
    size_t bytes = 0;
    for (; from && from[bytes] && bytes + 1 < capacity; bytes++)
        to[bytes] = from[bytes];
    to[bytes] = '\0';
}

/* engine_rows.c */
extern const char *const request_finish_names[]; /* by enum lathe_finish_reason */
/* Its row as it is now; finish_ns −1: it goes on. */
void request_record(struct engine *engine, const struct live *live, int64_t finish_ns);
void request_record_prompt(struct engine *engine, const struct live *live);
/* Of an answer that was given: the score `nll`. */
void request_record_likelihood(struct engine *engine, const struct live *live);

/* engine_request.c */
struct live *engine_find(const struct engine *engine, uint64_t id);
static inline struct live *live_of(const struct engine *engine, const struct lathe_request *req)
{
    return &engine->slots[req->index];
}
/* Enter a state: the span of the one before becomes a row. `cause` is a literal. */
void request_enter(struct engine *engine, struct live *live, int32_t state, const char *cause, int64_t now_ns);
/* Its KV now holds so many positions. */
static inline void request_computed(struct engine *engine, struct live *live, uint32_t tokens)
{
    engine->pending_tokens += live->req.computed_tokens;
    engine->pending_tokens -= tokens;
    live->req.computed_tokens = tokens;
}
/* It ends: KV and policies let go of it, its last piece and row are written. `with_token`:
 * the last piece carries the newest token. */
void request_finish(struct engine *engine, struct live *live, int reason, const char *error, int64_t now_ns);
/* A sampled token: into its request, its queue and its rows; finishes it if it is the last. */
void request_token(struct engine *engine, struct live *live, struct lathe_sampled sampled, int64_t now_ns);
bool request_reader_is_behind(const struct engine *engine, const struct live *live);

/* engine_memory.c */
int memory_can_reserve(void *engine, const struct lathe_request *req, uint32_t tokens);
/* A new plan begins: marks and promises of the last are void. With a cache that shares prefixes the
 * head of the ranking is let in at once, so that batching knows how much of it is there already;
 * others are let in when can_reserve asks about them. */
void memory_begin_plan(struct engine *engine);
/* Take back what was admitted and not planned. */
void memory_release_unplanned(struct engine *engine);
/* The same in the middle of planning, where what they hold keeps a running request from its room, or
 * everybody from any. True: plan again, with fewer let in. */
bool memory_let_go(struct engine *engine);
void memory_preempt(struct engine *engine, struct live *victim, const char *cause, int64_t now_ns);
/* A running request got no room: preempt somebody the scheduler names. True: plan again. */
bool memory_make_room(struct engine *engine, int64_t now_ns);
/* Room for an entry's tokens, swapped blocks brought in first. */
int memory_reserve(struct engine *engine, struct live *live, uint32_t tokens, struct lathe_error *err);

/* engine_step.c: what the local services do. */
int step_rank(void *engine, const void *in, void *out, struct lathe_error *err);
int step_fill(void *engine, const void *in, void *out, struct lathe_error *err);
int step_reserve(void *engine, const void *in, void *out, struct lathe_error *err);
void step_look(struct engine *engine, int64_t now_ns);

/* engine_local.c: what they answer to whoever asks by name. */
int local_rank_reply(struct engine *engine, struct lathe_message *out, struct lathe_error *err);
int local_explain(void *engine, const void *in, void *out, struct lathe_error *err);
int local_usage(void *engine, const void *in, void *out, struct lathe_error *err);
int local_table(void *engine, const void *in, void *out, struct lathe_error *err);

/* engine_services.c */
int services_add(struct engine *engine, struct lathe_error *err);
void services_remove(struct engine *engine);

/* engine_health.c */
/* At the start of a step: false while the model has no worker; *until_ns is when to ask again. */
bool health_admits_step(struct engine *engine, int64_t now_ns, int64_t *until_ns);
/* The model can't be reached; what it held of requests stays. */
void health_unavailable(struct engine *engine, int64_t now_ns);
/* Its worker is gone, and the KV with it: who was running starts over. */
void health_lost(struct engine *engine, const char *why, int64_t now_ns);
/* Degrades or restores; refuses a waiting prompt if it must. */
void health_judge(struct engine *engine, int64_t now_ns);

/* engine_probes.c */
/* Copies the parameters' probes and interventions; what the model can't do is an error. */
int probes_open(struct engine *engine, struct lathe_error *err);
void probes_close(struct engine *engine);
/* Bytes of the forward's message that probes and interventions may take. */
size_t probes_message_bytes(const struct engine *engine);
/* Those that the step's entries name, appended to the message; the entries then say which. */
int probes_lay_out(struct engine *engine, struct lathe_error *err);
static inline uint32_t probes_of(const struct engine *e, const struct live *live)
{
    return live && !e->degraded ? live->probes : 0;
}

/* engine_fit.c */
/* Cut entries so that this step fits: kept positions and masses their room in the messages, attention records the
 * recorder's ring. What is cut goes on in the next step. */
void fit_plan(struct engine *engine);
/* The earlier positions that a request's next rows see: how many, and which (NULL: all). */
uint32_t fit_kept(const struct engine *engine, const struct live *live, const int32_t **positions);

/* engine_message.c */
int message_build_forward(struct engine *engine, struct lathe_error *err);
/* The forward's attention records are the recorder's, or none are. */
void message_commit_attention(struct engine *engine, bool keep);
/* Sample every row that has logits: entry i's token to sampled[i]. */
int message_sample(struct engine *engine, struct lathe_error *err);
/* Or, of a model that picks: are there as many picked as were asked for? */
int message_check_picked(const struct engine *engine, struct lathe_error *err);
/* The kvcache is told what each entry's rows looked at. */
int message_observe(struct engine *engine, struct lathe_error *err);
/* The token of output row `row`, in the order of the entries that sample. */
static inline struct lathe_sampled message_sampled(const struct engine *e, uint32_t row)
{
    if (!e->picks)
        return LATHE_SPAN(const struct lathe_sampled, e->sample_out, e->sample_out->sampled)[row];
    const struct lathe_picked *picked = LATHE_SPAN(const struct lathe_picked, e->forward_out, e->forward_out->picked);
    return (struct lathe_sampled){ picked[row].token, picked[row].logprob };
}

#endif

/* SPDX-License-Identifier: MIT */
/* `lathe why`, shared by its files: one paragraph on what took the time of a token, a request or a step.
 *
 *     cmd_why.c ── why_find.c      what is asked about, and its window of time
 *                  why_parts.c     the window in parts, and what each part usually takes
 *                  why_company.c   who shared the step that decided, who was served meanwhile, what was told
 *                  why_heads.c     what the heads looked at
 *                  why_text.c      the paragraph        why_json.c   the same for programs
 *
 *     window   |──waiting──|──preempted──|──others' steps──|──steps with it──────────────|──between──|
 *                                                            schedule reserve forward sample, bus
 *
 * The cause is the part with the largest excess over what it usually takes in this run (the median). Nothing is said
 * that no row supports; what was not recorded is told, with the word that records it. */
#ifndef CORE_WHY_H
#define CORE_WHY_H

#include <stdbool.h>
#include <stdint.h>

#include <sqlite3.h>

#include <lathe/status.h>

#include "text.h"

enum why_subject {
    WHY_GAP,     /* an output token after a request's first: since the one before it */
    WHY_FIRST,   /* a first token: since the request was due */
    WHY_REQUEST, /* since it was due, to its end */
    WHY_STEP,
};

enum why_part {
    WHY_WAITING, WHY_PREEMPTED, WHY_SWAPPED, /* states of the request */
    WHY_OTHERS,                              /* it ran, and steps went on without it */
    WHY_SCHEDULE, WHY_RESERVE, WHY_FORWARD, WHY_SAMPLE, WHY_BUS,
    WHY_BETWEEN,                             /* the rest */
    WHY_PARTS
};

extern const char *const why_part_words[WHY_PARTS]; /* "preempted": in JSON */

struct why_figure {
    double ns, typical_ns; /* NaN: not known */
};

struct why_step {
    int64_t id; /* 0: none */
    double took_ns, schedule_ns, reserve_ns, forward_ns, sample_ns, requests, prefill_tokens, decode_tokens, context, waiting, kv_used, kv_total;
};

struct why_member {
    int64_t request;
    double tokens, context; /* of a request served meanwhile: tokens over all its steps there; context NaN */
    bool prefill, joined;   /* joined: it was not in the step before on that replica */
};

enum { WHY_COMPANY = 4, WHY_HEADS = 3, WHY_EVENTS = 3 };

struct why_head {
    int layer, head;
    double weight;
    int64_t key;
    char text[64]; /* of the key's token; "": not known */
};

struct why {
    sqlite3 *db;
    const char *path;

    int64_t run, run_count;
    char label[96];
    bool is_virtual;

    enum why_subject subject;
    bool chosen; /* by us: it is the slowest of its kind */
    int64_t request, position, step, replica;
    char token[64], reason[24];
    double prompt_tokens, output_tokens, preemptions;
    double from_ns, to_ns;
    double typical_ns, population, as_slow; /* of the same kind in this run; as_slow: as long or longer, itself included */

    struct why_figure parts[WHY_PARTS];
    double typical_prefill, typical_decode, typical_context; /* of a step of that kind */
    bool has_steps, has_members, has_hops, has_spans, has_tokens;
    int64_t steps;            /* with it, in the window */
    struct why_step decisive; /* the longest of them */
    char preempted_for[64];   /* why it was preempted */

    struct why_member company[WHY_COMPANY]; /* in the decisive step, those most in the way first */
    size_t company_count;
    double others;                          /* how many there were */
    double others_prefill, joined_prefill;  /* their prefill tokens, and those of requests that joined */
    double others_decode;                   /* how many of them decoded */
    struct why_member meanwhile[WHY_COMPANY];
    size_t meanwhile_count;
    double meanwhile_requests;
    char told[WHY_EVENTS][300];
    size_t told_count;

    bool traced, traced_here;
    double heads_traced, entropy, usual_entropy, first_mass, usual_first_mass;
    struct why_head heads[WHY_HEADS];
    size_t head_count;

    enum why_part cause;
    bool unusual; /* false: nothing took longer than usual */
};

/* What the command line asked about; 0 (positions: −1): not asked. */
struct why_asked {
    int64_t run, request, position, step;
    bool token;
};

/* ---- why_find.c ---- */
int why_find(struct why *w, const struct why_asked *asked, struct lathe_error *err);

/* Prepares `sql` with ?1 run, ?2 request, ?3 from, ?4 to, ?5 step, ?6 replica, ?7 position, as many as it has. */
int why_ask(struct why *w, const char *sql, sqlite3_stmt **statement, struct lathe_error *err);
int why_done(struct why *w, sqlite3_stmt *statement, int code, struct lathe_error *err);
/* The first row's numbers; NaN for NULL, and for all if there is no row. */
int why_row(struct why *w, const char *sql, double *values, int count, struct lathe_error *err);

/* ---- the rest, in this order ---- */
int why_parts(struct why *w, struct lathe_error *err);
int why_company(struct why *w, struct lathe_error *err);
int why_heads(struct why *w, struct lathe_error *err);
void why_text(const struct why *w, struct text *out);
void why_json(const struct why *w, struct text *out);

#endif

/* SPDX-License-Identifier: MIT */
/* What can be recorded: every event stands here once, and its struct (what the ring
 * carries), its number and its INSERT are all made from this list. The columns' meaning
 * and units are in the files of schemas/; a test holds the two against each other.
 *
 * Column kinds:  I  INTEGER (int64_t)      R  REAL (double; NaN is stored as NULL)
 *                N  INTEGER or NULL (int64_t; RECORD_NULL is stored as NULL)
 *                T  TEXT (char[72], NUL-terminated, "" is stored as NULL)
 *                L  TEXT (char[256], the same)
 *
 * run_id is the first column of every table and is added by the writer. A table that is
 * written twice (a request when it arrives and when it ends) is UPSERTed on its key. */
#ifndef CORE_EVENTS_H
#define CORE_EVENTS_H

#include <stdint.h>

#define RECORD_NULL INT64_MIN

/* X(table, key columns after run_id — "" when rows are only ever inserted, COLUMNS) */
#define RECORD_EVENTS(X)                                        \
    X(request, "id", RECORD_REQUEST)                            \
    X(request_span, "", RECORD_REQUEST_SPAN)                    \
    X(step, "", RECORD_STEP)                                    \
    X(step_request, "", RECORD_STEP_REQUEST)                    \
    X(token, "", RECORD_TOKEN)                                  \
    X(hop, "", RECORD_HOP)                                      \
    X(score, "", RECORD_SCORE)                                  \
    X(metric, "", RECORD_METRIC)                                \
    X(event, "", RECORD_EVENT)                                  \
    X(service_event, "", RECORD_SERVICE_EVENT)                  \
    X(kv_usage, "", RECORD_KV_USAGE)

#define RECORD_REQUEST(I, N, R, T, L)                                                      \
    I(id) T(class) T(tenant) N(session) N(turn) I(priority) T(model) I(replica)            \
    I(planned_ns) I(arrival_ns) N(admitted_ns) N(first_token_ns) N(finish_ns)              \
    T(finish_reason) I(prompt_tokens) I(cached_tokens) I(output_tokens) I(preemptions)     \
    N(slo_ttft_ns) N(slo_tpot_ns) N(deadline_ns) T(prompt_sha256) T(correlation_id)        \
    N(predicted_tokens) N(weight) N(max_tokens) N(ignore_eos) L(sampling)

#define RECORD_REQUEST_SPAN(I, N, R, T, L) I(request_id) I(from_ns) I(to_ns) T(state) T(cause)

#define RECORD_STEP(I, N, R, T, L)                                                         \
    I(id) I(replica) I(start_ns) I(end_ns) I(schedule_ns) I(reserve_ns) I(forward_ns)      \
    I(sample_ns) I(requests) I(prefill_tokens) I(decode_tokens) I(padding_tokens)          \
    I(decode_context_tokens) I(prefill_token_context) I(waiting) I(kv_blocks_used)         \
    I(kv_blocks_total)

#define RECORD_STEP_REQUEST(I, N, R, T, L)                                                 \
    I(step_id) I(request_id) T(phase) I(first_position) I(tokens) I(context) I(kv_blocks)

#define RECORD_TOKEN(I, N, R, T, L)                                                        \
    I(request_id) I(position) N(step_id) T(kind) I(token) N(time_ns) N(gap_ns) R(logprob)

#define RECORD_HOP(I, N, R, T, L)                                                          \
    I(id) N(parent_id) N(step_id) I(correlation_id) T(endpoint) I(sent_ns) I(started_ns)   \
    I(ended_ns) I(bytes) I(status) I(worker)

#define RECORD_SCORE(I, N, R, T, L) I(request_id) T(name) R(value) I(n)

#define RECORD_METRIC(I, N, R, T, L) I(time_ns) T(plugin) T(name) R(value)

#define RECORD_EVENT(I, N, R, T, L) I(time_ns) T(level) N(correlation_id) L(message) L(fields)

#define RECORD_SERVICE_EVENT(I, N, R, T, L) I(time_ns) T(service) I(worker) T(what) L(detail)

#define RECORD_KV_USAGE(I, N, R, T, L)                                                     \
    I(step_id) I(replica) I(time_ns) I(blocks_total) I(blocks_used) I(blocks_cached)       \
    I(blocks_shared) I(reserved_tokens) I(filled_tokens) I(evicted_blocks)                 \
    I(evicted_tokens) I(hit_tokens) I(looked_up_tokens)

/* struct record_step { int64_t id; … } and so on. T holds 64 hexadecimal digits; short words are cheap
 * because the ring carries texts cut to their length. */
#define RECORD_FIELD_I(name) int64_t name;
#define RECORD_FIELD_R(name) double name;
#define RECORD_FIELD_T(name) char name[72];
#define RECORD_FIELD_L(name) char name[256];
#define RECORD_STRUCT(table, key, COLUMNS)                                                 \
    struct record_##table {                                                                \
        COLUMNS(RECORD_FIELD_I, RECORD_FIELD_I, RECORD_FIELD_R, RECORD_FIELD_T, RECORD_FIELD_L) \
    };
RECORD_EVENTS(RECORD_STRUCT)

#define RECORD_NUMBER(table, key, COLUMNS) RECORD_EVENT_##table,
enum record_event_number { RECORD_EVENTS(RECORD_NUMBER) RECORD_EVENT_COUNT };

#endif

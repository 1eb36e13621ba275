/* SPDX-License-Identifier: MIT */
/* A request's life in phases that follow each other, and the steps that lie inside them.
 *
 *     request   |───────────────────────────────────────────────────────|
 *     phase     |─queue─||─prefill─||──────decode──────||─preempted─||─prefill─||─decode─|
 *     slice              |512|  |88| |1| |1| |1| |1|                 |604|      |1| |1|
 *
 * Phases come from request_span; a stretch in which it ran is prefill or decode by step_request. Where rows of
 * either were not recorded, its four times say as much as they can. Rows of an imported or
 * damaged database may contradict each other: each time is clamped between the one before and the end of what it
 * lies in, so that slices nest whatever the rows say. */
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "recorder_schema.h"

#define NO_TIME INT64_MIN

int export_life_open(struct export_life *life, sqlite3 *db, const struct export_arguments *a, int64_t run, struct lathe_error *err)
{
    memset(life, 0, sizeof *life);
    int status = export_prepare(db, a, "SELECT from_ns, to_ns, state FROM request_span WHERE run_id = ?1 AND request_id = ?2 "
                                       "ORDER BY from_ns, to_ns", run, &life->spans, err);
    if (!status)
        status = export_prepare(db, a, "SELECT s.id, s.start_ns, s.end_ns, c.first_position, c.tokens, c.phase = 'prefill' "
                                       "FROM step_request c JOIN step s ON s.run_id = c.run_id AND s.id = c.step_id "
                                       "WHERE c.run_id = ?1 AND c.request_id = ?2 ORDER BY s.start_ns, s.id", run, &life->steps, err);
    return status;
}

void export_life_close(struct export_life *life)
{
    sqlite3_finalize(life->spans);
    sqlite3_finalize(life->steps);
    free(life->phases);
    free(life->slices);
}

static void *grown(void *array, size_t count, size_t *capacity, size_t bytes)
{
    if (count < *capacity)
        return array;
    size_t more = *capacity ? 2 * *capacity : 64;
    void *larger = realloc(array, more * bytes);
    if (larger)
        *capacity = more;
    return larger;
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* Appends a phase after the last one; an empty one is left out. */
static int add_phase(struct export_life *life, const char *name, int64_t from_ns, int64_t to_ns)
{
    int64_t low = life->phase_count ? life->phases[life->phase_count - 1].to_ns : life->from_ns;
    struct export_phase phase = { .name = name, .from_ns = clamp(from_ns, low, life->to_ns), .first = life->slice_count };
    phase.to_ns = clamp(to_ns, phase.from_ns, life->to_ns);
    if (phase.to_ns == phase.from_ns)
        return 0;
    void *larger = grown(life->phases, life->phase_count, &life->phase_capacity, sizeof phase);
    if (!larger)
        return -1;
    life->phases = larger;
    life->phases[life->phase_count++] = phase;
    return 0;
}

/* The step's part of the last phase, which grows to hold it. */
static int add_slice(struct export_life *life, const struct export_slice *given, int64_t most_ns)
{
    struct export_phase *phase = &life->phases[life->phase_count - 1];
    struct export_slice slice = *given;
    int64_t low = phase->slices ? life->slices[life->slice_count - 1].to_ns : phase->from_ns;
    slice.from_ns = clamp(slice.from_ns, low, most_ns);
    slice.to_ns = clamp(slice.to_ns, slice.from_ns, most_ns);
    void *larger = grown(life->slices, life->slice_count, &life->slice_capacity, sizeof slice);
    if (!larger)
        return -1;
    life->slices = larger;
    life->slices[life->slice_count++] = slice;
    phase->slices++;
    if (slice.to_ns > phase->to_ns)
        phase->to_ns = slice.to_ns;
    return 0;
}

/* Steps that began before `to_ns`, as phases. *code is what the statement said last. */
static int add_steps(struct export_life *life, int64_t from_ns, int64_t to_ns, int *code)
{
    int last = -1;
    for (; *code == SQLITE_ROW && sqlite3_column_int64(life->steps, 1) < to_ns; *code = sqlite3_step(life->steps)) {
        struct export_slice slice = {
            .step_id = sqlite3_column_int64(life->steps, 0), .from_ns = sqlite3_column_int64(life->steps, 1),
            .to_ns = sqlite3_column_int64(life->steps, 2), .first_position = sqlite3_column_int64(life->steps, 3),
            .tokens = sqlite3_column_int64(life->steps, 4), .prefill = sqlite3_column_int(life->steps, 5) != 0,
        };
        int64_t start_ns = slice.from_ns < from_ns ? from_ns : slice.from_ns;
        int64_t end_ns = slice.to_ns > to_ns ? to_ns : slice.to_ns;
        if (last != slice.prefill) {
            size_t before = life->phase_count;
            if (add_phase(life, slice.prefill ? "prefill" : "decode", start_ns, end_ns))
                return -1;
            if (life->phase_count == before)
                continue; /* nothing of it is inside */
        }
        last = slice.prefill;
        if (add_slice(life, &slice, clamp(to_ns, life->phases[life->phase_count - 1].from_ns, life->to_ns)))
            return -1;
    }
    return 0;
}

/* A stretch in which it ran. */
static int add_running(struct export_life *life, const struct export_times *times, int64_t from_ns, int64_t to_ns, int *code)
{
    size_t before = life->phase_count;
    if (add_steps(life, from_ns, to_ns, code))
        return -1;
    if (life->phase_count > before)
        return 0;
    if (times->first_token_ns == NO_TIME || times->first_token_ns >= to_ns)
        return add_phase(life, "prefill", from_ns, to_ns);
    if (times->first_token_ns > from_ns && add_phase(life, "prefill", from_ns, times->first_token_ns))
        return -1;
    return add_phase(life, "decode", times->first_token_ns > from_ns ? times->first_token_ns : from_ns, to_ns);
}

static int add_span(struct export_life *life, const struct export_times *times, int *steps)
{
    int64_t from_ns = sqlite3_column_int64(life->spans, 0), to_ns = sqlite3_column_int64(life->spans, 1);
    const char *state = (const char *)sqlite3_column_text(life->spans, 2);
    if (state && strcmp(state, "running") == 0)
        return add_running(life, times, from_ns, to_ns, steps);
    return add_phase(life, !state || strcmp(state, "waiting") == 0 ? "queue" : strcmp(state, "swapped") == 0 ? "swapped" : "preempted",
                     from_ns, to_ns);
}

int export_life_read(struct export_life *life, sqlite3 *db, const struct export_arguments *a, int64_t request,
                     const struct export_times *times, int64_t end_ns, struct lathe_error *err)
{
    int failed = 0, rows = 0;
    life->phase_count = life->slice_count = 0;
    life->from_ns = times->planned_ns;
    life->to_ns = times->finish_ns != NO_TIME ? times->finish_ns : end_ns;
    if (life->to_ns < life->from_ns)
        life->to_ns = life->from_ns;
    sqlite3_reset(life->spans);
    sqlite3_reset(life->steps);
    sqlite3_bind_int64(life->spans, 2, request);
    sqlite3_bind_int64(life->steps, 2, request);
    int steps = sqlite3_step(life->steps), spans;
    for (; (spans = sqlite3_step(life->spans)) == SQLITE_ROW && !failed; rows++) {
        if (rows == 0 && sqlite3_column_int64(life->spans, 0) > times->planned_ns) /* the engine was late to take it */
            failed = add_phase(life, "queue", times->planned_ns, sqlite3_column_int64(life->spans, 0));
        failed = failed || add_span(life, times, &steps);
    }
    if (!failed && rows == 0) {
        int64_t admitted = times->admitted_ns != NO_TIME ? times->admitted_ns : life->to_ns;
        failed = add_phase(life, "queue", times->planned_ns, admitted);
        if (!failed && admitted < life->to_ns)
            failed = add_running(life, times, admitted, life->to_ns, &steps);
    }
    if (failed)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for the phases of request %lld", (long long)request);
    if ((spans != SQLITE_DONE && spans != SQLITE_ROW) || (steps != SQLITE_DONE && steps != SQLITE_ROW))
        return schema_fail(db, a->path, "reading its rows", err);
    return LATHE_OK;
}

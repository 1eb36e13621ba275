/* SPDX-License-Identifier: MIT */
/* The window in parts, and what each part usually takes: the median over the run's tokens (first tokens, requests,
 * steps) of the same part.
 *
 * Where calls over the bus were recorded, forward and sample are what the worker took, and the bus is what the engine
 * waited for beyond that: there, in the queue, and back. Under the virtual clock scheduling, reserving and sampling are
 * the host's time and no part of the window. */
#include "why.h"

#include <math.h>

/* Work of a step's calls, as far as they were recorded. */
#define STEP_WORK "WITH work AS MATERIALIZED (SELECT step_id, sum(ended_ns - started_ns) FILTER (WHERE endpoint GLOB 'model.*') AS forward_ns, " \
                  "sum(ended_ns - started_ns) FILTER (WHERE endpoint GLOB 'sampler.*') AS sample_ns FROM hop WHERE run_id = ?1 AND step_id IS NOT NULL GROUP BY step_id), " \
                  "parts AS (SELECT s.*, min(s.forward_ns, ifnull(k.forward_ns, s.forward_ns)) AS forward, min(s.sample_ns, ifnull(k.sample_ns, s.sample_ns)) AS sample, " \
                  "s.end_ns - s.start_ns AS took FROM step s LEFT JOIN work k ON k.step_id = s.id WHERE s.run_id = ?1) "

static double or_zero(double x)
{
    return isnan(x) ? 0 : x;
}

static int find_states(struct why *w, struct lathe_error *err)
{
    double found[6];
    int status = why_row(w, "SELECT sum(o) FILTER (WHERE state = 'waiting'), sum(o) FILTER (WHERE state = 'preempted'), sum(o) FILTER (WHERE state = 'swapped'), count(*), "
                            "max(0, (SELECT min(from_ns) FROM request_span WHERE run_id = ?1 AND request_id = ?2) - ?3) FROM "
                            "(SELECT state, max(0, min(to_ns, ?4) - max(from_ns, ?3)) AS o FROM request_span "
                            "WHERE run_id = ?1 AND request_id = ?2 AND to_ns > ?3 AND from_ns < ?4)", found, 5, err);
    if (status)
        return status;
    if (found[3] > 0) {
        w->parts[WHY_WAITING].ns = or_zero(found[0]) + or_zero(found[4]); /* it counts from when it was due */
        w->parts[WHY_PREEMPTED].ns = or_zero(found[1]);
        w->parts[WHY_SWAPPED].ns = or_zero(found[2]);
        return LATHE_OK;
    }
    if (w->subject == WHY_GAP)
        return LATHE_OK;
    status = why_row(w, "SELECT min(admitted_ns, ?4) - ?3 FROM request WHERE run_id = ?1 AND id = ?2", found, 1, err);
    w->parts[WHY_WAITING].ns = found[0];
    return status;
}

/* Steps with it, and those that went on without it. */
static int find_steps(struct why *w, struct lathe_error *err)
{
    double found[8];
    int status = why_row(w, STEP_WORK "SELECT count(*), sum(schedule_ns), sum(reserve_ns), sum(forward), sum(sample), sum(forward_ns + sample_ns - forward - sample), sum(took) "
                            "FROM parts s WHERE s.end_ns > ?3 AND s.start_ns < ?4 AND (s.id = ?5 OR EXISTS "
                            "(SELECT 1 FROM step_request c WHERE c.run_id = ?1 AND c.step_id = s.id AND c.request_id = ?2))", found, 7, err);
    if (status)
        return status;
    w->steps = (int64_t)or_zero(found[0]);
    if (w->steps == 0)
        return LATHE_OK;
    if (!w->is_virtual) {
        w->parts[WHY_SCHEDULE].ns = found[1];
        w->parts[WHY_RESERVE].ns = found[2];
        w->parts[WHY_SAMPLE].ns = found[4];
    }
    w->parts[WHY_FORWARD].ns = found[3];
    w->parts[WHY_BUS].ns = w->has_hops ? found[5] : (double)NAN;
    if (w->subject == WHY_STEP || !w->has_members)
        return LATHE_OK;
    return why_row(w, "SELECT sum(max(0, min(s.end_ns, p.to_ns, ?4) - max(s.start_ns, p.from_ns, ?3))) FROM request_span p "
                      "JOIN step s ON s.run_id = ?1 AND s.replica = ?6 AND s.start_ns < min(p.to_ns, ?4) AND s.end_ns > max(p.from_ns, ?3) "
                      "WHERE p.run_id = ?1 AND p.request_id = ?2 AND p.state = 'running' AND s.id <> ?5 AND p.to_ns > ?3 AND p.from_ns < ?4 AND NOT EXISTS "
                      "(SELECT 1 FROM step_request c WHERE c.run_id = ?1 AND c.step_id = s.id AND c.request_id = ?2)", &w->parts[WHY_OTHERS].ns, 1, err);
}

/* What is usual for the same kind of thing in this run. */
static int find_typical(struct why *w, struct lathe_error *err)
{
    static const char of_gaps[] =
        STEP_WORK "SELECT 0, median(s.schedule_ns), median(s.reserve_ns), median(s.forward), median(s.sample), median(s.forward_ns + s.sample_ns - s.forward - s.sample), "
                  "median(max(0, t.gap_ns - s.took)), median(s.prefill_tokens), median(s.decode_tokens), median(s.decode_context_tokens) "
                  "FROM token t JOIN parts s ON s.id = t.step_id WHERE t.run_id = ?1 AND t.kind = 'output' AND t.gap_ns IS NOT NULL";
    static const char of_steps[] =
        STEP_WORK "SELECT 0, median(schedule_ns), median(reserve_ns), median(forward), median(sample), median(forward_ns + sample_ns - forward - sample), "
                  "median(max(0, took - schedule_ns - reserve_ns - forward_ns - sample_ns)), median(prefill_tokens), median(decode_tokens), median(decode_context_tokens) FROM parts";
#define OF_REQUESTS(END) \
        STEP_WORK ", sums AS (SELECT q.id, q.admitted_ns - q.planned_ns AS waited, " END " - q.planned_ns AS took_all, sum(s.schedule_ns) AS schedule, sum(s.reserve_ns) AS reserve, " \
                  "sum(s.forward) AS forward, sum(s.sample) AS sample, sum(s.forward_ns + s.sample_ns - s.forward - s.sample) AS bus, sum(s.took) AS took, " \
                  "max(s.prefill_tokens) AS prefill, max(s.decode_tokens) AS decode, max(s.decode_context_tokens) AS context " \
                  "FROM request q LEFT JOIN step_request c ON c.run_id = ?1 AND c.request_id = q.id LEFT JOIN parts s ON s.id = c.step_id AND s.start_ns < " END " " \
                  "WHERE q.run_id = ?1 AND " END " IS NOT NULL GROUP BY q.id) SELECT median(waited), median(schedule), median(reserve), median(forward), median(sample), median(bus), " \
                  "median(max(0, took_all - waited - took)), median(prefill), median(decode), median(context) FROM sums"
    static const char of_firsts[] = OF_REQUESTS("q.first_token_ns"), of_requests[] = OF_REQUESTS("q.finish_ns");
#undef OF_REQUESTS
    static const char *const queries[] = { [WHY_GAP] = of_gaps, [WHY_FIRST] = of_firsts, [WHY_REQUEST] = of_requests, [WHY_STEP] = of_steps };
    static const enum why_part order[] = { WHY_WAITING, WHY_SCHEDULE, WHY_RESERVE, WHY_FORWARD, WHY_SAMPLE, WHY_BUS, WHY_BETWEEN };
    double found[10];
    int status = why_row(w, queries[w->subject], found, 10, err);
    if (status)
        return status;
    for (int i = 0; i < 7; i++)
        w->parts[order[i]].typical_ns = found[i];
    w->parts[WHY_PREEMPTED].typical_ns = w->parts[WHY_SWAPPED].typical_ns = w->parts[WHY_OTHERS].typical_ns = 0; /* most have none */
    w->typical_prefill = found[7];
    w->typical_decode = found[8];
    w->typical_context = found[9];
    return LATHE_OK;
}

static int find_decisive(struct why *w, struct lathe_error *err)
{
    double found[13];
    int status = why_row(w, "SELECT id, end_ns - start_ns, schedule_ns, reserve_ns, forward_ns, sample_ns, requests, prefill_tokens, decode_tokens, decode_context_tokens, waiting, "
                            "kv_blocks_used, kv_blocks_total FROM step s WHERE s.run_id = ?1 AND s.end_ns > ?3 AND s.start_ns < ?4 AND (s.id = ?5 OR EXISTS "
                            "(SELECT 1 FROM step_request c WHERE c.run_id = ?1 AND c.step_id = s.id AND c.request_id = ?2)) ORDER BY end_ns - start_ns DESC, id LIMIT 1", found, 13, err);
    if (status || isnan(found[0]))
        return status;
    w->decisive = (struct why_step){ (int64_t)found[0], found[1], found[2], found[3], found[4], found[5], found[6],
                                     found[7], found[8], found[9], found[10], found[11], found[12] };
    return LATHE_OK;
}

/* The part with the largest excess. */
static void find_cause(struct why *w)
{
    double most = 0, all = w->to_ns - w->from_ns;
    for (int i = 0; i < WHY_PARTS; i++) {
        double excess = or_zero(w->parts[i].ns) - or_zero(w->parts[i].typical_ns);
        if (excess > most) {
            most = excess;
            w->cause = (enum why_part)i;
        }
    }
    w->unusual = most > 0 && all > 1.05 * or_zero(w->typical_ns); /* a twentieth is nothing to explain */
}

int why_parts(struct why *w, struct lathe_error *err)
{
    for (int i = 0; i < WHY_PARTS; i++)
        w->parts[i] = (struct why_figure){ (double)NAN, (double)NAN };
    int status = w->subject == WHY_STEP ? LATHE_OK : find_states(w, err);
    if (!status)
        status = find_steps(w, err);
    if (!status)
        status = find_typical(w, err);
    if (!status)
        status = find_decisive(w, err);
    if (status)
        return status;
    double rest = w->to_ns - w->from_ns;
    for (int i = 0; i < WHY_BETWEEN; i++)
        rest -= or_zero(w->parts[i].ns);
    if (w->has_steps)
        w->parts[WHY_BETWEEN].ns = rest > 0 ? rest : 0;
    find_cause(w);
    return LATHE_OK;
}

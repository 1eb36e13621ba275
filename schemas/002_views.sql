-- SPDX-License-Identifier: MIT
-- The views: questions that people ask of the tables. Plain SQL with window functions, so that
-- anything that reads SQLite reads them; only those on attention need the extension
-- lathe_sqlite. Times in views are milliseconds.
--
-- The first comment of each view is what `lathe sql` lists.

CREATE VIEW request_latency AS
-- One row per request: how long it queued, its TTFT, TPOT and longest gap, and whether it met its targets.
-- run_id | request_id | queue_ms | ttft_ms | tpot_ms | itl_max_ms | e2e_ms | met_slo
-- 1      | 1          | 0.4      | 182.7   | 31.2    | 64.9       | 1212.3 | 1
SELECT r.run_id, r.id AS request_id, r.class, r.tenant, r.prompt_tokens, r.output_tokens, r.finish_reason, r.preemptions,
       (r.admitted_ns - r.planned_ns) / 1e6 AS queue_ms,
       (r.first_token_ns - r.planned_ns) / 1e6 AS ttft_ms,
       CASE WHEN r.output_tokens > 1 THEN (r.finish_ns - r.first_token_ns) / 1e6 / (r.output_tokens - 1) END AS tpot_ms,
       (SELECT max(t.gap_ns) / 1e6 FROM token t WHERE t.run_id = r.run_id AND t.request_id = r.id) AS itl_max_ms,
       (r.finish_ns - r.planned_ns) / 1e6 AS e2e_ms,
       CASE WHEN r.finish_reason IS NULL THEN NULL
            WHEN r.finish_reason NOT IN ('stop', 'length') THEN 0
            ELSE (r.slo_ttft_ns IS NULL OR ifnull(r.first_token_ns - r.planned_ns <= r.slo_ttft_ns, 0))
                 AND (r.slo_tpot_ns IS NULL OR r.output_tokens < 2
                      OR r.finish_ns - r.first_token_ns <= r.slo_tpot_ns * (r.output_tokens - 1))
                 AND (r.deadline_ns IS NULL OR r.finish_ns <= r.deadline_ns)
       END AS met_slo
  FROM request r;

CREATE VIEW run_latency AS
-- One row per run: medians, maxima and p99 of its requests' latencies, tokens a second, goodput.
-- A percentile is interpolated between the two nearest requests. A p99 of fewer than 368 requests
-- is NULL: no 95% interval for it exists. Goodput: requests a second that met their targets.
-- run_id | label | requests | ttft_p50_ms | ttft_p99_ms | ttft_max_ms | tpot_p50_ms | tokens_per_s
-- 1      | fcfs  | 12       | 182.7       |             | 944.1       | 31.2        | 118.3
WITH figure(run_id, name, value) AS (
    SELECT run_id, 'ttft', ttft_ms FROM request_latency WHERE ttft_ms IS NOT NULL
    UNION ALL SELECT run_id, 'tpot', tpot_ms FROM request_latency WHERE tpot_ms IS NOT NULL
    UNION ALL SELECT run_id, 'queue', queue_ms FROM request_latency WHERE queue_ms IS NOT NULL
    UNION ALL SELECT run_id, 'e2e', e2e_ms FROM request_latency WHERE finish_reason IN ('stop', 'length')
), ranked AS (
    SELECT run_id, name, value, count(*) OVER w AS n,
           row_number() OVER (PARTITION BY run_id, name ORDER BY value) - 1 AS i
      FROM figure WINDOW w AS (PARTITION BY run_id, name)
), percentile_of AS (
    SELECT run_id, name, n, max(value) AS greatest,
           sum(value * max(0.0, 1 - abs(i - 0.50 * (n - 1)))) AS p50,
           sum(value * max(0.0, 1 - abs(i - 0.90 * (n - 1)))) AS p90,
           CASE WHEN n >= 368 THEN sum(value * max(0.0, 1 - abs(i - 0.99 * (n - 1)))) END AS p99
      FROM ranked GROUP BY run_id, name
), total AS (
    SELECT q.run_id, count(*) AS requests, sum(q.output_tokens) AS output_tokens,
           count(*) FILTER (WHERE q.finish_reason NOT IN ('stop', 'length')) AS failed,
           (max(q.finish_ns) - min(q.planned_ns)) / 1e9 AS seconds,
           sum(l.met_slo) AS met
      FROM request q JOIN request_latency l ON l.run_id = q.run_id AND l.request_id = q.id
     GROUP BY q.run_id
)
SELECT r.id AS run_id, r.label, r.state, ifnull(t.requests, 0) AS requests, t.failed,
       ttft.p50 AS ttft_p50_ms, ttft.p90 AS ttft_p90_ms, ttft.p99 AS ttft_p99_ms, ttft.greatest AS ttft_max_ms,
       tpot.p50 AS tpot_p50_ms, tpot.p90 AS tpot_p90_ms, tpot.p99 AS tpot_p99_ms, tpot.greatest AS tpot_max_ms,
       queue.p50 AS queue_p50_ms, queue.greatest AS queue_max_ms,
       e2e.p50 AS e2e_p50_ms, e2e.p99 AS e2e_p99_ms, e2e.greatest AS e2e_max_ms,
       t.output_tokens, t.seconds,
       CASE WHEN t.seconds > 0 THEN t.output_tokens / t.seconds END AS tokens_per_s,
       CASE WHEN t.seconds > 0 THEN t.met / t.seconds END AS goodput
  FROM run r
  LEFT JOIN total t ON t.run_id = r.id
  LEFT JOIN percentile_of ttft ON ttft.run_id = r.id AND ttft.name = 'ttft'
  LEFT JOIN percentile_of tpot ON tpot.run_id = r.id AND tpot.name = 'tpot'
  LEFT JOIN percentile_of queue ON queue.run_id = r.id AND queue.name = 'queue'
  LEFT JOIN percentile_of e2e ON e2e.run_id = r.id AND e2e.name = 'e2e';

CREATE VIEW token_gap AS
-- One row per output token after a request's first: the gap before it (ITL), the longest gaps being the stalls.
-- run_id | request_id | position | gap_ms | step_id | text
-- 1      | 4          | 37       | 64.9   | 52      |  the
SELECT t.run_id, t.request_id, t.position, t.gap_ns / 1e6 AS gap_ms, t.time_ns / 1e6 AS time_ms, t.step_id, t.token, x.text
  FROM token t LEFT JOIN token_text x ON x.run_id = t.run_id AND x.token = t.token
 WHERE t.kind = 'output' AND t.gap_ns IS NOT NULL;

CREATE VIEW slow_token_company AS
-- One row per output token, step in its gap and request in that step: who held the token up, and in which phase.
-- Filter it by run_id, request_id and position, or by gap_ms.
-- run_id | request_id | position | gap_ms | step_id | step_ms | company_id | phase   | tokens
-- 1      | 4          | 37       | 64.9   | 52      | 63.8    | 9          | prefill | 212
SELECT t.run_id, t.request_id, t.position, t.gap_ns / 1e6 AS gap_ms, s.id AS step_id,
       (s.end_ns - s.start_ns) / 1e6 AS step_ms, c.request_id AS company_id, c.phase, c.tokens, c.context
  FROM token t
  LEFT JOIN token b ON b.run_id = t.run_id AND b.request_id = t.request_id AND b.position = t.position - 1
                   AND b.kind = 'output'
  JOIN step s ON s.run_id = t.run_id AND s.id > ifnull(b.step_id, t.step_id - 1) AND s.id <= t.step_id
  JOIN step_request c ON c.run_id = s.run_id AND c.step_id = s.id
 WHERE t.kind = 'output';

CREATE VIEW endpoint_latency AS
-- One row per run and endpoint of the bus: calls, failures, how long they waited and took.
-- run_id | endpoint      | calls | failures | wait_mean_ms | took_mean_ms | took_max_ms | bytes
-- 1      | model.forward | 412   | 0        | 0.001        | 30.8         | 201.4       | 8812304
SELECT run_id, endpoint, count(*) AS calls, sum(status <> 0) AS failures,
       avg(started_ns - sent_ns) / 1e6 AS wait_mean_ms, max(started_ns - sent_ns) / 1e6 AS wait_max_ms,
       avg(ended_ns - started_ns) / 1e6 AS took_mean_ms, max(ended_ns - started_ns) / 1e6 AS took_max_ms,
       sum(bytes) AS bytes
  FROM hop GROUP BY run_id, endpoint;

CREATE VIEW kv_over_time AS
-- One row per step: how much of the KV pool was in use, and how many requests waited meanwhile.
-- run_id | step_id | time_ms | used | total | used_share | requests | waiting
-- 1      | 52      | 4101.3  | 96   | 512   | 0.1875     | 9        | 3
SELECT run_id, id AS step_id, replica, end_ns / 1e6 AS time_ms, kv_blocks_used AS used, kv_blocks_total AS total,
       CASE WHEN kv_blocks_total > 0 THEN 1.0 * kv_blocks_used / kv_blocks_total END AS used_share, requests, waiting
  FROM step;

CREATE VIEW tenant_service_window AS
-- One row per run, tenant and second: tokens it was served, and whether it had work waiting (fairness is about those).
-- Service counts a step's tokens in the second in which the step ended.
-- run_id | second | tenant | prefill_tokens | decode_tokens | backlogged
-- 1      | 4      | a      | 212            | 31            | 1
WITH RECURSIVE last(run_id, second) AS (
    SELECT run_id, max(max(end_ns), 0) / 1000000000 FROM step GROUP BY run_id
), second(run_id, second) AS (
    SELECT run_id, 0 FROM last
    UNION ALL
    SELECT s.run_id, s.second + 1 FROM second s JOIN last l ON l.run_id = s.run_id WHERE s.second < l.second
), served AS (
    SELECT s.run_id, s.end_ns / 1000000000 AS second, ifnull(r.tenant, '') AS tenant,
           sum(CASE WHEN c.phase = 'prefill' THEN c.tokens ELSE 0 END) AS prefill_tokens,
           sum(CASE WHEN c.phase = 'decode' THEN c.tokens ELSE 0 END) AS decode_tokens
      FROM step s
      JOIN step_request c ON c.run_id = s.run_id AND c.step_id = s.id
      JOIN request r ON r.run_id = c.run_id AND r.id = c.request_id
     GROUP BY 1, 2, 3
), tenant AS (
    SELECT DISTINCT run_id, ifnull(tenant, '') AS tenant FROM request
)
SELECT w.run_id, w.second, t.tenant, ifnull(v.prefill_tokens, 0) AS prefill_tokens,
       ifnull(v.decode_tokens, 0) AS decode_tokens,
       EXISTS (SELECT 1 FROM request q
                WHERE q.run_id = w.run_id AND ifnull(q.tenant, '') = t.tenant
                  AND q.arrival_ns < (w.second + 1) * 1000000000
                  AND ifnull(q.admitted_ns, ifnull(q.finish_ns, 9223372036854775807)) > w.second * 1000000000)
       OR EXISTS (SELECT 1 FROM request_span p JOIN request q ON q.run_id = p.run_id AND q.id = p.request_id
                   WHERE p.run_id = w.run_id AND ifnull(q.tenant, '') = t.tenant
                     AND p.state IN ('waiting', 'preempted', 'swapped')
                     AND p.from_ns < (w.second + 1) * 1000000000 AND p.to_ns > w.second * 1000000000) AS backlogged
  FROM second w
  JOIN tenant t ON t.run_id = w.run_id
  LEFT JOIN served v ON v.run_id = w.run_id AND v.second = w.second AND v.tenant = t.tenant;

CREATE VIEW attention_head AS
-- One row per run, request, layer and head: means over its probed query positions. Needs the extension.
-- run_id | request_id | layer | head | queries | entropy | first_mass | recent_mass | self_mass
-- 1      | 1          | 12    | 4    | 71      | 1.43    | 0.71       | 0.18        | 0.04
SELECT run_id, request_id, layer, head, count(*) AS queries, avg(entropy) AS entropy, avg(first_mass) AS first_mass,
       avg(recent_mass) AS recent_mass, avg(self_mass) AS self_mass
  FROM attention GROUP BY run_id, request_id, layer, head;

CREATE VIEW token_attention AS
-- One row per token, layer and head: what the query that predicted the token looked at. Needs the extension.
-- The token at position p was predicted by the query at p − 1; the shift is done here.
-- run_id | request_id | position | text | layer | head | entropy | top_key | top_text | top_weight
-- 1      | 4          | 37       |  the | 12    | 4    | 0.92    | 0       | <s>      | 0.81
SELECT t.run_id, t.request_id, t.position, t.token, x.text, t.gap_ns / 1e6 AS gap_ms, t.logprob,
       a.layer, a.head, a.entropy, a.first_mass, a.recent_mass, a.self_mass, a.top_key, y.text AS top_text, a.top_weight
  FROM token t
  JOIN attention a ON a.run_id = t.run_id AND a.request_id = t.request_id AND a.position = t.position - 1
  LEFT JOIN token_text x ON x.run_id = t.run_id AND x.token = t.token
  LEFT JOIN token k ON k.run_id = t.run_id AND k.request_id = t.request_id AND k.position = a.top_key
  LEFT JOIN token_text y ON y.run_id = k.run_id AND y.token = k.token;

CREATE VIEW which_head_looks_at_the_first_token AS
-- One row per run, layer and head, the most sink-like head first: mean mass on the first token. Needs the extension.
-- Queries at position 0 are left out: they can look at nothing else.
-- run_id | layer | head | first_mass | entropy | queries
-- 1      | 22    | 7    | 0.97       | 0.19    | 842
SELECT run_id, layer, head, avg(first_mass) AS first_mass, avg(entropy) AS entropy, count(*) AS queries
  FROM attention WHERE position > 0 GROUP BY run_id, layer, head ORDER BY run_id, first_mass DESC;

CREATE VIEW where_did_the_time_go AS
-- One row per run and part of its steps: seconds and share of the time in scheduling, reserving, forward, sampling, the rest.
-- run_id | part    | seconds | share
-- 1      | forward | 12.71   | 0.991
WITH total AS (
    SELECT run_id, sum(end_ns - start_ns) AS all_ns, sum(schedule_ns) AS schedule_ns, sum(reserve_ns) AS reserve_ns,
           sum(forward_ns) AS forward_ns, sum(sample_ns) AS sample_ns, max(end_ns) - min(start_ns) AS span_ns
      FROM step GROUP BY run_id
), part(run_id, part, ns, all_ns) AS (
    SELECT run_id, 'schedule', schedule_ns, span_ns FROM total
    UNION ALL SELECT run_id, 'reserve', reserve_ns, span_ns FROM total
    UNION ALL SELECT run_id, 'forward', forward_ns, span_ns FROM total
    UNION ALL SELECT run_id, 'sample', sample_ns, span_ns FROM total
    UNION ALL SELECT run_id, 'rest of the step', all_ns - schedule_ns - reserve_ns - forward_ns - sample_ns, span_ns FROM total
    UNION ALL SELECT run_id, 'between steps', span_ns - all_ns, span_ns FROM total
)
SELECT run_id, part, ns / 1e9 AS seconds, CASE WHEN all_ns > 0 THEN 1.0 * ns / all_ns END AS share
  FROM part ORDER BY run_id, ns DESC;

CREATE VIEW where_did_a_request_go AS
-- One row per request: milliseconds until it was admitted, in steps that prefilled it, in steps that decoded it, and waiting between.
-- run_id | request_id | queue_ms | prefill_ms | decode_ms | idle_ms | steps
-- 1      | 4          | 0.4      | 182.3      | 970.1     | 61.7    | 33
SELECT r.run_id, r.id AS request_id, (r.admitted_ns - r.planned_ns) / 1e6 AS queue_ms,
       sum(CASE WHEN c.phase = 'prefill' THEN s.end_ns - s.start_ns END) / 1e6 AS prefill_ms,
       sum(CASE WHEN c.phase = 'decode' THEN s.end_ns - s.start_ns END) / 1e6 AS decode_ms,
       (r.finish_ns - r.admitted_ns - sum(s.end_ns - s.start_ns)) / 1e6 AS idle_ms, count(*) AS steps
  FROM request r
  JOIN step_request c ON c.run_id = r.run_id AND c.request_id = r.id
  JOIN step s ON s.run_id = c.run_id AND s.id = c.step_id
 GROUP BY r.run_id, r.id;

CREATE VIEW slowest_step AS
-- One row per step, the slowest first: what took its time, and who was in it.
-- run_id | step_id | ms    | forward_ms | prefill_tokens | decode_tokens | company
-- 1      | 52      | 201.4 | 200.2      | 512            | 8             | 9 prefill 512, 1 decode 1, …
SELECT s.run_id, s.id AS step_id, (s.end_ns - s.start_ns) / 1e6 AS ms, s.schedule_ns / 1e6 AS schedule_ms,
       s.reserve_ns / 1e6 AS reserve_ms, s.forward_ns / 1e6 AS forward_ms, s.sample_ns / 1e6 AS sample_ms,
       s.requests, s.prefill_tokens, s.decode_tokens, s.waiting,
       (SELECT group_concat(c.request_id || ' ' || c.phase || ' ' || c.tokens, ', ') FROM step_request c
         WHERE c.run_id = s.run_id AND c.step_id = s.id) AS company
  FROM step s ORDER BY ms DESC;

CREATE VIEW which_run_is_which AS
-- One row per run: when it began, how it ended, what was varied and which plugins served.
-- run_id | label | started_at          | state | factors            | plugins
-- 1      | fcfs  | 2026-01-31 12:00:00 | done  | scheduler = "fcfs" | batching/continuous, scheduler/fcfs, …
SELECT r.id AS run_id, r.label, r.experiment, datetime(r.started_at / 1000000000, 'unixepoch') AS started_at, r.state,
       (SELECT group_concat(name || ' = ' || value, ', ') FROM run_factor f WHERE f.run_id = r.id) AS factors,
       (SELECT group_concat(kind || '/' || name, ', ') FROM plugin p WHERE p.run_id = r.id) AS plugins,
       r.dropped_events, r.question
  FROM run r;

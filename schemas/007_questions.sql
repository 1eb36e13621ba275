-- SPDX-License-Identifier: MIT
-- Questions about attention. All need the extension lathe_sqlite, which `lathe sql` has built in. What it has:
--
--   attention            a row a head of a probed query: entropy (nats), first_mass, recent_mass, self_mass, top_key, top_weight
--   attention_weights    a row a key: key (its position), weight, measure (weight, score or value; one query may have been asked
--                        for several: name the one that is meant)
--   layer_norms          a row a layer: before, attention, feed, after      head_norms   a row a head: norm
--   layer_lens           a row a token that a layer would say: rank from 1, token, logprob
--   layer_hidden         a row a dimension of the residual stream after a layer: dimension from 0, value
--   All open with run_id, request_id, position, layer (and head); step_id, probe_id and keys are hidden columns.
--
--   percentile(x, p), median(x)               exact, interpolated, as numpy's
--   hdr_percentile(x, p), hdr(x)              the nearest number within 0.4%, in little memory; hdr(x) is a blob to keep, which
--                                             either takes as x: merged, it is as if all numbers had been counted at once
--   entropy(w)                                of weights or counts, by their shares in their sum, in nats
--   jensen_shannon(p, q), cosine(p, q)        of two rows of weights, over their pairs
--   half(blob, i), token_text(run, id)        a number of a blob in half precision; a token's text
--
-- Where a question is of chosen keys, the rows must be whole (format full) or the heaviest keys (top); of top, a key that
-- isn't listed counts as 0. Whole rows of which the KV cache had dropped keys are left out: which keys were left isn't
-- recorded with them. Scores before the softmax and value-weighted attention are left out by their measure.

CREATE VIEW which_heads_look_at_the_token_after_the_previous_occurrence AS
-- One row per run, layer and head, the most induction-like first: mean weight on the token after the query's previous occurrence.
-- The score of induction heads (Olsson et al. 2022): "… A B … A" looks at B. The query's token must have stood before in the
-- request, and not right before; its latest occurrence counts. Needs the prompt's tokens: trace = { tokens = "all" }.
-- run_id | layer | head | score | queries
-- 1      | 17    | 2    | 0.83  | 3200
WITH target AS (
    SELECT run_id, request_id, position, previous + 1 AS key
      FROM (SELECT run_id, request_id, position,
                   lag(position) OVER (PARTITION BY run_id, request_id, token ORDER BY position) AS previous
              FROM token WHERE (run_id, request_id) IN (SELECT DISTINCT run_id, request_id FROM attention_token))
     WHERE previous < position - 1
), asked AS (
    SELECT a.run_id, a.request_id, a.position, a.probe_id, t.key, count(*) OVER (PARTITION BY a.run_id, a.probe_id) AS queries
      FROM target t
      JOIN attention_token a ON a.run_id = t.run_id AND a.request_id = t.request_id AND a.position = t.position
      JOIN probe p ON p.run_id = a.run_id AND p.id = a.probe_id
     WHERE p.measure = 'weight' AND (p.format = 'top' OR p.format = 'full' AND a.keys = a.position + 1)
), total AS (
    SELECT q.run_id, q.probe_id, w.layer, w.head, sum(w.weight) AS weight, q.queries
      FROM asked q CROSS JOIN attention_weights w
        ON w.run_id = q.run_id AND w.request_id = q.request_id AND w.position = q.position AND w.probe_id = q.probe_id AND w.key = q.key
     GROUP BY q.run_id, q.probe_id, w.layer, w.head
)
SELECT run_id, layer, head, sum(weight) / sum(queries) AS score, sum(queries) AS queries
  FROM total GROUP BY run_id, layer, head ORDER BY run_id, score DESC;

CREATE VIEW which_heads_look_at_the_previous_token AS
-- One row per run, layer and head, the most first: mean weight on the token before the query, from position 1 on.
-- run_id | layer | head | score | queries
-- 1      | 3     | 7    | 0.98  | 6350
WITH asked AS (
    SELECT a.run_id, a.request_id, a.position, a.probe_id, count(*) OVER (PARTITION BY a.run_id, a.probe_id) AS queries
      FROM attention_token a JOIN probe p ON p.run_id = a.run_id AND p.id = a.probe_id
     WHERE a.position > 0 AND p.measure = 'weight' AND (p.format = 'top' OR p.format = 'full' AND a.keys = a.position + 1)
), total AS (
    SELECT q.run_id, q.probe_id, w.layer, w.head, sum(w.weight) AS weight, q.queries
      FROM asked q CROSS JOIN attention_weights w
        ON w.run_id = q.run_id AND w.request_id = q.request_id AND w.position = q.position AND w.probe_id = q.probe_id
           AND w.key = q.position - 1
     GROUP BY q.run_id, q.probe_id, w.layer, w.head
)
SELECT run_id, layer, head, sum(weight) / sum(queries) AS score, sum(queries) AS queries
  FROM total GROUP BY run_id, layer, head ORDER BY run_id, score DESC;

CREATE VIEW which_heads_are_sinks AS
-- One row per run, layer and head, the most sink-like first: mean mass on the first token over queries from position 64 on.
-- Attention sinks (Xiao et al. 2024). `uniform` is what equal weights would give, the mean of 1 / (position + 1). Whether the
-- first token is a special one (first_token) is the prompt's choice: compare two runs.
-- run_id | layer | head | first_mass | uniform | times_uniform | entropy | queries | first_token
-- 1      | 22    | 7    | 0.97       | 0.0072  | 134.7         | 0.19    | 576     | <s>
WITH head AS (
    SELECT run_id, layer, head, avg(first_mass) AS first_mass, avg(1.0 / (position + 1)) AS uniform, avg(entropy) AS entropy,
           count(*) AS queries, min(request_id) AS request_id
      FROM attention WHERE position >= 64 AND first_mass IS NOT NULL GROUP BY run_id, layer, head
)
SELECT h.run_id, h.layer, h.head, h.first_mass, h.uniform, h.first_mass / h.uniform AS times_uniform, h.entropy, h.queries,
       x.text AS first_token
  FROM head h
  LEFT JOIN token t ON t.run_id = h.run_id AND t.request_id = h.request_id AND t.position = 0
  LEFT JOIN token_text x ON x.run_id = t.run_id AND x.token = t.token
 ORDER BY h.run_id, h.first_mass DESC;

CREATE VIEW entropy_by_depth AS
-- One row per run and layer: mean entropy (nats) of its heads, and of the most and the least focused of them.
-- Queries at position 0 are left out: they can look at nothing else.
-- run_id | layer | entropy | least | most | heads | queries
-- 1      | 0     | 2.71    | 1.02  | 4.13 | 9     | 842
WITH head AS (
    SELECT run_id, layer, head, avg(entropy) AS entropy, count(*) AS queries
      FROM attention WHERE position > 0 AND entropy IS NOT NULL GROUP BY run_id, layer, head
)
SELECT run_id, layer, avg(entropy) AS entropy, min(entropy) AS least, max(entropy) AS most, count(*) AS heads, max(queries) AS queries
  FROM head GROUP BY run_id, layer ORDER BY run_id, layer;

CREATE VIEW what_did_the_slow_token_see AS
-- One row per request: its slowest output token, the step that made it late, and what its query looked at, beside the usual.
-- The query of the token at position p is at p − 1. Usual are the request's median gap and its means over all probed queries.
-- `looked_at` is the key, but the first, which was the heaviest of the most heads (`heads` of them).
-- run_id | request_id | position | text | gap_ms | usual_gap_ms | step_id | step_ms | requests | prefill_tokens | entropy | usual_entropy | looked_at
-- 1      | 4          | 37       |  the | 64.9   | 12.1         | 52      | 63.8    | 9        | 212            | 1.61    | 1.58          |  cat
WITH slow AS MATERIALIZED (
    SELECT run_id, request_id, position, token, step_id, max(gap_ns) AS gap_ns, median(gap_ns) AS usual_gap_ns
      FROM token WHERE kind = 'output' AND gap_ns IS NOT NULL GROUP BY run_id, request_id
), seen AS (
    SELECT s.run_id, s.request_id, avg(a.entropy) AS entropy, avg(a.first_mass) AS first_mass
      FROM slow s CROSS JOIN attention a ON a.run_id = s.run_id AND a.request_id = s.request_id AND a.position = s.position - 1
     GROUP BY s.run_id, s.request_id
), usual AS (
    SELECT run_id, request_id, avg(entropy) AS entropy, avg(first_mass) AS first_mass FROM attention GROUP BY run_id, request_id
), vote AS (
    SELECT s.run_id, s.request_id, a.top_key, count(*) AS heads,
           row_number() OVER (PARTITION BY s.run_id, s.request_id ORDER BY count(*) DESC, a.top_key) AS place
      FROM slow s CROSS JOIN attention a ON a.run_id = s.run_id AND a.request_id = s.request_id AND a.position = s.position - 1
     WHERE a.top_key > 0 GROUP BY s.run_id, s.request_id, a.top_key
)
SELECT s.run_id, s.request_id, s.position, x.text, s.gap_ns / 1e6 AS gap_ms, s.usual_gap_ns / 1e6 AS usual_gap_ms,
       s.step_id, (e.end_ns - e.start_ns) / 1e6 AS step_ms, e.requests, e.prefill_tokens,
       n.entropy, u.entropy AS usual_entropy, n.first_mass, u.first_mass AS usual_first_mass,
       v.top_key AS looked_at_position, y.text AS looked_at, v.heads
  FROM slow s
  LEFT JOIN step e ON e.run_id = s.run_id AND e.id = s.step_id
  LEFT JOIN token_text x ON x.run_id = s.run_id AND x.token = s.token
  LEFT JOIN seen n ON n.run_id = s.run_id AND n.request_id = s.request_id
  LEFT JOIN usual u ON u.run_id = s.run_id AND u.request_id = s.request_id
  LEFT JOIN vote v ON v.run_id = s.run_id AND v.request_id = s.request_id AND v.place = 1
  LEFT JOIN token k ON k.run_id = v.run_id AND k.request_id = v.request_id AND k.position = v.top_key
  LEFT JOIN token_text y ON y.run_id = k.run_id AND y.token = k.token
 ORDER BY s.run_id, s.gap_ns DESC;

CREATE VIEW what_would_an_evicted_key_have_weighed AS
-- One row per run that evicted keys, run that kept them all, layer and head: the mass that the latter gave to keys the former lacked.
-- Of requests with the same tokens in both. The evicting run needs a probe of format top that lists all the keys it saw
-- (top_k of at least its budget + 1), the other whole rows. Mass that the keys kept would have shared among them.
-- run_id | full_run_id | layer | head | queries | evicted_keys | evicted_mass | most
-- 2      | 1           | 22    | 7    | 512     | 201.3        | 0.04         | 0.61
WITH said AS MATERIALIZED (
    SELECT run_id, request_id, group_concat(token, ' ') AS tokens
      FROM (SELECT run_id, request_id, token FROM token
             WHERE (run_id, request_id) IN (SELECT DISTINCT run_id, request_id FROM attention_token)
             ORDER BY run_id, request_id, position)
     GROUP BY run_id, request_id
), pair AS (
    SELECT e.run_id, e.request_id, f.run_id AS full_run_id, f.request_id AS full_request_id
      FROM said e JOIN said f ON f.tokens = e.tokens AND f.run_id <> e.run_id
      JOIN request r ON r.run_id = e.run_id AND r.id = e.request_id
      JOIN request s ON s.run_id = f.run_id AND s.id = f.request_id AND s.prompt_sha256 IS r.prompt_sha256
), query AS MATERIALIZED (
    SELECT a.run_id, a.request_id, a.position, a.probe_id, a.keys, b.run_id AS full_run_id, b.request_id AS full_request_id,
           b.probe_id AS full_probe_id
      FROM pair c
      CROSS JOIN attention_token a ON a.run_id = c.run_id AND a.request_id = c.request_id AND a.keys < a.position + 1
      JOIN probe p ON p.run_id = a.run_id AND p.id = a.probe_id AND p.format = 'top' AND a.keys <= p.top_k
      JOIN attention_token b ON b.run_id = c.full_run_id AND b.request_id = c.full_request_id AND b.position = a.position
                            AND b.keys = b.position + 1
      JOIN probe g ON g.run_id = b.run_id AND g.id = b.probe_id AND g.format = 'full' AND g.measure = 'weight'
), kept AS (
    SELECT q.run_id, q.full_run_id, q.position + 1 - q.keys AS evicted, w.layer, w.head, sum(f.weight) AS mass
      FROM query q
      CROSS JOIN attention_weights w ON w.run_id = q.run_id AND w.request_id = q.request_id AND w.position = q.position
                                    AND w.probe_id = q.probe_id
      CROSS JOIN attention_weights f ON f.run_id = q.full_run_id AND f.request_id = q.full_request_id AND f.position = q.position
                                    AND f.probe_id = q.full_probe_id AND f.layer = w.layer AND f.head = w.head AND f.key = w.key
     GROUP BY q.run_id, q.full_run_id, q.request_id, q.full_request_id, q.position, w.layer, w.head
)
SELECT run_id, full_run_id, layer, head, count(*) AS queries, avg(evicted) AS evicted_keys,
       avg(max(0.0, 1 - mass)) AS evicted_mass, max(max(0.0, 1 - mass)) AS most
  FROM kept GROUP BY run_id, full_run_id, layer, head ORDER BY run_id, full_run_id, evicted_mass DESC;

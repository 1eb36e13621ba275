-- SPDX-License-Identifier: MIT
-- Sweeps: what a run is known by when the same is asked for again.

-- SHA-256 over all that decides a run: configuration, clock, seed, factors, sweep, every request, and the bytes of the
-- model, of each plugin, of data files and of the script. Equal keys: the same experiment. NULL: it has none.
ALTER TABLE run ADD COLUMN key TEXT;
-- Was this run done before?
CREATE INDEX run_by_key ON run (key) WHERE key IS NOT NULL;

CREATE VIEW sweep_point AS
-- One row per run of a sweep: which point of the grid it is, as JSON with the factors in alphabetical order.
-- run_id | sweep        | point                             | seed | seed_index | state
-- 12     | first-tokens | {"rate":2,"scheduler":"srpt"}     | 3    | 2          | done
SELECT r.id AS run_id, r.sweep,
       (SELECT json_group_object(f.name, json(f.value))
          FROM (SELECT name, value FROM run_factor WHERE run_id = r.id ORDER BY name) f) AS point,
       r.seed, r.seed_index, r.state, r.key
  FROM run r WHERE r.sweep IS NOT NULL;

CREATE VIEW how_far_is_a_sweep AS
-- One row per sweep and point: how many of its runs are done, failed or were cut short, and what the last failure said.
-- sweep        | point                         | done | failed | cut_short | last_failure
-- first-tokens | {"rate":2,"scheduler":"srpt"} | 9    | 1      | 0         | lathe.run: scheduler: …
SELECT p.sweep, p.point, sum(p.state = 'done') AS done, sum(p.state = 'failed') AS failed,
       sum(p.state = 'cut_short') AS cut_short,
       (SELECT e.message FROM event e JOIN sweep_point q ON q.run_id = e.run_id
         WHERE q.sweep = p.sweep AND q.point IS p.point AND q.state = 'failed' AND e.level = 'error'
         ORDER BY e.run_id DESC LIMIT 1) AS last_failure
  FROM sweep_point p GROUP BY p.sweep, p.point;

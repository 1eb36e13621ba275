-- What became of the services: workers that came and went, breakers, degradation.

-- One row per change of a service's state while a run was under way.
CREATE TABLE service_event (
    run_id  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    time_ns INTEGER NOT NULL,
    service TEXT,              -- model, model:1 (replica 1), tokenizer; engine for the whole
    worker  INTEGER NOT NULL,  -- 0: the service as a whole
    what    TEXT    NOT NULL,  -- worker_started, worker_ready, worker_died, worker_stuck, worker_stopped,
                               -- breaker_opened, breaker_half_open, breaker_closed, scaled,
                               -- swapped, drained, state_lost, degraded, restored
    detail  TEXT               -- a sentence
) STRICT;
-- What happened to this service, in order?
CREATE INDEX service_event_over_time ON service_event (run_id, service, time_ns);

CREATE VIEW how_long_was_a_worker_gone AS
-- One row per run and worker that died or was stuck: when it was noticed, and when its service was ready again.
-- run_id | service | noticed_ms | ready_ms | gone_ms | why
-- 1      | model   | 5012.4     | 5391.0   | 378.6   | worker 1 of service model (pid 4711) was killed by signal 9
SELECT e.run_id, e.service, e.time_ns / 1e6 AS noticed_ms,
       (SELECT min(r.time_ns) FROM service_event r
         WHERE r.run_id = e.run_id AND r.service = e.service AND r.what = 'worker_ready' AND r.time_ns > e.time_ns) / 1e6
           AS ready_ms,
       ((SELECT min(r.time_ns) FROM service_event r
          WHERE r.run_id = e.run_id AND r.service = e.service AND r.what = 'worker_ready' AND r.time_ns > e.time_ns)
           - e.time_ns) / 1e6 AS gone_ms,
       e.detail AS why
  FROM service_event e WHERE e.what = 'worker_died';

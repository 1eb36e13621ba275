-- SPDX-License-Identifier: MIT
-- The tables. What the engine records of a run, one row for each thing that happened.
--
-- Times are INTEGER nanoseconds since the run began, by the run's own clock (monotonic, or
-- virtual); run.started_at is the one wall-clock anchor. Counts are INTEGER. JSON is TEXT that
-- is checked. NULL means that it did not happen, or was not asked for.
--
-- Only run_id (and probe_id) is a foreign key. A request or step may lack its row when a run
-- drops what the recorder's rings had no room for, and its other rows are worth keeping then.
--
-- The event tables' columns after run_id are those of core/events.h, in its order; a test
-- holds the two against each other. PRAGMA user_version counts the files of this folder that
-- were applied; application_id is 'LATH'.

PRAGMA application_id = 0x4C415448;

-- One row per run: an engine that was opened, given work, and closed.
CREATE TABLE run (
    id             INTEGER PRIMARY KEY,      -- in this file
    uid            TEXT    NOT NULL UNIQUE,  -- in all files: UUID, version 4; databases of several machines merge
    label          TEXT,                     -- for people; what was varied stands in run_factor
    experiment     TEXT,                     -- script that made it
    question       TEXT,                     -- what the experiment asks
    sweep          TEXT,                     -- name of the sweep it belongs to
    seed_index     INTEGER,                  -- which repetition of the sweep's point, from 0
    config_hash    TEXT,                     -- SHA-256 of config
    started_at     INTEGER NOT NULL,         -- wall clock when time 0 was, nanoseconds since 1970 UTC
    state          TEXT    NOT NULL CHECK (state IN ('running', 'done', 'failed', 'cut_short')),
    clock          TEXT,                     -- real, virtual
    seed           INTEGER NOT NULL,         -- 64 bits, as a signed number
    config         TEXT CHECK (config IS NULL OR json_valid(config)),    -- what was asked for
    machine        TEXT CHECK (machine IS NULL OR json_valid(machine)),  -- processor, memory, kernel
    commit_id      TEXT,                     -- of the build
    dirty          INTEGER,                  -- the build's tree: 1 changed, 0 as committed, NULL unknown
    argv           TEXT CHECK (argv IS NULL OR json_valid(argv)),        -- command line
    dropped_events INTEGER NOT NULL DEFAULT 0 -- rows that were not kept; known once the run ended
) STRICT;

-- One row per factor of a run: what a sweep varied.
CREATE TABLE run_factor (
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    name   TEXT    NOT NULL,                                  -- scheduler, batching, rate
    value  TEXT    NOT NULL CHECK (json_valid(value)),        -- JSON: "fcfs", 2.5
    PRIMARY KEY (run_id, name)
) STRICT, WITHOUT ROWID;

-- One row per thing that a run was made from.
CREATE TABLE artifact (
    run_id  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    kind    TEXT    NOT NULL,   -- model, dataset, trace, cost_profile, script
    name    TEXT    NOT NULL,
    version TEXT,
    uri     TEXT,               -- where it was found
    sha256  TEXT,               -- hex
    PRIMARY KEY (run_id, kind, name)
) STRICT, WITHOUT ROWID;

-- One row per plugin that served in a run, and from when to when.
CREATE TABLE plugin (
    run_id  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    kind    TEXT    NOT NULL,   -- scheduler, batching, model, …
    name    TEXT    NOT NULL,
    version TEXT,
    abi     INTEGER,
    sha256  TEXT,               -- of the shared object, hex
    options TEXT CHECK (options IS NULL OR json_valid(options)),  -- every option as used
    from_ns INTEGER NOT NULL,
    to_ns   INTEGER,            -- NULL: until the run ended
    PRIMARY KEY (run_id, kind, name, from_ns)
) STRICT, WITHOUT ROWID;

-- One row per request. It is written when the request arrives and again when it ends.
CREATE TABLE request (
    run_id          INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    id              INTEGER NOT NULL,  -- 1, 2, … in order of arrival
    class           TEXT,              -- of the workload: chat, summarise
    tenant          TEXT,
    session         INTEGER,           -- conversation
    turn            INTEGER,           -- within the session
    priority        INTEGER NOT NULL,  -- larger goes first
    model           TEXT,
    replica         INTEGER NOT NULL,
    planned_ns      INTEGER NOT NULL,  -- when it should have arrived: latency counts from here
    arrival_ns      INTEGER NOT NULL,  -- when the engine took it
    admitted_ns     INTEGER,           -- when it first was in a step
    first_token_ns  INTEGER,
    finish_ns       INTEGER,           -- its last token, or its end without one
    finish_reason   TEXT,              -- stop, length, abort, error, deadline; NULL: it had not ended
    prompt_tokens   INTEGER NOT NULL,
    cached_tokens   INTEGER NOT NULL,  -- of the prompt, found in the KV cache
    output_tokens   INTEGER NOT NULL,
    preemptions     INTEGER NOT NULL,
    slo_ttft_ns     INTEGER,           -- its target for the first token; NULL: none
    slo_tpot_ns     INTEGER,           -- its target for each token after it
    deadline_ns     INTEGER,           -- on the run's clock
    prompt_sha256   TEXT,              -- of the prompt's token ids, hex
    correlation_id  TEXT,              -- names it in logs and in other systems
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;

-- One row per stretch of time that a request spent in one state.
CREATE TABLE request_span (
    run_id     INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    request_id INTEGER NOT NULL,
    from_ns    INTEGER NOT NULL,
    to_ns      INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('waiting', 'running', 'preempted', 'swapped')),
    cause      TEXT    -- of the change into this state: arrival, admitted, no_blocks
) STRICT;
-- What did this request wait for? (tenant_service_window, and by hand)
CREATE INDEX request_span_of_request ON request_span (run_id, request_id, from_ns);

-- One row per step: one forward of the model and what was around it.
CREATE TABLE step (
    run_id                INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    id                    INTEGER NOT NULL,  -- 1, 2, … in order of start
    replica               INTEGER NOT NULL,
    start_ns              INTEGER NOT NULL,
    end_ns                INTEGER NOT NULL,
    schedule_ns           INTEGER NOT NULL,  -- how long ranking and filling took
    reserve_ns            INTEGER NOT NULL,  -- how long finding KV blocks took
    forward_ns            INTEGER NOT NULL,  -- how long the model took
    sample_ns             INTEGER NOT NULL,  -- how long picking tokens took
    requests              INTEGER NOT NULL,  -- in the batch
    prefill_tokens        INTEGER NOT NULL,
    decode_tokens         INTEGER NOT NULL,
    padding_tokens        INTEGER NOT NULL,  -- computed and thrown away
    decode_context_tokens INTEGER NOT NULL,  -- sum over decoding requests of their context
    prefill_token_context INTEGER NOT NULL,  -- sum over prefilling requests of tokens × past
    waiting               INTEGER NOT NULL,  -- requests left waiting
    kv_blocks_used        INTEGER NOT NULL,
    kv_blocks_total       INTEGER NOT NULL,
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;

-- One row per request in a step.
CREATE TABLE step_request (
    run_id         INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    step_id        INTEGER NOT NULL,
    request_id     INTEGER NOT NULL,
    phase          TEXT    NOT NULL CHECK (phase IN ('prefill', 'decode')),
    first_position INTEGER NOT NULL,  -- absolute position of its first token in this step
    tokens         INTEGER NOT NULL,  -- computed for it in this step
    context        INTEGER NOT NULL,  -- tokens in KV before the step
    kv_blocks      INTEGER NOT NULL,  -- that it holds after reserving
    PRIMARY KEY (run_id, step_id, request_id)
) STRICT, WITHOUT ROWID;
-- In which steps was this request? (where_did_a_request_go)
CREATE INDEX step_request_of_request ON step_request (run_id, request_id, step_id);

-- One row per token: of the output, and of the prompt if the run chose so.
CREATE TABLE token (
    run_id     INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    request_id INTEGER NOT NULL,
    position   INTEGER NOT NULL,  -- absolute: 0 is the prompt's first token
    step_id    INTEGER,           -- that made it; NULL for a prompt's token
    kind       TEXT    NOT NULL CHECK (kind IN ('prompt', 'output')),
    token      INTEGER NOT NULL,  -- id in the vocabulary; its text is in token_text
    time_ns    INTEGER,           -- when it was handed to its reader; NULL for a prompt's token
    gap_ns     INTEGER,           -- since the output token before it; NULL for the first
    logprob    REAL,              -- natural logarithm, of the token as it was picked
    PRIMARY KEY (run_id, request_id, position)
) STRICT, WITHOUT ROWID;

-- One row per token id of a run's vocabulary that the run used.
CREATE TABLE token_text (
    run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    token  INTEGER NOT NULL,
    text   TEXT    NOT NULL,  -- bytes that are no UTF-8 by themselves became U+FFFD
    PRIMARY KEY (run_id, token)
) STRICT, WITHOUT ROWID;

-- One row per hop: one call of a service over the bus.
CREATE TABLE hop (
    run_id         INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    id             INTEGER NOT NULL,
    parent_id      INTEGER,           -- hop that it was called from
    step_id        INTEGER,
    correlation_id INTEGER NOT NULL,  -- the message's 64 bits, as a signed number
    endpoint       TEXT    NOT NULL,  -- model.forward
    sent_ns        INTEGER NOT NULL,
    started_ns     INTEGER NOT NULL,  -- a worker took it
    ended_ns       INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,  -- of the message and its reply
    status         INTEGER NOT NULL,  -- 0, or enum lathe_status
    worker         INTEGER NOT NULL,
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;

-- One row per attention probe: what was asked for.
CREATE TABLE probe (
    run_id            INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    id                INTEGER NOT NULL,
    layers            TEXT    NOT NULL CHECK (json_valid(layers)),  -- JSON array of layer numbers, ascending
    heads             TEXT    NOT NULL CHECK (json_valid(heads)),   -- JSON array of head numbers, ascending
    format            TEXT    NOT NULL CHECK (format IN ('summary', 'top', 'full')),
    top_k             INTEGER,           -- keys a head, of format top
    recent_window     INTEGER,           -- keys that recent_mass is over, the query's own included
    first_position    INTEGER NOT NULL,  -- of the query, absolute
    last_position     INTEGER,           -- inclusive; NULL: to the end
    every_n_positions INTEGER NOT NULL,  -- 1: all of them
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;

-- One row per probed query position: the attention of all probed layers and heads, packed.
--
-- `data` is: probed layers ascending, within each the probed heads ascending; a head takes
--   summary  16 bytes: entropy (float32, nats), then first_mass, recent_mass, self_mass and
--            top_weight (float16 each), top_key (uint32)
--   top      top_k × 8 bytes: key (uint32), weight (float32), heaviest first; unused ones have
--            key 4294967295 and weight 0
--   full     keys × 2 bytes: weight (float16), key 0 first
-- all little-endian. Ask for it with the tables `attention` and `attention_weights` of the
-- extension lathe_sqlite, which `lathe sql` has built in.
CREATE TABLE attention_token (
    run_id     INTEGER NOT NULL,
    request_id INTEGER NOT NULL,
    position   INTEGER NOT NULL,  -- of the query, absolute; it predicts the token at position + 1
    step_id    INTEGER NOT NULL,
    probe_id   INTEGER NOT NULL,
    keys       INTEGER NOT NULL,  -- how many the query could see: position + 1 unless some were dropped
    data       BLOB    NOT NULL,
    FOREIGN KEY (run_id, probe_id) REFERENCES probe (run_id, id) ON DELETE CASCADE
) STRICT;
-- What did this request's heads look at, here? (attention, attention_weights, token_attention)
CREATE UNIQUE INDEX attention_token_at ON attention_token (run_id, request_id, position, probe_id);

-- One row per figure of a request's quality.
CREATE TABLE score (
    run_id     INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    request_id INTEGER NOT NULL,
    name       TEXT    NOT NULL,  -- nll (nats, summed), exact_match, retrieval
    value      REAL,
    n          INTEGER NOT NULL,  -- how many things the value is over
    PRIMARY KEY (run_id, request_id, name)
) STRICT, WITHOUT ROWID;

-- One row per figure that a plugin recorded.
CREATE TABLE metric (
    run_id  INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    time_ns INTEGER NOT NULL,
    plugin  TEXT,              -- scheduler/fcfs
    name    TEXT    NOT NULL,
    value   REAL
) STRICT;
-- How did this figure go over time?
CREATE INDEX metric_over_time ON metric (run_id, name, time_ns);

-- One row per thing worth telling that is no figure.
CREATE TABLE event (
    run_id         INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    time_ns        INTEGER NOT NULL,
    level          TEXT,              -- debug, info, warn, error
    correlation_id INTEGER,           -- the message's 64 bits, as a signed number
    message        TEXT,
    fields         TEXT CHECK (fields IS NULL OR json_valid(fields))
) STRICT;
-- What was told about this run, in order?
CREATE INDEX event_over_time ON event (run_id, time_ns);

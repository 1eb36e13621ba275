-- SPDX-License-Identifier: MIT
-- Memory and what the layers do: how the KV pool was used over time, probes of more than weights,
-- and what was changed in the forward.

-- What a probe of the heads recorded: of format full it may be the score before the softmax, or the weight
-- times the norm of the key's value (Kobayashi et al., EMNLP 2020). The table attention_weights says which.
ALTER TABLE probe ADD COLUMN measure TEXT NOT NULL DEFAULT 'weight' CHECK (measure IN ('weight', 'score', 'value'));

-- One row per sampled step: what of the KV pool was in use, and for what.
CREATE TABLE kv_usage (
    run_id           INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    step_id          INTEGER NOT NULL,
    replica          INTEGER NOT NULL,
    time_ns          INTEGER NOT NULL,
    blocks_total     INTEGER NOT NULL,
    blocks_used      INTEGER NOT NULL,  -- referred to by a live request, shared ones once
    blocks_cached    INTEGER NOT NULL,  -- kept for reuse by nobody in particular
    blocks_shared    INTEGER NOT NULL,  -- referred to by more than one request
    reserved_tokens  INTEGER NOT NULL,  -- room given out, in positions
    filled_tokens    INTEGER NOT NULL,  -- of it in use; the rest is internal fragmentation
    evicted_blocks   INTEGER NOT NULL,  -- since the engine opened, like the rest
    evicted_tokens   INTEGER NOT NULL,  -- positions that may no longer be looked at
    hit_tokens       INTEGER NOT NULL,  -- of prompts, found cached
    looked_up_tokens INTEGER NOT NULL,  -- of prompts, looked for
    PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;

-- One row per probe of the layers: what was asked for.
CREATE TABLE layer_probe (
    run_id            INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    id                INTEGER NOT NULL,  -- probes of heads and of layers are numbered together
    layers            TEXT    NOT NULL CHECK (json_valid(layers)),  -- JSON array of layer numbers, ascending
    heads             TEXT    NOT NULL CHECK (json_valid(heads)),   -- whose norms, of format norms
    format            TEXT    NOT NULL CHECK (format IN ('norms', 'lens', 'hidden')),
    top_k             INTEGER,           -- tokens a layer, of format lens
    width             INTEGER,           -- floats a layer, of format hidden
    first_position    INTEGER NOT NULL,  -- absolute
    last_position     INTEGER,           -- inclusive; NULL: to the end
    every_n_positions INTEGER NOT NULL,  -- 1: all of them
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;

-- One row per probed position: what all probed layers did there, packed.
--
-- `data` is, for each probed layer, ascending, all little-endian:
--   norms   four float32: norm of the residual stream before the layer, of what attention adds, of what
--           the MLP adds, of the residual stream after; then a float32 a probed head
--   lens    top_k × 8 bytes: token (int32), logprob (float32, nats), likeliest first
--   hidden  width × float32: the residual stream after the layer
-- Ask for it with the tables `layer_norms`, `head_norms`, `layer_lens` and `layer_hidden` of the extension lathe_sqlite.
CREATE TABLE layer_token (
    run_id     INTEGER NOT NULL,
    request_id INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    step_id    INTEGER NOT NULL,
    probe_id   INTEGER NOT NULL,
    data       BLOB    NOT NULL,
    FOREIGN KEY (run_id, probe_id) REFERENCES layer_probe (run_id, id) ON DELETE CASCADE
) STRICT;
-- What did the layers do with this request, here?
CREATE UNIQUE INDEX layer_token_at ON layer_token (run_id, request_id, position, probe_id);

-- One row per intervention of a run: what was changed in the forward.
CREATE TABLE intervention (
    run_id         INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    id             INTEGER NOT NULL,
    kind           TEXT    NOT NULL,  -- head_scale, head_set, head_uniform, keys_drop, keys_keep, attention_scale, mlp_scale, patch
    layers         TEXT    NOT NULL CHECK (json_valid(layers)),
    heads          TEXT    CHECK (heads IS NULL OR json_valid(heads)),
    factor         REAL,
    keys           TEXT    CHECK (keys IS NULL OR json_valid(keys)),
    first_position INTEGER NOT NULL,
    last_position  INTEGER,           -- NULL: to the end
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW kv_waste AS
-- One row per run: how much of the room given out held keys and values that could still be looked at.
-- run_id | label | steps | filled_share | used_share | shared_blocks | evicted_tokens | hit_share
-- 1      | paged | 812   | 0.968        | 0.41       | 0.0           | 0              | 0.0
SELECT r.id AS run_id, r.label, count(k.step_id) AS steps,
       sum(k.filled_tokens) * 1.0 / nullif(sum(k.reserved_tokens), 0) AS filled_share,
       avg(k.blocks_used * 1.0 / nullif(k.blocks_total, 0)) AS used_share,
       avg(k.blocks_shared) AS shared_blocks, max(k.evicted_tokens) AS evicted_tokens,
       max(k.hit_tokens) * 1.0 / nullif(max(k.looked_up_tokens), 0) AS hit_share
  FROM run r JOIN kv_usage k ON k.run_id = r.id
 GROUP BY r.id;

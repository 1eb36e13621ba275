-- SPDX-License-Identifier: MIT
-- How the KV pool is used, as rows; several probes a run; what is refused.
local lathe   = require "lathe"
local support = dofile(debug.getinfo(1, "S").source:match "^@(.*)/" .. "/support.lua")
local equal, near, truth, fails = support.equal, support.near, support.truth, support.fails

local model = lathe.model "tiny"
local function run(trace, more)
  local description = { model = model, database = "memory.db", trace = trace,
                        workload = { { tokens = { 1, 2, 3, 4 }, output_tokens = 9 }, { tokens = { 5, 6 }, output_tokens = 5 } } }
  for k, v in pairs(more or {}) do description[k] = v end
  return lathe.run(description)
end

-- trace.kv
local r = run({ kv = true }, { kvcache = { "paged", block_tokens = 4, blocks = 70 } })
local rows = r:query [[select k.*, s.end_ns, s.kv_blocks_used, s.kv_blocks_total from kv_usage k
  join step s on s.run_id = k.run_id and s.id = k.step_id where k.run_id = :run order by k.step_id]]
equal(#rows, 9, "a row a step")
for _, row in ipairs(rows) do
  equal(row.blocks_total, 70)
  equal(row.blocks_used, row.kv_blocks_used)
  equal(row.time_ns, row.end_ns)
  equal(row.replica, 0)
  equal(row.reserved_tokens, 4 * row.blocks_used)
  truth(row.filled_tokens <= row.reserved_tokens, "filled")
end
equal(rows[1].filled_tokens, 6)
equal(rows[9].filled_tokens, 12) -- of the longer one, but for its last token
local waste = r:query "select * from kv_waste where run_id = :run"
equal(waste[1].steps, 9)
truth(waste[1].filled_share > 0.5 and waste[1].filled_share < 1, "filled share")
equal(#run { kv = 4 }:query "select 1 from kv_usage where run_id = :run", 2)
equal(#run { kv = 2, rows = "requests" }:query "select 1 from kv_usage where run_id = :run", 4, "whatever rows there are")
equal(#run { kv = false }:query "select 1 from kv_usage where run_id = :run", 0)
equal(#run {}:query "select 1 from kv_usage where run_id = :run", 0)
local fleet = run({ kv = 1 }, { workers = { model = 2 }, router = "round_robin" })
equal(fleet:query("select count(distinct replica) as n from kv_usage where run_id = :run")[1].n, 2)
local workload = require "lathe.workload"
local virtual = lathe.run { model = lathe.model "sim", clock = "virtual", database = "memory.db", trace = { kv = 10 },
  workload = workload.poisson { rate = 5, requests = 20, prompt = workload.fixed(30), output = workload.fixed(10) } }
equal(virtual:query("select count(*) as n from kv_usage where run_id = :run")[1].n,
  virtual:query("select count(*) / 10 as n from step where run_id = :run")[1].n, "by the virtual clock")

-- several probes, each with requests of its own
local p = run { attention = "summary", probes = { { format = "top", top_k = 2, layers = { 0 }, every = 2 },
                                                  { format = "full", heads = { 1 }, positions = { 2, 3 }, requests = { 2 } },
                                                  { format = "summary", requests = { 1 } } } }
local function rows_of(run_handle, probe)
  return run_handle:query("select request_id, position, keys from attention_token where run_id = :run and probe_id = ? order by 1, 2", probe)
end
equal(#rows_of(p, 4), 12 + 6, "attention is numbered after them")
equal(#rows_of(p, 1), 6 + 3)
equal(#rows_of(p, 3), 12)
local full = rows_of(p, 2)
equal(#full, 2)
equal(full[1].request_id, 2)
equal(full[1].position, 2)
equal(full[2].keys, 4)
equal(p:query("select group_concat(id || format || measure, ' ') as s from (select * from probe where run_id = :run order by id)")[1].s,
  "1topweight 2fullweight 3summaryweight 4summaryweight")
-- what one probe says, another says too
local both = p:query [[select a.top_weight as a, w.weight as b from attention a join attention_weights w
  on w.run_id = a.run_id and w.request_id = a.request_id and w.position = a.position and w.layer = a.layer and w.head = a.head
  and w.key = a.top_key where a.run_id = :run and a.request_id = 2 and a.position = 3 and a.head = 1]]
truth(#both > 0, "joined")
for _, row in ipairs(both) do near(row.a, row.b, 2e-3, "top weight") end

-- 31 of them, and one of attention
local many = {}
for i = 1, 31 do many[i] = { format = "top", top_k = i } end
equal(run { attention = "summary", probes = many }:query("select count(distinct probe_id) as n from attention_token where run_id = :run")[1].n, 32)
many[32] = many[1]
fails(function() run { probes = many } end, "32 probes are more than 31")

-- sentences
fails(function() run { kv = 0 } end, "trace", "\"kv\" is 0")
fails(function() run { kv = "often" } end, "\"kv\" should be a whole number")
fails(function() run { probe = {} } end, "no field \"probe\"", "\"probes\"")
fails(function() run { probes = "top" } end, "\"probes\" should be an array")
fails(function() run { probes = { format = "top" } } end, "\"probes\" should be an array")
fails(function() run { probes = { "top" } } end, "probe 1: should be { format")
fails(function() run { probes = { {} } } end, "probe 1: should say its format")
fails(function() run { probes = { { format = "hiden" } } } end, "probe 1", "did you mean \"hidden\"?")
fails(function() run { probes = { { format = "top", topk = 2 } } } end, "no field \"topk\"", "\"top_k\"")
fails(function() run { probes = { { format = "top", top_k = 1025 } } } end, "1 to 1024")
fails(function() run { probes = { { format = "top", layers = { 2 } } } } end, "0 to 1, not 2")
fails(function() run { probes = { { format = "top", heads = {} } } } end, "array of numbers from 0")
fails(function() run { probes = { { format = "top", positions = { 4, 3 } } } } end, "first ≤ last")
fails(function() run { probes = { { format = "top", requests = { 3 } } } } end, "1 to 2, not 3")
fails(function() run { attention = { format = "hidden" } } end, "is \"summary\", \"top\" or \"full\"")
fails(function() run({}, { engine = { kv_dtype = "q4" } }) end, "\"q8_0\"")

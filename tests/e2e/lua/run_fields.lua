-- Every field of lathe.run that can be wrong says so at the script's line.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"
local load = { { prompt = "hello", max_tokens = 2 } }

local function run(fields)
  local d = { model = model, workload = load, trace = false }
  for k, v in pairs(fields) do d[k] = v end
  return lathe.run(d)
end

t.fails(function() lathe.run() end, "takes a table")
t.fails(function() lathe.run { workload = load } end, "\"model\"", "should be a model")
t.fails(function() lathe.run { model = "tiny", workload = load } end, "should be a model", "the text \"tiny\"")
t.fails(function() lathe.run { model = model, schedular = "fcfs", workload = load } end, "\"schedular\", did you mean \"scheduler\"?")
t.fails(function() lathe.run { model = model } end, "\"workload\"")
t.fails(function() lathe.run { model = model, workload = {} } end, "no requests")

t.fails(function() lathe.run { model = model, workload = load, trace = false, scheduler = "fcsf" } end, "fcsf", "fcfs")
t.fails(function() lathe.run { model = model, workload = load, trace = false, scheduler = 3 } end, "lathe.run: scheduler", "not 3")
t.fails(function() lathe.run { model = model, workload = load, trace = false, kvcache = { "paged", block_tokns = 8 } } end,
  "block_tokns", "did you mean", "block_tokens")
t.fails(function() lathe.run { model = model, workload = load, trace = false, kvcache = { "paged", block_tokens = -1 } } end, "block_tokens", "-1")
t.fails(function() lathe.run { model = model, workload = load, trace = false, kvcache = { "paged", block_tokens = 1.5 } } end, "block_tokens", "1.5")

t.fails(function() lathe.run { model = model, workload = load, seed = -1 } end, "\"seed\" is -1")
t.fails(function() lathe.run { model = model, workload = load, seed = "one" } end, "\"seed\" should be a whole number")
t.fails(function() lathe.run { model = model, workload = load, clock = "virtual" } end, "clock = \"virtual\" wants", "sim")
t.fails(function() lathe.run { model = model, workload = load, clock = "sundial" } end, "\"clock\"", "sundial")
t.fails(function() lathe.run { model = model, workload = load, engine = { batch_token = 3 } } end, "did you mean \"batch_tokens\"?")
t.fails(function() lathe.run { model = model, workload = load, engine = { kv_dtype = "int8" } } end, "int8")
t.fails(function() lathe.run { model = model, workload = load, factors = { f = print } } end, "JSON")

t.fails(function() lathe.run { model = model, workload = { { prompt = "x", max_token = 2 } } } end, "request 1", "did you mean \"max_tokens\"?")
t.fails(function() lathe.run { model = model, workload = { "x", { prompt = "x", tokens = { 1 } } } } end, "request 2", "several")
t.fails(function() lathe.run { model = model, workload = { {} } } end, "request 1", "give one of prompt")
t.fails(function() lathe.run { model = model, workload = { { prompt = 12 } } } end, "\"prompt\" should be a text, not 12")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", at = -1 } } } end, "\"at\" is -1")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", at = 0 / 0 } } } end, "\"at\"")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", max_tokens = 0 } } } end, "\"max_tokens\" is 0")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", max_tokens = 1 << 40 } } } end, "\"max_tokens\"")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", sampling = { temprature = 1 } } } } end, "did you mean \"temperature\"?")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", sampling = { temperature = 1 } } } } end,
  "sampler \"greedy\" knows no \"temperature\"")
t.fails(function() lathe.run { model = model, sampler = "topp", workload = { { prompt = "x", sampling = { temperature = 0 / 0 } } } } end,
  "temperature")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", slo = { ttft = "soon" } } } } end, "\"ttft\"")
t.fails(function() lathe.run { model = model, workload = { { prompt = "x", tenant = ("t"):rep(64) } } } end, "63 bytes")
t.fails(function() lathe.run { model = model, workload = { { tokens = { 1, "a" } } } } end, "element 2")
t.fails(function() lathe.run { model = model, workload = { { prompt_tokens = 0 } } } end, "prompt_tokens")
t.fails(function() lathe.run { model = model, workload = { 7 } } end, "request 1", "not 7")

t.fails(function() lathe.run { model = model, workload = load, trace = { atention = "full" } } end, "did you mean \"attention\"?")
t.fails(function() lathe.run { model = model, workload = load, trace = { attention = "ful" } } end, "did you mean \"full\"?")
t.fails(function() lathe.run { model = model, workload = load, trace = { attention = { layers = { 99 } } } } end, "\"layers\" of this model are 0 to")
t.fails(function() lathe.run { model = model, workload = load, trace = { attention = { heads = { -1 } } } } end, "\"heads\"")
t.fails(function() lathe.run { model = model, workload = load, trace = { attention = { positions = { 5, 2 } } } } end, "first ≤ last")
t.fails(function() lathe.run { model = model, workload = load, trace = { attention = { requests = { 2 } } } } end, "1 to 1")
t.fails(function() lathe.run { model = model, workload = load, trace = { tokens = "some" } } end, "\"all\"")
t.fails(function() lathe.run { model = model, workload = load, trace = { latency = false } } end, "trace = false")
t.fails(function() lathe.run { model = model, workload = load, trace = 3 } end, "should be false or a table")

-- and a right one runs, with every stage named as a word or a table
local r = run { scheduler = { "fcfs" }, batching = "continuous", kvcache = { "paged", block_tokens = 32 }, sampler = "greedy", bus = "direct" }
t.equal(r.requests, 1)
t.equal(r.id, nil)
t.equal(#r:outputs()[1].tokens, 2)
t.fails(function() r:query "select 1" end, "trace = false")
t.fails(function() return r.outptus end, "did you mean \"outputs\"?")
r:close()
t.fails(function() r:outputs() end, "used after it was closed")

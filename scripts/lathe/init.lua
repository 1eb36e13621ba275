-- SPDX-License-Identifier: MIT
-- require "lathe": what experiments are written with.
--
--   lathe.model { "llama", path = "smollm2-135m" }   weights and tokenizer, loaded once
--   lathe.run { model = …, scheduler = "sjf", workload = …, seed = 1 }   one run, and a handle to ask
--                                                    forced = { ids } in a request gives its answer: r:perplexity()
--                                                    trace = { probes = { { format = "hidden" } }, kv = 10 }: r:activations, r:write_npy
--                                                    interventions = { { "head_scale", layers = { 5 }, heads = { 3 }, factor = 0 } }
--   lathe.fleet { replicas = 8, router = "p2c", … }  the same with so many replicas of the model behind a router
--                                                    disaggregate = { prefill = 2, transfer_us_per_token = 10 } parts them
--   lathe.sweep { name = …, grid = { … }, seeds = 10, run = function(p) return { … } end }   many runs, and what they say
--   lathe.engine { model = …, bus = "shm" }          an engine that the script drives itself: post, await, scale, health, call
--   lathe.bus "async"                                a bus by itself, to be measured
--   lathe.sql "results/x.db"                         a database, read only
--   lathe.policy "mine.lua"                          a scheduler written in Lua: scheduler = lathe.policy "mine.lua"
--   lathe.profile "illustrative-7b"                  a machine's cost profile, for lathe.model { "sim", profile = … }
--   lathe.faults { seed = 1, replicas = 8, horizon = 600, mtbf = 120, mttr = 5 }   deaths to simulate, for faults = …
--   lathe.options { rate = { default = 2, help = "…" } }   what `-- --rate 3` may change
--   lathe.product { a = { 1, 2 }, b = { "x", "y" } } every combination
--   lathe.plot.lines { file = "x.svg", lines = … }   pictures by gnuplot: lines, ecdf, heat, heads, attention, timeline
--   lathe.print(rows)                                a table with aligned columns
--   lathe.json.encode(value), lathe.json.decode(text)
--
-- The rest is in lathe.workload, lathe.stats, lathe.attention, lathe.swift. How sweeps go stands in lathe/sweep.lua.
local check   = require "lathe.check"
local core    = require "lathe.core"
local passage = require "lathe.passage"
local resume  = require "lathe.resume"

local lathe = {
  version = core.version,
  model   = core.model,
  sql     = core.sql,
  engine  = core.engine,
  bus     = core.bus,
  script  = core.script,
  executable = core.executable,
  now     = core.now,
  json    = { encode = core.json_encode, decode = core.json_decode, null = core.null },
  product = require "lathe.product",
  print   = require "lathe.print",
  plot    = require "lathe.plot",
  policy  = require "lathe.policy",
  profile = require "lathe.profile",
  faults  = require "lathe.faults",
  options = require "lathe.options",
  sweep   = require "lathe.sweep",
}

-- With `resume = true`, or `lathe run --resume`, a run that the database has as done is not done
-- again: the handle is of the first, and its field `resumed` is true.
function lathe.run(description)
  if type(description) == "table" then
    description = passage.fill(description)
    if core.resume or description.resume == true then
      local earlier = resume.earlier(description)
      if earlier then return earlier end
    end
  end
  return core.run(description)
end

-- A run with `replicas` of the model behind `router`: what lathe.run { workers = { model = n } } does.
-- replicas = { { model = a, replicas = 2, weight = 3 }, { model = b } }: of several models, as `models` says.
function lathe.fleet(description)
  local what <const> = "lathe.fleet"
  if type(description) ~= "table" then
    core.fail(("%s: takes a table { replicas = n, model = …, workload = … }, not %s"):format(what, check.shown(description)))
  end
  local run, workers = {}, {}
  for k, v in pairs(description) do run[k] = v end
  if type(run.workers) == "table" then
    for k, v in pairs(run.workers) do workers[k] = v end
  end
  if workers.model ~= nil then core.fail(what .. ": give \"replicas\" alone, workers = { model = … } says the same") end
  if type(run.replicas) == "table" then
    run.models = run.replicas
  else
    workers.model = check.integer(what, run, "replicas", 1, 1 << 16)
  end
  run.workers, run.replicas = workers, nil
  return lathe.run(run)
end

return lathe

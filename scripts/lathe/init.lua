-- SPDX-License-Identifier: MIT
-- require "lathe": what experiments are written with.
--
--   lathe.model { "llama", path = "smollm2-135m" }   weights and tokenizer, loaded once
--   lathe.run { model = …, scheduler = "sjf", workload = …, seed = 1 }   one run, and a handle to ask
--   lathe.engine { model = …, bus = "shm" }          an engine that the script drives itself: post, await, scale, health, call
--   lathe.bus "async"                                a bus by itself, to be measured
--   lathe.sql "results/x.db"                         a database, read only
--   lathe.options { rate = { default = 2, help = "…" } }   what `-- --rate 3` may change
--   lathe.product { a = { 1, 2 }, b = { "x", "y" } } every combination
--   lathe.print(rows)                                a table with aligned columns
--   lathe.json.encode(value), lathe.json.decode(text)
--
-- The rest is in lathe.workload, lathe.stats, lathe.swift.
local core    = require "lathe.core"
local passage = require "lathe.passage"

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
  options = require "lathe.options",
}

-- A request may say how many tokens its prompt has instead of what it says: it then gets a
-- stretch of the passage, from a place that its number draws, so that no two share a prefix.
local function with_prompts(description)
  if description.clock == "virtual" then return description end -- lengths are enough
  local workload = description.workload
  local requests = type(workload) == "table" and (workload.requests or workload)
  if type(requests) ~= "table" then return description end
  local filled, changed = {}, false
  for i, request in ipairs(requests) do
    filled[i] = request
    if type(request) == "table" and request.prompt_tokens then
      local copy = {}
      for k, v in pairs(request) do copy[k] = v end
      copy.prompt_tokens = nil
      copy.tokens = passage.tokens(description.model, request.prompt_tokens, description.seed or 1, i)
      filled[i], changed = copy, true
    end
  end
  if not changed then return description end
  local whole = {}
  if workload.requests then
    for k, v in pairs(workload) do whole[k] = v end
    whole.requests = filled
  else
    whole = filled
  end
  local result = {}
  for k, v in pairs(description) do result[k] = v end
  result.workload = whole
  return result
end

function lathe.run(description)
  if type(description) == "table" then description = with_prompts(description) end
  return core.run(description)
end

return lathe

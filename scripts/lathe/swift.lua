-- SPDX-License-Identifier: MIT
-- The easy face of the same engine: no stages to choose, no workload to describe.
--
--   local swift = require "lathe.swift"
--   local m <close> = swift.load "smollm2-135m"
--   print(m:generate("The capital of France is", { max_tokens = 20 }))
--   for i, text in ipairs(m:batch_generate({ "One", "Two", "Three" }, { max_tokens = 8 })) do print(i, text) end
--   for _, head in ipairs(m:analyze_attention "Paris is in France. Paris is in") do print(head.layer, head.head, head.first_mass) end
--   print(m:stats().tokens_per_s)
--
-- opts: max_tokens (64), chat, system, temperature, top_p, top_k, min_p, seed, and any
-- stage of lathe.run (scheduler, batching, kvcache, sampler …), database, trace.
local check = require "lathe.check"
local lathe = require "lathe"

local swift = {}
local Swift = {}
Swift.__index = Swift

local SAMPLING <const> = { "temperature", "top_p", "top_k", "min_p" }
local STAGES <const> = { "sampler", "kvcache", "scheduler", "batching", "bus", "engine", "database", "trace", "label" }
local OPTIONS <const> = { "max_tokens", "chat", "system", "seed" }
for _, list in ipairs { SAMPLING, STAGES } do table.move(list, 1, #list, #OPTIONS + 1, OPTIONS) end

-- "tiny" needs no file; anything else is a model that llama reads.
function swift.load(name, description)
  local t = {}
  for k, v in pairs(description or {}) do t[k] = v end
  t[1] = t[1] or (name == "tiny" and "tiny" or "llama")
  if t[1] == "llama" then t.path = t.path or name end
  return setmetatable({ model = lathe.model(t), totals = { runs = 0, requests = 0, tokens = 0, seconds = 0 } }, Swift)
end

local function run(self, prompts, opts)
  opts = opts or {}
  check.fields("swift", opts, OPTIONS)
  local sampling
  for _, name in ipairs(SAMPLING) do
    if opts[name] ~= nil then
      sampling = sampling or {}
      sampling[name] = opts[name]
    end
  end
  local requests = {}
  for i, prompt in ipairs(prompts) do
    local request = { max_tokens = opts.max_tokens or 64, sampling = sampling }
    if opts.chat then
      request.messages = { opts.system and { role = "system", content = opts.system } or nil }
      request.messages[#request.messages + 1] = { role = "user", content = prompt }
    else
      request.prompt = prompt
    end
    requests[i] = request
  end
  local t = { model = self.model, workload = requests, seed = opts.seed, label = "swift" }
  for _, name in ipairs(STAGES) do
    if opts[name] ~= nil then t[name] = opts[name] end
  end
  if sampling and not t.sampler then t.sampler = "topp" end
  local handle = lathe.run(t)
  local outputs = handle:outputs()
  local totals = self.totals
  totals.runs, totals.requests, totals.seconds = totals.runs + 1, totals.requests + #outputs, totals.seconds + handle.elapsed_s
  for _, output in ipairs(outputs) do totals.tokens = totals.tokens + #output.tokens end
  return outputs, handle
end

-- → text, output; or nil, why
function Swift:generate(prompt, opts)
  local output = run(self, { prompt }, opts)[1]
  if output.error then return nil, output.error end
  return output.text, output
end

-- All at once, through the batching plugin. → texts, outputs
function Swift:batch_generate(prompts, opts)
  local outputs, texts = run(self, prompts, opts), {}
  for i, output in ipairs(outputs) do texts[i] = output.text end
  return texts, outputs
end

-- → a row a head: layer, head, entropy, first_mass, recent_mass, self_mass (means over the
-- positions of prompt and output), heaviest on the first token first; and the run's handle.
function Swift:analyze_attention(prompt, opts)
  local wishes = { trace = { attention = "summary", tokens = "all" }, max_tokens = 8 }
  for k, v in pairs(opts or {}) do wishes[k] = v end
  local _, handle = run(self, { prompt }, wishes)
  return handle:query [[
    select layer, head, avg(entropy) as entropy, avg(first_mass) as first_mass, avg(recent_mass) as recent_mass,
           avg(self_mass) as self_mass
    from attention where run_id = :run and position > 0 group by layer, head order by first_mass desc, layer, head]], handle
end

-- Since load: runs, requests, tokens (of output), seconds, tokens_per_s.
function Swift:stats()
  local t = self.totals
  return { runs = t.runs, requests = t.requests, tokens = t.tokens, seconds = t.seconds,
           tokens_per_s = t.seconds > 0 and t.tokens / t.seconds or 0, model = self.model:info() }
end

function Swift:close() self.model:close() end
Swift.__close = Swift.close

return swift

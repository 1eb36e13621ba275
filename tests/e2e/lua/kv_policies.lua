-- KV caches that choose: without a budget all answer as paged does, with one they evict what they say.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"
local load = {}
for i = 1, 5 do load[i] = { prompt = string.rep("tell me more about number " .. i .. ". ", 2 + i % 2), output_tokens = 40 } end

local function serve(kvcache, more)
  local d = { model = model, kvcache = kvcache, trace = { tokens = "output", kv = true }, workload = load, seed = 1 }
  for k, v in pairs(more or {}) do d[k] = v end
  local r, list = lathe.run(d), {}
  for i, o in ipairs(r:outputs()) do list[i] = table.concat(o.tokens, " ") end
  local usage = r:query [[select max(evicted_tokens) as tokens, max(evicted_blocks) as blocks, max(filled_tokens) as filled
                          from kv_usage where run_id = :run]][1]
  return table.concat(list, "|"), usage, r
end

local paged, usage = serve "paged"
t.equal(usage.tokens, 0, "paged evicts nothing")
for _, name in ipairs { "contiguous", "window", "sinks", "h2o", "random", "prefix" } do
  t.equal(serve(name), paged, name .. " without a budget")
end
for _, scope in ipairs { "request", "layer", "head" } do
  t.equal(serve { "h2o", scope = scope, budget = 2000, block_tokens = 4 }, paged, "h2o whose budget is never come to, " .. scope)
end
t.equal(serve { "sinks", positions = "cache", budget = 2000 }, paged, "sinks in the cache, before anything is evicted")

-- with one: fewer positions than 5 × 32 are in use at any time, and the answers are others
for _, kvcache in ipairs { { "window" }, { "sinks", positions = "cache" }, { "sinks", positions = "original" }, { "random" },
                           { "random", scope = "head" }, { "h2o" }, { "h2o", scope = "layer" }, { "h2o", scope = "head" } } do
  local name = kvcache[1] .. " " .. (kvcache.scope or kvcache.positions or "")
  kvcache.budget, kvcache.block_tokens = 24, 4
  local answers, used = serve(kvcache)
  t.truth(answers ~= paged, name .. " answers otherwise")
  t.truth(used.tokens > 5 * 40 and used.blocks > 0, name .. " evicts")
  t.equal(answers, (serve(kvcache)), name .. " decides the same again")
  -- whoever shares the batch changes nothing (where prompts are cut would: a step's rows see each other)
  t.equal(answers, (serve(kvcache, { engine = { batch_requests = 1 } })), name .. " one at a time")
end

-- a pool that is short: preempted and swapped requests go on as if they had not been
local function short(kvcache)
  kvcache.budget, kvcache.block_tokens = 24, 4
  local free = serve(kvcache)
  kvcache.blocks, kvcache.preempt = 50, "swap"
  t.equal(serve(kvcache), free, kvcache[1] .. " swapped")
end
short { "window" }
short { "sinks" }
short { "h2o", scope = "head" }

t.fails(function() lathe.run { model = model, kvcache = { "sinks", sinks = 8, budget = 8 }, workload = load } end, "leaves no window")

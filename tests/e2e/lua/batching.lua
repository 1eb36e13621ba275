-- Whatever the batching and its options, the tokens are those of each request alone; also when the
-- KV pool is short, prompts exceed the budget, and requests arrive while others run.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"

-- → all tokens, and how often somebody lost its place in the pool
local function run(fields, at_once)
  local d = { model = model, sampler = { "topp", temperature = 1.0 }, seed = 1, workload = {} }
  for i = 1, 12 do
    d.workload[i] = { at = at_once and 0 or 0.002 * i, prompt = ("prompt %d "):format(i):rep(1 + i % 5 * 3),
                      output_tokens = 4 + 12 * (i % 4), predicted = i % 3 * 8 }
  end
  for k, v in pairs(fields or {}) do d[k] = v end
  local r <close>, list = lathe.run(d), {}
  for i, o in ipairs(r:outputs()) do list[i] = table.concat(o.tokens, " ") end
  return table.concat(list, "|"), r:query "select sum(preemptions) as n from request where run_id = :run"[1].n
end

local alone = run { batching = "single" }

local WAYS <const> = {
  { "single", sticky = false }, { "continuous", overtake = true }, { "continuous", split_prompts = false },
  { "static", window_ms = 1 }, { "static", window_ms = 0, reserve = "grow" }, { "static", padded_tokens = 100 },
  { "dynamic", window_ms = 1 }, { "dynamic", window_ms = 5, batch = 3, buckets = "20,60", pad = false },
  { "dynamic", window_ms = 0, buckets = "", shrink = true },
  { "prefill_first" }, { "prefill_first", watermark = 0.3, max_requests = 3 },
  { "chunked" }, { "chunked", budget = 24 }, { "chunked", budget = 24, max_partial = 3, watermark = 0.2 },
  { "memory_aware" }, { "memory_aware", assume = "pessimistic" }, { "memory_aware", assume = "optimistic", watermark = 1 },
  { "memory_aware", trust = 0.2 },
}
local preempted = {}
for i, way in ipairs(WAYS) do
  local what = ("way %d, %s"):format(i, way[1])
  t.equal(run { batching = way }, alone, what)
  t.equal(run { batching = way, engine = { batch_tokens = 32 } }, alone, what .. " in small steps")
  t.equal(run { batching = way, scheduler = "sjf", kvcache = { "paged", block_tokens = 8, blocks = 40 } }, alone,
    what .. " behind sjf")
  local texts, preemptions = run({ batching = way, kvcache = { "paged", block_tokens = 8, blocks = 26 } }, true)
  t.equal(texts, alone, what .. " in a small pool")
  local key = way[1] .. (way.reserve or way.assume or "")
  preempted[key] = (preempted[key] or 0) + preemptions
end
for _, key in ipairs { "continuous", "staticgrow", "prefill_first", "chunked", "memory_awareoptimistic" } do
  t.truth(preempted[key] > 0, key .. " ran short in a small pool")
end
for _, key in ipairs { "single", "static", "dynamic", "memory_awarepessimistic" } do
  t.equal(preempted[key], 0, key .. " takes whom it can hold to the end")
end

t.fails(function()
  lathe.run { model = model, workload = { { prompt = "x" } }, batching = { "dynamic", buckets = "64,32" } }
end, "buckets is '64,32'", "ascending")

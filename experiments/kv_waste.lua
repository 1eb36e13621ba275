-- How much of the KV memory that requests hold do they use, in blocks and in reservations of the maximum?
-- SPDX-License-Identifier: MIT
--
-- A trace's requests in virtual time, through `paged` (blocks of 16 positions, taken as they are needed)
-- and `contiguous` (2,048 positions, the context of the systems that the paper on paging compares with,
-- taken when a request comes in). The useful share at completion is what a request's keys and values
-- fill of what the cache has given it, in its last step: read from the cache's own rows (kv_usage), one
-- request at a time, so that all that is held is that request's. Requests that don't fit 2,048 positions
-- can't be served so, and are left out of both; blocks alone are also measured with them.
--
-- Then what the waste costs: the same requests, all there at once, in a pool of a fixed size: how many
-- run at a time, and how much is done in a second.
--
--   lathe run experiments/kv_waste.lua
--   lathe run experiments/kv_waste.lua -- --trace azure_llm_2023_conv.csv
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local CHUNK <const> = 200 -- requests of one run: what LAST does grows with their square

local function ways_of(o)
  local reserved = { "contiguous", block_tokens = 16, reserve_tokens = o.reserve }
  return { { name = ("paged, blocks of %d"):format(o.block), kvcache = { "paged", block_tokens = o.block }, share = {} },
           { name = ("paged, blocks of %d, all"):format(o.block), kvcache = { "paged", block_tokens = o.block }, all = true, share = {} },
           { name = ("contiguous, %d"):format(o.reserve), kvcache = reserved, share = {} } }
end

-- Requests of a trace: those whose positions fit `most`, and all. The last token that comes out has none.
local function requests_of(o)
  local fit, all = {}, {}
  for _, r in ipairs(workload.replay { file = o.trace, requests = o.requests > 0 and o.requests or nil }.requests) do
    all[#all + 1] = { at = 0, prompt_tokens = r.prompt_tokens, output_tokens = r.output_tokens }
    if r.prompt_tokens + r.output_tokens - 1 <= o.reserve then fit[#fit + 1] = all[#all] end
  end
  if #fit == 0 then error(("no request of %s fits %d positions"):format(o.trace, o.reserve), 0) end
  return fit, all
end

local function run(o, s, way, requests, more)
  local d = { model = s.model, clock = "virtual", workload = requests, kvcache = way.kvcache, batching = "continuous",
              engine = { batch_requests = 256, batch_tokens = 32768, max_requests = #requests, context_tokens = 32768,
                         kv_memory_mb = o.pool_mb } }
  for k, v in pairs(more) do d[k] = v end
  if way.kvcache[1] == "contiguous" then d.engine.context_tokens = o.reserve + 1 end -- the last token needs no position
  return lathe.run(d)
end

-- Rows of every step are what it takes to see each request's last one.
local LAST <const> = [[
  select k.filled_tokens as filled, k.reserved_tokens as reserved
  from request r join step s on s.run_id = r.run_id and s.end_ns = r.finish_ns
    join kv_usage k on k.run_id = s.run_id and k.step_id = s.id
  where r.run_id = :run]]

local function completion(o, s, way)
  local requests, filled, reserved, done = way.all and s.all or s.fit, {}, {}, 0
  for first = 1, #requests, CHUNK do
    local part = table.move(requests, first, math.min(first + CHUNK - 1, #requests), 1, {})
    local r <close> = run(o, s, way, part, { label = way.name, factors = { way = way.name }, trace = { rows = "steps", kv = true },
      engine = { batch_requests = 1, batch_tokens = 32768, max_requests = #part, context_tokens = 32768, kv_memory_mb = o.pool_mb } })
    for _, row in ipairs(r:query(LAST)) do
      done = done + 1
      filled[done], reserved[done] = row.filled, row.reserved
    end
  end
  if done ~= #requests then error(("%d of %d requests were seen at their end"):format(done, #requests), 0) end
  way.requests, way.share = done, stats.ratio_ci(filled, reserved)
end

local function together(o, s, way)
  local r <close> = run(o, s, way, table.move(s.fit, 1, math.min(#s.fit, o.together), 1, {}), { label = way.name .. ", all at once",
    factors = { way = way.name .. ", all at once" }, trace = { rows = "steps" } })
  if r.summary.failed > 0 then error(("%d requests failed"):format(r.summary.failed), 0) end
  way.running = r:query "select 1.0 * sum(requests * (end_ns - start_ns)) / sum(end_ns - start_ns) as n from step where run_id = :run"[1].n
  way.tokens_per_s = r.summary.tokens_per_s
end

return {
  options = {
    trace    = { default = "data/sample_trace.csv", help = "whose lengths requests have" },
    requests = { default = 0, help = "so many of them; 0: all", min = 0 },
    block    = { default = 16, help = "positions of a block", unit = "tokens", min = 1 },
    reserve  = { default = 2048, help = "positions that are reserved for a request", unit = "tokens", min = 16, max = 32767 },
    pool_mb  = { default = 20000, help = "the KV pool, 0.5 MiB a token", unit = "MB", min = 17000 },
    profile  = { default = "illustrative-7b", help = "the machine, see lathe.profile" },
    together = { default = 2000, help = "requests of a run of all at once", min = 1 },
  },

  prepare = function(o)
    local s = { model = lathe.model { "sim", profile = lathe.profile(o.profile), kv_bytes_per_token = 524288 } }
    s.fit, s.all = requests_of(o)
    return s
  end,

  run = function(o, s)
    local ways = ways_of(o)
    for _, way in ipairs(ways) do
      completion(o, s, way)
      if not way.all then together(o, s, way) end
    end
    return ways
  end,

  report = function(o, ways, s)
    local rows = {}
    for i, way in ipairs(ways) do
      rows[i] = { way = way.name, requests = way.requests, useful = 100 * way.share.value, low = 100 * way.share.low,
                  high = 100 * way.share.high, running = way.running or "", speed = way.tokens_per_s or "" }
    end
    print(("\n%s: %d requests, %d of which fit %d positions;\nuseful of what is held at completion, and all at once in %d MB:\n"):format(
      o.trace:match "[^/]*$", #s.all, #s.fit, o.reserve, o.pool_mb))
    lathe.print(rows, { { "way", "KV cache" }, "requests", { "useful", "useful %", "%.2f" }, { "low", "from", "%.2f" },
                        { "high", "to", "%.2f" }, { "running", "running at a time", "%.1f" }, { "speed", "tokens/s", "%.0f" } })
    local paged, reserved = ways[1], ways[3]
    print "\nWhat was found:"
    print(("Blocks of %d are %.1f%% useful when a request ends (95%% interval %.1f to %.1f), a reservation of %d is %.0f%% (%.0f to %.0f).")
      :format(o.block, 100 * paged.share.value, 100 * paged.share.low, 100 * paged.share.high, o.reserve, 100 * reserved.share.value,
      100 * reserved.share.low, 100 * reserved.share.high))
    print(("In the same memory that is %.1f × as many requests at a time, and %.2f × the tokens a second."):format(
      paged.running / reserved.running, paged.tokens_per_s / reserved.tokens_per_s))
    print("What would change this: shorter requests, or longer blocks, since half a block a request is what paging loses; a\n" ..
          "reservation of what a request will really need, if somebody knows; before its end a request uses less of a\n" ..
          "reservation still; a pool that holds all who come either way.")
  end,
}

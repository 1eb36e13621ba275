-- What does the chunk size do to the gap between tokens and to the time to the first one?
-- SPDX-License-Identifier: MIT
--
-- A prompt in a step makes every token of that step late. `chunked` bounds a step by a budget of
-- tokens, decodes first, and cuts prompts to what is left of it (Sarathi-Serve): the smaller the
-- chunk, the shorter the longest gaps, and the more steps, each with weights to be read, a prompt
-- takes to its first token. `prefill_first` (vLLM's first scheduler) is the other end: whole prompts
-- in steps of their own, first tokens soon, and everybody else stands still.
--
-- The same arrivals and lengths, seed by seed, meet every chunk size and `prefill_first`, at each
-- load, a share of the requests a second that `prefill_first` serves of a backlog. Gaps are all gaps between
-- a request's tokens, pooled; their p99 is taken in each run (view token_gap, so that every token is a
-- row: some 300 MB by default), and the interval is over seeds.
--
--   lathe run experiments/chunked_prefill.lua
--   lathe run experiments/chunked_prefill.lua -- --loads 0.5,0.9 --chunks 128,512 --svg chunks.svg
--   lathe run experiments/chunked_prefill.lua -- --profile smollm2-135m-2-cores --prompt 60
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local METRICS <const> = {
  gap_p99_ms  = "select percentile(gap_ms, 99) as x from token_gap where run_id = :run",
  gap_p50_ms  = "select percentile(gap_ms, 50) as x from token_gap where run_id = :run",
  ttft_p99 = "select percentile(ttft_ms, 99) as x from request_latency where run_id = :run",
  ttft_p50 = "select percentile(ttft_ms, 50) as x from request_latency where run_id = :run",
}
local WHOLE <const> = "whole" -- the chunk of prefill_first

local function numbers_of(name, text, least, most, whole)
  local list = {}
  for word in text:gmatch "[^,]+" do
    local value = (whole and math.tointeger or function(v) return v end)(tonumber(word) or false)
    if not value or value < least or value > most then
      error(("--%s: \"%s\" should be a number from %g to %g"):format(name, word, least, most), 0)
    end
    list[#list + 1] = value
  end
  if #list == 0 then error(("--%s: name at least one"):format(name), 0) end
  return list
end

local function lengths(o)
  return workload.lognormal { median = o.prompt, sigma = 0.9, min = 4, max = 8 * o.prompt },
         workload.lognormal { median = o.tokens, sigma = 0.7, min = 2, max = 8 * o.tokens }
end

local function engine_of(o)
  return { batch_tokens = o.step, batch_requests = o.places, max_requests = 4096, kv_memory_mb = 60000 }
end

-- Requests a second of a backlog that prefill_first serves: where its line begins to grow without end.
local function capacity_of(o, model)
  local prompt, output = lengths(o)
  local n <const> = 2000
  local r <close> = lathe.run { model = model, clock = "virtual", trace = false, batching = "prefill_first", engine = engine_of(o),
    workload = workload.burst { size = n, every = 0, requests = n, seed = 1, prompt = prompt, output = output } }
  return (n - o.places) / r.summary.queue.max
end

local function key_of(chunk, load) return lathe.json.encode { chunk = chunk, load = load } end

return {
  options = {
    profile  = { default = "illustrative-7b", help = "the machine, see lathe.profile" },
    chunks   = { default = "64,128,256,512,1024,2048", help = "chunk sizes, with commas; prefill_first is always tried", unit = "tokens" },
    loads    = { default = "0.5,0.8", help = "loads, shares of what prefill_first serves of a backlog" },
    step     = { default = 2048, help = "most tokens of any step, and of one of prefill_first", unit = "tokens", min = 16 },
    places   = { default = 64, help = "most requests in a step", min = 2, max = 1024 },
    requests = { default = 300, help = "how many a run", min = 50 },
    prompt   = { default = 600, help = "median length of a prompt", unit = "tokens", min = 4 },
    tokens   = { default = 90, help = "median length of an answer", unit = "tokens", min = 2 },
    seeds    = { default = 5, help = "seeds, the same for every point", min = 2 },
    svg      = { default = "", help = "draw the p99 of gaps over chunk sizes into this file (gnuplot)" },
  },

  prepare = function(o)
    local model = lathe.model { "sim", profile = lathe.profile(o.profile), kv_bytes_per_token = 524288 }
    local chunks = numbers_of("chunks", o.chunks, 1, o.step, true)
    if #chunks < 2 then error("--chunks: name two at least, to be compared", 0) end
    table.sort(chunks)
    return { model = model, loads = numbers_of("loads", o.loads, 0.01, 2), chunks = chunks, capacity = capacity_of(o, model) }
  end,

  run = function(o, s)
    local grid = { chunk = table.move(s.chunks, 1, #s.chunks, 1, {}), load = s.loads }
    table.insert(grid.chunk, WHOLE)
    return lathe.sweep { name = "chunked prefill", grid = grid, seeds = o.seeds, jobs = 2, metrics = METRICS,
      baseline = { chunk = WHOLE },
      run = function(p)
        local prompt, output = lengths(o)
        return { model = s.model, clock = "virtual", trace = { rows = "tokens" },
                 batching = p.chunk == WHOLE and { "prefill_first" } or { "chunked", budget = p.chunk },
                 engine = engine_of(o),
                 workload = workload.poisson { rate = p.load * s.capacity, requests = o.requests, seed = p.seed, prompt = prompt,
                                               output = output } }
      end }
  end,

  report = function(o, sweep, s)
    print(("\nPrompts of %d and answers of %d tokens (median), %d places, on %s; load 1 is %.1f requests a second:\n")
      :format(o.prompt, o.tokens, o.places, o.profile, s.capacity))
    sweep:table { "gap_p50_ms", "gap_p99_ms", "ttft_p50", "ttft_p99" }
    print()
    sweep:settled()
    local small, large = s.chunks[1], s.chunks[#s.chunks]
    local function ratio(metric, a, b, load) -- in logarithms, seed by seed: a ratio of times is positive
      local of_a, of_b, logs = sweep:values(key_of(a, load), metric), sweep:values(key_of(b, load), metric), {}
      for seed = 1, o.seeds do logs[seed] = math.log(of_a[seed] / of_b[seed]) end
      local ci = stats.mean_ci(logs)
      return ("%.2f × (95%% interval %.2f to %.2f)"):format(math.exp(ci.value), math.exp(ci.low), math.exp(ci.high))
    end
    print "\nWhat was found:"
    for _, load in ipairs(s.loads) do
      for _, pair in ipairs { { small, large }, { s.chunks[#s.chunks // 2 + 1], WHOLE } } do
        print(("At load %g chunks of %d have a p99 gap of %s that of %s;\n  the median TTFT is %s.")
          :format(load, pair[1], ratio("gap_p99_ms", pair[1], pair[2], load), pair[2] == WHOLE and "whole prompts first" or pair[2],
            ratio("ttft_p50", pair[1], pair[2], load)))
      end
    end
    print("What would change this: what a step costs before anything is in it (a small chunk pays it for every chunk; at 0 small\n" ..
          "chunks are free); short prompts, which are no longer than a chunk; loads near 1, where what small chunks lose in\n" ..
          "throughput becomes a line that grows, and TTFT with it.")
    if o.svg ~= "" and sweep:plot { x = "chunk", y = "gap_p99_ms", by = "load", file = o.svg, log = true,
                                    title = "p99 gap between tokens, ms" } then
      print("The curves are in " .. o.svg .. ".")
    end
  end,
}

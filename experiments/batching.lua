-- What does iteration-level batching gain over request-level batching?
-- SPDX-License-Identifier: MIT
--
-- First what is known. If a step takes a fixed time and requests are never short, request-level
-- batching (`static`) ends B requests every E[max of B lengths] steps, and iteration-level batching
-- (`continuous`, Orca) B every E[length]. So the gain is E[max of B] / E[X], which order statistics
-- give of any lengths: 2.72 at B = 8 and 4.06 at 32 if they are exponential. Both are simulated with
-- prefill and padding for free, all requests there at once. Counted is what was begun until the last
-- began, so that the end, where places stay empty, does not.
--
-- Then what it is worth where steps have a cost (a profile), and what lies between: the same
-- requests meet seven batchings with as many places. `single` has one; `static` gathers a padded
-- batch that runs until its longest ends; `dynamic` has buckets and drops rows that ended, but nobody
-- joins; `continuous` lets requests join and leave at every step; `prefill_first` keeps prompts and
-- decodes in steps of their own; `chunked` bounds each step by a budget, decodes first;
-- `memory_aware` looks ahead to what the KV pool will hold. The rates are shares of what `continuous`
-- serves of a backlog, or --rates.
--
--   lathe run experiments/batching.lua
--   lathe run experiments/batching.lua -- --trace azure_llm_2023_conv.csv
--   lathe run experiments/batching.lua -- --clock real --model tiny --rates 20,60 --requests 60 --prompt 32 --tokens 24 --seeds 2
--   lathe run experiments/batching.lua -- --clock real --model smollm2-135m --rates 2,4 --requests 24 --tokens 24 --seeds 2
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local NAMES <const>  = { "single", "static", "dynamic", "continuous", "prefill_first", "chunked", "memory_aware" }
local SHARES <const> = { 0.2, 0.6, 0.9 }
local SIZES <const>  = { 8, 32 }
local MEAN <const>   = 100 -- of exponential lengths: long enough that rounding them to whole tokens is nothing

-- ── what is known ─────────────────────────────────────────────────────────────────────

-- E[max of n] / E[X] of a sample: its k-th smallest of m is the largest with probability (k/m)^n − ((k−1)/m)^n.
local function longest_of(sorted, n)
  local m, sum, largest = #sorted, 0, 0
  for k, x in ipairs(sorted) do
    sum = sum + x
    largest = largest + x * ((k / m) ^ n - ((k - 1) / m) ^ n)
  end
  return largest / (sum / m)
end

-- … and of an exponential distribution: the n-th harmonic number.
local function harmonic(n)
  local sum = 0
  for k = 1, n do sum = sum + 1 / k end
  return sum
end

local function outputs_of(trace)
  local load, values = workload.replay { file = trace }, {}
  for i, r in ipairs(load.requests) do values[i] = r.output_tokens end
  table.sort(values)
  return values
end

-- Requests begun a second, as long as others wait.
local function begun_a_second(r, requests, places)
  local s = r.summary
  if s.failed > 0 then error(("%d of %d requests failed"):format(s.failed, s.requests), 0) end
  return (requests - places) / s.queue.max
end

local function gain(o, lengths, size, seed)
  local model = lathe.model { "sim", step_us = 1000, prefill_us = 0, prefill_context_ns = 0, decode_us = 0, decode_context_ns = 0,
                              padding_us = 0, kv_bytes_per_token = 1 }
  local load = workload.burst { size = o.known, every = 0, requests = o.known, seed = seed, prompt = 1, output = lengths }
  local function speed(batching)
    local r <close> = lathe.run { model = model, clock = "virtual", trace = false, workload = load, batching = batching, seed = seed,
      engine = { batch_requests = size, max_requests = o.known, context_tokens = 32768, kv_memory_mb = 64 } }
    return begun_a_second(r, o.known, size)
  end
  return speed { "continuous" } / speed { "static", batch = size, window_ms = 0 }
end

local function known(o, s)
  local rows = {}
  for _, of in ipairs { { name = "exponential", lengths = workload.exponential { mean = MEAN }, expected = harmonic },
                        { name = s.trace_name, lengths = workload.empirical(s.outputs),
                          expected = function(n) return longest_of(s.outputs, n) end } } do
    for _, size in ipairs(SIZES) do
      local gains = {}
      for seed = 1, o.seeds do gains[seed] = gain(o, of.lengths, size, seed) end
      local ci, expected = stats.mean_ci(gains), of.expected(size)
      rows[#rows + 1] = { lengths = of.name, size = size, expected = expected, found = ci.value, half = ci.half,
                          off = 100 * (ci.value / expected - 1) }
    end
  end
  return rows
end

-- ── what it is worth ──────────────────────────────────────────────────────────────────

local function settings(o, name)
  local all = {
    single        = {},
    static        = { batch = o.places, window_ms = o.window_ms },
    dynamic       = { batch = o.places, window_ms = o.window_ms, buckets = ("%d,%d"):format(o.prompt, 4 * o.prompt), shrink = true },
    continuous    = { max_requests = o.places },
    prefill_first = { max_requests = o.places },
    chunked       = { max_requests = o.places, budget = o.budget },
    memory_aware  = { max_requests = o.places },
  }
  all[name][1] = name
  return all[name]
end

local function model_of(o)
  if o.model == "sim" then return lathe.model { "sim", profile = lathe.profile(o.profile), kv_bytes_per_token = 524288 } end
  if o.model == "tiny" then return lathe.model { "tiny", delay_us = o.delay_us } end
  return lathe.model { "llama", path = o.model }
end

local function rates_of(text)
  local rates = {}
  for word in text:gmatch "[^,]+" do
    local rate = tonumber(word)
    if not rate or rate <= 0 or rate == math.huge then error(("--rates: \"%s\" is no rate; write such as 20,60"):format(word), 0) end
    rates[#rates + 1] = rate
  end
  return rates
end

-- `rate` nil: all at once.
local function load_of(o, rate, seed)
  local t = { requests = o.requests, seed = seed, rate = rate, predicted = true,
              prompt = workload.lognormal { median = o.prompt, sigma = 0.8, min = 2, max = 8 * o.prompt },
              output = workload.lognormal { median = o.tokens, sigma = 0.7, min = 2, max = 8 * o.tokens } }
  if rate then return workload.poisson(t) end
  t.size, t.every = o.requests, 0
  return workload.burst(t)
end

-- In ms; the share of padding only where steps were recorded.
local function figures(r, o)
  local f, row = {}
  if o.clock == "virtual" then
    local s = r.summary
    f.ttft, f.ttft_p99, f.tpot, f.tpot_p99 = 1e3 * s.ttft.p50, 1e3 * s.ttft.p99, 1e3 * s.tpot.p50, 1e3 * s.tpot.p99
    f.whole, f.tokens_per_s = 1e3 * s.response.mean, s.tokens_per_s
  else
    row = r:query [[select avg(e2e_ms) as whole, percentile(ttft_ms, 50) as ttft, percentile(ttft_ms, 99) as ttft_p99,
      percentile(tpot_ms, 50) as tpot, percentile(tpot_ms, 99) as tpot_p99, min(t.tokens_per_s) as tokens_per_s
      from request_latency l join run_latency t using (run_id) where l.run_id = :run]][1]
    for name, value in pairs(row) do f[name] = value end
  end
  if r.id then
    row = r:query [[select 100.0 * sum(padding_tokens) / sum(prefill_tokens + decode_tokens + padding_tokens) as padding,
                    avg(requests) as together from step where run_id = :run]][1]
    f.padding, f.together = row.padding, row.together
  end
  return f
end

-- → figures of one batching at one rate, arrays by seed. Steps are recorded once, or always in real time.
local function measure(o, s, name, rate)
  local of = { batching = name, rate = rate or math.huge, speed = {} }
  for seed = 1, o.seeds do
    local real = o.clock == "real"
    local r <close> = lathe.run { model = s.model, batching = settings(o, name), clock = o.clock, workload = load_of(o, rate, seed),
      seed = seed, label = rate and ("%s at %g/s"):format(name, rate) or name .. ", a backlog",
      factors = { batching = name, rate = rate or "backlog" },
      engine = { max_requests = math.min(o.requests, 4096), kv_memory_mb = not real and o.kv_memory_mb or nil },
      trace = real and { tokens = "output" } or seed == 1 and { rows = "steps" } }
    for what, value in pairs(figures(r, o)) do
      of[what] = of[what] or {}
      table.insert(of[what], value)
    end
    if not rate then of.speed[seed] = begun_a_second(r, o.requests, name == "single" and 1 or o.places) end
  end
  return of
end

-- More arrives than it serves of a backlog: its times then only say how long the run was.
local function overloaded(found, of)
  local backlog = found.backlog[of.batching]
  return backlog ~= nil and of.rate > stats.mean(backlog.speed)
end

local function printed(found, list, columns)
  local rows = {}
  for i, of in ipairs(list) do
    rows[i] = { batching = of.batching, rate = of.rate, note = overloaded(found, of) and "overloaded" or "" }
    for _, column in ipairs(columns) do
      local values, name = of[column[1]], column[1]
      if type(values) == "table" then rows[i][name] = stats.mean(values) end
    end
    if #of.whole > 1 then rows[i].half = stats.mean_ci(of.whole).half end
  end
  lathe.print(rows, columns)
end

local function compare(of, field, a, b)
  local ratios = {}
  for seed, value in ipairs(of[a][field]) do ratios[seed] = value / of[b][field][seed] end
  if #ratios == 1 then return ("%.2f × (one seed: no interval)"):format(ratios[1]) end
  local ci = stats.mean_ci(ratios)
  return ("%.2f × (95%% interval %.2f to %.2f)"):format(ci.value, ci.low, ci.high)
end

return {
  options = {
    model     = { default = "sim", help = "the model: sim, tiny, a short name or a GGUF file" },
    profile   = { default = "illustrative-7b", help = "the machine that sim stands for, see lathe.profile" },
    clock     = { default = "virtual", help = "which clock the runs go by", choices = { "real", "virtual" } },
    trace     = { default = "data/sample_trace.csv", help = "a trace whose output lengths are tried, too" },
    known     = { default = 8000, help = "requests of each run of the known result", min = 200 },
    delay_us  = { default = 2000, help = "how long each forward of tiny takes at least", unit = "us", min = 0 },
    rates     = { default = "", help = "arrivals a second, with commas; otherwise shares of what continuous serves" },
    requests  = { default = 1000, help = "how many of them a run", min = 4 },
    prompt    = { default = 128, help = "median length of a prompt", unit = "tokens", min = 2, max = 512 },
    tokens    = { default = 96, help = "median length of an answer", unit = "tokens", min = 2, max = 256 },
    kv_memory_mb = { default = 60000, help = "the KV pool of sim, 0.5 MiB a token", unit = "MB", min = 64 },
    places    = { default = 32, help = "most requests in a step", min = 1, max = 32 },
    window_ms = { default = 50, help = "how long request-level batchings wait for others", unit = "ms", min = 0 },
    budget    = { default = 256, help = "tokens of a step of chunked", unit = "tokens", min = 1 },
    seeds     = { default = 8, help = "runs of each, with other arrivals and lengths", min = 2 },
  },

  prepare = function(o)
    if o.clock == "real" and o.rates == "" then error("--clock real wants --rates, such as 20,60", 0) end
    return { rates = rates_of(o.rates), model = model_of(o), outputs = outputs_of(o.trace), trace_name = o.trace:match "[^/]*$" }
  end,

  run = function(o, s)
    local found = { known = known(o, s), backlog = {}, loaded = {} }
    if o.clock == "virtual" then
      for i, name in ipairs(NAMES) do
        found.backlog[i] = measure(o, s, name)
        found.backlog[name] = found.backlog[i]
      end
      local most = stats.mean(found.backlog.continuous.speed)
      if #s.rates == 0 then
        for i, share in ipairs(SHARES) do s.rates[i] = tonumber(("%.3g"):format(share * most)) end
      end
    end
    for _, rate in ipairs(s.rates) do
      found[rate] = {}
      for _, name in ipairs(NAMES) do
        found[rate][name] = measure(o, s, name, rate)
        table.insert(found.loaded, found[rate][name])
      end
    end
    return found
  end,

  report = function(o, found, s)
    print(("\nRequests begun a second, continuous over static, steps of fixed time, %d seeds of %d requests:\n"):format(o.seeds, o.known))
    lathe.print(found.known, { { "lengths", "lengths of answers" }, { "size", "B" }, { "expected", "E[max of B] / E[X]", "%.2f" },
                               { "found", "simulated", "%.3f" }, { "half", "±", "%.3f" }, { "off", "off by %", "%+.1f" } })
    local where = o.model == "sim" and o.profile or o.model
    if o.clock == "virtual" then
      print(("\nA backlog of %d requests, prompts of %d and answers of %d tokens (median), %d places, on %s:\n")
        :format(o.requests, o.prompt, o.tokens, o.places, where))
      printed(found, found.backlog, { "batching", { "speed", "requests/s", "%.2f" }, { "tokens_per_s", "tokens/s", "%.0f" },
                               { "together", "in a step", "%.1f" }, { "padding", "padding %", "%.0f" } })
    end
    print(("\nArrivals as a Poisson process, on %s, means of %d seeds, milliseconds:\n"):format(where, o.seeds))
    printed(found, found.loaded, { { "rate", "rate/s", "%g" }, "batching", { "ttft", "TTFT median", "%.0f" }, { "ttft_p99", "p99", "%.0f" },
      { "tpot", "TPOT median", "%.1f" }, { "tpot_p99", "p99", "%.1f" }, { "whole", "E2E mean", "%.0f" }, { "half", "±", "%.0f" },
      { "tokens_per_s", "tokens/s", "%.0f" }, { "together", "in a step", "%.1f" }, { "padding", "padding %", "%.0f" }, { "note", "" } })

    print "\nWhat was found:"
    for _, row in ipairs(found.known) do
      print(("With %d places and %s lengths continuous serves %.2f ± %.2f × what static does, where %.2f is known."):format(
        row.size, row.lengths, row.found, row.half, row.expected))
    end
    if o.clock == "virtual" then
      print(("On %s, of a backlog continuous serves %s what static does."):format(where,
        compare(found.backlog, "speed", "continuous", "static")))
    end
    for _, rate in ipairs(s.rates) do
      local at = found[rate]
      print(overloaded(found, at.static) and ("At %g/s static is overloaded: its lines grow for as long as requests come."):format(rate)
        or ("At %g/s a whole answer of static takes %s as long as one of continuous."):format(rate,
          compare(at, "whole", "static", "continuous")))
    end
    print("What would change this: equal lengths (E[max] is then E[X], and nothing is gained); a light load, where nobody waits and\n" ..
          "all are alike; a pool that is short, for which memory_aware is (--kv-memory-mb 4000); prompts that dwarf the answers,\n" ..
          "since prefill, which both do, is then most of the work; rows that cost as much as the step itself, since dynamic, which\n" ..
          "drops ended rows, then gains most of it without letting anybody join.")
  end,
}

-- How many requests a second can be served within their targets, under which scheduler and batching?
-- SPDX-License-Identifier: MIT
--
-- Goodput, as the serving papers mean it (DistServe, OSDI 2024): the highest rate at which 90%, or
-- 99%, of the requests meet both their targets, a first token within --ttft and then a token every
-- --tpot on average. One request in --patient (0: none) has ten times as long for its first token, so that
-- there is something for deadlines to choose from. For each configuration and seed it is found by bisection on the rate, until the
-- bracket is within --precision. A seed's arrivals at another rate are the same arrivals on another
-- scale (common random numbers), so that the share falls as the rate grows, but for few steps.
-- A request that is refused or fails has not met its targets.
--
-- Lengths are those of a trace, drawn independently of each other. Whether a rate is served for good,
-- or only as long as --requests last, a longer run tells: beyond the capacity the share falls with it.
--
--   lathe run experiments/goodput.lua
--   lathe run experiments/goodput.lua -- --ttft 2 --tpot 0.1 --svg goodput.svg
local lathe    = require "lathe"
local plot     = require "lathe.plot"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local WAYS <const> = {
  { scheduler = "fcfs", batching = "static" },
  { scheduler = "fcfs", batching = "prefill_first" },
  { scheduler = "fcfs", batching = "continuous" },
  { scheduler = "fcfs", batching = "chunked" },
  { scheduler = "sjf",  batching = "chunked" },
  { scheduler = "edf",  batching = "chunked" },
}
local LEVELS <const> = { 0.90, 0.99 }
local LEAST <const>, MOST <const> = 0.05, 1000 -- requests a second, between which goodput is looked for
local POINTS <const> = 9                       -- of a curve

local function batching_of(o, name)
  if name == "static" then return { "static", batch = o.places, window_ms = 50, padded_tokens = 16384 } end
  if name == "chunked" then return { "chunked", budget = o.budget } end
  return { name }
end

-- Lengths as the trace has them.
local function lengths_of(o)
  local prompts, outputs = {}, {}
  for i, r in ipairs(workload.replay { file = o.trace }.requests) do prompts[i], outputs[i] = r.prompt_tokens, r.output_tokens end
  return workload.empirical(prompts), workload.empirical(outputs)
end

-- The share of requests that met both targets.
local function attained(o, s, way, rate, seed)
  local load = workload.poisson { rate = rate, requests = o.requests, seed = seed, prompt = s.prompt, output = s.output,
                                  predicted = { noise = o.noise }, classes = s.classes }
  local r <close> = lathe.run { model = s.model, clock = "virtual", trace = false, seed = seed, scheduler = way.scheduler,
    batching = batching_of(o, way.batching), workload = load, warmup = o.requests // 10,
    engine = { batch_tokens = 4096, batch_requests = o.places, max_requests = o.requests, context_tokens = 16384, kv_memory_mb = 60000 } }
  s.runs = s.runs + 1
  local summary = r.summary
  return summary.met_slo / (summary.with_slo + summary.failed)
end

-- The highest rate at which `share(rate)` is at least `level`, to a factor of 1 + precision.
local function highest(share, level, precision, guess)
  local low, high = guess, guess
  while share(low) < level do
    low, high = low / 2, low
    if low < LEAST then return 0 end
  end
  while share(high) >= level do
    low, high = high, high * 2
    if high > MOST then error(("a rate of %g a second is still served within the targets: they ask for nothing"):format(low), 0) end
  end
  while high / low > 1 + precision do
    local middle = math.sqrt(low * high)
    if share(middle) >= level then low = middle else high = middle end
  end
  return low
end

local function curves(o, s, ways, top)
  local rates = {}
  for i = 1, POINTS do
    rates[i] = 1.4 * top * i / POINTS
    for _, way in ipairs(ways) do
      local shares = {}
      for seed = 1, o.seeds do shares[seed] = 100 * attained(o, s, way, rates[i], seed) end
      way.curve = way.curve or {}
      way.curve[i] = stats.mean(shares)
    end
  end
  return rates
end

local function draw(file, title, rates, ways)
  local lines = {}
  for i, way in ipairs(ways) do
    lines[i] = { title = way.name }
    for k, rate in ipairs(rates) do lines[i][k] = { rate, way.curve[k] } end
  end
  return plot.lines { file = file, title = title, x = "requests a second", y = "% within targets", from = 0, to = 105,
                      marks = { 90, 99 }, lines = lines }
end

local function shown(values)
  local ci = stats.mean_ci(values)
  return ("%.2f ± %.2f"):format(ci.value, ci.half)
end

return {
  options = {
    profile   = { default = "illustrative-7b", help = "the machine, see lathe.profile" },
    trace     = { default = "data/sample_trace.csv", help = "a trace, of which the lengths are taken" },
    ttft      = { default = 1.0, help = "the target of the first token", unit = "s", min = 0.001 },
    tpot      = { default = 0.05, help = "the target of a token after it, a request's mean", unit = "s", min = 0.0001 },
    requests  = { default = 1000, help = "how many a run, a tenth of them before it counts", min = 100 },
    patient   = { default = 3, help = "one request in so many has ten times as long to its first token; 0: none", min = 0 },
    places    = { default = 64, help = "most requests in a step", min = 1, max = 1024 },
    budget    = { default = 512, help = "tokens of a step of chunked", unit = "tokens", min = 16 },
    noise     = { default = 0.5, help = "how wrong the predictions are that sjf goes by (sigma of the logarithm)", min = 0 },
    precision = { default = 0.02, help = "how narrow the bracket of a rate becomes, relatively", min = 0.001, max = 1 },
    seeds     = { default = 5, help = "seeds, the same for every configuration", min = 2 },
    svg       = { default = "", help = "draw attainment over rate into this file (gnuplot)" },
  },

  prepare = function(o)
    local prompt, output = lengths_of(o)
    local classes = { { name = "prompt", share = math.max(o.patient - 1, 0), slo = { ttft = o.ttft, tpot = o.tpot } } }
    if o.patient > 0 then classes[2] = { name = "patient", share = 1, slo = { ttft = 10 * o.ttft, tpot = o.tpot } } end
    if o.patient == 0 then classes[1].share = 1 end
    return { model = lathe.model { "sim", profile = lathe.profile(o.profile), kv_bytes_per_token = 524288 },
             prompt = prompt, output = output, classes = classes, runs = 0 }
  end,

  run = function(o, s)
    local top = 0
    for _, way in ipairs(WAYS) do
      way.name = way.scheduler .. ", " .. way.batching
      for _, level in ipairs(LEVELS) do
        way[level] = {}
        for seed = 1, o.seeds do
          local guess = way[level][seed - 1] or level == LEVELS[2] and way[LEVELS[1]][seed] or top
          local found = highest(function(rate) return attained(o, s, way, rate, seed) end, level, o.precision, guess > 0 and guess or 1)
          way[level][seed], top = found, math.max(top, found)
        end
      end
    end
    return { rates = o.svg ~= "" and curves(o, s, WAYS, top), runs = s.runs }
  end,

  report = function(o, found)
    print(("\nThe highest rate (requests a second) at which so many had their first token within %g s and then one every %g s, on\n" ..
           "%s, lengths of %s; mean ± half of a 95%% interval over %d seeds, %d runs of %d requests:\n")
      :format(o.ttft, o.tpot, o.profile, o.trace:match "[^/]*$", o.seeds, found.runs, o.requests))
    local rows, best = {}, WAYS[1]
    for i, way in ipairs(WAYS) do
      rows[i] = { scheduler = way.scheduler, batching = way.batching }
      for _, level in ipairs(LEVELS) do rows[i][tostring(level)] = shown(way[level]) end
      if stats.mean(way[LEVELS[1]]) > stats.mean(best[LEVELS[1]]) then best = way end
    end
    lathe.print(rows, { "scheduler", "batching", { tostring(LEVELS[1]), "at 90%" }, { tostring(LEVELS[2]), "at 99%" } })

    print "\nWhat was found:"
    print(("At 90%% %s has the most goodput. The others, at the same arrivals:"):format(best.name))
    for _, way in ipairs(WAYS) do
      if way ~= best then
        local texts = {}
        for i, level in ipairs(LEVELS) do
          local d = stats.paired_ci(way[level], best[level])
          texts[i] = ("%+.2f/s at %g%% (95%% interval %+.2f to %+.2f)"):format(d.value, 100 * level, d.low, d.high)
        end
        print(("  %s: %s."):format(way.name, table.concat(texts, ", ")))
      end
    end
    print("What would change this: the targets (a strict TPOT asks for small chunks, a strict TTFT for prompts first; equal ones,\n" ..
          "--patient 0, make edf fcfs); what is predicted of lengths, for sjf; bursts, which a Poisson process has few of; and a rate\n" ..
          "that 1 in 10 may miss is not one that 1 in 100 may. The bracket is as narrow as --precision, which no interval holds.")
    if found.rates then
      print(draw(o.svg, ("Requests within %g s and %g s a token"):format(o.ttft, o.tpot), found.rates, WAYS)
        and ("The curves are in %s."):format(o.svg) or "No curves: gnuplot is not here; install it (apt install gnuplot-nox).")
    end
  end,
}

-- How many replicas does a trace need to be served within its targets?
-- SPDX-License-Identifier: MIT
--
-- A trace is replayed, so many times as fast (--speed), on n replicas behind a router. Looked for is the
-- least n at which the p99 of the time to the first token is at most --ttft and that of the time of a
-- token after it at most --tpot, by bisection; n − 1 fails, n holds, and both are shown.
--
-- Then what the answer hangs on. The router: `round_robin` knows nothing of load, `p2c` looks at two
-- replicas, `least_loaded` at all. The arrivals: the same rows in the same order, lengths and all, at
-- the times of a Poisson process of the same rate. Real traffic comes in waves (its counts have an index of
-- dispersion far above 1, which is a Poisson process's), and a fleet that was sized for a Poisson process
-- is too small for it. Seeds draw for p2c, and the times of the Poisson process; the trace is one. Where
-- draws differ the answer is the number that holds for all of them.
--
--   lathe run experiments/capacity.lua
--   lathe run experiments/capacity.lua -- --trace azure_llm_2023_conv.csv --ttft 2
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local ROUTERS <const> = { "p2c", "least_loaded", "round_robin" }
local MOST <const> = 256 -- replicas that are tried

-- ── arrivals ──────────────────────────────────────────────────────────────────────────

-- Variance over mean of the number of arrivals in windows of so many seconds: 1 is Poisson.
local function dispersion(requests, window)
  local counts = {}
  for i = 1, requests[#requests].at // window do counts[i] = 0 end
  for _, r in ipairs(requests) do
    local i = math.floor(r.at / window) + 1
    if counts[i] then counts[i] = counts[i] + 1 end -- the last window isn't whole
  end
  return #counts > 1 and stats.sd(counts) ^ 2 / stats.mean(counts) or 0 / 0
end

-- The same rows at the times of a Poisson process, as a trace of its own; → its file.
local function poisson_file(requests, seed)
  local span = requests[#requests].at - requests[1].at
  local times = workload.poisson { rate = (#requests - 1) / span, requests = #requests, seed = seed, prompt = 1, output = 1 }.requests
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write "arrived_at,num_prefill_tokens,num_decode_tokens\n"
  for i, r in ipairs(requests) do file:write(("%.9f,%d,%d\n"):format(times[i].at, r.prompt_tokens, r.output_tokens)) end
  return path
end

-- ── how many? ─────────────────────────────────────────────────────────────────────────

local function measure(o, s, file, router, replicas, seed)
  local load = workload.replay { file = file, speed = o.speed, seed = seed, each = { slo = { ttft = o.ttft, tpot = o.tpot } } }
  local r <close> = lathe.fleet { replicas = replicas, router = router, model = s.model, clock = "virtual", trace = false, seed = seed,
    batching = { "chunked", budget = o.budget }, workload = load,
    engine = { batch_tokens = 4096, batch_requests = o.places, max_requests = 4096, context_tokens = 32768, kv_memory_mb = 60000 } }
  s.runs = s.runs + 1
  local summary = r.summary
  local found = { replicas = replicas, ttft = summary.ttft.p99, tpot = summary.tpot.p99, busy = 100 * summary.busy,
                  met = 100 * summary.met_slo / (summary.with_slo + summary.failed) }
  found.holds = found.ttft <= o.ttft and found.tpot <= o.tpot and summary.failed == 0
  return found
end

-- The least number that holds; `guess` is where it is looked for first.
local function least(holds, guess)
  local low, high = guess - 1, guess -- low fails, high holds
  while not holds(high) do
    low, high = high, high * 2
    if high > MOST then error(("even %d replicas miss these targets: loosen --ttft or --tpot, or lower --speed"):format(MOST), 0) end
  end
  if low == guess - 1 then
    low = math.max(low, 0)
    local step = 1
    while low > 0 and holds(low) do low, high, step = math.max(low - step, 0), low, 2 * step end
  end
  while high - low > 1 do
    local middle = (low + high) // 2
    if holds(middle) then high = middle else low = middle end
  end
  return high
end

local function needed(o, s, router, files)
  local list = {}
  for seed = 1, o.seeds do
    list[seed] = least(function(n) return measure(o, s, files[seed] or files[1], router, n, seed).holds end,
                       list[seed - 1] or s.guess)
    s.guess = list[seed]
  end
  return list
end

local function shown(values)
  local ci = stats.mean_ci(values)
  return ("%.1f ± %.1f"):format(ci.value, ci.half)
end

-- What holds for every seed: the answer is a whole number, and on the safe side.
local function answer(values) return math.tointeger(stats.max(values)) end

return {
  options = {
    profile = { default = "illustrative-7b", help = "the machine of each replica, see lathe.profile" },
    trace   = { default = "data/sample_trace.csv", help = "the trace" },
    speed   = { default = 10.0, help = "how many times as fast as it was it is replayed", min = 0.001 },
    ttft    = { default = 1.0, help = "the target of the first token's p99", unit = "s", min = 0.001 },
    tpot    = { default = 0.06, help = "the target of the p99 of a token after it, a request's mean", unit = "s", min = 0.0001 },
    places  = { default = 64, help = "most requests in a step of one replica", min = 1, max = 1024 },
    budget  = { default = 512, help = "tokens of a step", unit = "tokens", min = 16 },
    seeds   = { default = 5, help = "seeds of routers and of the Poisson process", min = 2 },
  },

  prepare = function(o)
    local requests = workload.replay { file = o.trace, speed = o.speed }.requests
    local s = { model = lathe.model { "sim", profile = lathe.profile(o.profile), kv_bytes_per_token = 524288 },
                requests = requests, poisson = {}, runs = 0, guess = 4 }
    local own = workload.replay { file = o.trace }.requests -- by its own time: --speed is applied when it is replayed
    for seed = 1, o.seeds do s.poisson[seed] = poisson_file(own, seed) end
    return s
  end,

  run = function(o, s)
    local found = { routers = {} }
    for _, router in ipairs(ROUTERS) do
      local of = { router = router, trace = needed(o, s, router, { o.trace }), poisson = needed(o, s, router, s.poisson) }
      table.insert(found.routers, of)
      found[router] = of
    end
    found.replicas, found.neighbours = answer(found.p2c.trace), {}
    for n = math.max(found.replicas - 1, 1), found.replicas + 1 do
      local all = { replicas = n }
      for seed = 1, o.seeds do
        for name, value in pairs(measure(o, s, o.trace, "p2c", n, seed)) do
          all[name] = name == "replicas" and n or type(value) == "number" and (all[name] or 0) + value / o.seeds or all[name]
        end
      end
      table.insert(found.neighbours, all)
    end
    return found
  end,

  report = function(o, found, s)
    local requests, name = s.requests, o.trace:match "[^/]*$"
    local rate = (#requests - 1) / (requests[#requests].at - requests[1].at)
    print(("\n%s, %g times as fast: %d requests, %.1f a second; targets: p99 of TTFT %g s, of TPOT %g s; %s, %d seeds, %d runs.\n")
      :format(name, o.speed, #requests, rate, o.ttft, o.tpot, o.profile, o.seeds, s.runs))
    print "Behind p2c:\n"
    lathe.print(found.neighbours, { "replicas", { "ttft", "TTFT p99 s", "%.2f" }, { "tpot", "TPOT p99 s", "%.4f" },
                                    { "met", "met both %", "%.2f" }, { "busy", "busy %", "%.0f" } })
    local rows = {}
    for i, of in ipairs(found.routers) do
      local more = {}
      for seed = 1, o.seeds do more[seed] = of.trace[seed] - of.poisson[seed] end
      rows[i] = { router = of.router, trace = shown(of.trace), poisson = shown(of.poisson), more = shown(more) }
      of.more = stats.mean_ci(more)
    end
    print "\nReplicas needed, by router, for the trace and for a Poisson process of the same rate and lengths:\n"
    lathe.print(rows, { "router", { "trace", name }, { "poisson", "Poisson" }, { "more", "more for the trace" } })
    print(("mean ± half of a 95%% interval over %d seeds (Student's t)"):format(o.seeds))

    print "\nWhat was found:"
    print(("%s needs %d replicas behind p2c (every one of %d draws holds); behind least_loaded %d, in turn %d.")
      :format(name, found.replicas, o.seeds, answer(found.least_loaded.trace), answer(found.round_robin.trace)))
    local more, window = found.p2c.more, 60 / o.speed
    print(("A Poisson process of the same rate needs %.1f fewer (95%% interval %.1f to %.1f): a fleet sized for it is too small by so\n" ..
           "many. In windows of %g s (a minute by the trace's own time) the counts of arrivals have an index of dispersion of %.1f.")
      :format(more.value, more.low, more.high, window, dispersion(requests, window)))
    print("What would change this: the targets, the TTFT's above all, which bursts cost most; the machine (--profile); how fast the\n" ..
          "trace is replayed, since that shortens its waves, too; longer traces, with nights and days in them. No replica fails here,\n" ..
          "and all are alike. The intervals are of draws, not of traces: this is one.")
  end,

  cleanup = function(_, s)
    for _, path in ipairs(s and s.poisson or {}) do os.remove(path) end
  end,
}

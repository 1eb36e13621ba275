-- When does it pay to prefill and to decode on replicas of their own?
-- SPDX-License-Identifier: MIT
--
-- In virtual time, the same number of replicas either all do both (chunked prefill with three budgets;
-- prompts before decodes) or are parted: some prefill, the others decode, and keys and
-- values move between them (lathe.run { disaggregate = … }, core/simulate_split.h). Prompts and
-- outputs have the lengths of a trace's rows, arrivals are Poisson at shares of what the replicas can
-- do, which is measured first. Seeds are paired.
--
-- Attainment: the share of requests whose TTFT and TPOT are both within their targets. Goodput, as
-- DistServe has it: the largest rate at which at least 90% are (between two rates that were tried, on
-- the line between them; at most the highest). It is found for a tight and a loose target of TPOT, since a decode that
-- shares its step with a chunk of a prompt waits for both, and that is what parting avoids. What it
-- costs: replicas of one kind stand idle while the others have too much to do.
--
--   lathe run experiments/disaggregation.lua
--   lathe run experiments/disaggregation.lua -- --tpot 30 --prefill 3,4,5 --transfers 0,100,5000
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local LOADS <const>, WANTED <const>, LEVEL <const> = { 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.15 }, 0.9, 0.95
local CAPACITY_REQUESTS <const>, WARMUP <const> = 1000, 0.1

local function numbers_of(option, text, least)
  local list = {}
  for word in text:gmatch "[^,]+" do
    local n = tonumber(word)
    if not n or n < least or n == math.huge then
      error(("--%s: \"%s\" is no number from %g; write such as 20,60"):format(option, word, least), 0)
    end
    list[#list + 1] = math.tointeger(n) or n
  end
  return list
end

local function systems_of(o)
  local list = {
    { name = "chunked 512", batching = { "chunked", budget = 512 } }, { name = "chunked 256", batching = { "chunked", budget = 256 } },
    { name = "chunked 128", batching = { "chunked", budget = 128 } }, { name = "prompts first", batching = "prefill_first" },
  }
  for _, k in ipairs(numbers_of("prefill", o.prefill, 1)) do
    if math.type(k) ~= "integer" or k >= o.replicas then
      error(("--prefill: %g of %d replicas can't prefill while others decode"):format(k, o.replicas), 0)
    end
    list[#list + 1] = { name = ("%d prefill, %d decode"):format(k, o.replicas - k), batching = "continuous", prefill = k }
  end
  return list
end

local function lengths_of(path)
  local trace, prompts, outputs = workload.replay { file = path }, {}, {}
  for i, r in ipairs(trace.requests) do prompts[i], outputs[i] = r.prompt_tokens, r.output_tokens end
  return workload.empirical(prompts), workload.empirical(outputs)
end

local function description(o, s, system, fields)
  local d = { model = s.model, clock = "virtual", scheduler = "fcfs", batching = system.batching, trace = false,
              router = { "least_loaded", load = "tokens" },
              engine = { batch_tokens = 2048, batch_requests = o.places, context_tokens = 16384 } }
  for k, v in pairs(fields) do d[k] = v end
  return d
end

-- Requests a second of one replica that is never out of work.
local function capacity(o, s)
  local all = workload.burst { size = CAPACITY_REQUESTS, every = 0, requests = CAPACITY_REQUESTS, seed = o.seed, prompt = s.prompt,
                               output = s.output }
  return lathe.run(description(o, s, s.systems[1], { workload = all })).summary.requests_per_s
end

local function attainment(o, s, system, wish)
  local load = workload.poisson { rate = wish.rate, requests = o.requests, seed = o.seed + wish.k, prompt = s.prompt, output = s.output,
                                  each = { slo = { ttft = o.ttft / 1e3, tpot = wish.tpot / 1e3 } } }
  local apart = system.prefill and { prefill = system.prefill, transfer_us = o.transfer_us, transfer_us_per_token = wish.transfer }
  local r = lathe.fleet(description(o, s, system, { replicas = o.replicas, disaggregate = apart, workload = load,
    warmup = math.floor(WARMUP * o.requests), seed = o.seed + wish.k }))
  return r.summary.met_slo / r.summary.with_slo
end

-- Where the line through (rate, attainment) crosses WANTED; 0: not even at the lowest.
local function goodput_of(rates, attained)
  if attained[1] < WANTED then return 0.0 end
  for i = 2, #rates do
    if attained[i] < WANTED then
      return rates[i - 1] + (rates[i] - rates[i - 1]) * (attained[i - 1] - WANTED) / (attained[i - 1] - attained[i])
    end
  end
  return rates[#rates]
end

-- → attained[load] = mean over seeds, goodput[seed]
local function measure(o, s, system, tpot, transfer)
  local found = { name = system.name, system = system, attained = {}, goodput = {} }
  for i = 1, #LOADS do found.attained[i] = 0 end
  for k = 1, o.seeds do
    local attained = {}
    for i, rate in ipairs(s.rates) do
      attained[i] = attainment(o, s, system, { rate = rate, k = k, tpot = tpot, transfer = transfer })
      found.attained[i] = found.attained[i] + attained[i] / o.seeds
    end
    found.goodput[k] = goodput_of(s.rates, attained)
  end
  return found
end

-- Of those that are parted (or are not), the one with the largest mean goodput, and how many there were.
local function best_of(found, apart)
  local best, count = nil, 0
  for _, f in ipairs(found) do
    if (f.system.prefill ~= nil) == apart then
      count = count + 1
      if not best or stats.mean(f.goodput) > stats.mean(best.goodput) then best = f end
    end
  end
  return best, count
end

local function print_attainment(s, found)
  local rows, columns = {}, { "replicas" }
  for i, rate in ipairs(s.rates) do columns[i + 1] = { "a" .. i, ("at %.0f/s"):format(rate), "%.0f" } end
  columns[#columns + 1] = { "goodput", "goodput/s" }
  for j, f in ipairs(found) do
    local c = stats.mean_ci(f.goodput)
    local most = stats.min(f.goodput) == s.rates[#s.rates]
    rows[j] = { replicas = f.name, goodput = most and ("%.1f or more"):format(c.value) or ("%.1f ± %.1f"):format(c.value, c.half) }
    for i = 1, #s.rates do rows[j]["a" .. i] = 100 * f.attained[i] end
  end
  lathe.print(rows, columns)
end

-- The best of each kind was picked among several: the interval is as wide as that asks for.
local function answer(tpot, found)
  local apart, of_apart = best_of(found, true)
  local together, of_together = best_of(found, false)
  local d = stats.paired_ci(apart.goodput, together.goodput, { level = stats.bonferroni(LEVEL, of_apart * of_together) })
  local a, t = stats.mean(apart.goodput), stats.mean(together.goodput)
  local ratio = t > 0 and ("%.2f ×"):format(a / t) or "more than"
  local verdict = d.low > 0 and "it pays" or d.high < 0 and "it does not pay" or "neither is surely better"
  print(("With TPOT within %g ms %s: %s serves %.1f/s, %s what %s does (%.1f/s;\n  difference %+.1f/s, 95%% interval %+.1f to %+.1f).")
    :format(tpot, verdict, apart.name, a, ratio, together.name, t, d.value, d.low, d.high))
end

return {
  options = {
    replicas  = { default = 8, help = "how many in all", min = 2, max = 1024 },
    prefill   = { default = "4,5,6", help = "how many of them prefill, when parted" },
    ttft      = { default = 1500.0, help = "target of the first token", unit = "ms", min = 0.001 },
    tpot      = { default = "20,60", help = "targets of a further token, a table each", unit = "ms" },
    transfer  = { default = 10.0, help = "moving keys and values of a prompt token (128 KiB at 100 Gbit/s)", unit = "us", min = 0 },
    transfer_us = { default = 500.0, help = "moving anything at all", unit = "us", min = 0 },
    transfers = { default = "0,100,2000", help = "other costs of it, for the best parted ones and the first TPOT target", unit = "us" },
    trace     = { default = "data/sample_trace.csv", help = "whose lengths requests have" },
    requests  = { default = 4000, help = "how many a run; the first tenth isn't counted", min = 50 },
    seeds     = { default = 5, help = "of arrivals and lengths, paired", min = 2 },
    places    = { default = 64, help = "requests in a step at most", min = 1 },
    profile   = { default = "", help = "a cost profile of calibrate.lua for the model; else the default costs" },
    seed      = { default = 1, help = "what the seeds begin after", min = 0 },
  },

  prepare = function(o)
    local s = { systems = systems_of(o), tpots = numbers_of("tpot", o.tpot, 0.001), transfers = numbers_of("transfers", o.transfers, 0),
                rates = {}, model = lathe.model { "sim", profile = o.profile ~= "" and o.profile or nil } }
    s.prompt, s.output = lengths_of(o.trace)
    s.capacity = capacity(o, s)
    for i, load in ipairs(LOADS) do s.rates[i] = load * s.capacity * o.replicas end
    return s
  end,

  run = function(o, s)
    local found = { transfers = {} }
    for i, tpot in ipairs(s.tpots) do
      found[i] = {}
      for j, system in ipairs(s.systems) do found[i][j] = measure(o, s, system, tpot, o.transfer) end
    end
    local best = best_of(found[1], true)
    for i, transfer in ipairs(s.transfers) do found.transfers[i] = measure(o, s, best.system, s.tpots[1], transfer) end
    return found
  end,

  report = function(o, found, s)
    print(("\n%d replicas, each of which can do %.2f requests/s of these; TTFT within %g ms, %d requests a run, %d seeds.")
      :format(o.replicas, s.capacity, o.ttft, o.requests, o.seeds))
    for i, tpot in ipairs(s.tpots) do
      print(("\nRequests within both targets, %%, TPOT within %g ms:\n"):format(tpot))
      print_attainment(s, found[i])
    end
    local best, rows = best_of(found[1], true), {}
    for i, transfer in ipairs(s.transfers) do
      local d = stats.paired_ci(found.transfers[i].goodput, best.goodput)
      rows[i] = { us = transfer, goodput = stats.mean(found.transfers[i].goodput),
                  difference = ("%+.1f (%+.1f to %+.1f)"):format(d.value, d.low, d.high) }
    end
    print(("\n%s, TPOT within %g ms, other costs of moving:\n"):format(best.name, s.tpots[1]))
    lathe.print(rows, { { "us", "us a token", "%g" }, { "goodput", "goodput/s", "%.1f" },
                        { "difference", ("against %g us, 95%% interval"):format(o.transfer) } })
    print "\nWhat was found:"
    for i, tpot in ipairs(s.tpots) do answer(tpot, found[i]) end
    print("What would change this: the TPOT target (nothing else as much); longer prompts or outputs, which want other numbers of each\n" ..
          "kind, and traffic that changes between them; a smaller budget of chunks, which buys TPOT with TTFT; a link that transfers\n" ..
          "share, which is not simulated; a first token that waits for the transfer too; few replicas, which can't be parted finely.")
  end,
}

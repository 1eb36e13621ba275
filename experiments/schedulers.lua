-- Which scheduler keeps first tokens quick, and at whose expense?
-- SPDX-License-Identifier: MIT
--
-- Short chats and long texts to summarise arrive in calm and busy times (Markov-modulated Poisson) at two
-- loads, shares of what the machine ends when it is kept busy. Every scheduler meets the same arrivals,
-- lengths and predictions (common random numbers), the latter as wrong as --noise says. Chats have higher
-- priority and closer targets (edf), and each kind is a tenant (vtc). `prefix` is left out: nothing here is
-- shared that it could prefer.
--
-- Slowdown is a request's time over what it takes alone, which is measured: the same requests, one after
-- the other. Who pays is seen in the slowdown of the longest tenth, and in Jain's index of the requests'
-- speeds (1 / slowdown): 1 if all are slowed down alike.
--
--   lathe run experiments/schedulers.lua
--   lathe run experiments/schedulers.lua -- --schedulers fcfs,srpt,mlfq --loads 0.8 --seeds 20
--   lathe run experiments/schedulers.lua -- --clock real --model smollm2-135m --requests 24 --seeds 3 --loads 0.8 --scale 0.25
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local BASE <const> = "fcfs" -- what the others are held against

local function words_of(text)
  local list = {}
  for word in text:gmatch "[^,%s]+" do list[#list + 1] = word end
  return list
end

local function loads_of(text)
  local list = words_of(text)
  for i, word in ipairs(list) do
    list[i] = tonumber(word)
    if not list[i] or list[i] <= 0 or list[i] > 2 then error(("--loads: \"%s\" is no load; write such as 0.6,0.9"):format(word), 0) end
  end
  if #list == 0 then error("--loads: name at least one, such as 0.6,0.9", 0) end
  return list
end

-- The requests; `t` says when they come.
local function mix(o, make, seed, t)
  local function length(median, sigma, max)
    return workload.lognormal { median = math.max(2, median * o.scale), sigma = sigma, min = 2, max = math.max(8, max * o.scale // 1) }
  end
  t.requests, t.seed, t.predicted = o.requests, seed, { noise = o.noise }
  t.classes = {
    { name = "chat", tenant = "chat", share = 4, prompt = length(100, 0.8, 1000), output = length(60, 0.8, 600), priority = 1,
      slo = { ttft = 0.5, tpot = 0.05 } },
    { name = "summarise", tenant = "summarise", share = 1, prompt = length(1200, 0.5, 4000), output = length(80, 0.5, 400),
      slo = { ttft = 5, tpot = 0.2 } },
  }
  return make(t)
end

local function described(o, s, scheduler, load)
  return { model = s.model, clock = o.clock, scheduler = scheduler, batching = "continuous", workload = load,
           trace = { rows = "requests" },
           engine = { batch_requests = o.places, batch_tokens = o.budget, max_requests = math.max(o.requests, o.places),
                      context_tokens = math.max(32, 4400 * o.scale // 1),
                      kv_memory_mb = o.clock == "virtual" and 65536 or nil } } -- memory is preemption.lua's subject
end

-- A name that is none, or that can't serve this, says so before anything is measured.
local function try(o, s, name)
  local description = described(o, s, name, mix(o, workload.burst, 1, { size = 2, every = 0 }))
  description.workload.requests = { table.unpack(description.workload.requests, 1, 2) }
  description.workload.draw, description.trace = nil, false
  lathe.run(description):close()
end

local function capacity_of(o, s)
  local description = described(o, s, BASE, mix(o, workload.burst, 1, { size = o.requests, every = 0 }))
  description.label = "capacity"
  local r <close> = lathe.run(description)
  return o.requests / (r:query "select max(finish_ns) / 1e9 as s from request where run_id = :run")[1].s
end

-- One run's figures; request n of it is request n of the run in which it was alone.
local FIGURES <const> = [[
  with one as (
    select (r.first_token_ns - r.planned_ns) / 1e6 as ttft, (r.finish_ns - r.planned_ns) / 1e6 as e2e, r.class,
           1.0 * (a.finish_ns - a.planned_ns) / (r.finish_ns - r.planned_ns) as speed,
           ntile(10) over (order by a.finish_ns - a.planned_ns) as tenth
    from request r join request a on a.run_id = :alone and a.id = r.id where r.run_id = :point and r.id > :warmup)
  select percentile(ttft, 50) as ttft_p50, percentile(ttft, 99) as ttft_p99, avg(e2e) as response,
         avg(case when tenth = 10 then 1 / speed end) as longest, avg(case when class = 'summarise' then ttft end) as summarise,
         sum(speed) * sum(speed) / (count(*) * sum(speed * speed)) as jain from one]]

-- Means of `name` over the seeds, and of its ratio to the baseline's at the same seeds (logarithms, so that
-- twice and half weigh the same): { mean, ratio, low, high }.
local function against(found, base, name)
  local own, logs = {}, {}
  for seed, figures in ipairs(found) do
    own[seed] = figures[name]
    logs[seed] = math.log(figures[name] / base[seed][name])
  end
  local ci = stats.mean_ci(logs)
  return { mean = stats.mean(own), ratio = math.exp(ci.value), low = math.exp(ci.low), high = math.exp(ci.high) }
end

return {
  options = {
    model      = { default = "sim", help = "the model: sim, or a short name or GGUF file with --clock real" },
    clock      = { default = "virtual", help = "which clock the runs go by", choices = { "virtual", "real" } },
    schedulers = { default = "fcfs,sjf,srpt,mlfq,hrrn,edf,priority,vtc", help = "which; fcfs is always among them" },
    loads      = { default = "0.6,0.9", help = "shares of what the machine can do" },
    noise      = { default = 0.5, help = "how wrong predicted lengths are: sigma of the error's logarithm", min = 0, max = 20 },
    requests   = { default = 2000, help = "arrivals a run, a tenth of them warm-up", min = 20 },
    seeds      = { default = 10, help = "runs of each", min = 3 },
    places     = { default = 16, help = "requests in a step at most", min = 1, max = 1024 },
    budget     = { default = 512, help = "tokens in a step at most", unit = "tokens", min = 16 },
    scale      = { default = 1.0, help = "all lengths times this, for a small model", min = 0.01, max = 4 },
  },

  prepare = function(o)
    local s = { loads = loads_of(o.loads), names = { BASE },
                model = o.model == "sim" and lathe.model "sim" or lathe.model { "llama", path = o.model } }
    for _, name in ipairs(words_of(o.schedulers)) do
      if name ~= BASE then
        try(o, s, name)
        s.names[#s.names + 1] = name
      end
    end
    s.capacity = capacity_of(o, s)
    return s
  end,

  run = function(o, s)
    local jobs = o.clock == "virtual" and 2 or 1
    local alone = lathe.sweep { name = "schedulers, alone", jobs = jobs, seeds = o.seeds, grid = { alone = { true } },
      run = function(p) return described(o, s, BASE, mix(o, workload.closed, p.seed, { concurrency = 1, think = 0 })) end }
    local sweep = lathe.sweep { name = "schedulers", jobs = jobs, seeds = o.seeds, grid = { scheduler = s.names, load = s.loads },
      run = function(p)
        local calm = 0.6 * p.load * s.capacity -- two thirds of the time; else three times as much
        return described(o, s, p.scheduler, mix(o, workload.mmpp, p.seed, { rates = { calm, 3 * calm }, stays = { 20, 10 } }))
      end }
    local alone_of, found = {}, {}
    for _, row in ipairs(alone:runs()) do alone_of[row.seed] = row.run end
    for _, row in ipairs(sweep:runs()) do
      local of = found[row.point.load] or {}
      found[row.point.load], of[row.point.scheduler] = of, of[row.point.scheduler] or {}
      of[row.point.scheduler][row.seed] =
        sweep:query(FIGURES, { point = row.run, alone = alone_of[row.seed], warmup = o.requests // 10 })[1]
    end
    return found
  end,

  report = function(o, found, s)
    local rows, at = {}, {}
    for _, load in ipairs(s.loads) do
      at[load] = {}
      for _, name in ipairs(s.names) do
        local of = {}
        for _, figure in ipairs { "ttft_p50", "ttft_p99", "response", "longest", "summarise", "jain" } do
          of[figure] = against(found[load][name], found[load][BASE], figure)
        end
        at[load][name] = of
        rows[#rows + 1] = { load = load, name = name, p50 = of.ttft_p50.mean, p99 = of.ttft_p99.mean,
          ratio = name == BASE and "" or ("%.2f (%.2f to %.2f)"):format(of.ttft_p50.ratio, of.ttft_p50.low, of.ttft_p50.high),
          response = of.response.mean / 1e3, longest = of.longest.mean, summarise = of.summarise.mean, jain = of.jain.mean }
      end
    end
    print(("\n%d requests a run, %d places, %.2f requests/s at most; predictions off by sigma %g; mean of %d seeds:\n")
      :format(o.requests, o.places, s.capacity, o.noise, o.seeds))
    lathe.print(rows, { { "load", "load", "%g" }, { "name", "scheduler" }, { "p50", "TTFT p50, ms", "%.0f" },
      { "ratio", "over fcfs's (95%)" }, { "p99", "p99", "%.0f" }, { "response", "response, s", "%.2f" },
      { "longest", "slowdown, longest", "%.2f" }, { "summarise", "summarise's TTFT", "%.0f" }, { "jain", "Jain's index", "%.3f" } })

    print "\nWhat was found:"
    local function told(of) return ("%.3g × fcfs's (95%% interval %.3g to %.3g)"):format(of.ratio, of.low, of.high) end
    local function least(load, figure)
      local best = BASE
      for _, name in ipairs(s.names) do
        if at[load][name][figure].ratio < at[load][best][figure].ratio then best = name end
      end
      return best
    end
    for _, load in ipairs(s.loads) do
      for _, of in ipairs { { "ttft_p50", "first tokens come soonest (median)" }, { "response", "the mean response is least" } } do
        local best = least(load, of[1])
        local figures = at[load][best]
        if figures[of[1]].high < 1 then
          print(("At load %g %s with %s.\n  Its median first token takes %s, the 99th percentile %s,\n" ..
                 "  a response %s. The longest tenth's slowdown is\n  %s.")
            :format(load, of[2], best, told(figures.ttft_p50), told(figures.ttft_p99), told(figures.response), told(figures.longest)))
        else
          print(("At load %g none is told apart from fcfs where %s: with %s it is %s."):format(load, of[2], best, told(figures[of[1]])))
        end
      end
    end
    print "What would change this: wrong predictions (--noise; mlfq needs none), a machine that is never full (nobody waits, all are\n\z
           alike: try --loads 0.3), places enough for all, and a batching that gives those who run their tokens first (chunked), under\n\z
           which nobody can be overtaken. Intervals are each for itself; the best of several is chosen after looking."
  end,
}

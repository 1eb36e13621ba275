-- Does it matter which way a length predictor errs?
-- SPDX-License-Identifier: MIT
--
-- The setting of length_prediction.lua: one answer at a time, a token a step, lengths of a trace,
-- Poisson arrivals. The longest fifth of the answers are "long", all others "short", and a predictor
-- errs by a factor and to one side: for all, for one of the two, or for some of one (a tenth). `both ways`
-- has no side: a log-normal error whose logarithm is as large on average. The arrivals are the same everywhere.
--
-- What is expected (Dell'Amico, Carra and Michiardi, "PSBS: Practical Size-Based Scheduling", 2016): a long
-- job taken for a short one is the dear mistake. It comes to its turn early and, once it has outrun its
-- prediction, stays in front of everyone; a short one taken for a long one delays itself alone. But it may
-- do so for very long, and where a whole kind is taken for the other, it is the order between the two that is
-- lost, whichever erred. Which is dearer hangs on how wild the lengths are: with those of Azure's code trace
-- (--long 0.1 --factor 10) a missed long one cost five times as much, with tamer ones it can be the reverse.
--
--   lathe run experiments/predictor_bias.lua
--   lathe run experiments/predictor_bias.lua -- --factor 10 --load 0.8
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local WAYS <const> = {
  { name = "srpt",   shown = "SRPT",           scheduler = { "srpt", key = "output" } },
  { name = "double", shown = "SRPT, doubling", scheduler = { "srpt", key = "output", outrun = "double" } },
  { name = "sjf",    shown = "SJF",            scheduler = { "sjf", key = "output" } },
}
-- The sign of the logarithm of short and long ones' error; `some` of them have it, or all.
local ERRORS <const> = {
  { name = "exact" },
  { name = "both ways", noisy = true },
  { name = "all too short", short = -1, long = -1 },
  { name = "all too long", short = 1, long = 1 },
  { name = "short ones too long", short = 1 },
  { name = "long ones too short", long = -1 },
  { name = "some short ones too long", short = 1, some = true },
  { name = "some long ones too short", long = -1, some = true },
}

local function answers_of(path, long_share)
  local lengths, short, long, sum = {}, {}, {}, 0
  for i, r in ipairs(workload.replay { file = path }.requests) do
    lengths[i] = r.output_tokens
    sum = sum + r.output_tokens
  end
  table.sort(lengths)
  local border = lengths[math.max(1, math.floor((1 - long_share) * #lengths))]
  for _, n in ipairs(lengths) do
    local of = n > border and long or short
    of[#of + 1] = n
  end
  if #long == 0 then error(("--trace: no answer of %s is longer than %d tokens"):format(path, border), 0) end
  return { short = short, long = long, border = border, mean = sum / #lengths }
end

local function predicted(err, kind, factor)
  if err.noisy then return { noise = math.log(factor) * math.sqrt(math.pi / 2) } end -- mean of |N(0, s²)|: s √(2 / π)
  return { bias = (err[kind] or 0) * math.log(factor) }
end

-- A kind of answers as one class, or as two: those predicted right, and those not.
local function add_classes(classes, o, err, kind, lengths, count)
  local wrong = err.some and err[kind] and o.some or 1
  if wrong < 1 then classes[#classes + 1] = { name = kind, share = count * (1 - wrong), output = lengths, predicted = true } end
  classes[#classes + 1] = { name = kind, share = count * wrong, output = lengths, predicted = predicted(err, kind, o.factor) }
end

local function response_of(class, warmup)
  return ("select avg(finish_ns - planned_ns) / 1e9 from request where run_id = :run and id > %d%s")
    :format(warmup, class and (" and class = '%s'"):format(class) or "")
end

return {
  options = {
    trace    = { default = "data/sample_trace.csv", help = "whose answers' lengths: a CSV with num_decode_tokens" },
    load     = { default = 0.9, help = "share of the time that the server is busy", min = 0.05, max = 0.99 },
    factor   = { default = 4.0, help = "how far predictions are off, as a factor", min = 1.01, max = 1000 },
    long     = { default = 0.2, help = "share of the answers that are called long", min = 0.001, max = 0.9 },
    some     = { default = 0.1, help = "share of a kind that errs where only some do", min = 0.001, max = 0.999 },
    requests = { default = 3000, help = "arrivals a run, a tenth of them warm-up", min = 50 },
    seeds    = { default = 10, help = "runs of each", min = 3 },
    step_us  = { default = 10000, help = "a step: a token of the one answer", unit = "us", min = 1 },
  },

  prepare = function(o)
    local cases, list = { fcfs = { scheduler = "fcfs", err = ERRORS[1] } }, { "fcfs" }
    for _, err in ipairs(ERRORS) do
      for _, way in ipairs(WAYS) do
        local case = way.name .. ", " .. err.name
        cases[case], list[#list + 1] = { scheduler = way.scheduler, err = err }, case
      end
    end
    return { cases = cases, list = list, answers = answers_of(o.trace, o.long),
             model = lathe.model { "sim", step_us = o.step_us, prefill_us = 0, prefill_context_ns = 0, decode_us = 0,
                                   decode_context_ns = 0 } }
  end,

  run = function(o, s)
    local a, warmup = s.answers, o.requests // 10
    local short, long = workload.empirical(a.short), workload.empirical(a.long)
    local sweep = lathe.sweep {
      name = "predictor_bias", jobs = 2, seeds = o.seeds, grid = { case = s.list },
      metrics = { all = response_of(nil, warmup), short = response_of("short", warmup), long = response_of("long", warmup) },
      run = function(p)
        local case, classes = s.cases[p.case], {}
        add_classes(classes, o, case.err, "short", short, #a.short)
        add_classes(classes, o, case.err, "long", long, #a.long)
        return { model = s.model, clock = "virtual", scheduler = case.scheduler, batching = "continuous", label = p.case,
                 trace = { rows = "requests" },
                 engine = { batch_requests = 1, max_requests = o.requests, context_tokens = 32768, kv_memory_mb = 1e6 },
                 workload = workload.poisson { rate = o.load / (a.mean * o.step_us / 1e6), requests = o.requests, seed = p.seed,
                   prompt = 1, classes = classes } }
      end }
    local found = {}
    for _, row in ipairs(sweep:runs()) do
      found[row.point.case] = found[row.point.case] or {}
      found[row.point.case][row.seed] = row.metrics
    end
    return found
  end,

  report = function(o, found, s)
    local seeds = {}
    for i = 1, o.seeds do seeds[i] = i end
    local function interval(statistic) return stats.bootstrap(seeds, { statistic = statistic, resamples = 1000, seed = 1 }) end
    local function sum(case, whose, sample)
      local total = 0
      for _, seed in ipairs(sample) do total = total + found[case][seed][whose] end
      return total
    end
    -- mean response of `whose` under a case, over that of another case
    local function ratio(case, other, whose)
      return interval(function(sample) return sum(case, whose, sample) / sum(other, whose, sample) end)
    end
    local function said(r) return ("%.2f (%.2f to %.2f)"):format(r.value, r.low, r.high) end

    local rows = {}
    for i, err in ipairs(ERRORS) do
      rows[i] = { err = err.name }
      for _, way in ipairs(WAYS) do rows[i][way.name] = said(ratio(way.name .. ", " .. err.name, "fcfs", "all")) end
      for _, whose in ipairs { "short", "long" } do
        rows[i][whose] = ("%.2f"):format(ratio("srpt, " .. err.name, "fcfs", whose).value)
      end
    end
    print(("\nAnswers of %s, long ones above %d tokens; predictions off by a factor of %g; load %g; FCFS's mean response %.2f s.\n" ..
           "Mean response over FCFS's, 95%% intervals over %d seeds of %d requests; under SRPT also of short and of long ones:\n")
      :format(o.trace, s.answers.border, o.factor, o.load, sum("fcfs", "all", seeds) / o.seeds, o.seeds, o.requests))
    local columns = { { "err", "predictions" } }
    for _, way in ipairs(WAYS) do columns[#columns + 1] = { way.name, way.shown } end
    lathe.print(rows, table.move({ { "short", "short ones" }, { "long", "long ones" } }, 1, 2, #columns + 1, columns))

    print "\nWhat was found:"
    -- Seconds that one wrong prediction costs all requests together, over the seeds in `sample`.
    local function cost(kind, err, sample)
      local wrong = o.some * #s.answers[kind] / (#s.answers.short + #s.answers.long)
      return (sum("srpt, " .. err, "all", sample) - sum("srpt, exact", "all", sample)) / #sample / wrong
    end
    local function of_long(sample) return cost("long", "some long ones too short", sample) end
    local function of_short(sample) return cost("short", "some short ones too long", sample) end
    local dear, cheap = interval(of_long), interval(of_short)
    local more = interval(function(sample) return of_long(sample) - of_short(sample) end)
    print(("Single mistakes: %s. Under SRPT a long one taken for a short one costs all requests together %.1f s\n" ..
           "(95%% interval %.1f to %.1f), a short one taken for a long one %.1f s (%.1f to %.1f): %.1f s more (%.1f to %.1f).")
      :format(more.low > 0 and "yes" or more.high < 0 and "yes, the other way round" or "not to be told here",
        dear.value, dear.low, dear.high, cheap.value, cheap.low, cheap.high, more.value, more.low, more.high))
    local function compare(one, other)
      local r = ratio("srpt, " .. one, "srpt, " .. other, "all")
      print(("  %s against %s: %.2f × the mean response (%.2f to %.2f)"):format(one, other, r.value, r.low, r.high))
    end
    print "Of whole kinds, under SRPT:"
    compare("long ones too short", "short ones too long")
    compare("all too short", "all too long")
    local help = ratio("double, some long ones too short", "srpt, some long ones too short", "all")
    print(("Doubling an outrun prediction makes %.2f × (%.2f to %.2f) of SRPT's mean response where some long ones look short.")
      :format(help.value, help.low, help.high))
    print("A factor that all predictions share leaves SJF as it was, since only their order counts; SRPT is not deaf to it: what\n" ..
          "was done is subtracted from what was predicted.\n" ..
          "What would change this: how many are long and how much longer they are (--long, --trace), the load, and how far off\n" ..
          "predictions are (--factor): an error that doesn't reach from one kind to the other changes little.")
  end,
}

-- How good must a length predictor be for SRPT to pay?
-- SPDX-License-Identifier: MIT
--
-- One server that makes one answer at a time, a token a step; prompts are one token, so an answer's
-- length is all the work there is (and what a predictor has to tell). Lengths are drawn from those of
-- a trace, arrivals are Poisson. A predictor says length × exp(N(0, sigma²)): sigma 0 knows, at 1 two
-- thirds of its words are within a factor of e. Each sigma meets three that believe it:
--
--   srpt           least remaining first, preemptive; who outruns its prediction has one token left, always
--   srpt, doubling the same, but then the prediction doubles (outrun = "double")
--   sjf            shortest first, whoever runs goes on to its end
--
-- and two predictors that know less than any noise: the mean for everybody, and nothing. All are held
-- against FCFS, with the same arrivals and lengths (common random numbers, paired by seed): a ratio of
-- mean responses below 1 is a gain. With true lengths, at load 0.9, theory gives 0.49 for the lengths of
-- Azure's 2023 conversation trace and 0.11 for those of its code trace, in the long run.
--
--   lathe run experiments/length_prediction.lua
--   lathe run experiments/length_prediction.lua -- --trace azure_llm_2023_conv.csv --requests 20000
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local WAYS <const> = {
  srpt = { "srpt", key = "output" },
  double = { "srpt", key = "output", outrun = "double" },
  sjf = { "sjf", key = "output" },
}
local NAMES <const> = { "srpt", "double", "sjf" }

local function sigmas_of(text)
  local list = {}
  for word in text:gmatch "[^,]+" do
    local sigma = tonumber(word)
    if not sigma or sigma < 0 or sigma > 20 or sigma <= (list[#list] or -1) then
      error(("--sigmas: \"%s\" is no sigma, or not above the one before; write such as 0,0.5,1"):format(word), 0)
    end
    list[#list + 1] = sigma
  end
  if list[1] ~= 0 or #list < 2 then error("--sigmas: begin with 0 (what true lengths bring), and name more", 0) end
  return list
end

local function answers_of(path)
  local lengths, sum = {}, 0
  for i, r in ipairs(workload.replay { file = path }.requests) do
    lengths[i] = r.output_tokens
    sum = sum + r.output_tokens
  end
  local mean, squares = sum / #lengths, 0
  for _, n in ipairs(lengths) do squares = squares + (n / mean - 1) ^ 2 end
  return { lengths = workload.empirical(lengths), mean = mean, cv = math.sqrt(squares / #lengths), count = #lengths }
end

-- "fcfs", "srpt mean", "sjf 0.5": who ranks, and by what
local function cases_of(sigmas)
  local cases, list = { fcfs = { scheduler = "fcfs" } }, { "fcfs" }
  local predictors = { { "none" }, { "mean", "mean" } }
  for _, sigma in ipairs(sigmas) do predictors[#predictors + 1] = { ("%g"):format(sigma), { noise = sigma } } end
  for _, p in ipairs(predictors) do
    for _, name in ipairs(NAMES) do
      local case = name .. " " .. p[1]
      cases[case], list[#list + 1] = { scheduler = WAYS[name], predicted = p[2] }, case
    end
  end
  return cases, list
end

-- Where a falling gain passes `level`, between the sigmas on either side; the last one if it doesn't.
local function crossing(sigmas, gains, level)
  for i = 2, #sigmas do
    if gains[i] <= level then
      local from, to = gains[i - 1], gains[i]
      return sigmas[i - 1] + (sigmas[i] - sigmas[i - 1]) * (from > to and math.min(1, (from - level) / (from - to)) or 0)
    end
  end
  return sigmas[#sigmas]
end

return {
  options = {
    trace    = { default = "data/sample_trace.csv", help = "whose answers' lengths: a CSV with num_decode_tokens" },
    load     = { default = 0.9, help = "share of the time that the server is busy", min = 0.05, max = 0.99 },
    sigmas   = { default = "0,0.25,0.5,1,1.5,2,3,5", help = "how wrong predictions are: of the error's logarithm" },
    requests = { default = 3000, help = "arrivals a run, a tenth of them warm-up", min = 50 },
    seeds    = { default = 10, help = "runs of each", min = 3 },
    step_us  = { default = 10000, help = "a step: a token of the one answer", unit = "us", min = 1 },
  },

  prepare = function(o)
    local sigmas = sigmas_of(o.sigmas)
    local cases, list = cases_of(sigmas)
    return { sigmas = sigmas, cases = cases, list = list, answers = answers_of(o.trace),
             model = lathe.model { "sim", step_us = o.step_us, prefill_us = 0, prefill_context_ns = 0, decode_us = 0,
                                   decode_context_ns = 0 } }
  end,

  run = function(o, s)
    local rate = o.load / (s.answers.mean * o.step_us / 1e6)
    local sweep = lathe.sweep {
      name = "length_prediction", jobs = 2, seeds = o.seeds, grid = { case = s.list },
      metrics = { response = ("select avg(finish_ns - planned_ns) / 1e9 from request where run_id = :run and id > %d")
                    :format(o.requests // 10) },
      run = function(p)
        local case = s.cases[p.case]
        return { model = s.model, clock = "virtual", scheduler = case.scheduler, batching = "continuous", label = p.case,
                 trace = { rows = "requests" },
                 engine = { batch_requests = 1, max_requests = o.requests, context_tokens = 32768, kv_memory_mb = 1e6 },
                 workload = workload.poisson { rate = rate, requests = o.requests, seed = p.seed, prompt = 1,
                                               output = s.answers.lengths, predicted = case.predicted } }
      end }
    local response = {}
    for _, row in ipairs(sweep:runs()) do
      response[row.point.case] = response[row.point.case] or {}
      response[row.point.case][row.seed] = row.metrics.response
    end
    return response
  end,

  report = function(o, response, s)
    -- Over the seeds in `sample`: mean response of a case over that of FCFS.
    local seeds = {}
    for i = 1, o.seeds do seeds[i] = i end
    local function ratio(case, sample)
      local own, fcfs = 0, 0
      for _, seed in ipairs(sample) do own, fcfs = own + response[case][seed], fcfs + response.fcfs[seed] end
      return own / fcfs
    end
    local function interval(statistic) return stats.bootstrap(seeds, { statistic = statistic, resamples = 1000, seed = 1 }) end

    local rows, of = {}, {}
    local predictors = { "none", "mean" }
    for i, sigma in ipairs(s.sigmas) do predictors[2 + i] = ("%g"):format(sigma) end
    for i, predictor in ipairs(predictors) do
      rows[i] = { predictor = i > 2 and "sigma " .. predictor or predictor }
      for _, name in ipairs(NAMES) do
        local r = interval(function(sample) return ratio(name .. " " .. predictor, sample) end)
        rows[i][name], of[name .. " " .. predictor] = ("%.2f (%.2f to %.2f)"):format(r.value, r.low, r.high), r
      end
    end
    print(("\n%d answers of %s: mean %.0f tokens, coefficient of variation %.2f; load %g; FCFS's mean response %.2f s.\n" ..
           "Mean response over FCFS's, 95%% intervals over %d seeds of %d requests:\n")
      :format(s.answers.count, o.trace, s.answers.mean, s.answers.cv, o.load, stats.mean(response.fcfs), o.seeds, o.requests))
    lathe.print(rows, { "predictor", { "srpt", "SRPT" }, { "double", "SRPT, doubling" }, { "sjf", "SJF" } })

    print "\nWhat was found:"
    local most = s.sigmas[#s.sigmas]
    for _, way in ipairs { { "srpt", "SRPT" }, { "double", "SRPT with doubling" }, { "sjf", "SJF" } } do
      local own = {}
      for i, sigma in ipairs(s.sigmas) do own[i] = ("%s %g"):format(way[1], sigma) end
      local function sigma_at(share)
        return interval(function(sample)
          local gains = {}
          for i, case in ipairs(own) do gains[i] = 1 - ratio(case, sample) end
          return crossing(s.sigmas, gains, share * gains[1])
        end)
      end
      local function said(at)
        if at.low >= most then return ("not before %g"):format(most) end
        local high = at.high >= most and "beyond" or ("%.2f"):format(at.high)
        return ("at sigma %.2f (95%% interval %.2f to %s)"):format(at.value, at.low, high)
      end
      local best = of[way[1] .. " 0"]
      print(("%s with true lengths responds in %.2f of FCFS's mean (95%% interval %.2f to %.2f).\n" ..
             "  Half of that gain is lost %s, all of it %s.")
        :format(way[2], best.value, best.low, best.high, said(sigma_at(0.5)), said(sigma_at(0))))
    end
    print(("The mean for everybody tells nobody apart: SRPT and SJF then serve as they come. Only doubling acts on it, since who\n" ..
           "outlives the mean goes behind; that brings %s of FCFS's."):format(rows[2].double))
    print("What would change this: the load (where nobody waits nothing is gained); the spread of lengths (the wilder they are, the\n" ..
          "more an order gains and the more error it forgives: try the code trace); errors that lean to one side\n" ..
          "(predictor_bias.lua); and batches, in which a long answer blocks nobody until the places are taken.")
  end,
}

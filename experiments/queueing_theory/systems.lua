-- SPDX-License-Identifier: MIT
-- The queues whose behaviour is known, as runs of the engine, and what theory says of each.
--
-- A job is a request with a prompt of random length and one output token: its prefill is one step, 1 / mean
-- seconds a token and nothing else, so service takes 1 s on average. Where jobs are interrupted (SRPT), steps
-- are short. Exponential lengths are rounded to whole tokens, of 1,000 on average (50 where replicas are
-- many); the rounded mean is known, and the second moment changes by a ten-thousandth at most.
--
--   system = { name, quick and full = { requests = …, warmup = … },         a replication's, in jobs
--              variants = { name = { describe = f(requests, seed) → what lathe.run takes,
--                                    read = f(run) → { figure = number }, count = how many replications, all if absent } },
--              claims = f(samples, requests, warmup) → { { name, theory, interval = f(level), bias, most }, … } }
--
-- `bias`: what the system is known to be away from theory, a share of it; `most`: of theory, half of the interval
-- should be no more. All variants of a system meet the same arrivals and sizes. samples[variant][figure] are numbers by replication.
local lathe    = require "lathe"
local queueing = require "lathe.queueing"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local LONGEST <const>, MEAN <const> = 1 << 17, 1000           -- of one server's jobs, in tokens
local FLEET_LONGEST <const>, FLEET_MEAN <const> = 1024, 50     -- of many servers'
local REPLICAS <const> = 1000

local exponential <const> = queueing.exponential()

-- ── runs ──────────────────────────────────────────────────────────────────────────────

-- The mean of an exponential that is rounded, to 1 at least.
local function rounded(mean) return 1 + math.exp(-1.5 / mean) / (1 - math.exp(-1 / mean)) end

local function model_of(mean_tokens, longest)
  return lathe.model { "sim", step_us = 0, prefill_us = 1e6 / mean_tokens, decode_us = 1e6 / mean_tokens, prefill_context_ns = 0,
                       decode_context_ns = 0, padding_us = 0, context = longest }
end

-- One server, a job a step; or `step` tokens a step, and whoever ranks first is served next.
local function server(model, rho, prompt, scheduler, step)
  return function(requests, seed)
    return { model = model, scheduler = scheduler, batching = { "single", sticky = not step },
             kvcache = { "paged", block_tokens = 1024, blocks = 1 << 17 },
             engine = { batch_tokens = step or LONGEST, context_tokens = LONGEST, max_requests = 4096, batch_requests = 1 },
             workload = workload.poisson { rate = rho, requests = requests, seed = seed, prompt = prompt, output = 1,
                                           predicted = true } }
  end
end

-- `places`: more requests than a replica ever has at once.
local function fleet(model, replicas, rho, router, places)
  return function(requests, seed)
    return { model = model, scheduler = "fcfs", batching = "single", router = router, workers = { model = replicas },
             kvcache = { "paged", block_tokens = 1024, blocks = places },
             engine = { batch_tokens = FLEET_LONGEST, context_tokens = FLEET_LONGEST, max_requests = places, batch_requests = 1 },
             workload = workload.poisson { rate = rho * replicas, requests = requests, seed = seed, output = 1,
                                           prompt = workload.exponential { mean = FLEET_MEAN, max = FLEET_LONGEST - 1 } } }
  end
end

local function read_response(run) return { response = run.summary.response.mean, p99 = run.summary.response.p99 } end
local function read_wait(run) return { wait = run.summary.queue.mean } end

-- Who waited: those whose wait isn't 0, by bisection of the histogram.
local function read_waiting(run)
  local none, some = 0, 1
  for _ = 1, 40 do
    local middle = (none + some) / 2
    if run:percentile("queue", middle) > 0 then some = middle else none = middle end
  end
  return { wait = run.summary.queue.mean, waiting = 1 - none }
end

-- ── claims ────────────────────────────────────────────────────────────────────────────

local function mean_of(values) return function(level) return stats.mean_ci(values, { level = level }) end end

-- With the response of FCFS on the same arrivals as control.
local function controlled(values, control, expectation)
  return function(level) return stats.controlled_ci(values, control, expectation, { level = level }) end
end

local function most_at(rho) return rho < 0.9 and 0.015 or 0.03 end

local function first(values, count) return table.move(values, 1, count, 1, {}) end

-- ── one server ────────────────────────────────────────────────────────────────────────

local function fcfs(model, rho, sizes)
  return {
    name = ("M/M/1 FCFS at %g"):format(rho), quick = sizes.quick, full = sizes.full,
    variants = { main = { describe = server(model, rho, workload.exponential { mean = MEAN }, "fcfs"), read = read_response } },
    claims = function(samples)
      local claims = { { name = ("M/M/1 FCFS at %g, mean response"):format(rho), theory = queueing.fcfs(exponential, rho),
                         most = most_at(rho), interval = mean_of(samples.main.response) } }
      if rho == 0.8 then
        claims[2] = { name = "M/M/1 FCFS at 0.8, p99 of response", theory = queueing.mm1_percentile(rho, 0.99),
                      most = 0.03, interval = mean_of(samples.main.p99) }
      end
      return claims
    end,
  }
end

local function sjf(model, rho, sizes)
  local prompt = workload.exponential { mean = MEAN }
  return {
    name = ("M/M/1 SJF at %g"):format(rho), quick = sizes.quick, full = sizes.full,
    variants = { main = { describe = server(model, rho, prompt, { "sjf", key = "prompt" }), read = read_response },
                 control = { describe = server(model, rho, prompt, "fcfs"), read = read_response } },
    claims = function(samples)
      return { { name = ("M/M/1 SJF at %g, mean response"):format(rho), theory = queueing.sjf(exponential, rho),
                 most = most_at(rho),
                 interval = controlled(samples.main.response, samples.control.response, queueing.fcfs(exponential, rho)) } }
    end,
  }
end

local function srpt(model, rho, step, sizes)
  local prompt, theory, compared = workload.exponential { mean = MEAN }, queueing.srpt(exponential, rho), 3
  return {
    name = ("M/M/1 SRPT at %g"):format(rho), quick = sizes.quick, full = sizes.full,
    variants = {
      main = { describe = server(model, rho, prompt, "srpt", step), read = read_response },
      control = { describe = server(model, rho, prompt, "fcfs"), read = read_response },
      coarse = { describe = server(model, rho, prompt, "srpt", 2 * step), read = read_response, count = compared },
    },
    claims = function(samples)
      local main, coarse = samples.main.response, samples.coarse.response
      return { { name = ("M/M/1 SRPT at %g, mean response"):format(rho), theory = theory,
                 most = most_at(rho), bias = (stats.mean(coarse) - stats.mean(first(main, #coarse))) / theory,
                 interval = controlled(main, samples.control.response, queueing.fcfs(exponential, rho)) } }
    end,
  }
end

local function pollaczek_khinchine(name, model, rho, prompt, law, sizes)
  return {
    name = ("M/G/1 at %g, %s"):format(rho, name), quick = sizes.quick, full = sizes.full,
    variants = { main = { describe = server(model, rho, prompt, "fcfs"), read = read_wait } },
    claims = function(samples)
      return { { name = ("M/G/1 at %g, %s sizes, mean wait"):format(rho, name), theory = queueing.wait(law, rho),
                 most = most_at(rho), interval = mean_of(samples.main.wait) } }
    end,
  }
end

-- A job is a prompt of one token and an answer, a step a token: what remains is known by the answer's length.
-- A step can't be interrupted: whoever comes waits for half of one more, where the server is busy.
local function outputs(name, values, rho, sizes)
  local mean, law, answers = stats.mean(values), queueing.empirical(values), workload.empirical(values)
  local model = model_of(mean, LONGEST)
  local function run(scheduler, sticky)
    return function(requests, seed)
      local description = server(model, rho, 1, scheduler)(requests, seed)
      description.batching = { "single", sticky = sticky }
      description.workload = workload.poisson { rate = rho, requests = requests, seed = seed, prompt = 1, output = answers,
                                                predicted = true }
      return description
    end
  end
  return {
    name = ("SRPT / FCFS at %g, %s"):format(rho, name), quick = sizes.quick, full = sizes.full,
    variants = { srpt = { describe = run("srpt", false), read = read_response },
                 fcfs = { describe = run("fcfs", true), read = read_response } },
    claims = function(samples)
      local main, control, bias = samples.srpt.response, samples.fcfs.response, rho / (2 * mean) / queueing.srpt(law, rho)
      return { { name = ("SRPT at %g, %s outputs, mean response"):format(rho, name), theory = queueing.srpt(law, rho),
                 bias = bias, most = 0.05, interval = controlled(main, control, queueing.fcfs(law, rho)) },
               { name = ("SRPT / FCFS at %g, %s outputs, mean response"):format(rho, name), bias = bias, most = 0.05,
                 theory = queueing.srpt(law, rho) / queueing.fcfs(law, rho),
                 interval = function(level) return stats.ratio_ci(main, control, { level = level }) end } }
    end,
  }
end

-- ── many servers ──────────────────────────────────────────────────────────────────────

local function erlang(model, servers, rho, sizes)
  local waiting, wait = queueing.erlang_c(servers, rho)
  local most = servers < 1000 and 0.03 or 0.1
  return {
    name = ("M/M/%d at %g"):format(servers, rho), quick = sizes.quick, full = sizes.full,
    variants = { main = { describe = fleet(model, servers, rho, "central", 2), read = read_waiting } },
    claims = function(samples)
      return { { name = ("M/M/%d at %g, share that waits"):format(servers, rho), theory = waiting, most = most,
                 interval = mean_of(samples.main.waiting) },
               { name = ("M/M/%d at %g, mean wait"):format(servers, rho), theory = wait, most = most,
                 interval = mean_of(samples.main.wait) } }
    end,
  }
end

-- 1,000 replicas are as far from infinitely many as a tenth of what 100 are (of order 1 / n: Gast, "Expected values
-- estimated via mean-field approximation are 1/N-accurate", SIGMETRICS 2017); with one choice they are not away at all.
local function power(model, d, rho, sizes)
  local theory = queueing.power_of(d, rho)
  local variants = { main = { describe = fleet(model, REPLICAS, rho, { "p2c", d = d }, d == 1 and 300 or 60), read = read_response } }
  if d > 1 then variants.fewer = { describe = fleet(model, REPLICAS // 10, rho, { "p2c", d = d }, 60), read = read_response } end
  if d == 2 then variants.in_turn = { describe = fleet(model, REPLICAS, rho, "round_robin", 300), read = read_response } end
  return {
    name = ("power of %d at %g"):format(d, rho), quick = sizes.quick, full = sizes.full, variants = variants,
    claims = function(samples, requests, warmup)
      local arrivals, values = rho * REPLICAS, samples.main.response
      local begun = queueing.power_of_from_empty(d, rho, warmup / arrivals, (warmup + requests) / arrivals)
      local finite = samples.fewer and (stats.mean(samples.fewer.response) - begun) / 10 or 0
      local claims = { { name = ("%d replicas at %g, power of %d, mean response"):format(REPLICAS, rho, d), theory = theory,
                         bias = (begun + finite) / theory - 1, most = 0.03, interval = mean_of(values) } }
      if samples.in_turn then
        claims[2] = { name = ("%d replicas at %g, round robin − power of two"):format(REPLICAS, rho),
                      interval = function(level) return stats.paired_ci(samples.in_turn.response, values, { level = level }) end }
      end
      return claims
    end,
  }
end

-- ── all of them ───────────────────────────────────────────────────────────────────────

local function output_lengths(file)
  local values = {}
  for i, request in ipairs(workload.replay { file = file }.requests) do values[i] = request.output_tokens end
  return values
end

local function size(requests, warmup, full, full_warmup)
  return { quick = { requests = requests, warmup = warmup }, full = { requests = full, warmup = full_warmup or warmup } }
end

local systems = {}

-- An M/M/1 at 0.5 that is over soon, for the intervals' coverage.
function systems.short()
  local describe = server(model_of(rounded(MEAN), LONGEST), 0.5, workload.exponential { mean = MEAN }, "fcfs")
  return { requests = 1100, warmup = 100, theory = 2, describe = describe, read = function(run) return run.summary.response.mean end }
end

function systems.all(o)
  local one, many = model_of(rounded(MEAN), LONGEST), model_of(rounded(FLEET_MEAN), FLEET_LONGEST)
  local conversation, code = output_lengths(o.conv), output_lengths(o.code)
  local exponential_prompt = workload.exponential { mean = MEAN }
  return {
    fcfs(one, 0.5, size(50000, 1000, 100000)),
    fcfs(one, 0.8, size(100000, 2000, 400000)),
    fcfs(one, 0.9, size(100000, 4000, 400000)),
    sjf(one, 0.5, size(20000, 1000, 50000)),
    sjf(one, 0.8, size(20000, 2000, 100000)),
    sjf(one, 0.9, size(40000, 4000, 100000)),
    srpt(one, 0.5, o.full and 4 or 8, size(4000, 1000, 10000)),
    srpt(one, 0.8, o.full and 4 or 8, size(4000, 2000, 10000)),
    srpt(one, 0.9, o.full and 4 or 8, size(6000, 4000, 20000)),
    pollaczek_khinchine("fixed", one, 0.8, MEAN, queueing.fixed(), size(50000, 2000, 450000)),
    pollaczek_khinchine("exponential", one, 0.8, exponential_prompt, exponential, size(100000, 2000, 600000)),
    pollaczek_khinchine("code output", model_of(stats.mean(code), LONGEST), 0.8, workload.empirical(code), queueing.empirical(code),
      size(100000, 6000, 2500000)),
    erlang(many, 10, 0.9, size(200000, 10000, 800000)),
    erlang(many, 100, 0.9, size(200000, 10000, 2800000)),
    erlang(many, 1000, 0.95, size(100000, 50000, 5600000)),
    power(many, 1, 0.9, size(30000, 300000, 50000, 1300000)),
    power(many, 2, 0.9, size(30000, 70000, 80000, 100000)),
    power(many, 3, 0.9, size(30000, 50000, 80000, 100000)),
    outputs("conversation", conversation, 0.9, size(8000, 2000, 50000, 4000)),
    outputs("code", code, 0.9, size(10000, 10000, 600000)),
  }
end

return systems

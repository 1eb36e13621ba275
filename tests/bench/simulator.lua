-- How much of a core's time does one simulated run take?
-- SPDX-License-Identifier: MIT
--
-- One run by the virtual clock, as tests/bench/simulator_bench.py asks for it: a trace on a few
-- replicas, or drawn requests on a fleet at a share of what it can bear. What can be borne is found
-- by a run of one replica whose requests are all there at once. The process is to be timed from
-- outside; it prints what was simulated, one `name value` a line.
--
--   lathe run tests/bench/simulator.lua -- --trace experiments/data/sample_trace.csv --rows none
--   lathe run tests/bench/simulator.lua -- --replicas 100 --requests 100000
local lathe    = require "lathe"
local workload = require "lathe.workload"

local ROWS <const> = { none = false, requests = { rows = "requests" }, steps = { rows = "steps" },
                       step_requests = { rows = "step_requests" }, tokens = { rows = "tokens" } }

-- As long as those of the Azure conversation trace (2023): prompts of 1,155 tokens, answers of 211.
local function drawn(o, rate, requests)
  return workload.poisson { rate = rate, requests = requests, seed = 1, prompt = workload.lognormal { median = 1020, sigma = 0.5 },
                            output = workload.lognormal { median = 129, sigma = 0.99 } }
end

local function simulate(o, load, replicas, trace)
  local model = o.step_ms > 0 and lathe.model { "sim", step_us = 1000 * o.step_ms, prefill_us = 0, prefill_context_ns = 0,
                                                decode_us = 0, decode_context_ns = 0 } or lathe.model "sim"
  return lathe.run { model = model, clock = "virtual", workload = load, seed = 1, label = o.label,
                     scheduler = o.scheduler, batching = o.batching, router = replicas > 1 and o.router or nil,
                     workers = { model = replicas }, kvcache = { "paged", memory_mb = o.kv_mb },
                     engine = { batch_tokens = 512, batch_requests = o.batch, context_tokens = o.context,
                                max_requests = o.live }, trace = trace, database = o.into }
end

return {
  options = {
    trace     = { default = "", help = "a CSV of arrivals and lengths; otherwise they are drawn" },
    rows      = { default = "requests", help = "what is recorded", choices = { "none", "requests", "steps", "step_requests", "tokens" } },
    requests  = { default = 10000, help = "drawn requests", min = 1 },
    replicas  = { default = 1, help = "of the model", min = 1 },
    load      = { default = 0.8, help = "share of what the replicas can bear", min = 0.01, max = 2.0 },
    scheduler = { default = "fcfs", help = "which scheduler" },
    batching  = { default = "chunked", help = "which batching" },
    router    = { default = "p2c", help = "which router" },
    batch     = { default = 128, help = "requests in a step", min = 1 },
    live      = { default = 256, help = "requests that a replica holds", min = 1 },
    context   = { default = 16384, help = "longest request", unit = "tokens", min = 2 },
    kv_mb     = { default = 1024, help = "KV cache of each replica", unit = "MiB", min = 1 },
    step_ms   = { default = 0, help = "each step takes so long, whatever is in it; 0: the model's own formula", unit = "ms", min = 0 },
    into      = { default = "results/simulator_bench.db", help = "database" },
    label     = { default = "simulator bench", help = "the run's label" },
  },

  run = function(o)
    local load
    local found = { rate = 0, bearable = 0 }
    if o.trace ~= "" then
      load = workload.replay { file = o.trace }
    else
      local alone <close> = simulate(o, drawn(o, 1e6, 2000), 1, false)
      found.bearable = 2000 / alone.elapsed_s
      found.rate = o.load * found.bearable * o.replicas
      load = drawn(o, found.rate, o.requests)
    end
    local r <close> = simulate(o, load, o.replicas, ROWS[o.rows])
    for k, v in pairs(r.summary) do found[k] = v end
    found.tokens = math.floor(r.summary.tokens_per_s * r.elapsed_s + 0.5)
    return found
  end,

  report = function(_, f)
    for _, name in ipairs { "requests", "failed", "refused", "preemptions", "steps", "tokens", "busy", "mean_in_system", "bearable",
                            "rate", "wall_s" } do
      print(name, f[name])
    end
  end,
}

-- Do answers come sooner when requests join a running batch, or when they wait for the next one?
-- SPDX-License-Identifier: MIT
--
-- A dozen chat prompts arrive as a Poisson process, each asking for as many tokens as its own
-- draw says. The same arrivals, prompts and lengths meet two batchings: `static` takes
-- whoever waits and runs them to the end together (padded to the longest prompt),
-- `continuous` lets requests join and leave at every step. Nothing else differs, so the
-- difference is taken request by request.
--
--   lathe run experiments/first_light.lua
--   lathe run experiments/first_light.lua -- --rate 4 --seed 7
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local BATCHINGS <const> = { "static", "continuous" }

-- One row a batching: medians and maxima, since a dozen requests have no p99.
local function summary(run)
  local rows = run:query [[select ttft_ms, tpot_ms, e2e_ms from request_latency where run_id = :run order by request_id]]
  local tokens = run:query([[select count(*) as n from token where run_id = :run and kind = 'output']])[1].n
  local row = { batching = run.label, tokens_per_s = tokens / run.elapsed_s }
  for _, name in ipairs { "ttft_ms", "tpot_ms", "e2e_ms" } do
    local values = stats.column(rows, name)
    row[name .. "_median"], row[name .. "_max"] = stats.median(values), stats.max(values)
  end
  return row, stats.column(rows, "e2e_ms"), stats.column(rows, "ttft_ms")
end

local function sentence(what, d, o)
  local better = d.value < 0 and "sooner" or "later"
  local sure = (d.low < 0) == (d.high < 0)
  print(("%s came %.0f ms %s with continuous batching (median of %d paired differences; 95%% interval %.0f to %.0f ms)%s")
    :format(what, math.abs(d.value), better, o.requests, d.low, d.high,
      sure and "." or ":\nit spans zero, so this run does not tell the two apart."))
end

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    rate     = { default = 3.0, help = "arrivals", unit = "requests/s", min = 0.01 },
    requests = { default = 12, help = "how many of them; prompts repeat after twelve", min = 2 },
    tokens   = { default = 24, help = "median length of an answer", unit = "tokens", min = 2, max = 256 },
    seed     = { default = 1, help = "of arrivals, lengths and intervals", min = 0 },
  },

  prepare = function(o)
    return { model = lathe.model { "llama", path = o.model },
             load = workload.poisson { rate = o.rate, requests = o.requests, seed = o.seed, chat = true,
                                       prompt = workload.prompts "data/prompts.txt",
                                       output = workload.lognormal { median = o.tokens, sigma = 0.5, min = 4, max = 4 * o.tokens } } }
  end,

  run = function(o, s)
    local runs = {}
    for _, batching in ipairs(BATCHINGS) do
      runs[batching] = lathe.run { model = s.model, scheduler = "fcfs", batching = batching, kvcache = "paged", bus = "direct",
                                   workload = s.load, seed = o.seed, label = batching, factors = { batching = batching, rate = o.rate },
                                   trace = { attention = "summary", tokens = "all" } }
    end
    return runs
  end,

  report = function(o, runs)
    local rows, e2e, ttft = {}, {}, {}
    for i, batching in ipairs(BATCHINGS) do rows[i], e2e[batching], ttft[batching] = summary(runs[batching]) end
    print(("\n%d requests, %.3g a second, answers of %d tokens (median), milliseconds:\n"):format(o.requests, o.rate, o.tokens))
    lathe.print(rows, { "batching", { "ttft_ms_median", "TTFT median", "%.0f" }, { "ttft_ms_max", "max", "%.0f" },
      { "tpot_ms_median", "TPOT median", "%.1f" }, { "tpot_ms_max", "max", "%.1f" }, { "e2e_ms_median", "E2E median", "%.0f" },
      { "e2e_ms_max", "max", "%.0f" }, { "tokens_per_s", "tokens/s", "%.1f" } })

    print "\nWhat was found:"
    local wishes = { statistic = stats.median, seed = o.seed }
    sentence("First tokens", stats.paired_difference(ttft.continuous, ttft.static, wishes), o)
    sentence("Whole answers", stats.paired_difference(e2e.continuous, e2e.static, wishes), o)
    print("It would change with the load (a rate at which nobody waits makes the two alike: try -- --rate 0.1), with longer\n" ..
          "answers, and with another seed: one seed is one draw of arrivals, and the interval knows only the requests of this one.")

    local head = runs.continuous:query([[
      select layer, head, avg(first_mass) as first_mass, avg(entropy) as entropy from attention
      where run_id = :run and position > 0 group by layer, head order by first_mass desc limit 1]])[1]
    print(("\nThe head that looks most at the first token: layer %d, head %d, with %.2f%% of its weight on average (entropy %.2f nats).")
      :format(head.layer, head.head, 100 * head.first_mass, head.entropy))
    print(("\nRows of every request, step and token: %s, runs %d and %d."):format(runs.continuous.database,
      runs.static.id, runs.continuous.id))
  end,
}

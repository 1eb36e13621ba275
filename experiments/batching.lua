-- What does iteration-level batching gain over request-level batching?
-- SPDX-License-Identifier: MIT
--
-- The same requests, arriving as a Poisson process, meet six batchings, each with the same number of
-- places, at each of the given rates. The way from the first to the last is a ladder: `single` has one
-- place; `static` gathers a padded batch that runs until its longest ends; `dynamic` has buckets and
-- drops the rows that ended, but still nobody joins; `continuous` lets requests join and leave at every
-- step; `prefill_first` keeps prompts and decodes in steps of their own; `chunked` bounds each step by a
-- budget of tokens, decodes first. Differences are taken request by request. A request's normalized
-- latency, its whole time over its output tokens, is what Orca and vLLM report.
--
--   lathe run experiments/batching.lua
--   lathe run experiments/batching.lua -- --rates 10,20,40,80 --requests 200
--   lathe run experiments/batching.lua -- --model smollm2-135m --rates 2,4 --requests 24
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local NAMES <const> = { "single", "static", "dynamic", "continuous", "prefill_first", "chunked" }

local function settings(o, name)
  local all = {
    single        = {},
    static        = { batch = o.places, window_ms = o.window_ms },
    dynamic       = { batch = o.places, window_ms = o.window_ms, buckets = "32,128", shrink = true },
    continuous    = { max_requests = o.places },
    prefill_first = { max_requests = o.places },
    chunked       = { max_requests = o.places, budget = o.budget },
  }
  all[name][1] = name
  return all[name]
end

local function rates_of(text)
  local rates = {}
  for word in text:gmatch "[^,]+" do
    local rate = tonumber(word)
    if not rate or rate <= 0 or rate == math.huge then error(("--rates: \"%s\" is no rate; write such as 20,60"):format(word), 0) end
    rates[#rates + 1] = rate
  end
  if #rates == 0 then error("--rates: name at least one, such as 20,60", 0) end
  return rates
end

-- `tiny` and `sim` are models by themselves; anything else is a file or its short name.
local function model_of(o)
  if o.model == "tiny" then return lathe.model { "tiny", delay_us = o.delay_us } end
  if o.model == "sim" then return lathe.model "sim" end
  return lathe.model { "llama", path = o.model }
end

local function summary(r, name, rate)
  local rows = r:query [[
    select l.ttft_ms, l.tpot_ms, l.e2e_ms / q.output_tokens as per_token_ms, l.e2e_ms
    from request_latency l join request q on q.run_id = l.run_id and q.id = l.request_id
    where l.run_id = :run order by l.request_id]]
  local work = r:query [[
    select 1.0 * sum(padding_tokens) / sum(prefill_tokens + decode_tokens + padding_tokens) as padding,
           avg(requests) as together from step where run_id = :run]][1]
  local gap = r:query [[select max(gap_ms) as longest from token_gap where run_id = :run]][1]
  local latency = r:query [[select tokens_per_s from run_latency where run_id = :run]][1]
  return {
    batching = name, rate = rate, tokens_per_s = latency.tokens_per_s, together = work.together, padding = 100 * work.padding,
    ttft = stats.median(stats.column(rows, "ttft_ms")), tpot = stats.median(stats.column(rows, "tpot_ms")),
    gap = gap.longest, per_token = stats.mean(stats.column(rows, "per_token_ms")),
    all_per_token = stats.column(rows, "per_token_ms"),
  }
end

return {
  options = {
    model     = { default = "tiny", help = "the model: tiny, sim, a short name or a GGUF file" },
    clock     = { default = "real", help = "which clock the run goes by", choices = { "real", "virtual" } },
    delay_us  = { default = 2000, help = "how long each forward of tiny takes at least", unit = "us", min = 0 },
    rates     = { default = "20,60", help = "arrivals a second, one run of each batching a rate" },
    requests  = { default = 60, help = "how many of them a run", min = 4 },
    prompt    = { default = 32, help = "median length of a prompt", unit = "tokens", min = 2, max = 512 },
    tokens    = { default = 24, help = "median length of an answer", unit = "tokens", min = 2, max = 256 },
    places    = { default = 8, help = "most requests in a step", min = 1, max = 32 },
    window_ms = { default = 50, help = "how long request-level batchings wait for others", unit = "ms", min = 0 },
    budget    = { default = 64, help = "tokens of a step of chunked", unit = "tokens", min = 1 },
    seed      = { default = 1, help = "of arrivals, lengths and intervals", min = 0 },
  },

  prepare = function(o)
    return { rates = rates_of(o.rates), model = model_of(o) }
  end,

  run = function(o, s)
    local found = {}
    for _, rate in ipairs(s.rates) do
      local load = workload.poisson { rate = rate, requests = o.requests, seed = o.seed,
        prompt = workload.lognormal { median = o.prompt, sigma = 0.8, min = 2, max = 8 * o.prompt },
        output = workload.lognormal { median = o.tokens, sigma = 0.7, min = 2, max = 8 * o.tokens } }
      for _, name in ipairs(NAMES) do
        local r <close> = lathe.run { model = s.model, scheduler = "fcfs", batching = settings(o, name), kvcache = "paged",
                                      bus = "direct", clock = o.clock, workload = load, seed = o.seed,
                                      label = ("%s at %g/s"):format(name, rate), factors = { batching = name, rate = rate } }
        found[#found + 1] = summary(r, name, rate)
        found[rate] = found[rate] or {}
        found[rate][name] = found[#found]
      end
    end
    return found
  end,

  report = function(o, found, s)
    print(("\n%d requests, prompts of %d and answers of %d tokens (median), %d places, on %s; milliseconds:\n")
      :format(o.requests, o.prompt, o.tokens, o.places, o.model))
    lathe.print(found, { { "rate", "rate/s", "%g" }, "batching", { "ttft", "TTFT median", "%.1f" }, { "tpot", "TPOT median", "%.2f" },
      { "gap", "longest gap", "%.1f" }, { "per_token", "E2E a token", "%.2f" }, { "tokens_per_s", "tokens/s", "%.0f" },
      { "together", "in a step", "%.1f" }, { "padding", "padding %", "%.0f" } })

    print "\nWhat was found:"
    for _, rate in ipairs(s.rates) do
      local of = found[rate]
      for _, pair in ipairs { { "static", "continuous" }, { "dynamic", "continuous" } } do
        local d = stats.paired_difference(of[pair[1]].all_per_token, of[pair[2]].all_per_token,
          { statistic = stats.mean, seed = o.seed })
        local sure = (d.low < 0) == (d.high < 0)
        print(("At %g/s a token of %s took %.2f ms, of %s %.2f ms: %.2f × (difference %.2f ms, 95%% interval %.2f to %.2f)%s")
          :format(rate, pair[1], of[pair[1]].per_token, pair[2], of[pair[2]].per_token,
            of[pair[1]].per_token / of[pair[2]].per_token, d.value, d.low, d.high,
            sure and "." or ";\nit spans zero, so this run does not tell the two apart."))
      end
    end
    print("It would change with the spread of answers (batches last as long as their longest: equal lengths gain little), with the\n" ..
          "load (where nobody waits all are alike) and with what a row costs: a forward of tiny takes a fixed time, so padding and\n" ..
          "long prompts, which dynamic and chunked are about, cost almost nothing on it. One seed is one draw of arrivals.")
  end,
}

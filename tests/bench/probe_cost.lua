-- What do attention probes cost a run that decodes, its database included?
-- SPDX-License-Identifier: MIT
--
-- Sixteen requests decode side by side. For each probe four runs, without, with, with, without,
-- and all probes in each round, so that what the machine does in the meantime falls on all
-- alike. Compared is the median length, from start to start, of steps that only decode: probes begin
-- at the first token of the answer, and rows of steps are recorded in all runs. The figure is
-- the mean over rounds of the ratio's logarithm, its interval Student's t. "off": the run has a
-- probe of a position that no request reaches. Bytes are those of attention_token.data, a token.
--
--   lathe run tests/bench/probe_cost.lua -- --rounds 15
--
-- bench_probe_cost measures the model's side alone.
local lathe = require "lathe"
local stats = require "lathe.stats"

local MODES <const> = { "off", "summary, all heads", "top 8, all heads", "full, 4 heads" }

local STEPS <const> = [[
  select start_ns - lag(start_ns) over (order by id) as ns, prefill_tokens + lag(prefill_tokens) over (order by id) as prefill,
         decode_tokens as rows
  from step where run_id = ? order by id]]

local function trace(mode, o)
  local positions = { o.prompt, o.prompt + o.output }
  if mode == "off" then positions = { 100000, 100000 } end -- a probe, and no row of it
  local probe = { format = mode:match("^%a+"), positions = positions }
  if mode == "off" then probe.format = "summary" end
  if probe.format == "top" then probe.top_k = 8 end
  if probe.format == "full" then probe.layers, probe.heads = { 4, 17 }, { 2, 6 } end
  return { tokens = "all", probes = { probe } }
end

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    rounds   = { default = 6, help = "interleaved rounds of four runs a probe", min = 2 },
    requests = { default = 16, help = "requests that decode side by side", min = 1 },
    prompt   = { default = 270, help = "tokens of each prompt", unit = "tokens", min = 1 },
    output   = { default = 60, help = "tokens of each answer", unit = "tokens", min = 8 },
    db       = { default = "results/probe_cost.db", help = "the database" },
  },

  run = function(o)
    local model = lathe.model { "llama", path = o.model }
    local requests, cost, bytes = {}, {}, {}
    for i = 1, o.requests do requests[i] = { at = 0, prompt_tokens = o.prompt, output_tokens = o.output } end

    local function step_ns(mode, traced)
      local r = lathe.run { model = model, workload = requests, seed = 1, label = mode, trace = traced, database = o.db }
      local db, ns = lathe.sql(r.database), {}
      for _, step in ipairs(db:query(STEPS, r.id)) do
        if step.ns and step.prefill == 0 and step.rows == o.requests then ns[#ns + 1] = step.ns end
      end
      local size = db:query("select sum(length(data)) as bytes, count(*) as rows from attention_token where run_id = ?", r.id)[1]
      bytes[mode] = size.rows > 0 and size.bytes / size.rows or bytes[mode] or 0
      r:close()
      return stats.median(ns)
    end

    for round = 0, o.rounds do -- round 0 warms up
      for _, mode in ipairs(MODES) do
        local with, without = trace(mode, o), { tokens = "all" }
        local a, b, c, d = step_ns(mode, without), step_ns(mode, with), step_ns(mode, with), step_ns(mode, without)
        cost[mode] = cost[mode] or {}
        if round > 0 then cost[mode][round] = math.log((b + c) / (a + d)) end
      end
    end
    return { cost = cost, bytes = bytes }
  end,

  report = function(o, found)
    local rows, percent = {}, function(x) return 100 * (math.exp(x) - 1) end
    for _, mode in ipairs(MODES) do
      local mean = stats.mean_ci(found.cost[mode])
      rows[#rows + 1] = { probe = mode, cost = percent(mean.value), low = percent(mean.low), high = percent(mean.high),
                          bytes = found.bytes[mode] }
    end
    lathe.print(rows, { "probe", { "cost", "cost %", "%+.2f" }, { "low", "95% from", "%+.2f" }, { "high", "to", "%+.2f" },
                        { "bytes", "bytes a token", "%.0f" } })
    print(("\nA decode step of %d requests takes %.1f%% more with summaries of all heads, %.1f%% with the 8 heaviest keys of all, " ..
           "%.1f%% with all keys of four heads (means of %d interleaved rounds)."):format(o.requests, rows[2].cost, rows[3].cost,
           rows[4].cost, o.rounds))
  end,
}

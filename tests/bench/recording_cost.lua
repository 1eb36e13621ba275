-- What does recording cost: latency rows, and attention summaries of all heads?
-- SPDX-License-Identifier: MIT
--
-- The same requests run without recording, with latency rows, and with latency rows and a
-- summary of every head for every token, interleaved: one round after the other, in an order
-- that turns with the round, so that a machine that slows down slows all three. The figure
-- is the median over rounds of each round's ratio to the run without recording.
--
--   lathe run tests/bench/recording_cost.lua -- --rounds 15
local lathe = require "lathe"
local stats = require "lathe.stats"

local MODES <const> = { "off", "rows", "attention" }
local TRACE <const> = { off = false, rows = { tokens = "all" }, attention = { tokens = "all", attention = "summary" } }

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    rounds   = { default = 9, help = "interleaved rounds", min = 3 },
    requests = { default = 8, help = "requests in each run, all at once", min = 1 },
    prompt   = { default = 128, help = "tokens of each prompt", unit = "tokens", min = 1 },
    output   = { default = 48, help = "tokens of each answer", unit = "tokens", min = 1 },
  },

  run = function(o)
    local model = lathe.model { "llama", path = o.model }
    local requests, speed = {}, { off = {}, rows = {}, attention = {} }
    for i = 1, o.requests do requests[i] = { at = 0, prompt_tokens = o.prompt, output_tokens = o.output } end
    for round = 0, o.rounds do -- round 0 warms up
      for i = 0, #MODES - 1 do
        local mode = MODES[(i + round) % #MODES + 1]
        local r = lathe.run { model = model, workload = requests, seed = 1, label = mode, trace = TRACE[mode],
                              database = "results/recording_cost.db" }
        if round > 0 then speed[mode][round] = o.requests * (o.prompt + o.output) / r.elapsed_s end
        r:close()
      end
    end
    return speed
  end,

  report = function(o, speed)
    local rows = {}
    for _, mode in ipairs(MODES) do
      local ratios = {}
      for round = 1, o.rounds do ratios[round] = 100 * (1 - speed[mode][round] / speed.off[round]) end
      local interval = stats.bootstrap(ratios, { statistic = stats.median, seed = 1 })
      rows[#rows + 1] = { recording = mode, tokens_per_s = stats.median(speed[mode]), cost = stats.median(ratios),
                          low = interval.low, high = interval.high }
    end
    lathe.print(rows, { "recording", { "tokens_per_s", "tokens/s", "%.1f" }, { "cost", "cost %", "%.2f" },
                        { "low", "95% from", "%.2f" }, { "high", "to", "%.2f" } })
    print(("\nRecording latency rows costs %.1f%% of tokens/s, attention summaries of all heads too %.1f%% (medians of %d interleaved rounds).")
      :format(rows[2].cost, rows[3].cost, o.rounds))
  end,
}

-- Does collecting metrics slow production?
-- SPDX-License-Identifier: MIT
--
-- An engine answers the same requests again and again, and between two answers its bus is swapped:
-- over `direct` nothing is counted, over `sync` every call is counted and timed into a histogram.
-- Nothing else changes, not even where the engine's memory lies, which alone can move tokens/s by
-- a percent. Two such engines: one records nothing, one records requests, steps and tokens, and
-- over `sync` a row for every call besides. Each swap is a pair; the order within a pair turns, so
-- that a machine that slows down slows both; the interval is over the pairs' differences.
--
--   lathe run experiments/metrics_cost.lua
--   lathe run experiments/metrics_cost.lua -- --pairs 300
local lathe = require "lathe"
local stats = require "lathe.stats"

local ENGINES <const> = {
  { name = "counters", what = "counting and timing every call", trace = false },
  { name = "hop rows", what = "that, and a row for every call", trace = { hops = true } },
}

-- The engine answers the batch; → seconds
local function batch(o, e, prompt)
  local posts, from = {}, lathe.now()
  for i = 1, o.requests do posts[i] = e:post { tokens = prompt, output_tokens = o.tokens } end
  e:advance()
  for i = 1, o.requests do
    local r = posts[i]:await()
    if r.error then error(r.error) end
  end
  return lathe.now() - from
end

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    pairs    = { default = 120, help = "interleaved pairs", min = 20 },
    requests = { default = 4, help = "requests at once", min = 1 },
    tokens   = { default = 8, help = "tokens of each answer", unit = "tokens", min = 1 },
  },

  run = function(o)
    local model <close> = lathe.model { "llama", path = o.model }
    local prompt = model:encode "The lathe turns the work and the tool is still; the cut is where they meet."
    local found = {}
    for i, way in ipairs(ENGINES) do
      found[i] = { way = way, off = {}, on = {}, lost = {} }
      found[i].engine = lathe.engine { model = model, bus = "direct", label = way.name, trace = way.trace,
                                       database = ("results/metrics_cost_%d.db"):format(i) }
    end
    for pair = 0, o.pairs do -- pair 0 warms up
      for _, f in ipairs(found) do
        local seconds = {}
        for half = 1, 2 do
          local bus = (half + pair) % 2 == 0 and "direct" or "sync"
          f.engine:swap("bus", bus)
          seconds[bus] = batch(o, f.engine, prompt)
        end
        if pair > 0 then
          f.off[pair], f.on[pair] = o.requests * o.tokens / seconds.direct, o.requests * o.tokens / seconds.sync
          f.lost[pair] = 100 * (seconds.sync / seconds.direct - 1)
        end
      end
    end
    local hops = found[2].engine:results():query "select count(*) as n from hop where run_id = :run"[1].n
    for _, f in ipairs(found) do f.engine:close() end
    return { ways = found, calls = hops / ((o.pairs + 1) * o.requests * o.tokens) }
  end,

  report = function(o, found)
    local rows = {}
    for i, f in ipairs(found.ways) do
      local d = stats.bootstrap(f.lost, { statistic = stats.median, seed = 1 })
      rows[i] = { what = f.way.what, off = stats.median(f.off), on = stats.median(f.on), cost = d.value, low = d.low, high = d.high }
    end
    print(("\n%d requests at once of %d tokens, %d interleaved pairs; %.1f calls of services a token:\n")
      :format(o.requests, o.tokens, o.pairs, found.calls))
    lathe.print(rows, { { "what", "collected" }, { "off", "tokens/s without", "%.1f" }, { "on", "with", "%.1f" },
                        { "cost", "slower by %", "%.2f" }, { "low", "95% from", "%.2f" }, { "high", "to", "%.2f" } })
    print(("\nWhat was found: counting and timing every call costs %.2f%% of tokens/s (95%% interval %.2f to %.2f%%), with a row\n" ..
           "for every call %.2f%% (%.2f to %.2f%%)%s\n" ..
           "It would change with a model whose steps take microseconds, with a slow disk (the writer thread then fills its\n" ..
           "core), and with a machine that has no core to spare for the writer.")
      :format(rows[1].cost, rows[1].low, rows[1].high, rows[2].cost, rows[2].low, rows[2].high,
        (rows[1].low <= 0 and rows[2].low <= 0) and ": neither can be told from nothing here." or "."))
  end,
}

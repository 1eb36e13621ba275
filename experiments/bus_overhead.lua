-- What does the bus between services cost, against a direct call?
-- SPDX-License-Identifier: MIT
--
-- First the bus alone: a service that does nothing is called many times over each bus, the
-- buses taking turns within each round. `async` and `shm` twice: with a worker that spins while
-- it waits, and with one that sleeps at once, so that every call wakes it. Then the real model:
-- the same requests over each bus, again in turns; a token costs one forward, one sample and
-- one decode, each of them a call.
--
--   lathe run experiments/bus_overhead.lua
--   lathe run experiments/bus_overhead.lua -- --rounds 15
local lathe = require "lathe"
local stats = require "lathe.stats"

local ALONE <const> = {
  { name = "direct", bus = "direct", calls = 2000000 },
  { name = "sync", bus = "sync", calls = 1000000 },
  { name = "async, spinning", bus = { "async", spin_us = 10000 }, calls = 50000 },
  { name = "async, asleep", bus = { "async", spin_us = 0 }, calls = 300 },
  { name = "shm, spinning", bus = { "shm", spin_us = 10000 }, calls = 50000 },
  { name = "shm, asleep", bus = { "shm", spin_us = 0 }, calls = 300 },
}
local BUSES <const> = { "direct", "sync", "async", "shm" }

local function measure_alone(o)
  local rows = {}
  for i, a in ipairs(ALONE) do rows[i] = { bus = a.name, calls = a.calls, ns = {} } end
  for round = 0, o.rounds do -- round 0 warms up
    for i = 1, #ALONE do
      local row = rows[(i + round) % #ALONE + 1]
      local a = ALONE[(i + round) % #ALONE + 1]
      local bus <close> = lathe.bus(a.bus) -- open alone: another bus's spinning worker would take a core
      bus:ping(math.max(1, a.calls // 10))
      local ns = bus:ping(a.calls) / a.calls * 1e9
      if round > 0 then row.ns[round] = ns end
    end
  end
  for _, row in ipairs(rows) do row.median, row.least = stats.median(row.ns), stats.min(row.ns) end
  return rows
end

local function measure_model(o)
  local model <close> = lathe.model { "llama", path = o.model }
  local requests, speed = {}, {}
  for i = 1, o.requests do requests[i] = { at = 0, prompt_tokens = 32, output_tokens = o.tokens } end
  for _, bus in ipairs(BUSES) do speed[bus] = {} end
  for round = 0, o.model_rounds do
    for i = 1, #BUSES do
      local bus = BUSES[(i + round) % #BUSES + 1]
      local r <close> = lathe.run { model = model, bus = bus, workload = requests, seed = 1, label = bus, trace = false }
      if round > 0 then speed[bus][round] = o.requests * o.tokens / r.elapsed_s end
    end
  end
  return speed
end

return {
  options = {
    model        = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    rounds       = { default = 11, help = "rounds of the bus alone", min = 3 },
    model_rounds = { default = 5, help = "rounds of the real model; 0: without", min = 0 },
    requests     = { default = 4, help = "requests at once", min = 1 },
    tokens       = { default = 24, help = "tokens of each answer", unit = "tokens", min = 1 },
  },

  run = function(o)
    return { alone = measure_alone(o), speed = o.model_rounds > 2 and measure_model(o) or nil }
  end,

  report = function(o, found)
    local direct, sync = found.alone[1], found.alone[2]
    print(("\nA call that does nothing, nanoseconds (%d rounds in turn):\n"):format(o.rounds))
    for _, row in ipairs(found.alone) do row.ratio = row.median / direct.median end
    lathe.print(found.alone, { "bus", { "median", "median", "%.1f" }, { "least", "least", "%.1f" }, { "ratio", "× direct", "%.0f" } })
    print(("\nA direct call takes %.1f ns, the whole envelope (deadline, breaker, counters, histogram) on the same thread\n" ..
           "%.1f ns more; to another thread and back %.0f ns while both spin, %.0f µs when the worker must be woken; to another\n" ..
           "process %.0f ns and %.0f µs.")
      :format(direct.median, sync.median - direct.median, found.alone[3].median, found.alone[4].median / 1000,
        found.alone[5].median, found.alone[6].median / 1000))
    if not found.speed then return end

    local rows = {}
    for i, bus in ipairs(BUSES) do
      local lost = {}
      for round, v in ipairs(found.speed[bus]) do lost[round] = 100 * (1 - v / found.speed.direct[round]) end
      local d = stats.bootstrap(lost, { statistic = stats.median, seed = 1 })
      rows[i] = { bus = bus, tokens_per_s = stats.median(found.speed[bus]), cost = d.value, low = d.low, high = d.high }
    end
    print(("\nThe real model, %d requests at once of %d tokens (%d rounds in turn):\n"):format(o.requests, o.tokens, o.model_rounds))
    lathe.print(rows, { "bus", { "tokens_per_s", "tokens/s", "%.1f" }, { "cost", "cost %", "%.1f" }, { "low", "95% from", "%.1f" },
                        { "high", "to", "%.1f" } })
    local worst = rows[2]
    for i = 3, #rows do if rows[i].cost > worst.cost then worst = rows[i] end end
    print(("\nWhat was found: the dearest bus, %s, costs this model %.1f%% of its tokens/s (95%% interval %.1f to %.1f%%): a step\n" ..
           "computes for milliseconds, a call takes microseconds at most. It would change with a model whose step takes\n" ..
           "microseconds, with more cores than busy threads (a worker then keeps spinning on one of its own), and on a machine\n" ..
           "where waking a thread is quicker.")
      :format(worst.bus, worst.cost, worst.low, worst.high))
  end,
}

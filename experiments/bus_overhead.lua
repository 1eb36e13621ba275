-- What does the bus between services cost, against a direct call?
-- SPDX-License-Identifier: MIT
--
-- First the bus alone: a service that does nothing is called many times over each bus, the
-- buses taking turns within each round. `async` and `shm` twice: with a worker that spins while
-- it waits, and with one that sleeps at once, so that every call wakes it. Then the real model:
-- an engine answers the same requests again and again, and between two answers its bus is swapped,
-- so that nothing else changes, not even where its memory lies (which alone moves tokens/s by a
-- percent). `shm` can't be swapped in, since its worker holds the keys and values: it is an engine
-- of its own beside the other, in the same turns.
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

-- The engine answers a batch; → tokens a second
local function batch(o, e, prompt)
  local posts, from = {}, lathe.now()
  for i = 1, o.requests do posts[i] = e:post { tokens = prompt, output_tokens = o.tokens } end
  e:advance()
  local seconds = lathe.now() - from
  for i = 1, o.requests do
    local r = posts[i]:await()
    if r.error then error(r.error) end
  end
  return o.requests * o.tokens / seconds
end

local function measure_model(o)
  local model <close> = lathe.model { "llama", path = o.model }
  local prompt = model:encode "The lathe turns the work and the tool is still; the cut is where they meet."
  local here <close> = lathe.engine { model = model, bus = "direct", trace = false }
  local there <close> = lathe.engine { model = model, bus = "shm", trace = false }
  local speed = {}
  for _, bus in ipairs(BUSES) do speed[bus] = {} end
  for round = 0, o.model_rounds do
    for i = 1, #BUSES do
      local bus = BUSES[(round % 2 == 0 and i or #BUSES - i) % #BUSES + 1]
      if bus ~= "shm" then here:swap("bus", bus) end
      local figure = batch(o, bus == "shm" and there or here, prompt)
      if round > 0 then speed[bus][round] = figure end
    end
  end
  return speed
end

return {
  options = {
    model        = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    rounds       = { default = 11, help = "rounds of the bus alone", min = 3 },
    model_rounds = { default = 60, help = "rounds of the real model; 0: without", min = 0 },
    requests     = { default = 4, help = "requests at once", min = 1 },
    tokens       = { default = 8, help = "tokens of each answer", unit = "tokens", min = 1 },
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

-- What do more workers bring: two replicas of one thread each, or one of two threads?
-- SPDX-License-Identifier: MIT
--
-- The same batch of requests, all there at once, through four arrangements that take turns within
-- each round: one replica of one thread; two replicas of one thread each, with a KV pool each and
-- weights shared, their forwards in parallel over the `async` bus, and over `shm` (a process
-- each); one replica of two threads. What two cores of this machine can bring at all is measured
-- in the same rounds: two processes, each running the one-replica batch by itself.
--
--   lathe run experiments/worker_scaling.lua
--   lathe run experiments/worker_scaling.lua -- --requests 16 --rounds 9
local lathe = require "lathe"
local stats = require "lathe.stats"

local WAYS <const> = {
  { name = "1 replica × 1 thread",            bus = "async", replicas = 1, threads = 1 },
  { name = "2 replicas × 1 thread, async",    bus = "async", replicas = 2, threads = 1 },
  { name = "2 replicas × 1 thread, shm",      bus = "shm",   replicas = 2, threads = 1 },
  { name = "1 replica × 2 threads",           bus = "async", replicas = 1, threads = 2 },
}

local function requests_of(o, count)
  local list = {}
  for i = 1, count do list[i] = { at = 0, prompt_tokens = o.prompt, output_tokens = o.tokens } end
  return list
end

-- tokens a second of prompt and output together
local function speed(o, model, way)
  local r <close> = lathe.run { model = model, bus = way.bus, workers = { model = way.replicas }, engine = { threads = way.threads },
                                workload = requests_of(o, o.requests * way.replicas), seed = 1, label = way.name, trace = false }
  return o.requests * way.replicas * (o.prompt + o.tokens) / r.elapsed_s
end

-- Two processes of this very script at once, each with the one-replica batch; → their tokens/s together.
local function pair_of_processes(o)
  local pipes, sum = {}, 0
  for i = 1, 2 do
    pipes[i] = assert(io.popen(("%s run --quiet %s -- --alone --model %s --requests %d --prompt %d --tokens %d 2>&1")
      :format(lathe.executable, lathe.script, o.model, o.requests, o.prompt, o.tokens)))
  end
  for i = 1, 2 do
    local text = pipes[i]:read "a"
    pipes[i]:close()
    local figure = tonumber(text:match "alone ([%d.]+)")
    if not figure then error("a process of the pair failed: " .. text) end
    sum = sum + figure
  end
  return sum
end

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    rounds   = { default = 5, help = "rounds in turn", min = 3 },
    requests = { default = 4, help = "requests at once, for each replica", min = 1 },
    prompt   = { default = 64, help = "tokens of each prompt", unit = "tokens", min = 1 },
    tokens   = { default = 24, help = "tokens of each answer", unit = "tokens", min = 1 },
    alone    = { default = false, help = "be one process of the pair: used by the experiment itself" },
  },

  run = function(o)
    local model <close> = lathe.model { "llama", path = o.model }
    if o.alone then
      speed(o, model, WAYS[1])
      return { alone = speed(o, model, WAYS[1]) }
    end
    local found = { pair = {} }
    for i = 1, #WAYS do found[i] = {} end
    for round = 0, o.rounds do -- round 0 warms up
      for i = 0, #WAYS do
        local n = (i + round) % (#WAYS + 1)
        local figure = n == 0 and pair_of_processes(o) or speed(o, model, WAYS[n])
        if round > 0 then found[n == 0 and "pair" or n][round] = figure end
      end
    end
    return found
  end,

  report = function(o, found)
    if found.alone then
      print(("alone %.3f"):format(found.alone))
      return
    end
    local function ratio(a, b)
      local r = {}
      for round = 1, o.rounds do r[round] = a[round] / b[round] end
      return stats.bootstrap(r, { statistic = stats.median, seed = 1 })
    end
    local rows = {}
    for i, way in ipairs(WAYS) do
      local d = ratio(found[i], found[1])
      rows[i] = { way = way.name, tokens_per_s = stats.median(found[i]), scaling = d.value, low = d.low, high = d.high }
    end
    local limit = ratio(found.pair, found[1])
    rows[#rows + 1] = { way = "2 processes, 1 thread each", tokens_per_s = stats.median(found.pair), scaling = limit.value,
                        low = limit.low, high = limit.high }
    print(("\n%d requests a replica, %d prompt and %d output tokens each, %d rounds in turn:\n")
      :format(o.requests, o.prompt, o.tokens, o.rounds))
    lathe.print(rows, { "way", { "tokens_per_s", "tokens/s", "%.0f" }, { "scaling", "× the first", "%.2f" },
                        { "low", "95% from", "%.2f" }, { "high", "to", "%.2f" } })
    local share, threads = ratio(found[2], found.pair), rows[4]
    print(("\nWhat was found: two replicas bring %.2f × one (95%% interval %.2f to %.2f), which is %.0f%% of what two processes\n" ..
           "reach on this machine (%.0f to %.0f%%); one replica with two threads brings %.2f × (%.2f to %.2f).")
      :format(rows[2].scaling, rows[2].low, rows[2].high, 100 * share.value, 100 * share.low, 100 * share.high,
        threads.scaling, threads.low, threads.high))
    print("Choose replicas for throughput when requests are many: each computes undisturbed, with a batch of its own that is\n" ..
          "large enough. Choose threads when requests are few or one answer must be quick: a replica alone cannot use the\n" ..
          "second core. It would change with a model that memory bandwidth holds back (two cores then share it, either way)\n" ..
          "and with weights too large to read twice.")
  end,
}

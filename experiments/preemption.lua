-- Recompute or swap: what should become of a preempted request's keys and values?
-- SPDX-License-Identifier: MIT
--
-- A pool that is a little too small: as many users as fit with a part of their answers, each with the
-- next request as soon as the last is answered. So the answers grow until somebody has to go.
-- Its blocks are thrown away and computed again when there is room (kvcache paged, preempt = "recompute"),
-- or moved to host memory and back (preempt = "swap"), at each of several costs a block, for prompts of
-- several lengths. Where both take as long is the crossover, the cost of a block above which to recompute.
--
-- What a block costs to recompute, by the model's own prices, is its tokens' prefill and their look at
-- what came before; to swap, two moves. Half of the former is the crossover that this sum predicts:
--
--   block_tokens · (prefill + prefill_context · context / 2) / 2
--
--   lathe run experiments/preemption.lua
--   lathe run experiments/preemption.lua -- --contexts 1000,16000 --prefill_us 20 --swap 50,100,200,400
--   lathe run experiments/preemption.lua -- --clock real --model smollm2-135m --contexts 64 --requests 12 --seeds 3 --users 4
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local BLOCK <const> = 16

local function numbers_of(name, text)
  local list = {}
  for word in text:gmatch "[^,]+" do
    local n = tonumber(word)
    if not n or n <= (list[#list] or 0) then
      error(("--%s: \"%s\" is no number, or not above the one before; write such as 100,1000"):format(name, word), 0)
    end
    list[#list + 1] = n
  end
  if #list == 0 then error(("--%s: name at least one"):format(name), 0) end
  return list
end

local function models_of(o, s)
  if o.clock == "real" then return { real = lathe.model { "llama", path = o.model } } end
  local models = {}
  for _, swap in ipairs(s.swaps) do
    models[swap] = lathe.model { "sim", prefill_us = o.prefill_us, prefill_context_ns = o.prefill_context_ns, swap_us = swap }
  end
  return models
end

-- Requests that came back computed again what they had lost, or moved what they held (as much as the step
-- after shows in KV).
local COUNTS <const> = {
  response = "select avg(finish_ns - planned_ns) / 1e9 from request where run_id = :run",
  preemptions = "select total(preemptions) from request where run_id = :run",
  failed = "select count(*) from request where run_id = :run and finish_reason <> 'length'",
  recomputed = [[select (select total(tokens) from step_request where run_id = :run)
                      - (select total(prompt_tokens + output_tokens - 1) from request where run_id = :run)]],
  moved = ([[select total(2 * ((c.context + %d) / %d)) from request_span p
             join step s on s.run_id = p.run_id and s.start_ns = p.to_ns
             join step_request c on c.run_id = s.run_id and c.step_id = s.id and c.request_id = p.request_id
             where p.run_id = :run and p.state = 'swapped']]):format(BLOCK - 1, BLOCK),
}

-- Where a rising ratio passes 1, between costs on a logarithmic scale; 0 or infinite if it doesn't.
local function crossing(swaps, ratios)
  if ratios[1] >= 1 then return 0 end
  for i = 2, #swaps do
    if ratios[i] >= 1 then
      local part = (1 - ratios[i - 1]) / (ratios[i] - ratios[i - 1])
      return swaps[i - 1] * (swaps[i] / swaps[i - 1]) ^ part
    end
  end
  return math.huge
end

return {
  options = {
    model    = { default = "sim", help = "the model: sim, or a short name or GGUF file with --clock real" },
    clock    = { default = "virtual", help = "which clock the runs go by", choices = { "virtual", "real" } },
    contexts = { default = "128,512,2048,8192", help = "lengths of prompts, in tokens" },
    swap     = { default = "100,300,500,700,1000,3000", help = "what moving a block costs in virtual time, in us" },
    prefill_us = { default = 80.0, help = "what computing a prompt token costs in virtual time", unit = "us", min = 0 },
    prefill_context_ns = { default = 10.0, help = "and its look at each token before it", unit = "ns", min = 0 },
    batching = { default = "chunked", choices = { "chunked", "continuous" },
                 help = "chunked lets a prompt in when all of it fits, continuous when a step's part of it does" },
    output   = { default = 160, help = "mean length of an answer", unit = "tokens", min = 4, max = 4000 },
    room     = { default = 0.6, help = "the part of a median answer that the pool has room for, beside the prompts", min = 0.05, max = 4 },
    users    = { default = 8, help = "users, whose next request follows the last", min = 2, max = 256 },
    requests = { default = 120, help = "a run", min = 8 },
    seeds    = { default = 5, help = "runs of each", min = 3 },
  },

  prepare = function(o)
    local s = { contexts = numbers_of("contexts", o.contexts), swaps = numbers_of("swap", o.swap) }
    s.models = models_of(o, s)
    if o.clock == "real" then s.swaps = { "real" } end -- a move costs what it costs
    s.ways = table.move(s.swaps, 1, #s.swaps, 2, { "recompute" })
    return s
  end,

  run = function(o, s)
    local sweep = lathe.sweep {
      name = "preemption", jobs = o.clock == "virtual" and 2 or 1, seeds = o.seeds, metrics = COUNTS,
      grid = { context = s.contexts, way = s.ways },
      run = function(p)
        local tokens = o.users * (p.context + o.room * o.output) // 1
        return {
          model = s.models[p.way] or s.models[s.swaps[1]], clock = o.clock, scheduler = "fcfs", batching = o.batching,
          kvcache = { "paged", preempt = p.way == "recompute" and "recompute" or "swap", block_tokens = BLOCK,
                      blocks = math.tointeger(math.max(tokens // BLOCK, (p.context + 4 * o.output) // BLOCK + 1)) },
          engine = { batch_requests = o.users, batch_tokens = 512, max_requests = 2 * o.users,
                     context_tokens = p.context + 4 * o.output },
          trace = { rows = "step_requests" },
          workload = workload.closed { concurrency = o.users, think = 0, requests = o.requests, seed = p.seed, prompt = p.context,
            output = workload.lognormal { median = o.output, sigma = 0.5, min = 2, max = 3 * o.output } },
        }
      end }
    local found = {}
    for _, row in ipairs(sweep:runs()) do
      local key = ("%s %s"):format(row.point.context, row.point.way)
      found[key] = found[key] or {}
      found[key][row.seed] = row.metrics
    end
    return found
  end,

  report = function(o, found, s)
    local seeds = {}
    for i = 1, o.seeds do seeds[i] = i end
    local function total(context, way, name, sample)
      local sum, of = 0, found[("%s %s"):format(context, way)]
      for _, seed in ipairs(sample) do sum = sum + of[seed][name] end
      return sum / #sample
    end
    local function ratio(context, way, sample)
      return total(context, way, "response", sample) / total(context, "recompute", "response", sample)
    end
    local function interval(statistic) return stats.bootstrap(seeds, { statistic = statistic, resamples = 1000, seed = 1 }) end

    local rows = {}
    for _, context in ipairs(s.contexts) do
      for _, way in ipairs(s.ways) do
        local d = interval(function(sample) return ratio(context, way, sample) end)
        local shown = way == "recompute" and way or way == "real" and "swap" or ("swap, %g us a block"):format(way)
        local row = { context = context, way = shown,
                      ratio = way == "recompute" and "1" or ("%.3f (%.3f to %.3f)"):format(d.value, d.low, d.high) }
        for _, name in ipairs { "response", "preemptions", "recomputed", "moved", "failed" } do
          row[name] = total(context, way, name, seeds)
        end
        rows[#rows + 1] = row
      end
    end
    print(("\n%d users, a pool for each one's prompt and %d tokens, answers of %d (median); means of %d seeds of %d requests:\n")
      :format(o.users, o.room * o.output // 1, o.output, o.seeds, o.requests))
    lathe.print(rows, { { "context", "prompt", "%d" }, { "way", "preempted are" }, { "preemptions", "preemptions", "%.1f" },
      { "recomputed", "tokens recomputed", "%.0f" }, { "moved", "blocks moved", "%.0f" }, { "response", "response, s", "%.3f" },
      { "ratio", "over recompute's (95%)" }, { "failed", "failed", "%.1f" } })

    print "\nWhat was found:"
    -- Draws of no crossing are infinite; an interval between two of those isn't a number.
    local function crossover(context)
      local c = interval(function(sample)
        local ratios = {}
        for i, swap in ipairs(s.swaps) do ratios[i] = ratio(context, swap, sample) end
        return math.min(crossing(s.swaps, ratios), 1e9)
      end)
      local function said(us) return us >= 1e9 and "beyond all of these" or us == 0 and "below all of these" or ("%.0f us"):format(us) end
      local predicted = BLOCK * (o.prefill_us + o.prefill_context_ns / 1e3 * context / 2) / 2
      return ("the two meet where a block moves in %s (95%% interval %s to %s); the sum says %.0f us."):format(said(c.value),
        said(c.low), said(c.high), predicted)
    end
    for _, context in ipairs(s.contexts) do
      local what
      if total(context, "recompute", "preemptions", seeds) == 0 then
        what = "nobody was preempted; try another --room."
      elseif o.clock == "real" then
        local d = interval(function(sample) return ratio(context, "real", sample) end)
        what = ("swapping takes %.3f × the response of recomputing (95%% interval %.3f to %.3f)."):format(d.value, d.low, d.high)
      else
        what = crossover(context)
      end
      print(("Prompts of %d: %s"):format(context, what))
    end
    if o.clock == "virtual" then print "Blocks that move in less than that are better swapped, slower ones are better computed again." end
    print "What would change this: the price of a prompt token (a faster machine recomputes sooner: --prefill_us), of looking back\n\z
           (--prefill_context_ns: the longer the context, the more a swap may cost), prefixes that are shared (recomputing finds them in\n\z
           the cache), and moves that go on beside the forward, which are free until they are late. With --batching continuous, which\n\z
           lets a prompt in by parts, those that come back are preempted again half-way, and recomputing loses whatever a move costs."
  end,
}

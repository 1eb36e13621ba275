-- What does one flooding tenant do to the others?
-- SPDX-License-Identifier: MIT
--
-- First a flood: polite tenants ask for a small part of what the server can do, another one for twice all
-- of it. Who comes first is served first (fcfs), or each tenant has a counter of what it got (vtc, Sheng
-- et al. 2024). A tenant's due is its max-min share of the service there was, by weights, at most what it
-- asked for. Service counts w_p = 1 for a prompt token and w_q = 2 for an output token, as in the paper.
--
-- Then the promise: of two tenants that both have requests waiting, service (over the weight) never differs
-- by more than 2 · max(w_p · L_input, w_q · M), over any stretch of time. L_input is the longest prompt, M
-- the tokens that a running batch can hold: here the KV pool's. It is checked after every step in which
-- both waited; the largest difference over any stretch is the range of the running difference. What the
-- paper assumes holds here: the pool has room for every place's longest request, so that nobody is
-- preempted, and nothing is cached. (If they don't: recomputed tokens aren't charged again, cached ones not
-- at all unless charge_cached, and what is counted here is what was computed for the first time.)
--
--   lathe run experiments/fairness.lua
--   lathe run experiments/fairness.lua -- --flood 5 --polite 8
--   lathe run experiments/fairness.lua -- --clock real --model smollm2-135m --requests 40 --seeds 3 --places 4
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local W_P <const>, W_Q <const> = 1, 2
local MAX_PROMPT <const>, MAX_OUTPUT <const> = 320, 160
local BLOCK <const> = 16

-- What a row of step_request `c` of a request `q` is worth.
local SERVICE <const> = ([[(case when c.phase = 'prefill' then %d * c.tokens else 0 end +
  case when c.phase = 'decode' or c.first_position + c.tokens >= q.prompt_tokens then %d else 0 end)]]):format(W_P, W_Q)

local FLOOD <const> = {
  { name = "fcfs",                 scheduler = "fcfs", weight = 1 },
  { name = "vtc",                  scheduler = "vtc",  weight = 1 },
  { name = "vtc, flooder weighs 4", scheduler = "vtc",  weight = 4 },
}
local PROMISE <const> = {
  { name = "fcfs",                 scheduler = "fcfs", weight = 1 },
  { name = "vtc",                  scheduler = "vtc",  weight = 1 },
  { name = "vtc, b weighs 2",      scheduler = "vtc",  weight = 2 },
}

local function blocks_of(places) return places * math.ceil((MAX_PROMPT + MAX_OUTPUT) / BLOCK) end

local function one_run(o, s, way, load, seed, label)
  local model, clock = s.model, o.clock
  return lathe.run { model = model, clock = clock, scheduler = way.scheduler, batching = "continuous",
                     kvcache = { "paged", blocks = blocks_of(o.places), block_tokens = BLOCK }, workload = load, seed = seed,
                     label = ("%s: %s"):format(label, way.name), factors = { part = label, scheduler = way.name },
                     trace = { rows = "step_requests" },
                     engine = { batch_requests = o.places, batch_tokens = 512, max_requests = o.requests,
                                context_tokens = MAX_PROMPT + MAX_OUTPUT } }
end

local function lengths(t)
  t.prompt = workload.lognormal { median = 80, sigma = 0.6, min = 4, max = MAX_PROMPT }
  t.output = workload.lognormal { median = 40, sigma = 0.6, min = 2, max = MAX_OUTPUT }
  return t
end

-- Requests a second that the server ends, kept busy.
local function capacity_of(o, s)
  local burst = workload.burst(lengths { size = o.requests, every = 0, requests = o.requests, seed = 1 })
  local r <close> = one_run(o, s, FLOOD[1], burst, 1, "capacity")
  return o.requests / (r:query "select max(finish_ns) / 1e9 as s from request where run_id = :run")[1].s
end

-- ── the flood ─────────────────────────────────────────────────────────────────────────

-- Water-filling: what each gets of `total` by weight, at most its demand.
local function dues(total, tenants)
  local due, left, open = {}, total, {}
  for name in pairs(tenants) do open[name] = true end
  while next(open) do
    local weights, filled = 0, false
    for name in pairs(open) do weights = weights + tenants[name].weight end
    local level = left / weights
    for name in pairs(open) do
      if tenants[name].demand <= level * tenants[name].weight then
        due[name], filled = tenants[name].demand, true
      end
    end
    for name in pairs(open) do
      if filled and due[name] then
        left, open[name] = left - due[name], nil
      elseif not filled then
        due[name], open[name] = level * tenants[name].weight, nil
      end
    end
  end
  return due
end

local function jain(values)
  local sum, squares = 0, 0
  for _, v in ipairs(values) do sum, squares = sum + v, squares + v * v end
  return squares > 0 and sum * sum / (#values * squares) or 1
end

-- While requests arrive: what each tenant got of its due, in all and in the worst window of a polite one.
local function flood_figures(r, way)
  local last = r:query "select max(planned_ns) as ns from request where run_id = :run"[1].ns
  local tenants, total = {}, 0
  for _, t in ipairs(r:query(([[select tenant, sum(%d * prompt_tokens + %d * output_tokens) as demand from request
      where run_id = :run group by tenant]]):format(W_P, W_Q))) do
    tenants[t.tenant] = { demand = t.demand, weight = t.tenant == "flooder" and way.weight or 1, got = 0, cells = {} }
  end
  local cells <const>, window <const> = 40, 10 -- a window slides by a fortieth of the run, and is a quarter of it
  for _, row in ipairs(r:query(([[select q.tenant, min(s.end_ns * %d / %d, %d) as cell, sum(%s) as service
      from step_request c join step s on s.run_id = c.run_id and s.id = c.step_id
      join request q on q.run_id = c.run_id and q.id = c.request_id
      where c.run_id = :run and s.end_ns <= %d group by 1, 2]]):format(cells, last, cells - 1, SERVICE, last))) do
    local t = tenants[row.tenant]
    t.got, t.cells[row.cell] = t.got + row.service, row.service
    total = total + row.service
  end
  local due, satisfied, worst = dues(total, tenants), {}, math.huge
  for name, t in pairs(tenants) do
    satisfied[#satisfied + 1] = t.got / due[name]
    for from = 0, name == "flooder" and -1 or cells - window do
      local got = 0
      for cell = from, from + window - 1 do got = got + (t.cells[cell] or 0) end
      worst = math.min(worst, got / (due[name] * window / cells))
    end
  end
  local function ttft(who)
    return stats.column(r:query(([[select (first_token_ns - planned_ns) / 1e6 as ms from request
        where run_id = :run and tenant %s 'flooder' and first_token_ns is not null]]):format(who)), "ms")
  end
  local polite, flooder = ttft "<>", ttft "="
  return { jain = jain(satisfied), worst = worst, p50 = stats.median(polite), p99 = stats.percentile(polite, 99),
           flooder = stats.median(flooder) }
end

local function flood(o, s)
  local found = {}
  for i = 1, #FLOOD do found[i] = { jain = {}, worst = {}, p50 = {}, p99 = {}, flooder = {} } end
  for seed = 1, o.seeds do
    for i, way in ipairs(FLOOD) do
      local classes = { { tenant = "flooder", share = o.flood, weight = way.weight } }
      for n = 1, o.polite do classes[n + 1] = { tenant = "polite " .. n, share = o.asks } end
      local load = workload.poisson(lengths { rate = s.capacity * (o.flood + o.polite * o.asks), requests = o.requests,
                                              seed = seed, classes = classes })
      local r <close> = one_run(o, s, way, load, seed, "flood")
      for name, value in pairs(flood_figures(r, way)) do found[i][name][seed] = value end
    end
  end
  return found
end

-- ── the promise ───────────────────────────────────────────────────────────────────────

-- How many of `times` (ascending) are ≤ now, going on from where it stood.
local function counter(times)
  local n = 0
  return function(now)
    while n < #times and times[n + 1] <= now do n = n + 1 end
    return n
  end
end

-- After every step: does each of the two still have requests waiting, and how far are they apart?
local function promise_figures(r, way)
  local waiting = {}
  for _, tenant in ipairs { "a", "b" } do
    local function times(column)
      return counter(stats.column(r:query(([[select %s as ns from request where run_id = :run and tenant = '%s' and %s is not null
          order by 1]]):format(column, tenant, column)), "ns"))
    end
    local arrived, admitted = times "arrival_ns", times "admitted_ns"
    waiting[tenant] = function(now) return arrived(now) > admitted(now) end
  end
  local apart, low, high, largest, steps, got = 0, 0, 0, 0, 0, { a = 0, b = 0 }
  for _, step in ipairs(r:query(([[select s.start_ns, total(case when q.tenant = 'a' then %s end) as a,
        total(case when q.tenant = 'b' then %s end) as b
      from step_request c join step s on s.run_id = c.run_id and s.id = c.step_id
      join request q on q.run_id = c.run_id and q.id = c.request_id
      where c.run_id = :run group by c.step_id order by c.step_id]]):format(SERVICE, SERVICE))) do
    local a, b = waiting.a(step.start_ns), waiting.b(step.start_ns)
    if a and b then
      apart, steps = apart + step.a - step.b / way.weight, steps + 1
      low, high = math.min(low, apart), math.max(high, apart)
      largest = math.max(largest, high - low)
      got.a, got.b = got.a + step.a, got.b + step.b
    else
      apart, low, high = 0, 0, 0 -- another stretch
    end
  end
  local preempted = r:query "select sum(preemptions) as n, sum(cached_tokens) as cached from request where run_id = :run"[1]
  return { largest = largest, steps = steps, ratio = got.b / math.max(got.a, 1), preempted = preempted.n, cached = preempted.cached }
end

local function promise(o, s)
  local found = {}
  for i, way in ipairs(PROMISE) do
    found[i] = { largest = 0, steps = 0, preempted = 0, cached = 0, ratio = {} }
    for seed = 1, o.seeds do -- each asks for more than its part, b for three times as much as a
      local load = workload.poisson(lengths { rate = 4 * s.capacity, requests = o.requests, seed = seed, classes = {
        { tenant = "a", share = 1 }, { tenant = "b", share = 3, weight = way.weight } } })
      local r <close> = one_run(o, s, way, load, seed, "promise")
      local of = promise_figures(r, way)
      found[i].ratio[seed] = of.ratio
      found[i].largest = math.max(found[i].largest, of.largest)
      for _, name in ipairs { "steps", "preempted", "cached" } do found[i][name] = found[i][name] + of[name] end
    end
  end
  return found
end

-- ── the whole ─────────────────────────────────────────────────────────────────────────

local function print_flood(o, found)
  local rows = {}
  for i, way in ipairs(FLOOD) do
    rows[i] = { way = way.name }
    for name, values in pairs(found[i]) do rows[i][name] = stats.mean(values) end
  end
  print(("\nA flood of %g × what the server can do, beside %d polite tenants that ask for %g of it each; %d requests, mean of %d seeds:\n")
    :format(o.flood, o.polite, o.asks, o.requests, o.seeds))
  lathe.print(rows, { { "way", "scheduler" }, { "p50", "polite TTFT median, ms", "%.0f" }, { "p99", "p99", "%.0f" },
    { "flooder", "flooder's median", "%.0f" }, { "worst", "worst quarter, of its due", "%.2f" }, { "jain", "Jain's index", "%.3f" } })
end

local function print_promise(o, found, bound)
  local rows = {}
  for i, way in ipairs(PROMISE) do
    rows[i] = { way = way.name, steps = found[i].steps, largest = found[i].largest, share = 100 * found[i].largest / bound,
                ratio = stats.mean(found[i].ratio), preempted = found[i].preempted, cached = found[i].cached }
  end
  print(("\nTwo tenants with requests waiting, b asks for three times as much; bound 2 · max(%d · %d, %d · %d) = %d:\n")
    :format(W_P, MAX_PROMPT, W_Q, blocks_of(o.places) * BLOCK, bound))
  lathe.print(rows, { { "way", "scheduler" }, { "steps", "steps checked", "%d" }, { "largest", "largest difference", "%.0f" },
    { "share", "% of the bound", "%.1f" }, { "ratio", "b's service / a's", "%.2f" }, { "preempted", "preemptions", "%d" },
    { "cached", "cached tokens", "%d" } })
  return rows
end

return {
  options = {
    model    = { default = "sim", help = "the model: sim, or a short name or GGUF file with --clock real" },
    clock    = { default = "virtual", help = "which clock the runs go by", choices = { "virtual", "real" } },
    polite   = { default = 3, help = "polite tenants", min = 1, max = 100 },
    asks     = { default = 0.15, help = "what each of them asks for, as a share of what the server can do", min = 0.001, max = 1 },
    flood    = { default = 2.0, help = "what the flooder asks for", min = 0.01, max = 1000 },
    places   = { default = 8, help = "requests in a batch", min = 2, max = 256 },
    requests = { default = 3000, help = "a run", min = 40 },
    seeds    = { default = 6, help = "runs of each", min = 3 },
  },

  prepare = function(o)
    local s = { model = o.model == "sim" and lathe.model "sim" or lathe.model { "llama", path = o.model } }
    s.capacity = capacity_of(o, s)
    return s
  end,

  run = function(o, s) return { flood = flood(o, s), promise = promise(o, s) } end,

  report = function(o, found)
    local bound = 2 * math.max(W_P * MAX_PROMPT, W_Q * blocks_of(o.places) * BLOCK)
    print_flood(o, found.flood)
    local rows = print_promise(o, found.promise, bound)
    local sooner = {}
    for seed = 1, o.seeds do sooner[seed] = found.flood[2].p50[seed] / found.flood[1].p50[seed] end
    local d, worst, kept = stats.bootstrap(sooner), stats.bootstrap(found.flood[1].worst), stats.bootstrap(found.flood[2].worst)
    print "\nWhat was found:"
    print(("Under fcfs the flood is everybody's: in its worst quarter a polite one got %.2f of its due (95%% interval %.2f to %.2f),\n" ..
           "under vtc %.2f (%.2f to %.2f); its median first token takes %.2g of the time that it takes under fcfs (%.2g to %.2g).")
      :format(worst.value, worst.low, worst.high, kept.value, kept.low, kept.high, d.value, d.low, d.high))
    for _, row in ipairs(rows) do
      print(("%s %s the bound: %.1f%% of it at most, over %d steps of %d runs."):format(row.way,
        row.share <= 100 and "kept" or "BROKE", row.share, row.steps, o.seeds))
    end
    print "What would change this: a flooder who splits into many tenants (the counter is by name); places that long requests hold\n\z
           for long, since nobody who runs is stopped (vtc's preempt_margin does); and a flood that ends, after which fcfs recovers\n\z
           only when its queue is gone. Under fcfs the figures grow with the length of the flood (--requests), under vtc they don't."
  end,
}

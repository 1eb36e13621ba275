-- Does a run that is traced decide the same, and how much slower is it?
-- SPDX-License-Identifier: MIT
--
-- In virtual time recording takes none: the same requests, with preemption, chunks and two replicas,
-- are run with nothing recorded and with rows of every level, and all figures and all rows that two
-- levels share are compared, exactly.
--
-- In real time recording takes time. First everything is there at once, so that decisions don't hang
-- on when something happened: tokens (all levels) and rows of step_request (the levels that have
-- them) are compared exactly, and how long the whole took is compared in interleaved rounds. Then
-- requests arrive at a share of what the first part managed, where a late step decides otherwise:
-- how far the order in which they end changes, and TTFT and TPOT, beside what two runs differ in
-- that both record a row a request only, which is as little as can be asked about.
--
--   lathe run experiments/probe_effect.lua
--   lathe run experiments/probe_effect.lua -- --model smollm2-135m --requests 8 --tokens 12 --rounds 6
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local LEVELS <const> = { "requests", "steps", "step_requests", "tokens" }
local WAYS <const> = {
  { name = "nothing",            trace = false },
  { name = "rows of requests",   trace = { rows = "requests" } },
  { name = "rows of every token", trace = { rows = "tokens" } },
  { name = "and all attention",  trace = { rows = "tokens", attention = "summary" } },
}
local OPEN <const> = { WAYS[2], { name = "the same again", trace = WAYS[2].trace }, WAYS[3], WAYS[4] }

-- ── virtual time ───────────────────────────────────────────────────────────────────────

-- Figures of two simulations that are not the same number. How long the machine took is none of them.
local function differing_figures(a, b, path)
  local n, of = 0, 0
  for name, value in pairs(a) do
    if type(value) == "table" then
      local more, among = differing_figures(value, b[name], name)
      n, of = n + more, of + among
    elseif name ~= "wall_s" or path then
      n, of = n + (value ~= b[name] and 1 or 0), of + 1
    end
  end
  return n, of
end

local SHARED <const> = {
  { from = 1, sql = "select id, replica, planned_ns, admitted_ns, first_token_ns, finish_ns, output_tokens, preemptions from request" },
  { from = 2, sql = "select id, replica, start_ns, end_ns, requests, prefill_tokens, decode_tokens, kv_blocks_used from step" },
  { from = 3, sql = "select step_id, request_id, phase, first_position, tokens, context from step_request" },
}

-- Rows that only one of two runs of a database has, and how many there are.
local function differing_rows(a, b, sql)
  local function only(x, y)
    return a:query(("select count(*) as n from (%s where run_id = %d except %s where run_id = %d)"):format(sql, x.id, sql, y.id))[1].n
  end
  return only(a, b) + only(b, a), a:query(("select count(*) as n from (%s where run_id = %d)"):format(sql, a.id))[1].n
end

local function virtual(o)
  local found = { figures = 0, figures_of = 0, rows = 0, rows_of = 0, preemptions = 0, requests = o.simulated }
  local load = workload.poisson { rate = 18, requests = o.simulated, seed = o.seed, predicted = { noise = 0.5 },
    prompt = workload.lognormal { median = 500, sigma = 1, max = 4000 },
    output = workload.lognormal { median = 90, sigma = 0.8, max = 800 } }
  local function run(trace)
    return lathe.fleet { model = lathe.model "sim", clock = "virtual", replicas = 2, router = "p2c", scheduler = "srpt",
                         batching = "chunked", workload = load, seed = o.seed, trace = trace, label = "virtual",
                         engine = { batch_requests = 32, kv_memory_mb = 12, context_tokens = 8192 } }
  end
  local reference, runs = run(false), {}
  found.preemptions = reference.summary.preemptions
  for i, level in ipairs(LEVELS) do
    runs[i] = run { rows = level }
    local n, of = differing_figures(reference.summary, runs[i].summary)
    found.figures, found.figures_of = found.figures + n, found.figures_of + of
    for _, shared in ipairs(SHARED) do
      if i > shared.from then
        local more, among = differing_rows(runs[shared.from], runs[i], shared.sql)
        found.rows, found.rows_of = found.rows + more, found.rows_of + among
      end
    end
  end
  for _, r in ipairs(runs) do r:close() end
  return found
end

-- ── real time ──────────────────────────────────────────────────────────────────────────

local function lengths(o, fields)
  local t = { requests = o.requests, seed = o.seed,
              prompt = workload.lognormal { median = o.prompt, sigma = 0.7, min = 2, max = 4 * o.prompt },
              output = workload.lognormal { median = o.tokens, sigma = 0.5, min = 2, max = 3 * o.tokens } }
  for k, v in pairs(fields) do t[k] = v end
  return t
end

local function run(o, model, load, way)
  return lathe.run { model = model, workload = load, seed = o.seed, label = way.name, trace = way.trace,
                     engine = { batch_requests = 8, max_requests = o.requests } }
end

local function tokens_of(r)
  local texts = {}
  for i, output in ipairs(r:outputs()) do texts[i] = table.concat(output.tokens, " ") end
  return texts
end

-- Everything at once; ways take turns within each round.
local function at_once(o, model)
  local load = workload.burst(lengths(o, { size = o.requests, every = 0 }))
  local found = { tokens = 0, rows = 0, rows_of = 0 }
  for i = 1, #WAYS do found[i] = {} end
  for round = 0, o.rounds do -- round 0 warms up
    local runs = {}
    for k = 1, #WAYS do
      local i = (k + round) % #WAYS + 1
      runs[i] = run(o, model, load, WAYS[i])
      if round > 0 then found[i][round] = runs[i].elapsed_s end
    end
    local reference = tokens_of(runs[1])
    for i = 2, #WAYS do
      for k, text in ipairs(tokens_of(runs[i])) do found.tokens = found.tokens + (text ~= reference[k] and 1 or 0) end
    end
    local n, of = differing_rows(runs[3], runs[4], SHARED[3].sql)
    found.rows, found.rows_of = found.rows + n, found.rows_of + of
    for _, r in ipairs(runs) do r:close() end
  end
  return found
end

local function order_of(r)
  local order = {}
  for i, row in ipairs(r:query "select id from request where run_id = :run order by finish_ns, id") do order[i] = row.id end
  return order
end

-- The share of places in the order of ends that another request has.
local function moved(a, b)
  local n = 0
  for i, id in ipairs(a) do n = n + (b[i] ~= id and 1 or 0) end
  return n / #a
end

-- They arrive: `places[i][round]` against the first way, ttft and tpot medians in ms.
local function arriving(o, model, rate)
  local load = workload.poisson(lengths(o, { rate = rate }))
  local found = { rate = rate }
  for i = 1, #OPEN do found[i] = { places = {}, ttft = {}, tpot = {} } end
  for round = 0, o.rounds do
    local orders = {}
    for k = 1, #OPEN do
      local i = (k + round) % #OPEN + 1
      local r <close> = run(o, model, load, OPEN[i])
      local row = r:query "select ttft_p50_ms, tpot_p50_ms from run_latency where run_id = :run"[1]
      orders[i] = order_of(r)
      if round > 0 then found[i].ttft[round], found[i].tpot[round] = row.ttft_p50_ms, row.tpot_p50_ms end
    end
    for i = 2, #OPEN do
      if round > 0 then found[i].places[round] = 100 * moved(orders[1], orders[i]) end
    end
  end
  return found
end

-- ── what is said ───────────────────────────────────────────────────────────────────────

local function ratios(a, b)
  local list = {}
  for i = 1, #a do list[i] = 100 * (a[i] / b[i] - 1) end
  return list
end

local function interval(values, seed)
  local d = stats.bootstrap(values, { statistic = stats.median, seed = seed })
  return ("%+.1f (%+.1f to %+.1f)"):format(d.value, d.low, d.high), d
end

-- In percent, and whether it is one.
local function cost(d)
  return ("%+.1f%% (95%% interval %+.1f to %+.1f%s)"):format(d.value, d.low, d.high,
    (d.low < 0) == (d.high < 0) and "" or ", which is not to be told from nothing")
end

return {
  options = {
    model     = { default = "tiny", help = "the model of the real clock: tiny, a short name or a GGUF file" },
    simulated = { default = 2000, help = "requests of the virtual clock", min = 20 },
    requests  = { default = 200, help = "requests of the real clock, each run", min = 4 },
    prompt    = { default = 24, help = "median length of a prompt", unit = "tokens", min = 2, max = 512 },
    tokens    = { default = 16, help = "median length of an answer", unit = "tokens", min = 2, max = 256 },
    load      = { default = 0.6, help = "arrivals of the second part, of what the first managed", min = 0.05, max = 2 },
    rounds    = { default = 12, help = "interleaved rounds", min = 3 },
    seed      = { default = 1, help = "of arrivals, lengths and intervals", min = 0 },
  },

  prepare = function(o)
    return { model = o.model == "tiny" and lathe.model "tiny" or lathe.model { "llama", path = o.model } }
  end,

  run = function(o, s)
    local found = { virtual = virtual(o), at_once = at_once(o, s.model) }
    found.arriving = arriving(o, s.model, o.load * o.requests / stats.median(found.at_once[1]))
    return found
  end,

  report = function(o, found)
    local v, a, b = found.virtual, found.at_once, found.arriving
    print(("\nVirtual time, %d requests, %d preemptions: %d of %d figures and %d of %d rows differ between levels of recording.")
      :format(v.requests, v.preemptions, v.figures, v.figures_of, v.rows, v.rows_of))
    print(("\nReal time, %s, %d requests at once: %d of %d answers and %d of %d rows of step_request differ.\n")
      :format(o.model, o.requests, a.tokens, (#WAYS - 1) * (o.rounds + 1) * o.requests, a.rows, a.rows_of))
    local rows, slower = {}, {}
    for i, way in ipairs(WAYS) do
      rows[i] = { way = way.name, ms = 1e3 * stats.median(a[i]) }
      if i > 1 then rows[i].more, slower[i] = interval(ratios(a[i], a[1]), o.seed) end
    end
    lathe.print(rows, { { "way", "recorded" }, { "ms", "all answered in ms", "%.1f" }, { "more", "more %, 95% interval" } })
    print(("\nArriving at %.0f/s, against the first row of the same round:\n"):format(b.rate))
    rows = {}
    for i, way in ipairs(OPEN) do
      rows[i] = { way = way.name, ttft = stats.median(b[i].ttft), tpot = stats.median(b[i].tpot) }
      if i > 1 then
        rows[i].places, rows[i].first = stats.mean(b[i].places), interval(ratios(b[i].ttft, b[1].ttft), o.seed)
        rows[i].further = interval(ratios(b[i].tpot, b[1].tpot), o.seed)
      end
    end
    lathe.print(rows, { { "way", "recorded" }, { "places", "places changed %", "%.1f" }, { "ttft", "TTFT p50 ms", "%.2f" },
                        { "first", "more %, 95% interval" }, { "tpot", "TPOT p50 ms", "%.3f" }, { "further", "more %, 95% interval" } })

    local same = v.figures + v.rows == 0
    print "\nWhat was found:"
    print(same and "By the virtual clock a traced run decides the same, to the nanosecond." or
          "By the virtual clock a traced run decides otherwise: that is a bug.")
    print(("By the real clock it decides and says %s where decisions don't hang on time. The whole takes longer by:\n" ..
           "  rows of every token %s,\n  all attention besides %s.")
      :format(a.tokens + a.rows == 0 and "the same" or "something ELSE", cost(slower[3]), cost(slower[4])))
    for i = 3, #OPEN do
      local d = stats.paired_difference(b[i].places, b[2].places, { seed = o.seed })
      print(("Where requests arrive, %s: %.1f%% of the places in the order of ends change, between two runs alike %.1f%%\n" ..
             "  (difference %+.1f points, 95%% interval %+.1f to %+.1f).")
        :format(OPEN[i].name, stats.mean(b[i].places), stats.mean(b[2].places), d.value, d.low, d.high))
    end
    print("What would change this: a larger model, whose steps take milliseconds and whose rows are as few (try --model smollm2-135m);\n" ..
          "a disk so slow that the rings run full, since the engine then waits (trace = { on_full = \"drop\" } drops instead); a load\n" ..
          "so near to what can be done that a few microseconds a step are the difference.")
  end,
}

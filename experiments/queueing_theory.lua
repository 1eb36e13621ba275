-- Does the simulator obey exact queueing theory?
-- SPDX-License-Identifier: MIT
--
-- The engine that serves models, with its own schedulers, batchings and routers, in virtual time on a
-- model that is only its time, and a batch of one: then a replica is the server of queueing theory, and
-- what it must do is known exactly. What is measured, and how, stands in queueing_theory/systems.lua.
-- Each figure is a mean over independent replications, with Student's interval at a level at which all
-- intervals hold together with 95% (Bonferroni). Whether such intervals cover what they should is tried
-- on short M/M/1 runs, 1,000 intervals of them.
--
--   lathe run experiments/queueing_theory.lua
--   lathe run experiments/queueing_theory.lua -- --full --conv azure_conv.csv --code azure_code.csv --report
--   lathe run experiments/queueing_theory.lua -- --only srpt --scale 0.2
local lathe     = require "lathe"
local replicate = require "lathe.replicate"
local stats     = require "lathe.stats"
local systems   = require "queueing_theory.systems"

local LEVEL <const> = 0.95

-- ── measuring ─────────────────────────────────────────────────────────────────────────

local function replications(o, system, variant, requests, warmup)
  return replicate {
    count = math.min(o.replications, variant.count or o.replications), jobs = o.jobs, read = variant.read,
    run = function(i)
      local run = variant.describe(requests + warmup, o.seed + i)
      run.seed, run.clock, run.trace, run.warmup, run.label = o.seed + i, "virtual", false, warmup, system.name
      return run
    end,
  }
end

-- → claims of one system
local function measured(o, system)
  local size = o.full and system.full or system.quick
  local requests, warmup = math.max(100, math.floor(o.scale * size.requests)), math.ceil(math.min(1, o.scale) * size.warmup)
  local samples = {}
  for name, variant in pairs(system.variants) do
    samples[name] = {}
    for i, figures in ipairs(replications(o, system, variant, requests, warmup)) do
      for figure, value in pairs(figures) do
        samples[name][figure] = samples[name][figure] or {}
        samples[name][figure][i] = value
      end
    end
  end
  local claims = system.claims(samples, requests, warmup)
  for _, claim in ipairs(claims) do claim.requests = requests * o.replications end
  return claims
end

-- How often an interval of 20 short runs, made as all the others here, holds the truth.
local function coverage(o)
  local held, system, runs, seed = 0, systems.short(), 20, o.seed + 1000000
  for n = 1, o.coverage do
    local values = replicate { count = runs, jobs = o.jobs, read = system.read, run = function(i)
      local run = system.describe(system.requests, seed + n * runs + i)
      run.seed, run.clock, run.trace, run.warmup = i, "virtual", false, system.warmup
      return run
    end }
    local interval = stats.mean_ci(values, { level = LEVEL })
    held = held + (interval.low <= system.theory and system.theory <= interval.high and 1 or 0)
  end
  return stats.share_ci(held, o.coverage)
end

-- ── reporting ─────────────────────────────────────────────────────────────────────────

-- With the level shared among all claims. A claim holds where theory, and what this system is known to be away from
-- it, lie in the interval; or, of a difference, where the interval lies on the side that it should. With --full the
-- interval must also be narrow enough to say something.
local function judge(o, claims)
  local level = stats.bonferroni(LEVEL, #claims)
  for _, claim in ipairs(claims) do
    local interval = claim.interval(level)
    claim.value, claim.half = interval.value, interval.half
    if claim.theory then
      claim.holds = math.abs(claim.value - claim.theory * (1 + (claim.bias or 0))) <= claim.half
      claim.wide = claim.half > claim.most * claim.theory
    else
      claim.holds = interval.low > 0
    end
    claim.verdict = not claim.holds and "NO" or o.full and claim.wide and "too wide" or "yes"
  end
end

-- Name of a claim's field, title, format.
local COLUMNS <const> = {
  { "name", "quantity", "%s" }, { "theory", "theory", "%.5f" }, { "value", "simulated", "%.5f" }, { "half", "±", "%.5f" },
  { "width", "± %", "%.2f" }, { "off", "off %", "%+.2f" }, { "bias", "known %", "%+.3f" },
  { "millions", "M jobs", "%.3g" }, { "verdict", "holds", "%s" },
}

local function print_markdown(rows)
  local titles = {}
  for i, column in ipairs(COLUMNS) do titles[i] = column[2] end
  print("\n| " .. table.concat(titles, " | ") .. " |")
  print("| ---" .. (" | ---:"):rep(#COLUMNS - 2) .. " | --- |")
  for _, row in ipairs(rows) do
    local cells = {}
    for i, column in ipairs(COLUMNS) do cells[i] = row[column[1]] and column[3]:format(row[column[1]]) or "" end
    print("| " .. table.concat(cells, " | ") .. " |")
  end
end

local function percent(share, of) return share and 100 * share / of end

local function print_claims(o, claims)
  local rows = {}
  for i, c in ipairs(claims) do
    rows[i] = { name = c.name, theory = c.theory, value = c.value, half = c.half, width = percent(c.half, c.theory or c.value),
                off = c.theory and percent(c.value - c.theory, c.theory), bias = percent(c.bias, 1),
                millions = c.requests / 1e6, verdict = c.verdict }
  end
  if o.report then
    print_markdown(rows)
  else
    print()
    lathe.print(rows, COLUMNS)
  end
end

local function print_notes(o, found)
  print(([[

Times are in mean service times; %d replications each, started empty; ±: half of the interval, all %d hold together with %.0f%%.
known: what such a run must be off by. Steps that can't be interrupted: measured with the same arrivals at steps twice as
long. Beginning empty, of power of d: by its differential equations, which for d = 1 are the M/M/1's own; and 1,000 replicas
are not infinitely many: a tenth of what 100 are off. All but the last should be under a tenth of ±, and are with --full.
The first requests of a replication are left out: ten times and more of what such a queue takes to forget how it began.
SJF's and SRPT's means have FCFS's on the same arrivals, whose expectation is known, as control variate. Ratios are of
means, paired by arrivals. Outputs are those of %s (conversation) and %s (code).]])
    :format(o.replications, #found.claims, 100 * LEVEL, o.conv, o.code))
end

return {
  options = {
    full         = { default = false, help = "as many requests as the narrow intervals need: minutes" },
    only         = { default = "", help = "only systems whose name holds this text" },
    replications = { default = 20, help = "independent runs of each system", min = 4 },
    scale        = { default = 1.0, help = "times as many requests in each", min = 0.001, max = 100 },
    coverage     = { default = 1000, help = "intervals of 20 short runs, to see how many cover the truth; 0: none", min = 0 },
    conv         = { default = "data/sample_trace.csv", help = "trace with output lengths of conversations" },
    code         = { default = "data/sample_trace.csv", help = "trace with output lengths of code" },
    jobs         = { default = 2, help = "runs at once", min = 1 },
    seed         = { default = 1, help = "of everything", min = 0 },
    report       = { default = false, help = "print Markdown" },
  },

  run = function(o)
    local found = { claims = {} }
    for _, system in ipairs(systems.all(o)) do
      if system.name:find(o.only, 1, true) then
        for _, claim in ipairs(measured(o, system)) do found.claims[#found.claims + 1] = claim end
      end
    end
    if #found.claims == 0 then error(("--only: no system's name holds \"%s\""):format(o.only), 0) end
    if o.coverage > 0 then found.coverage = coverage(o) end
    return found
  end,

  report = function(o, found)
    judge(o, found.claims)
    print_claims(o, found.claims)
    print_notes(o, found)
    local failed = {}
    for _, claim in ipairs(found.claims) do
      if claim.verdict ~= "yes" then failed[#failed + 1] = claim.name end
    end
    if found.coverage then
      local c = found.coverage
      local right = c.low <= LEVEL and LEVEL <= c.high
      print(("\nOf %d intervals at 95%%, each of 20 short M/M/1 runs at 0.5, %.1f%% cover the truth (95%% interval %.1f to %.1f%%).")
        :format(c.n, 100 * c.value, 100 * c.low, 100 * c.high))
      if not right then failed[#failed + 1] = "the intervals' coverage" end
    end
    print("\nWhat would change this: nothing but a bug, or one of 20 lists, which 95% allows; another seed tells them apart.")
    print(#failed == 0 and ("all %d hold"):format(#found.claims) or
      ("%d of %d don't hold: %s"):format(#failed, #found.claims, table.concat(failed, "; ")))
  end,
}

-- SPDX-License-Identifier: MIT
-- lathe.sweep: every point of a grid with every seed, each a run of its own.
--
--   local s = lathe.sweep { name = "first-tokens", seeds = 10, baseline = { scheduler = "fcfs" },
--     grid = { scheduler = { "fcfs", "srpt" }, rate = { 1, 2, 3 } },
--     run  = function(p) return { model = model, scheduler = p.scheduler, workload = load(p.rate, p.seed) } end }
--   s:table { "ttft_p50_ms" }   s:compare "ttft_p50_ms"   s:plot { x = "rate", y = "ttft_p50_ms", by = "scheduler", file = "x.svg" }
--
-- `run` gets p: the grid's values by name, p.seed, p.seed_index (from 0), p.factors (the values alone).
-- It returns what lathe.run takes; seed, factors, sweep and seed_index are filled in.
--
-- Order. Seed by seed, all points within each, and each seed begins at another point: a machine that
-- warms up or slows down in the meantime then does so to every point alike. The same seeds serve all
-- points, so that differences are taken pair by pair (common random numbers).
--
-- Resuming. A run that the database has as done with the same key (core/run_key.c: script, plugins, model,
-- options, requests, seed, factors) is not done again, unless `fresh = true`. What fails is a row of state
-- failed, is stepped over, tried `retries` times more, and told of at the end.
--
-- Side by side. `jobs = n` runs n at once, in virtual time only. What comes back stands in sweep_result.lua.
local check   = require "lathe.check"
local core    = require "lathe.core"
local passage = require "lathe.passage"
local product = require "lathe.product"
local result  = require "lathe.sweep_result"
local resume  = require "lathe.resume"

local WHAT <const> = "lathe.sweep"
local FIELDS <const> = { "name", "grid", "seeds", "baseline", "run", "jobs", "database", "fresh", "retries", "metrics" }
local RESERVED <const> = { seed = true, seed_index = true, factors = true }
local FILLED <const> = { "sweep", "seed_index", "database" } -- the sweep's to say

-- ── what was asked for ────────────────────────────────────────────────────────────────

local function read_seeds(spec)
  local seeds = spec.seeds == nil and 1 or spec.seeds
  if type(seeds) ~= "table" then
    local count = check.integer(WHAT, { seeds = seeds }, "seeds", 1, 1000000)
    seeds = {}
    for i = 1, count do seeds[i] = i end
    return seeds
  end
  local seen, list = {}, {}
  for i, seed in ipairs(seeds) do
    list[i] = check.integer(WHAT .. ": seeds", { [tostring(i)] = seed }, tostring(i), 0, math.maxinteger)
    if seen[seed] then core.fail(("%s: seed %s is there twice: its runs would say the same twice"):format(WHAT, seed)) end
    seen[seed] = true
  end
  if #list == 0 then core.fail(WHAT .. ": \"seeds\" has none") end
  return list
end

local function read_grid(grid)
  if type(grid) ~= "table" then core.fail(("%s: \"grid\" should be { name = { values }, … }, not %s"):format(WHAT, check.shown(grid))) end
  local names, points = {}, {}
  for name in pairs(grid) do
    if type(name) ~= "string" then core.fail(("%s: grid: %s is no factor's name"):format(WHAT, check.shown(name))) end
    if RESERVED[name] then core.fail(("%s: grid: \"%s\" is the sweep's own word; choose another"):format(WHAT, name)) end
    names[#names + 1] = name
  end
  table.sort(names)
  for factors in product(grid) do points[#points + 1] = { factors = factors, key = core.json_encode(factors) } end
  return names, points
end

local function check_baseline(baseline, names, points)
  if baseline == nil then return end
  check.fields(WHAT .. ": baseline", baseline, names)
  for name, value in pairs(baseline) do
    local found = false
    for _, point in ipairs(points) do found = found or core.json_encode(point.factors[name]) == core.json_encode(value) end
    if not found then core.fail(("%s: baseline: the grid has no %s = %s"):format(WHAT, name, core.json_encode(value))) end
  end
end

-- Seed-major; each seed begins at another point.
local function plan_of(points, seeds)
  local plan, n = {}, #points
  local step = math.max(1, n / #seeds)
  for s, seed in ipairs(seeds) do
    local from = math.floor((s - 1) * step) % n
    for i = 0, n - 1 do plan[#plan + 1] = { point = points[(from + i) % n + 1], seed = seed, seed_index = s - 1 } end
  end
  return plan
end

-- ── progress ──────────────────────────────────────────────────────────────────────────

local function tell(sweep, last)
  local count = sweep.count
  if core.quiet then return end
  local done = count.done + count.skipped + count.failed
  local now = core.now()
  if not last and now - sweep.told < 2 then return end
  sweep.told = now
  local left = count.done > 0 and (now - sweep.began) / count.done * (#sweep.plan - done) or nil
  io.stderr:write(("%s: %d/%d runs, %d done before, %d failed%s\n"):format(sweep.name, done, #sweep.plan, count.skipped,
    count.failed, last and "" or left and (", %.0f s left"):format(left) or ""))
end

-- ── one run ───────────────────────────────────────────────────────────────────────────

local function shallow(t)
  local copy = {}
  for k, v in pairs(t) do copy[k] = v end
  return copy
end

local function describe(sweep, entry)
  local p = shallow(entry.point.factors)
  p.seed, p.seed_index, p.factors = entry.seed, entry.seed_index, shallow(entry.point.factors)
  local description = sweep.spec.run(p)
  if type(description) ~= "table" then
    error(("run should return what lathe.run takes, a table, not %s"):format(check.shown(description)), 0)
  end
  description = shallow(description)
  for _, name in ipairs(FILLED) do
    if description[name] ~= nil then error(("run: \"%s\" is the sweep's to say"):format(name), 0) end
  end
  if description.seed == nil then description.seed = entry.seed end
  local factors = shallow(description.factors or {})
  for name, value in pairs(entry.point.factors) do factors[name] = value end
  description.factors, description.sweep, description.seed_index = factors, sweep.name, entry.seed_index
  description.database = sweep.database
  return passage.fill(description)
end

local function interrupted(sweep)
  sweep.stopped = sweep.stopped or core.interrupted()
  return sweep.stopped
end

local function fail(sweep, entry, message, id)
  entry.message, entry.id = tostring(message), nil
  entry.failed_id = id or core.failed { database = sweep.database, sweep = sweep.name, seed = entry.seed, label = entry.point.key,
                                        seed_index = entry.seed_index, factors = entry.point.factors, message = entry.message }
  entry.tries = (entry.tries or 0) + 1
  if entry.tries <= sweep.retries then
    sweep.again[#sweep.again + 1] = entry
  else
    sweep.count.failed = sweep.count.failed + 1
  end
end

-- Starts it; false if there was nothing to start, or it ended at once.
local function launch(sweep, entry)
  local ok, task = pcall(function() return core.task(describe(sweep, entry)) end)
  if interrupted(sweep) then return false end
  if not ok then
    fail(sweep, entry, task)
    return false
  end
  if not task:recording() then
    core.fail(WHAT .. ": trace = false records nothing, and a sweep asks its rows: trace = { rows = \"requests\" } is the least")
  end
  entry.key = task:key()
  local before = not sweep.fresh and sweep.done[entry.key]
  if before then
    entry.id, entry.skipped = before, true
    sweep.count.skipped = sweep.count.skipped + 1
    return false
  end
  entry.task = task
  if sweep.jobs > 1 then task:start(core.side_by_side) else task:run() end
  return true
end

local function finish(sweep, entry)
  local task <close> = entry.task
  entry.task = nil
  local function ended(handle, ...)
    if handle then
      local refused, why = ...
      if refused > 0 then entry.refused = { count = refused, why = why } end
      entry.id = handle.id
      handle:close()
      sweep.count.done = sweep.count.done + 1
    elseif not interrupted(sweep) then
      local message, id = ...
      fail(sweep, entry, message, id)
    end
  end
  ended(task:finish())
end

-- ── all of them ───────────────────────────────────────────────────────────────────────

local function next_entry(sweep)
  if sweep.at < #sweep.plan then
    sweep.at = sweep.at + 1
    return sweep.plan[sweep.at]
  end
  return table.remove(sweep.again, 1)
end

local function wait_for_one(sweep)
  local tasks = {}
  for i, entry in ipairs(sweep.flying) do tasks[i] = entry.task end
  local entry = table.remove(sweep.flying, core.wait_any(tasks))
  finish(sweep, entry)
end

local function execute(sweep)
  while not interrupted(sweep) do
    local entry = next_entry(sweep)
    if not entry and #sweep.flying == 0 then break end
    if entry and launch(sweep, entry) then sweep.flying[#sweep.flying + 1] = entry end
    if #sweep.flying > 0 and (not entry or #sweep.flying >= sweep.jobs) then wait_for_one(sweep) end
    tell(sweep, false)
  end
end

-- Whatever happened: what is under way comes to its end, and Ctrl-C is told as what it is.
local function carry_out(sweep)
  local hold <close> = core.hold(sweep.database) -- luacheck: ignore 211 (open until the last run has ended)
  local ok, message = pcall(execute, sweep)
  interrupted(sweep)
  while #sweep.flying > 0 do wait_for_one(sweep) end
  tell(sweep, true)
  if sweep.stopped then
    return ("%s: interrupted: %d of %d runs are done in %s; run it again to go on with the rest"):format(WHAT,
      sweep.count.done + sweep.count.skipped, #sweep.plan, sweep.database)
  end
  if not ok then return message end
end

-- Requests that failed in runs that are done: no failure of the run, but nobody should have to look for them.
local function tell_refused(sweep)
  local runs, count, why = 0, 0, nil
  for _, entry in ipairs(sweep.plan) do
    if entry.refused then runs, count, why = runs + 1, count + entry.refused.count, why or entry.refused.why end
  end
  if runs == 0 or core.quiet then return end
  io.stderr:write(("%s: %d requests failed in %d of %d runs; the first: %s\n"):format(sweep.name, count, runs, #sweep.plan,
    why or "a drawn request's reason is not kept; too long for the context or the KV memory is the usual one"))
end

local function tell_failures(sweep)
  local told, first = {}, nil
  for _, entry in ipairs(sweep.plan) do
    if not entry.id and entry.message then
      first = first or entry.message
      told[#told + 1] = ("  %s seed %s: %s"):format(entry.point.key, entry.seed, entry.message)
    end
  end
  if #told == #sweep.plan then
    core.fail(("%s: none of %d runs came to its end; the first: %s"):format(WHAT, #told, first))
  end
  if #told == 0 or core.quiet then return end
  io.stderr:write(("%s: %d of %d runs failed and were stepped over:\n%s\n"):format(sweep.name, #told, #sweep.plan,
    table.concat(told, "\n", 1, math.min(#told, 10))))
end

return function(spec)
  check.fields(WHAT, spec, FIELDS)
  if type(spec.run) ~= "function" then
    core.fail(("%s: \"run\" should be a function that returns what lathe.run takes, not %s"):format(WHAT, check.shown(spec.run)))
  end
  local names, points = read_grid(spec.grid)
  check_baseline(spec.baseline, names, points)
  local sweep = {
    spec = spec, name = check.text(WHAT, spec, "name"), names = names, points = points, seeds = read_seeds(spec),
    jobs = check.integer(WHAT, spec, "jobs", 1, 1024, 1), retries = check.integer(WHAT, spec, "retries", 0, 100, 0),
    fresh = spec.fresh == true, database = core.database(spec.database), baseline = spec.baseline,
    metrics = result.check_metrics(spec.metrics or {}),
    count = { done = 0, skipped = 0, failed = 0 }, again = {}, flying = {}, at = 0, told = core.now(), began = core.now(),
  }
  sweep.plan = plan_of(points, sweep.seeds)
  sweep.done = sweep.fresh and {} or resume.done(sweep.database, sweep.name)
  local problem = carry_out(sweep)
  if problem then
    if problem:find(WHAT, 1, true) == 1 then core.fail(problem) end
    error(problem, 0) -- has its line already
  end
  tell_failures(sweep)
  tell_refused(sweep)
  return result.new(sweep)
end

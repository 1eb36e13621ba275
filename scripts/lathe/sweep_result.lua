-- SPDX-License-Identifier: MIT
-- What lathe.sweep returns: its runs, and what can be said about them.
--
--   s:runs()            → { { point = { scheduler = "fcfs" }, seed = 1, run = 12, metrics = { ttft_p50_ms = … } }, … }
--   s:failures()        → { { point, seed, message, run }, … }
--   s:query(sql[, { name = value }])   over all of them: `where run_id in (select value from json_each(:runs))`, or the
--                       view sweep_point and `where sweep = :sweep`
--   s:table { "ttft_p50_ms", "tokens_per_s" }   a row a point: mean ± half of a 95% interval (Student's t over seeds)
--   s:compare "ttft_p50_ms"   against the baseline, paired over seeds: 95% intervals of the difference, p by Holm
--   s:settled()         runs whose queue grew until the arrivals ended (stats.settled): printed, and as rows
--   s:plot { x = "rate", y = "ttft_p50_ms", by = "scheduler", file = "x.svg" }   with gnuplot; bars are intervals
--   s:export "x.csv"    a row a run: factors, then metrics
--
-- Metrics are the columns of view run_latency, and those that the sweep was given: metrics = { hits = "select
-- sum(cached_tokens) from request where run_id = :run" }. One that is NULL in a run (a p99 of fewer than 368
-- requests) is left out there, and `n` says how many remained.
local check = require "lathe.check"
local core  = require "lathe.core"
local plot  = require "lathe.sweep_plot"
local print_rows = require "lathe.print"
local stats = require "lathe.stats"

local Sweep = {}
Sweep.__index = Sweep

local NOT_METRICS <const> = { run_id = true, label = true, state = true }

local result = {}

function result.check_metrics(metrics)
  if type(metrics) ~= "table" then core.fail("lathe.sweep: \"metrics\" should be { name = \"select … where run_id = :run\" }") end
  for name, sql in pairs(metrics) do
    if type(name) ~= "string" or type(sql) ~= "string" then
      core.fail(("lathe.sweep: metrics: %s should be SQL that gives one number, not %s"):format(tostring(name), check.shown(sql)))
    end
  end
  return metrics
end

-- ── rows ──────────────────────────────────────────────────────────────────────────────

-- A factor's value in a table or on an axis.
local function shown(value)
  if type(value) == "table" then return core.json_encode(value) end
  return value
end

local function collect(self)
  local sweep, ids, by_id = self.sweep, {}, {}
  for _, entry in ipairs(sweep.plan) do ids[#ids + 1] = entry.id end
  self.ids = #ids > 0 and core.json_encode(ids) or "[]"
  for _, row in ipairs(self:query "select * from run_latency where run_id in (select value from json_each(:runs))") do
    local metrics = {}
    for name, value in pairs(row) do
      if not NOT_METRICS[name] then metrics[name] = value end
    end
    by_id[row.run_id] = metrics
  end
  self.names = {}
  for _, row in ipairs(self:query "select name from pragma_table_info('run_latency')") do
    if not NOT_METRICS[row.name] then self.names[#self.names + 1] = row.name end
  end
  local own = {}
  for name in pairs(sweep.metrics) do own[#own + 1] = name end
  table.sort(own)
  for _, name in ipairs(own) do
    self.names[#self.names + 1] = name
    for id, metrics in pairs(by_id) do
      local row = self.db:query(sweep.metrics[name], { run = id, sweep = sweep.name })
      local value = row[1] and row[1][row.columns[1]]
      if value ~= nil and type(value) ~= "number" then
        core.fail(("lathe.sweep: metrics: \"%s\" should give a number, not %s"):format(name, check.shown(value)))
      end
      metrics[name] = value
    end
  end
  local rows = {}
  for _, entry in ipairs(sweep.plan) do
    if entry.id then
      rows[#rows + 1] = { point = entry.point.factors, key = entry.point.key, seed = entry.seed, seed_index = entry.seed_index,
                          run = entry.id, resumed = entry.skipped == true, metrics = by_id[entry.id] or {} }
    end
  end
  return rows
end

function Sweep:runs() return self.rows end

function Sweep:failures()
  local rows = {}
  for _, entry in ipairs(self.sweep.plan) do
    if not entry.id then
      rows[#rows + 1] = { point = entry.point.factors, seed = entry.seed, message = entry.message, run = entry.failed_id }
    end
  end
  return rows
end

function Sweep:query(sql, values)
  local bound = { runs = self.ids, sweep = self.sweep.name }
  for name, value in pairs(values or {}) do bound[name] = value end
  return self.db:query(sql, bound)
end

function Sweep:check_metric(what, name)
  if type(name) ~= "string" then core.fail(("%s: takes a metric's name, not %s"):format(what, check.shown(name))) end
  for _, known in ipairs(self.names) do
    if known == name then return name end
  end
  local near = core.nearest(name, self.names)
  core.fail(("%s: there is no metric \"%s\"%s"):format(what, name,
    near and (", did you mean \"%s\"?"):format(near) or ": there are " .. table.concat(self.names, ", ")))
end

-- Values of one metric at one point: by seed.
function Sweep:values(key, metric)
  local values = {}
  for _, row in ipairs(self.rows) do
    if row.key == key and row.metrics[metric] ~= nil then values[row.seed] = row.metrics[metric] end
  end
  return values
end

-- Mean and interval of one metric at one point; nil without a value. One seed: a value, and no interval.
function Sweep:mean(key, metric)
  local list = {}
  local values = self:values(key, metric)
  for _, seed in ipairs(self.sweep.seeds) do list[#list + 1] = values[seed] end
  if #list == 0 then return nil end
  if #list == 1 then return { value = list[1], n = 1 } end
  return stats.mean_ci(list)
end

-- Prints rows that have a `point`: its factors first, then `columns`. A factor may have any name, so
-- both get keys that no other column has.
local function print_points(sweep, rows, columns)
  local flat, all = {}, {}
  for i, name in ipairs(sweep.names) do all[i] = { "factor " .. name, name } end
  for _, column in ipairs(columns) do all[#all + 1] = column end
  for i, row in ipairs(rows) do
    flat[i] = {}
    for name, value in pairs(row) do flat[i][name] = value end
    for name, value in pairs(row.point) do flat[i]["factor " .. name] = shown(value) end
  end
  print_rows(flat, all)
end

-- ── table ─────────────────────────────────────────────────────────────────────────────

local function figure(ci)
  if not ci then return "" end
  if not ci.half then return ("%.4g"):format(ci.value) end
  return ("%.4g ± %.2g"):format(ci.value, ci.half)
end

-- Of each run whose queue grew until the arrivals ended, a row.
local function unsettled(self)
  local rows = {}
  for _, row in ipairs(self.rows) do
    local asked = { query = function(_, sql) return self.db:query(sql, { run = row.run }) end }
    local answer = stats.settled(asked)
    if answer.settled == false then
      rows[#rows + 1] = { point = row.point, seed = row.seed, run = row.run, growth = answer.growth, utilisation = answer.utilisation }
    end
  end
  return rows
end

function Sweep:settled()
  local rows = unsettled(self)
  if #rows == 0 then
    print(("no queue of %d runs grew until the arrivals ended"):format(#self.rows))
  else
    print(("%d of %d runs never settled: their latencies say how long they were, so lower the rate there"):format(#rows, #self.rows))
    print_points(self.sweep, rows, { "seed", "run", { "growth", "growth 1/s", "%.3g" }, { "utilisation", "busy", "%.2f" } })
  end
  return rows
end

-- Once a sweep, below its first table: a reader who sees only that should know.
local function warn_of_unsettled(self)
  if self.looked then return end
  self.looked = true
  local rows = unsettled(self)
  if #rows == 0 then return end
  local where = {}
  for name, value in pairs(rows[1].point) do where[#where + 1] = ("%s = %s"):format(name, tostring(value)) end
  table.sort(where)
  print(("Warning: in %d of %d runs the queue never settled (the first at %s): their latencies say how long they were. s:settled() "
    .. "lists them."):format(#rows, #self.rows, table.concat(where, ", ")))
end

function Sweep:table(columns)
  local what <const> = "sweep:table"
  if type(columns) ~= "table" then core.fail(("%s: takes { \"ttft_p50_ms\", … }, not %s"):format(what, check.shown(columns))) end
  local rows, wanted = {}, { { "n", "runs" } }
  for _, name in ipairs(columns) do wanted[#wanted + 1] = self:check_metric(what, name) end
  for i, point in ipairs(self.sweep.points) do
    local row = { point = point.factors, n = 0 }
    for _, r in ipairs(self.rows) do row.n = row.n + (r.key == point.key and 1 or 0) end
    for _, name in ipairs(columns) do row[name] = figure(self:mean(point.key, name)) end
    rows[i] = row
  end
  print_points(self.sweep, rows, wanted)
  if #self.sweep.seeds > 1 then print(("mean ± half of a 95%% interval over %d seeds (Student's t)"):format(#self.sweep.seeds)) end
  warn_of_unsettled(self)
  return rows
end

-- ── compare ───────────────────────────────────────────────────────────────────────────

local function baseline_of(sweep, point)
  local factors = {}
  for name, value in pairs(point.factors) do factors[name] = value end
  for name, value in pairs(sweep.baseline) do factors[name] = value end
  return core.json_encode(factors)
end

-- Rows without printing: { point, n, base, mean, difference, low, high, percent, p, p_holm }.
function Sweep:differences(metric)
  local sweep, rows, ps = self.sweep, {}, {}
  if not sweep.baseline then
    core.fail "sweep:compare: the sweep has no baseline: give lathe.sweep { baseline = { scheduler = \"fcfs\" } }"
  end
  self:check_metric("sweep:compare", metric)
  for _, point in ipairs(sweep.points) do
    local base_key = baseline_of(sweep, point)
    if base_key ~= point.key then
      local own, base, a, b = self:values(point.key, metric), self:values(base_key, metric), {}, {}
      for _, seed in ipairs(sweep.seeds) do
        if own[seed] and base[seed] then a[#a + 1], b[#b + 1] = own[seed], base[seed] end
      end
      local row = { point = point.factors, n = #a }
      if #a > 0 then row.base, row.mean = stats.mean(b), stats.mean(a) end
      if #a > 0 then row.difference = row.mean - row.base end
      if #a > 0 and row.base ~= 0 then row.percent = 100 * row.difference / math.abs(row.base) end
      if #a > 1 then
        local ci = stats.paired_ci(a, b)
        row.low, row.high, row.p = ci.low, ci.high, ci.p
        ps[#ps + 1] = ci.p
      end
      rows[#rows + 1] = row
    end
  end
  local adjusted, at = #ps > 0 and stats.holm(ps) or {}, 0
  for _, row in ipairs(rows) do
    if row.p then
      at = at + 1
      row.p_holm = adjusted[at]
      row.verdict = row.p_holm >= 0.05 and "not told apart" or row.difference < 0 and "lower" or "higher"
    end
  end
  return rows
end

function Sweep:compare(metric)
  local rows, sweep = self:differences(metric), self.sweep
  print(("%s against %s, paired over seeds:"):format(metric, core.json_encode(sweep.baseline)))
  print_points(sweep, rows, { { "n", "pairs" }, { "base", "baseline", "%.4g" }, { "mean", metric, "%.4g" },
    { "difference", "difference", "%+.4g" }, { "low", "low", "%+.4g" }, { "high", "high", "%+.4g" },
    { "percent", "%", "%+.1f" }, { "p_holm", "p", "%.2g" }, "verdict" })
  local tested = 0
  for _, row in ipairs(rows) do tested = tested + (row.p and 1 or 0) end
  if tested == 0 then
    print "no two seeds at any point have this figure: there is no interval to give"
  else
    print(("95%% intervals by Student's t, each for itself; p adjusted for %d comparisons (Holm), verdict at 5%%"):format(tested))
  end
  return rows
end

-- ── did queues settle? ────────────────────────────────────────────────────────────────


-- ── pictures and files ────────────────────────────────────────────────────────────────

function Sweep:plot(wishes) return plot.draw(self, wishes) end

local function csv(value)
  if value == nil then return "" end
  local text = math.type(value) == "float" and ("%.17g"):format(value) or tostring(value)
  if text:find '[",\r\n]' then text = '"' .. text:gsub('"', '""') .. '"' end
  return text
end

function Sweep:export(path)
  if type(path) ~= "string" then core.fail(("sweep:export: takes a file's name, not %s"):format(check.shown(path))) end
  local file <close> = io.open(path, "w") or core.fail(("sweep:export: can't write %s"):format(path))
  local titles = { "run", "seed", "seed_index" }
  local factors = table.move(self.sweep.names, 1, #self.sweep.names, 1, {})
  table.move(factors, 1, #factors, #titles + 1, titles)
  table.move(self.names, 1, #self.names, #titles + 1, titles)
  for i, title in ipairs(titles) do titles[i] = csv(title) end
  file:write(table.concat(titles, ","), "\n")
  for _, row in ipairs(self.rows) do
    local cells = { row.run, row.seed, row.seed_index }
    for _, name in ipairs(factors) do cells[#cells + 1] = csv(shown(row.point[name])) end
    for _, name in ipairs(self.names) do cells[#cells + 1] = csv(row.metrics[name]) end
    file:write(table.concat(cells, ","), "\n")
  end
  return path
end

function result.new(sweep)
  local self = setmetatable({ sweep = sweep, name = sweep.name, database = sweep.database, ids = "[]" }, Sweep)
  self.db = core.sql(sweep.database)
  self.rows = collect(self)
  return self
end

return result

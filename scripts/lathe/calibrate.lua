-- SPDX-License-Identifier: MIT
-- How long does a step take, as a function of what is in it? Fitted on rows of table `step`:
--
--   duration_us = max(floor_us, step_us + prefill_us · prefill_tokens + prefill_context_ns / 1000 · prefill_token_context
--                               + decode_us · decode_tokens + decode_context_ns / 1000 · decode_context_tokens
--                               + padding_us · padding_tokens)
--
-- A forward is a fixed part, work for each row (matrix products: the same for every row, cheaper a
-- row the more there are), and attention, which reads each row's past: tokens × past for prefill,
-- the sum of contexts for decode. No coefficient is negative: a step that gets quicker with more
-- work in it is noise, and a simulation that believed it would be absurd. Hence non-negative least
-- squares (lathe.nnls), on the normal equations of columns scaled to norm 1. With weights 1 / duration²
-- (the default) relative errors count, so that short steps are fitted as well as long ones.
--
-- That is the form "line". Real kernels are no line (cost.h of model/sim shows one): the form "tables"
-- has no step_us, prefill_us and padding_us but tables by the rows of the step and by its outputs,
-- lathe.calibrate_tables. It leaves out steps that something disturbed (see `undisturbed`), since a
-- table's entry leans on a few steps.
--
-- Intervals: bootstrap over blocks of consecutive steps, since neighbours share what disturbs them.
--
--   local rows = calibrate.rows(db, { 3 })              -- of runs 3
--   local fit  = calibrate.fit(rows, { weights = "relative", form = "line", floor = false })
--   fit.coefficients.prefill_us, fit.noise, fit.residuals[1].median, fit.intervals.prefill_us.low
--   calibrate.write("x.profile", fit, { "machine: …" })
local check  = require "lathe.check"
local core   = require "lathe.core"
local nnls   = require "lathe.nnls"
local random = require "lathe.random"
local stats  = require "lathe.stats"
local tables = require "lathe.calibrate_tables"

local calibrate = { nnls = nnls, rows = require "lathe.calibrate_rows" }

-- Coefficients by the names that a cost profile has; of the form "tables" those marked.
local LINE <const> = {
  { name = "step_us",            of = function() return 1 end },
  { name = "prefill_us",         of = function(r) return r.prefill_tokens end },
  { name = "prefill_context_ns", of = function(r) return r.prefill_token_context / 1000 end, tables = true },
  { name = "decode_us",          of = function(r) return r.decode_tokens end, tables = true },
  { name = "decode_context_ns",  of = function(r) return r.decode_context_tokens / 1000 end, tables = true },
  { name = "padding_us",         of = function(r) return r.padding_tokens end },
}
calibrate.names = { "step_us", "floor_us", "prefill_us", "prefill_context_ns", "decode_us", "decode_context_ns", "padding_us", "noise" }

local BLOCKS <const>, RESAMPLES <const>, STREAM <const> = 200, 400, 11

local function kind_of(row)
  if row.prefill_tokens == 0 then return "decode only" end
  return row.decode_tokens == 0 and "prefill only" or "mixed"
end

-- ── least squares ──────────────────────────────────────────────────────────────────────

-- Sums over rows from … to of one block, flat: the upper triangle of A'WA, then A'Wb.
local function sums(columns, rows, from, to, relative, uses)
  local N <const>, total = #columns, {}
  for i = 1, N * (N + 1) // 2 + N do total[i] = 0 end
  for r = from, to do
    local row = rows[r]
    if not uses or uses[r] then
      local w = relative and 1 / (row.duration_us * row.duration_us) or 1
      local a, at = {}, 0
      for j = 1, N do a[j] = columns[j].of(row) end
      for i = 1, N do
        for j = i, N do
          at = at + 1
          total[at] = total[at] + w * a[i] * a[j]
        end
      end
      for i = 1, N do total[at + i] = total[at + i] + w * a[i] * row.duration_us end
    end
  end
  return total
end

-- Coefficients from such sums.
local function coefficients(columns, total)
  local N <const> = #columns
  local G, h, norm, at = {}, {}, {}, 0
  for i = 1, N do G[i] = {} end
  for i = 1, N do
    for j = i, N do
      at = at + 1
      G[i][j], G[j][i] = total[at], total[at]
    end
  end
  for i = 1, N do norm[i] = math.sqrt(G[i][i]) end
  for i = 1, N do
    for j = 1, N do G[i][j] = norm[i] > 0 and norm[j] > 0 and G[i][j] / (norm[i] * norm[j]) or 0 end
    h[i] = norm[i] > 0 and total[at + i] / norm[i] or 0
  end
  local x, result = nnls(G, h), { floor_us = 0 }
  for _, column in ipairs(LINE) do result[column.name] = 0 end
  for j, column in ipairs(columns) do
    local value = norm[j] > 0 and x[j] / norm[j] or 0
    if column.at then tables.put(result, column, value) else result[column.name] = value end
  end
  return result
end

-- ── prediction and what is left ────────────────────────────────────────────────────────

-- Microseconds that a step with these contents takes.
function calibrate.predict(c, row)
  local us = c.rows_us and tables.predict(c, row) or 0
  for _, column in ipairs(LINE) do us = us + c[column.name] * column.of(row) end
  return math.max(us, c.floor_us)
end

local function loss(rows, c, relative)
  local sum = 0
  for _, row in ipairs(rows) do
    local e = calibrate.predict(c, row) - row.duration_us
    sum = sum + (relative and e / row.duration_us or e) ^ 2
  end
  return sum
end

-- A floor hides the line where the line is lower: those rows say nothing of it. Tried are floors at
-- percentiles of the durations; one is believed if it takes a tenth off the loss.
local function with_floor(rows, plain, relative)
  local durations, best, least = {}, plain, 0.9 * loss(rows, plain, relative)
  for i, row in ipairs(rows) do durations[i] = row.duration_us end
  for p = 2, 60, 2 do
    local floor, c = stats.percentile(durations, p), plain
    for _ = 1, 4 do
      local uses, count = {}, 0
      for i, row in ipairs(rows) do
        uses[i] = row.duration_us > 1.1 * floor
        count = count + (uses[i] and 1 or 0)
      end
      if count < 2 * #LINE then break end
      c = coefficients(LINE, sums(LINE, rows, 1, #rows, relative, uses))
      c.floor_us = floor
      local below = {} -- the floor is where those stand whose line is lower
      for _, row in ipairs(rows) do if calibrate.predict(c, row) <= floor then below[#below + 1] = row.duration_us end end
      if #below == 0 then break end
      floor = stats.median(below)
      c.floor_us = floor
    end
    local found = loss(rows, c, relative)
    if found < least then best, least = c, found end
  end
  return best
end

-- Of all rows; the noise is of those that are used.
local function residuals(rows, c, uses)
  local groups, order = {}, { "all", "decode only", "prefill only", "mixed" }
  for _, name in ipairs(order) do groups[name] = { name = name, errors = {}, durations = {}, squares = 0 } end
  local logs, count = 0, 0
  for i, row in ipairs(rows) do
    local us = math.max(calibrate.predict(c, row), 1e-3)
    if not uses or uses[i] then logs, count = logs + math.log(row.duration_us / us) ^ 2, count + 1 end
    for _, name in ipairs { "all", kind_of(row) } do
      local g = groups[name]
      g.errors[#g.errors + 1] = math.abs(us - row.duration_us) / row.duration_us
      g.durations[#g.durations + 1] = row.duration_us
      g.squares = g.squares + (us - row.duration_us) ^ 2
    end
  end
  local list = {}
  for _, name in ipairs(order) do
    local g = groups[name]
    if #g.errors > 0 then
      local mean, spread = stats.mean(g.durations), 0
      for _, d in ipairs(g.durations) do spread = spread + (d - mean) ^ 2 end
      list[#list + 1] = { kind = name, steps = #g.errors, median_us = stats.median(g.durations), median = stats.median(g.errors),
                          p90 = stats.percentile(g.errors, 90), r2 = spread > 0 and 1 - g.squares / spread or nil }
    end
  end
  return list, math.sqrt(logs / count)
end

local function bootstrap(rows, relative, seed)
  local count, blocks = math.min(BLOCKS, #rows), {}
  for b = 1, count do blocks[b] = sums(LINE, rows, (b - 1) * #rows // count + 1, b * #rows // count, relative) end
  local found, intervals = {}, {}
  for r = 1, RESAMPLES do
    local total = {}
    for i = 1, #blocks[1] do total[i] = 0 end
    for b = 1, count do
      local block = blocks[random.index(count, seed, random.USER, STREAM, (r - 1) * count + b)]
      for i = 1, #total do total[i] = total[i] + block[i] end
    end
    found[r] = coefficients(LINE, total)
  end
  for _, column in ipairs(LINE) do
    local values = {}
    for r, c in ipairs(found) do values[r] = c[column.name] end
    intervals[column.name] = { low = stats.percentile(values, 2.5), high = stats.percentile(values, 97.5) }
  end
  return intervals
end

-- ── the fit ────────────────────────────────────────────────────────────────────────────

-- Which rows to believe: a step that took far longer or shorter than the fit says (4 times the median
-- absolute deviation, at least 3%) was disturbed. → { [i] = true }, how many were left out
local function undisturbed(rows, c)
  local logs, sizes, uses, out = {}, {}, {}, 0
  for i, row in ipairs(rows) do logs[i] = math.log(row.duration_us / math.max(calibrate.predict(c, row), 1e-3)) end
  local middle = stats.median(logs)
  for i, l in ipairs(logs) do sizes[i] = math.abs(l - middle) end
  local most = math.max(0.03, 4 * 1.4826 * stats.median(sizes))
  for i, size in ipairs(sizes) do
    uses[i] = size <= most
    if size > most then out = out + 1 end
  end
  return uses, out
end

local function with_tables(rows, relative)
  local columns = tables.columns(rows)
  for _, column in ipairs(LINE) do
    if column.tables then columns[#columns + 1] = column end
  end
  if #rows < 2 * #columns then
    core.fail(("calibrate.fit: %d steps are too few to fit tables of %d figures"):format(#rows, #columns))
  end
  local c, uses, out = coefficients(columns, sums(columns, rows, 1, #rows, relative))
  for _ = 1, 4 do
    uses, out = undisturbed(rows, c)
    c = coefficients(columns, sums(columns, rows, 1, #rows, relative, uses))
  end
  return c, uses, out
end

-- wishes: weights = "relative" | "absolute", form = "line" | "tables", floor = true to look for floor_us
-- (of a line), seed (of the bootstrap).
-- → { coefficients = { step_us = …, … , rows_us = { { at =, us = }, … } }, intervals = { step_us = { low, high }, … }
-- (none for tables, or with a floor), residuals = { { kind, steps, median_us, median, p90, r2 }, … }, noise, steps,
-- left_out = steps that were disturbed, seen = { name = true } }
function calibrate.fit(rows, wishes)
  local what <const> = "calibrate.fit"
  wishes = wishes or {}
  check.fields(what, wishes, { "weights", "form", "floor", "seed" })
  local weights, form = check.text(what, wishes, "weights", "relative"), check.text(what, wishes, "form", "line")
  if weights ~= "relative" and weights ~= "absolute" then
    core.fail(("%s: \"weights\" is \"relative\" or \"absolute\", not \"%s\""):format(what, weights))
  end
  if form ~= "line" and form ~= "tables" then
    core.fail(("%s: \"form\" is \"line\" or \"tables\", not \"%s\""):format(what, form))
  end
  if form == "tables" and wishes.floor then core.fail(what .. ": tables have no floor; leave \"floor\" out") end
  if #rows < 2 * #LINE then
    core.fail(("%s: %d steps are too few to fit %d figures; at least %d are wanted"):format(what, #rows, #LINE, 2 * #LINE))
  end
  local relative, seen, out = weights == "relative", {}, 0
  local c, uses
  if form == "tables" then
    c, uses, out = with_tables(rows, relative)
  else
    c = coefficients(LINE, sums(LINE, rows, 1, #rows, relative))
    if wishes.floor then c = with_floor(rows, c, relative) end
  end
  for _, row in ipairs(rows) do
    for _, column in ipairs(LINE) do seen[column.name] = seen[column.name] or column.of(row) ~= 0 end
  end
  local left, noise = residuals(rows, c, uses)
  local sure = form == "line" and c.floor_us == 0
  return { coefficients = c, residuals = left, noise = noise, steps = #rows, left_out = out, seen = seen, weights = weights, form = form,
           intervals = sure and bootstrap(rows, relative, check.integer(what, wishes, "seed", 0, math.maxinteger, 1)) or {} }
end

-- A cost profile: `name = value` lines, with what it is of in comments.
function calibrate.write(path, fit, comments)
  local file, why = io.open(path, "w")
  if not file then core.fail(("calibrate.write: the profile can't be written: %s"):format(why)) end
  file:write "# How long a step takes: a cost profile, fitted by lathe.calibrate.\n"
  for _, comment in ipairs(comments or {}) do file:write("# ", (comment:gsub("[\r\n]", " ")), "\n") end
  for _, r in ipairs(fit.residuals) do
    file:write(("# residuals, %s: %d steps, median error %.1f%%, 90%% within %.1f%%%s\n"):format(r.kind, r.steps, 100 * r.median,
      100 * r.p90, r.r2 and (", R² %.4f"):format(r.r2) or ""))
  end
  for _, name in ipairs(calibrate.names) do
    file:write(("%s = %.6g\n"):format(name, name == "noise" and fit.noise or fit.coefficients[name]))
  end
  if fit.coefficients.rows_us then tables.write(file, fit.coefficients) end
  file:close()
end

return calibrate

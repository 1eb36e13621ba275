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
-- squares (Lawson and Hanson 1974, chapter 23), on the 6 × 6 normal equations of columns scaled to
-- norm 1. With weights 1 / duration² (the default) relative errors count, so that short steps are
-- fitted as well as long ones.
--
-- Intervals: bootstrap over blocks of consecutive steps, since neighbours share what disturbs them.
--
--   local rows = calibrate.rows(db, { 3 })              -- of runs 3
--   local fit  = calibrate.fit(rows, { weights = "relative", floor = false })
--   fit.coefficients.prefill_us, fit.noise, fit.residuals[1].median, fit.intervals.prefill_us.low
--   calibrate.write("x.profile", fit, { "machine: …" })
local check  = require "lathe.check"
local core   = require "lathe.core"
local random = require "lathe.random"
local stats  = require "lathe.stats"

local calibrate = {}

-- Coefficients by the names that a cost profile has; `per` of the column's unit.
local COLUMNS <const> = {
  { name = "step_us",            of = function() return 1 end },
  { name = "prefill_us",         of = function(r) return r.prefill_tokens end },
  { name = "prefill_context_ns", of = function(r) return r.prefill_token_context / 1000 end },
  { name = "decode_us",          of = function(r) return r.decode_tokens end },
  { name = "decode_context_ns",  of = function(r) return r.decode_context_tokens / 1000 end },
  { name = "padding_us",         of = function(r) return r.padding_tokens end },
}
calibrate.names = { "step_us", "floor_us", "prefill_us", "prefill_context_ns", "decode_us", "decode_context_ns", "padding_us", "noise" }

local N <const> = #COLUMNS
local BLOCKS <const>, RESAMPLES <const>, STREAM <const> = 200, 400, 11

-- ── rows ───────────────────────────────────────────────────────────────────────────────

-- Steps of these runs (nil: all of the database) as { duration_us, prefill_tokens, … }, in order.
function calibrate.rows(db, runs)
  local ids = {}
  for i, id in ipairs(runs or {}) do ids[i] = ("%d"):format(id) end
  return db:query(([[select (end_ns - start_ns) / 1000.0 as duration_us, prefill_tokens, prefill_token_context, decode_tokens,
      decode_context_tokens, padding_tokens from step where end_ns > start_ns %s order by run_id, id]])
    :format(#ids > 0 and ("and run_id in (%s)"):format(table.concat(ids, ", ")) or ""))
end

local function kind_of(row)
  if row.prefill_tokens == 0 then return "decode only" end
  return row.decode_tokens == 0 and "prefill only" or "mixed"
end

-- ── least squares ──────────────────────────────────────────────────────────────────────

-- G x = h over the columns in `set`, by elimination with pivots; nil when they depend on each other.
local function solve(G, h, set)
  local list = {}
  for j = 1, N do if set[j] then list[#list + 1] = j end end
  local m = {}
  for r, i in ipairs(list) do
    m[r] = { [#list + 1] = h[i] }
    for c, j in ipairs(list) do m[r][c] = G[i][j] end
  end
  for c = 1, #list do
    local best = c
    for r = c + 1, #list do if math.abs(m[r][c]) > math.abs(m[best][c]) then best = r end end
    if math.abs(m[best][c]) < 1e-10 then return nil end
    m[c], m[best] = m[best], m[c]
    for r = 1, #list do
      local f = r ~= c and m[r][c] / m[c][c] or 0
      if f ~= 0 then for k = c, #list + 1 do m[r][k] = m[r][k] - f * m[c][k] end end
    end
  end
  local x = {}
  for j = 1, N do x[j] = 0 end
  for r, j in ipairs(list) do x[j] = m[r][#list + 1] / m[r][r] end
  return x
end

-- The x ≥ 0 that minimises x'Gx − 2h'x. G has a diagonal of ones, or zeros for absent columns.
function calibrate.nnls(G, h)
  local x, set, barred = {}, {}, {}
  for j = 1, N do x[j], barred[j] = 0, G[j][j] == 0 end
  local scale = 0
  for j = 1, N do scale = math.max(scale, math.abs(h[j])) end
  for _ = 1, 10 * N do -- each round adds the column that helps most
    local best, slope = nil, 1e-9 * scale
    for j = 1, N do
      local w = h[j]
      for k = 1, N do w = w - G[j][k] * x[k] end
      if not set[j] and not barred[j] and w > slope then best, slope = j, w end
    end
    if not best then break end
    set[best] = true
    while true do -- and those that would become negative leave, one by one
      local s = solve(G, h, set)
      if not s then
        set[best], barred[best] = nil, true
        break
      end
      local alpha, leaves = 1, nil
      for j = 1, N do
        if set[j] and s[j] <= 0 and x[j] / (x[j] - s[j]) < alpha then alpha, leaves = x[j] / (x[j] - s[j]), j end
      end
      for j = 1, N do x[j] = x[j] + alpha * (s[j] - x[j]) end
      if not leaves then break end
      x[leaves], set[leaves] = 0, nil
    end
  end
  return x
end

-- Sums over rows from … to of one block, flat: the upper triangle of A'WA, then A'Wb.
local function sums(rows, from, to, relative, uses)
  local total = {}
  for i = 1, N * (N + 1) // 2 + N do total[i] = 0 end
  for r = from, to do
    local row = rows[r]
    if not uses or uses[r] then
      local w = relative and 1 / (row.duration_us * row.duration_us) or 1
      local a, at = {}, 0
      for j = 1, N do a[j] = COLUMNS[j].of(row) end
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
local function coefficients(total)
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
  local x, result = calibrate.nnls(G, h), { floor_us = 0 }
  for j = 1, N do result[COLUMNS[j].name] = norm[j] > 0 and x[j] / norm[j] or 0 end
  return result
end

-- ── prediction and what is left ────────────────────────────────────────────────────────

-- Microseconds that a step with these contents takes.
function calibrate.predict(c, row)
  local us = 0
  for j = 1, N do us = us + c[COLUMNS[j].name] * COLUMNS[j].of(row) end
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
      if count < 2 * N then break end
      c = coefficients(sums(rows, 1, #rows, relative, uses))
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

local function residuals(rows, c)
  local groups, order = {}, { "all", "decode only", "prefill only", "mixed" }
  for _, name in ipairs(order) do groups[name] = { name = name, errors = {}, durations = {}, squares = 0 } end
  local logs = 0
  for _, row in ipairs(rows) do
    local us = math.max(calibrate.predict(c, row), 1e-3)
    logs = logs + math.log(row.duration_us / us) ^ 2
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
  return list, math.sqrt(logs / #rows)
end

local function bootstrap(rows, relative, seed)
  local count, blocks = math.min(BLOCKS, #rows), {}
  for b = 1, count do blocks[b] = sums(rows, (b - 1) * #rows // count + 1, b * #rows // count, relative) end
  local found, intervals = {}, {}
  for r = 1, RESAMPLES do
    local total = {}
    for i = 1, #blocks[1] do total[i] = 0 end
    for b = 1, count do
      local block = blocks[random.index(count, seed, random.USER, STREAM, (r - 1) * count + b)]
      for i = 1, #total do total[i] = total[i] + block[i] end
    end
    found[r] = coefficients(total)
  end
  for _, column in ipairs(COLUMNS) do
    local values = {}
    for r, c in ipairs(found) do values[r] = c[column.name] end
    intervals[column.name] = { low = stats.percentile(values, 2.5), high = stats.percentile(values, 97.5) }
  end
  return intervals
end

-- ── the fit ────────────────────────────────────────────────────────────────────────────

-- wishes: weights = "relative" | "absolute", floor = true to look for floor_us, seed (of the bootstrap).
-- → { coefficients = { step_us = …, … }, intervals = { step_us = { low, high }, … } (none for a fit with a
-- floor), residuals = { { kind, steps, median_us, median, p90, r2 }, … }, noise, steps, seen = { name = true } }
function calibrate.fit(rows, wishes)
  local what <const> = "calibrate.fit"
  wishes = wishes or {}
  check.fields(what, wishes, { "weights", "floor", "seed" })
  local weights = check.text(what, wishes, "weights", "relative")
  if weights ~= "relative" and weights ~= "absolute" then
    core.fail(("%s: \"weights\" is \"relative\" or \"absolute\", not \"%s\""):format(what, weights))
  end
  if #rows < 2 * N then core.fail(("%s: %d steps are too few to fit %d figures; at least %d are wanted"):format(what, #rows, N, 2 * N)) end
  local relative = weights == "relative"
  local c, seen = coefficients(sums(rows, 1, #rows, relative)), {}
  if wishes.floor then c = with_floor(rows, c, relative) end
  for _, row in ipairs(rows) do
    for _, column in ipairs(COLUMNS) do seen[column.name] = seen[column.name] or column.of(row) ~= 0 end
  end
  local left, noise = residuals(rows, c)
  return { coefficients = c, residuals = left, noise = noise, steps = #rows, seen = seen, weights = weights,
           intervals = c.floor_us == 0 and bootstrap(rows, relative, check.integer(what, wishes, "seed", 0, math.maxinteger, 1)) or {} }
end

-- A cost profile: `name = value` lines, with what it is of in comments.
function calibrate.write(path, fit, comments)
  local file, why = io.open(path, "w")
  if not file then core.fail(("calibrate.write: the profile can't be written: %s"):format(why)) end
  file:write "# How long a step takes: a cost profile, fitted by experiments/calibrate.lua.\n"
  for _, comment in ipairs(comments or {}) do file:write("# ", (comment:gsub("[\r\n]", " ")), "\n") end
  for _, r in ipairs(fit.residuals) do
    file:write(("# residuals, %s: %d steps, median error %.1f%%, 90%% within %.1f%%%s\n"):format(r.kind, r.steps, 100 * r.median,
      100 * r.p90, r.r2 and (", R² %.4f"):format(r.r2) or ""))
  end
  for _, name in ipairs(calibrate.names) do
    file:write(("%s = %.6g\n"):format(name, name == "noise" and fit.noise or fit.coefficients[name]))
  end
  file:close()
end

return calibrate

-- SPDX-License-Identifier: MIT
-- Figures of values that come one after the other and resemble their neighbours, as latencies in
-- one run do: an interval that took them for independent would be far too narrow.
--
--   batch_means(v[, { batches = 20, level = 0.95 }])   → { value, low, high, half, n }
--   block_bootstrap(v[, { block = …, statistic = …, level, resamples, seed }])   → { value, low, high }
--   mser5(v)      → how many of the first values are warm-up (nil: it never settled)
--   settled(run)  → { settled, utilisation, growth, grown, warning }
--
-- Between runs with seeds of their own nothing of this is needed: see stats.mean_ci.
local check         = require "lathe.check"
local core          = require "lathe.core"
local distributions = require "lathe.stats_distributions"
local random        = require "lathe.random"

local series = {}

local BLOCK_STREAM <const> = 8

local function mean_of(values, from, to)
  local sum = 0
  for i = from, to do sum = sum + values[i] end
  return sum / (to - from + 1)
end

-- Student's interval of a mean, of values taken as independent.
local function student(values, level)
  local n, mean, sum = #values, mean_of(values, 1, #values), 0
  for _, v in ipairs(values) do sum = sum + (v - mean) ^ 2 end
  local half = distributions.student_quantile(0.5 + level / 2, n - 1) * math.sqrt(sum / (n - 1) / n)
  return { value = mean, low = mean - half, high = mean + half, half = half, n = n }
end
series.student = student

-- Means of stretches of equal length, taken as independent (Schmeiser, Operations Research 30,
-- 1982: 10 to 30 of them). What doesn't divide is left out at the front, where warm-up is.
function series.batch_means(values, wishes)
  local what <const> = "stats.batch_means"
  wishes = wishes or {}
  check.samples(what, values, 4)
  check.fields(what, wishes, { "batches", "level" })
  local batches = check.integer(what, wishes, "batches", 2, 1000, math.min(20, #values // 2))
  local level = check.number(what, wishes, "level", 0.5, 0.9999, 0.95)
  local length = #values // batches
  if length < 1 then core.fail(("%s: %d values don't make %d batches"):format(what, #values, batches)) end
  local first, means = #values - batches * length, {}
  for i = 1, batches do means[i] = mean_of(values, first + (i - 1) * length + 1, first + i * length) end
  return student(means, level)
end

-- Stretches drawn with replacement, the end joined to the beginning (circular: Politis and Romano
-- 1992). A block as long as n^(1/2), unless given: long enough for neighbours to stay together.
function series.block_bootstrap(values, wishes)
  local what <const> = "stats.block_bootstrap"
  wishes = wishes or {}
  check.samples(what, values, 4)
  check.fields(what, wishes, { "block", "statistic", "level", "resamples", "seed" })
  local n = #values
  local statistic = wishes.statistic or function(v) return mean_of(v, 1, #v) end
  local block = check.integer(what, wishes, "block", 1, n, math.ceil(math.sqrt(n)))
  local level = check.number(what, wishes, "level", 0.5, 0.9999, 0.95)
  local resamples = check.integer(what, wishes, "resamples", 100, 1000000, 1000)
  local seed = check.integer(what, wishes, "seed", 0, math.maxinteger, 1)
  local found, sample, drawn = {}, {}, 0
  for r = 1, resamples do
    local filled = 0
    while filled < n do
      local start = random.index(n, seed, random.USER, BLOCK_STREAM, drawn)
      drawn = drawn + 1
      for i = 0, math.min(block, n - filled) - 1 do sample[filled + i + 1] = values[(start - 1 + i) % n + 1] end
      filled = filled + math.min(block, n - filled)
    end
    found[r] = statistic(sample)
  end
  table.sort(found)
  local tail = (1 - level) / 2
  local function at(p) return found[math.max(1, math.min(resamples, math.floor(p * (resamples - 1) + 1.5)))] end
  return { value = statistic(values), low = at(tail), high = at(1 - tail), block = block }
end

-- MSER-5 (White, Cobb and Spratt 2000): means of five, and the cut that makes the standard error of
-- what is left smallest. A cut in the second half says that the series was too short to settle.
function series.mser5(values)
  check.samples("stats.mser5", values, 20)
  local fives = {}
  for i = 1, #values // 5 do fives[i] = mean_of(values, 5 * i - 4, 5 * i) end
  local sum, squares, best, cut = 0, 0, math.huge, 0
  for d = #fives, 1, -1 do
    sum, squares = sum + fives[d], squares + fives[d] ^ 2
    local n = #fives - d + 1
    local error_squared = math.max(0, squares - sum * sum / n) / (n * n)
    if n >= 5 and error_squared <= best then best, cut = error_squared, d - 1 end
  end
  if cut > #fives // 2 then return nil end
  return 5 * cut
end

-- Slope of y over x by least squares, with Student's interval.
local function slope_of(x, y, level)
  local n, mx, my, sxx, sxy = #x, mean_of(x, 1, #x), mean_of(y, 1, #y), 0, 0
  for i = 1, n do
    sxx = sxx + (x[i] - mx) ^ 2
    sxy = sxy + (x[i] - mx) * (y[i] - my)
  end
  local slope, rest = sxx > 0 and sxy / sxx or 0, 0
  for i = 1, n do rest = rest + (y[i] - my - slope * (x[i] - mx)) ^ 2 end
  local half = sxx > 0 and distributions.student_quantile(0.5 + level / 2, n - 2) * math.sqrt(rest / (n - 2) / sxx) or 0
  return slope, half
end

local STRETCHES <const> = 10

-- Of each of ten equal stretches of the arrivals' time, after its first tenth: the mean number of
-- requests in the system. From request rows, which every recorded run has.
local BY_STRETCH <const> = [[
  with recursive bounds as (select max(planned_ns) as last, count(*) as requests from request where run_id = :run),
  stretch (i) as (select 0 union all select i + 1 from stretch where i < 9),
  part as (select i, last / 10 + i * (last - last / 10) / 10 as a, last / 10 + (i + 1) * (last - last / 10) / 10 as b, last, requests
             from stretch, bounds)
  select i, requests, last / 1e9 as last,
         (select sum(max(0, min(coalesce(finish_ns, last), b) - max(planned_ns, a))) from request where run_id = :run) * 1.0
           / max(1, b - a) as inside
    from part order by i]]
-- How much of the arrivals' time steps took, where steps have rows.
local BUSY <const> = [[
  select sum(min(end_ns, last) - start_ns) * 1.0 / last / count(distinct replica) as busy
    from step, (select max(planned_ns) as last from request where run_id = :run) where run_id = :run and start_ns < last]]

-- Did the queue come to rest while requests were still arriving? The mean number in the system must not
-- climb from stretch to stretch. `growth` is in requests a second, `grown` how many the queue gained so;
-- `utilisation` is there if steps were recorded. Figures of a run that never settled are figures of how
-- long it was.
function series.settled(run)
  local rows, result = run:query(BY_STRETCH), { settled = true }
  local last = rows[1] and rows[1].last
  if not last or last <= 0 or rows[1].requests < 5 * STRETCHES then
    result.warning = "too few requests, or all at once: nobody can say whether the queue settled"
    result.settled = nil
    return result
  end
  local x, y, length = {}, {}, 0.9 * last / STRETCHES
  for i, row in ipairs(rows) do x[i], y[i] = (i - 0.5) * length, row.inside end
  local slope, half = slope_of(x, y, 0.99)
  result.utilisation = run:query(BUSY)[1].busy
  result.growth, result.grown = slope, slope * length * STRETCHES
  if slope - half > 0 and result.grown > math.max(2, 0.5 * mean_of(y, 1, STRETCHES)) then
    result.settled = false
    result.warning = ("the queue never settled: it grew by %.2g requests a second to the end%s; latencies say how long the run "
      .. "was, so lower the rate"):format(slope, result.utilisation and (" (%.0f%% busy)"):format(100 * result.utilisation) or "")
  end
  return result
end

return series
